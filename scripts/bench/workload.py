"""What does the Workload API cost a local program, beside a plain gRPC service of the same library?

Both answer a stream's first message, the same one, in one process, so that what slows one slows the other;
the client is the same, too: it fetches once, as most do. What ours does besides is to know who asks and to
give nobody too much.
"""

import asyncio
import multiprocessing
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from grpclib.client import Channel, UnaryStreamMethod
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream

from attestd.agent.settings import Settings
from attestd.agent.workload.answers import x509_svids
from attestd.agent.workload.messages import FETCH_X509_SVID, SECURITY_HEADER
from attestd.agent.workload.server import serve
from attestd.clock import now_ms
from scripts.bench.measure import Row
from tests.attestd.agent.workload.domain import Domain, workload
from tests.attestd.agent.workload.serving import HOUR, Shelf

FETCHES = 2000
CONNECTIONS = 600
WARM_UP = 50
BOUND = 1.3


def rows() -> Iterator[Row]:
    """A fetch on a kept connection, how many of them a second, and the first byte on a new one."""
    with tempfile.TemporaryDirectory(prefix="attestd-bench-") as work, ExitStack() as stack:
        ours, echo = (Path(work) / name for name in ("ours.sock", "echo.sock"))
        stack.enter_context(_running(ours, echo))
        kept = asyncio.run(_fetches(ours, echo))
        row = Row.beside("workload API: X.509-SVID, kept connection", *kept, bound=BOUND)
        yield row
        yield Row.alone("  fetches one after the other", kept[0], note=f"{_rate(kept[0])} a second")
        yield Row.alone("  the same of the plain service", kept[1], note=f"{_rate(kept[1])} a second")
        first = asyncio.run(_first_bytes(ours, echo))
        yield Row.beside("workload API: connect, then the first byte", *first, bound=BOUND)


def _rate(values: list[float]) -> int:
    return int(len(values) * 1_000_000 / sum(values))


async def _fetch(channel: Channel) -> bytes:
    """One answer; then the caller goes."""
    call = FETCH_X509_SVID
    method = UnaryStreamMethod(channel, call.path, call.request, call.response)
    async with method.open(metadata=[SECURITY_HEADER]) as stream:
        await stream.send_message(call.request(), end=True)
        answer: Any = await stream.recv_message()
        await stream.cancel()
    return bytes(answer.SerializeToString())


async def _fetches(ours: Path, echo: Path) -> tuple[list[float], list[float]]:
    """Microseconds of each, in turn."""
    async with Channel(path=str(ours)) as one, Channel(path=str(echo)) as other:
        return await _in_turn(lambda: _fetch(one), lambda: _fetch(other), FETCHES)


async def _first_bytes(ours: Path, echo: Path) -> tuple[list[float], list[float]]:
    """Likewise, with a new connection each time."""

    def fetch_from(path: Path) -> Callable[[], Awaitable[bytes]]:
        async def fetch() -> bytes:
            async with Channel(path=str(path)) as channel:
                return await _fetch(channel)

        return fetch

    return await _in_turn(fetch_from(ours), fetch_from(echo), CONNECTIONS)


async def _in_turn(
    ours: Callable[[], Awaitable[bytes]], floor: Callable[[], Awaitable[bytes]], count: int
) -> tuple[list[float], list[float]]:
    measured: tuple[list[float], list[float]] = ([], [])
    for number in range(count + WARM_UP):
        for values, work in zip(measured, (ours, floor), strict=True):
            begin = time.perf_counter_ns()
            await work()
            if number >= WARM_UP:
                values.append((time.perf_counter_ns() - begin) / 1000)
    return measured


@contextmanager
def _running(ours: Path, echo: Path) -> Iterator[None]:
    """Both servers, from when their sockets are there."""
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(ours, echo), daemon=True)
    process.start()
    try:
        until = time.monotonic() + 30
        while not (ours.exists() and echo.exists()) and process.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.join(10)


class Echo:
    """One method, which says this message and waits."""

    def __init__(self, message: Any) -> None:
        self._message = message

    async def say(self, stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        await stream.send_message(self._message)
        await asyncio.Event().wait()

    def __mapping__(self) -> dict[str, Handler]:
        call = FETCH_X509_SVID
        return {call.path: Handler(self.say, Cardinality.UNARY_STREAM, call.request, call.response)}


def _serve(ours: Path, echo: Path) -> None:
    telemetry = workload("telemetry", user=[str(os.getuid())])
    domain = Domain.new()
    holdings = domain.holdings(telemetry, until=now_ms() + HOUR)
    raw = x509_svids((telemetry,), holdings, now_ms()).raw

    async def main() -> None:
        shelf = Shelf(domain, holdings=holdings)
        plain = Server([Echo(FETCH_X509_SVID.response.FromString(raw))])
        async with serve(shelf, Settings(socket=ours, workloads=(telemetry,)), now=now_ms):
            await plain.start(path=str(echo))
            await asyncio.Event().wait()

    asyncio.run(main())
