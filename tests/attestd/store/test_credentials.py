"""Are issued credentials kept, and dead as soon as what they rest on is gone?"""

from dataclasses import replace

import pytest

from attestd.store import credentials, sealed_keys
from attestd.store.sealed_keys import Sealed
from attestd.store.store import Store
from tests.attestd.store.records import DAY, NOW, ONE, TWO, issued

SEALED = Sealed(
    sealed_id="s-1",
    attestation_id="a-1",
    device_id=ONE,
    name="disk",
    version=1,
    kind="secret-32",
    parent="ek",
    policy_digest="aa" * 32,
    public_name="000b" + "bb" * 32,
    created_at=NOW,
)


def _live(store: Store, device_id: str = ONE, now: int = NOW) -> list[str]:
    found = store.read(lambda tx: credentials.list_for_device(tx, device_id, live_at=now))
    return [each.credential_id for each in found]


@pytest.fixture
def fleet(store: Store) -> Store:
    rows = [
        issued("this-boot"),
        issued("last-boot", restart_count=0),
        issued("before-reset", reset_count=3),
        issued("expired", expires_at=NOW),
        issued("others", device_id=TWO, key_thumbprint=None, root_sha256=None),
    ]
    store.write(lambda tx: credentials.insert_all(tx, rows))
    return store


def test_a_credential_is_kept_and_found(store: Store) -> None:
    row = issued("serial-1", key_thumbprint=None, root_sha256=None)
    store.write(lambda tx: credentials.insert_all(tx, [row]))
    assert store.read(lambda tx: credentials.get(tx, "serial-1")) == row
    assert store.read(lambda tx: credentials.get(tx, "serial-2")) is None


def test_mt_6_one_identifier_is_given_to_one_credential_only(store: Store) -> None:
    store.write(lambda tx: credentials.insert_all(tx, [issued("serial-1")]))
    with pytest.raises(Exception, match=r"(?i)unique"):
        store.write(
            lambda tx: credentials.insert_all(tx, [issued("serial-0"), issued("serial-1", device_id=TWO)])
        )
    assert store.read(lambda tx: credentials.get(tx, "serial-0")) is None


def test_a_new_boot_ends_what_was_issued_to_others(fleet: Store) -> None:
    ended = fleet.write(
        lambda tx: credentials.end_for_device(tx, ONE, reason="new_boot", now=NOW, except_boot=(4, 1))
    )
    assert ended == 2
    assert _live(fleet) == ["this-boot"]
    assert _live(fleet, TWO) == ["others"]
    dead = fleet.read(lambda tx: credentials.get(tx, "before-reset"))
    assert dead == replace(issued("before-reset", reset_count=3), revoked_at=NOW, revoked_reason="new_boot")


def test_a_ban_ends_all_of_one_device_once(fleet: Store) -> None:
    end = lambda: fleet.write(lambda tx: credentials.end_for_device(tx, ONE, reason="banned", now=NOW))  # noqa: E731
    assert end() == 3
    assert end() == 0
    assert _live(fleet) == []
    assert fleet.read(lambda tx: credentials.count_live(tx, NOW)) == 1


def test_a_withdrawn_root_ends_what_it_vouched_for(fleet: Store) -> None:
    ended = fleet.write(lambda tx: credentials.end_for_root(tx, "ab" * 32, reason="root_withdrawn", now=NOW))
    assert ended == 3
    assert _live(fleet) == []
    assert _live(fleet, TWO) == ["others"]


def test_a_key_is_bound_elsewhere_while_another_devices_credential_for_it_lives(fleet: Store) -> None:
    bound = lambda key, device_id, now=NOW: fleet.read(  # noqa: E731
        lambda tx: credentials.bound_elsewhere(tx, key, device_id, now=now)
    )
    assert bound("thumb", TWO)
    assert not bound("thumb", ONE)
    assert not bound("other", TWO)
    assert not bound("thumb", TWO, NOW + 600_000)
    fleet.write(lambda tx: credentials.end_for_device(tx, ONE, reason="banned", now=NOW))
    assert not bound("thumb", TWO)


def test_a_credential_is_live_until_the_moment_it_expires(fleet: Store) -> None:
    assert _live(fleet) == ["before-reset", "last-boot", "this-boot"]
    assert _live(fleet, now=NOW - 1) == ["before-reset", "expired", "last-boot", "this-boot"]
    assert fleet.read(lambda tx: credentials.count_live(tx, NOW)) == 4
    assert fleet.read(lambda tx: credentials.count_live(tx, NOW + DAY)) == 0


