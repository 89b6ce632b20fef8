"""How does a request show that it comes from whoever holds the key?

A token of the request's own, signed by the key: a DPoP proof (RFC 9449, section 4.2), or a Workload Proof
Token (draft-ietf-wimse-wpt, section 2). Each is for one method or one address, once, for a minute.
"""

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from secrets import token_bytes
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

LIFETIME_SECONDS = 60
"""Of a Workload Proof Token, which names its end; a DPoP proof's is the server's choice."""
_JTI_BYTES = 16


class ProofKey(Protocol):
    """A P-256 key whose private half is somewhere else."""

    @property
    def jwk(self) -> Mapping[str, str]:
        """The public members (`kty`, `crv`, `x`, `y`) and no others."""

    def sign(self, message: bytes) -> bytes:
        """The signature value of JWS (r‖s)."""


def dpop_proof(
    key: ProofKey,
    method: str,
    url: str,
    *,
    now: int,
    nonce: str | None = None,
    access_token: str | None = None,
) -> str:
    """The value of the header `DPoP`. `nonce` is what the server gave last; `access_token` goes beside it."""
    claims: dict[str, Any] = {"jti": _jti(), "htm": method, "htu": target(url), "iat": now // 1000}
    if nonce is not None:
        claims["nonce"] = nonce
    if access_token is not None:
        claims["ath"] = token_hash(access_token)
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": dict(key.jwk)}
    return _signed(key, header, claims)


def workload_proof(
    key: ProofKey,
    wit: str,
    url: str,
    *,
    now: int,
    access_token: str | None = None,
    others: Mapping[str, str] | None = None,
) -> str:
    """The value of the header `Workload-Proof-Token` beside this WIT, by the WIT's key.

    `access_token` is what `Authorization` carries; `others` are the values of further headers that say who
    somebody is, by their lower-case names: what is not covered must not count.
    """
    claims: dict[str, Any] = {
        "aud": target(url),
        "exp": now // 1000 + LIFETIME_SECONDS,
        "jti": _jti(),
        "wth": token_hash(wit),
    }
    if access_token is not None:
        claims["ath"] = token_hash(access_token)
    if others:
        claims["oth"] = {name: token_hash(value.strip(" \t")) for name, value in others.items()}
    return _signed(key, {"typ": "wpt+jwt", "alg": "ES256"}, claims)


def nonce_of(proof: str) -> str | None:
    """The nonce in a proof of ours."""
    part = proof.split(".")[1]
    nonce = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4))).get("nonce")
    return None if nonce is None else str(nonce)


def target(url: str) -> str:
    """The URL without query, fragment and user: `htu`, and what a Workload Proof Token is for. ValueError for
    what is no absolute URL."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    if not parts.scheme or not host:
        raise ValueError("a proof is for an absolute URL")
    return urlunsplit((parts.scheme, host, parts.path or "/", "", ""))


def token_hash(token: str) -> str:
    """`ath`, `wth` and their like: SHA-256 of the ASCII text, base64url."""
    return _base64url(hashlib.sha256(token.encode("ascii")).digest())


def _signed(key: ProofKey, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """A compact JWS (RFC 7515, section 7.1)."""
    parts = (json.dumps(part, separators=(",", ":")).encode() for part in (header, claims))
    message = ".".join(map(_base64url, parts))
    return f"{message}.{_base64url(key.sign(message.encode()))}"


def _jti() -> str:
    return _base64url(token_bytes(_JTI_BYTES))


def _base64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
