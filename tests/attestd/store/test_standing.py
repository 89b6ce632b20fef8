"""On what does a token or a credential rest? Every row that decides, and nothing when one is missing."""

from dataclasses import replace

import pytest

from attestd.store import credentials, devices, standing, tokens
from attestd.store.standing import Standing
from attestd.store.store import Store
from tests.attestd.store.records import NOW, ONE, TWO, device, issued
from tests.attestd.store.test_tokens import keep, token

END = NOW + 300_000


@pytest.fixture
def family(store: Store) -> Store:
    """A token of one machine that another passed on, with the credential of each."""
    rows = (issued("serial-1"), replace(issued("serial-2"), device_id=TWO))
    store.write(lambda tx: credentials.insert_all(tx, rows))
    for device_id in (ONE, TWO):
        store.write(lambda tx, device_id=device_id: devices.insert(tx, device(device_id)))
    assert all(keep(store, token("first"), token("second", "first", device_id=TWO, credential_id="serial-2")))
    return store


def line(store: Store, token_id: str) -> list[Standing]:
    return store.read(lambda tx: standing.of_line(tx, token_id))


def test_a_line_is_every_token_with_its_machine(family: Store) -> None:
    found = line(family, "second")
    assert {each.device_id for each in found} == {ONE, TWO}
    for each in found:
        assert each.is_live(NOW)
        assert not each.is_live(END)
        assert (each.reset_count, each.restart_count, each.root_sha256) == (4, 1, "ab" * 32)
        kept = family.read(lambda tx, device_id=each.device_id: devices.find(tx, device_id))
        assert kept is not None
        assert each.machine is not None
        for name in standing.Machine.__slots__:
            assert getattr(each.machine, name) == getattr(kept, name)
    assert [each.device_id for each in line(family, "first")] == [ONE]


def test_a_token_that_nobody_knows_has_no_line(family: Store) -> None:
    assert line(family, "nobody") == []
    family.write(lambda tx: tx.execute("DELETE FROM tokens WHERE token_id = 'first'"))
    assert line(family, "second") == []


def test_a_token_ends_with_its_own_end_its_credentials_and_its_credentials_row(family: Store) -> None:
    assert all(each.is_live(NOW) for each in line(family, "second"))
    family.write(lambda tx: credentials.end_for_device(tx, TWO, reason="banned", now=NOW))
    assert [each.device_id for each in line(family, "second") if each.is_live(NOW)] == [ONE]
    family.write(lambda tx: tx.execute("DELETE FROM credentials WHERE credential_id = 'serial-1'"))
    assert not any(each.is_live(NOW) for each in line(family, "second"))


def test_a_revoked_token_is_dead_in_the_line_of_all_that_descends(family: Store) -> None:
    family.write(lambda tx: tokens.revoke(tx, "second", "revoked", NOW))
    assert [each.is_live(NOW) for each in line(family, "first")] == [True]
    assert [each.device_id for each in line(family, "second") if not each.is_live(NOW)] == [TWO]


def test_a_machine_that_is_gone_is_none(family: Store) -> None:
    family.write(lambda tx: tx.execute("DELETE FROM device_labels"))
    family.write(lambda tx: tx.execute("DELETE FROM devices WHERE device_id = ?", (ONE,)))
    assert [each.machine for each in line(family, "first")] == [None]


def test_a_credential_is_found_as_it_was_issued_and_not_otherwise(family: Store) -> None:
    kept = issued("serial-1")
    same = {
        "credential_format": kept.format,
        "spiffe_id": kept.spiffe_id,
        "thumbprint": kept.key_thumbprint or "",
    }
    found = family.read(lambda tx: standing.of_credential(tx, "serial-1", **same))
    assert found is not None
    assert (found.device_id, found.expires_at, found.is_live(NOW)) == (kept.device_id, kept.expires_at, True)
    for other in ({"credential_format": "wit"}, {"spiffe_id": "spiffe://x/y"}, {"thumbprint": ""}):
        assert (
            family.read(lambda tx, other=other: standing.of_credential(tx, "serial-1", **(same | other)))
            is None
        )
    assert family.read(lambda tx: standing.of_credential(tx, "serial-9", **same)) is None
