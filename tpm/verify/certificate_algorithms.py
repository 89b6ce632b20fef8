"""Which key is this, and with which algorithm is this certificate signed?

SubjectPublicKeyInfo and AlgorithmIdentifier for the second reader (RFC 3279, 4055, 5480). A key that is
labelled for RSAES-OAEP alone, as older TPMs' are, is an ordinary RSA key: what it may be used for is for the
key usage and the TPM's own template to say.
"""

from collections.abc import Iterator

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from tpm.verify.certificate import IssuerSignature, PublicKey, SignatureScheme
from tpm.verify.der import (
    NULL,
    SEQUENCE,
    Element,
    elements,
    expect,
    integer,
    members,
    octets_of_bits,
    oid,
    whole,
)

_RSA = "1.2.840.113549.1.1.1"
_RSA_OAEP = "1.2.840.113549.1.1.7"
_RSA_PSS = "1.2.840.113549.1.1.10"
_MGF1 = "1.2.840.113549.1.1.8"
_EC = "1.2.840.10045.2.1"
_CURVES: dict[str, ec.EllipticCurve] = {
    "1.2.840.10045.3.1.7": ec.SECP256R1(),
    "1.3.132.0.34": ec.SECP384R1(),
    "1.3.132.0.35": ec.SECP521R1(),
}
_UNCOMPRESSED = 0x04

_SHA1, _SHA224, _SHA256, _SHA384, _SHA512 = (
    hashes.SHA1(), hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()
)  # fmt: skip
_RSA_SIGNATURES: dict[str, hashes.HashAlgorithm] = {
    "1.2.840.113549.1.1.5": _SHA1,
    "1.2.840.113549.1.1.14": _SHA224,
    "1.2.840.113549.1.1.11": _SHA256,
    "1.2.840.113549.1.1.12": _SHA384,
    "1.2.840.113549.1.1.13": _SHA512,
}
_EC_SIGNATURES: dict[str, hashes.HashAlgorithm] = {
    "1.2.840.10045.4.1": _SHA1,
    "1.2.840.10045.4.3.1": _SHA224,
    "1.2.840.10045.4.3.2": _SHA256,
    "1.2.840.10045.4.3.3": _SHA384,
    "1.2.840.10045.4.3.4": _SHA512,
}
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "1.3.14.3.2.26": _SHA1,
    "2.16.840.1.101.3.4.2.1": _SHA256,
    "2.16.840.1.101.3.4.2.2": _SHA384,
    "2.16.840.1.101.3.4.2.3": _SHA512,
}
_SALT_LIMIT = 512
_RSA_LIMIT = 16384


def read_public_key(element: Element) -> PublicKey:
    """An RSA key or a point on P-256, P-384 or P-521; ValueError for anything else."""
    algorithm, value = _exactly(2, element)
    kind, parameters = _algorithm(algorithm)
    key = octets_of_bits(value)
    match kind:
        case "1.2.840.113549.1.1.1":
            _expect_null(parameters)
            return _rsa_key(key)
        case "1.2.840.113549.1.1.7":
            if parameters is not None and parameters.tag != NULL:
                elements(expect(parameters, SEQUENCE).content)
            return _rsa_key(key)
        case "1.2.840.10045.2.1":
            return _ec_key(parameters, key)
    raise ValueError(f"its key is of the unknown kind {kind}")


def read_signature(algorithm: Element, value: bytes, message: bytes) -> IssuerSignature:
    """What was signed how; ValueError for a way that is not known here."""
    kind, parameters = _algorithm(algorithm)
    scheme: SignatureScheme
    if kind in _RSA_SIGNATURES:
        _expect_null(parameters)
        hash_, scheme = _RSA_SIGNATURES[kind], padding.PKCS1v15()
    elif kind in _EC_SIGNATURES:
        # Intel's root of on-die authorities has a NULL here, which RFC 5758 forbids.
        _expect_null(parameters)
        hash_ = _EC_SIGNATURES[kind]
        scheme = ec.ECDSA(hash_)
    elif kind == _RSA_PSS:
        hash_, scheme = _pss(parameters)
    else:
        raise ValueError(f"it is signed in the unknown way {kind}")
    return IssuerSignature(message, value, hash_.name, hash_, scheme)


def _rsa_key(raw: bytes) -> rsa.RSAPublicKey:
    modulus, exponent = (integer(one) for one in _exactly(2, whole(raw, SEQUENCE)))
    if not 0 < exponent < modulus < 1 << _RSA_LIMIT:
        raise ValueError("its RSA key is none, or is larger than any that is in use")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _ec_key(parameters: Element | None, point: bytes) -> ec.EllipticCurvePublicKey:
    if parameters is None:
        raise ValueError("its key names no curve")
    curve = _CURVES.get(oid(parameters))
    if curve is None:
        raise ValueError(f"its key is on the unknown curve {oid(parameters)}")
    if point[:1] != bytes([_UNCOMPRESSED]):
        raise ValueError("its key is not an uncompressed point")
    return ec.EllipticCurvePublicKey.from_encoded_point(curve, point)


def _pss(parameters: Element | None) -> tuple[hashes.HashAlgorithm, padding.PSS]:
    """Hash and salt of RSASSA-PSS (RFC 4055, 3.1); what is left out is SHA-1 and 20 octets."""
    hash_: hashes.HashAlgorithm = _SHA1
    masked: hashes.HashAlgorithm = _SHA1
    salt, last = 20, -1
    for one in elements(expect(parameters, SEQUENCE).content) if parameters is not None else ():
        (value,) = elements(one.content)
        if one.tag <= last:
            raise ValueError("its RSASSA-PSS parameters are not in order")
        last = one.tag
        match one.tag:
            case 0xA0:
                hash_ = _hash(value)
            case 0xA1:
                kind, inner = _algorithm(value)
                if kind != _MGF1 or inner is None:
                    raise ValueError("its RSASSA-PSS mask is not MGF1")
                masked = _hash(inner)
            case 0xA2 if 0 <= integer(value) <= _SALT_LIMIT:
                salt = integer(value)
            case _:
                raise ValueError("its RSASSA-PSS parameters are unknown")
    return hash_, padding.PSS(padding.MGF1(masked), salt)


def _hash(element: Element) -> hashes.HashAlgorithm:
    kind, parameters = _algorithm(element)
    _expect_null(parameters)
    if kind not in _HASHES:
        raise ValueError(f"it uses the unknown hash {kind}")
    return _HASHES[kind]


def _algorithm(element: Element) -> tuple[str, Element | None]:
    found = tuple(members(element))
    if not 1 <= len(found) <= 2:
        raise ValueError("an algorithm has no name, or more than one set of parameters")
    return oid(found[0]), found[1] if len(found) == 2 else None


def _expect_null(parameters: Element | None) -> None:
    if parameters is not None and expect(parameters, NULL).content:
        raise ValueError("a NULL is not empty")


def _exactly(count: int, element: Element) -> Iterator[Element]:
    found = tuple(members(element))
    if len(found) != count:
        raise ValueError(f"a structure has {len(found)} elements, not {count}")
    return iter(found)
