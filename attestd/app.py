"""How do the parts of the service come together? The one place that wires."""

from collections.abc import Sequence
from functools import partial
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
from attestd.oauth.account import record_refusal
from attestd.oauth.endpoints import ENDPOINTS, Endpoint
from attestd.oauth.metadata import Metadata
from attestd.oauth.server import AuthorizationServer
from attestd.protocol import ActivationBody, AttestationBody, ChallengeBody, EnrollmentBody
from attestd.service import Service
from attestd.store import meta, signing_keys
from attestd.store.audit_counter import CountedRefusals
from attestd.store.store import Store
from attestd.trust import TrustStore
from attestd.web.application import Web, create_web
from attestd.web.metrics import Metrics
from attestd.web.routes import Form, Verb

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
    service = Service(
        config=config,
        store=store,
        keyring=keyring,
        trust=trust,
        limits=RateLimits(config.limits.unproven_per_second, config.limits.device_per_minute),
        nonces=Nonces(Sealer.derive(sealing, label=b"nonce", epoch=epoch), b"attest"),
        enrollments=Sealer.derive(sealing, label=b"enrollment", epoch=epoch),
        challenges=Sealer.derive(sealing, label=b"challenge", epoch=epoch),
        verifier=Verifier(config.external_url, "attestd", f"attestd {version('attestd-tpm')}"),
        discovery=Discovery(config.external_url),
        refusals=CountedRefusals(config.limits.audit_unproven),
    )
    # Key files of others that cannot be used stop the start too, before a socket is bound.
    AuthorizationServer.open(service)
    return service


def build_web(service: Service, metrics: Metrics | None = None) -> Web:
    """The application of this service: its verbs, and the endpoints of the authorization server."""
    server = AuthorizationServer.open(service)
    forms = tuple(_form(server, endpoint) for endpoint in ENDPOINTS)
    documents = Metadata(server).documents()
    return create_web(service, (*VERBS, *forms), published=documents, metrics=metrics)


def _form(server: AuthorizationServer, endpoint: Endpoint) -> Form:
    return Form(
        endpoint.path,
        partial(endpoint.call, server),
        partial(record_refusal, server.service, event=endpoint.event),
        endpoint.authentication,
        endpoint.summary,
        endpoint.form,
    )
