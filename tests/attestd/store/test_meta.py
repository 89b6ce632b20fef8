"""Does the store know its own life: epoch, time, generation, keys?"""

from attestd.store import meta
from attestd.store.store import Store
from tests.attestd.store.records import NOW

SKEW = 5000


def test_st_5_every_restore_begins_another_epoch_even_of_the_same_backup(store: Store) -> None:
    assert store.read(meta.epoch) == 1
    first = store.write(lambda tx: meta.raise_epoch(tx, NOW))
    store.write(lambda tx: meta.put(tx, "epoch", "1"))  # the same backup, put back a second time
    second = store.write(lambda tx: meta.raise_epoch(tx, NOW + 1))
    assert 1 < first < second == store.read(meta.epoch)
    assert store.write(lambda tx: meta.raise_epoch(tx, 0)) == second + 1  # whatever the clock says


def test_st_3_a_clock_that_went_back_beyond_the_skew_refuses(store: Store) -> None:
    advance = lambda now: store.write(lambda tx: meta.advance_time(tx, now, SKEW))  # noqa: E731
    assert advance(NOW)
    assert advance(NOW - SKEW)
    assert not advance(NOW - SKEW - 1)
    assert store.read(meta.highest_time) == NOW
    assert advance(NOW + 1)


def test_the_highest_time_is_written_once_a_second_at_most(store: Store) -> None:
    for now, kept in ((NOW, NOW), (NOW + 999, NOW), (NOW + 1000, NOW + 1000), (NOW + 1500, NOW + 1000)):
        assert store.write(lambda tx, now=now: meta.advance_time(tx, now, SKEW))
        assert store.read(meta.highest_time) == kept


def test_the_first_replicas_keys_are_everyones(store: Store) -> None:
    agree = lambda name, print_: store.write(lambda tx: meta.agree_on_key(tx, name, print_))  # noqa: E731
    assert agree("nonce", "aa")
    assert agree("nonce", "aa")
    assert not agree("nonce", "bb")
    assert agree("audit", "cc")
    assert store.read(meta.fingerprints) == {"audit": "cc", "nonce": "aa"}
    store.write(lambda tx: meta.replace_key(tx, "nonce", "bb"))
    assert agree("nonce", "bb")
    assert not agree("nonce", "aa")
