"""What the doctor of a machine makes of what was read: each fault is told with its fix, and its healthy twin
is well."""

import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from attestd.agent.doctor.check import Check, Unread, judged
from attestd.agent.doctor.ek_judgments import judge_certificate, judge_chain
from attestd.agent.doctor.enrolment_judgments import judge_ak, judge_enrolment, judge_state
from attestd.agent.doctor.log_judgments import judge_event_log, judge_ima, judge_userspace
from attestd.agent.doctor.log_readings import LogReading
from attestd.agent.doctor.machine_readings import CAP_CHOWN, CAP_SYS_PTRACE, Place, Runner, StateReading
from attestd.agent.doctor.service_judgments import judge_clock, judge_service, skew
from attestd.agent.doctor.service_readings import Answer
from attestd.agent.doctor.settings_judgments import (
    judge_callers,
    judge_folders,
    judge_rights,
    judge_runner,
    judge_settings,
    judge_socket,
)
from attestd.agent.doctor.tpm_judgments import (
    judge_access,
    judge_banks,
    judge_leavings,
    judge_lockout,
    judge_maker,
    judge_version,
)
from attestd.agent.doctor.tpm_readings import Node, Nodes, TpmReading
from attestd.agent.logs import LogFiles
from attestd.agent.settings import Settings
from attestd.agent.state import Membership
from attestd.agent.workload.rules import Rule
from tests.attestd.agent.running.simulated import workload
from tests.recorded import EVENT_LOG, IMA_LIST, registers, userspace_log
from tpm.device.device import Device
from tpm.device.endorsement import Endorsement
from tpm.device.properties import Properties
from tpm.eventlog.reader import read_log
from tpm.eventlog.replay import replay
from tpm.swtpm import SoftwareTpm
from tpm.swtpm_ca import TestCa, issue_endorsement_certificate, make_test_ca
from tpm.verify.device_id import device_identifier

NOW = int(datetime(2026, 7, 1, tzinfo=UTC).timestamp() * 1000)
URL = "https://attest.example.org"
DENIED = Unread("EACCES", "Permission denied")
GONE = Unread("tpm_unreachable", "The TPM did not open: no answer.")

HARDWARE = Properties("2.0", "IFX", "SLB9670", 7 << 48 | 85 << 32, False, 0, 32, 7200)
RM, RAW = Path("/dev/tpmrm0"), Path("/dev/tpm0")
OPENS = Node(RM, None, "tss", True)
NODES = Nodes("device:/dev/tpmrm0", RM, (OPENS, Node(RAW, None, "tss", True)), "2", "operator")


def only(checks: Iterator[Check]) -> Check:
    (found,) = checks
    return found


def is_well(checks: Iterator[Check]) -> str:
    """What was found by the one check, which has nothing to mend."""
    check = only(checks)
    assert (check.verdict, check.fix) == ("ok", ""), check
    return check.found


def is_told(checks: Iterator[Check], verdict: str, found: str, fix: str) -> None:
    check = only(checks)
    assert check.verdict == verdict, check
    assert found in check.found, check
    assert fix in check.fix, check


@pytest.fixture(scope="module")
def endorsement(shared_tpm: SoftwareTpm) -> Endorsement:
    with Device(shared_tpm.tcti) as device:
        return device.endorsement("p256")


@pytest.fixture(scope="module")
def reading(endorsement: Endorsement) -> TpmReading:
    """A TPM that is well, whose attestation key is there."""
    return TpmReading(HARDWARE, (), {"sha256": tuple(range(24))}, {}, endorsement, b"\0\x0bname")


# --- the TPM --------------------------------------------------------------------------------------


def test_a_tpm_that_opens_is_well(reading: TpmReading) -> None:
    assert is_well(judge_access(NODES, reading)) == "device:/dev/tpmrm0 opens"
    alone = replace(NODES, tcti="device:/dev/tpm0", named=RAW, there=(Node(RAW, None, "tss", True),))
    assert is_well(judge_access(alone, reading)) == "device:/dev/tpm0 opens"


