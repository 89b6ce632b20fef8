"""X.509-SVIDs over mTLS: one of ours, a leaf, for one workload, and still live."""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from attestd.clock import now_ms
from attestd.issue.authority import create_authority, key_usage
from attestd.oauth.client import mtls
from attestd.oauth.errors import OAuthError
from attestd.store import signing_keys
from tests.attestd.oauth.agents import (
    Agent,
    accepted,
    attested,
    by_certificate,
    new_agent,
    prepared,
    refused,
)
from tests.attestd.oauth.conftest import MakeAgent
from tests.attester import jwk_of, new_key
from tests.deployment import Deployment, credential

LEAF = x509.BasicConstraints(ca=False, path_length=None)
CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])


@pytest.fixture
def agent(agent_of: MakeAgent) -> Agent:
    return agent_of("tls_client_auth")


def uri_names(*uris: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])


def usage(**on: bool) -> x509.KeyUsage:
    names = [
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    ]
    return x509.KeyUsage(**{name: on.get(name, False) for name in names})


def leaf(agent: Agent, **changes: Any) -> bytes:
    """A certificate with these parts, signed by our own CA: only they can be wrong. None leaves one out."""
    ours = agent.deployment.service.keyring.at(now_ms()).signer("x509")
    assert ours.authority is not None
    real = x509.load_der_x509_certificate(agent.certificate)
    now = datetime.now(UTC)
    parts: dict[str, Any] = {
        "serial": real.serial_number,
        "key": agent.key,
        "issuer": ours.authority.name,
        "signer": ours.private_key,
        "start": now - timedelta(minutes=1),
        "end": now + timedelta(minutes=5),
        "names": uri_names(agent.client_id),
        "basic": LEAF,
        "usage": key_usage(signs_certificates=False),
        "extended": CLIENT,
        "more": None,
    } | changes
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(parts["issuer"])
        .public_key(parts["key"].public_key())
        .serial_number(parts["serial"])
        .not_valid_before(parts["start"])
        .not_valid_after(parts["end"])
    )
    for name in ("names", "basic", "usage", "extended", "more"):
        if parts[name] is not None:
            builder = builder.add_extension(parts[name], critical=name != "extended")
    return builder.sign(parts["signer"], hashes.SHA256()).public_bytes(Encoding.DER)


def ask(agent: Agent, certificate: bytes) -> Any:
    return by_certificate(agent, certificate=certificate)


def test_our_svid_authenticates_and_the_token_is_bound_to_the_certificate(agent: Agent) -> None:
    client = accepted(agent, by_certificate(agent))
    digest = hashlib.sha256(agent.certificate).digest()
    expected = urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert client.confirmation.claim() == {"x5t#S256": expected}
    assert (client.method, client.spends, client.proven_dpop) == ("tls_client_auth", (), False)


def test_a_certificate_made_of_the_same_parts_is_as_good(agent: Agent) -> None:
    """So that each row below has a twin that differs in the row's one part."""
    accepted(agent, ask(agent, leaf(agent)))


HOUR = timedelta(hours=1)
ID = "spiffe://example.org/agent/planner/x"
PARTS: list[tuple[str, Callable[[Agent], dict[str, Any]], str]] = [
    ("expired", lambda a: {"start": datetime.now(UTC) - HOUR, "end": datetime.now(UTC)}, "svid_expired"),
    (
        "not_yet",
        lambda a: {"start": datetime.now(UTC) + HOUR, "end": datetime.now(UTC) + 2 * HOUR},
        "svid_expired",
    ),
    ("ca", lambda a: {"basic": x509.BasicConstraints(ca=True, path_length=0)}, "svid_ca"),
    ("no_basic_constraints", lambda a: {"basic": None}, "svid_profile"),
    ("no_key_usage", lambda a: {"usage": None}, "svid_profile"),
    ("no_signatures", lambda a: {"usage": usage(key_encipherment=True)}, "svid_key_usage"),
    (
        "signs_certificates",
        lambda a: {"usage": usage(digital_signature=True, key_cert_sign=True)},
        "svid_key_usage",
    ),
    ("signs_lists", lambda a: {"usage": usage(digital_signature=True, crl_sign=True)}, "svid_key_usage"),
    (
        "server_only",
        lambda a: {"extended": x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])},
        "svid_extended_key_usage",
    ),
    ("no_purpose", lambda a: {"extended": None}, "svid_profile"),
    ("no_name", lambda a: {"names": None}, "svid_profile"),
    ("two_uris", lambda a: {"names": uri_names(a.client_id, ID)}, "svid_uri_san"),
    ("same_uri_twice", lambda a: {"names": uri_names(a.client_id, a.client_id)}, "svid_uri_san"),
    (
        "dns_only",
        lambda a: {"names": x509.SubjectAlternativeName([x509.DNSName("a.example")])},
        "svid_uri_san",
    ),
    ("no_spiffe_id", lambda a: {"names": uri_names("https://example.org/agent")}, "svid_uri_san"),
    ("trust_domain_only", lambda a: {"names": uri_names("spiffe://example.org")}, "svid_uri_san"),
    ("unknown_critical", lambda a: {"more": x509.PolicyConstraints(0, None)}, "svid_critical"),
    ("unknown_serial", lambda a: {"serial": 12345}, "credential_unknown"),
    ("another_key", lambda a: {"key": new_key("p256")}, "credential_unknown"),
    ("ed25519_key", lambda a: {"key": ed25519.Ed25519PrivateKey.generate()}, "svid_bad_key"),
    ("key_on_another_curve", lambda a: {"key": ec.generate_private_key(ec.SECP256K1())}, "svid_bad_key"),
    ("signed_by_itself", lambda a: {"signer": a.key}, "svid_issuer"),
    ("another_issuers_name", lambda a: {"issuer": x509.Name([])}, "svid_issuer"),
]


