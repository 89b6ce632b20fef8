"""Whatever a local program sends, the agent lives, grows no further than its bounds, and serves others."""

import asyncio
import logging
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, ResponseReceived, StreamReset, TrailersReceived
from h2.events import Event as H2Event
from h2.settings import SettingCodes

from attestd.agent.errors import Unreachable
from attestd.agent.workload import bounds, connections, messages
from tests.attestd.agent.workload.domain import workload
from tests.attestd.agent.workload.serving import Serving, me, serving
from tests.attestd.agent.workload.test_other_users import AM_ROOT, asked_by

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
OTHER = 64_001
RULES = [workload("telemetry", user=[me()]), workload("other", user=[str(OTHER)])]
MIB = 1 << 20
PATIENCE = 30
"""Seconds, on a machine that may do much else; alone it takes a hundredth of one."""


@pytest.fixture
def there() -> Iterator[Serving]:
    with serving(*RULES) as made:
        yield made
        assert is_well(made)


def is_well(there: Serving) -> bool:
    """A good caller is served, in good time; at once or when this user's other connections are through."""

    async def run() -> str:
        while True:
            async with there.client() as client:
                with suppress(Unreachable):
                    return (await client.x509_svid()).spiffe_id
            await asyncio.sleep(0.01)

    return asyncio.run(asyncio.wait_for(run(), PATIENCE)) == there.shelf.domain.spiffe_id("telemetry")


