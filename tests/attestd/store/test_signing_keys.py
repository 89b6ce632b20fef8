"""Does one key of a use sign, and is each published as long as something that it signed lives?"""

from dataclasses import replace

from attestd.store import signing_keys
from attestd.store.signing_keys import SigningKey
from attestd.store.store import Store
from tests.attestd.store.records import NOW

KEY = SigningKey(
    kid="k-1",
    use="jwt",
    alg="ES256",
    state="published",
    fingerprint="aa" * 32,
    created_at=NOW,
    published_at=NOW,
)
MINUTE = 60_000


def _insert(store: Store, **changes) -> SigningKey:
    key = replace(KEY, **changes)
    store.write(lambda tx: signing_keys.insert(tx, key))
    return key


def _find(store: Store, kid: str = "k-1") -> SigningKey | None:
    return store.read(lambda tx: signing_keys.find(tx, kid))


def test_a_key_is_kept_and_listed_by_use(store: Store) -> None:
    one, two = _insert(store), _insert(store, kid="k-0", use="x509", created_at=NOW + 1)
    assert _find(store) == one
    assert _find(store, "k-9") is None
    assert store.read(signing_keys.list_all) == [one, two]
    assert store.read(lambda tx: signing_keys.list_all(tx, use="x509")) == [two]


def test_activating_a_key_leaves_the_one_before_it_published(store: Store) -> None:
    one, two, other = (
        _insert(store),
        _insert(store, kid="k-2"),
        _insert(store, kid="k-3", use="x509", state="active"),
    )
    assert store.write(lambda tx: signing_keys.activate(tx, "k-1", NOW + 1))
    assert _find(store) == replace(one, state="active", activated_at=NOW + 1)
    assert store.write(lambda tx: signing_keys.activate(tx, "k-2", NOW + 2))
    assert _find(store) == replace(one, state="published", activated_at=NOW + 1)
    assert _find(store, "k-2") == replace(two, state="active", activated_at=NOW + 2)
    assert _find(store, "k-3") == other


def test_only_a_published_key_can_be_activated(store: Store) -> None:
    _insert(store, state="retired", retired_at=NOW)
    _insert(store, kid="k-2", state="active")
    for kid in ("k-1", "k-2", "k-9"):
        assert not store.write(lambda tx, kid=kid: signing_keys.activate(tx, kid, NOW))
    assert _find(store, "k-2") == replace(KEY, kid="k-2", state="active")


def test_mt_9_a_key_is_published_until_the_last_thing_that_it_signed_has_ended(store: Store) -> None:
    _insert(store, state="active")
    assert store.write(lambda tx: signing_keys.note_expiry(tx, "k-1", 10 * MINUTE - 1))
    assert not store.write(lambda tx: signing_keys.retire(tx, "k-1", 11 * MINUTE))  # signs still
    _insert(store, kid="k-2")
    store.write(lambda tx: signing_keys.activate(tx, "k-2", NOW))
    assert not store.write(lambda tx: signing_keys.retire(tx, "k-1", 10 * MINUTE - 1))
    assert store.write(lambda tx: signing_keys.retire(tx, "k-1", 10 * MINUTE))
    retired = _find(store)
    assert retired is not None
    assert (retired.state, retired.retired_at) == ("retired", 10 * MINUTE)
    assert not store.write(lambda tx: signing_keys.retire(tx, "k-1", NOW))
    assert not store.write(lambda tx: signing_keys.retire(tx, "k-9", NOW))


def test_the_last_expiry_only_grows_and_is_kept_to_the_full_minute(store: Store) -> None:
    _insert(store, state="active")
    for expires_at, kept in ((1, 1), (MINUTE, 1), (MINUTE + 1, 2), (3 * MINUTE - 1, 3), (5, 3)):
        assert store.write(lambda tx, e=expires_at: signing_keys.note_expiry(tx, "k-1", e))
        found = _find(store)
        assert found is not None
        assert found.last_expiry == kept * MINUTE


def test_a_key_that_has_just_handed_over_still_counts_until_it_is_retired(store: Store) -> None:
    _insert(store)
    _insert(store, kid="k-2")
    store.write(lambda tx: signing_keys.activate(tx, "k-1", NOW))
    store.write(lambda tx: signing_keys.activate(tx, "k-2", NOW))
    assert store.write(lambda tx: signing_keys.note_expiry(tx, "k-1", MINUTE))
    assert store.write(lambda tx: signing_keys.retire(tx, "k-1", MINUTE))
    assert not store.write(lambda tx: signing_keys.note_expiry(tx, "k-1", MINUTE))


def test_a_key_that_never_signed_may_not_have_signed(store: Store) -> None:
    _insert(store)
    assert not store.write(lambda tx: signing_keys.note_expiry(tx, "k-1", NOW))
    assert not store.write(lambda tx: signing_keys.note_expiry(tx, "k-9", NOW))