JWK = '{"alg":"ES256","crv":"P-256","kty":"EC"}'
SPIFFE_ID = issued("any").spiffe_id


@pytest.fixture
def clients(store: Store) -> Store:
    """What one client has, and what must not be taken for it."""
    rows = [
        issued("svid", key_jwk=JWK, resident=True),
        issued("wit", key_jwk=JWK, format="wit-svid", expires_at=NOW + 700_000),
        issued("other-key", key_jwk=JWK, key_thumbprint="another", expires_at=NOW + 800_000),
        issued("foreign", key_jwk=JWK, spiffe_id=SPIFFE_ID + "0", expires_at=NOW + 900_000),
        issued("unknown-key", key_jwk=None, expires_at=NOW + 900_000),
        issued("bearer", key_thumbprint=None, format="jwt-svid", expires_at=NOW + 900_000),
        issued("revoked", key_jwk=JWK, expires_at=NOW + 900_000, revoked_at=NOW, revoked_reason="banned"),
        issued("expired", key_jwk=JWK, expires_at=NOW),
    ]
    store.write(lambda tx: credentials.insert_all(tx, rows))
    return store


def test_a_client_is_found_by_its_name_and_the_key_that_it_proves(clients: Store) -> None:
    def find(thumbprint: str, spiffe_id: str = SPIFFE_ID, **wanted: str) -> str | None:
        found = clients.read(lambda tx: credentials.find_bound(tx, spiffe_id, thumbprint, NOW, **wanted))
        return None if found is None else found.credential_id

    assert find("thumb") == "wit"
    assert find("thumb", credential_format="x509-svid") == "svid"
    assert find("another") == "other-key"
    assert find("thumb", SPIFFE_ID + "0") == "foreign"
    assert find("thumb", credential_format="client-attestation") is None
    assert find("nobody") is find("thumb", "spiffe://example.org/nobody") is None


def test_only_live_credentials_with_a_known_key_make_a_client(clients: Store) -> None:
    def bound(now: int) -> list[str]:
        found = clients.read(lambda tx: credentials.list_bound(tx, SPIFFE_ID, now))
        return [each.credential_id for each in found]

    assert bound(NOW) == ["other-key", "wit", "svid"]
    assert bound(NOW + 650_000) == ["other-key", "wit"]
    clients.write(lambda tx: credentials.end_for_device(tx, ONE, reason="banned", now=NOW))
    assert bound(NOW) == []


def test_where_a_key_lives_is_kept_with_it(clients: Store) -> None:
    svid = clients.read(lambda tx: credentials.get(tx, "svid"))
    wit = clients.read(lambda tx: credentials.get(tx, "wit"))
    assert svid is not None
    assert wit is not None
    assert (svid.key_jwk, svid.resident, wit.resident) == (JWK, True, False)


def test_expired_credentials_are_forgotten_when_told(fleet: Store) -> None:
    assert fleet.write(lambda tx: credentials.purge(tx, NOW)) == 0
    assert fleet.write(lambda tx: credentials.purge(tx, NOW + 1)) == 1
    assert fleet.read(lambda tx: credentials.get(tx, "expired")) is None


def test_each_sealed_key_of_a_name_is_a_new_version(store: Store) -> None:
    def seal(device_id: str, name: str) -> int:
        def work(tx) -> int:
            version = sealed_keys.next_version(tx, device_id, name)
            sealed_id = f"{device_id[:2]}-{name}-{version}"
            sealed_keys.insert(
                tx, replace(SEALED, sealed_id=sealed_id, device_id=device_id, name=name, version=version)
            )
            return version

        return store.write(work)

    asked = [(ONE, "disk"), (ONE, "disk"), (ONE, "vpn"), (TWO, "disk"), (ONE, "disk")]
    assert [seal(*each) for each in asked] == [1, 2, 1, 1, 3]
    listed = store.read(lambda tx: sealed_keys.list_for_device(tx, ONE))
    assert [(each.name, each.version) for each in listed] == [
        ("disk", 1),
        ("disk", 2),
        ("disk", 3),
        ("vpn", 1),
    ]
    assert listed[0] == replace(SEALED, sealed_id="1f-disk-1")


def test_ks_5_the_store_has_no_place_for_a_secret() -> None:
    public = {"policy_digest", "public_name", "parent", "kind"}
    found_by = {"sealed_id", "attestation_id", "device_id", "name", "version", "created_at"}
    assert set(Sealed.__slots__) == public | found_by