def resident() -> int:
    """Bytes of this process's memory."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


class Peer:
    """A caller that speaks HTTP/2 as it likes."""

    def __init__(self, there: Serving) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(there.path))
        loose = H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = H2Connection(loose)
        self.h2.initiate_connection()
        self.flush()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def open(self, *extra: tuple[str, str], path: str = messages.FETCH_X509_SVID.path) -> int:
        """Begin a call; its stream."""
        stream = int(self.h2.get_next_available_stream_id())
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
            "workload.spiffe.io": "true",
        }
        self.h2.send_headers(stream, [*headers.items(), *extra])
        return stream

    def events(self) -> Iterator[H2Event]:
        """What the server says, until it hangs up or is silent for a while."""
        while True:
            with suppress(OSError):
                data = self.sock.recv(65_536)
                if data:
                    yield from self.h2.receive_data(data)
                    with suppress(OSError):
                        self.flush()
                    continue
            return

    def status_of(self, stream: int) -> str | None:
        """`grpc-status` of this call; None where the stream or the connection was ended without one."""
        for event in self.events():
            match event:
                case ResponseReceived(stream_id=of) | TrailersReceived(stream_id=of) if of == stream:
                    headers = {_text(name): _text(value) for name, value in event.headers or ()}
                    if "grpc-status" in headers:
                        return headers["grpc-status"]
                case StreamReset(stream_id=of) if of == stream:
                    return None
                case ConnectionTerminated():
                    return None
        return None

    def is_hung_up_on(self) -> bool:
        """Within the time that a socket is waited for."""
        for _ in self.events():
            pass
        try:
            return self.sock.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def message(size: int, *, told: int | None = None, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, size if told is None else told) + b"\0" * size


def test_random_bytes_end_their_connection_and_nothing_else(there: Serving) -> None:
    draw = random.Random(20_261_125)
    for turn in range(300):
        begin = (b"", PREFACE, PREFACE + SETTINGS)[turn % 3]
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(there.path))
            with suppress(OSError):
                sock.sendall(begin + draw.randbytes(draw.randrange(1, 4096)))


def test_mutated_calls_end_their_connection_and_nothing_else(there: Serving) -> None:
    draw = random.Random(7)
    with Peer(there) as peer:
        stream = peer.open()
        peer.h2.send_data(stream, message(0), end_stream=True)
        good = PREFACE + SETTINGS + peer.h2.data_to_send()
    for _ in range(400):
        bad = bytearray(good)
        for _ in range(draw.randrange(1, 5)):
            bad[draw.randrange(len(PREFACE), len(bad))] = draw.randrange(256)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(there.path))
            with suppress(OSError):
                sock.sendall(bytes(bad[: draw.randrange(len(PREFACE), len(bad) + 1)]))


FRAMES = {
    "longer_than_a_frame_may_be": b"\x00\x40\x01\x00\x00\x00\x00\x00\x01",
    "as_long_as_can_be_said": b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    "headers_on_stream_0": b"\0\0\1\x01\x05\0\0\0\0\x82",
    "headers_on_an_even_stream": b"\0\0\1\x01\x05\0\0\0\x02\x82",
    "data_on_a_stream_that_is_none": b"\0\0\1\x00\x00\0\0\0\x09x",
    "continuation_of_nothing": b"\0\0\1\x09\x04\0\0\0\x01\x82",
    "bad_hpack": b"\0\0\4\x01\x05\0\0\0\x01\xff\xff\xff\xff",
    "window_over_its_end": b"\0\0\4\x08\0\0\0\0\0\x7f\xff\xff\xff",
    "settings_of_five_bytes": b"\0\0\5\x04\0\0\0\0\0abcde",
    "padding_longer_than_the_frame": b"\0\0\2\x00\x08\0\0\0\x01\xff\0",
    "push_promise": b"\0\0\5\x05\x04\0\0\0\x01\0\0\0\x02\x82",
    "goaway": b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0",
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_a_frame_that_must_not_be_ends_its_connection(frame: bytes, there: Serving) -> None:
    with Peer(there) as peer:
        peer.sock.sendall(frame)
        assert peer.is_hung_up_on()


def test_a_kind_of_frame_that_we_do_not_know_is_ignored(there: Serving) -> None:
    with Peer(there) as peer:
        peer.sock.sendall(b"\0\0\3\xee\0\0\0\0\0abc" + b"\0\0\3\x0a\0\0\0\0\0\0\1x")
        stream = peer.open(path="/SpiffeWorkloadAPI/Nothing")
        peer.h2.send_data(stream, message(0), end_stream=True)
        peer.flush()
        assert peer.status_of(stream) == "12"


@pytest.mark.parametrize(
    ("expected", "body"),
    [
        ("3", b""),
        ("3", b"\0\0"),
        ("3", message(0, told=9)),
        ("3", message(3, compressed=1)),
        ("3", message(3)),
        ("8", message(70_000)),
    ],
)
def test_a_request_that_is_none_is_told_so(expected: str, body: bytes, there: Serving) -> None:
    with Peer(there) as peer:
        stream = peer.open(path=messages.FETCH_JWT_SVID.path)
        send(peer, stream, body)
        assert peer.status_of(stream) == expected


def test_pieces_without_content_mean_nothing(there: Serving) -> None:
    with Peer(there) as peer:
        stream = peer.open(path=messages.FETCH_JWT_SVID.path)
        for _ in range(2 * connections.MAX_PIECES):
            peer.h2.send_data(stream, b"")
        audience = b"\x0a\x01x"
        peer.h2.send_data(stream, struct.pack(">BI", 0, len(audience)) + audience, end_stream=True)
        peer.flush()
        assert peer.status_of(stream) == "7"


def send(peer: Peer, stream: int, body: bytes) -> None:
    """All of it, as the windows allow."""
    while True:
        window = min(peer.h2.local_flow_control_window(stream), peer.h2.max_outbound_frame_size)
        peer.h2.send_data(stream, body[:window], end_stream=len(body) <= window)
        peer.flush()
        body = body[window:]
        if not body:
            return
        while not peer.h2.local_flow_control_window(stream):
            for event in peer.h2.receive_data(peer.sock.recv(65_536)):
                if isinstance(event, TrailersReceived | ResponseReceived):
                    pytest.fail("answered before all was sent")


def test_a_request_that_is_longer_than_it_may_be_is_not_kept(there: Serving) -> None:
    """The length says 4 GiB; as much as is taken is sent."""
    before = resident()
    with Peer(there) as peer:
        stream = peer.open(path=messages.FETCH_JWT_SVID.path)
        peer.h2.send_data(stream, struct.pack(">BI", 0, 2**32 - 1))
        peer.flush()
        sent, until = 0, time.monotonic() + 10
        peer.sock.settimeout(1)
        with suppress(Exception):
            while sent < 64 * MIB and time.monotonic() < until:
                window = min(peer.h2.local_flow_control_window(stream), 16_384)
                if window:
                    peer.h2.send_data(stream, b"\0" * window)
                    peer.flush()
                    sent += window
                else:
                    peer.h2.receive_data(peer.sock.recv(65_536))
        assert sent <= 3 * connections.MAX_REQUEST
    assert resident() - before < 16 * MIB


def many_settings() -> bytes:
    """Every number that a setting can have, each in use for something that we do not know."""
    frames = b""
    for begin in range(100, 62_000, 2700):
        pairs = b"".join(struct.pack(">HI", number, 1) for number in range(begin, begin + 2700))
        frames += len(pairs).to_bytes(3, "big") + b"\x04\0\0\0\0\0" + pairs
    return frames


def test_settings_in_masses_are_not_kept(there: Serving) -> None:
    """40 MB a connection, if all of them were."""
    with Peer(there) as peer:
        with suppress(OSError):
            peer.sock.sendall(many_settings())
        assert peer.is_hung_up_on()


@pytest.mark.parametrize("piece", [b"\0\0\0\x00\0\0\0\0\x01", b"\0\0\1\x00\0\0\0\0\x01x"])
def test_small_pieces_in_masses_are_not_kept(piece: bytes, there: Serving) -> None:
    """On a stream whose request was read: nothing, and next to nothing, again and again."""

    def kept() -> int:
        streams = [each for one in there.endpoint.listener._open for each in one.processor.streams.values()]
        return sum(stream.buffer._unacked.qsize() for stream in streams)

    with Peer(there) as peer:
        stream = peer.open()
        peer.h2.send_data(stream, message(0))
        peer.flush()
        with suppress(OSError):
            peer.sock.sendall(piece * 2000 + b"\0\0\x08\x06\0\0\0\0\0all-read")
            while b"all-read" not in (came := peer.sock.recv(65_536)) and came:
                pass
        assert there.do(kept) <= connections.MAX_PIECES


def test_what_we_say_is_not_remembered_for_a_caller_that_wants_it_so(there: Serving) -> None:
    """A huge table for headers, and refusals that differ each time."""
    with Peer(there) as peer:
        peer.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: 2**31})
        stream = peer.open(path=messages.FETCH_JWT_SVID.path)
        peer.h2.send_data(stream, message(0), end_stream=True)
        peer.flush()
        assert peer.status_of(stream) == "3"
        (served,) = there.endpoint.listener._open
        assert served.connection._connection.encoder.header_table_size <= connections.MAX_TABLE


@pytest.mark.parametrize("how", ["one_block", "many_fields", "continuations"])
def test_headers_beyond_measure_end_their_connection(how: str, there: Serving) -> None:
    with Peer(there) as peer:
        if how == "one_block":
            peer.open(("x", "y" * 40_000))
        elif how == "many_fields":
            peer.open(*[(f"x{n}", "y" * 60) for n in range(400)])
        else:
            peer.sock.sendall(b"\0\0\1\x01\x00\0\0\0\x01\x82")
            with suppress(OSError):
                for _ in range(10_000):
                    peer.sock.sendall(b"\0\0\1\x09\x00\0\0\0\x01\x82")
        with suppress(OSError):
            peer.flush()
        assert peer.is_hung_up_on()


def frame(kind: int, flags: int, payload: bytes) -> bytes:
    """On stream 1."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + b"\0\0\0\1" + payload


