"""HTTP clients call as attested agents without a thought: proofs, nonces, renewal, and an end where the
machine's posture ends."""

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import httpx2
import pytest
import requests

from attestd.agent.auth import httpx as for_httpx
from attestd.agent.auth import httpx2 as for_httpx2
from attestd.agent.auth import requests as for_requests
from attestd.agent.auth.session import AgentSession
from attestd.agent.errors import Misconfigured, Refusal
from attestd.agent.token import Asked
from attestd.clock import now_ms
from tests.attestd.agent.tools import Tools
from tests.serving import Agent
from tests.tpm.device.leftovers import leftovers

Got = tuple[int, str]


class Elsewhere:
    """A server that answers every request with 401 and this error, and a new nonce each time; `tokens` are
    the values of `Authorization` that it saw."""

    def __init__(self, error: str) -> None:
        self.tokens: list[str | None] = []
        tokens = self.tokens

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                tokens.append(self.headers["Authorization"])
                self.send_response(401)
                self.send_header(
                    "WWW-Authenticate", f'Bearer error="other", DPoP algs="ES256", error="{error}"'
                )
                self.send_header("DPoP-Nonce", f"n-{len(tokens)}")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> "Elsewhere":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


Call = Callable[[AgentSession, str, str, bytes | None], Got]


