"""Are the entries of a list exactly what the kernel measured, in either form?"""

import hashlib
from collections import deque
from itertools import islice

import pytest

from tests.tpm.ima.kernel import FORMS, Kernel, digest_field, record
from tpm.errors import EvidenceError, NoncanonicalError, StructureError
from tpm.ima import ascii as printed
from tpm.ima.entry import Entry, FileDigest, Record
from tpm.ima.measurements import MAX_BYTES, MAX_ENTRIES, list_hash, read_entries, read_records
from tpm.ima.summary import summarise
from tpm.ima.template import MAX_DATA, TEMPLATES
from tpm.ima.verify import verify_measurements
from tpm.structures.algorithms import HASHES, SHA256, Hash

D, N = digest_field(b"content"), b"/usr/bin/demo\0"
TYPED = b"verity:sha256:\0" + bytes(range(32))
EACH = [
    record("ima", D[8:28], N),
    record("ima-ng", D, N),
    record("ima-ng", digest_field(b"x", "sha1"), N),
    record("ima-ng", digest_field(b"x", "sha512"), N),
    record("ima-ng", b"sha3-256:\0" + bytes(32), N),
    record("ima-sig", D, N, b""),
    record("ima-sig", D, N, b"\x03\x02\x04"),
    record("ima-buf", D, b".ima\0", b"certificate"),
    record("ima-modsig", D, N, b"", b"", b""),
    record("ima-modsig", D, N, b"\x03", digest_field(b"without"), b"pkcs7"),
    record("ima-ngv2", b"ima:" + D, N),
    record("ima-ngv2", TYPED, N),
    record("ima-sigv2", TYPED, N, b"\x06\x03"),
    record(
        "evm-sig",
        D,
        N,
        b"\5",
        b"security.ima|security.evm\0",
        bytes(8),
        bytes(9),
        bytes(4),
        b"\1\0\0\0",
        b"\xed\x81",
    ),
    record("d-ng|n-ng|iuid", D, N, (1000).to_bytes(4, "little")),
    record("n-ng|d-ng", N, D),
    record("d|n", D[8:28], N),
    record("d-ng", D),
    record("ima-ng", D, N, pcr=9),
    record("ima-ng", D, N, pcr=23),
]
PATHS = {
    "newline": b"/tmp/a\nb",
    "newlines": b"/tmp/\n\na\n",
    "spaces": b"/tmp/a b  c ",
    "escape": rb"/tmp/a\x0ab\n",
    "quotes": b"/tmp/\"a\" 'b'",
    "long": b"/" + b"x" * 4095,
    "not utf-8": b"/tmp/\xff\xfe\x80",
    "return": b"/tmp/a\r",
    "hex": b"/tmp/a 0302",
    "none": b"",
}
FAKE_LINE = (
    b"10 " + hashlib.sha1(b"").hexdigest().encode() + b" ima-ng sha256:" + b"ab" * 32 + b" /usr/bin/good"
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("one", EACH, ids=lambda one: one.template.name)
def test_each_template_reads_as_it_was_written(form: str, one: Record) -> None:
    raw = FORMS[form](one)
    assert list(read_records(raw)) == [one]
    assert list(read_records(raw + raw)) == [one, one]
    assert b"".join(map(FORMS[form], read_records(raw))) == raw


def test_an_entry_has_its_fields() -> None:
    whole = Entry.of(7, record("ima-modsig", D, N, b"\x03", b"", b"pkcs7"))
    assert (whole.position, whole.pcr, whole.template) == (7, 10, "ima-modsig")
    assert (whole.path, whole.signature, whole.modsig, whole.buffer) == (N[:-1], b"\x03", b"pkcs7", None)
    assert whole.file_digest == FileDigest("ima", "sha256", D[8:])
    assert str(whole.file_digest) == "sha256:" + hashlib.sha256(b"content").hexdigest()
    assert str(Entry.of(0, record("ima-ngv2", TYPED, N)).file_digest) == "verity:sha256:" + TYPED[15:].hex()
    assert str(Entry.of(0, record("ima", D[8:28], N)).file_digest) == "sha1:" + D[8:28].hex()
    buffer = Entry.of(0, record("ima-buf", D, b".ima\0", b"key"))
    assert (buffer.path, buffer.buffer, buffer.is_buffer) == (b".ima", b"key", True)
    assert Entry.of(0, record("d-ng", D)).path == b""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("template", ["ima-ng", "ima-sig", "ima-buf", "ima-modsig"])
def test_im_4_a_path_of_any_bytes_is_one_entry_with_exact_bytes(
    form: str, path: bytes, template: str
) -> None:
    rest = {"ima-ng": (), "ima-sig": (b"",), "ima-buf": (b"\1\2",), "ima-modsig": (b"", b"", b"")}[template]
    around = [
        record("ima-ng", D, b"/before\0"),
        record(template, D, path + b"\0", *rest),
        record("ima-sig", D, N, b"\3"),
    ]
    raw = b"".join(map(FORMS[form], around))
    assert [entry.path for entry in read_entries(raw)] == [b"/before", path, N[:-1]]
    assert list(read_records(raw)) == around


@pytest.mark.parametrize("form", FORMS)
def test_im_4_a_line_inside_a_path_is_no_entry(form: str) -> None:
    forged = FORMS["ascii"](record("ima-ng", digest_field(b"good"), b"/usr/bin/good\0"))[:-1]
    for inside in (FAKE_LINE, forged):
        kernel = Kernel.booted().run(b"/tmp/evil\n" + inside).run(b"/bin/sh")
        proven = verify_measurements(kernel.raw(form), kernel.quoted)
        assert [entry.path for entry in proven.entries()] == [
            b"boot_aggregate",
            b"/tmp/evil\n" + inside,
            b"/bin/sh",
        ]


def test_im_4_a_line_after_a_violations_path_is_never_covered() -> None:
    """A violation has no template digest to say where its path ends; binary lists say it."""
    forged = FORMS["ascii"](record("ima-ng", digest_field(b"good"), b"/usr/bin/good\0"))[:-1]
    last = Kernel.booted().violate(b"/tmp/evil\n" + forged)
    assert verify_measurements(last.raw("ascii"), last.quoted).covered == 2
    kernel = Kernel.booted().violate(b"/tmp/evil\n" + forged).run(b"/bin/sh")
    with pytest.raises(EvidenceError, match="No beginning"):
        verify_measurements(kernel.raw("ascii"), kernel.quoted)
    assert verify_measurements(kernel.raw("binary"), kernel.quoted).covered == 3
    with pytest.raises(StructureError):
        list(read_records(Kernel.booted().violate(b"/tmp/a\nb").raw("ascii")))


def test_joining_lines_has_an_end() -> None:
    most = Kernel.booted().run(b"/" + b"\n" * printed.MAX_BREAKS)
    assert all(one.intact for one in read_records(most.raw("ascii")))
    over = Kernel.booted().run(b"/" + b"\n" * (printed.MAX_BREAKS + 1))
    with pytest.raises(StructureError):
        list(read_records(over.raw("ascii")))
    assert all(one.intact for one in read_records(over.raw("binary")))


@pytest.mark.parametrize("form", FORMS)
def test_an_altered_entry_is_seen_and_the_rest_is_still_read(form: str) -> None:
    kernel = Kernel.booted().run(b"/bin/evil").run(b"/bin/sh")
    raw = kernel.raw(form)
    assert [one.intact for one in read_records(raw)] == [True, True, True]
    altered = raw.replace(b"/bin/evil", b"/bin/good")
    assert [one.intact for one in read_records(altered)] == [True, False, True]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("logged", HASHES.values(), ids=lambda one: one.name)
def test_the_kernels_lists_of_other_hashes_are_read(form: str, logged: Hash) -> None:
    ones = [record("ima-ng", D, N, logged=logged), record("ima-sig", D, N, b"\1", logged=logged)]
    raw = b"".join(map(FORMS[form], ones))
    assert list_hash(raw) is logged
    assert list(read_records(raw)) == ones


GOOD_LINE = FORMS["ascii"](record("ima-ng", D, N))
GOOD_ENTRY = FORMS["binary"](record("ima-ng", D, N))
BAD = {
    "register": (GOOD_LINE, lambda raw: raw.replace(b"10 ", b"24 ", 1), "bad_register"),
    "register without its blank": (GOOD_LINE, lambda raw: raw.replace(b"10 ", b"9 ", 1), "bad_register"),
    "capital digest": (GOOD_LINE, lambda raw: raw[:3] + raw[3:43].upper() + raw[43:], "not_a_list"),
    "capital file digest": (
        GOOD_LINE,
        lambda raw: raw.replace(D[8:].hex().encode(), D[8:].hex().upper().encode()),
        "bad_field",
    ),
    "unknown template": (GOOD_LINE, lambda raw: raw.replace(b"ima-ng", b"ima-nx"), "unknown_template"),
    "unknown field": (GOOD_LINE, lambda raw: raw.replace(b"ima-ng", b"d-ng|x"), "unknown_template"),
    "NUL in a path": (GOOD_LINE, lambda raw: raw.replace(b"demo", b"de\0o"), "bad_field"),
    "no fields": (GOOD_LINE, lambda raw: raw[:50], "bad_line"),
    "binary register": (GOOD_ENTRY, lambda raw: b"\x18" + raw[1:], "bad_register"),
    "binary template": (
        GOOD_ENTRY + GOOD_ENTRY,
        lambda raw: raw[: len(GOOD_ENTRY)] + raw[len(GOOD_ENTRY) :].replace(b"-ng", b"-xx"),
        "unknown_template",
    ),
    "a long name": (
        GOOD_ENTRY + GOOD_ENTRY,
        lambda raw: raw[: len(GOOD_ENTRY) + 24] + b"\xff" * 4 + raw[len(GOOD_ENTRY) + 28 :],
        "unknown_template",
    ),
    "much data": (
        GOOD_ENTRY,
        lambda raw: raw[:34] + (MAX_DATA + 1).to_bytes(4, "little") + raw[38:],
        "oversized",
    ),
    "cut": (GOOD_ENTRY, lambda raw: raw[:-1], "truncated"),
    "big-endian": (GOOD_ENTRY, lambda raw: raw[3::-1] + raw[4:], "not_a_list"),
}


@pytest.mark.parametrize(("good", "change", "reason"), BAD.values(), ids=BAD.keys())
def test_what_no_kernel_writes_is_refused(good: bytes, change, reason: str) -> None:  # type: ignore[no-untyped-def]
    assert all(one.intact for one in read_records(good))
    with pytest.raises(StructureError) as caught:
        list(read_records(change(good)))
    assert caught.value.reason == reason


NUL_INSIDE = Record(10, TEMPLATES["ima-ng"], b"", TEMPLATES["ima-ng"].join((D, b"/a\0b\0")), True)
LARGE = (b"/x\0", b"\1" * (MAX_DATA - 54))
LATER = {
    "a NUL that the digest covers": (
        b"10 " + hashlib.sha1(NUL_INSIDE.data).hexdigest().encode() + GOOD_LINE[43:-14] + b"/a\0b\n",
        "bad_field",
    ),
    "a violation of another length": (b"10 " + b"0" * 64 + GOOD_LINE[43:], "bad_digest"),
    "more data than an entry has": (FORMS["ascii"](record("ima-buf", D, *LARGE)), "bad_field"),
    "a short digest of ima": (b"10 " + b"ab" * 20 + b" ima " + b"cd" * 16 + b" /x\n", "bad_field"),
    "a long name of ima": (
        b"10 " + b"ab" * 20 + b" ima " + b"cd" * 20 + b" /" + b"x" * 255 + b"\n",
        "bad_field",
    ),
}


@pytest.mark.parametrize(("line", "reason"), LATER.values(), ids=LATER.keys())
def test_a_later_line_is_read_as_strictly_as_the_first(line: bytes, reason: str) -> None:
    with pytest.raises(StructureError) as caught:
        list(read_records(GOOD_LINE + line))
    assert caught.value.reason == reason


def test_a_legacy_name_has_255_bytes_at_most() -> None:
    for form in FORMS:
        good = FORMS[form](record("ima", bytes(range(20)), b"x" * 255 + b"\0"))
        assert [one.intact for one in read_records(good)] == [True]
    entry = FORMS["binary"](record("ima", bytes(range(20)), b"x" * 255 + b"\0")) + b"x"
    with pytest.raises(StructureError) as caught:
        list(read_records(entry.replace(b"\xff\0\0\0", b"\0\1\0\0")))
    assert caught.value.reason == "oversized"


BAD_DATA = {
    "a name without NUL": TEMPLATES["ima-ng"].join((D, N[:-1])),
    "a name with two": TEMPLATES["ima-ng"].join((D, N + b"\0")),
    "a field too short": TEMPLATES["ima-ng"].join((D, N))[:-1],
    "a field too many": TEMPLATES["ima-ng"].join((D, N, b"")),
    "a digest without its algorithm": TEMPLATES["ima-ng"].join((D[8:], N)),
    "a length beyond the data": TEMPLATES["ima-ng"].join((D, N))[:44] + b"\xff\xff\xff\xff" + N,
    "no length of a signature": TEMPLATES["ima-ng"].join((D, N)),
}


@pytest.mark.parametrize("data", BAD_DATA.values(), ids=BAD_DATA.keys())
def test_fields_must_fill_the_data_exactly(data: bytes) -> None:
    template = TEMPLATES["ima-sig" if data == BAD_DATA["no length of a signature"] else "ima-ng"]
    with pytest.raises(StructureError):
        list(read_records(FORMS["binary"](Record(10, template, hashlib.sha1(data).digest(), data, True))))
    good = TEMPLATES["ima-ng"].join((D, N))
    assert TEMPLATES["ima-ng"].split(good) == (D, N)
    with pytest.raises(NoncanonicalError):
        TEMPLATES["ima-ng"].split(good + bytes(4))


def test_im_7_more_entries_than_any_machine_has_are_refused() -> None:
    kernel = Kernel.booted().run(b"/a").run(b"/b")
    more = Kernel.booted().run(b"/a").run(b"/b").run(b"/c")
    for form in FORMS:
        assert len(list(read_records(kernel.raw(form), limit=3))) == 3
        assert verify_measurements(kernel.raw(form), kernel.quoted, limit=3).covered == 3
        with pytest.raises(StructureError, match="more than 3"):
            verify_measurements(more.raw(form), more.quoted, limit=3)


def test_im_7_a_million_entries_are_the_most_and_a_larger_list_is_not_even_begun() -> None:
    small = FORMS["binary"](record("iuid", bytes(4)))
    records = read_records(small * (MAX_ENTRIES + 1))
    deque(islice(records, MAX_ENTRIES - 1), maxlen=0)
    assert next(records).intact
    with pytest.raises(StructureError, match="more than 1000000 entries"):
        next(records)
    with pytest.raises(StructureError, match="at most 268435456 are read"):
        next(read_records(bytes(MAX_BYTES + 1)))


def test_no_bytes_are_no_entries() -> None:
    assert list(read_records(b"")) == []
    assert summarise(b"", {}).reason == "log_empty"


def test_the_quick_way_and_the_thorough_way_of_a_line_agree() -> None:
    reader = printed._Lines(next(iter(HASHES.values())))
    for one in EACH:
        line = FORMS["ascii"](one)[:-1]
        quick = reader.fast(line)
        assert quick in (None, one)
        assert reader.entry(line, 0, len(line)) == (one, len(line))
    assert sum(reader.fast(FORMS["ascii"](one)[:-1]) is not None for one in EACH) >= 5
    assert SHA256.name == "sha256"
