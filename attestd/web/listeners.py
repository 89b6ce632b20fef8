"""Where does the service listen, and how is each address protected?"""

import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from attestd.addresses import is_loopback, join, split_listen
from attestd.config import Config
from attestd.issue.key_files import read_key_files
from tpm.errors import PolicyError


@dataclass(frozen=True, slots=True)
class OwnAuthorities:
    """The CAs that sign our X.509-SVIDs, as they lie in the directory of keys: a new one counts within a
    second.

    Retired ones too: whether a CA is still believed, and a certificate of it still good, is asked again of
    every request. The handshake only proves who holds the key."""

    directory: Path

    def pem(self) -> str:
        """All of them. PolicyError if the files cannot be used, or there is none."""
        files = read_key_files(self.directory)
        found = [key.authority.certificate for key in files.keys if key.authority is not None]
        if not found:
            raise PolicyError(
                "key_missing", f"{self.directory} has no x509 key; clients have no CA without one"
            )
        return "".join(one.public_bytes(Encoding.PEM).decode("ascii") for one in found)

    def stamp(self) -> int:
        """Another one when a file has come or gone; 0 while the directory cannot be looked at."""
        try:
            return self.directory.stat().st_mtime_ns
        except OSError:
            return 0


@dataclass(frozen=True, slots=True)
class Listener:
    """One address. Without a certificate it speaks plain HTTP; with `client_ca` (PEM) clients need one."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    client_ca: str | OwnAuthorities | None = None

    @property
    def address(self) -> str:
        return join(self.host, self.port)

    def stamp(self) -> int:
        """Another one when `context` would be another without anybody having asked for a reload."""
        return self.client_ca.stamp() if isinstance(self.client_ca, OwnAuthorities) else 0

    def context(self) -> ssl.SSLContext | None:
        """Reads the files. PolicyError if they cannot be used."""
        if self.certificate is None:
            return None
        try:
            ca = self.client_ca.pem() if isinstance(self.client_ca, OwnAuthorities) else self.client_ca
            return _server_context(self.certificate, self.key, ca)
        except (OSError, ssl.SSLError, ValueError) as error:
            what = f"{self.certificate} and {self.key or self.certificate}"
            detail = f"[tls] {what} cannot be used: {error}; name a PEM chain and its unencrypted key"
            raise PolicyError("tls_unusable", detail) from None


def _server_context(certificate: Path, key: Path | None, client_ca: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # An empty password: an encrypted key fails instead of asking on the terminal.
    context.load_cert_chain(certificate, key, password="")
    context.set_alpn_protocols(["http/1.1"])
    if client_ca is not None:
        context.load_verify_locations(cadata=client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
        # A resumed session would let a certificate in that has been withdrawn since.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


def listeners_of(config: Config) -> tuple[Listener, ...]:
    """The configured addresses; PolicyError if others could reach one unprotected."""
    tls = config.tls
    if not is_loopback(config.host) and tls.certificate is None and not tls.behind_proxy:
        detail = (
            f"listen {config.listen} is reachable unencrypted: set [tls] certificate and key, or behind_proxy"
        )
        raise PolicyError("config_exposed", detail)
    first = Listener(config.host, config.port, tls.certificate, tls.key)
    if tls.mtls_listen is None:
        return (first,)
    host, port = split_listen(tls.mtls_listen)
    return first, Listener(host, port, tls.certificate, tls.key, OwnAuthorities(config.keys))
