"""One event is one line, whatever a client put into it; no terminal sequence and no header survives."""

import io
import json
import logging
from pathlib import Path

import pytest

from attestd.web.log import JsonLines, Readable, printable
from tests.attestd.web.echo_service import Running
from tests.attestd.web.raw import exchange

HOSTILE = [
    "a\r\nSet-Cookie: x=1",
    "a\nforged line",
    "\x1b[31mred\x1b[0m",
    "\u2028line\u2029",
    "\x00nul",
    "\x7f\x9b",
    "\u202eright to left",
    '"}\n{"event":"forged"}',
    "\ud800",
]


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("attestd.access", logging.INFO, "", 0, message, (), None)
    made.fields = fields
    return made


@pytest.mark.parametrize("text", HOSTILE)
def test_ht_9_a_json_line_is_one_ascii_line_with_the_text_in_it(text: str) -> None:
    line = JsonLines().format(record("request", path=text))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["path"] == text


@pytest.mark.parametrize("text", HOSTILE)
def test_ht_9_a_line_for_people_is_one_printable_line(text: str) -> None:
    assert Readable().format(record(text, path=text)).isprintable()


def test_plain_text_is_left_as_it_is() -> None:
    assert printable("Grüße 😀") == "Grüße 😀"


def test_an_error_carries_its_traceback_in_both_forms() -> None:
    stream = io.StringIO()
    for formatter in (JsonLines(), Readable()):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        logger = logging.Logger("x")
        logger.addHandler(handler)
        try:
            raise ValueError("bad\x1b[31m")
        except ValueError:
            logger.exception("went wrong")
    assert "ValueError" in json.loads(stream.getvalue().splitlines()[0])["traceback"]
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\u2028b", "a%0d%0aSet-Cookie:%20x=1", "\\r\\n", '"}{"'])
def test_ht_9_hostile_headers_paths_and_bodies_leave_one_line_each(service: Running, text: str) -> None:
    hostile = text.encode("utf-8")
    head = b"POST /" + bytes(b for b in hostile if 0x20 < b < 0x7F) + b" HTTP/1.1\r\nHost: x\r\n"
    agent = (
        b"User-Agent: "
        + bytes(b for b in hostile if b != 0x1B)
        + b"\r\nX-Request-Id: "
        + text.encode("ascii", "ignore").replace(b"\x1b", b"")
    )
    before, refused = len(service.log().splitlines()), len(service.refused())
    reply = exchange(service.port, head + agent + b"\r\n\r\n", wait=0.2)
    assert reply.statuses == [404]
    lines = service.log().splitlines()[before:]
    assert len(lines) == 1
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert len(service.refused()) == refused + 1
    assert b"Set-Cookie" not in reply.data


def test_ht_9_a_member_name_does_not_reach_a_header_or_the_log(service: Running, tmp_path: Path) -> None:
    answer = service.post("/v1/echo", {"a\r\nX-Injected: 1": 1, "b\u2028\x1b[31m": 2})
    assert answer.status == 400
    assert "x-injected" not in answer.headers
    assert answer.body.isascii()
    assert service.access(answer.json["request_id"])
    assert all(line.isascii() and line.isprintable() for line in service.log().splitlines())
