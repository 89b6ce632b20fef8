"""`attestd evidence eventlog` answers as DESIGN says, to programs and to people."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.attestd.cli.conftest import Run
from tests.tpm.eventlog.logs import IPL, LogMaker, secure_boot_log
from tests.tpm.eventlog.test_replay import record
from tests.tpm.vectors import Vector, vectors
from tpm.eventlog.replay import replay
from tpm.eventlog.userspace import read_userspace

LOGS = vectors("eventlogs/*")
HOSTILE = [one for one in vectors("adversarial/*") if one.has("log.bin")]
MEMBERS = {"valid", "reason", "format", "events", "banks", "replay", "secure_boot", "findings"}


def pcr_file(path: Path, banks: Any) -> Path:
    path.write_text(json.dumps(banks))
    return path


def values_of(maker: LogMaker, *more: bytes) -> dict[str, dict[str, str]]:
    userspace = read_userspace(b"".join(more)) if more else None
    banks = replay(maker.read(), userspace).banks
    return {
        bank: {str(register): value.hex() for register, value in values.items()}
        for bank, values in banks.items()
    }


def told(attestd: Run, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    ended = attestd("evidence", "eventlog", *arguments, "--json")
    return ended.exit_code, json.loads(ended.stdout)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_bytes(secure_boot_log().write())
    return path


def test_a_log_alone_is_unquoted_and_holds(attestd: Run, log: Path) -> None:
    status, said = told(attestd, log)
    assert status == 0
    assert said.keys() >= MEMBERS
    assert (said["valid"], said["reason"], said["format"]) == (True, None, "crypto-agile")
    assert said["events"] == len(secure_boot_log().records) + 1
    assert said["banks"] == values_of(secure_boot_log())
    assert {state for states in said["replay"].values() for state in states.values()} == {"unquoted"}
    assert said["secure_boot"] is True
    assert said["findings"] == []


def test_values_are_compared_and_one_mismatch_makes_it_not_hold(
    attestd: Run, log: Path, tmp_path: Path
) -> None:
    values = values_of(secure_boot_log())
    del values["sha1"]
    del values["sha256"]["3"]
    values["sha256"]["10"] = "00" * 32
    status, said = told(attestd, log, "--pcrs", pcr_file(tmp_path / "good", values))
    assert (status, said["valid"]) == (0, True)
    assert said["replay"]["sha256"] == {**dict.fromkeys("0124567", "match"), "3": "unquoted"}
    assert set(said["replay"]["sha1"].values()) == {"unquoted"}
    values["sha256"]["7"] = "11" * 32
    status, said = told(attestd, log, "--pcrs", pcr_file(tmp_path / "bad", values))
    assert (status, said["valid"], said["reason"]) == (1, False, "log_replay")
    assert said["replay"]["sha256"]["7"] == "mismatch"
    assert [one["register"] for one in said["findings"]] == [7]


def test_a_bank_that_the_log_lacks_is_not_judged(attestd: Run, log: Path, tmp_path: Path) -> None:
    values = {"sha384": {"0": "00" * 48}}
    status, said = told(attestd, log, "--pcrs", pcr_file(tmp_path / "pcrs", values))
    assert (status, said["valid"]) == (0, True)
    assert "sha384" not in said["replay"]


def test_userspace_is_replayed_after_the_firmware(attestd: Run, log: Path, tmp_path: Path) -> None:
    more = [record(11, "enter-initrd"), record(7, "os-separator")]
    systemd = tmp_path / "tpm2-measure.log"
    systemd.write_bytes(b"".join(more))
    values = pcr_file(tmp_path / "pcrs", values_of(secure_boot_log(), *more))
    status, said = told(attestd, log, "--userspace", systemd, "--pcrs", values)
    assert status == 0
    assert said["replay"]["sha256"]["11"] == said["replay"]["sha256"]["7"] == "match"
    status, said = told(attestd, log, "--pcrs", values)
    assert status == 1
    assert "11" not in said["banks"]["sha256"]
    systemd.write_bytes(b"\x1enothing\n")
    status, said = told(attestd, log, "--userspace", systemd, "--pcrs", values)
    assert (status, said["reason"], said["banks"]) == (1, "userspace_log", None)
    assert said["format"] == "crypto-agile"


@pytest.mark.parametrize("vector", LOGS, ids=str)
def test_a_published_log_is_told_whole(attestd: Run, vector: Vector, tmp_path: Path) -> None:
    expected = vector.about["expected"]
    status, said = told(attestd, vector.folder / "log.bin")
    assert status == 0
    assert said["events"] == expected["facts"]["event_count"]
    assert said["banks"] == (expected.get("replayed_pcrs") or expected["replayed_registers"])
    if "secure_boot_enabled" in expected:
        assert said["secure_boot"] is expected["secure_boot_enabled"]
    if expected.get("pcrs"):
        path = pcr_file(tmp_path / "pcrs", expected["pcrs"])
        status, said = told(attestd, vector.folder / "log.bin", "--pcrs", path)
        wrong = any(lists["mismatch"] for lists in vector.about["checked"]["replay_vs_expected"].values())
        assert (status, said["valid"]) == ((1, False) if wrong else (0, True))
    assert attestd("evidence", "eventlog", vector.folder / "log.bin").exit_code == 0


@pytest.mark.parametrize("vector", HOSTILE, ids=str)
def test_a_hostile_log_is_told_whole_too(attestd: Run, vector: Vector) -> None:
    refused = vector.about["expected"]["parse"].startswith(("must fail", "empty"))
    status, said = told(attestd, vector.folder / "log.bin")
    assert said.keys() >= MEMBERS
    assert status == (1 if refused else 0)
    assert said["valid"] is not refused
    if refused:
        assert said["reason"].islower()
        assert said["banks"] is said["replay"] is said["secure_boot"] is None


def test_secure_boot_is_null_where_its_data_was_not_measured(attestd: Run, tmp_path: Path) -> None:
    maker = secure_boot_log()
    maker.records[1].measured = b"something else"
    (tmp_path / "log").write_bytes(maker.write())
    _, said = told(attestd, tmp_path / "log")
    assert said["secure_boot"] is None
    assert [one["code"] for one in said["findings"]] == ["data_mismatch"]


def test_files_that_cannot_be_read_end_with_2(attestd: Run, log: Path, tmp_path: Path) -> None:
    assert attestd("evidence", "eventlog", tmp_path / "none", "--json").exit_code == 2
    assert attestd("evidence", "eventlog", log, "--userspace", tmp_path / "none").exit_code == 2
    assert attestd("evidence", "eventlog", log, "--pcrs", tmp_path / "none").exit_code == 2
    assert attestd("evidence", "eventlog", log, "--nonsense").exit_code == 2
    for text in ("[]", "{", '{"sha256": {"24": "00"}}', '{"sha256": {"0": "zz"}}'):
        (tmp_path / "pcrs").write_text(text)
        ended = attestd("evidence", "eventlog", log, "--pcrs", tmp_path / "pcrs")
        assert ended.exit_code == 2
        assert "PCR file" in ended.stderr


def test_a_person_reads_one_line_an_event(attestd: Run, log: Path) -> None:
    ended = attestd("evidence", "eventlog", log)
    lines = ended.stdout.splitlines()
    events = [line for line in lines if line[:5].strip().isdigit()]
    assert len(events) == len(secure_boot_log().records) + 1
    assert any("Secure Boot is on" in line for line in events)
    assert any("firmware version Test 1.0" in line for line in events)
    assert any("\\EFI\\BOOT\\BOOTX64.EFI" in line and "  4  " in line for line in events)
    assert lines[-1] == "holds: the log was compared with no register; Secure Boot is on"
    assert "\x1b" not in ended.stdout


def test_the_story_says_where_a_register_parts_from_the_log(attestd: Run, log: Path, tmp_path: Path) -> None:
    values = {"sha256": {"7": values_of(LogMaker(records=secure_boot_log().records[:-4]))["sha256"]["7"]}}
    ended = attestd("evidence", "eventlog", log, "--pcrs", pcr_file(tmp_path / "pcrs", values))
    assert ended.exit_code == 1
    assert "register 7: it holds what comes before event 16 (EV_EFI_VARIABLE_AUTHORITY)" in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("does not hold (log_replay)")


def test_a_log_cannot_speak_to_the_terminal(attestd: Run, tmp_path: Path) -> None:
    maker = secure_boot_log().add(8, IPL, b"grub_cmd: \x1b[2J\x07 \xe2\x80\xae x\0")
    (tmp_path / "log").write_bytes(maker.write())
    text = attestd("evidence", "eventlog", tmp_path / "log").stdout
    assert all(line.isprintable() for line in text.splitlines())
    assert "\\x1b" in text


def test_the_machines_boot_names_every_component(attestd: Run) -> None:
    (vector,) = vectors("vm/*")
    text = attestd("evidence", "eventlog", vector.folder / "eventlog.bin").stdout
    for words in (
        "option ROM",
        "section .cmdline of the kernel image",
        "Exit Boot Services Returned with Success",
    ):
        assert words in text
    (shim,) = [one for one in LOGS if one.folder.name == "gce-rhel8-secureboot"]
    text = attestd("evidence", "eventlog", shim.folder / "log.bin").stdout
    for words in (
        "shim ",
        "GRUB ",
        "kernel ",
        "Microsoft Corporation UEFI CA 2011",
        "kernel command line: (hd0",
    ):
        assert words in text
