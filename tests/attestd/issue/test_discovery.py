"""Do relying parties find exactly the keys that they are to trust?"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from attestd.issue.discovery import Discovery, Documents
from attestd.issue.key_files import create_key
from attestd.issue.keys import KeyRing
from tests.attestd.issue.material import EXTERNAL_URL, NOW, TRUST_DOMAIN, State, States, new_ring

VECTORS = Path(__file__).parents[2] / "vectors" / "spiffe" / "go-spiffebundle"


@pytest.fixture
def ring(tmp_path: Path) -> tuple[KeyRing, States]:
    return new_ring(tmp_path / "keys")


def documents(ring: KeyRing, now: int = NOW) -> Documents:
    return Discovery(EXTERNAL_URL).documents(ring.at(now))


def of(body: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(body)
    return value


def test_the_jwks_holds_the_keys_of_jwt_svids_and_attestation_results(ring: tuple[KeyRing, States]) -> None:
    keys = ring[0].at(NOW)
    found = of(documents(ring[0]).jwks.body)["keys"]
    assert {entry["kid"] for entry in found} == {keys.signer("jwt").kid, keys.signer("ear").kid}
    for entry in found:
        assert entry.keys() == {"kty", "crv", "x", "y", "use", "alg", "kid"}
        assert (entry["use"], entry["alg"]) == ("sig", "ES256")


def test_nothing_private_is_published(ring: tuple[KeyRing, States]) -> None:
    made = documents(ring[0])
    for entry in (*of(made.jwks.body)["keys"], *of(made.spiffe_bundle.body)["keys"]):
        assert not entry.keys() & {"d", "p", "q", "dp", "dq", "qi", "k"}


def test_discovery_names_the_issuer_and_its_keys(ring: tuple[KeyRing, States]) -> None:
    found = of(documents(ring[0]).openid_configuration.body)
    assert found["issuer"] == EXTERNAL_URL
    assert found["jwks_uri"] == EXTERNAL_URL + "/.well-known/jwks.json"
    assert found["id_token_signing_alg_values_supported"] == ["ES256"]
    assert {"response_types_supported", "subject_types_supported"} <= found.keys()


def test_the_bundle_holds_the_keys_of_svids_each_in_its_form(ring: tuple[KeyRing, States]) -> None:
    keys = ring[0].at(NOW)
    bundle = of(documents(ring[0]).spiffe_bundle.body)
    by_use = {entry["use"]: entry for entry in bundle["keys"]}
    assert by_use.keys() == {"x509-svid", "jwt-svid", "wit-svid"}
    assert "kid" not in by_use["x509-svid"]
    (certificate,) = by_use["x509-svid"]["x5c"]
    pem = f"-----BEGIN CERTIFICATE-----\n{certificate}\n-----END CERTIFICATE-----\n"
    assert x509.load_pem_x509_certificate(pem.encode()).public_key() == keys.signer("x509").public
    assert by_use["jwt-svid"]["kid"] == keys.signer("jwt").kid
    assert by_use["wit-svid"]["kid"] == keys.signer("wit").kid
    assert bundle["spiffe_sequence"] == NOW
    assert bundle["spiffe_refresh_hint"] == 60


def test_the_bundle_has_the_shape_of_others(ring: tuple[KeyRing, States]) -> None:
    theirs = of((VECTORS / "spiffebundle_valid_with_wit.json").read_bytes())
    ours = of(documents(ring[0]).spiffe_bundle.body)
    assert ours.keys() == theirs.keys()
    members = {entry["use"]: entry.keys() for entry in theirs["keys"]}
    assert {entry["use"]: entry.keys() - {"alg"} for entry in ours["keys"]} == members


def test_mt_9_kids_are_unique_over_jwks_and_bundle(ring: tuple[KeyRing, States]) -> None:
    made = documents(ring[0])
    entries = [*of(made.jwks.body)["keys"], *of(made.spiffe_bundle.body)["keys"]]
    by_kid = {entry["kid"]: (entry["x"], entry["y"]) for entry in entries if "kid" in entry}
    assert len(by_kid) == len(set(by_kid.values())) == 3


def test_documents_follow_a_rotation_and_are_the_same_bytes_otherwise(
    ring: tuple[KeyRing, States], tmp_path: Path
) -> None:
    ring_, states = ring
    discovery = Discovery(EXTERNAL_URL)
    first = discovery.documents(ring_.at(NOW))
    states.rows = [replace(state, last_expiry=NOW + 600_000) for state in states.rows]
    assert discovery.documents(ring_.at(NOW + 1000)) is first

    added = create_key(tmp_path / "keys", use="jwt", alg="PS256", trust_domain=TRUST_DOMAIN, now=NOW)
    states.rows.append(State(added.kid, alg="PS256", published_at=NOW + 1500))
    second = discovery.documents(ring_.at(NOW + 2000))
    assert second.jwks.etag != first.jwks.etag
    assert added.kid in [entry["kid"] for entry in of(second.jwks.body)["keys"]]
    assert of(second.spiffe_bundle.body)["spiffe_sequence"] == NOW + 1500
    assert of(second.openid_configuration.body)["id_token_signing_alg_values_supported"] == ["ES256", "PS256"]

    states.rows[-1] = replace(states.rows[-1], state="retired", retired_at=NOW + 2500)
    third = discovery.documents(ring_.at(NOW + 3000))
    assert third.jwks == first.jwks
    assert of(third.spiffe_bundle.body)["spiffe_sequence"] == NOW + 2500


def test_an_etag_names_the_bytes(ring: tuple[KeyRing, States]) -> None:
    document = documents(ring[0]).jwks
    assert document.etag == f'"{hashlib.sha256(document.body).hexdigest()[:32]}"'


def test_replicas_publish_the_same_bytes(ring: tuple[KeyRing, States], tmp_path: Path) -> None:
    other = KeyRing(tmp_path / "keys", trust_domain=TRUST_DOMAIN, read_states=ring[1].read)
    assert documents(other, NOW + 5) == documents(ring[0])