def test_one_user_at_a_time_is_told_where_there_is_a_resource_manager(reading: TpmReading) -> None:
    raw = replace(NODES, tcti="device:/dev/tpm0", named=RAW)
    is_told(judge_access(raw, reading), "warn", "one program at a time", "name device:/dev/tpmrm0")


def refused(word: str, **changed: Any) -> Nodes:
    return replace(NODES, there=(replace(OPENS, refused=word, **changed),))


@pytest.mark.parametrize(
    ("nodes", "found", "fix"),
    [
        (replace(NODES, there=(), kernels=None), "the kernel knows no TPM", "in the firmware's set-up"),
        (replace(NODES, there=(), kernels="2"), "the kernel knows a TPM", "in a container"),
        (replace(NODES, there=(), kernels="1"), "TPM 1.2", "switch the TPM to 2.0"),
        (replace(NODES, there=(Node(RAW, None, "tss", True),)), "but /dev/tpm0", "name device:/dev/tpm0"),
        (refused("EACCES"), "user operator may not open /dev/tpmrm0", "usermod -aG tss operator"),
        (refused("EACCES", group="root", group_may=False), "only root", "install the package tpm-udev"),
        (refused("EPERM"), "kept from this container or unit", "DeviceAllow=/dev/tpmrm0 rw"),
        (
            refused("EBUSY", holders=("tcsd, process 7",)),
            "held by tcsd, process 7",
            "name device:/dev/tpmrm0",
        ),
        (refused("EBUSY"), "held by another process", "stop that one"),
        (replace(NODES, kernels="1"), "TPM 1.2", "switch the TPM to 2.0"),
        (NODES, "did not open", "power the machine off and on"),
        (replace(NODES, tcti="swtpm:path=/x", named=None), "did not open", "--tpm device:/dev/tpmrm0"),
    ],
)
def test_a_tpm_that_does_not_open_is_told_with_what_helps(nodes: Nodes, found: str, fix: str) -> None:
    is_told(judge_access(nodes, GONE), "fail", found, fix)


def test_an_agent_that_is_at_the_tpm_is_no_fault() -> None:
    busy = Unread("tpm_in_use", "another attestd agent (pid 7) uses the TPM; try again")
    is_told(judge_access(NODES, busy), "warn", "pid 7", "look again")


def test_only_version_2_will_do() -> None:
    assert is_well(judge_version(HARDWARE)) == "TPM 2.0"
    is_told(judge_version(replace(HARDWARE, family="1.2")), "fail", "TPM 1.2", "to 2.0")


def test_a_software_tpm_is_called_one() -> None:
    assert is_well(judge_maker(HARDWARE)) == "IFX SLB9670, firmware 0007005500000000"
    software = replace(HARDWARE, manufacturer="IBM", vendor="SW   TPM")
    is_told(judge_maker(software), "warn", "a software TPM (IBM SW TPM", "for tests only")


def test_wrong_passwords_are_told_before_they_lock_the_tpm() -> None:
    assert is_well(judge_lockout(HARDWARE)) == "no wrong passwords"
    is_told(judge_lockout(replace(HARDWARE, wrong_passwords=3)), "warn", "3 of 32", "find who")
    locked = replace(HARDWARE, wrong_passwords=32, in_lockout=True)
    is_told(judge_lockout(locked), "warn", "locked: 32 of 32", "each 7200 s")


ALL = tuple(range(24))


@pytest.mark.parametrize(
    ("allocation", "verdict", "found"),
    [
        ({"sha1": ALL, "sha256": ()}, "fail", "sha1 in use, and none that may be quoted"),
        ({"sha1": ALL}, "fail", "this TPM has no sha256"),
        ({"sha256": ()}, "fail", "none in use"),
        ({"sha256": (), "sha384": ALL}, "warn", "not sha256"),
        ({"sha256": ALL[1:]}, "warn", "lacks the registers 0"),
    ],
)
def test_a_bank_that_is_not_in_use_is_told(
    allocation: Mapping[str, tuple[int, ...]], verdict: str, found: str
) -> None:
    is_told(judge_banks(allocation), verdict, found, "tpm2_pcrallocate")


