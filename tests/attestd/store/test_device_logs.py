"""The last log of each device is kept, and how far its list was judged; both engines."""

from dataclasses import replace

from attestd.store import device_logs, devices
from attestd.store.device_logs import ImaMark
from attestd.store.store import Store
from tests.attestd.store.records import NOW, device

MARK = ImaMark(
    reset_count=7,
    restart_count=0,
    bank="sha256",
    entries=4,
    value="ab" * 32,
    padded=False,
    policy_digest="cd" * 32,
)


def test_the_last_log_replaces_the_one_before(store: Store) -> None:
    store.write(lambda tx: devices.insert(tx, device()))
    owner = device().device_id
    for content in (b"first" * 1000, b"second"):
        store.write(
            lambda tx, c=content: device_logs.keep_log(tx, owner, sha256=c[:5].hex(), content=c, now=NOW)  # type: ignore[misc]
        )
    assert store.read(lambda tx: device_logs.log_digest(tx, owner)) == b"secon".hex()
    assert store.read(lambda tx: device_logs.log_content(tx, owner, b"secon".hex())) == b"second"
    assert store.read(lambda tx: device_logs.log_content(tx, owner, b"first".hex())) is None
    assert store.read(lambda tx: device_logs.log_digest(tx, "0" * 64)) is None


def test_a_mark_is_read_back_as_it_was_kept(store: Store) -> None:
    store.write(lambda tx: devices.insert(tx, device()))
    owner = device().device_id
    assert store.read(lambda tx: device_logs.ima_mark(tx, owner)) is None
    for mark in (MARK, replace(MARK, entries=9, padded=True, restart_count=1)):
        store.write(lambda tx, m=mark: device_logs.keep_ima_mark(tx, owner, m, NOW))  # type: ignore[misc]
        assert store.read(lambda tx: device_logs.ima_mark(tx, owner)) == mark
