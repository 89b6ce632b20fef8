"""What does a caller get that is made when it asks?

JWT-SVIDs and their validation, which are the standard's, and of our own service access tokens and the proofs
that go with them. An unprivileged program thus uses a key in the TPM without ever touching the TPM.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from google.protobuf.message import DecodeError
from grpclib.exceptions import GRPCError

from attestd.agent.errors import Misconfigured, Refusal, Unreachable, plain
from attestd.agent.proofs import target
from attestd.agent.settings import Workload
from attestd.agent.token import AccessToken, Asked
from attestd.agent.transport import good_nonce
from attestd.agent.trouble import Regime, trouble_of
from attestd.agent.workload import answers, messages
from attestd.agent.workload.answers import denied, invalid, unavailable
from attestd.agent.workload.calls import Methods, Served
from attestd.agent.workload.messages import new
from attestd.agent.workload.validate import NotValid, validate_jwt_svid
from tpm.errors import AttestationError

MAX_NAMES = 16
"""Audiences or scopes of one request."""
MAX_TEXT = 16 * 1024
_T = TypeVar("_T")
_FOLLOWED = {
    call.path: (call, reading)
    for call, reading in (
        (messages.FETCH_X509_SVID, answers.x509_svids),
        (messages.FETCH_X509_BUNDLES, answers.x509_bundles),
        (messages.FETCH_JWT_BUNDLES, answers.jwt_bundles),
        (messages.FETCH_WIT_SVID, answers.wit_svids),
        (messages.FETCH_WIT_BUNDLES, answers.wit_bundles),
    )
}
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
"""A token of HTTP (RFC 9110, section 9.1)."""


def methods(served: Served) -> Methods:
    """All calls of both services for one caller, by path."""
    made = Made(served)
    once = (
        (messages.FETCH_JWT_SVID, made.jwt_svids),
        (messages.VALIDATE_JWT_SVID, made.validation),
        (messages.FETCH_ACCESS_TOKEN, made.access_token),
        (messages.PROVE, made.proof),
    )
    return Methods(served, {call.path: (call, answering) for call, answering in once}, _FOLLOWED)


class Made:
    """What is made for one caller."""

    def __init__(self, served: Served) -> None:
        self._served, self._house = served, served.house

    async def jwt_svids(self, request: Any) -> bytes:
        """FetchJWTSVID: one for each identity that the caller has and that may be shown to all of these
        audiences. One that the service refuses is left out; one that is only not there fails the call, or
        another would be taken for the default."""
        audiences = tuple(dict.fromkeys(request.audience))
        if not 0 < len(audiences) <= MAX_NAMES or "" in audiences:
            raise invalid(f"a JWT-SVID is for 1 to {MAX_NAMES} audiences, none of them empty")
        entitled = answers.entitled_to("jwt-svid", self._served.named(request.spiffe_id))
        given, refusal = [], None
        for workload in self._fitting(entitled, audiences):
            try:
                svid = await self._work(partial(self._house.source.jwt_svid, workload.agent, audiences))
            except GRPCError as error:
                if error.status is not answers.DENIED:
                    raise
                refusal = error
            else:
                if request.spiffe_id in ("", svid.spiffe_id):
                    given.append((workload, svid))
        if not given:
            raise refusal or denied("no workload of this caller has the SPIFFE ID that was asked for")
        return answers.jwt_svids(given).raw

    async def validation(self, request: Any) -> Any:
        """ValidateJWTSVID: InvalidArgument for a token that does not hold."""
        if not request.audience or not request.svid:
            raise invalid("a validation needs an audience and a token")
        bundle = answers.bundle_of(self._house.source.holdings)
        try:
            found = validate_jwt_svid(
                request.svid, expected_audience=request.audience, bundle=bundle, now=self._house.now()
            )
            response = new("ValidateJWTSVIDResponse", spiffe_id=found.spiffe_id)
            response.claims.update(found.claims)
            raw = response.SerializeToString()
            # What is nested deeper than protobuf's readers go must not reach one.
            response.FromString(raw)
        except NotValid as error:
            raise invalid(plain(error)) from None
        except (DecodeError, ValueError, TypeError, ArithmeticError, RecursionError):
            raise invalid("the token's claims have values that not every reader keeps") from None
        return raw

    async def access_token(self, request: Any) -> Any:
        """FetchAccessToken, for an agent that the caller may be and an audience of it."""
        workload, subject = self._agent(request.agent), request.subject_token
        scopes = tuple(dict.fromkeys(request.scopes))
        if len(scopes) > MAX_NAMES or len(subject) > MAX_TEXT or "" in scopes:
            raise invalid(f"a token has at most {MAX_NAMES} scopes, and a user's at most {MAX_TEXT} bytes")
        if not request.audience:
            raise invalid("an access token is for one audience")
        self._fitting((workload,), (request.audience,))
        asked = Asked(workload.agent, request.audience, scopes, subject or None)
        token = await self._work(partial(self._house.source.access_token, asked))
        return _token(token, self._house.now())

    async def proof(self, request: Any) -> Any:
        """Prove, with the key of a token that was given here."""
        workload, text = self._agent(request.agent), request.access_token
        nonce = request.nonce or None
        if not 0 < len(text) <= MAX_TEXT or not text.isascii() or _METHOD.fullmatch(request.method) is None:
            raise invalid("a proof is for an access token and a method of HTTP")
        if len(request.url) > MAX_TEXT or (nonce is not None and good_nonce(nonce) is None):
            raise invalid("a proof is for a URL, and its nonce is as the resource gave it")
        try:
            target(request.url)
        except ValueError as error:
            raise invalid(plain(error)) from None

        async def prove() -> str:
            try:
                return await self._house.source.proof(
                    workload.agent, text, request.method, request.url, nonce
                )
            except Misconfigured as error:
                raise invalid(plain(error)) from None

        return new("ProveResponse", dpop=await self._work(prove))

    def _agent(self, name: str) -> Workload:
        """The workload of this name, or the only one for an empty name; if it is the caller's."""
        found = [workload for workload in self._served.workloads if name in ("", workload.agent)]
        if not found:
            self._house.refused.note(f"the agent {plain(name)} is not for {self._served.caller}")
            raise denied(f"the agent {plain(name)} is not for {self._served.caller}")
        if len(found) > 1:
            names = ", ".join(workload.agent for workload in found)
            raise invalid(f"this caller may be several agents, name one: {names}")
        return found[0]

    def _fitting(self, workloads: Sequence[Workload], audiences: Sequence[str]) -> list[Workload]:
        """Those whose credentials may be shown to all of these; PermissionDenied if there is none."""
        fitting = [workload for workload in workloads if set(audiences) <= set(workload.audiences)]
        if not fitting:
            names = ", ".join(map(plain, audiences))
            self._house.refused.note(f"the audience {names} is not for {self._served.caller}")
            raise denied(f"no workload of this caller has the audience {names} in its `audiences`")
        return fitting

    async def _work(self, make: Callable[[], Awaitable[_T]]) -> _T:
        """What is made, as one piece of work of this user's. It is under way until it is done: a caller that
        does not wait for it could else begin any number."""

        async def run() -> _T:
            with self._house.bounds.work(self._served.caller.uid):
                return await make()

        try:
            return await asyncio.shield(asyncio.create_task(run()))
        except (Refusal, Unreachable, Misconfigured, AttestationError) as error:
            raise status_of(error) from None


def status_of(error: Exception) -> GRPCError:
    """PermissionDenied for what somebody decided, with the service's word in front; Unavailable for what may
    pass."""
    trouble = trouble_of(error)
    refused = trouble.regime is Regime.DENIED
    say: Callable[[str], GRPCError] = denied if refused else unavailable
    return say(f"{trouble.code}: {trouble.detail}" if refused else plain(error))


def _token(token: AccessToken, now: int) -> Any:
    """What is left of its life is told, not what it had."""
    told = token.told()
    passed = max(0, now - token.got_at) // 1000
    return new("AccessTokenResponse", **{**told, "expires_in": max(0, token.expires_in - passed)})
