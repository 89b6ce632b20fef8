"""Is what the service gave what we asked for, and may we hand it on?

Read strictly, because a workload that gets it reads it no further: for our identity, under our key, from an
authority of our trust domain, of a life that makes sense by this machine's clock. The service signs, but
neither service nor agent takes the other's word.
"""

from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from attestd.agent.attest import Part
from attestd.agent.delivery.deliver import compact, files_of, line, token_line
from attestd.agent.errors import Unreachable, plain
from attestd.agent.holdings import Bundle, Held, JwtSvid, WitSvid, X509Svid
from attestd.agent.keys import CredentialKey, members_of, private_der, private_jwk, public_members
from attestd.agent.running.bundle import bundle_pem, claims_of, header_of, key_ids, signed_within
from attestd.agent.settings import Workload
from attestd.spiffe import trust_domain_of, validate_workload_id

LONGEST_MS = 8 * 24 * 3_600_000
"""A credential that is to live longer is not believed; the service's own limit is a week."""
CLOCK_MS = 5 * 60_000
"""How far this machine's clock may be behind the service's."""


class OffClock(Unreachable):
    """What was given is not valid by this machine's clock."""


def read_part(part: Part, workload: Workload, bundle: Bundle, *, result: object, now: int) -> Held:
    """What one workload was given, to be held. Unreachable for anything that is not what was asked for,
    OffClock where only the times do not fit."""
    try:
        told = {each["format"]: each for each in part.credentials}
        if "client-attestation" in told:
            _check_attestation(part, told["client-attestation"], bundle, now=now)
        return Held(
            workload,
            now,
            _x509(part, told["x509-svid"], bundle, now=now) if "x509-svid" in told else None,
            _wit(part, told["wit-svid"], bundle, now=now) if "wit-svid" in told else None,
            read_jwt(told["jwt-svid"], workload.audiences, bundle, now=now) if "jwt-svid" in told else None,
            {"result.jwt": token_line(result), "bundle.pem": bundle_pem(bundle), **files_of(part)},
        )
    except OffClock:
        raise
    except Exception as error:  # The parsers raise more than they document, and the sender chooses what.
        raise not_ours(error) from None


def read_jwt(told: Mapping[str, Any], audiences: tuple[str, ...], bundle: Bundle, *, now: int) -> JwtSvid:
    """A JWT-SVID for exactly these audiences; LookupError, TypeError or ValueError for another, OffClock."""
    text, identity = compact(told["token"]), _identity(told, bundle)
    claims = claims_of(text)
    heard = claims["aud"]
    if set([heard] if isinstance(heard, str) else heard) != set(audiences):
        raise ValueError("a token for others than were named")
    if claims["sub"] != identity or header_of(text)["kid"] not in key_ids(bundle.jwt_keys):
        raise ValueError("a token of another identity or key")
    return JwtSvid(identity, text, audiences, _end_of(claims, now))


def not_ours(error: Exception) -> Unreachable:
    return Unreachable(
        f"the server's answer cannot be used ({plain(error)}); is it attestd, in this version?"
    )


def _x509(part: Part, told: Mapping[str, Any], bundle: Bundle, *, now: int) -> X509Svid:
    key, identity = _key(part), _identity(told, bundle)
    certificates = x509.load_pem_x509_certificates(line(told["certificate_chain"]))
    leaf = certificates[0]
    # 1. It names one identity, and that one.
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if names.get_values_for_type(x509.UniformResourceIdentifier) != [identity]:
        raise ValueError("a certificate of another identity")
    # 2. Its key is ours.
    public, ours = leaf.public_key(), public_members(key)
    if not isinstance(public, ec.EllipticCurvePublicKey) or members_of(public) != ours:
        raise ValueError("a certificate for another key")
    # 3. Its times make sense here.
    begins, ends = (
        int(time.timestamp() * 1000) for time in (leaf.not_valid_before_utc, leaf.not_valid_after_utc)
    )
    _check_times(begins, ends, now)
    # 4. An authority of the trust domain has signed it.
    chain = tuple(each.public_bytes(Encoding.DER) for each in certificates)
    if not signed_within(bundle, chain, now=max(now, begins)):
        raise ValueError("a certificate that no authority of the bundle has signed")
    return X509Svid(identity, chain, private_der(key), ends)


def _wit(part: Part, told: Mapping[str, Any], bundle: Bundle, *, now: int) -> WitSvid:
    key, text, identity = _key(part), compact(told["token"]), _identity(told, bundle)
    claims, ours = claims_of(text), public_members(key)
    bound = claims["cnf"]["jwk"]
    if claims["sub"] != identity or header_of(text)["kid"] not in key_ids(bundle.wit_keys):
        raise ValueError("a token of another identity or key")
    if (bound["x"], bound["y"]) != (ours["x"], ours["y"]):
        raise ValueError("a token for another key")
    return WitSvid(identity, text, private_jwk(key), _end_of(claims, now))


def _check_attestation(part: Part, told: Mapping[str, Any], bundle: Bundle, *, now: int) -> None:
    """It is delivered as a file and held nowhere. By which key it is signed, the bundle does not tell."""
    claims, ours = claims_of(compact(told["token"])), public_members(_key(part))
    bound = claims["cnf"]["jwk"]
    if claims["sub"] != _identity(told, bundle):
        raise ValueError("a client attestation of another identity")
    if (bound["x"], bound["y"]) != (ours["x"], ours["y"]):
        raise ValueError("a client attestation for another key")
    _end_of(claims, now)


def _identity(told: Mapping[str, Any], bundle: Bundle) -> str:
    identity = told["spiffe_id"]
    validate_workload_id(identity)
    if trust_domain_of(identity) != bundle.trust_domain:
        raise ValueError("an identity of another trust domain")
    return str(identity)


def _key(part: Part) -> CredentialKey:
    if part.key is None:
        raise ValueError("a credential without a key")
    return part.key


def _end_of(claims: Mapping[str, Any], now: int) -> int:
    begins, ends = claims.get("iat", now // 1000), claims["exp"]
    if type(ends) is not int or type(begins) is not int:
        raise ValueError("a token without an end")
    _check_times(begins * 1000, ends * 1000, now)
    return ends * 1000


def _check_times(begins: int, ends: int, now: int) -> None:
    """ValueError for a life that nobody gives, OffClock for one that is not now."""
    if not 0 < ends - begins <= LONGEST_MS:
        raise ValueError("a credential of no sensible life")
    if not begins - CLOCK_MS <= now < ends:
        off = (begins - now if now < begins else now - begins) // 1000
        way = "behind" if now < begins else "ahead of"
        raise OffClock(f"this machine's clock is {off} seconds {way} the service's; set it")
