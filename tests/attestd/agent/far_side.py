"""A far side that does not mean well: an HTTP server whose answers a test writes, and which keeps what it was
sent."""

import json
import socketserver
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Any
from urllib.parse import parse_qsl

from attestd.agent.state import Membership, State
from tests.attester import TestMaker
from tests.serving import Agent
from tpm.device.device import Device

Told = Mapping[str, Any]
Raw = bytes
"""An answer as it goes over the wire, from the status line on."""
Said = Raw | Told | Iterator[bytes]
"""What is answered: raw bytes, the members of a good answer, or pieces of one that take their time."""
Answers = Said | Callable[[], Said]
ENROLL, ACTIVATE = "/v1/enrollments", "/v1/activations"
CHALLENGE, ATTEST, BUNDLE = "/v1/challenges", "/v1/attestations", "/.well-known/spiffe/bundle"
WANTED = (
    "--agent",
    "builder",
    "--format",
    "jwt-svid",
    "--audience",
    "https://a.example.org",
    "--seal",
    "disk",
)
"""What `ATTESTED` answers."""

_AUTHORITY = TestMaker.create("Test trust domain", uri="spiffe://example.org")
ATTESTED: Told = {
    "verdict": "accepted",
    "policy": {"name": "p", "version": 1, "digest": "00" * 32},
    "result": "r.r.r",
    "credentials": [{"format": "jwt-svid", "agent": "builder", "token": "t.t.t"}],
    "sealed_keys": [{"name": "disk", "public": "AA=="}],
    "renew_after": "2026-11-25T17:38:07Z",
}
PUBLISHED: Told = {
    "keys": [
        {"use": "jwt-svid", "kty": "EC", "kid": "k"},
        {
            "use": "x509-svid",
            "x5c": ["".join(_AUTHORITY.pem.decode().split("-----")[2].split())],
        },
    ]
}


def challenge(**changed: Any) -> Told:
    """A good challenge with a new nonce, but for these members."""
    selection = [{"bank": "sha256", "pcrs": [0, 7]}]
    good = {"nonce": b64encode(token_bytes(32)).decode(), "pcr_selection": selection, "event_log": False}
    return good | changed


def answer(members: object, status: int = 200, headers: str = "") -> Raw:
    body = members if isinstance(members, bytes) else json.dumps(members).encode()
    head = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    return head.encode() + body


def problem(status: int, code: str, **members: Any) -> Raw:
    return answer({"code": code, "status": status, "detail": "Because."} | members, status)


@dataclass
class FarSide:
    """Answers each path as `answers` says, in one way always or made anew for each request, and keeps every
    request's path and the members of its body, JSON or a form, in order, and its headers, their names in
    lower case. `sent` are the bytes of all answers, as far as somebody took them."""

    answers: dict[str, Answers] = field(default_factory=dict)
    asked: list[tuple[str, Told]] = field(default_factory=list)
    heads: list[Mapping[str, str]] = field(default_factory=list)
    sent: int = 0

    def __enter__(self) -> "FarSide":
        for path, good in (CHALLENGE, challenge), (ATTEST, ATTESTED), (BUNDLE, PUBLISHED):
            self.answers.setdefault(path, good)
        far = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                far.handle(self)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def count(self, path: str) -> int:
        return [asked for asked, _ in self.asked].count(path)

    def requests(self) -> list[Told]:
        """What the TPM signed each time."""
        return [json.loads(b64decode(body["request"])) for path, body in self.asked if path == ATTEST]

    def handle(self, handler: socketserver.StreamRequestHandler) -> None:
        path = handler.rfile.readline().split()[1].decode()
        head = {}
        while (line := handler.rfile.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            head[name.lower()] = value.strip()
        body = handler.rfile.read(int(head.get("content-length", "0")))
        self.heads.append(head)
        self.asked.append((path, _members(body)))
        found = self.answers.get(path, answer({}, 404))
        made = found() if callable(found) else found
        pieces = [made] if isinstance(made, bytes) else [answer(made)] if isinstance(made, Mapping) else made
        with suppress(ConnectionError):
            for piece in pieces:
                handler.wfile.write(piece)
                self.sent += len(piece)


def _members(body: bytes) -> Told:
    if not body.startswith(b"{"):
        return dict(parse_qsl(body.decode(), keep_blank_values=True))
    members: Told = json.loads(body)
    return members


def member_of(far: FarSide, agent: Agent) -> Agent:
    """The same machine, as if it had enrolled at the far side."""
    state = State(agent.state)
    with Device(agent.tpm.tcti) as device:
        state.keep_recipe(device.create_ak())
    state.keep_membership(Membership(far.url, "ab" * 32, "active", "p256"))
    return Agent(agent.tpm, agent.state, far.url)
