"""What do a token and an introspection cost, beside what they must, and do spent proofs slow them?

The floor of each is an empty request to Flask over a connection of the same kind, with the verifications,
signatures and durable commits that the answer rests on; all measured in this run.
"""

import http.client
import socket
import sqlite3
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from scripts.bench.measure import Row
from scripts.bench.rounds import commit, signature, timed, verification
from scripts.bench.server import empty_server
from tests.acceptance.serving import FORM, Serving
from tests.attestd.oauth.agents import Agent
from tests.attestd.oauth.world import TOOLS, World
from tests.attestd.web.certificates import Authority

REQUESTS = 600
WARM_UP = 20
SPENT = 1_000_000
TOKEN_BOUND, INTROSPECTION_BOUND, PUBLISHED_BOUND = 2.0, 1.4, 1.25
SPENT_BOUND = 1.1
"""What a service with so many spent proofs may cost beside one without: no more than they differ anyway."""

Ask = Callable[[], float]
"""Sends one request and gives the microseconds until its answer was read."""


def rows() -> Iterator[Row]:
    """A token request and an introspection beside their floors, both beside themselves with a million spent
    proofs, and what is published for everybody."""
    with tempfile.TemporaryDirectory(prefix="attestd-bench-") as work, ExitStack() as stack:
        directory = Path(work)
        yield from _token_rows(directory / "plain", stack)
        yield from _introspection_rows(directory / "mtls", stack)


def _token_rows(directory: Path, stack: ExitStack) -> Iterator[Row]:
    directory.mkdir()
    fresh, full = (_serving(directory / name, stack) for name in ("fresh", "full"))
    port = stack.enter_context(empty_server(directory))
    empty = Kept(http.client.HTTPConnection("127.0.0.1", port, timeout=30))
    ask = _token(fresh)
    floor = _floor(empty, 2 * [verification()] + 2 * [signature()] + [commit(directory)])
    name = "token: client_credentials, attestation and DPoP"
    yield Row.beside(name, *_in_turn(ask, floor), bound=TOKEN_BOUND)
    _fill(full)
    yield Row.beside(f"  with {SPENT:,} spent jti", *_in_turn(_token(full), _token(fresh)), bound=SPENT_BOUND)
    page = Kept(fresh.open())
    for what, path in (("JWKS", "/.well-known/jwks.json"), ("SPIFFE bundle", "/.well-known/spiffe/bundle")):
        yield _published(f"{what}, whole, with an ETag", page, empty, path)


def _introspection_rows(directory: Path, stack: ExitStack) -> Iterator[Row]:
    """The resource keeps its connection, on which it showed the X.509-SVID of its machine."""
    directory.mkdir()
    authority = Authority(directory)
    server, client = authority.issue("server"), authority.issue("client")
    ca = ["--ca-certs", str(authority.pem), "--cert-reqs", str(int(ssl.CERT_REQUIRED))]
    options = ["--certfile", str(server.certificate), "--keyfile", str(server.key), *ca]
    context = ssl.create_default_context(cafile=str(authority.pem))
    context.load_cert_chain(client.certificate, client.key)
    port = stack.enter_context(empty_server(directory, *options))
    empty = Kept(http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context))
    fresh, full = (_serving(directory / name, stack, mtls=True) for name in ("fresh", "full"))
    ask = _introspection(fresh)
    floor = _floor(empty, [verification()])
    name = "introspection over a kept mTLS connection"
    yield Row.beside(name, *_in_turn(ask, floor), bound=INTROSPECTION_BOUND)
    _fill(full)
    both = _in_turn(_introspection(full), _introspection(fresh))
    yield Row.beside(f"  with {SPENT:,} spent jti", *both, bound=SPENT_BOUND)


@dataclass(frozen=True)
class Sent:
    """A request that is made already: what making it costs is the client's."""

    path: str
    body: bytes | None = None
    headers: Mapping[str, str] | None = None

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "POST"


