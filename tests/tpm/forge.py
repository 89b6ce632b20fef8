"""How would a TPM, or a liar, write these bytes?

Encoders made from the specification and not from the parsers they test: every member can be set to what no
TPM writes. Keys are software keys, so that a lie can carry a good signature.
"""

import functools
import hashlib
import struct
from collections.abc import Iterable, Mapping

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

ALG = {"sha1": 0x0004, "sha256": 0x000B, "sha384": 0x000C, "sha512": 0x000D}
SIGNATURES = {"rsassa": 0x0014, "rsapss": 0x0016, "ecdsa": 0x0018}
HASHES = {
    "sha1": hashes.SHA1(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
CURVES = {"p256": (3, ec.SECP256R1(), 32), "p384": (4, ec.SECP384R1(), 48), "p521": (5, ec.SECP521R1(), 66)}
NULL = b"\x00\x10"
AES128CFB, AES256CFB = bytes.fromhex("000600800043"), bytes.fromhex("000601000043")
ENDORSEMENT = bytes.fromhex("4000000b")
NONCE = hashlib.sha256(b"the exact bytes of the request").digest()
AK, CREDENTIAL, STORAGE = 0x00050072, 0x00040072, 0x00030472
EK_LOW, EK_HIGH = 0x000300B2, 0x000300F2


@functools.cache
def private_key(kind: str, which: int = 0) -> PrivateKey:
    """A key by size or curve ("rsa2048", "p256", …); `which` tells several of a kind apart. Made once a
    run.
    """
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:]))
    return ec.generate_private_key(CURVES[kind][1])


def sized(content: bytes) -> bytes:
    return struct.pack(">H", len(content)) + content


def signing_scheme(name: str, hash: str = "sha256") -> bytes:
    return struct.pack(">HH", SIGNATURES[name], ALG[hash])


def public_area(
    key: PrivateKey,
    *,
    attributes: int = AK,
    scheme: bytes = NULL,
    symmetric: bytes = NULL,
    policy: bytes = b"",
    name_alg: str = "sha256",
) -> bytes:
    """TPMT_PUBLIC as a TPM writes it: exponent 0 for 65537, numbers at full width."""
    kind = 0x0001 if isinstance(key, rsa.RSAPrivateKey) else 0x0023
    head = struct.pack(">HHI", kind, ALG[name_alg], attributes) + sized(policy) + symmetric + scheme
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        exponent = 0 if numbers.e == 65537 else numbers.e
        modulus = numbers.n.to_bytes(key.key_size // 8, "big")
        return head + struct.pack(">HI", key.key_size, exponent) + sized(modulus)
    curve, _, size = next(known for known in CURVES.values() if known[1].name == key.curve.name)
    point = key.public_key().public_numbers()
    x, y = point.x.to_bytes(size, "big"), point.y.to_bytes(size, "big")
    return head + struct.pack(">H", curve) + NULL + sized(x) + sized(y)


def name_of(public: bytes) -> bytes:
    hash = next(name for name, number in ALG.items() if number == int.from_bytes(public[2:4], "big"))
    return public[2:4] + hashlib.new(hash, public).digest()


def selection(*banks: tuple[str, Iterable[int]]) -> bytes:
    """TPML_PCR_SELECTION with three bytes of bitmap."""
    entries = b""
    for bank, pcrs in banks:
        bits = sum(1 << pcr for pcr in pcrs)
        entries += struct.pack(">HB", ALG[bank], 3) + bits.to_bytes(3, "little")
    return struct.pack(">I", len(banks)) + entries


def digest_of(
    values: Mapping[str, Mapping[int, bytes]],
    banks: Iterable[tuple[str, Iterable[int]]],
    hash: str = "sha256",
) -> bytes:
    """What a TPM computes over these registers: banks in the order given, registers ascending."""
    content = b"".join(values[bank][pcr] for bank, pcrs in banks for pcr in sorted(pcrs))
    return hashlib.new(hash, content).digest()


def attest(
    body: bytes,
    *,
    kind: int,
    magic: int = 0xFF544347,
    signer: bytes = b"",
    extra: bytes = NONCE,
    clock: tuple[int, int, int, int] = (250_000, 7, 1, 1),
) -> bytes:
    """TPMS_ATTEST around the part that its type decides; `clock` is clock, resets, restarts, safe."""
    head = struct.pack(">IH", magic, kind) + sized(signer) + sized(extra)
    return head + struct.pack(">QIIB", *clock) + struct.pack(">Q", 0x2019102300163636) + body


def quote(selected: bytes, digest: bytes, **claims: object) -> bytes:
    return attest(selected + sized(digest), **{"kind": 0x8018, **claims})  # type: ignore[arg-type]


def certification(name: bytes, qualified: bytes = b"", **claims: object) -> bytes:
    return attest(sized(name) + sized(qualified), **{"kind": 0x8017, **claims})  # type: ignore[arg-type]


def sign(key: PrivateKey, message: bytes, scheme: str, hash: str = "sha256") -> bytes:
    """TPMT_SIGNATURE: r and s at full width, salts as long as the digest."""
    head = struct.pack(">HH", SIGNATURES[scheme], ALG[hash])
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(HASHES[hash])))
        size = (key.curve.key_size + 7) // 8
        return head + sized(r.to_bytes(size, "big")) + sized(s.to_bytes(size, "big"))
    return head + sized(key.sign(message, rsa_padding(scheme, hash), HASHES[hash]))


def rsa_padding(scheme: str, hash: str = "sha256") -> padding.AsymmetricPadding:
    if scheme == "rsapss":
        return padding.PSS(padding.MGF1(HASHES[hash]), padding.PSS.DIGEST_LENGTH)
    return padding.PKCS1v15()


def ecdsa_signature(r: int, s: int, *, size: int = 32, hash: str = "sha256") -> bytes:
    """TPMT_SIGNATURE of two chosen numbers."""
    head = struct.pack(">HH", SIGNATURES["ecdsa"], ALG[hash])
    return head + sized(r.to_bytes(size, "big")) + sized(s.to_bytes(size, "big"))
