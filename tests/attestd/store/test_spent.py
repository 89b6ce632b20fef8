"""Is what was spent once spent for everybody, for as long as it must be?"""

import hashlib
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from attestd.store import enrollments, nonces
from attestd.store.enrollments import SpentEnrollment
from attestd.store.store import Store
from tests.attestd.store.records import NOW, ONE, TWO

NONCE = bytes(range(32))
EXPIRES = NOW + 65_000


def _spend(store: Store, nonce: bytes = NONCE) -> bool:
    return store.write(lambda tx: nonces.spend(tx, nonce, spent_at=NOW, expires_at=EXPIRES))


def test_ch_2_a_nonce_is_spent_once(store: Store) -> None:
    assert _spend(store)
    assert not _spend(store)
    assert _spend(store, bytes(32))
    assert store.read(lambda tx: nonces.is_spent(tx, NONCE))
    assert not store.read(lambda tx: nonces.is_spent(tx, b"\x01" * 32))


def test_ch_2_of_eight_threads_with_one_nonce_exactly_one_wins(store: Store) -> None:
    for _ in range(10):
        nonce = secrets.token_bytes(32)
        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(lambda _, nonce=nonce: _spend(store, nonce), range(8)))
        assert sorted(outcomes) == [False] * 7 + [True]


def test_ch_2_of_two_replicas_with_one_nonce_exactly_one_wins(database: str, store: Store) -> None:
    other = Store.open(database)
    for _ in range(20):
        nonce = secrets.token_bytes(32)
        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(lambda each, nonce=nonce: _spend(each, nonce), (store, other)))
        assert sorted(outcomes) == [False, True]
    other.close()


def test_a_nonce_whose_transaction_was_undone_is_good_still(store: Store) -> None:
    def fail(tx) -> None:
        assert nonces.spend(tx, NONCE, spent_at=NOW, expires_at=EXPIRES)
        raise LookupError

    with pytest.raises(LookupError):
        store.write(fail)
    assert _spend(store)


def test_spent_nonces_go_when_they_have_expired_and_not_before(store: Store) -> None:
    _spend(store)
    assert store.write(lambda tx: nonces.purge(tx, EXPIRES)) == 0
    assert not _spend(store)
    assert store.write(lambda tx: nonces.purge(tx, EXPIRES + 1)) == 1
    assert _spend(store)


def test_ad_5_nonces_are_in_no_file_in_clear(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:{tmp_path / 'attestd.db'}")
    store.migrate()
    canary = secrets.token_bytes(32)
    _spend(store, canary)
    kept = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert canary not in kept
    assert canary.hex().encode() not in kept
    assert hashlib.sha256(canary).digest() in kept


def test_an_enrolment_is_activated_once_and_says_by_whom(store: Store) -> None:
    digest = "cd" * 32

    def spend(device_id: str) -> bool:
        return store.write(
            lambda tx: enrollments.spend(tx, digest, device_id=device_id, ak_name="000b", expires_at=EXPIRES)
        )

    assert store.read(lambda tx: enrollments.find(tx, digest)) is None
    assert spend(ONE)
    assert not spend(TWO)
    expected = SpentEnrollment(digest, ONE, "000b", EXPIRES)
    assert store.read(lambda tx: enrollments.find(tx, digest)) == expected
    assert store.write(lambda tx: enrollments.purge(tx, EXPIRES)) == 0
    assert store.write(lambda tx: enrollments.purge(tx, EXPIRES + 1)) == 1
    assert store.read(lambda tx: enrollments.find(tx, digest)) is None