class Kept:
    """One connection, for all requests."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        connection.connect()
        # What a client's kernel may hold back is no cost of the server.
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def time(self, sent: Sent, *, status: int = 200) -> tuple[float, bytes, Mapping[str, str]]:
        """Microseconds, and the answer, which must have this status."""
        begin = time.perf_counter_ns()
        self._connection.request(sent.method, sent.path, sent.body, dict(sent.headers or {}))
        answer = self._connection.getresponse()
        raw = answer.read()
        spent = time.perf_counter_ns() - begin
        assert answer.status == status, (answer.status, raw)
        return spent / 1000, raw, answer.headers


def _serving(directory: Path, stack: ExitStack, *, mtls: bool = False) -> Serving:
    """`attestd serve` on SQLite with full durability; the agent `loner` is the resource, too."""
    world = World.create(directory)
    stack.callback(world.deployment.close)
    loner = world.agent("loner", "x509-svid")
    with (world.deployment.directory / "attestd.toml").open("a") as file:
        file.write(f'[[resource]]\naudience = "{TOOLS}"\njwks = "file:tools.jwks"\n')
        file.write(f'client_id = "{loner.client_id}"\n')
    return stack.enter_context(Serving.create(world, mtls=mtls))


def _token(serving: Serving) -> Ask:
    agent = serving.world.agent("planner", "client-attestation")
    kept = Kept(serving.open())
    body = _form(grant_type="client_credentials", resource=TOOLS, scope="plan.read")
    return lambda: kept.time(Sent("/oauth/token", body, _proven(agent)))[0]


def _proven(agent: Agent) -> dict[str, str]:
    """Headers of `attest_jwt_client_auth_dpop`."""
    return {"Content-Type": FORM, "OAuth-Client-Attestation": agent.text, "DPoP": agent.dpop()}


def _introspection(serving: Serving) -> Ask:
    """Of a token that was issued to an agent just now and is good."""
    token = serving.world.token(serving.world.agent())["access_token"]
    kept = Kept(serving.open(serving.world.agent("loner", "x509-svid")))
    sent = Sent("/oauth/introspect", _form(token=token), {"Content-Type": FORM})

    def ask() -> float:
        spent, raw, _ = kept.time(sent)
        assert raw.startswith(b'{"active":true'), raw
        return spent

    return ask


def _published(name: str, page: Kept, empty: Kept, path: str) -> Row:
    """The whole document, asked for again and again; who has it already is told so in one line."""
    _, _, headers = page.time(Sent(path))
    page.time(Sent(path, headers={"If-None-Match": headers["ETag"]}), status=304)
    whole, nothing = Sent(path), Sent("/empty")
    measured = _in_turn(lambda: page.time(whole)[0], lambda: empty.time(nothing)[0])
    return Row.beside(name, *measured, bound=PUBLISHED_BOUND)


def _floor(empty: Kept, work: list[Callable[[], object]]) -> Ask:
    """An empty request with as large a form, and this work."""
    sent = Sent("/empty", _form(token="x" * 512), {"Content-Type": FORM})
    return lambda: empty.time(sent)[0] + sum(timed(one) for one in work)


def _in_turn(ours: Ask, floor: Ask) -> tuple[list[float], list[float]]:
    pairs = [(ours(), floor()) for _ in range(REQUESTS + WARM_UP)][WARM_UP:]
    return [one for one, _ in pairs], [other for _, other in pairs]


def _fill(serving: Serving) -> None:
    """As if that many proofs had been spent, none of which may be forgotten yet."""
    path = serving.world.deployment.directory / "attestd.db"
    with sqlite3.connect(path, timeout=30) as database:
        database.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            "INSERT INTO spent_nonces SELECT randomblob(32), 0, 9000000000000 + i FROM n",
            (SPENT,),
        )
    database.close()


def _form(**members: str) -> bytes:
    return urlencode(members).encode()
