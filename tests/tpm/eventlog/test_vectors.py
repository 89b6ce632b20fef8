"""Does every published log read, replay and tell what its source says?"""

import json
from typing import Any

import pytest

from tests.tpm.vectors import Vector, vectors
from tpm.errors import StructureError
from tpm.eventlog.compare import compare
from tpm.eventlog.events import EventLog
from tpm.eventlog.facts.boot import BootFacts, read_facts
from tpm.eventlog.reader import read_log
from tpm.eventlog.replay import replay

LOGS = vectors("eventlogs/*")
VM = vectors("vm/*")
MUTATED = [one for one in vectors("adversarial/*") if one.has("log.bin")]
QUOTED = [one for one in vectors("attestations/*") if one.has("log.bin") or one.has("log0.bin")]


def expected(vector: Vector) -> dict[str, Any]:
    found: dict[str, Any] = vector.about["expected"]
    return found


def log_of(vector: Vector) -> EventLog:
    return read_log(vector.read("eventlog.bin" if vector.has("eventlog.bin") else "log.bin"))


def facts_of(log: EventLog) -> BootFacts:
    bank = next(one for one in ("sha256", "sha384", "sha1") if one in log.algorithms)
    return read_facts(log, bank=bank, registers=None)


def as_hex(banks: Any) -> dict[str, dict[str, str]]:
    return {
        bank: {str(register): value.hex() for register, value in values.items()}
        for bank, values in banks.items()
    }


def quoted_values(pcrs: dict[str, str]) -> dict[int, bytes]:
    return {int(register): bytes.fromhex(value) for register, value in pcrs.items()}