def test_sha256_is_all_that_is_needed() -> None:
    assert is_well(judge_banks({"sha256": ALL})) == "sha256 in use"
    assert is_well(judge_banks({"sha1": ALL, "sha256": ALL[:16]})) == "sha1, sha256 in use"
    is_told(judge_banks(GONE), "fail", "did not open", "power")


def test_what_others_left_in_the_tpm_is_named() -> None:
    assert is_well(judge_leavings((), "device:/dev/tpm0")) == "nothing is left in the TPM"
    is_told(judge_leavings((0x80000000,), "device:/dev/tpm0"), "warn", "0x80000000", "device:/dev/tpmrm0")
    is_told(judge_leavings((0x80000000,), "device:/dev/tpmrm0"), "warn", "0x80000000", "tpm2_flushcontext")
    is_told(judge_leavings(GONE, "device:/dev/tpm0"), "warn", "did not open", "power")


# --- who vouches for it ---------------------------------------------------------------------------


def certified(endorsement: Endorsement, ca: TestCa, *chain: Any) -> Endorsement:
    """The same key under another authority."""
    key: Any = endorsement.public.public_key()
    above = tuple(each.public_bytes(Encoding.DER) for each in chain)
    return replace(endorsement, certificate=issue_endorsement_certificate(ca, key), chain=above)


def test_a_certificate_of_this_tpms_key_is_well(endorsement: Endorsement) -> None:
    said = is_well(judge_certificate(endorsement, HARDWARE, now=NOW))
    device = device_identifier(endorsement.public.public_key())
    assert said == f"L-2 (p256) by id:00001014 swtpm, of this TPM's key; device {device}"


@pytest.mark.parametrize(("maker", "fix"), [("AMD", "AMD gives"), ("INTC", "Intel gives"), ("IFX", "tofu")])
def test_who_supplies_a_missing_certificate_is_told(endorsement: Endorsement, maker: str, fix: str) -> None:
    bare = replace(endorsement, certificate=None, chain=())
    device = device_identifier(endorsement.public.public_key())
    properties = replace(HARDWARE, manufacturer=maker)
    is_told(judge_certificate(bare, properties, now=NOW), "warn", "none in the TPM", fix)
    is_told(
        judge_certificate(bare, properties, now=NOW), "warn", "L-2", f"attestd device certificate {device}"
    )
    assert list(judge_chain(bare)) == []


def test_a_certificate_of_another_key_fails(endorsement: Endorsement, software_tpm: SoftwareTpm) -> None:
    with Device(software_tpm.tcti) as device:
        other = device.endorsement("p256")
    mixed = replace(endorsement, certificate=other.certificate)
    is_told(judge_certificate(mixed, HARDWARE, now=NOW), "fail", "another key", "another TPM's")


def test_a_certificate_that_is_none_or_not_of_this_time_fails(endorsement: Endorsement) -> None:
    broken = replace(endorsement, certificate=b"0\x82\0\0")
    is_told(judge_certificate(broken, HARDWARE, now=NOW), "fail", "L-2: ", "ask the maker")
    ca = make_test_ca()
    authority = replace(endorsement, certificate=ca.root.public_bytes(Encoding.DER))
    is_told(judge_certificate(authority, HARDWARE, now=NOW), "fail", "L-2: ", "ask the maker")
    is_told(judge_certificate(endorsement, HARDWARE, now=0), "fail", "valid 2020-01-01", "see clock")


@pytest.mark.parametrize(
    ("code", "fix"),
    [("hierarchy_disabled", "enable the endorsement"), ("tpm_full", "tpm slots"), ("tpm_failed", "power")],
)
def test_a_tpm_without_an_endorsement_key_fails(code: str, fix: str) -> None:
    is_told(judge_certificate(Unread(code, "no"), HARDWARE, now=NOW), "fail", "no endorsement key: no", fix)
    assert list(judge_chain(GONE)) == []


