"""Is this the certificate of a key that signs for a TPM, and of which machine?"""

from tpm.errors import EvidenceError
from tpm.verify.certificate import (
    ALTERNATIVE_NAME,
    BASIC_CONSTRAINTS,
    CERTIFICATE_POLICIES,
    KEY_USAGE,
    PURPOSES,
    Certificate,
)
from tpm.verify.certificate_names import hardware_serial
from tpm.verify.endorsement_profile import EK_PURPOSE, ENTERPRISES

AK_PURPOSE = "2.23.133.8.3"
VERIFIED_RESIDENT = "2.23.133.11.1.1"
VERIFIED_FIXED = "2.23.133.11.1.2"
VERIFIED_RESTRICTED = "2.23.133.11.1.3"
ATTESTATION_PURPOSES = frozenset({AK_PURPOSE, EK_PURPOSE})

_TPM_POLICIES = frozenset({VERIFIED_RESIDENT, VERIFIED_FIXED, VERIFIED_RESTRICTED})
_HARDWARE_MODULE = "1.3.6.1.5.5.7.8.4"
_TPM_HARDWARE = "2.23.133.1.2"
_UNDERSTOOD = frozenset({BASIC_CONSTRAINTS, KEY_USAGE, PURPOSES, ALTERNATIVE_NAME, CERTIFICATE_POLICIES})
_ENCRYPTING = frozenset({"keyEncipherment", "dataEncipherment", "keyAgreement"})


def check_signing_profile(certificate: Certificate, *, identity: bool = False) -> None:
    """EvidenceError "ak_cert_profile" unless it is an AK's or IAK's certificate; with `identity`, an
    IDevID's, whose key is unrestricted and may have purposes of its own."""
    # 1. An end entity.
    if certificate.version != 3 or certificate.is_ca:
        raise _refusal("it is a certification authority's, or not of version 3")
    # 2. Its key signs, and is not for signing certificates.
    usages = certificate.usages
    if usages is not None and ("digitalSignature" not in usages or "keyCertSign" in usages):
        raise _refusal(f"its key usage allows {', '.join(sorted(usages)) or 'nothing'}, not digitalSignature")
    # 3. Its purpose is to attest.
    if not identity:
        _check_purposes(certificate)
    # 4. Where its issuer says what it has verified of the key, it has verified that the key is restricted.
    stated = (certificate.policies or frozenset()) & _TPM_POLICIES
    wanted = VERIFIED_FIXED if identity else VERIFIED_RESTRICTED
    if stated and wanted not in stated:
        raise _refusal(f"its issuer has not verified {wanted} of the key")
    # 5. Nothing in it demands to be understood that is not.
    unknown = certificate.critical - _UNDERSTOOD
    if unknown:
        raise _refusal(f"its critical extension {min(unknown)} is unknown")


def device_serial(certificate: Certificate) -> bytes | None:
    """The hwSerialNum of its TPM's hardwareModuleName; None where it names none, or not one alone."""
    serials = set()
    for kind, value in certificate.other_names:
        if kind != _HARDWARE_MODULE:
            continue
        try:
            hardware, serial = hardware_serial(value)
        except ValueError:
            raise _refusal("its hardwareModuleName is none") from None
        if hardware == _TPM_HARDWARE and serial:
            serials.add(serial)
    return serials.pop() if len(serials) == 1 else None


def _check_purposes(certificate: Certificate) -> None:
    purposes, usages = certificate.purposes, certificate.usages
    if purposes is not None and AK_PURPOSE in purposes:
        others = {one for one in purposes - {AK_PURPOSE} if not one.startswith(ENTERPRISES)}
        if others:
            raise _refusal(f"it has another purpose beside {AK_PURPOSE}: {min(others)}")
        return
    # Google's: no purpose, or the EK's, with a key usage that says that the key only signs.
    if purposes is not None and purposes != {EK_PURPOSE}:
        raise _refusal(f"its purpose is {', '.join(sorted(purposes)) or 'none'}, not {AK_PURPOSE}")
    if usages is None or usages & _ENCRYPTING:
        raise _refusal(f"it has neither the purpose {AK_PURPOSE} nor a key usage that only signs")


def _refusal(why: str) -> EvidenceError:
    return EvidenceError("ak_cert_profile", f"This is not the certificate of an attestation key: {why}.")
