"""Whom does this machine's trust domain trust now, and does what we hold still rest on that?

The bundle as the service publishes it (SPIFFE Trust Domain and Bundle, section 4). It replaces the one before
whole; entries of other uses are passed over.
"""

import json
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from attestd.agent.delivery.deliver import authorities, pem
from attestd.agent.errors import Unreachable, plain
from attestd.agent.holdings import Bundle, Held
from attestd.agent.transport import Server
from attestd.spiffe import trust_domain_of

BUNDLE_PATH = "/.well-known/spiffe/bundle"
_LARGEST = 2**53


def fetch_bundle(server: Server, joined: str | None) -> tuple[Bundle, int | None]:
    """The bundle that is published now, and how often to look, in seconds, if it says. Refusal, or
    Unreachable, also for what is no bundle of one trust domain: of `joined`, which this machine is of (None:
    of none yet)."""
    bundle, hint = read_bundle(server.get(BUNDLE_PATH))
    check_domain(bundle, joined, url=server.url)
    return bundle, hint


def check_domain(bundle: Bundle, joined: str | None, *, url: str) -> None:
    """Unreachable where the service has become another trust domain's than the one that was joined."""
    if joined is not None and bundle.trust_domain != joined:
        raise Unreachable(
            f"{url} is of the trust domain {plain(bundle.trust_domain)} now, this machine of {joined}; "
            "if that is meant, stop the agent, remove its state directory and join anew"
        )


def read_bundle(document: Mapping[str, Any]) -> tuple[Bundle, int | None]:
    """Errors as for `fetch_bundle`."""
    try:
        roots = authorities(document)
        bundle = Bundle(
            _trust_domain(roots),
            _number(document, "spiffe_sequence") or 0,
            tuple(root.public_bytes(Encoding.DER) for root in roots),
            _key_set(document, "jwt-svid"),
            _key_set(document, "wit-svid"),
        )
        return bundle, _number(document, "spiffe_refresh_hint")
    except Exception as error:  # The parsers raise more than they document, and the sender chooses what.
        why = plain(error)
        raise Unreachable(f"the server's bundle cannot be read ({why}); is it attestd?") from None


def bundle_pem(bundle: Bundle) -> bytes:
    """The X.509 authorities, as files have them."""
    return pem(x509.load_der_x509_certificate(each) for each in bundle.authorities)


def signed_within(bundle: Bundle, chain: tuple[bytes, ...], *, now: int) -> bool:
    """Does an X.509-SVID (DER, leaf first) lead to an authority of this bundle, at this time (ms)?"""
    leaf, *others = (x509.load_der_x509_certificate(each) for each in chain)
    roots = [x509.load_der_x509_certificate(each) for each in bundle.authorities]
    moment = datetime.fromtimestamp(now / 1000, UTC)
    try:
        PolicyBuilder().store(Store(roots)).time(moment).build_client_verifier().verify(leaf, others)
    except VerificationError:
        return False
    return True


@lru_cache(maxsize=8)
def key_ids(key_set: str) -> frozenset[str]:
    """The names of the keys of a JWK Set."""
    return frozenset(key["kid"] for key in json.loads(key_set)["keys"])


def header_of(token: str) -> Mapping[str, Any]:
    """The header of a compact JWS; ValueError if it has none."""
    return _part(token, 0)


def claims_of(token: str) -> Mapping[str, Any]:
    """Its claims, not verified; ValueError if it has none."""
    return _part(token, 1)


def orphaned(held: Iterable[Held], bundle: Bundle, *, now: int) -> bool:
    """Has a key been retired that something we hold and may still use was signed with?"""
    return any(_orphaned(each.at(now), bundle, now=now) for each in held)


def _orphaned(held: Held, bundle: Bundle, *, now: int) -> bool:
    return (
        (held.x509 is not None and not signed_within(bundle, held.x509.chain, now=now))
        or (held.wit is not None and header_of(held.wit.text)["kid"] not in key_ids(bundle.wit_keys))
        or (held.jwt is not None and header_of(held.jwt.text)["kid"] not in key_ids(bundle.jwt_keys))
    )


def _trust_domain(roots: tuple[x509.Certificate, ...]) -> str:
    """Of which all authorities are; ValueError for several or none."""
    names = set()
    for root in roots:
        told = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names |= {trust_domain_of(uri) for uri in told.get_values_for_type(x509.UniformResourceIdentifier)}
    if len(names) != 1:
        raise ValueError("the authorities of one trust domain were expected")
    return names.pop()


def _key_set(document: Mapping[str, Any], use: str) -> str:
    keys = [key for key in document["keys"] if key.get("use") == use]
    if not all(isinstance(key["kid"], str) and isinstance(key["kty"], str) for key in keys):
        raise ValueError("a key without a name")
    return json.dumps({"keys": keys}, separators=(",", ":"))


def _number(document: Mapping[str, Any], name: str) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise ValueError(f"{name} is no number")
    return value


def _part(token: str, number: int) -> Mapping[str, Any]:
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("no compact token")
    members = json.loads(urlsafe_b64decode(parts[number] + "=" * (-len(parts[number]) % 4)))
    if not isinstance(members, dict):
        raise ValueError("a token of another shape")
    return members