def test_a_chain_is_complete_where_it_ends_in_a_root(endorsement: Endorsement) -> None:
    ca = make_test_ca("maker", intermediate=True)
    assert ca.intermediate is not None
    between = ca.intermediate.certificate
    whole = certified(endorsement, ca, ca.root, between)
    assert is_well(judge_chain(whole)) == "complete, to the root CN=maker"
    part = certified(endorsement, ca, between)
    assert "1 of its authorities in the TPM; the service must know CN=maker " in is_well(judge_chain(part))
    none = certified(endorsement, ca)
    assert "the service must know CN=maker\\, intermediate" in is_well(judge_chain(none))


def test_a_chain_of_somebody_elses_is_told(endorsement: Endorsement) -> None:
    strange = certified(endorsement, make_test_ca("maker"), make_test_ca("other").root)
    is_told(judge_chain(strange), "warn", "not those of its certificate", "know CN=maker: attestd ek-roots")
    namesake = certified(endorsement, make_test_ca("maker"), make_test_ca("maker").root)
    is_told(judge_chain(namesake), "warn", "not those of its certificate", "attestd ek-roots")
    unreadable = replace(endorsement, chain=(b"0\x82\0\0",))
    is_told(judge_chain(unreadable), "warn", "", "attestd ek-roots import")


# --- what it measured -----------------------------------------------------------------------------

FILES = LogFiles(Path("/event.log"), Path("/userspace.log"), Path("/ima"))
LOGS = LogReading(FILES, EVENT_LOG, userspace_log(), IMA_LIST)
VALUES = {"sha256": registers()}
MISSING = Unread("ENOENT", "No such file or directory")


def event_log(logs: LogReading, values: Any = VALUES, tcti: str = "device:/dev/tpmrm0") -> Iterator[Check]:
    return judge_event_log(logs, values, tcti=tcti)


def test_logs_that_replay_are_well() -> None:
    assert is_well(event_log(LOGS)) == (
        "46 events replay to the registers 0, 1, 2, 3, 4, 5, 6, 7, 9, 11 of sha256"
    )
    assert is_well(judge_userspace(LOGS)) == "2 records"
    assert is_well(judge_ima(LOGS)).endswith(" entries")


def test_the_registers_that_a_log_does_not_replay_to_are_named() -> None:
    moved = {"sha256": registers() | {4: bytes(32), 7: b"\1" * 32}}
    is_told(event_log(LOGS, moved), "fail", "do not replay to the registers 4 (", "leave these registers out")
    is_told(event_log(LOGS, moved), "fail", "), 7 (", "restart")
    is_told(event_log(LOGS, moved, "swtpm:path=/x"), "fail", "", "name this machine's own TPM")


def test_imas_register_has_a_list_of_its_own() -> None:
    assert is_well(event_log(LOGS, {"sha256": registers() | {10: bytes(32)}}))


def test_a_bank_that_the_firmware_does_not_log_fails() -> None:
    is_told(event_log(LOGS, {"sha3-256": {}}), "fail", "the TPM has sha3-256 in use", "firmware measure")


def test_without_the_tpm_a_log_is_still_read() -> None:
    is_told(event_log(LOGS, GONE), "warn", "46 events, not compared", "see tpm")
    is_told(event_log(LOGS, {}), "warn", "46 events, not compared", "see tpm")


def test_a_log_that_is_damaged_or_may_not_be_read_fails() -> None:
    is_told(event_log(replace(LOGS, event_log=EVENT_LOG[:-1])), "fail", "", "update the firmware")
    is_told(event_log(replace(LOGS, event_log=DENIED)), "fail", "/event.log may not", "CAP_DAC_READ_SEARCH")
    is_told(event_log(replace(LOGS, event_log=Unread("EIO", "I/O error"))), "fail", "I/O error", "dmesg")
    is_told(judge_userspace(replace(LOGS, userspace=b"x")), "fail", "", "restart")
    is_told(judge_userspace(replace(LOGS, userspace=DENIED)), "fail", "/userspace.log", "CAP_DAC_READ_SEARCH")
    is_told(judge_ima(replace(LOGS, ima=DENIED)), "fail", "/ima may not", "CAP_DAC_READ_SEARCH")
    is_told(judge_ima(replace(LOGS, ima=b"?" + IMA_LIST)), "fail", "", "restart")