def ends_unanswered(peer: Peer) -> bool:
    """As `is_hung_up_on`, for one that says nothing itself: any other frame within a header block ends it."""
    with suppress(ConnectionError):
        try:
            while peer.sock.recv(65_536):
                pass
        except TimeoutError:
            return False
    return True


def test_an_unfinished_header_block_is_not_kept_beyond_its_bound(there: Serving) -> None:
    """1 MiB a connection, as the library would."""
    there.endpoint.listener.patience = 3600
    with Peer(there) as peer:
        peer.sock.sendall(frame(1, 0, b"\x82" * 10_000) + frame(9, 0, b"\x82" * 10_000))
        assert ends_unanswered(peer)


def test_an_unfinished_header_block_ends_its_connection_and_a_slow_one_is_read(there: Serving) -> None:
    there.endpoint.listener.patience = 0.5
    with Peer(there) as peer, Peer(there) as slow:
        peer.sock.sendall(frame(1, 0, b"\x82"))
        stream = slow.open(path="/SpiffeWorkloadAPI/Nothing")
        head = slow.h2.data_to_send()
        slow.sock.sendall(head[:3] + bytes([head[3], 0]) + head[5:])
        time.sleep(0.1)
        slow.sock.sendall(frame(9, 4, b""))
        assert ends_unanswered(peer)
        time.sleep(0.5)
        slow.h2.send_data(stream, message(0), end_stream=True)
        slow.flush()
        assert slow.status_of(stream) == "12"


