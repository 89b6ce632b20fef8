"""Where does the service listen, and how is each address protected?"""

import ssl
from dataclasses import dataclass
from pathlib import Path

from attestd.addresses import is_loopback, join
from attestd.config import Config
from tpm.errors import PolicyError


@dataclass(frozen=True, slots=True)
class Listener:
    """One address. Without a certificate it speaks plain HTTP; with `client_ca` (PEM) clients need one."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    client_ca: str | None = None

    @property
    def address(self) -> str:
        return join(self.host, self.port)

    def context(self) -> ssl.SSLContext | None:
        """Reads the files. PolicyError if they cannot be used."""
        if self.certificate is None:
            return None
        try:
            return _server_context(self.certificate, self.key, self.client_ca)
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
    """The configured address; PolicyError if others could reach it unprotected."""
    tls = config.tls
    if not is_loopback(config.host) and tls.certificate is None and not tls.behind_proxy:
        detail = (
            f"listen {config.listen} is reachable unencrypted: set [tls] certificate and key, or behind_proxy"
        )
        raise PolicyError("config_exposed", detail)
    return (Listener(config.host, config.port, tls.certificate, tls.key),)
