"""[boot]: each fact that the policy demands is refused when it is otherwise, and when it is not proven."""

import struct

import pytest

from attestd.policy.command_line import has_word, is_effective, split_words
from tests import recorded
from tests.attestd.policy.booted import (
    codes,
    hexadecimal,
    judged,
    lacking,
    made_boot,
    policy,
    recorded_boot,
)
from tests.attestd.policy.documents import refused
from tests.tpm.eventlog.logs import (
    AUTHORITY,
    CONFIG,
    DATABASE,
    IPL,
    LogMaker,
    efivar,
    secure_boot_log,
    signature_list,
)
from tpm.eventlog.efi.guid import DBX_SVN_BOOT_MANAGER, DBX_SVN_OWNER
from tpm.eventlog.events import EventType

LOG = '[boot]\nevent_log = "required"\n'
ON = LOG + "secure_boot = true\n"
OUR_AUTHORITY = (b"\x03" * 32).hex()


def test_secure_boot_on_is_accepted_and_off_is_refused_at_its_event() -> None:
    assert codes(ON, recorded_boot()) == []
    assert codes(ON, made_boot(secure_boot_log())) == []
    off = judged(ON, made_boot(secure_boot_log(enabled=b"\0")))
    assert off.verdict == "refused"
    (finding,) = off.findings
    assert (finding.code, finding.subject, finding.found) == ("secure_boot_off", "pcr7", "off")
    assert (finding.event, finding.artefact) == (2, "Secure Boot is off")


@pytest.mark.parametrize("mode", ["SetupMode", "AuditMode"])
def test_a_mode_that_lets_everything_run_is_secure_boot_off(mode: str) -> None:
    for value, expected in ((b"\0", []), (b"\x01", [("secure_boot_off", "pcr7")])):
        log = secure_boot_log()
        log.records.insert(1, LogMaker().add(7, CONFIG, efivar(mode, value)).records[0])
        assert codes(ON, made_boot(log)) == expected


@pytest.mark.parametrize("name", ["foreign", "retyped", "swapped"])
def test_el_10_a_state_that_is_not_proven_is_no_state(name: str) -> None:
    log = secure_boot_log()
    match name:
        case "foreign":
            log.records[1].data = efivar("SecureBoot", b"\x01", DATABASE)
        case "retyped":
            log.records[1].kind = EventType.EV_EVENT_TAG
        case "swapped":
            log.records[1].measured, log.records[1].data = (
                efivar("SecureBoot", b"\0"),
                efivar("SecureBoot", b"\x01"),
            )
    machine = made_boot(log)
    assert [(one.code, one.subject) for one in lacking(ON, machine)] == [("fact_unproven", "pcr7")]
    assert codes(ON, machine) == [("fact_unproven", "pcr7")]


def test_a_log_that_is_needed_and_did_not_come_is_missing() -> None:
    pcrs, _ = recorded_boot()
    assert [one.code for one in lacking(ON, (pcrs, None))] == ["log_missing"]
    assert codes(ON, (pcrs, None)) == [("log_missing", "event_log")]
    assert lacking(ON, recorded_boot()) == ()


def test_a_register_that_the_log_leaves_out_proves_nothing() -> None:
    log = secure_boot_log()
    pcrs, _ = made_boot(log)
    log.records = [record for record in log.records if record.register != 7]
    _, boot = made_boot(log)
    assert ("log_replay", "pcr7") in [(one.code, one.subject) for one in lacking(ON, (pcrs, boot))]


def test_a_machine_without_a_log_needs_a_policy_that_says_so() -> None:
    text = f'[pcrs]\n0 = ["sha256:{recorded.registers()[0].hex()}"]\n[boot]\nevent_log = "unavailable"\n'
    pcrs, _ = recorded_boot()
    assert codes(text, (pcrs, None)) == []
    assert policy(text).needed() == (0,)
    beside = 'name = "a"\n' + text + "secure_boot = true\n"
    assert refused(beside).reason == "log_unavailable"
    assert refused('name = "a"\n[boot]\nevent_log = "unavailable"\n').reason == "demands_nothing"
    assert refused('name = "a"\n[boot]\nsecure_boot = true\n').reason == "key_missing"
    assert refused('name = "a"\n' + LOG).reason == "demands_nothing"


