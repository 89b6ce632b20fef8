"""How does a local program get its credentials from this machine's agent?

As a client of the socket: the SPIFFE Workload API, and the service beside it for access tokens. It needs
neither the TPM nor any right; who it is, the kernel tells the agent.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message
from grpclib.client import UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from h2.exceptions import H2Error

from attestd.agent.errors import Misconfigured, Refusal, Unreachable, plain
from attestd.agent.workload import messages, readings
from attestd.agent.workload.channel import PatientChannel
from attestd.agent.workload.messages import Call

TIMEOUT_SECONDS = 60.0
"""For one answer, behind which there may be an attestation; a stream's first answer comes as fast."""
_REFUSED = (Status.PERMISSION_DENIED, Status.INVALID_ARGUMENT, Status.UNIMPLEMENTED)
_BROKEN_OFF = (
    *(StreamTerminatedError, ProtocolError, H2Error, DecodeError, TimeoutError, AssertionError),
    # What the library raises where a connection is lost between two of its steps.
    AttributeError,
)
_WORD = re.compile(r"([a-z0-9_]{1,64}): (.*)", re.DOTALL)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class X509Given:
    """An X.509-SVID (DER, the leaf first) with its key (PKCS#8 DER), whom to trust (DER authorities of its
    trust domain), the operator's hint, and its end in milliseconds."""

    spiffe_id: str
    chain: tuple[bytes, ...]
    key: bytes = field(repr=False)
    authorities: tuple[bytes, ...]
    hint: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class WitGiven:
    """A WIT-SVID with its private JWK (JSON)."""

    spiffe_id: str
    text: str = field(repr=False)
    key: str = field(repr=False)
    hint: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class JwtGiven:
    """A bearer token for exactly these audiences."""

    spiffe_id: str
    text: str = field(repr=False)
    audiences: tuple[str, ...]
    hint: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class TokenGiven:
    """An access token that works with proofs only; `expires_in` in seconds."""

    text: str = field(repr=False)
    token_type: str
    expires_in: int
    scope: str


def socket_of(endpoint: str) -> Path:
    """The path in a value of SPIFFE_ENDPOINT_SOCKET (SPIFFE Workload Endpoint, section 4): `unix:///PATH` and
    nothing else. Misconfigured otherwise."""
    parts = urlsplit(endpoint)
    path = unquote(parts.path)
    extra = parts.netloc or "?" in endpoint or "#" in endpoint
    if parts.scheme != "unix" or extra or not path.startswith("/") or "\0" in path:
        raise Misconfigured(
            f'the endpoint is "{plain(endpoint)}"; an agent is asked at a socket of this machine, written as '
            "unix:///run/attestd-agent/workload.sock"
        )
    return Path(path)