class Clock:
    """Now, and later."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return now_ms() + self.ahead


def by_requests(session: AgentSession, method: str, url: str, body: bytes | None) -> Got:
    answer = requests.request(method, url, data=body, auth=for_requests.AgentAuth(session), timeout=20)
    return answer.status_code, answer.text


def by_httpx(session: AgentSession, method: str, url: str, body: bytes | None) -> Got:
    with httpx.Client(auth=for_httpx.AgentAuth(session), follow_redirects=True) as client:
        answer = client.request(method, url, content=body)
    return answer.status_code, answer.text


def by_httpx2(session: AgentSession, method: str, url: str, body: bytes | None) -> Got:
    with httpx2.Client(auth=for_httpx2.AgentAuth(session), follow_redirects=True) as client:
        answer = client.request(method, url, content=body)
    return answer.status_code, answer.text


def by_httpx_async(session: AgentSession, method: str, url: str, body: bytes | None) -> Got:
    async def run() -> Got:
        auth = for_httpx.AgentAuth(session)
        async with httpx.AsyncClient(auth=auth, follow_redirects=True) as client:
            answer = await client.request(method, url, content=body)
        return answer.status_code, answer.text

    return asyncio.run(run())


def by_httpx2_async(session: AgentSession, method: str, url: str, body: bytes | None) -> Got:
    async def run() -> Got:
        auth = for_httpx2.AgentAuth(session)
        async with httpx2.AsyncClient(auth=auth, follow_redirects=True) as client:
            answer = await client.request(method, url, content=body)
        return answer.status_code, answer.text

    return asyncio.run(run())


CALLS: dict[str, Call] = {
    "requests": by_requests,
    "httpx": by_httpx,
    "httpx2": by_httpx2,
    "httpx, async": by_httpx_async,
    "httpx2, async": by_httpx2_async,
}


@pytest.fixture(params=list(CALLS.values()), ids=list(CALLS))
def call(request: pytest.FixtureRequest) -> Call:
    made: Call = request.param
    return made


def session_of(tools: Tools, caller: Agent, agent: str = "planner", **given: Any) -> AgentSession:
    return AgentSession(tools.machine(caller), Asked(agent, tools.audience), **given)


@contextmanager
def counted(tools: Tools) -> Iterator[dict[str, int]]:
    """How many attestations were accepted, and how many tokens issued, meanwhile."""

    def count() -> dict[str, int]:
        shown = tools.service.listed("audit", "show", "--decision", "accepted")
        return {event: [each["event"] for each in shown].count(event) for event in ("attest", "token")}

    before, found = count(), dict[str, int]()
    yield found
    found.update({event: number - before[event] for event, number in count().items()})


# --- calls ----------------------------------------------------------------------------------------


def test_every_client_calls_as_the_agent_with_a_nonce_that_the_resource_wants(
    tools: Tools, caller: Agent, call: Call
) -> None:
    session, url = session_of(tools, caller), f"{tools.url}/ledger"
    tools.calls.clear()
    tools.statuses.clear()
    with counted(tools) as counts:
        status, text = call(session, "GET", f"{url}?account=7", None)
        assert (status, text.startswith("nobody through spiffe://example.org/agent/planner/")) == (200, True)
        # Once it was told a nonce it has one: no call is made twice any more.
        assert call(session, "POST", url, b"body")[0] == 200
    assert tools.calls == [("GET", "account=7", b""), ("POST", "", b"body")]
    assert tools.statuses == [401, 200, 200]
    assert counts == {"attest": 1, "token": 1}
    assert leftovers(caller.tpm) == {}


def test_a_body_is_sent_again_whole_when_the_resource_first_wants_a_nonce(
    tools: Tools, caller: Agent, call: Call
) -> None:
    tools.calls.clear()
    assert call(session_of(tools, caller), "POST", f"{tools.url}/ledger", b"x" * 5000)[0] == 200
    assert tools.calls == [("POST", "", b"x" * 5000)]


def test_a_file_as_body_is_sent_again_from_where_it_stood(tools: Tools, caller: Agent) -> None:
    body = io.BytesIO(b"head, tail")
    body.seek(6)
    tools.calls.clear()
    auth = for_requests.AgentAuth(session_of(tools, caller))
    assert requests.post(f"{tools.url}/ledger", data=body, auth=auth, timeout=20).status_code == 200
    assert tools.calls == [("POST", "", b"tail")]


def test_on_behalf_of_a_user_whose_token_may_change(tools: Tools, caller: Agent, call: Call) -> None:
    users = iter(["alice", "bob"])
    session = session_of(tools, caller, subject_token=lambda: tools.login.token(sub=next(users)))
    assert call(session, "GET", f"{tools.url}/ledger", None)[1].startswith("alice through spiffe://")
    session = session_of(tools, caller, subject_token=lambda: tools.login.token(sub=next(users)))
    assert call(session, "GET", f"{tools.url}/ledger", None)[1].startswith("bob through spiffe://")


def test_no_proof_follows_a_redirect(tools: Tools, caller: Agent, call: Call) -> None:
    """It is for another address, so the resource lets nobody in."""
    tools.calls.clear()
    session = session_of(tools, caller)
    call(session, "GET", f"{tools.url}/ledger", None)
    assert call(session, "GET", f"{tools.url}/moved?to={tools.url}/ledger", None)[0] == 401
    assert len(tools.calls) == 1


def test_no_token_follows_a_redirect_to_another_host_however_it_asks(
    tools: Tools, caller: Agent, call: Call
) -> None:
    session = session_of(tools, caller)
    with Elsewhere("use_dpop_nonce") as elsewhere:
        assert call(session, "GET", f"{tools.url}/moved?to={elsewhere.url}", None)[0] == 401
    assert (len(elsewhere.tokens), set(elsewhere.tokens)) == (1, {None})


def test_an_answer_to_a_request_that_lost_its_token_on_the_way_asks_for_nothing(
    tools: Tools, caller: Agent
) -> None:
    """A redirect may lead away and back: the library has taken the token off by then."""
    session, url = session_of(tools, caller), f"{tools.url}/ledger"
    told = {"WWW-Authenticate": 'DPoP error="use_dpop_nonce"', "DPoP-Nonce": "n-1"}
    assert session.again("GET", url, sent={}, answered=(url, 401), told=told) is None
    sent = session.headers("GET", url)
    assert session.again("GET", url, sent=sent, answered=(url, 401), told=told) is not None


def test_a_resource_that_is_never_content_is_asked_twice_and_no_more(
    tools: Tools, caller: Agent, call: Call
) -> None:
    with Elsewhere("use_dpop_nonce") as elsewhere:
        assert call(session_of(tools, caller), "GET", elsewhere.url, None)[0] == 401
    assert len(elsewhere.tokens) == 2
    assert elsewhere.tokens[0] == elsewhere.tokens[1] is not None


@pytest.mark.parametrize("url", ["http://tools.example.org/ledger", "ftp://127.0.0.1/", "http://[::1/"])
def test_a_token_does_not_travel_in_the_open(tools: Tools, caller: Agent, url: str) -> None:
    with counted(tools) as counts, pytest.raises(Misconfigured):
        session_of(tools, caller).headers("GET", url)
    assert counts == {"attest": 0, "token": 0}


# --- renewal --------------------------------------------------------------------------------------


def test_a_token_is_renewed_before_it_ends_with_the_attestation_that_is_there(
    tools: Tools, caller: Agent, call: Call
) -> None:
    """The user's token, and so the agent's, lasts for 40 seconds; the agent's attestation for minutes."""
    clock = Clock()
    session = session_of(
        tools, caller, clock=clock, subject_token=lambda: tools.login.token(exp=now_ms() // 1000 + 40)
    )
    with counted(tools) as counts:
        assert call(session, "GET", f"{tools.url}/ledger", None)[0] == 200
        clock.ahead = 25_000
        assert call(session, "GET", f"{tools.url}/ledger", None)[0] == 200
    assert counts == {"attest": 1, "token": 1}
    with counted(tools) as counts:
        clock.ahead = 35_000
        assert call(session, "GET", f"{tools.url}/ledger", None)[0] == 200
    assert counts == {"attest": 0, "token": 1}


def test_the_machine_attests_anew_by_itself_before_its_attestation_ends(
    tools: Tools, caller: Agent, call: Call
) -> None:
    """The helper's lasts for 40 seconds."""
    clock = Clock()
    session = session_of(tools, caller, "helper", clock=clock)
    with counted(tools) as counts:
        assert call(session, "GET", f"{tools.url}/ledger", None)[0] == 200
        clock.ahead = 35_000
        assert call(session, "GET", f"{tools.url}/ledger", None)[0] == 200
    assert counts == {"attest": 2, "token": 2}


def test_many_threads_share_one_attestation_and_one_tpm(tools: Tools, caller: Agent) -> None:
    session, url = session_of(tools, caller), f"{tools.url}/ledger"
    with counted(tools) as counts, ThreadPoolExecutor(12) as pool:
        calls = [pool.submit(by_requests, session, "GET", url, None) for _ in range(24)]
        calls += [pool.submit(by_httpx2_async, session, "GET", url, None) for _ in range(12)]
        assert {each.result()[0] for each in calls} == {200}
    assert counts == {"attest": 1, "token": 1}
    assert leftovers(caller.tpm) == {}


def test_two_sessions_take_turns_at_one_tpm(tools: Tools, caller: Agent) -> None:
    sessions = [session_of(tools, caller, agent) for agent in ("planner", "helper")]
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(by_httpx, each, "GET", f"{tools.url}/ledger", None) for each in sessions * 4]
        assert {each.result()[0] for each in calls} == {200}
    assert leftovers(caller.tpm) == {}


