"""How do the parts of the service come together? The one place that wires."""

from collections.abc import Sequence
from importlib.metadata import version

from attestd import attest, enroll
from attestd.adoption import adopt_keys
from attestd.clock import now_ms
from attestd.config import Config
from attestd.exposure import refuse_exposed_emulators
from attestd.issue.discovery import Discovery
from attestd.issue.ear import Verifier
from attestd.issue.keys import KeyRing
from attestd.limits import RateLimits
from attestd.nonce import Nonces, Sealer
from attestd.protocol import ActivationBody, AttestationBody, ChallengeBody, EnrollmentBody
from attestd.service import Service
from attestd.store import meta, signing_keys
from attestd.store.audit_counter import CountedRefusals
from attestd.store.store import Store
from attestd.trust import TrustStore
from attestd.web.routes import Verb

VERBS: Sequence[Verb] = (
    Verb(
        "/v1/enrollments",
        EnrollmentBody,
        enroll.begin,
        "none: nothing is told or written before the TPM has proven itself",
        "Present a TPM and its attestation key; receive a credential challenge.",
    ),
    Verb(
        "/v1/activations",
        ActivationBody,
        enroll.activate,
        "the secret that only this TPM opens",
        "Prove that the challenge was opened; become a device.",
        proves=True,
    ),
    Verb(
        "/v1/challenges",
        ChallengeBody,
        attest.challenge,
        "none: a nonce is worth nothing without the device's attestation key",
        "Receive a nonce and what to quote.",
    ),
    Verb(
        "/v1/attestations",
        AttestationBody,
        attest.attest,
        "the device's attestation key, over the request itself",
        "Prove how the machine booted; receive what its policy grants.",
        status=200,
        cap="attestation_body",
        proves=True,
    ),
)


def build_service(config: Config) -> Service:
    """The service of this configuration, its database migrated, its keys known there. PolicyError, StoreError
    or OSError stop the start."""
    store = Store.open(config.database)
    store.migrate()
    adopt_keys(store, config, verb="keys adopt", by="attestd serve", now=now_ms())
    epoch = store.read(meta.epoch)
    keyring = KeyRing(
        config.keys,
        trust_domain=config.trust_domain,
        read_states=lambda: store.read(signing_keys.list_all),
    )
    trust = TrustStore(config.admission.ek_roots)
    refuse_exposed_emulators(config, trust.anchors(now_ms()).certificates)
    sealing = keyring.nonce_keys
    return Service(
        config=config,
        store=store,
        keyring=keyring,
        trust=trust,
        limits=RateLimits(config.limits.unproven_per_second, config.limits.device_per_minute),
        nonces=Nonces(Sealer.derive(sealing, label=b"nonce", epoch=epoch), b"attest"),
        enrollments=Sealer.derive(sealing, label=b"enrollment", epoch=epoch),
        verifier=Verifier(config.external_url, "attestd", f"attestd {version('attestd-tpm')}"),
        discovery=Discovery(config.external_url),
        refusals=CountedRefusals(config.limits.audit_unproven),
    )