def test_headers_as_they_may_be_are_read(there: Serving) -> None:
    with Peer(there) as peer:
        stream = peer.open(("x", "y" * 8000), path=messages.FETCH_JWT_SVID.path)
        peer.h2.send_data(stream, message(0), end_stream=True)
        peer.flush()
        assert peer.status_of(stream) == "3"


def test_streams_thrown_away_in_masses_end_their_connection(there: Serving) -> None:
    """Rapid reset (CVE-2023-44487)."""
    with Peer(there) as peer:
        with suppress(OSError):
            for _ in range(20 * connections.MAX_HASTY):
                peer.h2.reset_stream(peer.open())
                peer.flush()
        assert peer.is_hung_up_on()


def test_streams_given_up_after_their_answer_are_everyday_life(there: Serving) -> None:
    """As a client fetches once: it opens a stream, reads one answer and goes."""

    async def run() -> None:
        async with there.client() as client:
            for _ in range(3 * connections.MAX_HASTY):
                await client.x509_svid()

    asyncio.run(run())


def test_more_streams_than_may_be_at_once_end_their_connection(there: Serving) -> None:
    with Peer(there) as peer:
        peer.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 10_000
        peer.h2.remote_settings.acknowledge()
        with suppress(OSError):
            for _ in range(connections.MAX_STREAMS + 1):
                peer.open()
            peer.flush()
        assert peer.is_hung_up_on()


@pytest.mark.parametrize("flood", ["pings", "settings", "empty_data"])
def test_who_sends_without_end_and_never_reads_is_not_kept_for(flood: str, there: Serving) -> None:
    """What we owe it fills its socket, and then we stop reading from it."""
    frame = {
        "pings": b"\0\0\x08\x06\0\0\0\0\0" + bytes(8),
        "settings": SETTINGS,
        "empty_data": b"\0\0\0\x00\0\0\0\0\x01",
    }[flood]
    before = resident()
    with Peer(there) as peer:
        peer.open()
        peer.flush()
        peer.sock.settimeout(1)
        sent, until = 0, time.monotonic() + 3
        with suppress(OSError):
            while time.monotonic() < until:
                sent += peer.sock.send(frame * 4000)
        slowest = max(timed(lambda: is_well(there)) for _ in range(5))
    assert slowest < PATIENCE / 2
    assert resident() - before < 16 * MIB


