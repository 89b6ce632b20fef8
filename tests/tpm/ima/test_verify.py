"""Is no more and no other of a list believed than register 10 proves?"""

import hashlib
from dataclasses import replace

import pytest

from tests.tpm.ima.kernel import BOOT, FORMS, Kernel, digest_field, record
from tpm.errors import AttestationError, EvidenceError, StructureError
from tpm.ima.replay import Mark
from tpm.ima.summary import summarise
from tpm.ima.verify import VerifiedMeasurements, verify_measurements
from tpm.structures.algorithms import SHA384
from tpm.verify.pcrs import VerifiedPcrs


def running() -> Kernel:
    return Kernel.booted().run(b"/init").run(b"/bin/sh").violate(b"/var/log/x").run(b"/bin/ls")


def quoted_at(count: int) -> VerifiedPcrs:
    kernel = Kernel()
    for one in running().records[:count]:
        kernel.add(one)
    return kernel.quoted


def refused(raw: bytes, pcrs: VerifiedPcrs, **known: object) -> str:
    with pytest.raises(EvidenceError) as caught:
        verify_measurements(raw, pcrs, **known)  # type: ignore[arg-type]
    return caught.value.reason


def paths(proven: VerifiedMeasurements) -> list[bytes]:
    return [entry.path for entry in proven.entries()]


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_list_is_proven(form: str) -> None:
    kernel = running()
    proven = verify_measurements(kernel.raw(form), kernel.quoted)
    assert (proven.first, proven.covered, proven.boot) == (0, 5, "proven")
    assert proven.mark == Mark(5, kernel.value, padded=False)
    assert paths(proven) == [b"boot_aggregate", b"/init", b"/bin/sh", b"/var/log/x", b"/bin/ls"]
    assert [entry.violation for entry in proven.entries()] == [False, False, False, True, False]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", range(1, 6))
def test_im_6_entries_beyond_the_register_are_ignored(form: str, count: int) -> None:
    raw = running().raw(form)
    assert verify_measurements(raw, quoted_at(count)).covered == count
    beyond = raw + (b"rubbish\n" if form == "ascii" else b"rubbish")
    assert verify_measurements(beyond, quoted_at(count)).covered == count


CHANGES = {
    "altered": (lambda raw: raw.replace(b"/bin/sh", b"/bin/zz"), "ima_template_digest"),
    "one left out": (lambda raw: raw.replace(running_part(2), b""), "ima_not_covered"),
    "one put in": (lambda raw: raw.replace(running_part(2), running_part(2) * 2), "ima_not_covered"),
    "the last left out": (lambda raw: raw.replace(running_part(4), b""), "ima_not_covered"),
    "two exchanged": (
        lambda raw: raw.replace(running_part(1) + running_part(2), running_part(2) + running_part(1)),
        "ima_not_covered",
    ),
    "a violation hidden": (
        lambda raw: raw.replace(running_part(3), b""),
        "ima_not_covered",
    ),
    "nothing": (lambda raw: b"", "ima_not_covered"),
}


def running_part(index: int) -> bytes:
    return FORMS["binary"](running().records[index])


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES.keys())
def test_an_altered_list_is_refused(change, reason: str) -> None:  # type: ignore[no-untyped-def]
    kernel = running()
    assert verify_measurements(kernel.raw(), kernel.quoted).covered == 5
    changed = change(kernel.raw())
    assert changed != kernel.raw()
    assert refused(changed, kernel.quoted) == reason
    assert not summarise(changed, {"sha256": kernel.quoted.values}).valid


def test_register_10_must_be_quoted() -> None:
    kernel = running()
    assert refused(kernel.raw(), VerifiedPcrs("sha256", BOOT)) == "ima_unquoted"


def test_a_violation_relabelled_as_a_file_is_refused() -> None:
    kernel = running()
    forged = replace_record(kernel, 3, record("ima-ng", digest_field(b"good"), b"/var/log/x\0"))
    assert refused(forged, kernel.quoted) == "ima_not_covered"