@pytest.mark.parametrize(("change", "cause"), [row[1:] for row in PARTS], ids=[row[0] for row in PARTS])
def test_a_certificate_that_differs_in_one_part_is_refused(
    change: Callable[[Agent], dict[str, Any]], cause: str, agent: Agent
) -> None:
    refused(agent, ask(agent, leaf(agent, **change(agent))), "invalid_client", cause, status=401)


def test_a_certificate_for_another_client_than_its_serial_was_issued_to_is_refused(agent: Agent) -> None:
    other = replace(agent, name="keeper")
    refused(
        agent,
        ask(other, leaf(agent, names=uri_names(other.client_id))),
        "invalid_client",
        "credential_unknown",
    )


@pytest.mark.parametrize("raw", [b"", b"junk", b"0\x82\x00\x00", bytes(20_000)])
def test_bytes_that_are_no_certificate_are_refused(raw: bytes, agent: Agent) -> None:
    error = refused(agent, ask(agent, agent.certificate[:-1]), "invalid_client", "svid_profile")
    assert error.status == 401
    cause = "svid_oversized" if len(raw) > 16_384 else "svid_profile"
    refused(agent, ask(agent, raw), "invalid_client", cause)


def test_every_truncation_and_many_flips_of_our_certificate_are_refused(agent: Agent) -> None:
    raw = agent.certificate
    for cut in range(0, len(raw), 7):
        refused(agent, ask(agent, raw[:cut]), "invalid_client", "svid_profile")
    for place in range(0, len(raw) * 8, 37):
        flipped = bytearray(raw)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(Exception, match="invalid_client"):
            accepted(agent, ask(agent, bytes(flipped)))


def test_mt_12_a_certificate_that_our_own_leaf_signed_is_refused(agent: Agent) -> None:
    """Whatever it says of itself, and with our leaf's own name as its issuer."""
    issuer = x509.load_der_x509_certificate(agent.certificate).subject
    below = leaf(agent, issuer=issuer, signer=agent.key, key=new_key("p256"))
    refused(agent, ask(agent, below), "invalid_client", "svid_issuer", status=401)
    accepted(agent, by_certificate(agent))


def test_a_ca_of_the_same_trust_domain_that_is_not_ours_is_not_believed(agent: Agent) -> None:
    key = new_key("p256")
    ours = agent.deployment.service.keyring.at(now_ms()).signer("x509")
    forged = create_authority(key, trust_domain="example.org", kid=ours.kid, serial=7, now=now_ms())  # type: ignore[arg-type]
    assert ours.authority is not None
    assert forged.subject == ours.authority.name
    refused(agent, ask(agent, leaf(agent, signer=key)), "invalid_client", "svid_issuer")


def test_without_a_certificate_nobody_is_authenticated(agent: Agent) -> None:
    with pytest.raises(OAuthError) as refusal:
        mtls.authenticate(agent.deployment.service, by_certificate(agent, certificate=None))
    assert (refusal.value.error, refusal.value.cause) == ("invalid_client", "certificate_missing")


def test_the_request_names_its_client(agent: Agent) -> None:
    asked = by_certificate(agent)
    bare = replace(asked, parameters={"grant_type": ("client_credentials",)})
    refused(agent, bare, "invalid_client", "client_id_missing", status=401)


def test_a_renewed_certificate_is_another_certificate(agent: Agent) -> None:
    """RFC 8705, section 3: tokens are bound to the certificate, not to its key."""
    again = attested(
        agent.deployment, agent.machine, credential("x509-svid", "planner", key=jwk_of(agent.key))
    )
    renewed = replace(agent, text=again)
    first, second = accepted(agent, by_certificate(agent)), accepted(renewed, by_certificate(renewed))
    assert first.confirmation != second.confirmation
    assert first.credential.key_thumbprint == second.credential.key_thumbprint


def test_a_key_in_the_tpm_is_resident(agent: Agent) -> None:
    for kind in ("p256", "rsa"):
        keeper = new_agent(agent.deployment, agent.machine, "x509-svid", name="keeper", kind=kind)
        assert accepted(keeper, by_certificate(keeper)).resident is True


def test_mt_9_a_certificate_of_a_retired_ca_is_refused(deployment: Deployment) -> None:
    agent = new_agent(deployment, prepared(deployment), "x509-svid")
    accepted(agent, by_certificate(agent))
    old = deployment.service.keyring.at(now_ms()).signer("x509").kid
    before = {row["kid"] for row in deployment.listed("keys", "list")}
    deployment.operate("keys", "add", "--use", "x509")
    (new,) = {row["kid"] for row in deployment.listed("keys", "list")} - before
    deployment.operate("keys", "activate", str(new), "--now")
    accepted(agent, by_certificate(agent, now=now_ms() + 2000))
    deployment.service.store.write(
        lambda tx: tx.execute("UPDATE signing_keys SET last_expiry = 0 WHERE kid = ?", (old,))
    )
    assert deployment.service.store.write(lambda tx: signing_keys.retire(tx, old, now_ms()))
    refused(agent, by_certificate(agent, now=now_ms() + 4000), "invalid_client", "svid_issuer")
