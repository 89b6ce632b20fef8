"""Which logs came with the quote, and can they be read?

Read after the attestation key's signature was verified, so that only devices can make us read, and before the
nonce is spent, so that a log which is needed costs no nonce.
"""

import hashlib
from dataclasses import dataclass

from attestd.policy.choose import NoPolicy, Subject, choose_policy
from attestd.protocol import LogDigest
from attestd.round.claim import Claim
from attestd.round.prove import Proven
from attestd.service import Service
from attestd.store import device_logs
from attestd.store.device_logs import ImaMark
from attestd.store.engine import Transaction
from attestd.wire import Problem, to_problem
from tpm.errors import StructureError
from tpm.eventlog.events import EventLog
from tpm.eventlog.reader import read_log
from tpm.eventlog.userspace import UserspaceLog, read_userspace
from tpm.ima.replay import Mark


@dataclass(frozen=True, slots=True)
class BootLog:
    """A log that can be read; nothing says yet that it is true. `digest` is the hex SHA-256 of its bytes,
    `userspace_digest` that of systemd's log, or ""; `raw` is None where the device named it by digest."""

    digest: str
    raw: bytes | None
    log: EventLog
    userspace: UserspaceLog | None
    userspace_digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Logs:
    """What the device sent. `ima` is the list from entry `ima_from` on, `mark` what is known of this boot's
    list, in the bank that was known then, judged by the policy of digest `mark_policy`."""

    boot: BootLog | None
    ima: bytes | None
    ima_from: int
    mark: Mark | None
    mark_bank: str
    mark_policy: str


NONE = Logs(None, None, 0, None, "", "")


def read_logs(service: Service, claim: Claim, proven: Proven) -> Logs:
    """Problem `malformed` with a pointer for what cannot be read, `log_needed` for what is named and not
    known."""
    if claim.event_log is None and claim.userspace_log is None and claim.ima_log is None:
        return NONE
    try:
        userspace = _read_userspace(claim.userspace_log)
        boot = None if claim.event_log is None else _read_boot_log(service, claim, userspace)
        mark = None if claim.ima_log is None else _known_mark(service, claim, proven)
    except Problem as problem:
        problem.device_id = proven.device.device_id
        raise
    first = claim.request.ima_from
    if mark is None:
        return Logs(boot, claim.ima_log, first, None, "", "")
    known = Mark(mark.entries, bytes.fromhex(mark.value), mark.padded)
    return Logs(boot, claim.ima_log, first, known, mark.bank, mark.policy_digest)


def _read_userspace(raw: bytes | None) -> UserspaceLog | None:
    try:
        return None if raw is None else read_userspace(raw)
    except StructureError as error:
        raise to_problem(error, "/userspace_log") from None


def _read_boot_log(service: Service, claim: Claim, userspace: UserspaceLog | None) -> BootLog:
    sent = claim.event_log
    raw: bytes | None = None
    if isinstance(sent, LogDigest):
        digest, content = sent.sha256, _kept(service, claim, sent.sha256)
    else:
        assert sent is not None
        content = raw = sent
        digest = hashlib.sha256(content).hexdigest()
    try:
        log = service.logs.get(("log", digest), len(content), lambda: read_log(content))
    except StructureError as error:
        raise to_problem(error, "/event_log") from None
    measured = claim.userspace_log
    of_userspace = "" if measured is None else hashlib.sha256(measured).hexdigest()
    return BootLog(digest, raw, log, userspace, of_userspace, len(content) + len(measured or b""))


def _kept(service: Service, claim: Claim, sha256: str) -> bytes:
    """The log that the device sent before and names now."""
    device_id = claim.request.device_id
    content = service.store.read(lambda tx: device_logs.log_content(tx, device_id, sha256))
    if content is None:
        raise _needed("/event_log", "the whole event log")
    return content


def _known_mark(service: Service, claim: Claim, proven: Proven) -> ImaMark | None:
    """What is known of this boot's list. A part of a list needs the part before it, judged by the policy that
    decides today."""
    device = proven.device
    subject = Subject(device.device_id, device.labels, device.manufacturer)

    def read(tx: Transaction) -> tuple[ImaMark | None, str | None]:
        mark = device_logs.ima_mark(tx, device.device_id)
        try:
            return mark, choose_policy(service.policies.active(tx).documents, subject).digest
        except NoPolicy:
            return mark, None

    mark, policy = service.store.read(read)
    clock = proven.quote.quote.clock
    boot = (clock.reset_count, clock.restart_count)
    if mark is not None and (mark.reset_count, mark.restart_count) != boot:
        mark = None
    first = claim.request.ima_from
    if first and (mark is None or mark.entries != first or mark.policy_digest != policy):
        raise _needed("/ima_log", "IMA's list from its beginning")
    return mark


def _needed(pointer: str, what: str) -> Problem:
    """The nonce is unspent; where the request itself names the list's beginning, it must be made anew."""
    return Problem("log_needed", f"{pointer}: what came is not enough here; send {what}.", pointer=pointer)
