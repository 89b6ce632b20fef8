"""Can whoever sends a log, or was root when the machine ran, tell the policy of a boot that was another?

Each trick stands beside its healthy twin. Root can extend any register once more; what was measured before is
there to stay, and must not be hidden by calling it something else.
"""

import hashlib
import json
import struct
from dataclasses import replace

import pytest

from attestd.clock import parse_rfc3339
from attestd.log_cache import LogCache
from attestd.policy.document import load_policy
from attestd.policy.proven_boot import ProvenBoot
from attestd.round.logs import BootLog, Logs
from attestd.round.replayed import replay_logs
from tests import recorded
from tests.attestd.policy.booted import codes, hexadecimal, judged, made_boot, policy, recorded_boot
from tests.attester import b64
from tests.deployment import Deployment
from tests.tpm.eventlog.logs import (
    AUTHORITY,
    CONFIG,
    DATABASE,
    IPL,
    SHIM,
    Logged,
    LogMaker,
    efivar,
    secure_boot_log,
    signature_list,
)
from tests.tpm.ima.kernel import Kernel
from tpm.eventlog.compare import verify_log
from tpm.eventlog.events import EventLog, EventType
from tpm.eventlog.replay import replay
from tpm.eventlog.userspace import read_userspace
from tpm.ima.replay import Mark
from tpm.verify.pcrs import VerifiedPcrs

LOG = '[boot]\nevent_log = "required"\n'
ON = LOG + "secure_boot = true\n"
TRUSTED = LOG + f'authorities = ["sha256:{"03" * 32}"]\n'
NO_INIT = LOG + 'command_line_forbids = ["init"]\n'
UNPROVEN = "fact_unproven"


def wide(text: str) -> bytes:
    return text.encode("utf-16-le")


def grub(log: LogMaker, line: str, *, told: bytes | None = None) -> LogMaker:
    data = f"kernel_cmdline: {line}".encode() if told is None else told
    return log.add(8, IPL, data + b"\0", measured=line.encode())


@pytest.mark.parametrize("told", [b"x\0", wide("quiet"), wide("/vmlinuz ro"), b"\xff\0" * 8])
def test_a_line_of_grubs_that_is_dressed_as_systemds_is_not_overlooked(told: bytes) -> None:
    """Root measures a good line beside the true one, and writes over the true one's data."""
    log = grub(grub(secure_boot_log(), "/vmlinuz init=/bin/sh", told=told), "/vmlinuz ro")
    assert codes(NO_INIT, made_boot(log)) == [(UNPROVEN, "pcr8")]
    twin = secure_boot_log().add(8, IPL, wide("quiet"))
    assert codes(NO_INIT, made_boot(grub(twin, "/vmlinuz ro"))) == []


def unified(line: str, *, told: str = ".cmdline") -> LogMaker:
    log = secure_boot_log()
    for name, said, content in ((".linux", ".linux", "kernel"), (".cmdline", told, line)):
        log.add(11, IPL, wide(said + "\0"), measured=name.encode() + b"\0")
        log.add(11, IPL, wide(said + "\0"), measured=content.encode())
    return log


def test_a_section_with_a_command_line_cannot_be_called_something_else() -> None:
    exact = LOG + 'command_line = ["quiet ro"]\n'
    hidden = unified("init=/bin/sh", told=".other").add(12, IPL, wide("quiet ro"))
    assert set(codes(exact, made_boot(hidden))) == {(UNPROVEN, "pcr11")}
    assert codes(exact, made_boot(unified("quiet ro").add(12, IPL, wide("quiet ro")))) == []
    # In the open it is judged, whatever stands beside it.
    open_ = unified("init=/bin/sh").add(12, IPL, wide("quiet ro"))
    assert codes(exact, made_boot(open_)) == [("command_line_unexpected", "pcr11")]


def short_certificate(size: int) -> bytes:
    head = b"\x30\x81" + bytes((size,)) if size < 256 else b"\x30\x82" + struct.pack(">H", size)
    return head + b"c" * size


