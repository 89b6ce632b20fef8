"""Bytes to a port and back, exactly as written."""

import contextlib
import re
import socket
import time
from dataclasses import dataclass

HEAD = b"POST /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
GOOD = HEAD + b"Content-Length: 12\r\n\r\n" + b'{"number":7}'
_GRACE = 0.15
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: ([0-9]+)")
_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [A-Z]")


@dataclass(frozen=True)
class Reply:
    """Everything that came until the peer closed, or until nothing came for a while."""

    data: bytes
    closed: bool
    seconds: float

    @property
    def statuses(self) -> list[int]:
        """The status of each answer; a pipelined answer follows the body of the one before."""
        return [int(status) for status in _STATUS.findall(self.data)]


def exchange(port: int, *pieces: bytes, wait: float = 5.0, end: bool = False) -> Reply:
    """Send the pieces one after the other; read until the peer closes or is silent for `wait` seconds.

    `end` closes our sending side after the last piece.
    """
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                sock.sendall(piece)
                time.sleep(0.02 if len(pieces) > 1 else 0)
            if end:
                sock.shutdown(socket.SHUT_WR)
        data, closed = read(sock, wait)
        return Reply(data, closed, time.monotonic() - started)


def read(sock: socket.socket, wait: float) -> tuple[bytes, bool]:
    """What comes, and whether the peer closed; after a whole answer there is little patience left."""
    data = b""
    sock.settimeout(wait)
    try:
        while piece := sock.recv(65536):
            data += piece
            if _whole(data):
                sock.settimeout(min(wait, _GRACE))
    except TimeoutError:
        return data, False
    except ConnectionError:
        return data, True
    return data, True


def _whole(data: bytes) -> bool:
    """The last answer in the bytes has its body; one to HEAD has none, and waits for its time."""
    head, mark, body = data[data.rfind(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return bool(mark and length and len(body) >= int(length[1]))
