"""An operator reads the register, what was expected, what was found, by which policy, and what to do next."""

import pytest

from attestd.policy.explain import Judge, explain
from attestd.policy.findings import Finding
from tests.attestd.policy.documents import GOOD_7, HEALTHY, OTHER_7, changed, load

EVIL = "ee" * 32
JUDGE = Judge("edge-gateway", 3)


def test_an_unexpected_register_comes_with_a_change_that_makes_it_accepted() -> None:
    text = explain(Finding("pcr_unexpected", "pcr7", (GOOD_7, OTHER_7), EVIL), JUDGE)
    assert text.startswith("pcr7 (the Secure Boot policy): edge-gateway@3 expects ")
    assert f"expects sha256:{GOOD_7} or sha256:{OTHER_7}; found sha256:{EVIL}" in text
    assert f'add "sha256:{EVIL}" to 7 under [pcrs] in edge-gateway.toml' in text
    assert "run attestd policy apply edge-gateway.toml" in text
    advised = load(changed(f'"sha256:{OTHER_7}"', f'"sha256:{OTHER_7}", "sha256:{EVIL}"'))
    assert bytes.fromhex(EVIL) in advised.pcrs[7]
    assert bytes.fromhex(EVIL) not in load(HEALTHY).pcrs[7]


def test_an_unmeasured_register_is_explained_as_such() -> None:
    text = explain(Finding("pcr_unmeasured", "pcr7", (GOOD_7,), "00" * 32), JUDGE)
    assert "nothing was measured there" in text
    assert "allow_unmeasured = [7]" in text


@pytest.mark.parametrize(("digits", "bank"), [(64, "sha256"), (96, "sha384"), (128, "sha512")])
def test_a_digest_is_written_as_a_policy_writes_it(digits: int, bank: str) -> None:
    assert f"found {bank}:{'e' * digits}" in explain(
        Finding("pcr_unexpected", "pcr0", ("1" * digits,), "e" * digits), JUDGE
    )


STEPS = [
    (Finding("pcr_missing", "pcr9", (), None), "Attest again"),
    (Finding("bank_missing", "sha384", ("sha384",), "sha256"), "the quote is of sha256"),
    (Finding("clock_rollback", "clock", (), "rollback"), "attestd device rebase"),
    (Finding("reset_unexplained", "clock", ("a new boot id",), "b"), 'on_reset = "accept"'),
    (Finding("key_not_proven", "credential 0", (), None), "agent"),
    (Finding("key_not_resident", "credential 0", (), None), 'key = "any"'),
    (Finding("event_unexpected", "pcr4", ("a", "b"), "c"), "edge-gateway@3 expects a or b; found c"),
    (Finding("component_missing", "kernel", ("6.1",), None), "edge-gateway@3 expects 6.1; found nothing"),
    (Finding("component_expired", "kernel", (), "6.1"), "move the variant's until"),
    (Finding("secure_boot_off", "pcr7", ("on",), "off"), "Turn Secure Boot on"),
    (Finding("authority_unexpected", "pcr7", (), EVIL), f'add "sha256:{EVIL}" to authorities under [boot]'),
    (Finding("dbx_outdated", "pcr7", (), None), "fwupdmgr update"),
    (Finding("command_line_unexpected", "pcr8", (), "ro"), 'add "ro" to command_line under [boot]'),
    (Finding("command_line_unexpected", "pcr8", ("ro",), "rw"), "out of command_line_requires"),
    (Finding("command_line_forbidden", "pcr8", (), "init=x"), "Remove the word"),
    (Finding("phase_unexpected", "pcr11", (), "a:b"), 'add "a:b" to phases under [boot]'),
    (Finding("fact_unproven", "pcr7", (), EVIL), f'add "sha256:{EVIL}" to known_events'),
    (Finding("log_missing", "event_log", (), None), "as root"),
    (Finding("log_replay", "pcr4", ("a",), "b"), "--userspace-log"),
    (Finding("ima_unknown", "/usr/bin/x", (), f"sha256:{EVIL}"), f'add the line "sha256:{EVIL}  /usr/bin/x"'),
    (Finding("ima_violation", "/usr/bin/x", (), "entry 4"), 'violations = "accept"'),
    (Finding("secure_boot_off", "pcr7", ("shim's validation on",), "off"), "mokutil --enable-validation"),
    (Finding("ima_rollback", "ima_log", (), "shorter"), "kexec"),
    (Finding("ima_rollback", "ima_log", (), "shorter"), "attestd device rebase DEVICE"),
]


@pytest.mark.parametrize(("finding", "step"), STEPS)
def test_every_finding_is_explained_with_its_subject_and_a_next_step(finding: Finding, step: str) -> None:
    text = explain(finding, JUDGE)
    assert text.startswith(finding.subject)
    assert step in text
    assert "\n" not in text


def test_a_refusal_without_a_policy_is_explained_too() -> None:
    assert "the policy" in explain(Finding("pcr_missing", "pcr9", (), None), None)


def test_an_event_is_explained_from_its_register_to_its_artefact() -> None:
    finding = Finding("event_unexpected", "pcr4", (GOOD_7,), EVIL, 33, "started \\EFI\\BOOT\\BOOTX64.EFI")
    text = explain(finding, JUDGE)
    assert text.startswith(
        "pcr4 (the boot loader), event 33 (started \\EFI\\BOOT\\BOOTX64.EFI): edge-gateway@3 "
    )
    assert f"expects sha256:{GOOD_7}; found sha256:{EVIL}" in text
    assert f'a variant with "sha256:{EVIL}" in its digests' in text
    assert text.endswith("run attestd policy apply edge-gateway.toml.")