def test_a_file_relabelled_as_a_violation_is_refused() -> None:
    kernel = running()
    forged = replace_record(kernel, 2, kernel.records[2]._replace(logged=bytes(20)))
    assert refused(forged, kernel.quoted) == "ima_not_covered"


def replace_record(kernel: Kernel, index: int, other) -> bytes:  # type: ignore[no-untyped-def]
    records = [*kernel.records[:index], other, *kernel.records[index + 1 :]]
    return b"".join(map(FORMS["binary"], records))


def test_older_kernels_extend_with_sha1_and_zeros_and_are_named() -> None:
    kernel = Kernel.booted(padded=True).run(b"/init").violate(b"/log").run(b"/bin/sh")
    proven = verify_measurements(kernel.raw(), kernel.quoted)
    assert (proven.covered, proven.mark.padded) == (4, True)
    more = kernel.run(b"/bin/ls")
    part = verify_measurements(more.raw(first=4), more.quoted, first=4, known=proven.mark)
    assert (part.covered, part.mark) == (1, Mark(5, kernel.value, padded=True))
    assert refused(more.raw(), more.quoted, known=replace(proven.mark, padded=False)) == "ima_rollback"


def test_another_bank_is_replayed_with_its_own_hash() -> None:
    boot = {register: bytes([register]) * 48 for register in range(10)}
    kernel = Kernel(bank=SHA384, boot=boot).aggregate(algorithm="sha384").run(b"/init")
    assert verify_measurements(kernel.raw(), kernel.quoted).boot == "proven"


def test_entries_for_another_register_leave_register_10_as_it_was() -> None:
    other = record("ima-ng", digest_field(b"x"), b"/other\0", pcr=11)
    kernel = Kernel.booted().add(other).run(b"/init").add(other)
    proven = verify_measurements(kernel.raw(), kernel.quoted)
    assert proven.covered == 3
    assert summarise(kernel.raw(), {}).banks["sha256"].keys() == {10, 11}  # type: ignore[index]


# What is remembered between rounds


@pytest.mark.parametrize("form", FORMS)
def test_an_increment_is_proven_from_where_the_last_one_ended(form: str) -> None:
    kernel = running()
    known = verify_measurements(kernel.raw(form), kernel.quoted).mark
    kernel.run(b"/bin/new").run(b"/bin/newer")
    part = verify_measurements(kernel.raw(form, first=5), kernel.quoted, first=5, known=known)
    assert (part.first, part.covered, part.boot) == (5, 2, "before")
    assert part.mark == Mark(7, kernel.value, padded=False)
    assert [(entry.position, entry.path) for entry in part.entries()] == [
        (5, b"/bin/new"),
        (6, b"/bin/newer"),
    ]
    whole = verify_measurements(kernel.raw(form), kernel.quoted, known=known)
    assert (whole.mark, whole.covered, whole.boot) == (part.mark, 7, "proven")


def test_no_new_entries_are_an_increment() -> None:
    kernel = running()
    known = verify_measurements(kernel.raw(), kernel.quoted).mark
    again = verify_measurements(b"", kernel.quoted, first=5, known=known)
    assert (again.covered, again.mark) == (0, known)
    assert verify_measurements(b"rubbish", kernel.quoted, first=5, known=known).covered == 0


def test_im_6_a_shorter_list_within_a_boot_is_refused() -> None:
    kernel = running()
    known = verify_measurements(kernel.raw(), kernel.quoted).mark
    assert verify_measurements(kernel.raw(), kernel.quoted, known=known).mark == known
    for count in range(1, 5):
        shorter = b"".join(map(FORMS["binary"], kernel.records[:count]))
        assert refused(shorter, quoted_at(count), known=known) == "ima_rollback"
        assert refused(shorter, kernel.quoted, known=known) == "ima_rollback"
        assert refused(kernel.raw(), quoted_at(count), known=known) == "ima_rollback"
    assert refused(kernel.raw(), Kernel().quoted, known=known) == "ima_not_covered"
    assert refused(b"", quoted_at(4), first=5, known=known) == "ima_not_covered"


