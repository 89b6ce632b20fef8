"""What does a finding mean, and what can the operator do next?"""

from __future__ import annotations

from dataclasses import dataclass

from attestd.policy.explain_log import LOG_CODES, next_step, where
from attestd.policy.findings import Finding
from attestd.policy.registers import BANKS

MEASURES = {
    0: "the firmware",
    1: "the firmware's configuration",
    2: "option ROMs and other drivers",
    3: "the configuration of option ROMs",
    4: "the boot loader",
    5: "the boot loader's configuration and the partition table",
    6: "the host platform's maker",
    7: "the Secure Boot policy",
    8: "the boot loader's commands",
    9: "the kernel and initrd as the boot loader read them",
    10: "IMA",
    11: "the unified kernel image",
    12: "the kernel's command line",
    13: "system extensions",
    14: "the machine owner's keys",
    15: "the machine's identity and its volumes",
    16: "debugging",
    23: "applications",
}
"""What a PC measures where (TCG PC Client, UAPI TPM2 PCR registry); 17 to 22 are the dynamic launch's."""

_BANK_BY_DIGITS = {2 * size: bank for bank, size in BANKS.items()}


@dataclass(frozen=True, slots=True)
class Judge:
    """The policy that objected, as one speaks of it: `edge-gateway@3`; none where no policy decided."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def explain(finding: Finding, judge: Judge | None) -> str:
    """One paragraph: what it is about, what was expected, what was found, what to do next."""
    about = f"{finding.subject}{_measures(finding.subject)}{where(finding)}"
    policy = str(judge) if judge is not None else "the policy"
    document = f"{judge.name}.toml" if judge is not None else "the policy's file"
    expects = f"{policy} expects {_expected(finding)}; found {_written(finding.found)}"
    match finding.code:
        case "pcr_unexpected":
            step = f"{_accept(finding, document)} Otherwise find out what changed on the machine."
            return f"{about}: {expects}. {step}"
        case "pcr_unmeasured":
            allow = f"allow_unmeasured = [{_register(finding.subject)}] at the top of {document}"
            return (
                f"{about}: {expects}, so nothing was measured there. Check that the firmware measures into "
                f"this bank. If that is on purpose, add {allow}. {_accept(finding, document)}"
            )
        case "pcr_missing":
            step = "Attest again: the agent quotes what the challenge asks for."
            return f"{about}: {policy} needs it and the quote does not hold it. {step}"
        case "bank_missing":
            return (
                f"{about}: {policy} judges this bank; the quote is of {_written(finding.found)}. Attest "
                "again; if the TPM does not have the bank, enable it in the firmware or write a policy for "
                "the other."
            )
        case code if code in LOG_CODES:
            step = next_step(finding, found=_written(finding.found), document=document)
            return f"{about}: {expects}. {step}"
        case _:
            return _explain_other(finding, policy, expects)


def _explain_other(finding: Finding, policy: str, expects: str) -> str:
    match finding.code:
        case "clock_rollback":
            return (
                "clock: the TPM's counters are lower than when this device was last accepted, as after a "
                f"cleared or replaced TPM or an old snapshot of a virtual one{_seen(finding)}. If that was "
                "you, run attestd device rebase DEVICE."
            )
        case "reset_unexplained":
            return (
                f"clock: the TPM was restarted and no new boot id explains it, which {policy} rejects. "
                'Reboot the machine and attest again, or write on_reset = "accept" under [clock] if that is '
                "usual here."
            )
        case "resume_rejected":
            return (
                f"clock: the TPM was restarted within one boot, as after suspend, which {policy} rejects. "
                'Reboot the machine, or write on_resume = "accept" under [clock] if it may sleep.'
            )
        case "clock_unsafe":
            return (
                "clock: the TPM lost its power without warning, so that its clock may have been set back. "
                'Wait until it is safe again, or write on_unsafe = "accept" under [clock].'
            )
        case "tpm_firmware_changed":
            return (
                f"tpm: {expects}: its firmware is another than when it was last accepted. If it was updated, "
                "run attestd device rebase DEVICE."
            )
        case "key_not_proven":
            about = f"{finding.subject}: nothing proves that the device holds this key"
            return f"{about} ({_written(finding.found)}). Update its agent and attest again."
        case "key_not_resident":
            about = f"{finding.subject}: this key was not born in the TPM for this use"
            return (
                f"{about} ({_written(finding.found)}). Run attestd agent attest --key tpm, or write "
                'key = "any" in the grant.'
            )
        case _:
            return f"{finding.subject}: {finding.code}: {expects}."


def _accept(finding: Finding, document: str) -> str:
    value, register = _written(finding.found), _register(finding.subject)
    return (
        f'To accept this value, add "{value}" to {register} under [pcrs] in {document} and run attestd '
        f"policy apply {document}."
    )


def _seen(finding: Finding) -> str:
    return "" if finding.artefact is None else f" ({finding.artefact})"


def _expected(finding: Finding) -> str:
    return " or ".join(_written(value) for value in finding.expected) or "nothing in particular"


def _written(value: str | None) -> str:
    """A digest as a policy writes it, with its bank, which its length tells; anything else as it is."""
    if value is None:
        return "nothing"
    bank = _BANK_BY_DIGITS.get(len(value))
    hexadecimal = all(digit in "0123456789abcdef" for digit in value)
    return f"{bank}:{value}" if bank is not None and hexadecimal else value


def _register(subject: str) -> str:
    return subject.removeprefix("pcr")


def _measures(subject: str) -> str:
    number = _register(subject)
    known = MEASURES.get(int(number)) if subject.startswith("pcr") and number.isdecimal() else None
    return f" ({known})" if known is not None else ""
