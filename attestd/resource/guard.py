"""Is this request an attested agent's?

    guard = Guard(
        issuer="https://attestd.example.org",
        audience="https://tools.example.org",
        introspection=ByKey("https://tools.example.org", Path("tools.pem")),
    )
    caller = guard.check(request, "ledger.read")

read       1  one Authorization header, at most one proof             400, 401
verify     2  an access token of the issuer, for this resource        401
bind       3  the sender holds the key or certificate it is bound to  401
spend      4  the proof is new                                        401
ask        5  the issuer says that it is still good                   401, 503
allow      6  it has the scopes that are needed                       403
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from attestd.resource.caller import Caller, Denied, Headers, Refused, Request
from attestd.resource.credentials import PATH, Credentials
from attestd.resource.introspection import Introspection
from attestd.resource.keys import PATH as JWKS_PATH
from attestd.resource.keys import IssuerKeys
from attestd.resource.metadata import Described
from attestd.resource.nonce import HEADER, Nonces
from attestd.resource.peer import Peer, tls_context
from attestd.resource.proof import Expected, check_certificate, check_proof
from attestd.resource.replay import MemoryReplays, Replays
from attestd.resource.token import Token, read_token
from attestd.resource.uri import origin, require_safe

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1


@dataclass(frozen=True, kw_only=True, eq=False)
class Guard:
    """Everything that one protected resource needs to know. Shared by all threads; made once, at the start:
    ValueError or OSError say what of it cannot be used."""

    issuer: str
    """attestd's `external_url`, compared whole."""
    audience: str
    """This resource's identifier, as policies and the issuer's `[[resource]]` have it."""
    introspection: Credentials
    url: str | None = None
    """The external URL of what the application's server takes for `/`; proofs are compared with it and never
    with a header. Where it is left out: scheme, host and port of `audience`."""
    check_every: float = 1.0
    """Seconds for which the issuer's last answer about a token is believed; 0 asks at each request."""
    proof_window: int = 60
    """Seconds that a proof's `iat` may lie from now, on either side."""
    scopes: Sequence[str] = ()
    """All that the resource knows, for its metadata."""
    bearer: bool = False
    """Whether tokens are accepted that are bound to nothing."""
    certificates: bool = False
    """Whether the application's server shows client certificates, so that tokens may be bound to them."""
    nonce_key: bytes | None = field(default=None, repr=False)
    """At least 32 random bytes, the same in every process: proofs then need a nonce of ours."""
    replays: Replays = field(default_factory=MemoryReplays)
    """Several processes share a `DirectoryReplays`."""
    reached_at: str | None = None
    """Where the issuer is reached from here, if not at its own URL: an address inside, a proxy."""
    ca_file: Path | None = None
    """Who vouches for the issuer's TLS certificate, where it is not one of the system's authorities."""
    timeout: float = 2.0
    """Seconds that the issuer has to answer."""
    name: str | None = None
    clock: Callable[[], float] = time.time
    _base: str = field(init=False, repr=False)
    _keys: IssuerKeys = field(init=False, repr=False)
    _issuer_says: Introspection = field(init=False, repr=False)
    _nonces: Nonces | None = field(init=False, repr=False)
    _described: Described = field(init=False, repr=False)

    def __post_init__(self) -> None:
        prove = self.introspection
        require_safe(self.issuer, what="the issuer")
        base = (self.reached_at or self.issuer).rstrip("/")
        jwks = Peer(base + JWKS_PATH, seconds=self.timeout, context=lambda: tls_context(self.ca_file))
        asked = Peer(
            prove.endpoint or base + PATH, seconds=self.timeout, context=lambda: prove.context(self.ca_file)
        )

        def ask(token: str) -> bytes:
            return asked.post(
                lambda: {
                    "token": token,
                    "token_type_hint": "access_token",
                    **prove.parameters(self.issuer, now=self.clock()),
                }
            )

        found = {
            "_base": require_safe(self.url or origin(self.audience), what="the resource's URL").rstrip("/"),
            "_keys": IssuerKeys(jwks.get),
            "_issuer_says": Introspection(ask, every=self.check_every, clock=self.clock),
            "_nonces": None if self.nonce_key is None else Nonces(self.nonce_key),
            "_described": Described(
                audience=self.audience,
                issuer=self.issuer,
                scopes=self.scopes,
                bearer=self.bearer,
                certificates=self.certificates,
                name=self.name,
            ),
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def check(self, request: Request, *scopes: str) -> Caller:
        """The agent that calls, which has all of `scopes`; Denied otherwise. May wait for the issuer."""
        now = self.clock()
        try:
            scheme, text, proof = _read_headers(request.headers)  # 1
            token = self._read(text, now=now)  # 2
            self._check_binding(request, token, scheme=scheme, text=text, proof=proof)  # 3, 4
            self._issuer_says.require_active(text, token)  # 5
            if not token.caller.scopes.issuperset(scopes):  # 6
                raise Refused("insufficient_scope", "The access token lacks a scope that is needed here.")
        except Refused as refused:
            raise self._denied(refused, scopes) from None
        return token.caller

    def recheck(self, request: Request) -> None:
        """Denied when the token of a request that has passed is good no more: for answers that go on."""
        try:
            _, text, _ = _read_headers(request.headers)
            self._issuer_says.require_active(text, self._read(text, now=self.clock()))
        except Refused as refused:
            raise self._denied(refused, ()) from None

    def response_headers(self) -> Headers:
        """What goes with every answer: the nonce of the next proof."""
        return () if self._nonces is None else ((HEADER, self._nonces.issue(now=self.clock())),)

    @property
    def metadata_path(self) -> str | None:
        """Where `metadata` is to be found on this host; None where `audience` is no URL."""
        return self._described.path

    def metadata(self) -> dict[str, Any]:
        """RFC 9728, section 2."""
        return self._described.document()

    def metadata_body(self) -> bytes:
        """The same as it is sent."""
        return json.dumps(self.metadata()).encode()

    def _read(self, text: str, *, now: float) -> Token:
        return read_token(text, keys=self._keys, issuer=self.issuer, audience=self.audience, now=now)

    def _check_binding(
        self, request: Request, token: Token, *, scheme: str, text: str, proof: str | None
    ) -> None:
        match token.binding, scheme:
            case "jkt", "dpop":
                if proof is None:
                    raise Refused("invalid_dpop_proof", "The request has no DPoP proof.")
                expected = Expected(request.method, self._base + request.path, text, token.bound_to)
                now = self.clock()
                held = check_proof(proof, expected, window=self.proof_window, nonces=self._nonces, now=now)
                if not self.replays.spend(held.key, until=held.until, now=now):
                    raise Refused("invalid_dpop_proof", "The DPoP proof was used before; make a new one.")
            case "x5t#S256", "bearer":
                check_certificate(request.certificate, expected_x5t=token.bound_to)
            case "", "bearer" if self.bearer:
                pass
            case "", "bearer":
                raise Refused(
                    "invalid_token", "An access token that is bound to nothing is not accepted here."
                )
            case _:
                # RFC 9449, section 7.1: a bound token is no bearer token, and the other way round.
                raise Refused("invalid_token", "The access token is not one of the scheme that it came with.")

    def _denied(self, refused: Refused, scopes: Sequence[str]) -> Denied:
        if refused.error == "temporarily_unavailable":
            return Denied(refused, (("Retry-After", "1"),))
        error = None if refused.error == "unauthenticated" else refused.error
        challenges = self._described.challenges(error=error, detail=refused.detail, needed=scopes)
        return Denied(refused, challenges + self.response_headers())


def _read_headers(headers: Iterable[tuple[str, str]]) -> tuple[str, str, str | None]:
    """Scheme in lower case, token, and the proof where there is one. A server that joins two lines into one
    puts a comma between them, which neither a token nor a proof has."""
    found: dict[str, list[str]] = {"authorization": [], "dpop": []}
    for name, value in headers:
        if name.lower() in found:
            found[name.lower()].append(value.strip(" \t"))
    if not found["authorization"]:
        raise Refused("unauthenticated", "The request has no access token.")
    if len(found["authorization"]) > 1:
        raise Refused("invalid_request", "The request has several Authorization headers.")
    if len(found["dpop"]) > 1:
        raise Refused("invalid_dpop_proof", "The request has several DPoP proofs.")
    scheme, _, text = found["authorization"][0].partition(" ")
    if scheme.lower() not in ("dpop", "bearer"):
        raise Refused("unauthenticated", "The request has no access token of a scheme that is known here.")
    if _TOKEN.fullmatch(text) is None:
        raise Refused("invalid_request", "The Authorization header holds no access token.")
    return scheme.lower(), text, found["dpop"][0] if found["dpop"] else None
