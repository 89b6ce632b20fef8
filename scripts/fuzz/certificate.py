"""What must hold of any bytes that are given as a certificate which cryptography refuses?"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from scripts.fuzz.harness import Target
from tpm.errors import EvidenceError
from tpm.verify.certificate import Certificate
from tpm.verify.certificate_fallback import read_leniently
from tpm.verify.certificate_pem import read_certificate_file
from tpm.verify.certificate_reader import certificate_in_nv, read_certificate
from tpm.verify.der import elements, read_element
from tpm.verify.device_id import device_identifier

VECTORS = Path(__file__).parents[2] / "tests" / "vectors"

_CONSTRUCTED = 0x20
_OPAQUE = ("key", "signature")


def targets() -> Iterator[Target]:
    """Certificates in DER, and files of them."""
    seeds = tuple(path.read_bytes() for path in sorted((VECTORS / "ek_certs").glob("*/cert.der")))
    yield Target("certificate", check_certificate, seeds)
    header = b"\x10\x01\x00" + (len(seeds[0]) + 2).to_bytes(2, "big") + b"\x10\x02"
    files = [
        (VECTORS / "ek_roots" / "keylime-cert-store" / name).read_bytes() for name in ("NTC1.pem", "IFX1.pem")
    ]
    padded = (
        header + seeds[0] + b"\xff" * 99,
        len(seeds[1]).to_bytes(2, "big") + seeds[1],
        seeds[2] + bytes(99),
    )
    yield Target("certificate_file", check_file, (*files, *padded))


def check_certificate(raw: bytes) -> None:
    """The second reader refuses, or reads all bytes as they stand, and as the first one where that reads."""
    try:
        read = read_leniently(raw)
    except ValueError as error:
        raise EvidenceError("ek_certificate_unreadable", str(error)) from None
    assert read.raw == raw
    assert written_anew(raw) == raw
    first = _first_reader(raw)
    assert first is None or _told(first) == _told(read), "the two readers differ"


def check_file(raw: bytes) -> None:
    """Refused, or certificates each of which stands in the file or in its PEM."""
    inside = certificate_in_nv(raw)
    assert inside == raw or inside in raw
    for one in read_certificate_file(raw):
        assert read_certificate(one.raw).sha256 == one.sha256
        assert b"-----BEGIN" in raw or one.raw in raw


def written_anew(raw: bytes, depth: int = 0) -> bytes:
    """The element with every length in its shortest form, and nothing that is not an element."""
    element, end = read_element(raw)
    assert end == len(raw)
    assert depth < 64
    content = element.content
    if element.tag & _CONSTRUCTED:
        content = b"".join(written_anew(one.raw, depth + 1) for one in elements(content))
    size = len(content)
    octets = b"" if size < 0x80 else size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([element.tag, 0x80 | len(octets) if octets else size]) + octets + content


def _first_reader(raw: bytes) -> Certificate | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            x509.load_der_x509_certificate(raw).public_key()
        except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
            return None
        return read_certificate(raw)


def _told(certificate: Certificate) -> dict[str, object]:
    told = {
        field.name: getattr(certificate, field.name)
        for field in dataclasses.fields(certificate)
        if field.name not in _OPAQUE
    }
    signature = certificate.signature
    told["key"] = device_identifier(certificate.key)
    told["signature"] = (signature.message, signature.value, signature.hash_name, type(signature.scheme))
    return told
