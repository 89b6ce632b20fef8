"""Where does one HTTP request end and the next begin?

The bytes of a connection, cut into heads and bodies without IO. Only framing is judged here, and only two
kinds are known: one plain Content-Length, or `Transfer-Encoding: chunked` without extensions and trailers.
Whatever two servers could read in two ways is `BROKEN`. Gunicorn's parser judges the head afterwards; both
must agree.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

MAX_HEAD: Final = 32 * 1024
_MAX_SIZE_LINE: Final = 16
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")
_FREE_CHUNKS: Final = 4096
_LEAST_CHUNK: Final = 512  # bytes that a chunk holds on average, beyond the free ones
_CHUNKED: Final = -1


class Framing(Enum):
    """What the bytes so far are."""

    MORE = auto()  # the request is not whole yet
    WHOLE = auto()
    TOO_LARGE = auto()  # its body is over the cap of its path; it is not read
    BROKEN = auto()  # nobody can say where it ends


@dataclass(frozen=True, slots=True)
class RawRequest:
    """One request: its head with the empty line, its body without chunks, and how the head framed it."""

    head: bytes
    body: bytes
    chunked: bool


class Incoming:
    """The bytes that came in on one connection. `cap_of` gives the largest body for a path as it was sent."""

    __slots__ = (
        "_body",
        "_buffer",
        "_cap",
        "_cap_of",
        "_chunks",
        "_expects",
        "_head_size",
        "_left",
        "_length",
    )

    def __init__(self, cap_of: Callable[[bytes], int]) -> None:
        self._cap_of = cap_of
        self._buffer = bytearray()
        self._start()

    def _start(self) -> None:
        self._head_size = 0  # 0: the head is not whole
        self._length = 0  # of the body; _CHUNKED if only the last chunk tells
        self._cap = 0
        self._chunks = 0
        self._left = 0  # of the current chunk, with its line end
        self._body = bytearray()
        self._expects = False

    @property
    def held(self) -> int:
        """Bytes in memory."""
        return len(self._buffer) + len(self._body)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def advance(self) -> Framing:
        """Judge what is there; call it again after each `feed`, and no more once it is not `MORE`."""
        if not self._head_size:
            framing = self._read_head()
            if framing is not Framing.WHOLE:
                return framing
        if self._length == _CHUNKED:
            return self._read_chunks()
        return Framing.WHOLE if len(self._buffer) >= self._head_size + self._length else Framing.MORE

    def expects_continue(self) -> bool:
        """True once for a client that waits for `100 Continue` before it sends the body."""
        expects, self._expects = self._expects, False
        return expects

    def take(self) -> RawRequest:
        """The whole request; what follows it stays for the next one."""
        head = bytes(self._buffer[: self._head_size])
        if self._length == _CHUNKED:
            request = RawRequest(head, bytes(self._body), True)
            del self._buffer[: self._head_size]
        else:
            end = self._head_size + self._length
            request = RawRequest(head, bytes(self._buffer[self._head_size : end]), False)
            del self._buffer[:end]
        self._start()
        return request

    def _read_head(self) -> Framing:
        while self._buffer[:2] == b"\r\n":  # RFC 9112, 2.2: empty lines before a request are ignored
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end < 0:
            # Waiting for the end of a head that has a bare LF would hold the connection.
            hopeless = _has_bare_lf(self._buffer) or len(self._buffer) >= MAX_HEAD
            return Framing.BROKEN if hopeless else Framing.MORE
        if _has_bare_lf(self._buffer[:end]):
            return Framing.BROKEN
        self._head_size = end + 4
        head = bytes(self._buffer[: end + 2]).lower()
        self._cap = self._cap_of(_path_of(bytes(self._buffer[:end])))
        return self._read_length(head)

    def _read_length(self, head: bytes) -> Framing:
        lengths, codings = _values(head, b"content-length"), _values(head, b"transfer-encoding")
        if len(lengths) + len(codings) > 1:
            return Framing.BROKEN
        if codings:
            if codings[0] != b"chunked":
                return Framing.BROKEN
            self._length = _CHUNKED
        elif lengths:
            if not lengths[0].isdigit():  # of bytes: ASCII digits only
                return Framing.BROKEN
            if len(lengths[0]) > 18 or int(lengths[0]) > self._cap:
                return Framing.TOO_LARGE
            self._length = int(lengths[0])
        self._expects = bool(self._length) and _values(head, b"expect") == [b"100-continue"]
        return Framing.WHOLE

    def _read_chunks(self) -> Framing:
        """Move whole chunks from the buffer to the body."""
        place = self._head_size
        try:
            while True:
                if not self._left:
                    line, mark, _ = bytes(self._buffer[place : place + _MAX_SIZE_LINE + 2]).partition(b"\r\n")
                    if not mark:
                        return self._await_size(line)
                    if not line or not _HEX.issuperset(line) or self._too_many_chunks():
                        return Framing.BROKEN
                    after, size = place + len(line) + 2, int(line, 16)
                    if not size:
                        return self._read_last_line(place, after)
                    if len(self._body) + size > self._cap:
                        return Framing.TOO_LARGE
                    self._left, place = size + 2, after
                place = self._read_chunk(place)
                if self._left:
                    return Framing.BROKEN if self._left < 0 else Framing.MORE
        finally:
            del self._buffer[self._head_size : place]

    def _await_size(self, line: bytes) -> Framing:
        """A size line has begun: is it one that can still end well?"""
        digits = line.removesuffix(b"\r")
        return Framing.MORE if len(digits) <= _MAX_SIZE_LINE and _HEX.issuperset(digits) else Framing.BROKEN

    def _too_many_chunks(self) -> bool:
        """Megabytes in chunks of one byte would cost seconds; no client sends that."""
        self._chunks += 1
        return self._chunks > _FREE_CHUNKS + len(self._body) // _LEAST_CHUNK

    def _read_chunk(self, place: int) -> int:
        """Where the chunk's bytes that were there end; `_left` is negative if no line end follows it."""
        there = len(self._buffer) - place
        data = min(there, max(0, self._left - 2))
        self._body += self._buffer[place : place + data]
        self._left -= data
        if self._left > 2 or there - data < 2:
            return place + data
        self._left = 0 if self._buffer[place + data : place + data + 2] == b"\r\n" else -1
        return place + data + 2

    def _read_last_line(self, size_line: int, place: int) -> Framing:
        """After the last chunk there is an empty line and nothing else: trailers are not taken."""
        ending = bytes(self._buffer[place : place + 2])
        if len(ending) < 2:
            return Framing.MORE if b"\r\n".startswith(ending) else Framing.BROKEN
        if ending != b"\r\n":
            return Framing.BROKEN
        del self._buffer[size_line : place + 2]
        return Framing.WHOLE


def _has_bare_lf(head: bytearray) -> bool:
    return head.count(b"\n") != head.count(b"\r\n")


def _path_of(head: bytes) -> bytes:
    """The request target up to its query; empty if the first line has no two spaces."""
    line = head.partition(b"\r\n")[0].split(b" ")
    return line[1].partition(b"?")[0] if len(line) == 3 else b""


def _values(head: bytes, name: bytes) -> list[bytes]:
    """The values of a header in a lower-case head. Other spellings of the name are refused by the parser."""
    found = []
    mark = b"\r\n" + name + b":"
    place = head.find(mark)
    while place >= 0:
        end = head.find(b"\r\n", place + 2)
        found.append(head[place + len(mark) : end].strip(b" \t"))
        place = head.find(mark, end)
    return found