# --- where the posture ends -----------------------------------------------------------------------


def test_after_a_new_boot_the_next_call_attests_by_itself(tools: Tools, caller: Agent, call: Call) -> None:
    clock = Clock()
    session, url = session_of(tools, caller, clock=clock), f"{tools.url}/ledger"
    assert call(session, "GET", url, None)[0] == 200
    caller.tpm.reset()
    caller("token", "--agent", "planner", "--audience", tools.audience)
    # A token that is refused at once is not worth another attestation yet.
    assert call(session, "GET", url, None)[0] == 401
    clock.ahead = 6000
    assert call(session, "GET", url, None)[0] == 200


def test_a_machine_whose_posture_was_lost_calls_no_more_and_is_told_why(
    tools: Tools, caller: Agent, call: Call
) -> None:
    clock = Clock()
    session, url = session_of(tools, caller, clock=clock), f"{tools.url}/ledger"
    assert call(session, "GET", url, None)[0] == 200
    caller.tpm.extend(7, {"sha256": b"\x01" * 32})
    caller("token", "--audience", tools.audience, "--agent", "planner", status=1)
    tools.calls.clear()
    assert call(session, "GET", url, None)[0] == 401
    clock.ahead = 6000
    for _ in range(2):
        with pytest.raises(Refusal, match="posture_rejected") as refusal:
            call(session, "GET", url, None)
        assert refusal.value.code == "posture_rejected"
    assert tools.calls == []


def test_a_resource_that_takes_no_token_makes_the_machine_attest_once_in_a_while(
    tools: Tools, caller: Agent, call: Call
) -> None:
    clock = Clock()
    session = session_of(tools, caller, clock=clock)
    with Elsewhere("invalid_token") as elsewhere, counted(tools) as counts:
        for _ in range(3):
            assert call(session, "GET", elsewhere.url, None)[0] == 401
        clock.ahead = 6000
        for _ in range(3):
            assert call(session, "GET", elsewhere.url, None)[0] == 401
    assert counts == {"attest": 2, "token": 2}
    assert (len(elsewhere.tokens), len(set(elsewhere.tokens))) == (7, 2)