@pytest.mark.parametrize("size", [240, 700])
def test_a_certificate_of_any_size_is_an_authority(size: int) -> None:
    """An owner's key that shim knows can have a certificate of less than 256 bytes."""
    content = short_certificate(size)
    log = secure_boot_log().add(7, AUTHORITY, efivar("MokList", content, SHIM))
    assert codes(TRUSTED, made_boot(log)) == [("authority_unexpected", "pcr7")]
    listed = TRUSTED.replace('["', f'["sha256:{hexadecimal(content)}", "')
    assert codes(listed, made_boot(log)) == []


@pytest.mark.parametrize("content", [b"h" * 20, b"h" * 64, b"\x30\x80indefinite", b""])
def test_what_shim_let_run_by_something_else_is_no_state_of_shims(content: bytes) -> None:
    log = secure_boot_log().add(7, AUTHORITY, efivar("MokList", content, SHIM))
    assert codes(TRUSTED, made_boot(log)) == [(UNPROVEN, "pcr7")]
    state = secure_boot_log().add(7, AUTHORITY, efivar("SbatLevel", b"sbat,1,2022052400\n", SHIM))
    assert codes(TRUSTED, made_boot(state)) == []


@pytest.mark.parametrize("rule", [ON, TRUSTED])
def test_secure_boot_is_off_where_shim_validates_nothing(rule: str) -> None:
    def told(state: bytes) -> LogMaker:
        return secure_boot_log().add(7, AUTHORITY, efivar("MokSBState", state, SHIM))

    assert codes(rule, made_boot(told(b"\x01"))) == [("secure_boot_off", "pcr7")]
    assert codes(rule, made_boot(told(b"\0"))) == []
    hidden = told(b"\x01")
    hidden.records[-1].measured, hidden.records[-1].data = hidden.records[-1].data, b"nothing"
    assert codes(rule, made_boot(hidden)) == [(UNPROVEN, "pcr7")]
    retyped = told(b"\x01")
    retyped.records[-1].kind = EventType.EV_EVENT_TAG
    assert codes(rule, made_boot(retyped)) == [(UNPROVEN, "pcr7")]
    known = rule + f'known_events = ["sha256:{hexadecimal(hidden.records[-1].measured)}"]\n'
    assert codes(known, made_boot(hidden)) == []


def test_a_firmware_with_its_debugger_on_is_no_secure_boot() -> None:
    def acting(text: bytes) -> LogMaker:
        return secure_boot_log().add(7, EventType.EV_EFI_ACTION, text)

    assert codes(ON, made_boot(acting(b"UEFI Debug Mode"))) == [("secure_boot_off", "pcr7")]
    assert codes(ON, made_boot(acting(b"DMA Protection Disabled"))) == []


def test_an_authority_that_root_measured_later_vouches_for_nothing() -> None:
    log = secure_boot_log(enabled=b"\0")
    assert codes(TRUSTED, made_boot(log)) == [("secure_boot_off", "pcr7")]
    assert codes(TRUSTED, made_boot(secure_boot_log())) == []
    other = secure_boot_log().add(7, AUTHORITY, efivar("db", b"o" * 48, DATABASE))
    assert codes(TRUSTED, made_boot(other)) == [("authority_unexpected", "pcr7")]


def sent(log: LogMaker) -> Logs:
    raw = log.write()
    boot = BootLog(hexadecimal(raw), raw, log.read(), None, "", len(raw))
    return Logs(boot, None, 0, None, "", "")


def test_a_log_that_tells_of_register_10_is_replayed_to_it_each_time() -> None:
    """What was worked out for a log is kept; it is worth nothing once the register holds something else."""
    log = LogMaker().add(10, IPL, b"the loader")
    text = f"""
[[component]]
name = "loader"
pcrs = [10]
  [[component.variant]]
  name = "one"
  digests = ["sha256:{hexadecimal(b"the loader")}"]
"""
    values = dict(replay(log.read()).banks["sha256"])
    cache, judged_by = LogCache(), policy(text)
    good = VerifiedPcrs("sha256", values)
    first = replay_logs(cache, sent(log), good, judged_by).boot
    assert first is not None
    assert codes(text, (good, first)) == []
    later = VerifiedPcrs("sha256", {10: b"\1" * 32})
    again = replay_logs(cache, sent(log), later, judged_by).boot
    assert again is not None
    assert ("log_replay", "pcr10") in codes(text, (later, again))
    assert replay_logs(cache, sent(log), good, judged_by).boot is first


