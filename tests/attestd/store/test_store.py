"""Does a transaction keep what it promises, on both engines?"""

import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from attestd.store import meta
from attestd.store.engine import Transaction
from attestd.store.errors import NoTables, StoreError, StoreUnavailable
from attestd.store.store import Store

THREADS = 8


class Refused(Exception):
    """What a unit of work raises in these tests."""


def test_what_was_written_is_read(store: Store) -> None:
    store.write(lambda tx: meta.put(tx, "colour", "blue"))
    assert store.read(lambda tx: meta.get(tx, "colour")) == "blue"


def test_a_write_returns_what_its_work_returns(store: Store) -> None:
    assert store.write(lambda tx: meta.epoch(tx) + 41) == 42


def test_an_exception_undoes_everything_and_comes_back(store: Store) -> None:
    def work(tx: Transaction) -> None:
        meta.put(tx, "colour", "red")
        raise Refused("no")

    with pytest.raises(Refused, match="no"):
        store.write(work)
    assert store.read(lambda tx: meta.get(tx, "colour")) is None
    store.write(lambda tx: meta.put(tx, "colour", "green"))
    assert store.read(lambda tx: meta.get(tx, "colour")) == "green"


def test_a_mistake_in_sql_is_not_told_as_an_outage(store: Store) -> None:
    with pytest.raises(Exception, match="nowhere") as caught:
        store.write(lambda tx: tx.execute("SELECT nowhere FROM meta").fetchall())
    assert not isinstance(caught.value, StoreError)


def test_a_read_cannot_write(store: Store) -> None:
    with pytest.raises(StoreUnavailable):
        store.read(lambda tx: meta.put(tx, "colour", "red"))
    assert store.read(lambda tx: meta.get(tx, "colour")) is None


def test_a_read_sees_one_snapshot_whatever_is_written_meanwhile(store: Store) -> None:
    store.write(lambda tx: meta.put(tx, "colour", "blue"))
    reading, written = threading.Event(), threading.Event()

    def work(tx: Transaction) -> tuple[str | None, str | None]:
        before = meta.get(tx, "colour")
        reading.set()
        assert written.wait(10)
        return before, meta.get(tx, "colour")

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(store.read, work)
        assert reading.wait(10)
        store.write(lambda tx: meta.put(tx, "colour", "red"))
        written.set()
        assert answer.result() == ("blue", "blue")
    assert store.read(lambda tx: meta.get(tx, "colour")) == "red"


def test_read_then_write_loses_no_update_under_threads(store: Store) -> None:
    store.write(lambda tx: meta.put(tx, "count", "0"))

    def work(tx: Transaction) -> None:
        meta.put(tx, "count", str(int(meta.get(tx, "count") or 0) + 1))

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(store.write, work) for _ in range(THREADS * 12)]:
            done.result()
    assert store.read(lambda tx: meta.get(tx, "count")) == str(THREADS * 12)


def test_transactions_that_fail_beside_others_undo_only_themselves(store: Store) -> None:
    def work(number: int) -> int:
        def inner(tx: Transaction) -> int:
            meta.put(tx, f"key-{number}", "here")
            if number % 3 == 0:
                raise Refused(str(number))
            return number

        return store.write(inner)

    with ThreadPoolExecutor(THREADS) as pool:
        outcomes = [pool.submit(work, number) for number in range(60)]
        for number, outcome in enumerate(outcomes):
            if number % 3 == 0:
                with pytest.raises(Refused, match=f"^{number}$"):
                    outcome.result()
            else:
                assert outcome.result() == number
    kept = {n for n in range(60) if store.read(lambda tx, n=n: meta.get(tx, f"key-{n}")) == "here"}
    assert kept == {n for n in range(60) if n % 3}


def test_a_transaction_inside_a_transaction_is_refused_instead_of_waiting_for_itself(store: Store) -> None:
    with pytest.raises(RuntimeError, match="inside a transaction"):
        store.write(lambda _: store.read(meta.epoch))
    assert store.read(meta.epoch) == 1


def test_a_store_that_was_closed_opens_again(store: Store) -> None:
    store.write(lambda tx: meta.put(tx, "colour", "blue"))
    store.close()
    assert store.read(lambda tx: meta.get(tx, "colour")) == "blue"


def test_parent_and_forked_children_write_side_by_side(store: Store) -> None:
    store.write(lambda tx: meta.put(tx, "parent", "before"))
    children = []
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for key in [f"child-{number}-{turn}" for turn in range(10)]:
                    store.write(lambda tx, key=key: meta.put(tx, key, "here"))
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    store.write(lambda tx: meta.put(tx, "parent", "after"))
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]
    keys = [f"child-{number}-{turn}" for number in range(3) for turn in range(10)]
    assert all(store.read(lambda tx, key=key: meta.get(tx, key)) == "here" for key in keys)
    assert store.read(lambda tx: meta.get(tx, "parent")) == "after"


def test_work_that_a_process_did_not_commit_is_gone_with_it(store: Store) -> None:
    pid = os.fork()
    if pid == 0:

        def killed(tx: Transaction) -> None:
            meta.put(tx, "colour", "red")
            os._exit(9)

        store.write(killed)
    os.waitpid(pid, 0)
    assert store.read(lambda tx: meta.get(tx, "colour")) is None
    store.write(lambda tx: meta.put(tx, "colour", "blue"))
    assert store.read(lambda tx: meta.get(tx, "colour")) == "blue"