class WorkloadClient:
    """One connection to the agent's socket, made when it is first needed. Refusal where the agent says no,
    Unreachable where it is not there, has nothing yet or answers what cannot be read."""

    def __init__(self, path: Path, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self._path, self._timeout = path, timeout
        self._channel: PatientChannel | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def x509_svids(self) -> AsyncIterator[tuple[X509Given, ...]]:
        """All that this program has, again whenever something changes; the first is the default."""
        return self._stream(messages.FETCH_X509_SVID, _x509_given)

    async def x509_svid(self) -> X509Given:
        """The default as it is now."""
        return (await _first(self.x509_svids()))[0]

    def wit_svids(self, spiffe_id: str = "") -> AsyncIterator[tuple[WitGiven, ...]]:
        """All that this program has, or the one of this SPIFFE ID; again whenever something changes."""
        return self._stream(messages.FETCH_WIT_SVID, _wit_given, spiffe_id=spiffe_id)

    async def wit_svid(self, spiffe_id: str = "") -> WitGiven:
        """The default as it is now."""
        return (await _first(self.wit_svids(spiffe_id)))[0]

    async def jwt_svids(self, audiences: Sequence[str], spiffe_id: str = "") -> tuple[JwtGiven, ...]:
        """One for each identity of this program, for these audiences."""
        call, fields = messages.FETCH_JWT_SVID, {"audience": list(audiences), "spiffe_id": spiffe_id}
        return _read(_jwt_given, await self._once(call, **fields))

    async def jwt_svid(self, audiences: Sequence[str], spiffe_id: str = "") -> JwtGiven:
        """The default."""
        return (await self.jwt_svids(audiences, spiffe_id))[0]

    async def validate_jwt_svid(self, audience: str, svid: str) -> tuple[str, dict[str, Any]]:
        """Whose it is, and its claims; Refusal for one that does not hold for this audience."""
        told = await self._once(messages.VALIDATE_JWT_SVID, audience=audience, svid=svid)
        return _read(lambda answer: (answer.spiffe_id, MessageToDict(answer.claims)), told)

    def x509_bundles(self) -> AsyncIterator[dict[str, tuple[bytes, ...]]]:
        """DER authorities by the SPIFFE ID of their trust domain."""
        return self._stream(messages.FETCH_X509_BUNDLES, _x509_bundles)

    def jwt_bundles(self) -> AsyncIterator[dict[str, Any]]:
        """JWK Sets by the SPIFFE ID of their trust domain."""
        return self._stream(messages.FETCH_JWT_BUNDLES, _key_sets)

    def wit_bundles(self) -> AsyncIterator[dict[str, Any]]:
        """JWK Sets by the SPIFFE ID of their trust domain."""
        return self._stream(messages.FETCH_WIT_BUNDLES, _key_sets)

    async def access_token(
        self, agent: str, audience: str, scopes: Sequence[str] = (), subject_token: str | None = None
    ) -> TokenGiven:
        """A token for an agent that this program may be, bound to a key in the TPM; on behalf of the user
        whose token `subject_token` is."""
        told: Any = await self._once(
            messages.FETCH_ACCESS_TOKEN,
            agent=agent,
            audience=audience,
            scopes=list(scopes),
            subject_token=subject_token or "",
        )
        return TokenGiven(told.access_token, told.token_type, told.expires_in, told.scope)

    async def prove(
        self, agent: str, access_token: str, method: str, url: str, nonce: str | None = None
    ) -> str:
        """The DPoP proof for one request with a token that was given here (RFC 9449, section 4.2)."""
        told: Any = await self._once(
            messages.PROVE,
            agent=agent,
            access_token=access_token,
            method=method,
            url=url,
            nonce=nonce or "",
        )
        return str(told.dpop)

    async def _once(self, call: Call, **fields: Any) -> Message:
        method = UnaryUnaryMethod(self._connection(), call.path, call.request, call.response)
        with _translated(self._path):
            return await method(
                call.request(**fields), timeout=self._timeout, metadata=[messages.SECURITY_HEADER]
            )

    async def _stream(self, call: Call, read: Callable[[Any], _T], **fields: Any) -> AsyncIterator[_T]:
        method = UnaryStreamMethod(self._connection(), call.path, call.request, call.response)
        with _translated(self._path):
            async with method.open(metadata=[messages.SECURITY_HEADER]) as stream:
                async with asyncio.timeout(self._timeout):
                    await stream.send_message(call.request(**fields), end=True)
                    message = await stream.recv_message()
                while message is not None:
                    yield _read(read, message)
                    message = await stream.recv_message()
        raise Unreachable("the agent ended the stream; ask it again")

    def _connection(self) -> PatientChannel:
        if self._channel is None:
            self._channel = PatientChannel(path=str(self._path))
        return self._channel


async def _first(stream: AsyncIterator[_T]) -> _T:
    async with aclosing(stream) as answers:  # type: ignore[type-var]
        async for answer in answers:
            return answer
    raise AssertionError("a stream without an answer raises")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except GRPCError as error:
        told = error.message or error.status.name.lower()
        if error.status not in _REFUSED:
            raise Unreachable(f"the agent has nothing to give now: {plain(told)}") from None
        word = _WORD.fullmatch(told)
        code, detail = word.groups() if word else (error.status.name.lower(), told)
        raise Refusal(403, {"code": code, "detail": detail}) from None
    except OSError as error:
        why = error.strerror or "no answer"
        raise Unreachable(f"{path}: {why}; is the agent running, and is this its socket?") from None
    except _BROKEN_OFF:
        raise Unreachable(f"{path}: the agent did not answer; is it still running?") from None


def _read(read: Callable[[Any], _T], message: Any) -> _T:
    try:
        return read(message)
    except (ValueError, TypeError, LookupError):
        raise Unreachable("the agent's answer cannot be read; is it attestd's, in this version?") from None


def _some(given: tuple[_T, ...]) -> tuple[_T, ...]:
    """At least one: an answer without any is none (SPIFFE Workload API, section 5.2.1)."""
    if not given:
        raise ValueError("an answer without an identity")
    return given


def _x509_given(message: Any) -> tuple[X509Given, ...]:
    def one(told: Any) -> X509Given:
        chain = readings.split_certificates(told.x509_svid)
        ends = readings.certificate_ends(chain[0])
        authorities = readings.split_certificates(told.bundle)
        return X509Given(told.spiffe_id, chain, told.x509_svid_key, authorities, told.hint, ends)

    return _some(tuple(one(told) for told in message.svids))


def _wit_given(message: Any) -> tuple[WitGiven, ...]:
    def one(told: Any) -> WitGiven:
        ends = readings.token_ends(told.wit_svid)
        return WitGiven(told.spiffe_id, told.wit_svid, told.wit_svid_key, told.hint, ends)

    return _some(tuple(one(told) for told in message.svids))


def _jwt_given(message: Any) -> tuple[JwtGiven, ...]:
    def one(told: Any) -> JwtGiven:
        audiences, ends = readings.token_audiences(told.svid), readings.token_ends(told.svid)
        return JwtGiven(told.spiffe_id, told.svid, audiences, told.hint, ends)

    return _some(tuple(one(told) for told in message.svids))


def _x509_bundles(message: Any) -> dict[str, tuple[bytes, ...]]:
    return {domain: readings.split_certificates(raw) for domain, raw in message.bundles.items()}


def _key_sets(message: Any) -> dict[str, Any]:
    return {domain: json.loads(keys) for domain, keys in message.bundles.items()}
