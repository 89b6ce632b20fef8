"""Every call on a real socket: what comes, what is pushed, and which word a refusal has."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from attestd.agent.errors import Misconfigured, NotEnrolled, Refusal, Unreachable
from attestd.agent.holdings import NOTHING, Holdings
from attestd.agent.settings import Settings
from attestd.agent.token import Asked
from attestd.agent.workload import bounds, messages
from attestd.agent.workload.client import WorkloadClient
from attestd.agent.workload.messages import SECURITY_HEADER, Call
from tests.attestd.agent.workload.domain import workload
from tests.attestd.agent.workload.serving import HOUR, Serving, folder, me, serving
from tpm.errors import DeviceError

T = TypeVar("T")
A, B, FOREIGN = "https://a.example.org", "https://b.example.org", "https://elsewhere.example"
TELEMETRY = workload("telemetry", user=[me()], hint="inside")
BUILDER = workload("builder", user=[me()], audiences=(A,))
STRANGERS = workload("strangers", user=["65533"])
CALLS = [each for each in vars(messages).values() if isinstance(each, Call)]
STREAMS = [call for call in CALLS if call.cardinality is Cardinality.UNARY_STREAM]
GOOD: dict[str, dict[str, Any]] = {
    messages.FETCH_JWT_SVID.path: {"audience": [A]},
    messages.VALIDATE_JWT_SVID.path: {"audience": A, "svid": "x.y.z"},
    messages.FETCH_ACCESS_TOKEN.path: {"agent": "telemetry", "audience": A},
    messages.PROVE.path: {
        "agent": "telemetry",
        "access_token": "t",
        "method": "GET",
        "url": "https://a.example.org/",
    },
}


@pytest.fixture
def there() -> Iterator[Serving]:
    with serving(TELEMETRY, BUILDER, STRANGERS) as made:
        yield made


def ask(there: Serving, question: Callable[[WorkloadClient], Awaitable[T]]) -> T:
    async def run() -> T:
        async with there.client() as client:
            return await question(client)

    return asyncio.run(run())


async def first(stream: AsyncIterator[T]) -> T:
    async with aclosing(stream) as opened:  # type: ignore[type-var]
        return await anext(opened)


def raw(there: Serving, call: Call, *, header: list[tuple[str, str]] | None = None, **fields: Any) -> Status:
    """The status of a call; OK once something came."""

    async def run() -> Status:
        method = UnaryUnaryMethod if call.cardinality is Cardinality.UNARY_UNARY else UnaryStreamMethod
        metadata = [SECURITY_HEADER] if header is None else header
        async with Channel(path=str(there.path)) as channel:
            opened = method(channel, call.path, call.request, call.response).open(
                timeout=20, metadata=metadata
            )
            try:
                async with opened as stream:
                    await stream.send_message(call.request(**fields), end=True)
                    assert await stream.recv_message() is not None
                    if call.cardinality is Cardinality.UNARY_STREAM:
                        await stream.cancel()
            except GRPCError as error:
                return error.status
        return Status.OK

    return asyncio.run(run())


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.path)
@pytest.mark.parametrize(
    "header",
    [
        [],
        [("workload.spiffe.io", "false")],
        [("workload.spiffe.io", "True")],
        [("workload.spiffe.io", "true,true"), ("other", "true")],
        [("workload.spiffe.io", "true"), ("workload.spiffe.io", "true")],
        [("workload.spiffe.io", "true"), ("workload.spiffe.io", "false")],
        [("x-workload.spiffe.io", "true")],
    ],
)
def test_without_the_security_header_nothing_is_answered(
    call: Call, header: list[tuple[str, str]], there: Serving
) -> None:
    fields = GOOD.get(call.path, {})
    assert raw(there, call, header=header, **fields) is Status.INVALID_ARGUMENT
    expected = Status.INVALID_ARGUMENT if call is messages.VALIDATE_JWT_SVID else Status.OK
    assert raw(there, call, **fields) is expected


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.path)
def test_a_caller_without_a_rule_is_refused_everything_and_counted(call: Call) -> None:
    with serving(STRANGERS) as there:
        assert raw(there, call, **GOOD.get(call.path, {})) is Status.PERMISSION_DENIED
        assert there.endpoint.refused == 1


def test_a_method_that_is_not_there_is_unimplemented(there: Serving) -> None:
    for path in ("/SpiffeWorkloadAPI/FetchNothing", "/spiffe.SpiffeWorkloadAPI/FetchX509SVID"):
        unknown = messages.FETCH_X509_SVID._replace(path=path)
        assert raw(there, unknown) is Status.UNIMPLEMENTED


def test_several_identities_come_in_the_operators_order(there: Serving) -> None:
    told = ask(there, lambda client: first(client.x509_svids()))
    assert [each.spiffe_id.split("/")[4] for each in told] == ["telemetry", "builder"]
    assert [each.hint for each in told] == ["inside", ""]
    assert told[0].authorities == (there.shelf.domain.certificate,)
    tokens = ask(there, lambda client: client.jwt_svids([A]))
    assert [each.spiffe_id.split("/")[4] for each in tokens] == ["telemetry", "builder"]


# Streams.


def follow(there: Serving, *steps: Callable[[], None]) -> list[Any]:
    """What a stream says at first, and after each step; an error in place of an answer that does not come."""

    async def run() -> list[Any]:
        said: list[Any] = []
        async with there.client() as client, aclosing(client.x509_svids()) as stream:  # type: ignore[type-var]
            said.append(await anext(stream))
            for step in steps:
                await asyncio.to_thread(step)
                try:
                    said.append(await asyncio.wait_for(anext(stream), 10))
                except (Refusal, Unreachable) as error:
                    said.append(error)
                    break
        return said

    return asyncio.run(run())


def test_a_stream_says_what_has_changed(there: Serving) -> None:
    def renew() -> None:
        there.put(there.shelf.domain.holdings(TELEMETRY, BUILDER, until=there.shelf.now() + HOUR))

    said = follow(there, renew, renew)
    assert len({told[0].chain for told in said}) == 3


def test_a_stream_says_nothing_where_nothing_changed_for_its_caller(there: Serving) -> None:
    picture = there.shelf.holdings
    other = there.shelf.domain.held(STRANGERS, until=there.shelf.now() + HOUR)

    def others() -> None:
        for _ in range(20):
            there.put(replace(picture, held={**picture.held, "strangers": other}))
            there.put(replace(picture))

    def renew() -> None:
        others()
        there.put(there.shelf.domain.holdings(TELEMETRY, until=there.shelf.now() + HOUR))

    said = follow(there, renew)
    assert [len(told) for told in said] == [2, 1]


def test_a_withdrawn_identity_ends_its_stream_as_the_standard_says(there: Serving) -> None:
    domain = there.shelf.domain
    refused = {"telemetry": "posture_rejected", "builder": "posture_rejected"}
    said = follow(there, lambda: there.put(domain.holdings(until=0, refused=refused)))
    assert isinstance(said[1], Refusal)
    assert "posture_rejected" in str(said[1])


def test_one_of_two_that_is_withdrawn_is_left_out(there: Serving) -> None:
    domain = there.shelf.domain
    rest = domain.holdings(BUILDER, until=there.shelf.now() + HOUR, refused={"telemetry": "not entitled"})
    said = follow(there, lambda: there.put(rest))
    assert [each.spiffe_id for each in said[1]] == [domain.spiffe_id("builder")]


def test_an_svid_that_ends_is_taken_back_though_nothing_else_happens() -> None:
    start = time.time_ns() // 1_000_000
    until = start + 1500

    with serving(TELEMETRY) as there:
        there.put(there.shelf.domain.holdings(TELEMETRY, until=until))
        before = time.monotonic()
        said = follow(there, lambda: None)
        assert isinstance(said[1], Unreachable)
        assert 0.5 < time.monotonic() - before < 8


def test_a_stream_ends_with_the_agent_and_can_be_asked_again(there: Serving) -> None:
    said = follow(there, lambda: there.do(lambda: there.endpoint.reconfigure(settings(there))))
    assert isinstance(said[1], Unreachable)
    assert len(ask(there, lambda client: first(client.x509_svids()))) == 2


def settings(there: Serving, *workloads: Any) -> Settings:
    return Settings(socket=there.path, workloads=workloads or (TELEMETRY, BUILDER))


def test_other_rules_hold_at_once_for_who_is_connected_too(there: Serving) -> None:
    said = follow(there, lambda: there.do(lambda: there.endpoint.reconfigure(settings(there, STRANGERS))))
    assert isinstance(said[1], Unreachable)
    with pytest.raises(Refusal):
        ask(there, lambda client: client.x509_svid())


def test_a_format_that_was_taken_away_is_not_given_any_more_though_it_is_still_held(there: Serving) -> None:
    """The picture stays the same until whoever keeps it takes the settings."""
    mine = there.shelf.domain.spiffe_id("telemetry")
    assert raw(there, messages.FETCH_WIT_SVID, spiffe_id=mine) is Status.OK
    without = replace(TELEMETRY, formats=("x509-svid",))
    there.do(lambda: there.endpoint.reconfigure(settings(there, without)))
    assert raw(there, messages.FETCH_WIT_SVID, spiffe_id=mine) is Status.PERMISSION_DENIED
    assert raw(there, messages.FETCH_X509_SVID) is Status.OK


def test_a_banned_machine_is_denied_also_after_other_rules(there: Serving) -> None:
    """Denied and not unavailable: clients are to stop using what they had."""
    why = dict.fromkeys(("telemetry", "builder"), "refused (device_banned)")
    there.put(Holdings({}, why, there.shelf.domain.bundle, frozenset(why)))
    for _ in range(2):
        assert raw(there, messages.FETCH_X509_SVID) is Status.PERMISSION_DENIED
        there.do(lambda: there.endpoint.reconfigure(settings(there)))
    there.put(Holdings({}, why, there.shelf.domain.bundle))
    assert raw(there, messages.FETCH_X509_SVID) is Status.UNAVAILABLE


def test_who_goes_leaves_nothing_behind(there: Serving) -> None:
    follow(there)
    until = time.monotonic() + 10
    while there.do(lambda: there.shelf.waiting) and time.monotonic() < until:
        time.sleep(0.01)
    assert there.do(lambda: there.shelf.waiting) == 0


def test_streams_of_every_kind_begin_at_once(there: Serving) -> None:
    for call in STREAMS:
        assert raw(there, call) is Status.OK


def test_a_wit_svid_of_one_identity_may_be_asked_for(there: Serving) -> None:
    mine = there.shelf.domain.spiffe_id("builder")
    told = ask(there, lambda client: first(client.wit_svids(mine)))
    assert [each.spiffe_id for each in told] == [mine]
    for other in (there.shelf.domain.spiffe_id("strangers"), "telemetry", "spiffe://x/y"):
        with pytest.raises(Refusal):
            ask(there, lambda client, name=other: first(client.wit_svids(name)))  # type: ignore[misc]


# What is made on demand.


def test_a_jwt_svid_is_for_the_audiences_that_were_asked_for(there: Serving) -> None:
    told = ask(there, lambda client: client.jwt_svids([B, A, B]))
    assert [each.audiences for each in told] == [(B, A)]
    assert there.shelf.asked == [("telemetry", (B, A))]


@pytest.mark.parametrize(
    ("expected", "audiences"),
    [
        (Status.INVALID_ARGUMENT, []),
        (Status.INVALID_ARGUMENT, [""]),
        (Status.INVALID_ARGUMENT, [A, ""]),
        (Status.INVALID_ARGUMENT, [f"{A}/{n}" for n in range(17)]),
        (Status.PERMISSION_DENIED, [FOREIGN]),
        (Status.PERMISSION_DENIED, [A, FOREIGN]),
        (Status.PERMISSION_DENIED, [A + "/"]),
    ],
)
def test_audiences_beyond_the_operators_are_refused(
    expected: Status, audiences: list[str], there: Serving
) -> None:
    assert raw(there, messages.FETCH_JWT_SVID, audience=audiences) is expected
    assert there.shelf.asked == []
    assert raw(there, messages.FETCH_JWT_SVID, audience=[A]) is Status.OK


def test_a_jwt_svid_of_one_identity_may_be_asked_for(there: Serving) -> None:
    mine = there.shelf.domain.spiffe_id("builder")
    assert ask(there, lambda client: client.jwt_svid([A], mine)).spiffe_id == mine
    assert there.shelf.asked == [("builder", (A,))]
    other = there.shelf.domain.spiffe_id("strangers")
    assert raw(there, messages.FETCH_JWT_SVID, audience=[A], spiffe_id=other) is Status.PERMISSION_DENIED


def test_an_identity_that_is_not_known_yet_is_asked_for(there: Serving) -> None:
    there.put(NOTHING)
    mine = there.shelf.domain.spiffe_id("builder")
    told = ask(there, lambda client: client.jwt_svids([A], mine))
    assert [each.spiffe_id for each in told] == [mine]


def test_an_identity_of_bearer_tokens_only_may_be_asked_for() -> None:
    bearer = workload("telemetry", user=[me()], formats=("jwt-svid",))
    with serving(bearer) as there:
        mine = there.shelf.domain.spiffe_id("telemetry")
        assert ask(there, lambda client: client.jwt_svid([A], mine)).spiffe_id == mine
        other = there.shelf.domain.spiffe_id("other")
        assert raw(there, messages.FETCH_JWT_SVID, audience=[A], spiffe_id=other) is Status.PERMISSION_DENIED


REFUSED = Refusal(403, {"code": "posture_rejected", "detail": "pcr7 is another"})


@pytest.mark.parametrize(
    ("expected", "error"),
    [
        (Status.PERMISSION_DENIED, REFUSED),
        (Status.PERMISSION_DENIED, Refusal(400, {"error": "invalid_scope"})),
        (Status.UNAVAILABLE, Refusal(429, {"code": "slow_down"}, 30)),
        (Status.UNAVAILABLE, Refusal(403, {"code": "device_pending"})),
        (Status.UNAVAILABLE, Refusal(502, {})),
        (Status.UNAVAILABLE, Unreachable("no answer")),
        (Status.UNAVAILABLE, NotEnrolled("not yet")),
        (Status.UNAVAILABLE, DeviceError("tpm_busy", "the TPM is busy")),
        (Status.INTERNAL, KeyError("x")),
    ],
)
@pytest.mark.parametrize("call", [messages.FETCH_JWT_SVID, messages.FETCH_ACCESS_TOKEN])
def test_what_went_wrong_behind_has_its_word(
    call: Call, expected: Status, error: Exception, there: Serving
) -> None:
    there.shelf.fail = error
    assert raw(there, call, **GOOD[call.path]) is expected
    there.shelf.fail = None
    assert raw(there, call, **GOOD[call.path]) is Status.OK


def test_one_identity_that_the_service_refuses_is_left_out(there: Serving) -> None:
    there.shelf.fail, there.shelf.fail_for = REFUSED, "telemetry"
    told = ask(there, lambda client: client.jwt_svids([A]))
    assert [each.spiffe_id for each in told] == [there.shelf.domain.spiffe_id("builder")]


def test_one_that_is_only_not_there_makes_no_other_the_default(there: Serving) -> None:
    there.shelf.fail, there.shelf.fail_for = Unreachable("away"), "telemetry"
    with pytest.raises(Unreachable):
        ask(there, lambda client: client.jwt_svids([A]))


def test_a_refusal_tells_the_services_word(there: Serving) -> None:
    there.shelf.fail = REFUSED
    with pytest.raises(Refusal) as refusal:
        ask(there, lambda client: client.access_token("telemetry", A))
    assert (refusal.value.code, refusal.value.problem["detail"]) == ("posture_rejected", "pcr7 is another")


def test_a_jwt_svid_is_validated_for_who_asks(there: Serving) -> None:
    async def run(client: WorkloadClient) -> tuple[str, dict[str, Any]]:
        token = (await client.jwt_svid([A])).text
        with pytest.raises(Refusal):
            await client.validate_jwt_svid(B, token)
        with pytest.raises(Refusal):
            await client.validate_jwt_svid(A, token[:-8] + "AAAAAAAA")
        return await client.validate_jwt_svid(A, token)

    spiffe_id, claims = ask(there, run)
    assert spiffe_id == there.shelf.domain.spiffe_id("telemetry") == claims["sub"]
    assert claims["aud"] == [A]
    there.put(NOTHING)
    assert raw(there, messages.VALIDATE_JWT_SVID, audience=A, svid="x") is Status.UNAVAILABLE


@pytest.mark.parametrize("fields", [{}, {"audience": A}, {"svid": "x.y.z"}])
def test_a_validation_needs_both_of_its_fields(fields: dict[str, Any], there: Serving) -> None:
    assert raw(there, messages.VALIDATE_JWT_SVID, **fields) is Status.INVALID_ARGUMENT


@pytest.mark.parametrize("claims", [{"n": 10**400}, {"deep": None}])
def test_claims_that_no_reader_keeps_are_refused_and_the_server_lives(
    claims: dict[str, Any], there: Serving
) -> None:
    if "deep" in claims:
        for _ in range(400):
            claims = {"deep": claims}
    token = there.shelf.domain.jwt("telemetry", (A,), until=there.shelf.now() + HOUR, **claims).text
    status = raw(there, messages.VALIDATE_JWT_SVID, audience=A, svid=token)
    assert status is Status.INVALID_ARGUMENT
    good = there.shelf.domain.jwt("telemetry", (A,), until=there.shelf.now() + HOUR, n=1.5).text
    assert raw(there, messages.VALIDATE_JWT_SVID, audience=A, svid=good) is Status.OK


# Access tokens.


def test_a_token_and_a_proof_come_without_the_tpm(there: Serving) -> None:
    async def run(client: WorkloadClient) -> tuple[Any, str]:
        token = await client.access_token("builder", A, ["plan.read"], "user-token")
        return token, await client.prove("builder", token.text, "POST", A + "/x?y#z", "nonce-1")

    token, proof = ask(there, run)
    assert (token.text, token.token_type, token.scope) == ("token-1", "DPoP", "plan.read")
    assert 285 <= token.expires_in <= 290
    assert proof == "proof-1"
    assert there.shelf.asked == [
        Asked("builder", A, ("plan.read",), "user-token"),
        ("builder", "token-1", "POST", A + "/x?y#z", "nonce-1"),
    ]


@pytest.mark.parametrize(
    ("expected", "changed"),
    [
        (Status.PERMISSION_DENIED, {"agent": "strangers"}),
        (Status.PERMISSION_DENIED, {"agent": "nobody"}),
        (Status.INVALID_ARGUMENT, {"agent": ""}),
        (Status.PERMISSION_DENIED, {"audience": FOREIGN}),
        (Status.INVALID_ARGUMENT, {"audience": ""}),
        (Status.INVALID_ARGUMENT, {"scopes": ["x"] * 3 + [str(n) for n in range(16)]}),
        (Status.INVALID_ARGUMENT, {"scopes": [""]}),
        (Status.INVALID_ARGUMENT, {"subject_token": "x" * 16_385}),
    ],
)
def test_a_token_is_for_ones_own_agent_and_its_audiences(
    expected: Status, changed: dict[str, Any], there: Serving
) -> None:
    good = GOOD[messages.FETCH_ACCESS_TOKEN.path]
    assert raw(there, messages.FETCH_ACCESS_TOKEN, **{**good, **changed}) is expected
    assert there.shelf.asked == []
    assert raw(there, messages.FETCH_ACCESS_TOKEN, **good) is Status.OK


def test_the_only_agent_of_a_caller_need_not_be_named() -> None:
    with serving(TELEMETRY, STRANGERS) as there:
        assert raw(there, messages.FETCH_ACCESS_TOKEN, audience=A) is Status.OK
        assert there.shelf.asked == [Asked("telemetry", A)]


@pytest.mark.parametrize(
    ("expected", "changed"),
    [
        (Status.PERMISSION_DENIED, {"agent": "strangers"}),
        (Status.INVALID_ARGUMENT, {"access_token": ""}),
        (Status.INVALID_ARGUMENT, {"access_token": "é"}),
        (Status.INVALID_ARGUMENT, {"method": ""}),
        (Status.INVALID_ARGUMENT, {"method": "GET /"}),
        (Status.INVALID_ARGUMENT, {"url": "a.example.org"}),
        (Status.INVALID_ARGUMENT, {"url": ""}),
        (Status.INVALID_ARGUMENT, {"url": "https://[::1"}),
        (Status.INVALID_ARGUMENT, {"nonce": "a b"}),
    ],
)
def test_a_proof_is_for_one_request_with_ones_own_token(
    expected: Status, changed: dict[str, Any], there: Serving
) -> None:
    good = GOOD[messages.PROVE.path]
    assert raw(there, messages.PROVE, **{**good, **changed}) is expected
    assert there.shelf.asked == []
    assert raw(there, messages.PROVE, **good) is Status.OK


def test_a_proof_with_a_token_from_elsewhere_is_the_callers_mistake(there: Serving) -> None:
    there.shelf.fail = Misconfigured("that token is not from here")
    assert raw(there, messages.PROVE, **GOOD[messages.PROVE.path]) is Status.INVALID_ARGUMENT


def test_work_for_one_user_is_bounded_and_others_calls_go_on(there: Serving) -> None:
    """Nine tokens at once, each waiting for the service: the ninth is told so at once."""
    there.do(there.shelf.gate.clear)
    said: list[Status] = []
    good = GOOD[messages.FETCH_ACCESS_TOKEN.path]

    def work() -> None:
        said.append(raw(there, messages.FETCH_ACCESS_TOKEN, **good))

    threads = [threading.Thread(target=work) for _ in range(9)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 20
    while len(said) < 1 and time.monotonic() < until:
        time.sleep(0.01)
    assert said == [Status.UNAVAILABLE]
    assert raw(there, messages.FETCH_X509_SVID) is Status.OK
    there.do(there.shelf.gate.set)
    for thread in threads:
        thread.join(20)
    assert said.count(Status.OK) == 8
    assert raw(there, messages.FETCH_ACCESS_TOKEN, **good) is Status.OK


def test_work_that_its_caller_no_longer_waits_for_counts_until_it_is_done(there: Serving) -> None:
    """Calls that are given up at once, again and again: no more than a user's share is ever begun."""
    there.do(there.shelf.gate.clear)

    async def give_up() -> None:
        async with there.client() as client:
            beyond, until = 0, time.monotonic() + 30
            while beyond < 5 and time.monotonic() < until:
                beyond += len(there.shelf.asked) >= bounds.WORKS_OF_USER
                with suppress(TimeoutError, Unreachable):
                    async with asyncio.timeout(0.2):
                        await client.prove("telemetry", "t", "GET", f"{A}/")

    asyncio.run(give_up())
    assert len(there.shelf.asked) == bounds.WORKS_OF_USER
    there.do(there.shelf.gate.set)
    assert ask(there, lambda client: client.prove("telemetry", "t", "GET", f"{A}/")) == "proof-1"


# The socket.


def test_the_socket_that_systemd_made_is_served_and_left() -> None:
    with folder() as directory, socket.socket(socket.AF_UNIX) as theirs:
        path = directory / "theirs.sock"
        theirs.bind(str(path))
        theirs.listen()
        with serving(TELEMETRY, listening=theirs.dup()) as there:
            assert not there.path.exists()
            assert ask(replace(there, path=path), lambda client: client.x509_svid())
        assert path.is_socket()


def test_the_agent_ends_soon_whoever_is_connected() -> None:
    with serving(TELEMETRY) as there:
        silent = socket.socket(socket.AF_UNIX)
        silent.connect(str(there.path))
        # It asks without end and reads nothing, so that something is owed to it.
        silent.settimeout(0.5)
        with suppress(OSError):
            silent.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0" * 200_000)
        before = time.monotonic()
    assert time.monotonic() - before < 10
    silent.close()
    assert not there.path.exists()
