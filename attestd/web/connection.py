"""What has one client sent so far, and how much of its answer has left?

Never blocks: the worker's loop calls it when the socket is ready, so that a slow client holds a socket and
nothing else. TLS handshakes, reading and writing all work this way.
"""

import socket
import ssl
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Final

from attestd.web.framing import Framing, Incoming, RawRequest
from attestd.wire import Problem

_PIECE: Final = 64 * 1024
_TURNS: Final = 64
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Phase(Enum):
    READING = auto()  # handshake, head or body; an idle kept connection too
    WORKING = auto()  # a thread has its request
    WRITING = auto()
    CLOSING = auto()  # answered; what still comes is thrown away so that the answer arrives


class Step(Enum):
    """What to do next."""

    AWAIT_READ = auto()
    AWAIT_WRITE = auto()
    REQUEST = auto()  # `request` or `refusal` is set
    SENT = auto()
    GONE = auto()


class Connection:
    """One client's socket. `deadline` is monotonic seconds; the loop enforces it."""

    __slots__ = (
        "_answer",
        "_greeted",
        "client",
        "deadline",
        "idle",
        "incoming",
        "keep",
        "listener",
        "phase",
        "refusal",
        "request",
        "sock",
    )

    def __init__(
        self,
        sock: socket.socket,
        client: str,
        listener: tuple[str, int],
        *,
        context: ssl.SSLContext | None,
        cap_of: Callable[[bytes], int],
    ) -> None:
        sock.setblocking(False)
        if context is not None:
            sock = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self.sock = sock
        self.client = client
        self.listener = listener
        self.incoming = Incoming(cap_of)
        self.phase = Phase.READING
        self.deadline = 0.0
        self.idle = False  # kept, and nothing of a next request has come
        self.keep = False
        self.request: RawRequest | None = None
        self.refusal: Problem | None = None
        self._greeted = context is None
        self._answer = b""

    @property
    def secure(self) -> bool:
        return isinstance(self.sock, ssl.SSLSocket)

    def advance(self) -> Step:
        """Go on with what the phase is about. OSError (TLS errors are some) says that the client is gone."""
        try:
            match self.phase:
                case Phase.WRITING:
                    return self._write()
                case Phase.CLOSING:
                    return self._discard()
            return self._read()
        except (BlockingIOError, ssl.SSLWantReadError):
            return Step.AWAIT_WRITE if self.phase is Phase.WRITING and not self.secure else Step.AWAIT_READ
        except ssl.SSLWantWriteError:
            return Step.AWAIT_WRITE

    def answer(self, data: bytes, *, keep: bool) -> None:
        """Hand over the answer and drop the request; `advance` sends it. Called by the thread that works."""
        self._answer, self.keep, self.phase = data, keep, Phase.WRITING
        self.request = self.refusal = None

    def close(self) -> None:
        self.sock.close()

    def finish(self) -> None:
        """No more from us. The client's last bytes are read away: closing at once would reset the answer."""
        self.phase = Phase.CLOSING
        self.sock.shutdown(socket.SHUT_WR)

    def _read(self) -> Step:
        if not self._greeted:
            assert isinstance(self.sock, ssl.SSLSocket)
            self.sock.do_handshake()
            self._greeted = True
        for _ in self._turns():
            framing = self.incoming.advance()
            if framing is not Framing.MORE:
                self._cut(framing)
                return Step.REQUEST
            if self.incoming.expects_continue():
                self.sock.send(_CONTINUE)
            data = self.sock.recv(_PIECE)
            if not data:
                return self._ended()
            self.incoming.feed(data)
        return Step.AWAIT_READ

    def _turns(self) -> Iterator[None]:
        """So many pieces that others get their turn; what TLS holds decrypted wakes no poller."""
        for _ in range(_TURNS):
            yield
        while isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            yield

    def _cut(self, framing: Framing) -> None:
        self.phase = Phase.WORKING
        match framing:
            case Framing.WHOLE:
                self.request = self.incoming.take()
            case Framing.TOO_LARGE:
                self.refusal = Problem(
                    "too_large", "The body is larger than this path takes.", cause="body_cap"
                )
            case _:
                detail = "The request is not framed as HTTP/1.1 in the one way that is taken here."
                self.refusal = Problem("malformed", detail, cause="http_framing")

    def _ended(self) -> Step:
        if not self.incoming.held:
            return Step.GONE
        self.phase = Phase.WORKING
        self.refusal = Problem("malformed", "The request ended before it was whole.", cause="http_truncated")
        return Step.REQUEST

    def _write(self) -> Step:
        while self._answer:
            sent = self.sock.send(self._answer)
            self._answer = self._answer[sent:]
        return Step.SENT

    def _discard(self) -> Step:
        for _ in range(_TURNS):
            if not self.sock.recv(_PIECE):
                return Step.GONE
        return Step.AWAIT_READ
