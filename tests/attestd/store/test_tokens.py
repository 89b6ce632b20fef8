"""Are tokens kept with what they descend from, and do they fall with it?"""

from dataclasses import replace
from typing import Any

import pytest

from attestd.store import tokens
from attestd.store.maintenance import TOKEN_DAYS, maintain
from attestd.store.store import Store
from attestd.store.tokens import Token
from tests.attestd.store.records import DAY, NOW, ONE, TWO
from tests.attestd.store.signing import AuditKey


def token(token_id: str, *parents: str, **changes: Any) -> Token:
    values: dict[str, Any] = {
        "token_id": token_id,
        "device_id": ONE,
        "client_id": f"spiffe://example.org/agent/telemetry/{ONE}",
        "agent": "telemetry",
        "subject": "alice",
        "audience": ("https://tools.example.org", "https://ledger.example.org"),
        "scope": "read write",
        "authorization_details": '[{"type":"transfer"}]',
        "confirmation": '{"jkt":"thumb"}',
        "actors": '{"sub":"spiffe://example.org/agent/telemetry/x"}',
        "depth": 1,
        "credential_id": "serial-1",
        "attestation_id": "attestation-1",
        "parents": parents,
        "reset_count": 4,
        "restart_count": 1,
        "root_sha256": "ab" * 32,
        "policy_name": "edge",
        "policy_version": 3,
        "issued_at": NOW,
        "expires_at": NOW + 300_000,
    }
    return Token(**(values | changes))


def keep(store: Store, *rows: Token) -> list[bool]:
    return store.write(lambda tx: [tokens.insert(tx, row) for row in rows])


def line(store: Store, token_id: str, now: int = NOW) -> list[str]:
    found = store.read(lambda tx: tokens.live_line(tx, token_id, now=now))
    return [each.token_id for each in found]


def revoke(store: Store, token_id: str) -> int:
    return store.write(lambda tx: tokens.revoke(tx, token_id, "revoked", NOW))


@pytest.fixture
def family(store: Store) -> Store:
    """user ← first ← second ← third, with a sibling, a token of two parents, and a stranger."""
    assert all(
        keep(
            store,
            token("first"),
            token("second", "first", issued_at=NOW + 1),
            token("third", "second", issued_at=NOW + 2),
            token("sibling", "first", issued_at=NOW + 2),
            token("other", device_id=TWO),
            token("both", "sibling", "other", issued_at=NOW + 3),
        )
    )
    return store


def test_a_token_is_kept_and_found(store: Store) -> None:
    bare = token(
        "bare", authorization_details=None, root_sha256=None, scope="", subject_issuer="https://login.example"
    )
    assert keep(store, token("full"), bare) == [True, True]
    assert store.read(lambda tx: tokens.get(tx, "full")) == token("full")
    assert store.read(lambda tx: tokens.get(tx, "bare")) == bare
    assert store.read(lambda tx: tokens.get(tx, "nobody")) is None


def test_mt_6_one_identifier_is_given_to_one_token_only(store: Store) -> None:
    keep(store, token("one"))
    with pytest.raises(Exception, match=r"(?i)unique"):
        keep(store, token("zero"), token("one", device_id=TWO))
    assert store.read(lambda tx: tokens.get(tx, "zero")) is None


def test_a_line_is_the_token_and_all_that_it_descends_from(family: Store) -> None:
    assert line(family, "third") == ["third", "second", "first"]
    assert line(family, "first") == ["first"]
    assert line(family, "both")[0] == "both"
    assert set(line(family, "both")) == {"both", "sibling", "first", "other"}
    assert family.read(lambda tx: tokens.live_line(tx, "third", now=NOW))[0] == token(
        "third", "second", issued_at=NOW + 2
    )
    assert line(family, "nobody") == []


def test_oa_9_what_descends_from_a_revoked_token_falls_with_it(family: Store) -> None:
    assert revoke(family, "second") == 2
    assert line(family, "second") == line(family, "third") == []
    assert line(family, "first") == ["first"]
    assert line(family, "sibling") == ["sibling", "first"]
    fallen = family.read(lambda tx: tokens.get(tx, "third"))
    assert fallen == replace(
        token("third", "second", issued_at=NOW + 2), revoked_at=NOW, revoked_reason="revoked"
    )


