"""Do concurrent transactions really share commits in SQLite, and is nobody answered before theirs?"""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from attestd.store import meta
from attestd.store.errors import StoreUnavailable
from attestd.store.sqlite import SqliteEngine
from attestd.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store.open(f"sqlite:{tmp_path / 'attestd.db'}")
    opened.migrate()
    return opened


def _gather(store: Store, works: list) -> list:
    """Run the first work while the others wait behind it, so that they make one group."""
    holding, go_on = threading.Event(), threading.Event()

    def hold(tx) -> None:
        holding.set()
        assert go_on.wait(10)

    with ThreadPoolExecutor(len(works) + 1) as pool:
        first = pool.submit(store.write, hold)
        assert holding.wait(10)
        futures = [pool.submit(store.write, work) for work in works]
        engine = store._engine
        assert isinstance(engine, SqliteEngine)
        while len(engine._here.get().group._waiting) < len(works):
            pass
        go_on.set()
        first.result()
    return futures


def test_who_waits_together_is_committed_together(store: Store) -> None:
    commits: list[str] = []
    store.write(lambda tx: tx.set_trace_callback(commits.append))  # type: ignore[attr-defined]
    commits.clear()
    futures = _gather(store, [lambda tx, n=n: meta.put(tx, f"key-{n}", "here") for n in range(8)])
    assert [future.result() for future in futures] == [None] * 8
    assert commits.count("COMMIT") == 2  # the one that was held, and one for the eight behind it
    assert all(store.read(lambda tx, n=n: meta.get(tx, f"key-{n}")) == "here" for n in range(8))


def test_in_one_group_a_failure_undoes_itself_alone(store: Store) -> None:
    def fail(tx) -> None:
        meta.put(tx, "key-1", "undone")
        raise LookupError("mine")

    futures = _gather(
        store, [lambda tx: meta.put(tx, "key-0", "here"), fail, lambda tx: meta.put(tx, "key-2", "here")]
    )
    with pytest.raises(LookupError, match="mine"):
        futures[1].result()
    assert futures[0].result() is futures[2].result() is None
    assert [store.read(lambda tx, n=n: meta.get(tx, f"key-{n}")) for n in range(3)] == ["here", None, "here"]


def test_in_a_group_that_the_disk_cannot_hold_nobody_is_told_yes(store: Store) -> None:
    store.write(lambda tx: tx.execute("PRAGMA max_page_count = 60"))
    futures = _gather(
        store, [lambda tx: meta.put(tx, "small", "here"), lambda tx: meta.put(tx, "big", "x" * 1_000_000)]
    )
    kept = []
    for name, future in zip(("small", "big"), futures, strict=True):
        try:
            future.result()
            kept.append(name)
        except StoreUnavailable:
            assert store.read(lambda tx, name=name: meta.get(tx, name)) is None
    assert "big" not in kept
    assert all(store.read(lambda tx, name=name: meta.get(tx, name)) == "here" for name in kept)


def test_an_interrupt_in_the_leader_is_not_swallowed_and_undoes_the_group(store: Store) -> None:
    def interrupt(tx) -> None:
        meta.put(tx, "key", "undone")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write(interrupt)
    assert store.read(lambda tx: meta.get(tx, "key")) is None
    store.write(lambda tx: meta.put(tx, "key", "here"))
