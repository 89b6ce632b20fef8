"""What does a finding about a log mean: register, event, artefact, and what would accept it?"""

from __future__ import annotations

from attestd.policy.findings import Finding

LOG_CODES = frozenset(
    {
        "event_unexpected",
        "component_missing",
        "component_expired",
        "secure_boot_off",
        "authority_unexpected",
        "dbx_outdated",
        "command_line_unexpected",
        "command_line_forbidden",
        "phase_unexpected",
        "fact_unproven",
        "log_missing",
        "log_replay",
        "log_bank_missing",
        "log_empty",
        "ima_unknown",
        "ima_violation",
        "ima_signature",
        "ima_rollback",
        "ima_not_covered",
        "boot_aggregate",
    }
)
"""The codes that `next_step` knows."""

_ALLOWED_BY_KEY = {
    "authority_unexpected": "authorities",
    "phase_unexpected": "phases",
}
_DAMAGED = "Attest again with the whole logs of this boot, systemd's too (--event-log, --userspace-log)."
_ANOTHER_LIST = (
    "IMA's list is not the one of this boot, or was cut; reboot the machine, without kexec. If its TPM was "
    "cleared, run attestd device rebase DEVICE."
)
_ALWAYS = {
    "log_replay": _DAMAGED,
    "log_bank_missing": _DAMAGED,
    "log_empty": _DAMAGED,
    "ima_rollback": _ANOTHER_LIST,
    "ima_not_covered": _ANOTHER_LIST,
    "boot_aggregate": _ANOTHER_LIST,
    "component_missing": "What stands in its place is told by the other findings.",
    "secure_boot_off": (
        "Turn Secure Boot on in the firmware's settings, shim's validation by mokutil --enable-validation, "
        "and reboot."
    ),
    "dbx_outdated": "Update the revocation list (fwupdmgr update) and reboot.",
    "log_missing": "Attest with a current agent as root: it sends the log where the service asks for it.",
}
"""Steps that need no name of a document."""


def where(finding: Finding) -> str:
    """The event behind the register, as one speaks of it: ", event 33 (started …)"."""
    if finding.event is None:
        return f" ({finding.artefact})" if finding.artefact is not None else ""
    return f", event {finding.event}" + (f" ({finding.artefact})" if finding.artefact is not None else "")


def next_step(finding: Finding, *, found: str, document: str) -> str:
    """What the operator can do, in a sentence or two; `found` is written as a policy writes it."""
    apply = f"and run attestd policy apply {document}."
    code = finding.code
    if code in _ALLOWED_BY_KEY:
        return f'To accept it, add "{found}" to {_ALLOWED_BY_KEY[code]} under [boot] in {document} {apply}'
    if code in _ALWAYS:
        return _ALWAYS[code]
    match code:
        case "event_unexpected":
            return (
                f'To accept it, give the [[component]] it belongs to a variant with "{found}" in its digests '
                f"(or list it in [actions], if it is one) in {document} {apply}"
            )
        case "component_expired":
            return f"Update the machine; or move the variant's until in {document} {apply}"
        case "command_line_unexpected":
            return (
                f'To accept it, add "{found}" to command_line under [boot], or take the word that is missing '
                f"or overridden out of command_line_requires, in {document} {apply}"
            )
        case "command_line_forbidden":
            return f"Remove the word from the boot loader; or from [boot] in {document} {apply}"
        case "ima_unknown" | "ima_signature":
            line = f'"{found}  {finding.subject}"'
            return f"To accept it, add the line {line} to a file that allow under [ima] names {apply}"
        case "ima_violation":
            return (
                f'A file was changed while it was read; reboot, or write violations = "accept" in {document}.'
            )
        case _:
            return (
                f'The log does not prove it. If the event is harmless, add "{found}" to known_events under '
                f"[boot] in {document} {apply}"
            )
