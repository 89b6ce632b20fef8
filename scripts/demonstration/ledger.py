"""What are the credentials good for? A service behind mutual TLS knows its callers by their SPIFFE ID."""

import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

NAME = "ledger.example"


@dataclass(frozen=True, slots=True)
class Ledger:
    """Where it listens, and its own certificate (not what this demonstration is about: made on the spot)."""

    port: int
    certificate: Path


@contextmanager
def ledger(directory: Path, *, bundle: Path, callers: str) -> Iterator[Ledger]:
    """Serves those whose SPIFFE ID begins with `callers` under an authority of the bundle, until the context
    ends."""
    certificate = _own_certificate(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.load_verify_locations(bundle)
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, context, callers))
        thread.start()
        try:
            yield Ledger(listener.getsockname()[1], certificate)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def call(ledger: Ledger, credentials: tuple[Path, Path] | None) -> str:
    """What the ledger answers to the holder of certificate and key; ssl.SSLError when it turns them away."""
    context = ssl.create_default_context(cafile=str(ledger.certificate))
    if credentials is not None:
        context.load_cert_chain(*credentials)
    with (
        socket.create_connection(("127.0.0.1", ledger.port), 10) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as connection,
    ):
        return connection.recv(1024).decode()


def _serve(listener: socket.socket, context: ssl.SSLContext, callers: str) -> None:
    with suppress(OSError):  # The listener was shut down.
        while True:
            plain, _ = listener.accept()
            plain.settimeout(10)
            with suppress(OSError), plain, context.wrap_socket(plain, server_side=True) as connection:
                connection.sendall(_answer(connection, callers).encode())


def _answer(connection: ssl.SSLSocket, callers: str) -> str:
    certificate: Any = connection.getpeercert()
    caller = next((value for kind, value in certificate["subjectAltName"] if kind == "URI"), "")
    return f"welcome, {caller}" if caller.startswith(callers) else "you are not on my list"


def _own_certificate(directory: Path) -> Path:
    """A self-signed certificate for `NAME`, with its key in the same file."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string(f"CN={NAME}")
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now)
    builder = builder.not_valid_after(now + datetime.timedelta(hours=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    path = directory / "ledger.pem"
    path.touch(mode=0o600)
    path.write_bytes(certificate + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path
