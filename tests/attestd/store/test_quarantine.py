"""Are refused makers kept once each, within bounds that nobody can push the others out of?"""

from dataclasses import replace

from attestd.store import quarantine
from attestd.store.quarantine import HOLD_MS, KEEP_MS, MAX_MAKERS, REFRESH_MS, QuarantinedMaker
from attestd.store.store import Store
from tests.attestd.store.records import NOW

MAKER = QuarantinedMaker(
    issuer_sha256="ab" * 32,
    issuer="CN=Maker CA",
    manufacturer="IFX",
    model=None,
    certificate=b"certificate",
    chain=(b"one", b"two"),
    first_at=NOW,
    last_at=NOW,
)


def note(store: Store, maker: QuarantinedMaker, now: int) -> bool:
    return store.write(lambda tx: quarantine.note(tx, replace(maker, first_at=now, last_at=now), now))


def kept(store: Store) -> list[QuarantinedMaker]:
    return store.read(quarantine.list_all)


def other(number: int) -> QuarantinedMaker:
    return replace(MAKER, issuer_sha256=f"{number:064x}")


def test_a_maker_is_kept_as_it_came(store: Store) -> None:
    assert note(store, MAKER, NOW)
    assert kept(store) == [MAKER]


def test_a_maker_that_comes_again_is_one_row_and_written_once_a_minute(store: Store) -> None:
    note(store, MAKER, NOW)
    later = replace(MAKER, certificate=b"another", chain=())
    assert not note(store, later, NOW + REFRESH_MS - 1)
    assert kept(store) == [MAKER]
    assert note(store, later, NOW + REFRESH_MS)
    assert kept(store) == [replace(later, times=2, first_at=NOW, last_at=NOW + REFRESH_MS)]


def test_a_flood_of_makers_does_not_push_out_the_fresh_ones(store: Store) -> None:
    for number in range(MAX_MAKERS):
        assert note(store, other(number), NOW + number)
    assert not note(store, MAKER, NOW + MAX_MAKERS)
    assert not store.read(lambda tx: quarantine.is_due(tx, MAKER.issuer_sha256, NOW + MAX_MAKERS))
    assert len(kept(store)) == MAX_MAKERS
    # The oldest gives way once it has had its time.
    assert note(store, MAKER, NOW + HOLD_MS)
    found = {one.issuer_sha256 for one in kept(store)}
    assert len(found) == MAX_MAKERS
    assert MAKER.issuer_sha256 in found
    assert other(0).issuer_sha256 not in found
    assert other(1).issuer_sha256 in found


def test_a_maker_is_removed_or_forgotten_in_time(store: Store) -> None:
    note(store, MAKER, NOW)
    assert store.write(lambda tx: quarantine.purge(tx, NOW + KEEP_MS - KEEP_MS)) == 0
    assert store.write(lambda tx: quarantine.purge(tx, NOW + 1)) == 1
    note(store, MAKER, NOW)
    assert store.write(lambda tx: quarantine.remove(tx, MAKER.issuer_sha256))
    assert not store.write(lambda tx: quarantine.remove(tx, MAKER.issuer_sha256))
    assert kept(store) == []