def test_im_6_another_history_of_the_same_boot_is_refused() -> None:
    kernel = running()
    known = verify_measurements(kernel.raw(), kernel.quoted).mark
    other = Kernel.booted().run(b"/init").run(b"/bin/other").run(b"/a").run(b"/b").run(b"/c")
    assert verify_measurements(other.raw(), other.quoted).covered == 6
    assert refused(other.raw(), other.quoted, known=known) == "ima_rollback"


def test_im_6_more_entries_than_the_register_covers_are_no_progress() -> None:
    kernel = running()
    known = verify_measurements(kernel.raw(), kernel.quoted).mark
    quoted = kernel.quoted
    kernel.run(b"/bin/new")
    assert verify_measurements(kernel.raw(first=5), quoted, first=5, known=known).mark == known
    assert refused(kernel.raw(first=6), kernel.quoted, first=5, known=known) == "ima_not_covered"


@pytest.mark.parametrize("known", [None, Mark(4, bytes(32), padded=False)])
def test_an_increment_must_begin_where_the_last_one_ended(known: Mark | None) -> None:
    kernel = running()
    assert refused(kernel.raw(first=3), kernel.quoted, first=3, known=known) == "ima_gap"


def test_what_an_increment_costs_does_not_depend_on_what_came_before() -> None:
    """Nothing of the known entries is there to be read: only their number and the register's value."""
    kernel = running()
    far = Mark(900_000, kernel.value, padded=False)
    kernel.run(b"/bin/new")
    part = verify_measurements(kernel.raw(first=5), kernel.quoted, first=900_000, known=far)
    assert (part.covered, part.mark.count) == (1, 900_001)


# The boot aggregate


def boot_of(kernel: Kernel) -> str:
    return verify_measurements(kernel.raw(), kernel.quoted).boot


LISTS = {
    "missing": lambda: Kernel().run(b"/init"),
    "not first": lambda: Kernel().run(b"/init").aggregate(),
    "twice": lambda: Kernel.booted().run(b"/init").aggregate(),
    "twice, signed": lambda: Kernel.booted().add(
        record("ima-buf", digest_field(b""), b"boot_aggregate\0", b"x")
    ),
    "wrong": lambda: Kernel().aggregate(b"\x11" * 32).run(b"/init"),
    "over another bank": lambda: Kernel().aggregate(algorithm="sha1").run(b"/init"),
    "in another bank's name": lambda: Kernel().add(
        record("ima-ng", b"sha512:\0" + aggregate_of(range(10)), b"boot_aggregate\0")
    ),
    "of another kind": lambda: Kernel().add(
        record("ima-ngv2", b"verity:sha256:\0" + aggregate_of(range(10)), b"boot_aggregate\0")
    ),
    "over eight registers": lambda: Kernel().aggregate(aggregate_of(range(8))).run(b"/init"),
    "a violation": lambda: Kernel().violate(b"boot_aggregate").run(b"/init"),
    "nothing measured": Kernel,
}


# A file's bank is compared only with an aggregate of that bank; and a list of nothing has its own reason.
NOT_FOR_FILES = ("over another bank", "in another bank's name", "nothing measured")


def aggregate_of(registers: range) -> bytes:
    return hashlib.sha256(b"".join(BOOT[register] for register in registers)).digest()


@pytest.mark.parametrize("made", LISTS.values(), ids=LISTS.keys())
def test_im_5_the_boot_aggregate_is_first_once_and_of_the_same_quote(made) -> None:  # type: ignore[no-untyped-def]
    assert boot_of(Kernel.booted().run(b"/init")) == "proven"
    kernel = made()
    assert refused(kernel.raw(), kernel.quoted) == "boot_aggregate"


