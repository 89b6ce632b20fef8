"""Does this connection keep within bounds, and whose is it?

Who connects is identified once, when the connection is accepted, and the calls on it are bound to that.
HTTP/2 lets a peer make the other side keep and do a lot; what grpclib leaves open of it is bounded here: the
size of requests and headers, streams at once and streams thrown away, what is taken in one go and what waits
to be written.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from grpclib.config import Configuration
from grpclib.const import Handler as Method
from grpclib.const import Status
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError
from grpclib.protocol import Connection, EventsProcessor, H2Protocol, Stream
from grpclib.server import Handler, Server
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RemoteSettingsChanged, StreamReset
from h2.events import Event as H2Event
from h2.exceptions import DenialOfServiceError
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings
from hyperframe.frame import Frame

from attestd.agent.workload.calls import REQUEST_SECONDS

MAX_REQUEST = 64 * 1024
"""Bytes of one call, all that comes on its stream."""
MAX_PIECES = 64
"""Into which a request may be cut."""
MAX_HEADERS = 16 * 1024
MAX_TABLE = 4096
"""Bytes that we remember of headers that we sent, whatever the peer would have us remember (HPACK)."""
MAX_SETTINGS = 32
"""Of the peer's, known ones and others."""
MAX_STREAMS = 64
"""At once on one connection."""
MAX_HASTY = 100
"""Streams of one connection that their caller threw away before anything was answered."""
SLICE = 1024
"""Bytes that are worked on before others have their turn."""
GOODBYE_SECONDS = 1.0
_FRAME_HEAD = 9
_TOO_MUCH = f"a request has at most {MAX_REQUEST} bytes, in {MAX_PIECES} pieces"

Methods = dict[str, Method]
Admit = Callable[[asyncio.Transport], "Admitted | None"]


class Admitted:
    """A connection that is served: by which methods, and what to do when it is gone."""

    def __init__(self, methods: Methods, leave: Callable[[], None]) -> None:
        self.methods, self.leave = methods, leave


class BoundedFrames(FrameBuffer):
    """Looks at a frame's length when it begins: the library's waits for all of it first, up to 16 MiB. And at
    the length of a header block while it comes, in as many frames as it may: the library keeps 1 MiB."""

    @property
    def is_within_headers(self) -> bool:
        """Has a header block begun that is not complete?"""
        return bool(self._headers_buffer)

    def __next__(self) -> Frame:
        if len(self._data) >= _FRAME_HEAD:
            self._validate_frame_length(int.from_bytes(self._data[:3], "big"))
        return super().__next__()

    def _update_header_buffer(self, f: Frame | None) -> Frame | None:
        frame = super()._update_header_buffer(f)
        if sum(len(each.data) for each in self._headers_buffer) > MAX_HEADERS:
            raise DenialOfServiceError(f"a header block has at most {MAX_HEADERS} bytes")
        return frame


class BoundedH2(H2Connection):
    """Remembers fewer of the streams that were (else 10 MB a connection), and takes smaller headers and fewer
    streams from the first moment: what is only said in our settings, a caller need not have read."""

    MAX_CLOSED_STREAMS = 256
    DEFAULT_MAX_HEADER_LIST_SIZE = MAX_HEADERS

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self.frames = self.incoming_buffer = BoundedFrames(server=True)
        bounds = {
            SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADERS,
        }
        self.local_settings = Settings(client=False, initial_values=bounds)


class ReadyCodec(ProtoCodec):
    """Sends messages that are serialized already as they are."""

    def encode(self, message: Any, message_type: Any) -> bytes:
        return message if isinstance(message, bytes) else super().encode(message, message_type)


class Listener(Server):
    """grpclib's server with connections that know their caller. A header block is complete within `patience`
    seconds."""

    def __init__(self, admit: Admit) -> None:
        super().__init__([], codec=ReadyCodec())
        self.patience = REQUEST_SECONDS
        self._admit = admit
        self._open: dict[ServedConnection, Callable[[], None]] = {}

    def _protocol_factory(self) -> H2Protocol:
        self.__gc_step__()
        return ServedConnection(self, self._config, self._h2_config)

    def admit(self, connection: "ServedConnection", transport: asyncio.Transport) -> Handler | None:
        admitted = self._admit(transport)
        if admitted is None:
            return None
        handler = Handler(admitted.methods, self._codec, None, self.__dispatch__)
        self._handlers.add(handler)
        self._open[connection] = admitted.leave
        return handler

    def gone(self, connection: "ServedConnection") -> None:
        self._open.pop(connection)()

    def disconnect(self) -> None:
        """End all connections: whoever is there comes back at once and is looked at anew."""
        for connection in tuple(self._open):
            connection.end()

    def close(self) -> None:
        super().close()
        self.disconnect()