def test_what_matters_to_some_policies_only_is_no_fault() -> None:
    for raw, found in ((MISSING, "there is no /event.log"), (b"", "/event.log is empty")):
        is_told(event_log(replace(LOGS, event_log=raw)), "warn", found, "")
    is_told(judge_ima(replace(LOGS, ima=MISSING)), "warn", "only policies with [ima]", "securityfs")
    assert is_well(judge_ima(replace(LOGS, ima=IMA_LIST.split(b"\n")[0] + b"\n"))).startswith("only the boot")
    assert is_well(judge_userspace(replace(LOGS, userspace=MISSING))).startswith("none")
    nothing = LogReading(LogFiles(), None, None, None)
    assert [*event_log(nothing), *judge_userspace(nothing), *judge_ima(nothing)] == []


def test_userspaces_log_is_part_of_the_replay() -> None:
    is_told(event_log(replace(LOGS, userspace=MISSING)), "fail", "registers 11 (", "")


def test_the_phases_of_a_systemd_that_keeps_no_log_are_known_as_the_service_knows_them() -> None:
    value = replay(read_log(EVENT_LOG)).banks["sha256"][11]
    for phase in (b"enter-initrd", b"leave-initrd"):
        value = sha256(value + sha256(phase).digest()).digest()
    without = replace(LOGS, userspace=MISSING)
    assert is_well(event_log(without, {"sha256": registers() | {11: value}})).endswith(" 9, 11 of sha256")


# --- the service and the clock --------------------------------------------------------------------

PUBLISHED = {"issuer": URL, "challenge_endpoint": f"{URL}/challenge"}
ANSWER = Answer(URL, 200, PUBLISHED, NOW, NOW, NOW + 20)


def test_the_service_that_is_meant_is_well() -> None:
    reached, service = judge_service(URL, ANSWER)
    assert (reached.verdict, reached.found) == ("ok", f"{URL} answers, over TLS that is trusted")
    assert (service.verdict, service.found) == ("ok", f"attestd, as {URL}")
    plain = "http://127.0.0.1:8440"
    reached, _ = judge_service(plain, replace(ANSWER, url=plain))
    assert reached.found == f"{plain} answers on this machine"


@pytest.mark.parametrize(
    ("changed", "found", "fix"),
    [
        ({"status": 404, "members": {}}, "404 there is not attestd", "correct the URL"),
        ({"members": None}, "not attestd", "the proxy"),
        ({"members": {"issuer": URL}}, "not attestd", "correct the URL"),
        ({"members": PUBLISHED | {"issuer": 7}}, "not attestd", "correct the URL"),
        (
            {"members": PUBLISHED | {"issuer": f"{URL}/"}},
            f"calls itself {URL}/, not {URL}",
            "letter by letter",
        ),
        ({"status": 302}, "redirect", "its own address"),
        ({"status": 503}, "503", "attestd doctor"),
    ],
)
def test_another_service_is_told(changed: dict[str, Any], found: str, fix: str) -> None:
    _, service = judge_service(URL, replace(ANSWER, **changed))
    is_told(iter([service]), "fail", found, fix)


@pytest.mark.parametrize(
    ("code", "found", "fix"),
    [
        ("no_answer", "does not answer: why", "the network"),
        ("untrusted", "not trusted: why", "--ca FILE or --root-sha256"),
        ("not_yet_valid", "not valid yet", "see clock"),
        ("expired", "has expired", "see clock"),
        ("another_name", "for another name", "as its external_url does"),
        ("misconfigured", "why", "correct it"),
    ],
)
def test_a_service_that_is_not_reached_is_told_why(code: str, found: str, fix: str) -> None:
    is_told(judge_service(URL, Unread(code, "why")), "fail", found, fix)


