"""Requests that lie about where they end: a refusal, a closed connection, and nothing more."""

import pytest

from tests.attestd.web.echo_service import BODY_CAP, LARGE_CAP, Running
from tests.attestd.web.raw import GOOD, HEAD, exchange

SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

AMBIGUOUS = {
    "cl_te": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "te_cl": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" + SMUGGLED,
    "te_te": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "te_identity": HEAD + b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}" + SMUGGLED,
    "te_space": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "te_tab_folded": HEAD + b"X: y\r\n\tTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "te_vertical_tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "te_http_1_0": HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two_lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "two_unequal_lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 2\r\n\r\n{}",
    "plus_length": HEAD + b"Content-Length: +2\r\n\r\n{}",
    "negative_length": HEAD + b"Content-Length: -2\r\n\r\n{}",
    "hex_length": HEAD + b"Content-Length: 0x2\r\n\r\n{}",
    "underscored_length": HEAD + b"Content-Length: 1_0\r\n\r\n{}",
    "length_list": HEAD + b"Content-Length: 2, 2\r\n\r\n{}",
    "bare_lf": b"POST /v1/echo HTTP/1.1\nHost: x\nContent-Length: 2\n\n{}",
    "bare_lf_in_head": HEAD + b"X: y\nContent-Length: 2\r\n\r\n{}",
    "bare_cr_in_head": HEAD + b"X: y\rContent-Length: 2\r\n\r\n{}",
    "nul_in_head": HEAD + b"X: \x00\r\nContent-Length: 2\r\n\r\n{}",
    "header_without_colon": HEAD + b"nonsense\r\n\r\n",
    "header_name_space": HEAD + b"X y: z\r\n\r\n",
    "two_hosts": HEAD + b"Host: y\r\nContent-Length: 2\r\n\r\n{}",
    "no_host": HEAD.replace(b"Host: x\r\n", b"") + b"Content-Length: 2\r\n\r\n{}",
    "two_content_types": HEAD + b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
    "chunk_extension": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\n\r\n",
    "chunk_extension_with_lf": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;\nxx\r\n{}\r\n0\r\n\r\n",
    "chunk_size_plus": HEAD + b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n",
    "chunk_size_huge": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n",
    "chunk_without_end": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n",
    "trailers": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nHost: y\r\n\r\n",
    "no_version": b"GET /healthz\r\n\r\n",
    "wrong_version": b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n",
    "http2_preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "lower_case_method": b"get /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls_hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
    "two_spaces": b"GET  /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "space_in_path": b"GET /health z HTTP/1.1\r\nHost: x\r\n\r\n",
    "non_ascii_path": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "endless_head": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000,
    "long_request_line": b"GET /" + b"y" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "many_headers": b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 100 + b"\r\n",
    "expectation": HEAD + b"Expect: 200-ok\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("name", sorted(AMBIGUOUS))
def test_ht_10_an_ambiguous_request_is_400_once_and_the_connection_ends(service: Running, name: str) -> None:
    before = len(service.refused())
    reply = exchange(service.port, AMBIGUOUS[name], wait=3)
    assert reply.statuses == [400]
    assert reply.closed
    assert b'"code":"malformed"' in reply.data
    assert b"application/problem+json" in reply.data
    assert b"gunicorn" not in reply.data.lower()
    assert reply.seconds < 3
    assert [told["code"] for told in service.refused()[before:]] == ["malformed"]


def test_ht_10_the_healthy_twins_are_answered_and_the_connection_stays(service: Running) -> None:
    chunked = HEAD + b'Transfer-Encoding: chunked\r\n\r\n3\r\n{"n\r\n9\r\number":7}\r\n0\r\n\r\n'
    for pieces in ([GOOD + chunked + SMUGGLED], [GOOD, chunked, SMUGGLED]):
        reply = exchange(service.port, *pieces, wait=0.3)
        assert reply.statuses == [201, 201, 200]
        assert not reply.closed


def test_ht_10_what_follows_a_body_is_the_next_request_and_no_part_of_this_one(service: Running) -> None:
    reply = exchange(service.port, GOOD + b"trailing garbage\r\n\r\n", wait=3)
    assert reply.statuses == [201, 400]
    assert reply.closed


@pytest.mark.parametrize(
    ("length", "status"),
    [(BODY_CAP + 1, 413), (2**31, 413), (2**63, 413), (10**30, 413)],
)
def test_ht_1_a_length_over_the_cap_is_413_before_the_body_is_sent(
    service: Running, length: int, status: int
) -> None:
    reply = exchange(service.port, HEAD + b"Content-Length: %d\r\n\r\n" % length, wait=3)
    assert reply.statuses == [status]
    assert b'"code":"too_large"' in reply.data
    assert reply.closed
    assert reply.seconds < 3


def test_ht_1_one_byte_over_the_cap_is_413_and_the_cap_itself_is_read(service: Running) -> None:
    def padded(size: int) -> bytes:
        return b'{"number":7' + b" " * (size - 12) + b"}"

    for cap, path in ((BODY_CAP, "/v1/echo"), (LARGE_CAP, "/v1/large")):
        assert service.post(path, padded(cap)).status == 201
        head = HEAD.replace(b"/v1/echo", path.encode()) + b"Content-Length: %d\r\n\r\n" % (cap + 1)
        assert exchange(service.port, head + padded(cap + 1), wait=3).statuses == [413]


def test_ht_1_endless_chunks_are_413_at_the_cap(service: Running) -> None:
    piece = b"1000\r\n" + b" " * 4096 + b"\r\n"
    reply = exchange(service.port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[piece] * 40, wait=3)
    assert reply.statuses == [413]
    assert reply.closed


def test_ht_1_a_body_shorter_than_its_length_is_400_when_the_client_ends(service: Running) -> None:
    reply = exchange(service.port, HEAD + b"Content-Length: 100\r\n\r\n{}", wait=3, end=True)
    assert reply.statuses == [400]
    assert reply.closed


def test_ht_1_a_large_answer_to_a_client_that_still_sends_arrives(service: Running) -> None:
    """A refusal must be readable although the client is in the middle of its body."""
    body = b"x" * (4 * LARGE_CAP)
    reply = exchange(service.port, HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body, wait=5)
    assert reply.statuses == [413]


def test_a_client_that_waits_for_100_continue_gets_it_or_its_refusal(service: Running) -> None:
    head = HEAD + b"Expect: 100-continue\r\n"
    reply = exchange(service.port, head + b"Content-Length: 12\r\n\r\n", b'{"number":7}', wait=0.3)
    assert reply.statuses == [100, 201]
    reply = exchange(service.port, head + b"Content-Length: %d\r\n\r\n" % (BODY_CAP + 1), wait=3)
    assert reply.statuses == [413]


def test_a_client_that_leaves_at_once_costs_nothing(service: Running) -> None:
    before = len(service.refused())
    for _ in range(50):
        exchange(service.port, b"", wait=0.01)
    assert service.request("GET", "/healthz").status == 200
    assert len(service.refused()) == before


def test_a_client_that_closes_its_sending_side_is_answered(service: Running) -> None:
    assert exchange(service.port, GOOD, wait=3, end=True).statuses == [201]


def test_http_1_0_is_answered_and_closed(service: Running) -> None:
    reply = exchange(service.port, GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"), wait=3)
    assert reply.statuses == [201]
    assert reply.closed
