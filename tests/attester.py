"""What would a machine with a TPM send? A software attester: keys, names, quotes and certifications made by
hand.

It shares no code with the verifier, so that a mistake must be made twice to stay hidden, and it can lie in
every member: tests change one thing and expect one answer. Real TPMs are played by swtpm elsewhere.
"""

import hashlib
import hmac
import json
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.x509.oid import NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

EK_ATTRIBUTES, AK_ATTRIBUTES, KEY_ATTRIBUTES, PARENT_ATTRIBUTES = (
    0x000300B2,
    0x00050072,
    0x00040072,
    0x00030472,
)
POLICY_A = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
NULL, AES128CFB = b"\x00\x10", bytes.fromhex("000600800043")
ECDSA_SHA256, RSASSA_SHA256, RSAPSS_SHA256 = (bytes.fromhex(h) for h in ("0018000b", "0014000b", "0016000b"))
ECDSA_SHA384 = bytes.fromhex("0018000c")
CURVES = {"secp256r1": (b"\0\3", 32), "secp384r1": (b"\0\4", 48), "secp521r1": (b"\0\5", 66)}
HASHES = {"sha1": 0x4, "sha256": 0xB, "sha384": 0xC, "sha512": 0xD}
QUOTE, CERTIFY = 0x8018, 0x8017
ENDORSEMENT = bytes.fromhex("4000000b")


def sized(value: bytes) -> bytes:
    """TPM2B: two bytes of size in front."""
    return struct.pack(">H", len(value)) + value


def b64(value: bytes) -> str:
    return b64encode(value).decode()


def b64url(value: bytes) -> str:
    return b64encode(value).decode().replace("+", "-").replace("/", "_").rstrip("=")


def public_area(
    key: PrivateKey,
    *,
    attributes: int,
    policy: bytes = b"",
    symmetric: bytes = NULL,
    scheme: bytes = NULL,
    name_alg: str = "sha256",
) -> bytes:
    """TPMT_PUBLIC of an RSA, P-256, P-384 or P-521 key."""
    kind = 0x0001 if isinstance(key, rsa.RSAPrivateKey) else 0x0023
    head = struct.pack(">HHI", kind, HASHES[name_alg], attributes)
    if isinstance(key, rsa.RSAPrivateKey):
        modulus = key.public_key().public_numbers().n.to_bytes(key.key_size // 8, "big")
        return (
            head + sized(policy) + symmetric + scheme + struct.pack(">HI", key.key_size, 0) + sized(modulus)
        )
    curve, size = CURVES[key.curve.name]
    point = key.public_key().public_numbers()
    x, y = point.x.to_bytes(size, "big"), point.y.to_bytes(size, "big")
    return head + sized(policy) + symmetric + scheme + curve + NULL + sized(x) + sized(y)


def name_of(public: bytes) -> bytes:
    return public[2:4] + hashlib.new(hash_name(public[2:4]), public).digest()


def qualified(parent: bytes, name: bytes) -> bytes:
    return name[:2] + hashlib.new(hash_name(name[:2]), parent + name).digest()


def hash_name(algorithm: bytes) -> str:
    """By its TPM_ALG_ID."""
    return next(name for name, number in HASHES.items() if number == int.from_bytes(algorithm, "big"))


def selection(bank: str, pcrs: Iterable[int]) -> bytes:
    """TPML_PCR_SELECTION of one bank."""
    bits = sum(1 << register for register in pcrs)
    return struct.pack(">IHB", 1, HASHES[bank], 3) + bits.to_bytes(3, "little")


@dataclass(frozen=True)
class TestMaker:
    """A TPM maker's certificate authority."""

    __test__ = False
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def create(cls, name: str = "Test TPM Maker Root", *, uri: str | None = None) -> "TestMaker":
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder()
        if uri is not None:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
            builder = builder.add_extension(names, critical=False)
        certificate = (
            builder.subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def endorse(self, ek: PrivateKey, *, manufacturer: str = "id:49465800") -> bytes:
        """An EK certificate (DER) as TCG's EK Credential Profile has it."""
        attributes = [
            ("2.23.133.2.1", manufacturer),
            ("2.23.133.2.2", "SLB9670"),
            ("2.23.133.2.3", "id:00070055"),
        ]
        names = x509.Name(
            [x509.NameAttribute(x509.ObjectIdentifier(oid), value) for oid, value in attributes]
        )
        rsa_key = isinstance(ek, rsa.RSAPrivateKey)
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(ek.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=3000))
            .add_extension(x509.SubjectAlternativeName([x509.DirectoryName(names)]), critical=True)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(_usage(key_encipherment=rsa_key, key_agreement=not rsa_key), critical=True)
            .add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier("2.23.133.8.1")]), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _usage(**on: bool) -> x509.KeyUsage:
    names = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment"]
    names += ["key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    return x509.KeyUsage(**{name: on.get(name, False) for name in names})


def new_key(kind: str) -> PrivateKey:
    """ "rsa" (2048 bits), "p256", "p384" or "p521"."""
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    curve = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}[kind]
    return ec.generate_private_key(curve)