def test_no_service_is_no_fault_before_it_is_named() -> None:
    is_told(judge_service(None, None), "warn", "none is known", "--server URL")


@pytest.mark.parametrize(
    ("asked", "took", "expected"),
    [
        (0, 20, 0),
        (999, 0, 0),
        (1000, 0, 1),
        (-10, 5, -5),
        (-10_000, 10_000, 0),
        (6000, 0, 5001),
        (-5001, 0, -5001),
    ],
)
def test_clocks_differ_by_what_a_whole_second_and_the_way_cannot_explain(
    asked: int, took: int, expected: int
) -> None:
    assert skew(replace(ANSWER, asked_at=NOW + asked, answered_at=NOW + asked + took)) == expected


def test_a_clock_within_five_seconds_of_the_services_is_well() -> None:
    for asked in (5999, -5000):
        near = replace(ANSWER, asked_at=NOW + asked, answered_at=NOW + asked)
        assert "as the service's within 5 s" in is_well(judge_clock(NOW, near))
    for asked, word in ((6000, "5 s ahead of"), (-5001, "5 s behind"), (-3_600_000, "3600 s behind")):
        far = replace(ANSWER, asked_at=NOW + asked, answered_at=NOW + asked)
        is_told(judge_clock(NOW, far), "fail", word, "timedatectl")


def test_a_year_that_cannot_be_is_told_without_a_service() -> None:
    for now in (0, int(datetime(2024, 12, 31, tzinfo=UTC).timestamp() * 1000), 4_102_444_800_000):
        is_told(judge_clock(now, None), "fail", "cannot be", "timedatectl")
    for answer in (None, GONE, replace(ANSWER, date=None)):
        assert "no server to compare" in is_well(judge_clock(NOW, answer))


# --- the enrolment --------------------------------------------------------------------------------


@pytest.fixture
def kept(endorsement: Endorsement) -> StateReading:
    device = device_identifier(endorsement.public.public_key())
    place = Place(Path("/state"), "directory", 0, 0o700)
    return StateReading(place, Membership(URL, device, "active", "L-2"), b"recipe")


def test_an_enrolled_machine_is_well(kept: StateReading, reading: TpmReading) -> None:
    assert is_well(judge_enrolment(kept, reading, named=URL)).startswith(f"active at {URL} as ")
    assert is_well(judge_enrolment(kept, GONE, named=None)).startswith("active")
    assert is_well(judge_ak(kept, reading)) == "name 000b" + b"name".hex()
    assert is_well(judge_state(kept.place)) == "/state"


def test_a_machine_that_has_not_joined_is_told_how(kept: StateReading, reading: TpmReading) -> None:
    new = StateReading(Place(Path("/state"), None), None, None)
    is_told(judge_enrolment(new, reading, named=URL), "warn", "no service", "agent join")
    assert list(judge_ak(new, reading)) == []
    assert "is made when" in is_well(judge_state(new.place))


def test_an_enrolment_that_is_not_this_machines_fails(kept: StateReading, reading: TpmReading) -> None:
    assert isinstance(kept.membership, Membership)
    other = replace(kept, membership=replace(kept.membership, device_id="0" * 64))
    is_told(judge_enrolment(other, reading, named=None), "fail", "this TPM is the device", "join again")
    elsewhere = "https://other.example.org"
    is_told(judge_enrolment(kept, reading, named=elsewhere), "fail", f"{elsewhere} is named", "--state")
    damaged = Unread("misconfigured", "it is damaged")
    is_told(
        judge_enrolment(replace(kept, membership=damaged), reading, named=None), "fail", "damaged", "join"
    )
    is_told(judge_enrolment(replace(kept, membership=DENIED), reading, named=None), "fail", "", "as root")


