"""A request ends where everyone says that it ends, or it is refused; however the bytes arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.web.framing import Framing, Incoming, RawRequest

HEAD = b"POST /a HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CAP = 100

TWO = (
    CHUNKED
    + b"5\r\nhello\r\na\r\n0123456789\r\n0\r\n\r\n"
    + b"GET /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
)


def cut(pieces: list[bytes], cap: int = CAP) -> tuple[list[RawRequest], Framing]:
    """The requests in the bytes, and what the rest is."""
    incoming, found = Incoming(lambda path: cap), []
    for piece in pieces:
        incoming.feed(piece)
        while (framing := incoming.advance()) is Framing.WHOLE:
            found.append(incoming.take())
        if framing is not Framing.MORE:
            return found, framing
    return found, framing


def end_of(data: bytes) -> Framing:
    """The same at once and byte for byte."""
    found, framing = cut([data])
    assert cut([data[i : i + 1] for i in range(len(data))])[1] is framing
    return Framing.WHOLE if found and framing is Framing.MORE else framing


@pytest.mark.parametrize("step", [1, 2, 3, 7, 50, 1000])
def test_requests_are_cut_the_same_however_they_arrive(step: int) -> None:
    found, rest = cut([TWO[i : i + step] for i in range(0, len(TWO), step)])
    assert [request.body for request in found] == [b"hello0123456789", b"abc"]
    assert [request.chunked for request in found] == [True, False]
    assert found[0].head == CHUNKED
    assert rest is Framing.MORE


@pytest.mark.parametrize(
    "tail",
    [
        b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"Content-Length: 3, 3\r\n\r\nabc",
        b"Content-Length: +3\r\n\r\nabc",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 0x3\r\n\r\nabc",
        b"Content-Length: 3_0\r\n\r\nabc",
        b"Content-Length: \xb2\r\n\r\nabc",
        b"Content-Length: \xd9\xa3\r\n\r\nabc",
        b"Content-Length:\r\n\r\n",
        b"Content-Length: 3 0\r\n\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: identity\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n00000000000000000005\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_ht_10_what_two_servers_could_read_in_two_ways_is_broken(tail: bytes) -> None:
    assert end_of(HEAD + tail) is Framing.BROKEN


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\nHost: x\n\n", b"GET / HTTP/1.1\r\nHost: x\n\r", b"\n"])
def test_ht_10_a_bare_line_feed_is_broken_at_once(data: bytes) -> None:
    assert cut([data])[1] is Framing.BROKEN


@pytest.mark.parametrize(
    "tail",
    [
        b"Content-Length: 3\r\n\r\nabc",
        b"content-length:3\r\n\r\nabc",
        b"CONTENT-LENGTH: \t 3 \t\r\n\r\nabc",
        b"Content-Length: 100\r\n\r\n" + b"x" * 100,
        b"Content-Length: 0\r\n\r\n",
        b"\r\n",
        b"Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0A\r\n0123456789\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_a_plain_request_is_whole(tail: bytes) -> None:
    assert end_of(HEAD + tail) is Framing.WHOLE


@pytest.mark.parametrize(
    "tail",
    [
        b"Content-Length: 101\r\n\r\n",
        b"Content-Length: 9223372036854775808\r\n\r\n",
        b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n65\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + b"32\r\n" + b"x" * 50 + b"\r\n33\r\n",
    ],
)
def test_ht_1_a_body_over_the_cap_is_refused_before_it_is_read(tail: bytes) -> None:
    assert end_of(HEAD + tail) is Framing.TOO_LARGE


def test_the_cap_is_the_paths_own() -> None:
    caps = {b"/large": 10}
    incoming = Incoming(lambda path: caps.get(path, 1))
    incoming.feed(b"POST /large?x=1 HTTP/1.1\r\nContent-Length: 10\r\n\r\n0123456789")
    assert incoming.advance() is Framing.WHOLE
    incoming = Incoming(lambda path: caps.get(path, 1))
    incoming.feed(b"POST /%6carge HTTP/1.1\r\nContent-Length: 10\r\n\r\n")
    assert incoming.advance() is Framing.TOO_LARGE


def test_a_head_is_at_most_32_kib() -> None:
    assert cut([b"GET / HTTP/1.1\r\nA: " + b"x" * 32768])[1] is Framing.BROKEN
    assert cut([b"GET / HTTP/1.1\r\nA: " + b"x" * 32000 + b"\r\n\r\n"])[0]


def test_chunks_of_one_byte_end_somewhere() -> None:
    few, many = b"1\r\nx\r\n" * 4000, b"1\r\nx\r\n" * 20_000
    assert cut([CHUNKED + few + b"0\r\n\r\n"], 10**6)[0][0].body == b"x" * 4000
    assert cut([CHUNKED + many + b"0\r\n\r\n"], 10**6)[1] is Framing.BROKEN


def test_who_expects_100_continue_is_told_once_and_only_where_a_body_follows() -> None:
    incoming = Incoming(lambda path: CAP)
    incoming.feed(HEAD + b"Expect: 100-Continue\r\nContent-Length: 3\r\n\r\n")
    assert incoming.advance() is Framing.MORE
    assert incoming.expects_continue()
    assert not incoming.expects_continue()
    incoming = Incoming(lambda path: CAP)
    incoming.feed(HEAD + b"Expect: 100-continue\r\n\r\n")
    incoming.advance()
    assert not incoming.expects_continue()


@given(
    st.sampled_from([b"", b"\r\n", b"\r\n\r\n", b"\r", b"\n"]),
    st.binary(max_size=40),
    st.binary(max_size=40),
    st.integers(1, 200),
)
def test_any_bytes_are_judged_the_same_in_any_pieces(
    first: bytes, head: bytes, tail: bytes, step: int
) -> None:
    data = first + b"POST /a HTTP/1.1\r\n" + head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + tail
    whole, pieces = cut([data]), cut([data[i : i + step] for i in range(0, len(data), step)])
    assert whole == pieces


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=5))
def test_any_body_in_any_chunks_is_put_together(chunks: list[bytes]) -> None:
    sent = b"".join(b"%X\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    assert cut([CHUNKED + sent])[0] == [RawRequest(CHUNKED, b"".join(chunks), True)]
