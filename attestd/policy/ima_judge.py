"""Is every file that this machine ran one that the policy allows?

A pure function of the rules and of proven entries. A file is allowed by its digest or by a signature; a
signature that claims a key of ours and does not hold is objected to whatever the digest is.
"""

from __future__ import annotations

from collections.abc import Iterator

from attestd.policy.findings import Finding
from attestd.policy.ima_rules import ImaRules
from tpm.errors import EvidenceError
from tpm.ima.entry import BOOT_AGGREGATE, Entry, FileDigest
from tpm.ima.file_signature import verify_file_signature
from tpm.ima.replay import REGISTER
from tpm.ima.verify import VerifiedMeasurements

MAX_FINDINGS = 100
"""Objections that are told one by one; the rest is told as a number."""

MAX_SHOWN = 512
"""Characters of a path in a finding."""


def judge_ima(rules: ImaRules, measurements: VerifiedMeasurements) -> tuple[Finding, ...]:
    """What the policy objects to, in the order of the list. Only entries of this part of the list are judged:
    if the policy changed since an earlier part was, the whole list must come again.
    """
    findings: list[Finding] = []
    # 1. The list belongs to the boot of the quoted registers.
    if measurements.boot == "unquoted":
        findings.append(Finding("boot_aggregate", "ima", ("the registers that it is made of, quoted",)))
    # 2. The kernel extends the register's bank with that bank's own digests.
    if measurements.mark.padded and rules.sha1_padded == "reject":
        findings.append(
            Finding("ima_sha1_padded", "pcr10", ("a kernel of Linux 5.8 or later",), "SHA-1 digests")
        )
    # 3. Each entry is allowed.
    more = 0
    for entry in measurements.entries():
        for finding in judge_entry(rules, entry):
            if len(findings) < MAX_FINDINGS:
                findings.append(finding)
            else:
                more += 1
    if more:
        findings.append(Finding("ima_more", "ima", (), f"{more} findings more"))
    return tuple(findings)


def judge_entry(rules: ImaRules, entry: Entry) -> Iterator[Finding]:
    """The objections to one entry, which was proven; that it is in place if it is the boot aggregate, too."""
    path = entry.path
    if entry.violation:
        # Its path is not proven, so that no exclusion can speak for it.
        if rules.violations == "reject":
            yield Finding("ima_violation", show_path(path), (), f"entry {entry.position}")
        return
    if entry.pcr != REGISTER:
        yield Finding("ima_register", show_path(path), (f"pcr{REGISTER}",), f"pcr{entry.pcr}")
        return
    if entry.position == 0 and path == BOOT_AGGREGATE:
        return
    digest = entry.file_digest
    found = None if digest is None else str(digest)
    if entry.is_buffer:
        if found is None or not _buffer_allowed(rules, path, found):
            yield Finding("ima_unknown", show_path(path), tuple(sorted(rules.keyrings.get(path, ()))), found)
        return
    if is_excluded(rules.exclude, path):
        return
    allowed = found is not None and _allowed(rules, path, found)
    match _signed(rules, entry, digest):
        case "wrong":
            yield Finding("ima_signature", show_path(path), _listed(rules, path), found)
        case "none" if not allowed:
            yield Finding("ima_unknown", show_path(path), _listed(rules, path), found)


def is_excluded(prefixes: tuple[bytes, ...], path: bytes) -> bool:
    """Is the path one of these or below one? One that climbs ("..") is never: where it leads is not known."""
    if not any(
        path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/") for prefix in prefixes
    ):
        return False
    return b".." not in path.split(b"/")


def show_path(path: bytes) -> str:
    """A path of any bytes as one line of text: what cannot be printed is escaped, and so is a backslash."""
    text = path.decode("utf-8", "surrogateescape").replace("\\", "\\\\")
    shown = "".join(one if one.isprintable() else _escape(one) for one in text)
    return shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 1] + "…"


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def _buffer_allowed(rules: ImaRules, name: bytes, found: str) -> bool:
    """A buffer is allowed under its own name only: a key for one keyring is none for another."""
    return found in rules.keyrings.get(name, ()) or found in rules.allowed.by_path.get(name, ())


def _allowed(rules: ImaRules, path: bytes, found: str) -> bool:
    listed = rules.allowed.digests if rules.match == "digest" else _listed(rules, path)
    return found in listed


def _signed(rules: ImaRules, entry: Entry, digest: FileDigest | None) -> str:
    """ "ours", "wrong" (it claims a key of ours), or "none"."""
    if not entry.signature or digest is None or not rules.keys.by_id:
        return "none"
    try:
        verify_file_signature(entry.signature, digest=digest, keys=rules.keys)
    except EvidenceError as error:
        return "none" if error.reason == "file_key_unknown" else "wrong"
    return "ours"


def _listed(rules: ImaRules, path: bytes) -> tuple[str, ...]:
    """Package lists have paths without the first slash."""
    return rules.allowed.by_path.get(path, ()) + rules.allowed.by_path.get(path.removeprefix(b"/"), ())