def test_boot_needs_the_registers_of_its_facts() -> None:
    assert policy(ON).needed() == (0, 4, 7)
    assert policy(ON + 'phases = ["sysinit"]').needed() == (0, 4, 7, 11)
    assert policy(ON + 'command_line_requires = ["ro"]').needed() == (0, 4, 7, 8, 9, 11, 12)


def test_an_authority_that_the_policy_does_not_list_is_named_with_its_event() -> None:
    good = LOG + f'authorities = ["sha256:{OUR_AUTHORITY}"]\n'
    assert codes(good, made_boot(secure_boot_log())) == []
    log = secure_boot_log().add(7, AUTHORITY, efivar("db", bytes(16) + b"\x09" * 32, DATABASE))
    (finding,) = judged(good, made_boot(log)).findings
    assert (finding.code, finding.subject, finding.found) == (
        "authority_unexpected",
        "pcr7",
        (b"\x09" * 32).hex(),
    )
    assert finding.expected == (OUR_AUTHORITY,)
    assert finding.event == len(log.read().events) - 1


def test_a_hidden_authority_is_not_overlooked_and_a_known_event_hides_nothing() -> None:
    good = LOG + f'authorities = ["sha256:{OUR_AUTHORITY}"]\n'
    log = secure_boot_log().add(7, EventType.EV_EVENT_TAG, b"what is this")
    assert codes(good, made_boot(log)) == [("fact_unproven", "pcr7")]
    known = good + f'known_events = ["sha256:{hexadecimal(b"what is this")}"]\n'
    assert codes(known, made_boot(log)) == []


def test_a_certificate_is_known_by_its_sha256() -> None:
    machine = recorded_boot()
    certificate = machine[1].facts.secure_boot.authorities[0].certificate
    assert certificate is not None
    assert codes(LOG + f'authorities = ["sha256:{hexadecimal(certificate)}"]\n', machine) == []
    assert codes(LOG + f'authorities = ["sha256:{OUR_AUTHORITY}"]\n', machine) == [
        ("authority_unexpected", "pcr7")
    ]


def test_dbx_must_revoke_what_the_policy_lists() -> None:
    machine = made_boot(secure_boot_log())
    assert codes(LOG + f'dbx_includes = ["sha256:{"04" * 32}"]', machine) == []
    assert codes(LOG + f'dbx_includes = ["sha256:{"06" * 32}"]', machine) == [("dbx_outdated", "pcr7")]
    assert codes(LOG + 'dbx_revision = "1.0"', machine) == [("dbx_outdated", "pcr7")]


@pytest.mark.parametrize(
    ("found", "good"), [((7, 0), True), ((7, 1), True), ((10, 0), True), ((6, 9), False)]
)
def test_dbx_must_be_of_the_revision_or_later(found: tuple[int, int], good: bool) -> None:
    version = struct.pack("<HH", found[1], found[0])
    entry = (b"\x01" + DBX_SVN_BOOT_MANAGER + version).ljust(32, b"\0")
    listed = signature_list([entry])
    log = secure_boot_log()
    log.records[5].data = efivar("dbx", listed[:28] + DBX_SVN_OWNER + listed[44:], DATABASE)
    expected = [] if good else [("dbx_outdated", "pcr7")]
    assert codes(LOG + 'dbx_revision = "7.0"', made_boot(log)) == expected


def test_without_dbx_in_the_log_nothing_is_said_of_it() -> None:
    log = secure_boot_log()
    del log.records[5]
    assert codes(LOG + 'dbx_revision = "1.0"', made_boot(log)) == [("fact_unproven", "pcr7")]


def grub(*lines: str) -> LogMaker:
    log = secure_boot_log()
    for line in lines:
        data = f"kernel_cmdline: {line}".encode()
        log.add(8, IPL, data + b"\0", measured=line.encode())
    return log


