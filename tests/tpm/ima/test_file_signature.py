"""Does a file's signature count only if a key of ours made it over that file's digest?"""

import datetime
import struct

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from tests.tpm.vectors import vectors
from tpm.errors import EvidenceError, StructureError
from tpm.ima.entry import FileDigest
from tpm.ima.file_signature import FileKeys, load_file_keys, verify_file_signature
from tpm.ima.measurements import read_entries
from tpm.structures.algorithms import SHA256, SHA384, Hash

SIGNED = vectors("ima/keylime-signatures")[0]
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
RSA, EC = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
KEYS: dict[str, Key] = {"rsa": RSA, "ec": EC}
DIGEST = FileDigest("ima", "sha256", SHA256.digest(b"file"))
VERITY = FileDigest("verity", "sha256", SHA256.digest(b"tree"))


def pem(key: Key | ed25519.Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def identifier(key: Key) -> bytes:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest[-4:]


def header(key: Key, size: int, *, kind: int = 3, version: int = 2, hash_number: int = 4) -> bytes:
    return struct.pack(">BBB4sH", kind, version, hash_number, identifier(key), size)


def sign(key: Key, digest: bytes, made_with: Hash = SHA256, **said: int) -> bytes:
    prehashed = Prehashed(made_with.primitive)
    if isinstance(key, rsa.RSAPrivateKey):
        value = key.sign(digest, padding.PKCS1v15(), prehashed)
    else:
        value = key.sign(digest, ec.ECDSA(prehashed))
    return header(key, len(value), **said) + value


def refused(signature: bytes, digest: FileDigest = DIGEST, keys: FileKeys | None = None) -> str:
    ours = load_file_keys([pem(key) for key in KEYS.values()]) if keys is None else keys
    with pytest.raises(EvidenceError) as caught:
        verify_file_signature(signature, digest=digest, keys=ours)
    return caught.value.reason


def test_the_published_signature_holds_under_the_published_key() -> None:
    keys = load_file_keys([SIGNED.read("rsa2048pub.pem")])
    first, second = read_entries(SIGNED.read("ima.txt"))
    assert first.signature is not None
    assert first.file_digest is not None
    key = verify_file_signature(first.signature, digest=first.file_digest, keys=keys)
    assert key == load_pem_public_key(SIGNED.read("rsa2048pub.pem"))
    assert second.signature is not None
    assert second.file_digest is not None
    assert refused(second.signature, second.file_digest, keys) == "file_key_unknown"
    assert refused(first.signature, second.file_digest, keys) == "file_signature"


@pytest.mark.parametrize("name", KEYS)
def test_a_signature_of_each_version_holds(name: str) -> None:
    key, keys = KEYS[name], load_file_keys([pem(KEYS["rsa"]) + pem(KEYS["ec"])])
    third = SHA256.digest(b"\3\4" + DIGEST.digest)
    for signature, digest in (
        (sign(key, DIGEST.digest), DIGEST),
        (sign(key, third, version=3), DIGEST),
        (sign(key, SHA256.digest(b"\6\4" + VERITY.digest), kind=6, version=3), VERITY),
    ):
        assert verify_file_signature(signature, digest=digest, keys=keys) == key.public_key()


def test_a_longer_hash_is_read_by_its_number() -> None:
    digest = FileDigest("ima", "sha384", SHA384.digest(b"file"))
    signature = sign(KEYS["rsa"], digest.digest, SHA384, hash_number=5)
    verify_file_signature(signature, digest=digest, keys=load_file_keys([pem(KEYS["rsa"])]))
    assert refused(sign(KEYS["rsa"], digest.digest, SHA384, hash_number=4), digest) == "file_signature"


@pytest.mark.parametrize("name", KEYS)
def test_im_7_a_signature_that_does_not_hold_is_refused(name: str) -> None:
    key = KEYS[name]
    good = sign(key, DIGEST.digest)
    verify_file_signature(good, digest=DIGEST, keys=load_file_keys([pem(key)]))
    for change in (
        good[:-1] + bytes([good[-1] ^ 1]),
        good[:-1],
        good + b"\0",
        good[:8],
        b"\5" + good[1:],
        good[:1] + b"\1" + good[2:],
        good[:2] + b"\5" + good[3:],
        sign(key, SHA256.digest(b"another")),
        sign(key, SHA256.digest(b"\3\4" + DIGEST.digest)),
        sign(key, DIGEST.digest, version=3),
        header(key, 0),
        good[:7] + b"\0\1" + good[9:],
    ):
        assert refused(change) == "file_signature"
    assert refused(good, FileDigest("verity", "sha256", DIGEST.digest)) == "file_signature"
    assert refused(good, FileDigest("ima", "sha1", DIGEST.digest[:20])) == "file_signature"
    assert refused(good, FileDigest("ima", "sha3-256", DIGEST.digest)) == "file_signature"
    assert refused(sign(key, VERITY.digest, kind=6), VERITY) == "file_signature"
    short = SHA256.digest(b"\3\4" + DIGEST.digest[:20])
    assert (
        refused(sign(key, short, version=3), FileDigest("ima", "sha256", DIGEST.digest[:20]))
        == "file_signature"
    )
    assert refused(good[:3] + bytes(4) + good[7:]) == "file_key_unknown"


def test_sha1_signatures_do_not_count() -> None:
    digest = FileDigest("ima", "sha1", bytes(20))
    value = RSA.sign(bytes(20), padding.PKCS1v15(), Prehashed(hashes.SHA1()))
    assert refused(header(RSA, len(value), hash_number=2) + value, digest) == "file_signature"


def test_two_keys_of_one_identifier_are_both_tried() -> None:
    first, second = EC, ec.generate_private_key(ec.SECP256R1())
    keys = FileKeys({identifier(first): (second.public_key(), first.public_key())})
    assert verify_file_signature(sign(first, DIGEST.digest), digest=DIGEST, keys=keys) == first.public_key()


def test_a_certificates_own_identifier_names_its_key() -> None:
    key, now = KEYS["ec"], datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ima")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = builder.public_key(key.public_key()).not_valid_before(now).not_valid_after(now)
    plain = builder.sign(key, hashes.SHA256())
    named = builder.add_extension(x509.SubjectKeyIdentifier(b"0123abcd"), critical=False).sign(
        key, hashes.SHA256()
    )
    assert load_file_keys([plain.public_bytes(Encoding.PEM)]).by_id.keys() == {identifier(key)}
    assert load_file_keys([named.public_bytes(Encoding.PEM)]).by_id.keys() == {b"abcd"}


BAD_KEYS = {
    "nothing": (b"no key", "no_key"),
    "private": (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no_key"),
    "rubbish": (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "bad_key"),
    "rubbish certificate": (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "bad_key"),
    "another kind": (pem(ed25519.Ed25519PrivateKey.generate()), "bad_key"),
    "short": (pem(rsa.generate_private_key(65537, 1024)), "weak_key"),
}


@pytest.mark.parametrize(("source", "reason"), BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_a_key_that_cannot_be_used_is_refused(source: bytes, reason: str) -> None:
    with pytest.raises(StructureError) as caught:
        load_file_keys([pem(KEYS["rsa"]), source])
    assert caught.value.reason == reason