def hash_of(key: PrivateKey) -> Any:
    """The hash that goes with a key: SHA-384 with the two long curves, SHA-256 otherwise."""
    long = isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size > 256
    return hashes.SHA384() if long else hashes.SHA256()


def scheme_of(key: PrivateKey) -> bytes:
    """RSASSA or ECDSA with that hash."""
    if isinstance(key, rsa.RSAPrivateKey):
        return RSASSA_SHA256
    return ECDSA_SHA384 if key.key_size > 256 else ECDSA_SHA256


def side_by_side(key: ec.EllipticCurvePrivateKey, message: bytes) -> tuple[bytes, bytes]:
    """r and s of an ECDSA signature at full width."""
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hash_of(key))))
    size = (key.key_size + 7) // 8
    return r.to_bytes(size, "big"), s.to_bytes(size, "big")


def sign(key: PrivateKey, message: bytes) -> bytes:
    """TPMT_SIGNATURE by the key's scheme."""
    if isinstance(key, rsa.RSAPrivateKey):
        return RSASSA_SHA256 + sized(key.sign(message, padding.PKCS1v15(), hashes.SHA256()))
    return scheme_of(key) + b"".join(sized(number) for number in side_by_side(key, message))


def jws_value(key: PrivateKey, message: bytes) -> bytes:
    """The signature value of RFC 7518: r and s side by side, or RSASSA-PSS."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    return b"".join(side_by_side(key, message))


def jwk_of(key: PrivateKey) -> dict[str, str]:
    """The public JWK with the members that the protocol asks for."""
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        return {
            "kty": "RSA",
            "alg": "PS256",
            "n": b64url(numbers.n.to_bytes(key.key_size // 8, "big")),
            "e": "AQAB",
        }
    point = key.public_key().public_numbers()
    size = (key.key_size + 7) // 8
    x, y = point.x.to_bytes(size, "big"), point.y.to_bytes(size, "big")
    alg = f"ES{hash_of(key).digest_size * 8}"
    return {"kty": "EC", "crv": f"P-{key.key_size}", "alg": alg, "x": b64url(x), "y": b64url(y)}


@dataclass(frozen=True)
class TpmKey:
    """A key that the pretended TPM holds; `public` is its TPMT_PUBLIC."""

    key: PrivateKey
    public: bytes

    @property
    def name(self) -> bytes:
        return name_of(self.public)

    def shaped(self, **shape: Any) -> "TpmKey":
        """The same key in another public area; what `shape` does not name is a storage key's."""
        good: dict[str, Any] = {"attributes": PARENT_ATTRIBUTES, "symmetric": AES128CFB}
        return TpmKey(self.key, public_area(self.key, **(good | shape)))


def signing_key(kind: str = "p256", *, attributes: int = KEY_ATTRIBUTES) -> TpmKey:
    key = new_key(kind)
    scheme = RSAPSS_SHA256 if kind == "rsa" else scheme_of(key)
    return TpmKey(key, public_area(key, attributes=attributes, scheme=scheme))


def parent_key(kind: str = "p256", *, attributes: int = PARENT_ATTRIBUTES) -> TpmKey:
    key = new_key(kind)
    return TpmKey(key, public_area(key, attributes=attributes, symmetric=AES128CFB))


