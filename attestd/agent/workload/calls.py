"""What happens in a call of the SPIFFE Workload API?

The order is the same for each: the header that no web page can send, the request, then whether any rule names
this caller, and only then what it gets. A stream says something again when that has changed, and ends when
nothing is left to say.
"""

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from grpclib.const import Handler as Method
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.server import Stream
from h2.exceptions import H2Error

from attestd.agent.errors import plain
from attestd.agent.holdings import Held, Holdings
from attestd.agent.settings import Workload
from attestd.agent.workload import messages
from attestd.agent.workload.answers import Answer, Reading, denied, invalid
from attestd.agent.workload.bounds import Bounds, Refused
from attestd.agent.workload.caller import Caller
from attestd.agent.workload.messages import Call
from attestd.agent.workload.source import Source

REQUEST_SECONDS = 10.0
"""For all of a request to come."""
LOOK_SECONDS = 30.0
"""A stream looks at the clock at least this often: timers stand still while a machine is suspended, and know
nothing of a clock that was set."""

log = logging.getLogger("attestd.agent.workload")

ServerStream = Stream[Any, Any]


class Prepared:
    """Answers of the present picture, made once for all who get the same. What a workload is given stands in
    its settings, so an answer is for those and not for its name."""

    def __init__(self) -> None:
        self._of: Holdings | None = None
        self._made: dict[tuple[Reading, tuple[Workload, ...]], Answer] = {}

    def answer(
        self, reading: Reading, workloads: tuple[Workload, ...], holdings: Holdings, now: int
    ) -> Answer:
        if holdings is not self._of:
            self._of, self._made = holdings, {}
        key = reading, workloads
        made = self._made.get(key)
        if made is None or made.until <= now:
            made = self._made[key] = reading(workloads, holdings, now)
        return made


@dataclass(frozen=True, slots=True)
class House:
    """What all connections share."""

    source: Source
    now: Callable[[], int]
    bounds: Bounds
    refused: Refused
    prepared: Prepared


Answering = Callable[[Any], Awaitable[Any]]
"""From the request to the one answer: a message, or one that is serialized already."""


@dataclass(frozen=True, slots=True)
class Served:
    """One caller with what it may be; empty for one whom no rule names."""

    house: House
    caller: Caller
    workloads: tuple[Workload, ...]

    def once(self, call: Call, answering: Answering) -> Method:
        """A method with one answer."""

        async def run(stream: ServerStream) -> None:
            request = await _request(stream)
            self.check_known()
            await stream.send_message(await answering(request))

        return self._method(call, run)

    def follow(self, call: Call, reading: Reading) -> Method:
        """A method that answers again whenever the answer is another."""

        async def run(stream: ServerStream) -> None:
            request = await _request(stream)
            self.check_known()
            await self._push(stream, reading, getattr(request, "spiffe_id", ""))

        return self._method(call, run)

    def unimplemented(self) -> Method:
        """What is no method of ours."""

        async def run(_: ServerStream) -> None:
            raise GRPCError(Status.UNIMPLEMENTED, "the agent has no such method")

        return self._method(messages.FETCH_X509_SVID, run)

    def check_known(self) -> None:
        """PermissionDenied where no rule names this caller."""
        if not self.workloads:
            self.house.refused.note(f"no workload is for {self.caller}")
            raise denied(f"no workload of this machine is for {self.caller}")

    def named(self, spiffe_id: str) -> tuple[Workload, ...]:
        """Those that have this SPIFFE ID or may come to have it; all for an empty one. PermissionDenied if
        there is none."""
        held = self.house.source.holdings.held
        found = tuple(
            workload
            for workload in self.workloads
            if not spiffe_id or _spiffe_ids(held.get(workload.agent)) in (set(), {spiffe_id})
        )
        if not found:
            self.house.refused.note(f"{plain(spiffe_id)} is not {self.caller}")
            raise denied("no workload of this caller has the SPIFFE ID that was asked for")
        return found

    def _method(self, call: Call, run: Callable[[ServerStream], Awaitable[None]]) -> Method:
        async def bounded(stream: ServerStream) -> None:
            _check_header(stream)
            with self.house.bounds.call(self.caller.uid, stranger=not self.workloads):
                try:
                    await run(stream)
                except (GRPCError, StreamTerminatedError, H2Error):
                    raise
                except Exception:
                    log.exception("%s failed", call.path)
                    raise GRPCError(Status.INTERNAL, "the agent failed; its log says how") from None

        return Method(bounded, call.cardinality, call.request, call.response)

    async def _push(self, stream: ServerStream, reading: Reading, spiffe_id: str) -> None:
        """Until the caller goes or nothing is left for it. At most one message for each change, and none for
        one that does not concern this caller."""
        house, sent = self.house, None
        while True:
            holdings, now = house.source.holdings, house.now()
            answer = house.prepared.answer(reading, self.named(spiffe_id), holdings, now)
            if answer.raw != sent:
                await stream.send_message(answer.raw)
                sent = answer.raw
            rest = min(LOOK_SECONDS, max(0, answer.until - now) / 1000)
            with suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await house.source.changed(holdings)


def _spiffe_ids(held: Held | None) -> set[str]:
    """One, or none where nothing says it yet."""
    svids = () if held is None else (held.x509, held.wit, held.jwt)
    return {svid.spiffe_id for svid in svids if svid is not None}


class Methods(dict[str, Method]):
    """A connection's methods by path, each made when it is first asked for. Any other path is answered, too,
    as gRPC says it: the library's own answer is one that clients cannot read."""

    def __init__(
        self,
        served: Served,
        once: Mapping[str, tuple[Call, Answering]],
        followed: Mapping[str, tuple[Call, Reading]],
    ) -> None:
        super().__init__()
        self._served, self._once, self._followed = served, once, followed

    def get(self, path: str, default: Any = None) -> Any:
        if path not in self:
            if path in self._followed:
                self[path] = self._served.follow(*self._followed[path])
            elif path in self._once:
                self[path] = self._served.once(*self._once[path])
            else:
                return self._served.unimplemented()
        return self[path]


def _check_header(stream: ServerStream) -> None:
    """InvalidArgument without the header (SPIFFE Workload Endpoint, section 3); twice is not once."""
    name, value = messages.SECURITY_HEADER
    metadata = stream.metadata
    if metadata is None or [str(one) for one in metadata.getall(name, [])] != [value]:
        raise invalid(f"a request carries the metadata {name}: {value}, once")


async def _request(stream: ServerStream) -> Any:
    """The one message of the request."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            request = await stream.recv_message()
    except TimeoutError:
        raise GRPCError(Status.DEADLINE_EXCEEDED, "the request did not come") from None
    except (DecodeError, AssertionError, RuntimeError, struct.error):
        raise invalid("the request cannot be read; it is uncompressed protobuf") from None
    if request is None:
        raise invalid("there was no request")
    return request