def timed(work: Callable[[], object]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def test_others_are_served_while_some_send_as_fast_as_they_can(there: Serving) -> None:
    stop = threading.Event()

    def shout() -> None:
        with Peer(there) as peer, suppress(OSError):
            reader = threading.Thread(target=lambda: [None for _ in peer.events()], daemon=True)
            reader.start()
            while not stop.is_set():
                peer.sock.sendall((b"\0\0\x08\x06\0\0\0\0\0" + bytes(8)) * 1000)

    shouting = [threading.Thread(target=shout) for _ in range(4)]
    for each in shouting:
        each.start()
    try:
        assert max(timed(lambda: is_well(there)) for _ in range(5)) < PATIENCE / 2
    finally:
        stop.set()
        for each in shouting:
            each.join(20)


def test_connections_without_end_are_one_users_own_trouble(there: Serving) -> None:
    """Two thousand of one user: those beyond its share are closed, those it had before live, and another
    user is served as ever."""
    early = Peer(there)
    held: list[socket.socket] = []
    try:
        for _ in range(2000):
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            while sock.connect_ex(str(there.path)):
                time.sleep(0.001)  # The queue is full for a moment.
            held.append(sock)
            if len(held) > 300:
                held.pop(200).close()
        time.sleep(0.2)
        assert there.do(lambda: len(there.endpoint.listener._open)) <= bounds.CONNECTIONS_OF_USER
        assert there.endpoint.refused > 1000
        stream = early.open(path="/SpiffeWorkloadAPI/Nothing")
        early.h2.send_data(stream, message(0), end_stream=True)
        early.flush()
        assert early.status_of(stream) == "12"
        if AM_ROOT:
            assert asked_by(OTHER, there) == {"given": there.shelf.domain.spiffe_id("other")}
    finally:
        early.sock.close()
        for sock in held:
            sock.close()
    until = time.monotonic() + 10
    while there.do(lambda: len(there.endpoint.listener._open)) and time.monotonic() < until:
        time.sleep(0.01)


def test_calls_of_one_user_have_an_end_and_others_are_answered(there: Serving) -> None:
    """Each has begun and says nothing more; the next one of that user is told so at once."""
    peers = [Peer(there) for _ in range(5)]
    try:
        for peer in peers:
            opened = [peer.open() for _ in range(connections.MAX_STREAMS)]
            peer.flush()
        assert peers[-1].status_of(opened[-1]) == "14"
        if AM_ROOT:
            assert asked_by(OTHER, there) == {"given": there.shelf.domain.spiffe_id("other")}
    finally:
        for peer in peers:
            peer.sock.close()


def test_who_is_there_and_says_nothing_costs_little(there: Serving) -> None:
    before = resident()
    silent = [Peer(there) for _ in range(bounds.CONNECTIONS_OF_USER - 4)]
    half = [peer.open() for peer in silent]
    for peer in silent:
        peer.flush()
    assert is_well(there)
    assert resident() - before < 12 * MIB
    for peer in silent:
        peer.sock.close()
    assert len(half) == len(silent)


def test_headers_that_are_no_text_end_their_connection_without_a_word(
    there: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    """The libraries have no word for them: what they raise is neither told nor passed on."""
    with caplog.at_level(logging.DEBUG):
        with Peer(there) as peer:
            peer.open(("x", "\u00e9"))
            peer.flush()
            assert peer.is_hung_up_on()
        with Peer(there) as peer:
            peer.open(("x-bin", "A"))
            peer.flush()
            assert is_well(there)
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


def test_who_asks_little_by_little_and_never_reads_is_not_kept_for(there: Serving) -> None:
    def owed() -> int:
        waiting = [each._transport for each in there.endpoint.listener._open]
        return max((each.get_write_buffer_size() for each in waiting if each is not None), default=0)

    with Peer(there) as peer:
        peer.sock.settimeout(0.5)
        with suppress(OSError):
            for _ in range(60_000):
                peer.sock.sendall(b"\0\0\x08\x06\0\0\0\0\0" + bytes(8))
        assert there.do(owed) < 200_000


def test_strangers_provoke_few_lines_of_log(caplog: pytest.LogCaptureFixture) -> None:
    draw = random.Random(1)
    with caplog.at_level(logging.INFO), serving(workload("telemetry", user=["65533"])) as there:
        for _ in range(100):
            with Peer(there) as peer:
                stream = peer.open()
                peer.h2.send_data(stream, message(0), end_stream=True)
                peer.flush()
                assert peer.status_of(stream) == "7"
                peer.sock.sendall(draw.randbytes(64))
        assert there.endpoint.refused >= 100
    assert len(caplog.records) <= 3 * bounds.TOLD_A_MINUTE