def test_oa_9_one_parent_of_several_is_enough_to_fall(family: Store) -> None:
    assert revoke(family, "other") == 2
    assert line(family, "both") == []
    assert line(family, "sibling") == ["sibling", "first"]


def test_a_root_takes_all_of_its_family_and_nobody_else(family: Store) -> None:
    assert revoke(family, "first") == 5
    assert [line(family, each) for each in ("first", "second", "third", "sibling", "both")] == [[]] * 5
    assert line(family, "other") == ["other"]


def test_what_is_revoked_or_unknown_is_revoked_once(family: Store) -> None:
    assert (revoke(family, "second"), revoke(family, "second"), revoke(family, "nobody")) == (2, 0, 0)
    assert revoke(family, "first") == 3


def test_an_ended_parent_between_does_not_stop_the_fall(family: Store) -> None:
    """`third` is reached through `second`, though that one has ended before."""
    family.write(lambda tx: tx.execute("UPDATE tokens SET revoked_at = 1 WHERE token_id = 'second'"))
    assert revoke(family, "first") == 4
    third = family.read(lambda tx: tokens.get(tx, "third"))
    assert third is not None
    assert third.revoked_at == NOW


@pytest.mark.parametrize("ancestor", ["first", "second", "third"])
def test_a_line_ends_when_the_first_of_it_expires(family: Store, ancestor: str) -> None:
    family.write(
        lambda tx: tx.execute("UPDATE tokens SET expires_at = ? WHERE token_id = ?", (NOW + 9, ancestor))
    )
    assert line(family, "third", NOW + 8) == ["third", "second", "first"]
    assert line(family, "third", NOW + 9) == []


def test_a_line_with_a_forgotten_ancestor_is_dead(family: Store) -> None:
    family.write(lambda tx: tx.execute("DELETE FROM tokens WHERE token_id = 'first'"))
    assert line(family, "third") == []
    assert line(family, "other") == ["other"]


@pytest.mark.parametrize("ended", ["revoked", "above", "expired", "unknown"])
def test_oa_9_no_token_is_recorded_below_one_that_has_ended(family: Store, ended: str) -> None:
    """The check is in the transaction that records, so a revocation cannot slip in between."""
    child = token("child", "other", "unknown" if ended == "unknown" else "third", issued_at=NOW + 5)
    match ended:
        case "revoked":
            revoke(family, "third")
        case "above":
            revoke(family, "first")
        case "expired":
            child = replace(child, issued_at=NOW + 300_000, expires_at=NOW + 600_000)
    assert keep(family, child) == [False]
    assert family.read(lambda tx: tokens.get(tx, "child")) is None
    assert keep(family, token("heir", "other", issued_at=NOW + 5)) == [True]


def test_a_devices_tokens_are_listed_in_order(family: Store) -> None:
    def listed(live_at: int | None = None) -> list[str]:
        found = family.read(lambda tx: tokens.list_for_device(tx, ONE, live_at=live_at))
        return [each.token_id for each in found]

    assert listed() == ["first", "second", "sibling", "third", "both"]
    revoke(family, "sibling")
    assert listed(NOW) == ["first", "second", "third"]
    assert listed(NOW + DAY) == []


def test_expired_tokens_are_forgotten_with_their_lines(family: Store, audit_key: AuditKey) -> None:
    def rows(table: str) -> int:
        return int(family.read(lambda tx: tx.execute(f"SELECT COUNT(*) AS n FROM {table}").fetchone()["n"]))

    def maintained(now: int) -> None:
        maintain(family, audit_key, now=now, skew_seconds=5, pending_seconds=60)

    maintained(NOW + 300_000 + TOKEN_DAYS * DAY)
    assert (rows("tokens"), rows("token_parents")) == (6, 5)
    maintained(NOW + 300_001 + TOKEN_DAYS * DAY)
    assert (rows("tokens"), rows("token_parents")) == (0, 0)
