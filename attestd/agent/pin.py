"""Whom does this machine take for its service's authority?

A file that the operator named; or the one certificate whose fingerprint the operator was told, taken from
what the server itself shows and from nowhere else; or what was kept of either when the machine joined; or
the system's authorities.
"""

import hashlib
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attestd.addresses import url_fault
from attestd.agent.errors import Misconfigured, Unreachable, plain
from attestd.agent.state import State
from attestd.agent.transport import reached

PATIENCE_SECONDS = 30.0
MOST_CERTIFICATES = 16
"""Of a chain; the library itself ends one that is much longer."""
_PEM_LIMIT = 1 << 20
_DER = 2  # _ssl.ENCODING_DER

NOT_SHOWN_FIX = (
    "compare it with what you were told, have the server's file of certificates end with its root, or name "
    "the root with --ca FILE"
)


class NotShown(Unreachable):
    """The server shows other certificates than the one whose fingerprint the operator was told."""

    def __init__(self, url: str, root_sha256: str, shown: Iterable[str]) -> None:
        """`shown` are the fingerprints of what it shows."""
        self.found = (
            f"{url} shows no certificate with the SHA-256 {root_sha256}, but {', '.join(shown) or 'none'}"
        )
        super().__init__(f"{self.found}; {NOT_SHOWN_FIX}")


def authority(
    url: str, state: State, *, ca: Path | None = None, root_sha256: str | None = None
) -> Path | None:
    """The file whose authorities are trusted at this URL; None: the system's. `ca` is taken as it is; the
    certificate with the fingerprint is fetched once and kept. Unreachable or Misconfigured."""
    if ca is not None:
        return ca
    kept = state.ca()
    if root_sha256 is None:
        return kept
    if kept is None or fingerprint(kept.read_bytes()) != root_sha256:
        state.keep_ca(fetch_certificate(url, root_sha256))
    return state.ca()


def read_authorities(path: Path) -> bytes:
    """What a file of authorities holds. Misconfigured where it is none."""
    try:
        with path.open("rb") as file:
            pem = file.read(_PEM_LIMIT + 1)
        ssl.create_default_context(cadata=pem.decode("ascii"))
    except (OSError, ValueError, ssl.SSLError):
        pem = b""
    if not 0 < len(pem) <= _PEM_LIMIT:
        raise Misconfigured(f"{path} has no certificate; name a PEM file with the server's CA")
    return pem


def fingerprint(pem: bytes) -> str | None:
    """SHA-256, in hex, of the one certificate of a PEM file; None where there is another number of them."""
    text = pem.decode("ascii", "replace").strip()
    if text.count("-----BEGIN") != 1:
        return None
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text)).hexdigest()
    except ValueError:
        return None


def fetch_certificate(url: str, root_sha256: str) -> bytes:
    """PEM of the certificate with this SHA-256 (of its DER, in hex) among those that the server shows: its
    root's, an intermediate's or its own.

    Nothing else of this connection is believed or used, as nothing in it is verified; whether the server
    holds a key under that certificate shows on the next one. Unreachable where none of them is it.
    """
    fault = url_fault(url)
    if fault is not None or urlsplit(url).scheme != "https":
        raise Misconfigured(f"{url}: {fault or 'only https has a certificate; leave --root-sha256 out'}")
    shown = _shown(url)
    for certificate in shown:
        if hashlib.sha256(certificate).hexdigest() == root_sha256:
            return ssl.DER_cert_to_PEM_cert(certificate).encode()
    raise NotShown(url, root_sha256, [hashlib.sha256(each).hexdigest() for each in shown])


def _shown(url: str) -> list[bytes]:
    """DER of the certificates that the server sends, as it sends them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Looked at, not trusted: what is taken from here is known by its hash.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with reached(url, context, patience=PATIENCE_SECONDS) as connected:
            return _chain(connected)[:MOST_CERTIFICATES]
    except (OSError, ValueError) as error:
        raise Unreachable(f"{url} does not answer: {plain(error) or type(error).__name__}") from None


def _chain(connected: Any) -> list[bytes]:
    if hasattr(connected, "get_unverified_chain"):  # Python 3.13
        return [bytes(each) for each in connected.get_unverified_chain()]
    # Before, the same method of the object underneath, which gives certificates and not their bytes.
    return [bytes(each.public_bytes(_DER)) for each in connected._sslobj.get_unverified_chain() or ()]
