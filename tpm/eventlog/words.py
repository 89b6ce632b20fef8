"""What do bytes of a log look like to a person?

Whatever comes from a log may hold anything: control characters, terminal sequences, right-to-left marks.
All of it is shown escaped and cut.
"""

import warnings

from cryptography import x509
from cryptography.x509.oid import NameOID

WIDTH = 96


def shown(text: str, width: int = WIDTH) -> str:
    """Text from a log, on one line, printable, at most `width` characters."""
    plain = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text[: 2 * width]
    )
    return plain if len(plain) <= width and len(text) <= 2 * width else plain[: width - 1] + "…"


def short(digest: bytes) -> str:
    """Enough of a digest to know it by."""
    return digest.hex()[:12] + "…"


def subject(certificate: bytes) -> str | None:
    """The common name, or else the whole subject, of a DER certificate; None for what cannot be read."""
    try:
        # Makers' certificates have oddities that the library warns of, and which are nothing to a name.
        with warnings.catch_warnings(action="ignore"):
            name = x509.load_der_x509_certificate(certificate).subject
        common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(common[0].value) if common else name.rfc4514_string()
    except ValueError:
        return None