@dataclass(frozen=True)
class Machine:
    """A TPM with its clock and registers; `replace` gives the same machine at another moment."""

    ek: PrivateKey
    ak: PrivateKey
    ek_public: bytes
    ak_public: bytes
    ek_certificate: bytes | None
    pcrs: dict[int, bytes]
    bank: str = "sha256"
    clock: int = 100_000
    reset_count: int = 7
    restart_count: int = 0
    safe: int = 1
    firmware_version: int = 0x0001000200030004
    ak_below_ek: bool = False

    @classmethod
    def create(
        cls, maker: TestMaker | None, *, ek: str = "p256", ak: str = "p256", **extra: Any
    ) -> "Machine":
        ek_key, ak_key = new_key(ek), new_key(ak)
        ek_public = public_area(ek_key, attributes=EK_ATTRIBUTES, policy=POLICY_A, symmetric=AES128CFB)
        pcrs = {register: hashlib.sha256(b"pcr%d" % register).digest() for register in range(24)}
        machine = cls(
            ek_key, ak_key, ek_public, b"", None if maker is None else maker.endorse(ek_key), pcrs, **extra
        )
        return machine.with_new_ak(ak_key)

    def with_new_ak(self, key: PrivateKey | None = None, **shape: Any) -> "Machine":
        """`shape` is what differs from an attestation key as it should be."""
        key = key or new_key("p256")
        good: dict[str, Any] = {"attributes": AK_ATTRIBUTES, "scheme": scheme_of(key)}
        return replace(self, ak=key, ak_public=public_area(key, **(good | shape)))

    def later(self, ms: int = 1000) -> "Machine":
        return replace(self, clock=self.clock + ms)

    def rebooted(self) -> "Machine":
        return replace(self, reset_count=self.reset_count + 1, restart_count=0, clock=self.clock + 60_000)

    def extended(self, register: int, digest: bytes) -> "Machine":
        value = hashlib.new(self.bank, self.pcrs[register] + digest).digest()
        return replace(self, pcrs={**self.pcrs, register: value})

    @property
    def device_id(self) -> str:
        spki = self.ek.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(spki).hexdigest()

    @property
    def qualified_signer(self) -> bytes:
        parent = qualified(ENDORSEMENT, name_of(self.ek_public)) if self.ak_below_ek else ENDORSEMENT
        return qualified(parent, name_of(self.ak_public))

    def activate(self, id_object: bytes, encrypted_secret: bytes) -> bytes:
        """TPM2_ActivateCredential: the secret, if it was made for this EK and this AK."""
        ek = TpmKey(self.ek, self.ek_public)
        return unwrap(ek, b"IDENTITY", name_of(self.ak_public), id_object[2:], encrypted_secret[2:])

    def attested(self, kind: int, extra: bytes, body: bytes, *, signer: bytes | None = None) -> bytes:
        """TPMS_ATTEST with the machine's clock."""
        clock = struct.pack(">QIIB", self.clock, self.reset_count, self.restart_count, self.safe)
        head = (
            b"\xffTCG" + struct.pack(">H", kind) + sized(self.qualified_signer if signer is None else signer)
        )
        return head + sized(extra) + clock + struct.pack(">Q", self.firmware_version) + body

    def quote(
        self, extra: bytes, registers: Any, *, selected: bytes | None = None, signer: bytes | None = None
    ) -> tuple[bytes, bytes]:
        """TPMS_ATTEST and TPMT_SIGNATURE over the current values of these registers; `selected` is what the
        quote says instead that they are."""
        values = b"".join(self.pcrs[register] for register in sorted(registers))
        chosen = selection(self.bank, registers) if selected is None else selected
        body = chosen + sized(hashlib.new(hash_of(self.ak).name, values).digest())
        attest = self.attested(QUOTE, extra, body, signer=signer)
        return attest, sign(self.ak, attest)

    def certify(self, key: TpmKey, extra: bytes) -> dict[str, str]:
        """What TPM2_Certify says of a key, as the protocol carries it."""
        body = sized(key.name) + sized(qualified(qualified(ENDORSEMENT, b"\x00\x0b" + bytes(32)), key.name))
        attest = self.attested(CERTIFY, extra, body)
        return {
            "public": b64(sized(key.public)),
            "attest": b64(attest),
            "signature": b64(sign(self.ak, attest)),
        }


def unwrap(key: TpmKey, label: bytes, name: bytes, wrapped: bytes, secret: bytes) -> bytes:
    """The plain value of an outer wrapper (TPM 2.0 Part 1, 22.4 and 24): seed, integrity, decryption. `key`
    is the endorsement or storage key to which it was wrapped; all sizes are its own."""
    hash, aes = hash_name(key.public[2:4]), cipher_bits(key.public)
    seed = _open_seed(key.key, hash, label, secret)
    mac_size = struct.unpack(">H", wrapped[:2])[0]
    mac, encrypted = wrapped[2 : 2 + mac_size], wrapped[2 + mac_size :]
    integrity = _kdfa(hash, seed, b"INTEGRITY", b"", hashlib.new(hash).digest_size * 8)
    assert hmac.compare_digest(hmac.digest(integrity, encrypted + name, hash), mac), "integrity"
    storage = _kdfa(hash, seed, b"STORAGE", name, aes)
    decryptor = Cipher(algorithms.AES(storage), CFB(bytes(16))).decryptor()
    plain = decryptor.update(encrypted) + decryptor.finalize()
    return plain[2 : 2 + struct.unpack(">H", plain[:2])[0]]


