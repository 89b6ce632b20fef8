"""Is a device kept as it is, found by what it is called, and changed only by what changes it?"""

from dataclasses import replace

import pytest

from attestd.store import devices
from attestd.store.devices import Mark, Posture
from attestd.store.store import Store
from tests.attestd.store.records import DAY, NOW, ONE, TWO, device, enrolment
from tpm.verify.continuity import Baseline

LATER = NOW + 5000
U64 = 2**64 - 1

MARK = Mark(judged_reset=4, judged_restart=1, judged_clock=U64, judged_at=NOW)
BASELINE = Baseline(
    reset_count=2**32 - 1, restart_count=1, clock=U64, firmware_version=U64 - 1, boot_id="boot-1", safe=True
)
POSTURE = Posture(posture="accepted", posture_attestation="a-1", posture_at=NOW, posture_until=NOW + 3600_000)


def _find(store: Store, device_id: str = ONE) -> devices.Device:
    found = store.read(lambda tx: devices.find(tx, device_id))
    assert found is not None
    return found


def _changed(before: devices.Device, **changes) -> devices.Device:
    return replace(before, updated_at=LATER, revision=before.revision + 1, **changes)


@pytest.fixture
def one(store: Store) -> devices.Device:
    return store.write(
        lambda tx: devices.insert(tx, device(name="gateway", labels={"site": "plant-1", "rack": "7"}))
    )


def test_a_device_is_kept_to_the_byte(store: Store) -> None:
    full = device(
        name="gateway",
        labels={"site": "plant-1"},
        reset_count=1,
        restart_count=2,
        clock=U64,
        firmware_version=U64,
        boot_id="b",
        safe=False,
        judged_reset=1,
        judged_restart=2,
        judged_clock=0,
        judged_at=NOW,
        posture="refused",
        posture_attestation="a",
        posture_at=NOW,
        posture_until=None,
        revision=9,
    )
    assert store.write(lambda tx: devices.insert(tx, full)) == full
    assert _find(store) == full


def test_an_imported_device_has_no_keys_yet(store: Store) -> None:
    bare = device(
        name="imported",
        ek_public=None,
        ek_certificate=None,
        ek_chain=(),
        root_sha256=None,
        ak_public=None,
        ak_name=None,
        manufacturer=None,
        model=None,
        version=None,
        hostname=None,
    )
    store.write(lambda tx: devices.insert(tx, bare))
    store.write(
        lambda tx: devices.insert(tx, replace(bare, device_id=TWO, name="second"))
    )  # NULL AK names do not clash
    assert _find(store) == bare


def test_it_is_found_by_identifier_name_and_attestation_key(store: Store, one: devices.Device) -> None:
    assert store.read(lambda tx: devices.resolve(tx, ONE)) == one
    assert store.read(lambda tx: devices.resolve(tx, "gateway")) == one
    assert store.read(lambda tx: devices.find_by_ak_name(tx, one.ak_name or "")) == one
    for unknown in (TWO, "gate", "", "GATEWAY"):
        assert store.read(lambda tx, unknown=unknown: devices.resolve(tx, unknown)) is None


def test_a_device_without_a_name_is_called_by_its_first_free_digits(store: Store) -> None:
    assert store.write(lambda tx: devices.insert(tx, device(ONE))).name == ONE[:12]
    near = ONE[:20] + "0" * 44
    assert store.write(lambda tx: devices.insert(tx, device(near))).name == near[:13]
    store.write(lambda tx: devices.rename(tx, ONE, "gateway", NOW))
    assert store.read(lambda tx: devices.resolve(tx, near[:13])).device_id == near


@pytest.mark.parametrize(
    "changes", [{"device_id": "1F" * 32}, {"device_id": "1f"}, {"state": "gone"}, {"assurance": "trust me"}]
)
def test_a_device_that_cannot_be_is_not_made(changes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"no (device identifier|such state)"):
        replace(device(), **changes)


def test_a_rotation_changes_the_keys_and_nothing_else(store: Store, one: devices.Device) -> None:
    store.write(lambda tx: devices.record_judged(tx, ONE, MARK, now=NOW, posture=POSTURE, baseline=BASELINE))
    before = _find(store)
    new = enrolment("000b" + "77" * 32, ek_chain=(b"c",), manufacturer="NTC")
    assert store.write(lambda tx: devices.enrol(tx, ONE, new, LATER))
    keys = {name: getattr(new, name) for name in type(new).__slots__}
    assert _find(store) == _changed(before, **keys)
    assert store.read(lambda tx: devices.find_by_ak_name(tx, one.ak_name or "")) is None


def test_an_attestation_key_that_another_device_holds_is_not_given_away(
    store: Store, one: devices.Device
) -> None:
    two = store.write(lambda tx: devices.insert(tx, device(TWO)))
    assert not store.write(lambda tx: devices.enrol(tx, TWO, enrolment(one.ak_name or ""), LATER))
    assert _find(store, TWO) == two
    assert store.write(
        lambda tx: devices.enrol(tx, ONE, enrolment(one.ak_name or ""), LATER)
    )  # its own, again