@pytest.mark.parametrize("changed", [False, True])
def test_a_policy_that_changed_since_the_mark_was_read_judges_the_whole_list(changed: bool) -> None:
    kernel = Kernel.booted().run(b"/usr/bin/evil")
    mark = Mark(2, kernel.value, False)
    kernel.run(b"/usr/bin/sh")
    rules = '[ima]\nrequired = true\nallow = ["a"]\n'
    files = {"a": f"sha256:{hexadecimal(b'/usr/bin/sh')}  /usr/bin/sh\n".encode()}
    judged_by = load_policy(f'name = "edge"\n{rules}'.encode(), files)
    known = "00" * 32 if changed else judged_by.digest
    logs = Logs(None, kernel.raw(first=2), 2, mark, "sha256", known)
    told = replay_logs(LogCache(), logs, kernel.quoted, judged_by)
    assert [one.code for one in told.findings] == (["ima_gap"] if changed else [])
    assert (told.ima is None) == changed


@pytest.mark.parametrize(
    "line",
    [
        "/vmlinuz \u00e0init=/bin/sh",
        "/vmlinuz x\u00a0init=/bin/sh",
        "/vmlinuz \u3000init=/bin/sh",
        "/vmlinuz -- \x1cinit=/bin/sh",
        "/vmlinuz " + "x" * 3000 + " init=/bin/sh",
    ],
)
def test_a_forbidden_word_is_one_wherever_linux_splits(line: str) -> None:
    """Linux splits at each byte 0xA0, of which there is one in the letter before "init"."""
    assert codes(NO_INIT, made_boot(grub(secure_boot_log(), line))) == [("command_line_forbidden", "pcr8")]
    assert codes(NO_INIT, made_boot(grub(secure_boot_log(), "/vmlinuz \u00e0dmin"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "/vmlinuz x\u3000lockdown=integrity",
        "/vmlinuz x\x1clockdown=integrity",
        "/vmlinuz " + "x" * 2048 + " lockdown=integrity",
        "/vmlinuz x=\x85lockdown=integrity",
    ],
)
def test_a_required_word_counts_only_where_linux_reads_it(line: str) -> None:
    rule = LOG + 'command_line_requires = ["lockdown=integrity"]\n'
    assert codes(rule, made_boot(grub(secure_boot_log(), line))) == [("command_line_unexpected", "pcr8")]
    for good in ("/vmlinuz lockdown=integrity", "/vmlinuz\tlockdown=integrity " + "x" * 2048):
        assert codes(rule, made_boot(grub(secure_boot_log(), good))) == []


def test_words_are_not_proven_while_an_event_of_register_12_is_not_understood() -> None:
    log = grub(secure_boot_log(), "/vmlinuz ro").add(12, IPL, b"nothing", measured=wide("init=/bin/sh"))
    assert codes(NO_INIT, made_boot(log)) == [(UNPROVEN, "pcr12")]
    known = NO_INIT + f'known_events = ["sha256:{hexadecimal(wide("init=/bin/sh"))}"]\n'
    assert codes(known, made_boot(log)) == []


def test_phases_are_not_proven_while_an_event_of_register_11_is_not_understood() -> None:
    """A phase that was gone through is told as the firmware's, or as something else."""
    rule = LOG + 'phases = ["sysinit:ready"]\n'
    pcrs, boot = recorded_boot()
    assert codes(rule, (pcrs, boot)) == []
    log, values = boot.log.log, dict(pcrs.values)
    values[11] = hashlib.sha256(values[11] + hashlib.sha256(b"emergency").digest()).digest()
    lying = json.loads(recorded.userspace_log("emergency")[1:])
    lying["content"]["string"] = "nothing"
    told = recorded.userspace_log() + b"\x1e" + json.dumps(lying).encode() + b"\n"
    quoted = VerifiedPcrs("sha256", values)
    hidden = ProvenBoot.of(verify_log(log, quoted, userspace=read_userspace(told)))
    assert codes(rule, (quoted, hidden)) == [(UNPROVEN, "pcr11")]


def test_without_an_authority_in_the_log_none_is_said_to_have_let_anything_run() -> None:
    log = secure_boot_log()
    log.records = [one for one in log.records if one.kind != AUTHORITY]
    assert codes(TRUSTED, made_boot(log)) == [(UNPROVEN, "pcr7")]


def filled(register: int, count: int) -> LogMaker:
    log = secure_boot_log()
    for place in range(count):
        log.add(register, EventType.EV_EVENT_TAG, b"what is this %d" % place)
    return log


@pytest.mark.parametrize(("rule", "register", "code"), [(ON, 7, UNPROVEN), ("", 4, "event_unexpected")])
def test_thousands_of_objections_are_told_as_a_hundred_and_a_number(
    rule: str, register: int, code: str
) -> None:
    rule = rule or component([4], b"the loader", b"Calling EFI Application from Boot Option")
    findings = judged(rule, made_boot(filled(register, 5000))).findings
    assert {(one.code, one.subject) for one in findings} == {(code, f"pcr{register}")}
    assert len(findings) == 101
    assert findings[-1].found == "4900 events more"
    assert len(judged(rule, made_boot(filled(register, 100))).findings) == 100
    assert codes(rule, made_boot(secure_boot_log())) == []


def component(pcrs: list[int], *contents: bytes, until: str = "", more: str = "") -> str:
    """A loader of these contents; the last one is an action of register 4."""
    listed = ", ".join(f'"sha256:{hexadecimal(one)}"' for one in contents[:-1])
    return f"""
[actions]
4 = ["{contents[-1].decode()}"]
[[component]]
name = "loader"
pcrs = {pcrs}
  [[component.variant]]
  name = "one"
  digests = [{listed}]
  {until}
  {more}
"""


CALLS = recorded.CALLS.encode()


def test_one_digest_of_a_component_explains_one_event_in_all_of_its_registers() -> None:
    rule = component([4, 9], b"the loader", CALLS)
    assert codes(rule, made_boot(secure_boot_log())) == []
    twice = secure_boot_log().add(9, IPL, b"", measured=b"the loader")
    assert codes(rule, made_boot(twice)) == [("event_unexpected", "pcr9")]
    other = component([4, 9], b"the loader", b"a file", CALLS)
    assert codes(other, made_boot(secure_boot_log().add(9, IPL, b"", measured=b"a file"))) == []


def test_of_two_variants_that_fit_the_one_that_is_still_good_counts() -> None:
    end = "until = 2027-01-31T00:00:00Z"
    again = f'[[component.variant]]\n  name = "two"\n  digests = ["sha256:{hexadecimal(b"the loader")}"]'
    now = parse_rfc3339("2027-01-31T00:00:00Z")
    both = component([4], b"the loader", CALLS, until=end, more=again)
    assert codes(both, made_boot(secure_boot_log()), now=now) == []
    ended = component([4], b"the loader", CALLS, until=end, more=f"{again}\n  {end}")
    assert codes(ended, made_boot(secure_boot_log()), now=now) == [("component_expired", "loader")]


def test_a_register_to_which_the_log_does_not_replay_tells_no_history() -> None:
    """IMA's register may differ from the log's; what the log says of it is then nobody's word."""
    log = secure_boot_log().add(10, IPL, b"the loader").read()
    values = {one: bytes(32) for one in range(16)} | dict(replay(log).banks["sha256"])
    assert [one.data for one in proven(log, values).history(10)] == [b"the loader"]
    assert proven(log, {**values, 10: b"\1" * 32}).history(10) == ()


def proven(log: EventLog, values: dict[int, bytes]) -> ProvenBoot:
    return ProvenBoot.of(verify_log(log, VerifiedPcrs("sha256", values)))


def test_facts_of_registers_that_were_not_quoted_do_not_count() -> None:
    log = secure_boot_log().read()
    values = dict(replay(log).banks["sha256"])
    assert proven(log, values).facts.secure_boot.enabled is True
    del values[7]
    assert proven(log, values).facts.secure_boot.enabled is None


def test_a_note_is_no_event_of_a_component() -> None:
    """It names a digest that was never measured: neither does it help, nor does it harm."""
    log = secure_boot_log().add(4, EventType.EV_NO_ACTION, b"the second stage")
    assert codes(component([4], b"the loader", CALLS), made_boot(log)) == []
    wanted = component([4], b"the loader", b"the second stage", CALLS)
    assert ("component_missing", "loader") in codes(wanted, made_boot(log))


def test_the_log_of_a_confidential_machine_says_nothing_of_a_tpm() -> None:
    """Its registers are others: the same number would name another history."""
    for form, banks in (("ccel", ("sha384",)), ("crypto-agile", ("sha384",))):
        log = LogMaker(banks, form).add(1, IPL, b"the loader")
        pcrs = VerifiedPcrs("sha384", dict(replay(log.read()).banks["sha384"]))
        told = replay_logs(LogCache(), sent(log), pcrs, policy(ON))
        assert [one.code for one in told.findings] == (["log_format"] if form == "ccel" else [])
        assert (told.boot is None) == (form == "ccel")


def test_what_was_worked_out_with_one_userspace_log_is_not_taken_for_another() -> None:
    log = secure_boot_log()
    values = {one: bytes(32) for one in range(16)} | dict(replay(log.read()).banks["sha256"])
    pcrs, cache, kept = VerifiedPcrs("sha256", values), LogCache(), sent(log)
    assert replay_logs(cache, kept, pcrs, policy(ON)).boot is not None
    assert kept.boot is not None
    raw = recorded.userspace_log()
    boot = replace(kept.boot, userspace=read_userspace(raw), userspace_digest=hexadecimal(raw))
    told = replay_logs(cache, replace(kept, boot=boot), pcrs, policy(ON))
    assert [(one.code, one.subject) for one in told.findings] == [("log_replay", "pcr11")]


def test_a_mark_of_another_bank_continues_nothing() -> None:
    kernel = Kernel.booted().run(b"/usr/bin/sh")
    files = {"a": f"sha256:{hexadecimal(b'/usr/bin/sh')}  /usr/bin/sh\n".encode()}
    judged_by = load_policy(b'name = "edge"\n[ima]\nrequired = true\nallow = ["a"]\n', files)
    mark = Mark(2, kernel.value, False)
    for bank, found in (("sha256", []), ("sha384", ["ima_gap"])):
        logs = Logs(None, b"", 2, mark, bank, judged_by.digest)
        told = replay_logs(LogCache(), logs, kernel.quoted, judged_by)
        assert [one.code for one in told.findings] == found


def test_a_list_of_revocations_with_two_values_is_none() -> None:
    rule = LOG + f'dbx_includes = ["sha256:{"04" * 32}"]\n'
    log = secure_boot_log()
    log.records.insert(6, Logged(7, CONFIG, efivar("dbx", signature_list([b"\x06" * 32]), DATABASE)))
    assert codes(rule, made_boot(log)) == [(UNPROVEN, "pcr7")]
    log.records[6] = log.records[5]
    assert codes(rule, made_boot(log)) == []


def test_a_mark_ends_with_a_resume_as_with_a_reboot(deployment: Deployment) -> None:
    """A resume can start registers anew: the restart count tells it, the reset count does not."""
    listed = f"sha256:{hexadecimal(b'/usr/bin/sh')}  /usr/bin/sh\n"
    (deployment.directory / "a.digests").write_text(listed)
    deployment.apply('name = "edge"\n[ima]\nrequired = true\nallow = ["a.digests"]\n')
    kernel = Kernel.booted().run(b"/usr/bin/sh")
    machine = deployment.machine()
    machine = replace(machine, pcrs={**machine.pcrs, **kernel.quoted.values})
    body = {**deployment.round(machine).body(), "ima_log": b64(kernel.raw())}
    assert deployment.expect(200, "/v1/attestations", body)["ima_next"] == 2
    same = {**deployment.round(machine.later(), ima_from=2).body(), "ima_log": b64(b"")}
    deployment.expect(200, "/v1/attestations", same)
    resumed = replace(machine.later(2000), restart_count=machine.restart_count + 1)
    again = {**deployment.round(resumed, ima_from=2).body(), "ima_log": b64(b"")}
    assert deployment.problem(again, 409, "log_needed")["pointer"] == "/ima_log"
