"""Do published lists read and replay as their expected.json says?"""

import json
from collections import Counter

import pytest

from tests.tpm.vectors import Vector, vectors
from tpm.errors import EvidenceError, StructureError
from tpm.ima.aggregate import verify_boot_aggregate
from tpm.ima.ascii import write_ascii
from tpm.ima.binary import write_binary
from tpm.ima.entry import Record
from tpm.ima.measurements import is_binary, read_records
from tpm.ima.summary import summarise
from tpm.ima.verify import verify_measurements
from tpm.structures.algorithms import SHA256
from tpm.verify.pcrs import VerifiedPcrs

ALL = vectors("ima/*")
READABLE = [vector for vector in ALL if vector.about["expected"]["parse"] == "ok"]
CUT = [vector for vector in ALL if "complete_entries" in vector.about["expected"]]
NO_LISTS = [vector for vector in ALL if vector.about["expected"]["parse"] == "must fail"]
ENTRIES = json.loads(vectors("adversarial/ima-invalid-entries-keylime")[0].read("entries.json"))
MACHINE = vectors("vm/ovmf-uki-secureboot")[0]


def list_of(vector: Vector) -> bytes:
    return vector.read("ima.bin" if vector.has("ima.bin") else "ima.txt")


def test_every_list_is_judged() -> None:
    assert len(READABLE) + len(CUT) + len(NO_LISTS) == len(ALL) == 13
    print(f"{len(ALL)} IMA lists: {len(READABLE)} readable, {len(CUT)} cut, {len(NO_LISTS)} none")
    print(f"{len(ENTRIES)} entries that are none; one machine's list in both forms")


@pytest.mark.parametrize("vector", READABLE, ids=str)
def test_a_published_list_reads_and_replays_as_it_says(vector: Vector) -> None:
    expected = vector.about["expected"]
    raw = list_of(vector)
    records = list(read_records(raw))
    assert len(records) == expected["entries"]
    assert Counter(record.template.name for record in records) == expected["templates"]
    assert Counter(str(record.pcr) for record in records) == expected["per_pcr"]
    assert [place for place, record in enumerate(records) if not record.intact] == []
    replayed = {
        int(register): {name: bytes.fromhex(value) for name, value in values.items()}
        for register, values in expected["replayed"].items()
    }
    for name, bank in (("sha1", "sha1"), ("sha256_native", "sha256"), ("sha256_zero_padded_sha1", "sha256")):
        quoted = {bank: {register: values[name] for register, values in replayed.items()}}
        found = summarise(raw, quoted)
        assert (found.valid, found.entries, found.violations) == (True, len(records), expected["violations"])
        assert found.covered == len(records)
        assert found.banks is not None
        assert found.banks["sha1"] == {register: values["sha1"] for register, values in replayed.items()}
        assert found.banks["sha256"] == {
            register: values["sha256_native"] for register, values in replayed.items()
        }


@pytest.mark.parametrize("vector", READABLE, ids=str)
def test_a_published_list_is_written_as_it_was_read(vector: Vector) -> None:
    """But for blanks at the ends of lines, which one publisher's editor removed."""
    raw = list_of(vector)
    records = list(read_records(raw))
    if is_binary(raw):
        assert b"".join(map(write_binary, records)) == raw
    else:
        written = b"".join(map(write_ascii, records))
        assert [line.rstrip(b" ") for line in written.splitlines()] == [
            line.rstrip(b" ") for line in raw.splitlines()
        ]
    for write in (write_ascii, write_binary):
        assert list(read_records(b"".join(map(write, records)))) == records


@pytest.mark.parametrize("vector", CUT, ids=str)
def test_a_list_with_bytes_after_its_last_entry_does_not_hold(vector: Vector) -> None:
    found = summarise(list_of(vector), {})
    assert (found.valid, found.reason) == (False, "truncated")
    assert found.entries == vector.about["expected"]["complete_entries"]


@pytest.mark.parametrize("vector", NO_LISTS, ids=str)
def test_what_is_no_list_is_refused(vector: Vector) -> None:
    with pytest.raises(StructureError):
        list(read_records(list_of(vector)))


@pytest.mark.parametrize("name", ENTRIES)
def test_what_is_no_entry_is_refused(name: str) -> None:
    good = b"10 7936eb315fb4e74b99e7d461bc5c96049e1ee092 ima-ng "
    good += b"sha1:bc026ae66d81713e4e852465e980784dc96651f8 /usr/lib/systemd/systemd\n"
    assert [record.intact for record in read_records(good)] == [True]
    for raw in (ENTRIES[name].encode(), good + ENTRIES[name].encode()):
        with pytest.raises(StructureError):
            list(read_records(raw))


def test_a_list_that_was_read_after_the_register_holds_up_to_there() -> None:
    vector = next(one for one in ALL if one.folder.name == "supermicro-h12ssl-race")
    registers = {"sha1": {10: bytes.fromhex(vector.about["expected"]["pcrs"]["sha1"]["10"])}}
    found = summarise(vector.read("ima.bin"), registers)
    assert (found.valid, found.covered) == (True, vector.about["checked"]["pcr10_prefix_match"]["sha1"])


def prefix(form: str, count: int) -> tuple[list[Record], VerifiedPcrs]:
    """The virtual machine's registers as they were when its list had this many entries."""
    records = list(read_records(MACHINE.read(f"ima.{form}")))
    value = bytes(32)
    for record in records[:count]:
        value = SHA256.digest(value + SHA256.digest(record.data))
    values = MACHINE.about["expected"]["pcrs"]["sha256"]
    registers = {int(register): bytes.fromhex(text) for register, text in values.items()}
    return records, VerifiedPcrs("sha256", {**registers, 10: value})


@pytest.mark.parametrize("form", ["ascii", "bin"])
@pytest.mark.parametrize("count", [1, 200, 395])
def test_a_machines_list_is_proven_alike_in_both_forms(form: str, count: int) -> None:
    _, pcrs = prefix(form, count)
    proven = verify_measurements(MACHINE.read(f"ima.{form}"), pcrs)
    assert (proven.covered, proven.mark.count, proven.boot) == (count, count, "proven")
    assert len(list(proven.entries())) == count


def test_both_forms_of_a_machines_list_have_the_same_entries() -> None:
    printed, _ = prefix("ascii", 0)
    binary, pcrs = prefix("bin", 0)
    assert len(printed) == 395
    assert printed == binary[:395]
    assert verify_boot_aggregate(binary[0], bank=SHA256, values=pcrs.values)


@pytest.mark.parametrize("form", ["ascii", "bin"])
def test_a_list_older_than_the_quote_is_not_covered(form: str) -> None:
    """This machine's register 10 was read after its list, as its expected.json notes."""
    _, pcrs = prefix(form, 0)
    value = bytes.fromhex(MACHINE.about["expected"]["pcrs"]["sha256"]["10"])
    with pytest.raises(EvidenceError) as caught:
        verify_measurements(MACHINE.read(f"ima.{form}"), VerifiedPcrs("sha256", {**pcrs.values, 10: value}))
    assert caught.value.reason == "ima_not_covered"