@pytest.mark.parametrize("url", ["", "sqlite:", "mysql://x", "attestd.db"])
def test_a_database_of_no_known_kind_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="no such kind"):
        Store.open(url)


# --- ST-4: a store that does not answer refuses; nothing decides in its place ---


def test_st_4_a_locked_database_is_unavailable_and_works_again_after(tmp_path: Path) -> None:
    path = tmp_path / "attestd.db"
    store = Store.open(f"sqlite:{path}", patience=0.2)
    store.migrate()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        store.write(lambda tx: meta.put(tx, "colour", "red"))
    assert store.read(lambda tx: meta.get(tx, "colour")) is None  # readers do not wait for a writer
    other.execute("ROLLBACK")
    store.write(lambda tx: meta.put(tx, "colour", "blue"))
    assert store.read(lambda tx: meta.get(tx, "colour")) == "blue"


def test_st_4_who_waits_for_a_slow_writer_gives_up_in_time(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:{tmp_path / 'attestd.db'}", patience=0.2)
    store.migrate()
    started, ending = threading.Event(), threading.Event()

    def slow(tx: Transaction) -> None:
        started.set()
        ending.wait(10)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(store.write, slow)
        assert started.wait(10)
        with pytest.raises(StoreUnavailable, match="busy"):
            store.write(lambda tx: meta.put(tx, "colour", "red"))
        ending.set()
        first.result()
    store.write(lambda tx: meta.put(tx, "shade", "dark"))
    assert store.read(lambda tx: meta.get(tx, "colour")) is None  # who gave up is not done later either


def test_st_4_a_row_that_another_holds_is_unavailable_in_postgresql(postgres_cluster) -> None:
    import psycopg

    url = postgres_cluster.fresh()
    store = Store.open(url, patience=0.3)
    store.migrate()
    with psycopg.connect(url) as other:
        other.execute("UPDATE meta SET value = value")
        with pytest.raises(StoreUnavailable, match="timeout"):
            store.write(lambda tx: tx.execute("UPDATE meta SET value = '7' WHERE key = 'schema'"))
        other.rollback()
    store.write(lambda tx: meta.put(tx, "colour", "blue"))
    store.close()


def test_st_4_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    store = Store.open(f"postgresql://attestd@/postgres?host={tmp_path}", patience=0.3)
    with pytest.raises(StoreUnavailable):
        store.write(meta.epoch)
    with pytest.raises(StoreUnavailable):
        store.read(meta.epoch)
    store.close()


def test_st_4_a_connection_that_breaks_is_unavailable_once(postgres_cluster) -> None:
    url = postgres_cluster.fresh()
    store = Store.open(url)
    store.migrate()

    def cut(tx: Transaction) -> None:
        meta.put(tx, "colour", "red")
        pid = tx.execute("SELECT pg_backend_pid() AS pid").fetchone()["pid"]
        import psycopg

        with psycopg.connect(url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))
        meta.put(tx, "colour", "still red")

    with pytest.raises(StoreUnavailable):
        store.write(cut)
    assert store.read(lambda tx: meta.get(tx, "colour")) is None
    store.close()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.write_bytes(b"this is no database" * 100), id="not a database"),
        pytest.param(lambda path: path.mkdir(), id="a directory"),
    ],
)
def test_st_4_a_file_that_is_no_database_is_unavailable(tmp_path: Path, spoil) -> None:
    path = tmp_path / "attestd.db"
    spoil(path)
    with pytest.raises(StoreUnavailable):
        Store.open(f"sqlite:{path}").migrate()


def test_st_4_a_full_disk_undoes_the_whole_group_and_says_so(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:{tmp_path / 'attestd.db'}")
    store.migrate()
    store.write(lambda tx: tx.execute("PRAGMA max_page_count = 60"))
    with pytest.raises(StoreUnavailable, match="full"):
        store.write(lambda tx: meta.put(tx, "blob", "x" * 1_000_000))
    assert store.read(lambda tx: meta.get(tx, "blob")) is None
    store.write(lambda tx: meta.put(tx, "colour", "blue"))
    assert store.read(lambda tx: meta.get(tx, "colour")) == "blue"


# --- SQLite: what makes a commit durable, and the file private ---


def test_sqlite_commits_are_on_the_disk_and_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "attestd.db"
    store = Store.open(f"sqlite:{path}")
    store.migrate()

    def settings(tx: Transaction) -> dict[str, object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return {name: tx.execute(f"PRAGMA {name}").fetchone()[name] for name in names}

    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    assert store.write(settings) == expected
    assert store.read(settings) == expected
    modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("attestd.db", "attestd.db-wal", "attestd.db-shm"), 0o600)


def test_postgresql_commits_are_on_the_disk_even_where_the_server_says_otherwise(postgres_cluster) -> None:
    url = postgres_cluster.fresh().replace("-csearch", "-csynchronous_commit%3Doff%20-csearch")
    store = Store.open(url)
    for name, value in {"synchronous_commit": "on", "transaction_isolation": "serializable"}.items():
        found = store.write(
            lambda tx, name=name: tx.execute("SELECT current_setting(?) v", (name,)).fetchone()
        )
        assert found == {"v": value}
    store.close()


def test_an_empty_database_says_that_it_has_no_tables(database: str) -> None:
    empty = Store.open(database)
    with pytest.raises(NoTables):
        empty.read(meta.epoch)
    empty.migrate()
    assert empty.read(meta.epoch) == 1
    empty.close()