def test_all_open_vectors_are_here(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(
            f"\n{len(LOGS)} logs, {len(VM)} machines, {len(MUTATED)} hostile logs, {len(QUOTED)} quoted logs"
        )
    assert (len(LOGS), len(VM), len(MUTATED), len(QUOTED)) == (55, 1, 18, 12)


@pytest.mark.parametrize("vector", LOGS + VM, ids=str)
def test_a_published_log_reads_as_its_source_says(vector: Vector) -> None:
    log, facts = log_of(vector), expected(vector)["facts"]
    confidential = vector.folder.name.startswith("ccel")
    assert log.format == ("ccel" if confidential else facts["format"])
    assert len(log.events) == facts["event_count"]
    if "algs" in facts:
        assert list(log.algorithms) == facts["algs"]
        assert log.padding == facts["trailing_bytes"]


@pytest.mark.parametrize("vector", LOGS + VM, ids=str)
def test_a_published_log_replays_in_every_bank(vector: Vector) -> None:
    wanted = expected(vector).get("replayed_pcrs") or expected(vector)["replayed_registers"]
    replayed = as_hex(replay(log_of(vector)).banks)
    # The machine's file gives one of its two banks.
    assert {bank: replayed[bank] for bank in wanted} == wanted
    assert set(replayed) == set(wanted) or vector in VM


@pytest.mark.parametrize("vector", [one for one in LOGS if "pcrs" in expected(one)], ids=str)
def test_registers_match_and_mismatch_as_published(vector: Vector) -> None:
    replayed = replay(log_of(vector)).banks
    compared = vector.about["checked"]["replay_vs_expected"]
    assert compared
    for bank, lists in compared.items():
        states = compare(replayed[bank], quoted_values(expected(vector)["pcrs"][bank]))
        for state, name in (("match", "match"), ("mismatch", "mismatch"), ("not_quoted", "log_only")):
            assert [register for register, one in states.items() if one == state] == lists[name]


@pytest.mark.parametrize(
    "vector", [one for one in LOGS + VM if "secure_boot_enabled" in expected(one)], ids=str
)
def test_secure_boot_is_as_published(vector: Vector) -> None:
    assert facts_of(log_of(vector)).secure_boot.enabled is expected(vector)["secure_boot_enabled"]


@pytest.mark.parametrize("vector", LOGS, ids=str)
def test_secure_boot_is_what_the_variable_says_where_it_was_measured(vector: Vector) -> None:
    # This TPM 1.2 firmware measures a variable's content without its name: that proves nothing of a name.
    unnamed = vector.folder.name == "workstation-linux-tpm12"
    said = [] if unnamed else expected(vector)["facts"]["secure_boot_variable"]
    wanted = {"01": True, "00": False, "": False}[said[0]] if said else None
    assert facts_of(log_of(vector)).secure_boot.enabled is wanted


@pytest.mark.parametrize("vector", [one for one in LOGS if "efi_app_digests" in expected(one)], ids=str)
def test_loaded_programs_are_as_published(vector: Vector) -> None:
    log = log_of(vector)
    for bank, digests in expected(vector)["efi_app_digests"].items():
        images = read_facts(log, bank=bank, registers=None).images
        assert [one.digest.hex() for one in images if one.kind == "application"] == digests


@pytest.mark.parametrize("vector", MUTATED, ids=str)
def test_a_hostile_log_is_refused_or_read_as_published(vector: Vector) -> None:
    says = expected(vector)["parse"]
    if says.startswith(("must fail", "empty log")):
        with pytest.raises(StructureError):
            log_of(vector)
        return
    log = log_of(vector)
    if "algs" in expected(vector):
        assert list(log.algorithms) == expected(vector)["algs"]
    if "mismatch_pcrs" in expected(vector):
        states = compare(replay(log).banks["sha256"], quoted_values(vector_pcrs(vector)["sha256"]))
        wrong = [register for register, state in states.items() if state == "mismatch"]
        assert wrong == expected(vector)["mismatch_pcrs"]


def vector_pcrs(vector: Vector) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(vector.read("pcrs.json"))
    return found


@pytest.mark.parametrize("vector", [one for one in QUOTED if "event_log_replay" in expected(one)], ids=str)
def test_a_quoted_log_replays_as_published(vector: Vector) -> None:
    values = vector_pcrs(vector)
    compared = expected(vector)["event_log_replay"]
    logs = sorted(vector.folder.glob("log*.bin"))
    several = compared if isinstance(compared, list) else [compared]
    for path, banks in zip(logs, several, strict=True):
        replayed = replay(read_log(path.read_bytes())).banks
        for bank, lists in banks.items():
            states = compare(replayed[bank], quoted_values(values[bank]))
            assert [register for register, one in states.items() if one == "match"] == lists["match"]
            assert [register for register, one in states.items() if one == "mismatch"] == lists["mismatch"]


def test_the_machine_of_the_repository_tells_all_of_its_boot() -> None:
    (vector,) = VM
    facts = facts_of(log_of(vector))
    words = vector.read("cmdline").decode().strip()
    assert [one.name for one in facts.uki.sections] == [".linux", ".osrel", ".cmdline", ".initrd"]
    assert [(one.source, one.is_exactly(words)) for one in facts.command_lines] == [
        ("uki", True),
        ("linux", True),
    ]
    assert not any(one.is_exactly(words + " ") for one in facts.command_lines)
    assert facts.hand_over == "succeeded"
    assert {name: database.entries for name, database in facts.secure_boot.databases.items()} == {
        "PK": 1,
        "KEK": 1,
        "db": 1,
        "dbx": 1,
    }
    assert [one.source for one in facts.secure_boot.authorities] == ["db"]
    assert facts.unexplained == {7: (), 8: (), 11: (), 12: ()}
    assert facts.findings == ()


def test_changed_data_of_a_real_log_is_told_and_gives_no_fact() -> None:
    (vector,) = [one for one in MUTATED if "payload" in one.folder.name]
    changed = facts_of(log_of(vector))
    (original,) = [one for one in LOGS if one.folder.name == "lenovo-t480-fedora"]
    whole = facts_of(log_of(original))
    assert whole.findings == ()
    assert changed.findings != () or changed.grub.unexplained != () or changed != whole
