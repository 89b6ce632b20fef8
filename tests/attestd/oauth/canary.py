"""Servers that nobody may be tricked into asking: they count who came, and lie as they are told."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Canary:
    """An HTTP server on loopback. `answers` is what each path says: JSON, bytes, or how to misbehave."""

    server: ThreadingHTTPServer
    answers: dict[str, Any] = field(default_factory=dict)
    hits: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Redirect:
    to: str
    body: bytes = b""


@dataclass(frozen=True)
class Status:
    """Another status than 200 with a good document."""

    status: int
    body: bytes


@dataclass(frozen=True)
class Slow:
    """A byte now and then, for ever."""


@dataclass(frozen=True)
class Compressed:
    body: bytes


@contextmanager
def canary() -> Iterator[Canary]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.hits.append(self.path)
            _answer(self, made.answers.get(self.path))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Canary(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(handler: BaseHTTPRequestHandler, answer: Any) -> None:
    headers: Mapping[str, str] = {}
    status, body = 200, b""
    match answer:
        case None:
            status = 404
        case Redirect(to=to, body=body):
            status, headers = 302, {"Location": to}
        case Status(status=status, body=body):
            headers = {}
        case Compressed(body=body):
            headers = {"Content-Encoding": "gzip"}
        case Slow():
            _drip(handler)
            return
        case bytes():
            body = answer
        case _:
            body = json.dumps(answer).encode()
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def _drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)
    except OSError:
        return
