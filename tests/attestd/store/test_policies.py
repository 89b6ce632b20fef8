"""Is exactly what was applied in force, and every version kept?"""

import hashlib

import pytest

from attestd.store import meta, policies
from attestd.store.policies import Document, PolicyVersion
from attestd.store.store import Store
from tests.attestd.store.records import NOW


def _document(name: str, source: bytes, files: dict[str, bytes] | None = None) -> Document:
    return Document(name=name, digest=hashlib.sha256(source).hexdigest(), source=source, files=files or {})


def _apply(store: Store, *documents: Document, now: int = NOW) -> list[PolicyVersion]:
    return store.write(lambda tx: policies.apply(tx, documents, by="alice", now=now))


def _active(store: Store) -> list[tuple[str, int, bytes]]:
    return [(each.name, each.version, each.source) for each in store.read(policies.active)]


def _generation(store: Store) -> int:
    return store.read(meta.policy_generation)


ONE = _document("edge", b"one\x00\xff")
TWO = _document("edge", b"two")
OTHER = _document("server", b"other", {"debian.digests": b"\x00\x01", "b.digests": b""})


def test_nothing_is_in_force_at_first(store: Store) -> None:
    assert _active(store) == []
    assert _generation(store) == 0


def test_what_is_applied_is_in_force_to_the_byte(store: Store) -> None:
    applied = _apply(store, OTHER, ONE)
    assert store.read(policies.active) == sorted(applied, key=lambda each: each.name)
    assert applied[0] == PolicyVersion(
        name="server",
        version=1,
        digest=OTHER.digest,
        source=b"other",
        files=OTHER.files,
        applied_at=NOW,
        applied_by="alice",
    )
    assert _generation(store) == 1


def test_a_new_version_replaces_its_own_name_only(store: Store) -> None:
    _apply(store, ONE, OTHER)
    _apply(store, TWO)
    assert _active(store) == [("edge", 2, b"two"), ("server", 1, b"other")]
    assert _generation(store) == 2
    assert store.read(lambda tx: policies.is_active(tx, "edge", 2))
    assert not store.read(lambda tx: policies.is_active(tx, "edge", 1))
    assert not store.read(lambda tx: policies.is_active(tx, "none", 1))


def test_applying_what_is_in_force_keeps_its_version(store: Store) -> None:
    first = _apply(store, ONE)
    assert _apply(store, ONE, now=NOW + 1) == first
    assert len(store.read(lambda tx: policies.history(tx, "edge"))) == 1


def test_a_rollback_is_a_new_version_with_the_old_bytes(store: Store) -> None:
    _apply(store, ONE)
    _apply(store, TWO)
    rolled = store.write(lambda tx: policies.rollback(tx, "edge", 1, by="bob", now=NOW + 9))
    assert rolled is not None
    assert (rolled.version, rolled.source, rolled.digest, rolled.applied_by) == (
        3,
        ONE.source,
        ONE.digest,
        "bob",
    )
    assert _active(store) == [("edge", 3, ONE.source)]
    history = store.read(lambda tx: policies.history(tx, "edge"))
    assert [(each.version, each.source) for each in history] == [
        (1, ONE.source),
        (2, TWO.source),
        (3, ONE.source),
    ]
    assert store.write(lambda tx: policies.rollback(tx, "edge", 7, by="bob", now=NOW)) is None
    assert _generation(store) == 3


def test_a_removed_policy_is_out_of_force_and_its_numbers_are_not_used_again(store: Store) -> None:
    _apply(store, ONE)
    assert store.write(lambda tx: policies.remove(tx, "edge"))
    assert not store.write(lambda tx: policies.remove(tx, "edge"))
    assert _active(store) == []
    assert _generation(store) == 2
    assert _apply(store, ONE)[0].version == 2
    assert store.read(lambda tx: policies.find(tx, "edge", 1)) is not None
    assert store.read(lambda tx: policies.find(tx, "edge", 3)) is None


def test_an_apply_that_fails_leaves_everything_in_force_as_it_was(store: Store) -> None:
    _apply(store, ONE)

    def fail(tx) -> None:
        policies.apply(tx, [TWO, OTHER], by="alice", now=NOW)
        raise LookupError

    with pytest.raises(LookupError):
        store.write(fail)
    assert _active(store) == [("edge", 1, ONE.source)]
    assert _generation(store) == 1