@pytest.mark.parametrize(
    ("rule", "line", "found"),
    [
        ('command_line = ["/vmlinuz root=/dev/sda ro"]', "/vmlinuz root=/dev/sda ro", []),
        (
            'command_line = ["/vmlinuz root=/dev/sda ro"]',
            "/vmlinuz root=/dev/sda rw",
            ["command_line_unexpected"],
        ),
        ('command_line_requires = ["lockdown=integrity"]', "/vmlinuz lockdown=integrity", []),
        (
            'command_line_requires = ["lockdown=integrity"]',
            "/vmlinuz lockdown=none",
            ["command_line_unexpected"],
        ),
        ('command_line_requires = ["ro"]', '/vmlinuz x=" ro "', ["command_line_unexpected"]),
        ('command_line_requires = ["ro"]', "/vmlinuz -- ro", ["command_line_unexpected"]),
        ('command_line_forbids = ["init"]', "/vmlinuz root=/dev/sda", []),
        ('command_line_forbids = ["init"]', "/vmlinuz init=/bin/sh", ["command_line_forbidden"]),
        ('command_line_forbids = ["init"]', '/vmlinuz "init=/bin/sh"', ["command_line_forbidden"]),
        ('command_line_forbids = ["init"]', "/vmlinuz -- init=/bin/sh", ["command_line_forbidden"]),
        ('command_line_forbids = ["ima-appraise"]', "/vmlinuz ima_appraise=off", ["command_line_forbidden"]),
        ('command_line_forbids = ["quiet"]', "/vmlinuz quieter", []),
    ],
)
def test_a_command_line_is_accepted_by_its_value_or_its_words(rule: str, line: str, found: list[str]) -> None:
    assert codes(LOG + rule, made_boot(grub(line))) == [(code, "pcr8") for code in found]


def test_every_command_line_of_the_log_is_judged() -> None:
    rule = LOG + 'command_line_forbids = ["init"]'
    assert codes(rule, made_boot(grub("/vmlinuz ro", "/vmlinuz init=/bin/sh"))) == [
        ("command_line_forbidden", "pcr8")
    ]
    assert codes(rule, made_boot(secure_boot_log())) == [("fact_unproven", "command_line")]


def test_a_line_of_which_only_the_digest_is_logged_is_known_by_its_exact_value_alone() -> None:
    line = recorded.COMMAND_LINE
    assert codes(LOG + f'command_line = ["{line}"]', recorded_boot()) == []
    other = codes(LOG + f'command_line = ["{line} quiet"]', recorded_boot())
    assert other == [("command_line_unexpected", "pcr11"), ("command_line_unexpected", "pcr9")]
    words = codes(LOG + 'command_line_requires = ["rw"]', recorded_boot())
    assert words == [("fact_unproven", "pcr11"), ("fact_unproven", "pcr9")]


def test_a_hidden_command_line_is_not_overlooked() -> None:
    log = grub("/vmlinuz ro").add(
        8, EventType.EV_EVENT_TAG, b"kernel_cmdline: /x", measured=b"/vmlinuz init=/x"
    )
    assert codes(LOG + 'command_line_forbids = ["init"]', made_boot(log)) == [("fact_unproven", "pcr8")]


def test_only_allowed_phases_were_gone_through() -> None:
    assert codes(LOG + 'phases = ["sysinit", "sysinit:ready"]', recorded_boot()) == []
    (finding,) = judged(LOG + 'phases = ["sysinit"]', recorded_boot()).findings
    assert (finding.code, finding.subject, finding.found) == ("phase_unexpected", "pcr11", "sysinit:ready")


def test_words_are_split_as_the_kernel_splits_them() -> None:
    assert split_words('a  b="c d" "e f=g" -- h') == ("a", "b=c d", "e f=g")
    assert split_words('a "b c') == ("a", "b c")
    assert has_word(("no_timer-check", "a=b"), "no-timer_check")
    assert has_word(("a=b",), "a")
    assert has_word(("a=b",), "a=b")
    assert not has_word(("a=b",), "a=c")


QUOTES: dict[str, str] = {
    '"a=b"': "a=b",
    'a="b"': "a=b",
    'a="b c"': "a=b c",
    '"a=b c"': "a=b c",
    '"a="b"': "a=b",
    '"a="b""': 'a=b"',
    'a="b""': 'a=b"',
    'a="b"c': 'a=b"c',
    'a=b"': 'a=b"',
    'a="b': "a=b",
    '"a"=b': 'a"=b',
    'a"b=c': 'a"b=c',
    '""': "",
    'a=""': "a=",
    '=a="b"': "=a=b",
    '"': "",
    'a="': "a=",
}