@pytest.mark.parametrize("name", [name for name in LISTS if name not in NOT_FOR_FILES])
def test_im_5_a_file_with_a_wrong_boot_aggregate_does_not_hold(name: str) -> None:
    healthy = Kernel.booted().run(b"/init")
    assert summarise(healthy.raw(), {"sha256": healthy.quoted.values}).valid
    kernel = LISTS[name]()
    found = summarise(kernel.raw(), {"sha256": kernel.quoted.values})
    assert (found.valid, found.reason) == (False, "boot_aggregate")
    assert summarise(kernel.raw(), {"sha256": {10: kernel.value}}).valid


def test_im_5_a_boot_aggregate_in_an_increment_is_refused() -> None:
    kernel = running()
    known = verify_measurements(kernel.raw(), kernel.quoted).mark
    kernel.aggregate()
    assert refused(kernel.raw(first=5), kernel.quoted, first=5, known=known) == "boot_aggregate"


def test_im_5_the_list_of_another_boot_is_refused() -> None:
    kernel = running()
    other = VerifiedPcrs("sha256", {**kernel.quoted.values, 4: b"\x44" * 32})
    assert refused(kernel.raw(), other) == "boot_aggregate"


def test_registers_that_are_not_quoted_leave_the_boot_aggregate_unproven() -> None:
    kernel = running()
    for missing in range(10):
        values = {register: value for register, value in kernel.quoted.values.items() if register != missing}
        assert verify_measurements(kernel.raw(), VerifiedPcrs("sha256", values)).boot == "unquoted"


def test_a_register_extended_later_is_compared_as_the_firmware_left_it() -> None:
    kernel = running()
    later = VerifiedPcrs("sha256", {**kernel.quoted.values, 9: b"\x99" * 32})
    assert refused(kernel.raw(), later) == "boot_aggregate"
    assert verify_measurements(kernel.raw(), later, at_boot={9: BOOT[9]}).boot == "proven"


# Files


def test_a_list_without_registers_is_consistent_and_covers_nothing() -> None:
    found = summarise(running().raw(), {})
    assert (found.valid, found.covered, found.entries, found.violations) == (True, 0, 5, 1)
    assert summarise(running().raw(), {"sm3_256": {10: bytes(32)}}).valid


def test_one_bank_that_fits_nothing_is_enough_not_to_hold() -> None:
    kernel = running()
    good = {"sha256": kernel.quoted.values}
    assert summarise(kernel.raw(), good).valid
    for bad in ({**good, "sha1": {10: bytes(20)}}, {"sha256": {10: b""}}, {"sha512": {10: bytes(64)}}):
        found = summarise(kernel.raw(), bad)
        assert (found.valid, found.reason, found.covered) == (False, "ima_not_covered", 0)


@pytest.mark.parametrize("form", FORMS)
def test_every_truncation_is_refused_or_covers_less(form: str) -> None:
    kernel = running()
    raw = kernel.raw(form)
    assert verify_measurements(raw, kernel.quoted).covered == 5
    for end in range(len(raw) - (form == "ascii")):
        with pytest.raises(AttestationError) as caught:
            verify_measurements(raw[:end], kernel.quoted)
        assert isinstance(caught.value, StructureError | EvidenceError)


@pytest.mark.parametrize("form", FORMS)
def test_every_flipped_bit_is_refused(form: str) -> None:
    """But for what register 10 does not speak of: the path of a violation, and the digest that it has not."""
    kernel = Kernel.booted().run(b"/init").run(b"/bin/sh")
    raw = kernel.raw(form)
    assert verify_measurements(raw, kernel.quoted).covered == 3
    end = len(raw) - (form == "ascii")
    for place in range(end):
        for bit in range(8):
            flipped = raw[:place] + bytes([raw[place] ^ 1 << bit]) + raw[place + 1 :]
            with pytest.raises((StructureError, EvidenceError)):
                verify_measurements(flipped, kernel.quoted)