def test_state_labels_and_name_change_alone(store: Store, one: devices.Device) -> None:
    assert store.write(lambda tx: devices.set_state(tx, ONE, "banned", LATER))
    banned = _changed(one, state="banned")
    assert _find(store) == banned
    changes = {"site": "plant-2", "rack": "", "line": "a"}
    assert store.write(lambda tx: devices.set_labels(tx, ONE, changes, LATER))
    labelled = _changed(banned, labels={"line": "a", "site": "plant-2"})
    assert _find(store) == labelled
    assert store.write(lambda tx: devices.rename(tx, ONE, "north", LATER))
    assert _find(store) == _changed(labelled, name="north")


def test_a_name_in_use_or_spelled_like_an_identifier_is_refused(store: Store, one: devices.Device) -> None:
    store.write(lambda tx: devices.insert(tx, device(TWO, name="other")))
    for name in ("other", TWO, "0" * 64, ""):
        assert not store.write(lambda tx, name=name: devices.rename(tx, ONE, name, LATER))
    assert _find(store) == one
    assert store.write(lambda tx: devices.rename(tx, ONE, "gateway", LATER))  # its own, again


def test_a_state_that_does_not_exist_is_a_mistake(store: Store, one: devices.Device) -> None:
    with pytest.raises(ValueError, match="no such state"):
        store.write(lambda tx: devices.set_state(tx, ONE, "gone", LATER))  # type: ignore[arg-type]
    assert _find(store) == one


def test_changes_of_a_device_that_is_not_there_are_false(store: Store) -> None:
    for change in (
        lambda tx: devices.set_state(tx, ONE, "active", NOW),
        lambda tx: devices.set_labels(tx, ONE, {"a": "b"}, NOW),
        lambda tx: devices.rename(tx, ONE, "gateway", NOW),
        lambda tx: devices.enrol(tx, ONE, enrolment("000b"), NOW),
        lambda tx: devices.record_judged(tx, ONE, MARK, now=NOW),
        lambda tx: devices.rebase(tx, ONE, NOW),
    ):
        assert store.write(change) is False


def test_a_judged_quote_moves_the_mark_and_only_an_accepted_one_the_baseline(
    store: Store, one: devices.Device
) -> None:
    mark = {name: getattr(MARK, name) for name in Mark.__slots__}
    base = {name: getattr(BASELINE, name) for name in Baseline.__slots__}
    posture = {name: getattr(POSTURE, name) for name in Posture.__slots__}
    store.write(lambda tx: devices.record_judged(tx, ONE, MARK, now=LATER))
    marked = _changed(one, **mark)
    assert _find(store) == marked
    store.write(lambda tx: devices.record_judged(tx, ONE, MARK, now=LATER, posture=POSTURE))
    judged = _changed(marked, **posture)
    assert _find(store) == judged
    store.write(
        lambda tx: devices.record_judged(tx, ONE, MARK, now=LATER, posture=POSTURE, baseline=BASELINE)
    )
    assert _find(store) == _changed(judged, **base)


def test_a_rebase_forgets_the_clock_and_leaves_older_nonces_stale(store: Store, one: devices.Device) -> None:
    store.write(lambda tx: devices.record_judged(tx, ONE, MARK, now=NOW, posture=POSTURE, baseline=BASELINE))
    before = _find(store)
    assert store.write(lambda tx: devices.rebase(tx, ONE, LATER))
    forgotten = dict.fromkeys((*Baseline.__slots__, *Mark.__slots__)) | {"judged_at": LATER}
    assert _find(store) == _changed(before, **forgotten)


def test_devices_are_listed_by_state_and_labels_oldest_first(store: Store, one: devices.Device) -> None:
    two = store.write(
        lambda tx: devices.insert(
            tx, device(TWO, state="pending", created_at=NOW - 1, labels={"site": "plant-1"})
        )
    )
    assert store.read(devices.list_all) == [two, one]
    assert store.read(lambda tx: devices.list_all(tx, state="active")) == [one]
    assert store.read(lambda tx: devices.list_all(tx, labels={"site": "plant-1"})) == [two, one]
    assert store.read(lambda tx: devices.list_all(tx, labels={"site": "plant-1", "rack": "7"})) == [one]
    assert store.read(lambda tx: devices.list_all(tx, state="banned")) == []
    assert store.read(devices.count_by_state) == {"active": 1, "pending": 1}
    assert store.read(devices.count_pending) == 1


def test_only_old_pending_devices_that_enrolled_are_forgotten(store: Store, one: devices.Device) -> None:
    def fill(tx) -> None:
        devices.insert(tx, device("aa" * 32, state="pending", created_at=NOW - DAY, labels={"x": "y"}))
        devices.insert(tx, device("bb" * 32, state="pending", created_at=NOW))
        devices.insert(tx, device("cc" * 32, state="active", created_at=NOW - DAY))
        imported = device("dd" * 32, state="pending", created_at=NOW - DAY, ak_public=None, ak_name=None)
        devices.insert(tx, imported)

    store.write(fill)
    assert store.write(lambda tx: devices.delete_pending_older_than(tx, NOW)) == ["aa" * 32]
    assert store.read(lambda tx: tx.execute("SELECT * FROM device_labels WHERE key = 'x'").fetchall()) == []
    assert store.read(devices.count_pending) == 2


def test_concurrent_changes_of_one_device_each_move_its_revision(store: Store, one: devices.Device) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        for turn in range(24):
            pool.submit(
                store.write, lambda tx, turn=turn: devices.set_labels(tx, ONE, {"turn": str(turn)}, NOW)
            )
    assert _find(store).revision == one.revision + 24
