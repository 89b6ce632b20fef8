"""What does every verb of the service need? Made once at the start, shared by all requests, and holding no
request's state."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from attestd.clock import now_ms
from attestd.config import Config
from attestd.exposure import unsafe_modes
from attestd.issue.audit_keys import audit_signer
from attestd.issue.discovery import JWKS_PATH, Discovery, Document
from attestd.issue.ear import Verifier
from attestd.issue.keys import KeyRing
from attestd.limits import RateLimits
from attestd.log_cache import LogCache
from attestd.nonce import Nonces, Sealer
from attestd.policy.active import ActivePolicies, ActivePolicy
from attestd.policy.document import load_policy
from attestd.store import audit, meta, policies
from attestd.store.audit import AuditEvent, Event, HeadSigner
from attestd.store.audit_calls import CallCounter, record_calls
from attestd.store.audit_counter import CountedRefusals
from attestd.store.engine import Transaction
from attestd.store.errors import StoreUnavailable
from attestd.store.maintenance import Maintained, maintain
from attestd.store.store import Store
from attestd.trust import TrustStore
from attestd.wire import Problem
from tpm.errors import PolicyError

_EVENTS: Mapping[str, Event] = {
    "/v1/enrollments": "enroll",
    "/v1/activations": "activate",
    "/v1/challenges": "challenge",
    "/v1/attestations": "attest",
}


class PolicyCache:
    """The policies in force, read again when the store's generation says that they changed: at once, on every
    replica."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: ActivePolicies | None = None

    def active(self, tx: Transaction) -> ActivePolicies:
        """As of this transaction. PolicyError if a stored document cannot be read, which stops every verdict.
        """
        generation = meta.policy_generation(tx)
        known = self._active
        if known is not None and known.generation == generation:
            return known
        loaded = tuple(
            ActivePolicy(load_policy(version.source, version.files), version.version)
            for version in policies.active(tx)
        )
        fresh = ActivePolicies(generation, loaded)
        with self._lock:
            self._active = fresh
        return fresh


@dataclass(frozen=True, slots=True)
class Service:
    """The parts that `app.build_service` wired; the verbs take it as their first argument."""

    config: Config
    store: Store
    keyring: KeyRing
    trust: TrustStore
    limits: RateLimits
    nonces: Nonces
    enrollments: Sealer
    challenges: Sealer
    """Nonces of DPoP and challenges of client attestations."""
    verifier: Verifier
    discovery: Discovery
    refusals: CountedRefusals
    calls: CallCounter = field(default_factory=CallCounter)
    policies: PolicyCache = field(default_factory=PolicyCache)
    logs: LogCache = field(default_factory=LogCache)
    """Event logs that were read, and what they prove."""

    def audit_signer(self, now: int) -> HeadSigner:
        """Who signs the audit's heads. Asked before a transaction, for it may have to read the keys' states
        itself."""
        return audit_signer(self.keyring.at(now))

    def trusts(self, root_sha256: str, *, now: int) -> bool:
        """Is this root (hex SHA-256) still in the trust store? Problem `unavailable` while nobody can tell.
        """
        try:
            anchors = self.trust.anchors(now)
        except PolicyError as error:
            raise trust_unreadable(error) from None
        return any(root.sha256 == root_sha256 for root in anchors.certificates)

    def refuse(self, problem: Problem, *, now: int, request_id: str, source: str, path: str) -> None:
        """Record one refused request that spent nothing: its device is not proven, or what it sent is old
        or too much. Of a flood, the first few and then their number."""
        event = _EVENTS.get(path, "request")
        if not self.refusals.admit(event, problem.code, now):
            return
        record = AuditEvent(
            event=event,
            decision="refused",
            code=problem.code,
            cause=problem.cause,
            request_id=request_id,
            device_id=problem.device_id or problem.claimed,
            evidence_sha256=problem.evidence_sha256,
            details={"proven": problem.device_id is not None, "source": source, "pointer": problem.pointer},
        )
        signer = self.audit_signer(now)
        # On the service's chain: who only replays what a device once signed does not lengthen the device's.
        self.store.write(lambda tx: audit.append(tx, signer, record, chain=None, now=now))

    def unsafe_modes(self, *, now: int) -> tuple[str, ...]:
        """The switches in use that weaken admission, and `emulated_tpms` where software TPMs are trusted."""
        try:
            return unsafe_modes(self.config, self.trust.anchors(now).certificates)
        except PolicyError:  # nobody is trusted while the trust store cannot be read
            return self.config.unsafe_modes()

    def ready(self, *, now: int) -> Mapping[str, bool]:
        """What has to be true before requests are sent here."""
        return {
            "store": _holds(lambda: self.store.read(meta.epoch) > 0),
            "keys": _holds(lambda: self._keys_agree(now)),
            "trust": _holds(lambda: bool(self.trust.anchors(now))),
            "policies": _holds(lambda: bool(self.store.read(self.policies.active))),
        }

    def documents(self) -> Mapping[str, Callable[[int], Document]]:
        """The published documents by path, each rendered from the time."""
        return {
            JWKS_PATH: lambda now: self.discovery.documents(self.keyring.at(now)).jwks,
            "/.well-known/openid-configuration": lambda now: (
                self.discovery.documents(self.keyring.at(now)).openid_configuration
            ),
            "/.well-known/spiffe/bundle": lambda now: (
                self.discovery.documents(self.keyring.at(now)).spiffe_bundle
            ),
        }

    def maintain(self, now: int) -> Maintained:
        """Housekeeping, once a second."""
        signer = self.audit_signer(now)
        self._record_calls(signer, now)
        return maintain(
            self.store,
            signer,
            now=now,
            skew_seconds=self.config.limits.clock_skew,
            pending_seconds=self.config.admission.pending_age,
            counted=self.refusals,
        )

    def close(self) -> None:
        """Let go of the database; what was counted and not yet recorded is recorded."""
        now = now_ms()
        signer = self.audit_signer(now)
        self._record_calls(signer, now, closing=True)
        self.refusals.flush(
            now,
            lambda events: self.store.write(
                lambda tx: audit.append_all(tx, signer, events, chain=None, now=now)
            ),
            closing=True,
        )
        self.store.close()

    def _record_calls(self, signer: HeadSigner, now: int, *, closing: bool = False) -> None:
        self.calls.flush(
            now,
            lambda calls: self.store.write(lambda tx: record_calls(tx, signer, calls, now)),
            closing=closing,
        )

    def _keys_agree(self, now: int) -> bool:
        """All replicas hold the same keys, and every published one is here."""
        keys = self.keyring.at(now)
        known = self.store.read(meta.fingerprints).get("keys")
        return known == self.keyring.fingerprint() and not keys.missing


def trust_unreadable(error: PolicyError) -> Problem:
    """Nobody is trusted while the trust store cannot be read; that is our fault and no device's."""
    return Problem(
        "unavailable", "The trust store cannot be read; an operator must mend it.", cause=error.reason
    )


def _holds(check: Callable[[], bool]) -> bool:
    """Whatever keeps a check from running keeps the service from being ready."""
    try:
        return check()
    except (Problem, PolicyError, StoreUnavailable):
        return False