def test_a_machine_that_waits_for_its_operator_is_told_so(kept: StateReading, reading: TpmReading) -> None:
    assert isinstance(kept.membership, Membership)
    pending = replace(kept, membership=replace(kept.membership, state="pending"))
    is_told(judge_enrolment(pending, reading, named=None), "warn", "pending", "attestd device approve")


def test_an_attestation_key_that_is_gone_fails(kept: StateReading, reading: TpmReading) -> None:
    lost = replace(reading, ak=Unread("ak_changed", "another key"))
    is_told(judge_ak(kept, lost), "fail", "another key", "reactivate = true")
    full = replace(reading, ak=Unread("tpm_full", "no room"))
    is_told(judge_ak(kept, full), "fail", "no room", "see tpm")
    is_told(judge_ak(replace(kept, recipe=None), reading), "fail", "recipe is not", "agent join")
    is_told(judge_ak(replace(kept, recipe=DENIED), reading), "fail", "Permission", "as root")
    is_told(judge_ak(kept, GONE), "warn", "not tried", "see tpm")
    is_told(judge_ak(kept, replace(reading, ak=None)), "warn", "joining just now", "again")


def test_ag_2_a_state_that_others_may_write_fails() -> None:
    open_one = Place(Path("/state"), "directory", 0, 0o770)
    is_told(judge_state(open_one), "fail", "others may write", "chmod 700 /state")
    is_told(judge_state(Place(Path("/state"), "link")), "fail", "no directory", "--state")
    is_told(judge_state(DENIED), "fail", "Permission", "--state")


# --- the settings ---------------------------------------------------------------------------------

AGENT = Runner(1000, 0, True, 1000)


def rule(*, users: set[int] | None = None, paths: bool = False, files: bool = False) -> Rule:
    made = replace(workload("builder"), files=Path("/run/builder") if files else None)
    numbers = None if users is None else frozenset(users)
    return Rule(made, numbers, None, None, frozenset({"/usr/bin/x"}) if paths else None)


def test_settings_are_told_with_their_workloads() -> None:
    source = Place(Path("/agent.toml"), "file", 0, 0o644)
    settings = replace(Settings(), workloads=(workload("builder"), workload("telemetry")))
    assert is_well(judge_settings(source, settings)) == "/agent.toml: builder, telemetry"
    assert is_well(judge_settings(None, Settings())).startswith("no file")
    is_told(judge_settings(replace(source, mode=0o664), settings), "fail", "others may write", "chmod go-w")
    wrong = Unread("config_syntax", "/agent.toml: no TOML")
    is_told(judge_settings(wrong, Settings()), "fail", "no TOML", "correct it")


def test_names_that_this_machine_does_not_know_are_told() -> None:
    assert "of 1 workloads are known" in is_well(judge_callers([rule(users={7})], []))
    is_told(judge_callers([rule()], ["builder: there is no user x"]), "fail", "no user x", "reload")
    assert list(judge_callers([], [])) == []


def test_ag_2_the_capabilities_that_workloads_need_are_asked_for_and_no_others() -> None:
    harmless = [rule(users={7}), rule(users={1000}, paths=True, files=True), rule(users={7, 8}, files=True)]
    assert list(judge_rights(harmless, AGENT)) == []
    seen, given = [rule(paths=True)], [rule(users={7}, files=True)]
    is_told(judge_rights(seen, AGENT), "fail", "needed by builder", "AmbientCapabilities=CAP_SYS_PTRACE")
    is_told(judge_rights(given, AGENT), "fail", "needed by builder", "SystemCallFilter=@chown")
    assert "the agent has it" in is_well(judge_rights(seen, replace(AGENT, capabilities=1 << CAP_SYS_PTRACE)))
    assert "the agent has it" in is_well(judge_rights(given, replace(AGENT, capabilities=1 << CAP_CHOWN)))
    assert [check.name for check in judge_rights(seen + given, AGENT)] == ["CAP_SYS_PTRACE", "CAP_CHOWN"]


