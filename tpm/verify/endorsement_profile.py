"""Is this the certificate of an endorsement key, and which TPM does it speak of?

The TCG's EK Credential Profile 2.6, read so that every genuine certificate in the vectors passes and no other
kind.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import rsa

from tpm.errors import EvidenceError
from tpm.verify.certificate import (
    ALTERNATIVE_NAME,
    BASIC_CONSTRAINTS,
    CERTIFICATE_POLICIES,
    KEY_USAGE,
    PURPOSES,
    Attributes,
    Certificate,
)

EK_PURPOSE = "2.23.133.8.1"
MANUFACTURER = "2.23.133.2.1"
MODEL = "2.23.133.2.2"
VERSION = "2.23.133.2.3"

_UNDERSTOOD = frozenset({BASIC_CONSTRAINTS, KEY_USAGE, PURPOSES, ALTERNATIVE_NAME, CERTIFICATE_POLICIES})
# A maker's own purposes, under its enterprise number, stand beside the EK purpose in genuine certificates.
ENTERPRISES = "1.3.6.1.4.1."
_TEXT_LIMIT = 128


@dataclass(frozen=True, slots=True)
class Maker:
    """Who made the TPM, which one, with what firmware, as its certificate says; all None where it is silent.

    `manufacturer` is the registered id in ASCII without padding ("IFX"), or "id:" and its upper-case hex
    where it is not printable. `model` and `version` are as they stand in the certificate ("SLB 9670 TPM2.0",
    "id:073f").
    """

    manufacturer: str | None
    model: str | None
    version: str | None


def check_profile(certificate: Certificate) -> Maker:
    """The TPM that it speaks of; EvidenceError "ek_cert_profile" when it is not an EK certificate."""
    # 1. An end entity: what may sign certificates speaks for others, not for a TPM. Absent constraints say
    #    the same.
    if certificate.version != 3:
        raise _refusal(f"it is of version {certificate.version}, not 3")
    if certificate.is_ca:
        raise _refusal("it is a certification authority's")
    # 2. Its key decrypts. An absent key usage forbids nothing (RFC 5280, 4.2.1.3).
    _check_usages(certificate)
    # 3. Its purpose is to be an EK certificate, not an AK's (2.23.133.8.3), a platform's (8.2) or a TLS
    #    server's.
    _check_purposes(certificate)
    # 4. Nothing in it demands to be understood that is not.
    unknown = certificate.critical - _UNDERSTOOD
    if unknown:
        raise _refusal(f"its critical extension {min(unknown)} is unknown")
    # 5. It names its maker, or at least does not contradict itself.
    return read_maker(certificate)


def read_maker(certificate: Certificate) -> Maker:
    """The TCG attributes of its subject alternative name and of its subject, which some makers use instead.

    A certificate without a subject alternative name may be silent about all three (Google's cloud TPMs are).
    """
    stated = (*(certificate.alternative_names or ()), *certificate.subject_attributes)
    manufacturer, model, version = (_only(stated, oid) for oid in (MANUFACTURER, MODEL, VERSION))
    told = [value is not None for value in (manufacturer, model, version)]
    if not all(told) and (any(told) or certificate.alternative_names is not None):
        raise _refusal("its subject alternative name does not give manufacturer, model and version")
    return Maker(None if manufacturer is None else _manufacturer(manufacturer), model, version)


def stated_maker(certificate: Certificate) -> Maker:
    """The same of any certificate, for display: each attribute that is in order, None for the others."""
    stated = (*(certificate.alternative_names or ()), *certificate.subject_attributes)
    return Maker(
        _if_sound(lambda: _stated_manufacturer(stated)),
        _if_sound(lambda: _only(stated, MODEL)),
        _if_sound(lambda: _only(stated, VERSION)),
    )


def _if_sound(read: Callable[[], str | None]) -> str | None:
    try:
        return read()
    except EvidenceError:
        return None


def _stated_manufacturer(stated: Attributes) -> str | None:
    value = _only(stated, MANUFACTURER)
    return None if value is None else _manufacturer(value)


def _check_usages(certificate: Certificate) -> None:
    usages = certificate.usages
    if usages is None:
        return
    # An RSA key cannot agree on keys; to an elliptic one both words say that secrets are encrypted to it.
    wanted = (
        {"keyEncipherment"}
        if isinstance(certificate.key, rsa.RSAPublicKey)
        else {"keyAgreement", "keyEncipherment"}
    )
    if not usages & wanted:
        found = ", ".join(sorted(usages)) or "nothing"
        raise _refusal(f"its key usage allows {found}, not {' or '.join(sorted(wanted))}")
    if "keyCertSign" in usages:
        raise _refusal("its key usage allows keyCertSign")


def _check_purposes(certificate: Certificate) -> None:
    purposes = certificate.purposes
    if purposes is None:
        return
    if EK_PURPOSE not in purposes:
        raise _refusal(f"its purpose is {', '.join(sorted(purposes))}, not {EK_PURPOSE}")
    others = {purpose for purpose in purposes - {EK_PURPOSE} if not purpose.startswith(ENTERPRISES)}
    if others:
        raise _refusal(f"it has another purpose beside {EK_PURPOSE}: {', '.join(sorted(others))}")


def _only(stated: Attributes, oid: str) -> str | None:
    values = {value for found, value in stated if found == oid}
    if len(values) > 1:
        raise _refusal(f"it gives several values for {oid}")
    for value in values:
        if not value or len(value) > _TEXT_LIMIT or not value.isprintable():
            raise _refusal(f"its value for {oid} is empty, too long or not printable")
        return value
    return None


def _manufacturer(stated: str) -> str:
    """From "id:49465800" to "IFX". Four octets, padded with zeros or spaces (TCG Vendor ID Registry)."""
    digits = stated.removeprefix("id:")
    try:
        octets = bytes.fromhex(digits)
    except ValueError:
        octets = b""
    if digits == stated or len(digits) != 8 or len(octets) != 4:
        raise _refusal(f'its manufacturer "{stated[:40]}" is not "id:" and eight hex digits')
    name = octets.rstrip(b"\0 ")
    if name and all(0x20 < octet < 0x7F for octet in name):
        return name.decode("ascii")
    return f"id:{digits.upper()}"


def _refusal(why: str) -> EvidenceError:
    return EvidenceError("ek_cert_profile", f"This is not the certificate of an endorsement key: {why}.")
