"""A served socket, whose picture the tests replace: the server in a thread of its own, callers anywhere."""

import asyncio
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from attestd.agent.holdings import NOTHING, Holdings, JwtSvid
from attestd.agent.settings import Settings, Workload
from attestd.agent.token import AccessToken, Asked
from attestd.agent.workload.client import WorkloadClient
from attestd.agent.workload.server import Endpoint, serve
from attestd.clock import now_ms
from tests.attestd.agent.workload.domain import Domain

HOUR = 3_600_000
T = TypeVar("T")


class NoKey:
    """In place of a key in the TPM."""

    jwk: dict[str, str] = {}  # noqa: RUF012

    def sign(self, message: bytes) -> bytes:
        return bytes(64)


@dataclass
class Shelf:
    """What the keeper of a machine's credentials would give; `fail` is raised for what is made on demand."""

    domain: Domain
    now: Callable[[], int] = now_ms
    holdings: Holdings = NOTHING
    fail: Exception | None = None
    fail_for: str | None = None
    asked: list[Any] = field(default_factory=list)
    waiting: int = 0

    def __post_init__(self) -> None:
        self.turned = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def changed(self, seen: Holdings) -> Holdings:
        self.waiting += 1
        try:
            while self.holdings is seen:
                await self.turned.wait()
        finally:
            self.waiting -= 1
        return self.holdings

    async def jwt_svid(self, agent: str, audiences: tuple[str, ...]) -> JwtSvid:
        await self._demand(agent, (agent, audiences))
        return self.domain.jwt(agent, audiences, until=self.now() + HOUR)

    async def access_token(self, asked: Asked) -> AccessToken:
        await self._demand(asked.agent, asked)
        return AccessToken("token-1", 300, " ".join(asked.scopes), NoKey(), self.now() - 10_000)

    async def proof(self, agent: str, access_token: str, method: str, url: str, nonce: str | None) -> str:
        await self._demand(agent, (agent, access_token, method, url, nonce))
        return "proof-1"

    async def _demand(self, agent: str, asked: Any) -> None:
        self.asked.append(asked)
        await self.gate.wait()
        if self.fail is not None and self.fail_for in (None, agent):
            raise self.fail


@dataclass
class Serving:
    """A running server."""

    path: Path
    shelf: Shelf
    endpoint: Endpoint
    loop: asyncio.AbstractEventLoop

    def put(self, holdings: Holdings) -> None:
        """Another picture from now on."""

        def turn() -> None:
            self.shelf.holdings = holdings
            self.shelf.turned.set()
            self.shelf.turned = asyncio.Event()

        self.do(turn)

    def do(self, work: Callable[[], T]) -> T:
        """In the server's thread."""

        async def run() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(20)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """The server does nothing meanwhile: whoever comes waits, and what comes lies there."""
        stands, go = threading.Event(), threading.Event()
        self.loop.call_soon_threadsafe(stands.set)
        self.loop.call_soon_threadsafe(go.wait, 20)
        stands.wait(20)
        try:
            yield
        finally:
            go.set()

    def client(self) -> WorkloadClient:
        return WorkloadClient(self.path, timeout=20)


@contextmanager
def folder() -> Iterator[Path]:
    """A directory that every user may enter, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="attestd-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)


@contextmanager
def serving(
    *workloads: Workload,
    domain: Domain | None = None,
    holdings: Holdings | None = None,
    listening: socket.socket | None = None,
    now: Callable[[], int] = now_ms,
) -> Iterator[Serving]:
    """Everything is held unless `holdings` says otherwise."""
    domain = domain or Domain.new()
    held = holdings or domain.holdings(*workloads, until=now() + HOUR)
    with folder() as directory:
        path = directory / "workload.sock"
        settings = Settings(socket=path, workloads=workloads)
        ready = threading.Event()
        kept: dict[str, Any] = {}

        async def main() -> None:
            shelf, stop = Shelf(domain, now, held), asyncio.Event()
            async with serve(shelf, settings, listening=listening, now=now) as endpoint:
                kept["serving"] = Serving(path, shelf, endpoint, asyncio.get_running_loop())
                kept["stop"] = stop
                ready.set()
                await stop.wait()

        def run() -> None:
            try:
                asyncio.run(main())
            finally:
                ready.set()

        thread = threading.Thread(target=run)
        thread.start()
        ready.wait(20)
        try:
            yield kept["serving"]
        finally:
            if "serving" in kept:
                kept["serving"].do(kept["stop"].set)
            thread.join(20)
            assert not thread.is_alive()


def me() -> str:
    return str(os.getuid())