def test_what_root_may_says_nothing_of_an_agent_that_does_not_run() -> None:
    root = Runner(1000, (1 << 41) - 1, False, 0)
    is_told(judge_rights([rule(paths=True)], root), "warn", "no agent runs", "CAP_SYS_PTRACE")
    itself = Runner(1000, 1 << CAP_SYS_PTRACE, False, 1000)
    assert "it is there" in is_well(judge_rights([rule(paths=True)], itself))


def test_who_looks_as_somebody_else_is_told_so() -> None:
    assert is_well(judge_runner(AGENT)) == "user 1000, as the agent, which runs"
    assert is_well(judge_runner(replace(AGENT, runs=False))) == "user 1000, as the agent"
    is_told(
        judge_runner(replace(AGENT, looker=0)), "warn", "as user 0, and the agent runs as", "--reuid=1000"
    )


def test_directories_for_files_are_told_by_their_agent() -> None:
    there, new = judge_folders({"builder": True, "telemetry": False})
    assert (there.verdict, there.found) == ("ok", "builder: there")
    assert new.verdict == "ok"
    disk = Unread("misconfigured", "/x is on ext4, where a secret would stay; name a directory below /run")
    is_told(judge_folders({"builder": disk}), "fail", "builder: /x is on ext4", "below /run")


SOCKET = Place(Path("/run/agent/workload.sock"), "socket", 1000, 0o666)
FOLDER = Place(Path("/run/agent"), "directory", 1000, 0o755)
RUN = Place(Path("/run"), "directory", 0, 0o755)


def test_a_socket_in_a_directory_of_the_agents_own_is_well() -> None:
    for socket in (SOCKET, replace(SOCKET, kind=None)):
        assert is_well(judge_socket(socket, FOLDER, RUN, AGENT)).startswith("/run/agent/workload.sock")
    assert is_well(judge_socket(SOCKET, replace(FOLDER, uid=0), RUN, AGENT))
    nowhere = replace(FOLDER, kind=None)
    mine = replace(RUN, uid=1000)
    absent = replace(SOCKET, kind=None)
    assert "is made when" in is_well(judge_socket(absent, nowhere, mine, AGENT))
    assert "is made when" in is_well(judge_socket(absent, nowhere, RUN, replace(AGENT, uid=0)))
    is_told(judge_socket(absent, nowhere, RUN, AGENT), "warn", "cannot make it", "attestd-agent.socket")


@pytest.mark.parametrize(
    ("socket", "folder", "found"),
    [
        (replace(SOCKET, kind="file"), FOLDER, "is no socket"),
        (replace(SOCKET, path=Path("/run/agent") / ("x" * 100)), FOLDER, "more than 107 bytes"),
        (SOCKET, replace(FOLDER, kind="link"), "is no directory"),
        (SOCKET, replace(FOLDER, mode=0o755 | stat.S_IWOTH), "others may write"),
        (SOCKET, replace(FOLDER, mode=0o755 | stat.S_IWGRP), "others may write"),
        (SOCKET, replace(FOLDER, uid=7), "others may write"),
    ],
)
def test_ag_2_a_socket_in_whose_place_others_can_put_theirs_fails(
    socket: Place, folder: Place, found: str
) -> None:
    is_told(judge_socket(socket, folder, RUN, AGENT), "fail", found, "`socket`")


def test_a_judgment_that_breaks_off_is_a_fault_and_not_the_end() -> None:
    def broken() -> Iterator[Check]:
        yield Check("first", "ok", "")
        raise KeyError("x")

    first, second = judged("second", broken)
    assert first.name == "first"
    is_told(iter([second]), "fail", "KeyError", "report this")


@pytest.mark.parametrize("judge", [judge_banks, judge_chain])
def test_what_a_tpm_says_is_told_on_one_line(judge: Callable[..., Iterator[Check]]) -> None:
    for check in judge(Unread("tpm_refused", "a\nb\x1b[31m" * 100)):
        assert check.found.isprintable()
        assert len(check.found) <= 200