class ServedConnection(H2Protocol):
    """One connection."""

    def __init__(self, listener: Listener, config: Configuration, h2_config: H2Configuration) -> None:
        # The handler is the caller's, who is not known yet.
        super().__init__(None, config, h2_config)  # type: ignore[arg-type]
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._waiting = bytearray()
        self._is_full = False
        self._frames: BoundedFrames | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        handler = self._listener.admit(self, transport)
        if handler is None:
            transport.abort()
            return
        self._transport, self.handler = transport, handler
        h2 = BoundedH2(self.h2_config)
        self._frames = h2.frames
        # The windows stay at HTTP/2's least: what a caller has sent and we have not read is 64 KiB.
        h2.initiate_connection()
        self.connection = Connection(h2, transport, config=self.config)
        self.connection.flush()
        self.connection.initialize()
        self.processor = BoundedEvents(handler, self.connection, h2, self.end)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        if not self._waiting and len(data) <= SLICE:
            self._work(data)
            return
        self._waiting += data
        self._transport.pause_reading()
        asyncio.get_running_loop().call_soon(self._next)

    def pause_writing(self) -> None:
        """The caller does not read: what it asks meanwhile would only make more wait."""
        self._is_full = True
        self.connection.pause_writing()
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_full = False
        self.connection.resume_writing()
        self._next()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._transport is not None:
            self._transport = None
            self._set_deadline(False)
            self.processor.close("Connection lost")
            self._listener.gone(self)

    def end(self) -> None:
        """Hang up; open calls are cancelled. What is written already may still be read, for a while."""
        if self._transport is not None and not self._transport.is_closing():
            self.connection.flush()
            self.processor.close("The connection was ended")
            asyncio.get_running_loop().call_later(GOODBYE_SECONDS, self._transport.abort)

    def _next(self) -> None:
        """The next slice; the others' turn comes before the one after."""
        if self._transport is None or self._transport.is_closing() or self._is_full:
            return
        piece = bytes(self._waiting[:SLICE])
        del self._waiting[:SLICE]
        if piece:
            self._work(piece)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        elif not self._is_full:
            self._transport.resume_reading()

    def _work(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except Exception:
            # Not HTTP/2, in a way that the library has no word for.
            self.end()
        self._set_deadline(self._frames is not None and self._frames.is_within_headers)

    def _set_deadline(self, waits: bool) -> None:
        """What is kept of an unfinished header block is not kept for long."""
        if waits and self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(self._listener.patience, self.end)
        elif not waits and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class BoundedEvents(EventsProcessor):
    """What the peer does on its streams."""

    def __init__(
        self, handler: Handler, connection: Connection, h2: H2Connection, end: Callable[[], None]
    ) -> None:
        super().__init__(handler, connection)
        self._h2, self._end = h2, end
        self._hasty = 0
        self._pieces: Counter[int] = Counter()

    def process(self, event: H2Event) -> None:
        """Frames of kinds that we do not know are ignored (RFC 9113, section 5.5)."""
        if event.__class__ in getattr(self, "processors", ()):
            super().process(event)

    def register(self, stream: Stream) -> Callable[[], None]:
        release = super().register(stream)

        def released() -> None:
            self._pieces.pop(stream.id or 0, None)
            release()

        return released

    def process_remote_settings_changed(self, event: RemoteSettingsChanged) -> None:
        super().process_remote_settings_changed(event)
        # Neither as many settings as there are numbers, nor what we said before, is kept for a peer.
        self._h2.encoder.header_table_size = min(self._h2.encoder.header_table_size, MAX_TABLE)
        if len(self._h2.remote_settings) > MAX_SETTINGS:
            self._end()

    def process_data_received(self, event: DataReceived) -> None:
        size, stream = event.flow_controlled_length or 0, self.streams.get(event.stream_id)
        if not size:
            return
        if stream is not None:
            self._pieces[event.stream_id] += 1
            too_many = self._pieces[event.stream_id] > MAX_PIECES
            if too_many or stream.data_received + len(event.data) > MAX_REQUEST:
                self.connection.ack(event.stream_id, size)
                _fail(stream, GRPCError(Status.RESOURCE_EXHAUSTED, _TOO_MUCH))
                return
        super().process_data_received(event)

    def process_stream_reset(self, event: StreamReset) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None and not stream.data_sent:
            self._hasty += 1
        super().process_stream_reset(event)
        if self._hasty > MAX_HASTY:
            self._h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            self._end()


def _fail(stream: Stream, error: GRPCError) -> None:
    """End the call with this status."""
    if stream.wrapper is not None:
        stream.wrapper.cancel(error)
    elif stream.closable:
        stream.reset_nowait(ErrorCodes.ENHANCE_YOUR_CALM)
