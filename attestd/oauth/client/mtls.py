"""Is the TLS peer an agent of ours? Client authentication by X.509-SVID.

`tls_client_auth` of RFC 8705, section 2.1, as draft-ietf-oauth-spiffe-client-auth, section 3.2 has it: the
certificate's one URI SAN is the client. It comes from the TLS layer alone; a header never gives one.
"""

import hashlib
from datetime import UTC, datetime
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from attestd.issue.jwk import base64url, public_jwk, thumbprint
from attestd.issue.keys import Keys
from attestd.oauth.client.client import Client, Confirmation
from attestd.oauth.client.registration import (
    ProvenCredential,
    check_client_id,
    recognise,
    refusal,
    refusing,
)
from attestd.oauth.errors import TokenError
from attestd.oauth.request import Request
from attestd.service import Service
from attestd.spiffe import validate_workload_id
from tpm.errors import StructureError

METHOD: Final = "tls_client_auth"
MAX_SIZE = 16 * 1024

# What a leaf of ours has; a certificate that demands more of its reader is none.
_UNDERSTOOD = frozenset(
    {x509.BasicConstraints.oid, x509.KeyUsage.oid, x509.ExtendedKeyUsage.oid, x509.SubjectAlternativeName.oid}
)
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)

Extension = TypeVar("Extension", bound=x509.ExtensionType)


def authenticate(service: Service, request: Request) -> Client:
    """The client that the peer's certificate names; OAuthError `invalid_client` otherwise."""
    if request.certificate is None:
        raise refusal("certificate_missing", "The TLS peer has shown no certificate.")
    with refusing("svid"):
        proven = prove(request.certificate, service.keyring.at(request.now), now=request.now)
    # RFC 8705, section 2: the request names its client, and it is the certificate's.
    check_client_id(request, proven.client_id, required=True)
    return recognise(service, proven, now=request.now)


def prove(der: bytes, keys: Keys, *, now: int) -> ProvenCredential:
    """The X.509-SVID of the TLS peer; TokenError when it is none of ours."""
    certificate = _parse(der)
    return ProvenCredential(
        method=METHOD,
        credential_id=f"{certificate.serial_number:040x}",
        format="x509-svid",
        client_id=verify_svid(certificate, keys, now=now),
        thumbprint=_key_thumbprint(certificate),
        confirmation=Confirmation("x5t#S256", certificate_thumbprint(der)),
    )


def certificate_thumbprint(der: bytes) -> str:
    """`x5t#S256` (RFC 8705, section 3.1): of the whole certificate, not of its key."""
    return base64url(hashlib.sha256(der).digest())


def verify_svid(certificate: x509.Certificate, keys: Keys, *, now: int) -> str:
    """The SPIFFE ID of a leaf of ours (X509-SVID standard, sections 4 and 5); TokenError otherwise.

    That the peer holds its key was proven by the TLS handshake. Whether it was ended is in the store.
    """
    # 1. A CA of ours that is still published signed it: never the system's roots, and never one of our
    #    leaves, for a leaf is no CA, whatever chain is shown beside it.
    if not any(_signed_by(certificate, authority) for authority in _authorities(keys)):
        raise TokenError("issuer", "the certificate is signed by the CA of this trust domain itself")
    # 2. It is valid now.
    moment = datetime.fromtimestamp(now / 1000, UTC)
    if not certificate.not_valid_before_utc <= moment < certificate.not_valid_after_utc:
        raise TokenError("expired", "the certificate is not valid now")
    # 3. It is a leaf, for signatures and for clients, and demands nothing that we do not know.
    _check_leaf(certificate)
    # 4. It names exactly one workload.
    names = _extension(certificate, x509.SubjectAlternativeName)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise TokenError("uri_san", "the certificate has exactly one URI SAN")
    try:
        validate_workload_id(uris[0])
    except ValueError:
        raise TokenError("uri_san", "the URI SAN is a workload's SPIFFE ID") from None
    return str(uris[0])


def _authorities(keys: Keys) -> list[x509.Certificate]:
    return [signer.authority.certificate for signer in keys.published("x509") if signer.authority is not None]


def _signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _check_leaf(certificate: x509.Certificate) -> None:
    if _extension(certificate, x509.BasicConstraints).ca:
        raise TokenError("ca", "the certificate is a leaf (CA:FALSE)")
    usage = _extension(certificate, x509.KeyUsage)
    if not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        raise TokenError("key_usage", "the key signs data, and no certificates or revocation lists")
    if ExtendedKeyUsageOID.CLIENT_AUTH not in _extension(certificate, x509.ExtendedKeyUsage):
        raise TokenError("extended_key_usage", "the certificate is for TLS clients")
    if any(each.critical and each.oid not in _UNDERSTOOD for each in _extensions(certificate)):
        raise TokenError("critical", "the certificate has no critical extensions that are unknown here")


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension:
    try:
        return _extensions(certificate).get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        raise TokenError("profile", f"the certificate has {kind.oid.dotted_string}") from None


def _extensions(certificate: x509.Certificate) -> x509.Extensions:
    try:
        return certificate.extensions
    except (*_UNREADABLE, x509.DuplicateExtension):
        raise TokenError("profile", "the extensions of the certificate can be read") from None


def _parse(der: bytes) -> x509.Certificate:
    if len(der) > MAX_SIZE:
        raise TokenError("oversized", f"a certificate has at most {MAX_SIZE} bytes")
    try:
        return x509.load_der_x509_certificate(der)
    except _UNREADABLE:
        raise TokenError("profile", "the certificate can be read") from None


def _key_thumbprint(certificate: x509.Certificate) -> str:
    try:
        key = certificate.public_key()
    except _UNREADABLE:
        raise TokenError("bad_key", "the certificate has a key that can be used") from None
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise TokenError("bad_key", "the certificate has an EC or RSA key")
    try:
        return thumbprint(public_jwk(key))
    except StructureError as error:
        raise TokenError("bad_key", error.detail) from None
