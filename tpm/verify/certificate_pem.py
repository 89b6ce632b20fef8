"""Which certificates are in this file: PEM, DER, or a certificate as it lies in a TPM?"""

import base64
import binascii
import re

from tpm.errors import EvidenceError
from tpm.verify.certificate import Certificate
from tpm.verify.certificate_reader import certificate_in_nv, read_certificate

FILE_LIMIT = 1 << 20
"""Bytes of a file; the largest bundle of all makers has a twentieth of it."""

_BEGIN = b"-----BEGIN "
_BLOCK = re.compile(rb"-----BEGIN ([^-\n]{1,64})-----(.*?)-----END \1-----", re.DOTALL)


def read_certificate_file(raw: bytes) -> list[Certificate]:
    """All of them in order, one at least; EvidenceError "ek_certificate_unreadable" for anything else."""
    if len(raw) > FILE_LIMIT:
        raise _unreadable(f"it has {len(raw)} bytes, more than any bundle of certificates")
    ders = _pem_blocks(raw) if _BEGIN in raw else [certificate_in_nv(raw)]
    certificates = []
    for number, der in enumerate(ders, start=1):
        try:
            certificates.append(read_certificate(der))
        except EvidenceError as error:
            which = f"certificate {number} of {len(ders)}" if len(ders) > 1 else "it"
            raise _unreadable(f"{which} is no certificate that can be used: {error.detail}") from None
    return certificates


def _pem_blocks(raw: bytes) -> list[bytes]:
    blocks = _BLOCK.findall(raw)
    if len(blocks) != raw.count(_BEGIN):
        raise _unreadable("it is damaged: a PEM block in it does not end. Copy it again")
    for label, _ in blocks:
        if label != b"CERTIFICATE":
            raise _unreadable(f"it has a {label.decode('ascii', 'replace')}; only certificates belong there")
    try:
        return [base64.b64decode(b"".join(body.split()), validate=True) for _, body in blocks]
    except binascii.Error as error:
        raise _unreadable(f"it is damaged: {error}. Copy it again") from None


def _unreadable(why: str) -> EvidenceError:
    return EvidenceError("ek_certificate_unreadable", f"The file cannot be used: {why}.")
