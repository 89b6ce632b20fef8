"""Are an older systemd's phases known without its log where PCR 11 proves them, and nowhere else?"""

import hashlib
from dataclasses import replace

import pytest

from tests.recorded import userspace_log
from tests.tpm.eventlog.logs import IPL, LogMaker, secure_boot_log
from tests.tpm.vectors import vectors
from tpm.errors import EvidenceError
from tpm.eventlog.compare import VerifiedLog, compare, divergence, verify_log
from tpm.eventlog.events import EventLog
from tpm.eventlog.facts.boot import BootFacts, read_facts
from tpm.eventlog.phases import PHASES
from tpm.eventlog.reader import read_log
from tpm.eventlog.replay import replay
from tpm.eventlog.userspace import UserspaceLog, read_userspace
from tpm.verify.pcrs import VerifiedPcrs

PREFIXES = [PHASES[:count] for count in range(1, len(PHASES) + 1)]


def uki_log(banks: tuple[str, ...] = ("sha1", "sha256")) -> LogMaker:
    """A boot of a unified kernel image of two sections."""
    log = secure_boot_log(banks=banks)
    for name, content in ((".linux", b"a kernel"), (".cmdline", b"ro quiet")):
        told = (name + "\0").encode("utf-16-le")
        log.add(11, IPL, told, measured=name.encode() + b"\0").add(11, IPL, told, measured=content)
    return log


def held(log: EventLog, *texts: str, register: int = 11, bank: str = "sha256") -> VerifiedPcrs:
    """What a TPM quotes after this log and these texts."""
    values = dict(replay(log).banks[bank])
    for text in texts:
        measured = hashlib.new(bank, text.encode()).digest()
        values[register] = hashlib.new(bank, values[register] + measured).digest()
    return VerifiedPcrs(bank, values)


def facts_of(verified: VerifiedLog) -> BootFacts:
    return read_facts(
        verified.log, bank=verified.bank, registers=verified.registers, userspace=verified.userspace
    )


def codes(verified: VerifiedLog) -> list[str]:
    return [one.code for one in verified.findings]


def refused(log: EventLog, pcrs: VerifiedPcrs, userspace: UserspaceLog | None = None) -> str:
    with pytest.raises(EvidenceError) as caught:
        verify_log(log, pcrs, userspace=userspace)
    assert caught.value.reason == "log_replay"
    return caught.value.detail


@pytest.mark.parametrize("bank", ["sha256", "sha384"])
@pytest.mark.parametrize("phases", PREFIXES, ids=":".join)
def test_phases_that_nobody_logged_are_facts_where_they_make_the_register_what_was_quoted(
    phases: tuple[str, ...], bank: str
) -> None:
    log = uki_log(("sha256", "sha384")).read()
    verified = verify_log(log, held(log, *phases, bank=bank))
    assert verified.states[11] == "match"
    assert codes(verified) == ["phases_inferred"]
    facts = facts_of(verified)
    assert facts.phases == phases
    assert [one.name for one in facts.uki.sections] == [".linux", ".cmdline"]
    assert facts.unexplained[11] == ()


@pytest.mark.parametrize("phases", PREFIXES, ids=":".join)
def test_inferred_phases_are_the_same_facts_as_those_of_a_log(phases: tuple[str, ...]) -> None:
    log = uki_log().read()
    pcrs = held(log, *phases)
    came = verify_log(log, pcrs, userspace=read_userspace(userspace_log(*phases)))
    assert codes(came) == []
    assert facts_of(came) == facts_of(verify_log(log, pcrs))


