"""Do relying parties accept our X.509-SVIDs, and can the holder do nothing else with them?"""

import json
import secrets
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from spiffe.svid.errors import InvalidIntermediateCertificateError, InvalidLeafCertificateError
from spiffe.svid.x509_svid import X509Svid

from attestd.issue import x509_svid
from attestd.issue.authority import create_authority, read_authority, serial_number
from attestd.issue.jwk import BoundKey, from_public_key
from attestd.issue.signer import Signer
from attestd.issue.statement import Basis
from tests.attestd.issue.material import MINUTE, NOW, SPIFFE_ID, device_key, new_keys, statement
from tpm.errors import EvidenceError, PolicyError

VECTORS = Path(__file__).parents[2] / "vectors" / "spiffe" / "py-x509svid"
PKCS8 = (PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return new_keys(tmp_path_factory.mktemp("ca") / "keys").signer("x509")


def certificate_of(ca: Signer) -> x509.Certificate:
    assert ca.authority is not None
    return ca.authority.certificate


def issued(ca: Signer, key: BoundKey | None = None, **changes: Any) -> x509.Certificate:
    svid = x509_svid.issue(ca, statement(**changes), key=key or device_key()[1], serial=new_serial())
    return x509.load_pem_x509_certificate(svid.certificate_chain.encode())


def new_serial() -> int:
    return serial_number(secrets.token_bytes(20))


def openssl_verify(
    root: x509.Certificate, leaf: x509.Certificate, *between: x509.Certificate, at: int = NOW
) -> bool:
    """Does `openssl verify` accept this chain of a client?"""
    with TemporaryDirectory() as folder:
        command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-attime", str(at // 1000)]
        for option, certificates in (("-trusted", [root]), ("-untrusted", between), ("", [leaf])):
            if certificates:
                path = Path(folder, f"file{option}.pem")
                path.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in certificates))
                command += [option, str(path)] if option else [str(path)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


def path_check(
    root: x509.Certificate, leaf: x509.Certificate, *between: x509.Certificate, at: int = NOW
) -> list[Any]:
    moment = datetime.fromtimestamp(at / 1000, UTC)
    verifier = PolicyBuilder().store(Store([root])).time(moment).build_client_verifier()
    return list(verifier.verify(leaf, list(between)).subjects or [])


@pytest.mark.parametrize("kind", ["ES256", "ES384", "PS256"])
def test_the_spiffe_package_accepts_an_svid(ca: Signer, kind: str) -> None:
    private_key, key = device_key(kind) if kind != "PS256" else rsa_key()
    svid = x509_svid.issue(ca, statement(), key=key, serial=new_serial())
    pem = private_key.private_bytes(Encoding.PEM, *PKCS8)
    read = X509Svid.parse(svid.certificate_chain.encode(), pem)
    assert str(read.spiffe_id) == SPIFFE_ID
    assert read.leaf.public_key() == private_key.public_key()
    assert len(read.cert_chain) == 1


def rsa_key() -> tuple[rsa.RSAPrivateKey, BoundKey]:
    private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return private_key, from_public_key(private_key.public_key(), alg="PS256")


def test_the_chain_holds_for_cryptography_and_openssl(ca: Signer) -> None:
    leaf = issued(ca)
    assert [subject.value for subject in path_check(certificate_of(ca), leaf)] == [SPIFFE_ID]
    assert openssl_verify(certificate_of(ca), leaf)


def test_the_chain_holds_for_nobody_elses_ca_and_not_after_its_end(ca: Signer, tmp_path: Path) -> None:
    leaf, other = issued(ca), new_keys(tmp_path / "other").signer("x509")
    for root, at in ((certificate_of(other), NOW), (certificate_of(ca), NOW + 11 * MINUTE)):
        assert not openssl_verify(root, leaf, at=at)
        with pytest.raises(VerificationError):
            path_check(root, leaf, at=at)


def test_a_leaf_has_what_the_standard_demands_and_no_more(ca: Signer) -> None:
    leaf = issued(ca)
    extensions = {extension.oid: extension for extension in leaf.extensions}
    assert len(extensions) == 7
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(names.value) == [x509.UniformResourceIdentifier(SPIFFE_ID)]
    assert names.critical
    assert leaf.subject == x509.Name([])
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not any((usage.value.key_cert_sign, usage.value.crl_sign, usage.value.key_encipherment))
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    issuer = certificate_of(ca).extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert authority.key_identifier == issuer.digest
    own = leaf.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert own == x509.SubjectKeyIdentifier.from_public_key(leaf.public_key())


def test_a_leaf_lives_from_a_little_before_its_issue_to_its_end(ca: Signer) -> None:
    leaf, said = issued(ca), statement()
    assert leaf.not_valid_after_utc == datetime.fromtimestamp(said.expires_at / 1000, UTC)
    assert leaf.not_valid_before_utc == datetime.fromtimestamp(NOW // 1000, UTC) - timedelta(seconds=30)


def test_a_leaf_is_not_older_than_its_issuer(tmp_path: Path) -> None:
    """The CA was made in the same second; 30 seconds earlier it was not yet valid itself."""
    ca = new_keys(tmp_path / "keys").signer("x509")
    assert issued(ca).not_valid_before_utc == certificate_of(ca).not_valid_before_utc


@pytest.mark.parametrize("assurance", ["ek_verified", "allow_listed", "first_use", "emulated"])
def test_a_leaf_carries_the_assurance_where_it_disturbs_nobody(ca: Signer, assurance: Any) -> None:
    basis = Basis("attestation-1", "edge-gateway@3", assurance)
    leaf = issued(ca, basis=basis)
    assert x509_svid.read_basis(leaf) == basis.claim()
    assert not leaf.extensions.get_extension_for_oid(x509_svid.BASIS_OID).critical
    # Parsers that keep an arc in 31 bits refuse the whole certificate for a longer one.
    assert all(int(arc) < 2**31 for arc in x509_svid.BASIS_OID.dotted_string.split("."))
    assert x509_svid.read_basis(certificate_of(ca)) is None


def test_mt_5_no_leaf_outlives_its_ca(ca: Signer) -> None:
    assert ca.authority is not None
    end = ca.authority.not_after
    assert (
        issued(ca, issued_at=end - MINUTE, expires_at=end).not_valid_after_utc
        == certificate_of(ca).not_valid_after_utc
    )
    wrong: list[dict[str, Any]] = [
        {"issued_at": end - MINUTE, "expires_at": end + 1000},
        {"issued_at": NOW - MINUTE},
    ]
    for changes in wrong:
        with pytest.raises(PolicyError) as caught:
            issued(ca, **changes)
        assert caught.value.reason == "issuer_expired"


def test_mt_3_the_cas_own_key_is_refused(ca: Signer) -> None:
    with pytest.raises(EvidenceError) as caught:
        issued(ca, from_public_key(ca.public, alg="ES256"))
    assert caught.value.reason == "key_reuse"


def test_a_ca_speaks_of_its_own_trust_domain_only(ca: Signer) -> None:
    with pytest.raises(PolicyError) as caught:
        issued(ca, spiffe_id="spiffe://other.example/agent/telemetry")
    assert caught.value.reason == "trust_domain"


def test_a_key_that_is_no_authority_signs_no_certificate(tmp_path: Path) -> None:
    keys = new_keys(tmp_path / "keys")
    with pytest.raises(PolicyError) as caught:
        issued(keys.signer("wit"))
    assert caught.value.reason == "no_authority"


def test_mt_6_a_million_serials_are_different_positive_and_at_most_20_octets() -> None:
    serials = {new_serial() for _ in range(1_000_000)}
    assert len(serials) == 1_000_000
    assert all(0 < serial < 2**159 for serial in serials)
    # Every one of the 159 bits is random: each is set in about half of them.
    some = list(serials)[:10_000]
    assert all(4_500 < sum(serial >> bit & 1 for serial in some) < 5_500 for bit in range(159))


@pytest.mark.parametrize("entropy", [b"", bytes(20), b"\x01" * 8, b"\x01" * 19, b"\x01" * 21])
def test_mt_6_a_serial_is_made_of_20_random_bytes(entropy: bytes) -> None:
    with pytest.raises(ValueError, match="20"):
        serial_number(entropy)


def test_mt_12_what_a_leaf_signs_is_believed_by_nobody(ca: Signer) -> None:
    private_key, key = device_key()
    leaf = issued(ca, key)
    below = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(leaf.subject)
        .public_key(device_key()[1].public)
        .serial_number(1)
        .not_valid_before(leaf.not_valid_before_utc)
        .not_valid_after(leaf.not_valid_after_utc)
    )
    for extension in leaf.extensions:
        below = below.add_extension(extension.value, extension.critical)
    forged = below.sign(private_key, hashes.SHA256())
    with pytest.raises(VerificationError):
        path_check(certificate_of(ca), forged, leaf)
    assert not openssl_verify(certificate_of(ca), forged, leaf)


def test_the_authority_is_the_root_of_one_trust_domain(ca: Signer) -> None:
    root = certificate_of(ca)
    assert read_authority(root).trust_domain == "example.org"
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign) == (True, True, True)
    assert not usage.value.digital_signature