@pytest.mark.parametrize("written", QUOTES)
def test_of_quotes_the_kernel_takes_those_around_a_word_or_a_value(written: str) -> None:
    assert split_words(written) == (QUOTES[written],)


LOCKED = "lockdown=integrity"
FILLED = "x" * 2040
OVERRIDDEN: dict[str, tuple[str, bool]] = {
    "once": ("a lockdown=integrity b", True),
    "as the last": ("lockdown=none lockdown=integrity", True),
    "twice alike": ("lockdown=integrity lockdown=integrity", True),
    "another name that begins so": ("lockdown=integrity lockdown.x=none", True),
    "the later counts": ("lockdown=integrity lockdown=none", False),
    "the later without a value": ("lockdown=integrity lockdown", False),
    "the later in quotes": ('lockdown=integrity "lockdown=none"', False),
    "the later with a value in quotes": ('lockdown=integrity lockdown="none"', False),
    "in quotes it is what was asked for": ('lockdown=none lockdown="integrity"', True),
    "inside of another's value": ('lockdown=integrity x=" lockdown=none "', True),
    "for init": ("lockdown=integrity -- lockdown=none", True),
    "behind a character that ends in 0xA0": ("lockdown=integrity x=\u00e0lockdown=none", False),
    "put right behind such a character": ("x=\u00e0lockdown=integrity", False),
    "behind what is read for certain": (f"lockdown=integrity {FILLED} lockdown=none", False),
    "put right where it may be cut off": (f"lockdown=none {FILLED} lockdown=integrity", False),
    "undone and put right there": (f"lockdown=integrity {FILLED} lockdown=none lockdown=integrity", False),
    "put right behind a line feed": ("lockdown=none\nlockdown=integrity", False),
    "undone behind a line feed": ("lockdown=integrity\nlockdown=none", False),
    "a line feed at the end": ("lockdown=integrity\n", True),
    "quotes within the name": ('lockdown=none lock"down=integrity', False),
    "quotes of which one stays": ('"lockdown="integrity""', False),
    "cut off within its quotes": (f'lockdown="integrity {FILLED}"', False),
}


@pytest.mark.parametrize("case", OVERRIDDEN)
def test_a_required_word_that_a_later_one_overrides_does_not_count(case: str) -> None:
    line, effective = OVERRIDDEN[case]
    assert is_effective(line, LOCKED, (LOCKED,)) is effective


def test_a_name_that_is_given_several_times_may_be_required_several_times() -> None:
    line = "console=ttyS0 console=tty0"
    both = ("console=ttyS0", "console=tty0")
    assert all(is_effective(line, word, both) for word in both)
    assert not is_effective(line, "console=ttyS0", ("console=ttyS0",))
    assert not is_effective(line + " console=ttyS9", "console=tty0", both)
    assert is_effective(line, "console", ("console",))


def test_an_overridden_word_is_a_finding_that_names_it() -> None:
    rule = LOG + 'command_line_requires = ["lockdown=integrity"]'
    (finding,) = judged(rule, made_boot(grub("/vmlinuz lockdown=integrity lockdown=none"))).findings
    assert (finding.code, finding.subject, finding.expected) == (
        "command_line_unexpected",
        "pcr8",
        ("lockdown=integrity",),
    )
    assert codes(rule, made_boot(grub("/vmlinuz lockdown=none lockdown=integrity"))) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("secure_boot = false", "value_wrong"),
        ('secure_boot = "yes"', "type_wrong"),
        ("authorities = []", "list_empty"),
        ('authorities = ["sha256:00"]', "digest_wrong"),
        ('dbx_revision = "seven"', "value_wrong"),
        ('phases = ["a b"]', "value_wrong"),
        ('command_line_forbids = ["a b"]', "value_wrong"),
        ("secureboot = true", "key_unknown"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(line: str, reason: str) -> None:
    assert refused('name = "a"\n' + LOG + line).reason == reason
