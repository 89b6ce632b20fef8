"""Each listener has its own TLS; certificates change without a restart, and a bad one changes nothing."""

import contextlib
import http.client
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.web.listeners import Listener
from tests.attestd.web.certificates import Authority, Pair
from tests.attestd.web.echo_service import Running
from tests.attestd.web.raw import GOOD
from tpm.errors import PolicyError


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Pair:
    return authority.issue("server")


@pytest.fixture(scope="module")
def secured(
    authority: Authority, server: Pair, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A TLS listener, and beside it one where every client needs a certificate."""
    toml = f'[tls]\ncertificate = "{server.certificate}"\nkey = "{server.key}"'
    folder = tmp_path_factory.mktemp("secured")
    with Running(folder, toml=toml, client_ca=authority.pem) as running:
        yield running


def status(port: int, context: ssl.SSLContext) -> int:
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=5)
    try:
        connection.request("POST", "/v1/echo", b"{}", {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()


def trusting(authority: Authority, client: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.pem))
    if client:
        context.load_cert_chain(client.certificate, client.key)
    return context


def served_serial(port: int, authority: Authority) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        secured = trusting(authority).wrap_socket(sock, server_hostname="127.0.0.1")
        certificate = secured.getpeercert()
        secured.close()
    assert certificate
    return str(certificate["serialNumber"])


def test_a_listener_with_a_certificate_speaks_tls(secured: Running, authority: Authority) -> None:
    assert status(secured.port, trusting(authority)) == 201


def test_requests_in_a_row_and_large_ones_work_over_tls(secured: Running, authority: Authority) -> None:
    connection = http.client.HTTPSConnection(
        "127.0.0.1", secured.port, context=trusting(authority), timeout=5
    )
    for size in (2, 100_000, 1_000_000, 2):
        body = b"{" + b" " * size + b"}"
        connection.request("POST", "/v1/large", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 201
    connection.close()


def test_plain_http_gets_nothing_from_a_tls_listener(secured: Running) -> None:
    with socket.create_connection(("127.0.0.1", secured.port), timeout=5) as sock:
        sock.sendall(GOOD)
        with contextlib.suppress(ConnectionError):
            assert b"HTTP" not in sock.recv(100)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_tls_is_refused(secured: Running, authority: Authority) -> None:
    context = trusting(authority)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        status(secured.port, context)


def test_the_mutual_listener_wants_a_certificate_of_its_authority(
    secured: Running, authority: Authority, tmp_path: Path
) -> None:
    client = authority.issue("client")
    assert status(secured.port + 1, trusting(authority, client)) == 201
    stranger = Authority(tmp_path).issue("stranger")
    for pair in (None, stranger):
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            status(secured.port + 1, trusting(authority, pair))


def test_sighup_takes_a_new_certificate_and_keeps_connections(
    secured: Running, authority: Authority, server: Pair
) -> None:
    before = served_serial(secured.port, authority)
    kept = http.client.HTTPSConnection("127.0.0.1", secured.port, context=trusting(authority), timeout=5)
    kept.request("GET", "/healthz")
    kept.getresponse().read()
    fresh = authority.issue("fresh")
    server.certificate.write_bytes(fresh.certificate.read_bytes())
    server.key.write_bytes(fresh.key.read_bytes())
    assert served_serial(secured.port, authority) == before
    secured.process.send_signal(signal.SIGHUP)
    _await(secured, "certificates reloaded")
    assert served_serial(secured.port, authority) != before
    kept.request("GET", "/healthz")
    assert kept.getresponse().status == 200
    kept.close()


def test_sighup_with_an_unusable_certificate_changes_nothing(
    secured: Running, authority: Authority, server: Pair
) -> None:
    before = served_serial(secured.port, authority)
    good = server.certificate.read_bytes()
    server.certificate.write_bytes(b"nonsense")
    try:
        secured.process.send_signal(signal.SIGHUP)
        _await(secured, "certificates kept")
        assert served_serial(secured.port, authority) == before
    finally:
        server.certificate.write_bytes(good)


def _await(running: Running, word: str) -> None:
    end = time.monotonic() + 5
    while word not in running.log():
        assert time.monotonic() < end, running.log()[-2000:]
        time.sleep(0.02)


def test_unusable_files_are_told_in_one_line(tmp_path: Path, authority: Authority) -> None:
    pair, other = authority.issue("one"), authority.issue("two")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense", encoding="ascii")
    for certificate, key in (
        (tmp_path / "missing.pem", pair.key),
        (nonsense, pair.key),
        (pair.certificate, nonsense),
        (pair.certificate, other.key),
    ):
        with pytest.raises(PolicyError, match=r"\[tls\]") as caught:
            Listener("127.0.0.1", 1, certificate, key).context()
        assert "\n" not in caught.value.detail
    assert Listener("127.0.0.1", 1, pair.certificate, pair.key).context() is not None