@pytest.mark.parametrize("trust_domain", ["", "Example.org", "example.org/path", "a" * 256])
def test_an_authority_of_no_trust_domain_is_not_made(trust_domain: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(ValueError, match="trust domain"):
        create_authority(key, trust_domain=trust_domain, kid="k", serial=1, now=NOW)


@pytest.mark.parametrize(
    ("uris", "accepted"),
    [
        (["spiffe://example.org"], True),
        (["spiffe://example.org/ca"], False),
        (["spiffe://example.org/"], False),
        (["spiffe://Example.org"], False),
        (["spiffe://example.org", "spiffe://other.example"], False),
        (["https://example.org"], False),
        ([], False),
    ],
)
def test_an_authority_names_one_trust_domain_and_no_path(uris: list[str], accepted: bool) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    whole = create_authority(key, trust_domain="example.org", kid="k", serial=1, now=NOW)
    builder = (
        x509.CertificateBuilder()
        .subject_name(whole.subject)
        .issuer_name(whole.issuer)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(whole.not_valid_before_utc)
        .not_valid_after(whole.not_valid_after_utc)
    )
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
    for extension in whole.extensions:
        given = isinstance(extension.value, x509.SubjectAlternativeName)
        value = (
            x509.SubjectAlternativeName(names or [x509.DNSName("example.org")]) if given else extension.value
        )
        builder = builder.add_extension(value, extension.critical)
    certificate = builder.sign(key, hashes.SHA256())
    if accepted:
        assert read_authority(certificate).trust_domain == "example.org"
        return
    with pytest.raises(PolicyError) as caught:
        read_authority(certificate)
    assert caught.value.reason == "ca_certificate"


def test_a_leaf_is_no_authority(ca: Signer) -> None:
    with pytest.raises(PolicyError) as caught:
        read_authority(issued(ca))
    assert caught.value.reason == "ca_certificate"


CASES = json.loads((VECTORS / "expected.json").read_text())["expected"]["cases"]


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("wrong-")])
def test_the_judge_of_these_tests_refuses_wrong_svids(name: str) -> None:
    key = (VECTORS / "3-key-pkcs8-rsa.pem").read_bytes()
    with pytest.raises((InvalidLeafCertificateError, InvalidIntermediateCertificateError)):
        X509Svid.parse((VECTORS / name).read_bytes(), key)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("wrong-intermediate-")])
def test_an_authority_that_may_not_sign_is_refused(name: str) -> None:
    certificates = x509.load_pem_x509_certificates((VECTORS / name).read_bytes())
    with pytest.raises(PolicyError) as caught:
        read_authority(certificates[1])
    assert caught.value.reason == "ca_certificate"
