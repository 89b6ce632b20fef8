"""What does an agent say to its TPM and to its service, and when?

Relays that stand in between, so that the agent is the real one in a process of its own. Each moment is
`time.monotonic()` in seconds.
"""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_HEADER = 10
"""Bytes in front of each TPM command and answer: tag, size, code."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """One exchange: a TPM command, or a connection to the service (without bytes)."""

    begin: float
    end: float
    command: bytes = b""
    answer: bytes = b""

    @property
    def seconds(self) -> float:
        return self.end - self.begin


class Tap:
    """Accepts at `listening` and hands each connection to a thread of its own. `spoken` is in order."""

    def __init__(self, listening: socket.socket, relay: Callable[[socket.socket], None]) -> None:
        self._listening, self._relay = listening, relay
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with suppress(OSError):  # Closed: the end.
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._relay, args=(connection,), daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.thread.join()


class TpmTap:
    """A socket at `path` in front of the software TPM's, and one for its control channel beside it."""

    def __init__(self, path: Path, real: Path, now: Callable[[], float]) -> None:
        self.spoken: list[Spoken] = []
        self.opened: list[float] = []
        self._real, self._now = real, now
        self._tap = Tap(_listen(path), self._relay)
        path.with_name(path.name + ".ctrl").symlink_to(f"{real}.ctrl")

    def _relay(self, connection: socket.socket) -> None:
        self.opened.append(self._now())
        with connection, socket.socket(socket.AF_UNIX) as tpm, suppress(ConnectionError):
            tpm.connect(str(self._real))
            while command := message(connection):
                begin = self._now()
                tpm.sendall(command)
                answer = message(tpm)
                end = self._now()
                connection.sendall(answer)
                self.spoken.append(Spoken(begin, end, command, answer))

    def close(self) -> None:
        self._tap.close()


class ServiceTap:
    """A port in front of the service's. What passes is TLS: only when is known, not what."""

    def __init__(self, port: int, real: int, now: Callable[[], float]) -> None:
        self.spoken: list[Spoken] = []
        self._real, self._now = real, now
        listening = socket.create_server(("127.0.0.1", port))
        self._tap = Tap(listening, self._relay)

    def _relay(self, connection: socket.socket) -> None:
        begin = self._now()
        with connection, socket.create_connection(("127.0.0.1", self._real)) as service:
            for each in (connection, service):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=_pump, args=(service, connection), daemon=True)
            back.start()
            _pump(connection, service)
            end = self._now()
            back.join()
        self.spoken.append(Spoken(begin, end))

    def close(self) -> None:
        self._tap.close()


def message(connection: socket.socket) -> bytes:
    """One whole TPM command or answer; empty at the end."""
    whole = connection.recv(8192)
    while whole and (len(whole) < _HEADER or len(whole) < struct.unpack_from(">I", whole, 2)[0]):
        piece = connection.recv(8192)
        if not piece:
            raise ConnectionError("it ended within a message")
        whole += piece
    return whole


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _listen(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    return listening