OTHERS: dict[str, tuple[str, ...]] = {
    "in another order": ("leave-initrd", "enter-initrd"),
    "with two exchanged later": ("enter-initrd", "leave-initrd", "ready", "sysinit"),
    "with one twice": ("enter-initrd", "enter-initrd"),
    "with the last twice": ("enter-initrd", "leave-initrd", "leave-initrd"),
    "with one left out": ("enter-initrd", "sysinit"),
    "from a later one on": ("sysinit", "ready"),
    "from the second on": PHASES[1:],
    "twice over": PHASES * 2,
    "with a foreign text after": ("enter-initrd", "evil"),
    "with a foreign text before": ("evil", "enter-initrd"),
    "of a foreign text alone": ("evil",),
    "with a NUL": ("enter-initrd\0",),
    "in capitals": ("Enter-Initrd",),
    "all in one": ("enter-initrd:leave-initrd",),
    "with systemd's separator": ("os-separator", "enter-initrd"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_beginning_of_the_known_phases_is_not_inferred(name: str) -> None:
    log = uki_log().read()
    assert "register 11" in refused(log, held(log, *OTHERS[name]))


def test_phases_do_not_make_up_for_an_event_that_was_changed_or_left_out() -> None:
    pcrs = held(uki_log().read(), *PHASES[:4])
    short, other = uki_log(), uki_log()
    del short.records[-1]
    other.records[-1].measured = b"init=/bin/sh"
    refused(short.read(), pcrs)
    refused(other.read(), pcrs)
    assert verify_log(uki_log().read(), pcrs).states[11] == "match"


@pytest.mark.parametrize("logged", [(), ("enter-initrd",), PHASES[1:4]], ids=":".join)
def test_a_userspace_log_that_came_is_never_completed(logged: tuple[str, ...]) -> None:
    log = uki_log().read()
    pcrs = held(log, *PHASES[:4])
    came = read_userspace(userspace_log(*logged) if logged else b"")
    assert "register 11" in refused(log, pcrs, came)
    assert "phases" not in divergence(log, "sha256", 11, pcrs.values[11], userspace=came).detail
    whole = verify_log(log, pcrs, userspace=read_userspace(userspace_log(*PHASES[:4])))
    assert (whole.states[11], codes(whole)) == ("match", [])


def test_a_log_that_explains_the_register_is_left_as_it_is() -> None:
    log = uki_log().read()
    verified = verify_log(log, held(log))
    assert (verified.userspace, codes(verified)) == (None, [])
    assert facts_of(verified).phases == ()


@pytest.mark.parametrize("register", [4, 7, 12])
def test_the_phases_are_inferred_in_their_own_register_only(register: int) -> None:
    log = uki_log().add(12, IPL, b"one more line").read()
    assert f"register {register}" in refused(log, held(log, "enter-initrd", register=register))


def test_beside_another_register_that_does_not_replay_nothing_is_saved() -> None:
    log = uki_log().read()
    values = {**held(log, *PHASES[:4]).values, 7: b"\x07" * 32}
    assert "register 7:" in refused(log, VerifiedPcrs("sha256", values))


def test_a_register_that_the_firmwares_log_does_not_extend_has_no_phases() -> None:
    log = secure_boot_log().read()
    value = hashlib.sha256(bytes(32) + hashlib.sha256(b"enter-initrd").digest()).digest()
    verified = verify_log(log, VerifiedPcrs("sha256", {**held(log).values, 11: value}))
    assert (verified.states[11], verified.userspace) == ("not_in_log", None)


def test_a_register_that_was_not_quoted_has_no_phases() -> None:
    log = uki_log().read()
    values = {one: value for one, value in held(log, "enter-initrd").values.items() if one != 11}
    verified = verify_log(log, VerifiedPcrs("sha256", values))
    assert (verified.states[11], verified.userspace) == ("not_quoted", None)


def test_a_confidential_machines_register_is_no_pcr_11() -> None:
    log = uki_log().read()
    refused(replace(log, format="ccel"), held(log, "enter-initrd"))


def test_a_comparison_without_a_quote_stays_a_mismatch_and_says_what_follows() -> None:
    log = uki_log().read()
    values = held(log, "enter-initrd", "leave-initrd").values
    assert compare(replay(log).banks["sha256"], values)[11] == "mismatch"
    where = divergence(log, "sha256", 11, values[11])
    assert where.event == log.events[-1].number
    assert "enter-initrd:leave-initrd" in where.detail
    assert "enter-initrd" not in divergence(log, "sha256", 4, values[11]).detail


def test_the_recorded_machine_began_at_sysinit_and_needs_its_log() -> None:
    """Its initrd has no systemd, so that its phases are no beginning of the sequence: that an initrd went by
    unmeasured is for a log to say, not for us to assume.
    """
    (vector,) = vectors("vm/*")
    log = read_log(vector.read("eventlog.bin"))
    wanted = vector.about["expected"]["pcrs"]["sha256"]
    pcrs = VerifiedPcrs("sha256", {int(one): bytes.fromhex(value) for one, value in wanted.items()})
    assert "register 11" in refused(log, pcrs)
    assert 11 in verify_log(log, pcrs, userspace=read_userspace(userspace_log())).registers
