"""What do verifying a quote and answering with a secret cost, beside the bare OpenSSL operations in them?"""

import os
from collections.abc import Iterator

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from scripts.bench.measure import Row, Work, pair
from tests.attester import Machine, sized
from tpm.seal.credential import make_credential
from tpm.seal.duplicate import duplicate
from tpm.seal.objects import mint
from tpm.structures.attest import parse_quote
from tpm.structures.public import parse_sized_public
from tpm.structures.signature import parse_signature
from tpm.verify.keys import accept_attestation_key, expected_signers
from tpm.verify.quote import verify_quote

_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"DUPLICATE\0")


def rows() -> Iterator[Row]:
    """Quote checks, credential challenges and duplications, RSA-2048 and P-256."""
    for kind, bound in (("rsa", 1.5), ("p256", 1.25)):
        ours, floor = _quote_check(kind)
        yield pair(f"quote check, {_title(kind)}", ours, floor, bound=bound)
    for kind in ("rsa", "p256"):
        yield from _wrapping(kind)


def _wrapping(kind: str) -> Iterator[Row]:
    """What is made for a TPM to open: a challenge, and a sealed key."""
    parent = parse_sized_public(sized(Machine.create(None, ek=kind).ek_public))
    floor = _bare_encryption(kind, parent.public_key())
    minted, secret = mint("secret-32", policy_digest=bytes(32)), os.urandom(32)
    name = b"\x00\x0b" + os.urandom(32)

    def challenge() -> object:
        return make_credential(parent, name, secret)

    yield pair(f"credential challenge, {_title(kind)}", challenge, floor, bound=2.0)
    yield pair(f"duplication, {_title(kind)}", lambda: duplicate(minted, parent), floor, bound=2.0)


def _title(kind: str) -> str:
    return {"rsa": "RSA-2048", "p256": "P-256"}[kind]


def _quote_check(kind: str) -> tuple[Work, Work]:
    """From the bytes of quote and signature to a VerifiedQuote, the key loaded before; and OpenSSL alone."""
    machine = Machine.create(None, ak=kind)
    nonce = os.urandom(32)
    attest, signed = machine.quote(nonce, range(8))
    ak = accept_attestation_key(parse_sized_public(sized(machine.ak_public)))
    signers = expected_signers(ak, parse_sized_public(sized(machine.ek_public)))

    def ours() -> object:
        return verify_quote(
            parse_quote(attest),
            parse_signature(signed),
            ak=ak,
            expected_extra_data=nonce,
            expected_signers=signers,
        )

    signature, key = parse_signature(signed), ak.key
    if isinstance(key, rsa.RSAPublicKey):
        return ours, lambda: key.verify(signature.value, attest, padding.PKCS1v15(), hashes.SHA256())
    der = encode_dss_signature(signature.r, signature.s)
    return ours, lambda: key.verify(der, attest, ec.ECDSA(hashes.SHA256()))


def _bare_encryption(kind: str, key: object) -> Work:
    """One RSA-OAEP encryption; or one new key and one ECDH."""
    if isinstance(key, rsa.RSAPublicKey):
        return lambda: key.encrypt(bytes(32), _OAEP)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return lambda: ec.generate_private_key(ec.SECP256R1()).exchange(ec.ECDH(), key)