def opened(parent: TpmKey, sealed: dict[str, Any]) -> bytes:
    """TPM2_Import and TPM2_Unseal without regard to the policy: the sensitive value of a sealed key, by its
    member of the answer."""
    public = b64decode(sealed["public"])[2:]
    wrapped, seed = b64decode(sealed["duplicate"])[2:], b64decode(sealed["encrypted_seed"])[2:]
    sensitive = unwrap(parent, b"DUPLICATE", name_of(public), wrapped, seed)
    # TPMT_SENSITIVE: type, password, obfuscation, value.
    parts, place = [], 2
    while place < len(sensitive):
        size = int.from_bytes(sensitive[place : place + 2], "big")
        parts.append(sensitive[place + 2 : place + 2 + size])
        place += 2 + size
    return parts[-1]


def cipher_bits(public: bytes) -> int:
    """Of the AES with which a storage key protects."""
    policy_size = int.from_bytes(public[8:10], "big")
    return int.from_bytes(public[12 + policy_size : 14 + policy_size], "big")


def _open_seed(key: PrivateKey, hash: str, label: bytes, secret: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        primitive = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}[hash]
        return key.decrypt(secret, padding.OAEP(padding.MGF1(primitive), primitive, label + b"\0"))
    size = (key.key_size + 7) // 8
    x, y = secret[2 : 2 + size], secret[4 + size :]
    numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), key.curve)
    shared = key.exchange(ec.ECDH(), numbers.public_key())
    own = key.public_key().public_numbers().x.to_bytes(size, "big")
    return hashlib.new(hash, struct.pack(">I", 1) + shared + label + b"\0" + x + own).digest()


def _kdfa(hash: str, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    message = struct.pack(">I", 1) + label + b"\0" + context + struct.pack(">I", bits)
    return hmac.digest(key, message, hash)[: bits // 8]


@dataclass(frozen=True)
class Round:
    """One attestation before it is sent: change any member, then `body()`."""

    machine: Machine
    request: dict[str, Any]
    registers: tuple[int, ...]
    certified: tuple[TpmKey, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    quoting: Callable[[Machine, bytes, Any], tuple[bytes, bytes]] = Machine.quote
    """Makes TPMS_ATTEST and TPMT_SIGNATURE of machine, request digest and registers: here one can lie."""

    def body(self, raw: bytes | None = None) -> dict[str, Any]:
        """The JSON body of `POST /v1/attestations`; `raw` are the request's bytes instead of its members'."""
        raw = json.dumps(self.request).encode() if raw is None else raw
        digest = hashlib.sha256(raw).digest()
        attest, signature = self.quoting(self.machine, digest, self.registers)
        values = {str(register): self.machine.pcrs[register].hex() for register in self.registers}
        proofs = [None if _is_parent(key) else b64(jws_value(key.key, raw)) for key in self.certified]
        body: dict[str, Any] = {
            "request": b64(raw),
            "quote": {"attest": b64(attest), "signature": b64(signature)},
            "pcrs": {self.machine.bank: values},
        }
        if self.certified:
            body["certified"] = [self.machine.certify(key, digest) for key in self.certified]
            body["proofs"] = proofs
        return body | self.extra


def _is_parent(key: TpmKey) -> bool:
    return int.from_bytes(key.public[4:8], "big") & 0x00020000 != 0


def enrollment_body(machine: Machine, **changes: Any) -> dict[str, Any]:
    """The JSON body of `POST /v1/enrollments`."""
    certificate = None if machine.ek_certificate is None else b64(machine.ek_certificate)
    body: dict[str, Any] = {
        "ek_public": b64(sized(machine.ek_public)),
        "ek_certificate": certificate,
        "ek_chain": [],
        "ak_public": b64(sized(machine.ak_public)),
        "hostname": None,
    }
    return body | changes


def activation_body(machine: Machine, answer: dict[str, Any], server: str) -> dict[str, str]:
    """The JSON body of `POST /v1/activations` for what `/v1/enrollments` answered."""
    credential = answer["credential"]
    secret = machine.activate(b64decode(credential["id_object"]), b64decode(credential["encrypted_secret"]))
    message = b"attestd-activate\0" + server.encode() + b"\0" + answer["enrollment"].encode()
    return {"enrollment": answer["enrollment"], "proof": b64(hmac.new(secret, message, "sha256").digest())}


def new_round(machine: Machine, challenge: dict[str, Any], server: str, **members: Any) -> Round:
    """A healthy round over the registers that the challenge asks of the machine's bank."""
    registers = next(s["pcrs"] for s in challenge["pcr_selection"] if s["bank"] == machine.bank)
    certified = members.pop("certified", ())
    request = {
        "v": 1,
        "purpose": "attest",
        "server": server,
        "nonce": challenge["nonce"],
        "device_id": machine.device_id,
    }
    return Round(machine, request | members, tuple(registers), tuple(certified))
