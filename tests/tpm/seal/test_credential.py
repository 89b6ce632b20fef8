"""Can only the challenged TPM answer, and can it always?"""

import json
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tpm2_pytss.utils import credential_to_tools

from tests.tpm.seal.oracle import KINDS, Parent, public_bytes, sized
from tpm.errors import EvidenceError, StructureError
from tpm.seal.credential import make_credential
from tpm.seal.wrap import encapsulate, oaep, outer_wrap
from tpm.structures.algorithms import hash_by_name
from tpm.structures.public import parse_public, parse_sized_public

_VECTORS = Path(__file__).parents[2] / "vectors/credential_activation"
_NAME = bytes.fromhex("000bf364d14e56a49197c23a576fff86950787685ff0558c4c56330afdc48d32abe3")
_SECRET = bytes(range(32))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name_alg", "cipher_bits"), [("sha256", 128), ("sha384", 256), ("sha512", 256)])
def test_every_kind_of_endorsement_key_recovers_the_secret(
    kind: str, name_alg: str, cipher_bits: int
) -> None:
    ek = Parent.make(kind, name_alg=name_alg, cipher_bits=cipher_bits)
    secret = bytes(range(hash_by_name(name_alg).size))
    credential = make_credential(ek.public, _NAME, secret)
    assert ek.activate(credential.id_object, credential.encrypted_secret, _NAME) == secret


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 31, 32])
def test_a_secret_of_any_length_up_to_the_digests_arrives(length: int) -> None:
    ek, secret = Parent.make("p256"), bytes(range(length))
    credential = make_credential(ek.public, _NAME, secret)
    assert ek.activate(credential.id_object, credential.encrypted_secret, _NAME) == secret


@pytest.mark.parametrize("kind", ["rsa-2048", "p256"])
def test_ac_2_a_credential_opens_for_its_name_and_its_key_only(kind: str) -> None:
    ek, other = Parent.make(kind), Parent.make(kind, which=1)
    credential = make_credential(ek.public, _NAME, _SECRET)
    assert ek.activate(credential.id_object, credential.encrypted_secret, _NAME) == _SECRET
    with pytest.raises(InvalidSignature):
        ek.activate(credential.id_object, credential.encrypted_secret, _NAME[:-1] + b"\0")
    with pytest.raises((InvalidSignature, ValueError)):
        other.activate(credential.id_object, credential.encrypted_secret, _NAME)


def test_two_credentials_for_one_secret_share_nothing() -> None:
    ek = Parent.make("p256").public
    first, second = make_credential(ek, _NAME, _SECRET), make_credential(ek, _NAME, _SECRET)
    assert first.id_object != second.id_object
    assert first.encrypted_secret != second.encrypted_secret


def test_a_point_with_leading_zeros_or_stripped_ones_is_the_same_key() -> None:
    for _ in range(2000):
        private = ec.generate_private_key(ec.SECP256R1())
        if private.public_key().public_numbers().x >> 248 == 0:
            break
    raw = public_bytes(private)
    x = private.public_key().public_numbers().x.to_bytes(32)
    stripped = raw.replace(sized(x), sized(x.lstrip(b"\0")))
    assert len(stripped) < len(raw)
    secret = private.private_numbers().private_value.to_bytes(32)
    for form in (raw, stripped):
        parent = Parent(parse_public(form), Parent.make("p256").sensitive)
        parent.sensitive.sensitive.ecc.buffer = secret
        credential = make_credential(parent.public, _NAME, _SECRET)
        assert parent.activate(credential.id_object, credential.encrypted_secret, _NAME) == _SECRET


def test_the_outer_wrap_is_byte_for_byte_the_one_that_a_tpm_opened() -> None:
    parent = Parent.make("p256").public
    wrapped = outer_wrap(parent, _SECRET, _NAME, sized(b"0123456789abcdef"))
    assert wrapped.hex() == (
        "002012568ccdf5f5f24a7e6bbeeff69d7236939d14da18e98ea531a7a8f320ad57bedc64dde9bf1121d513f9fd9a06fc4824c584"
    )


def test_a_secret_longer_than_the_digest_is_refused_here_and_not_by_the_tpm() -> None:
    ek = Parent.make("p256").public
    make_credential(ek, _NAME, bytes(32))
    with pytest.raises(ValueError, match="at most 32 bytes"):
        make_credential(ek, _NAME, bytes(33))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"attributes": 0x00040072}, "not a restricted decryption key"),
        ({"attributes": 0x00020072}, "not a restricted decryption key"),
        ({"attributes": 0x00070072}, "not a restricted decryption key"),
        ({"name_alg": "sha1"}, "SHA-256 or better"),
        ({"cipher": bytes.fromhex("0010")}, "AES in CFB mode"),
        ({"cipher": bytes.fromhex("000600800042")}, "AES in CFB mode"),
        ({"cipher": bytes.fromhex("001300800043")}, "AES in CFB mode"),
    ],
)
def test_ks_7_a_key_that_is_no_storage_key_takes_nothing(change: dict[str, object], says: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    make_credential(parse_public(public_bytes(key)), _NAME, _SECRET)
    with pytest.raises(EvidenceError, match=says) as caught:
        make_credential(parse_public(public_bytes(key, **change)), _NAME, _SECRET)  # type: ignore[arg-type]
    assert caught.value.reason == "parent_attributes"


def test_ks_7_a_parent_weaker_than_what_is_wrapped_takes_nothing() -> None:
    weak = parse_public(public_bytes(rsa.generate_private_key(65537, 1024)))
    with pytest.raises(EvidenceError, match="at least 2048"):
        make_credential(weak, _NAME, _SECRET)


def test_ks_7_a_sealed_object_is_no_parent() -> None:
    keyed_hash = parse_public(bytes.fromhex("0008000b00030000 0000 0010 0020") + bytes(32))
    with pytest.raises(EvidenceError, match="keyedhash"):
        make_credential(keyed_hash, _NAME, _SECRET)


def test_a_point_off_its_curve_is_a_bad_key() -> None:
    raw = bytearray(public_bytes(ec.generate_private_key(ec.SECP256R1())))
    raw[-1] ^= 1
    with pytest.raises(StructureError) as caught:
        make_credential(parse_public(bytes(raw)), _NAME, _SECRET)
    assert caught.value.reason == "bad_key"


def test_every_labelled_encapsulation_of_go_tpm_opens_with_our_padding() -> None:
    folder = _VECTORS / "gotpm-rsa-labeled-encaps"
    vectors = json.loads((folder / "vectors.json").read_text())
    assert len(vectors) == json.loads((folder / "expected.json").read_text())["expected"]["count"]
    for vector in vectors:
        public = parse_public(bytes.fromhex(vector["PublicKey"]))
        private = _rsa_private_key(public.public_key(), bytes.fromhex(vector["PrivateKey"]))
        label = vector["Label"].encode()
        scheme = public.scheme
        padding = oaep(scheme.hash if scheme and scheme.hash else public.name_alg, label)
        seed = private.decrypt(bytes.fromhex(vector["Ciphertext"]), padding)
        assert seed.hex() == vector["Secret"], vector["Name"]
        ours, encrypted = encapsulate(public, label)
        assert private.decrypt(encrypted[2:], padding) == ours, vector["Name"]


def test_keylimes_credential_has_our_shape_and_its_names_are_ours() -> None:
    folder = _VECTORS / "keylime-makecredential"
    expected = json.loads((folder / "expected.json").read_text())
    ek = parse_sized_public((folder / "ek.pub").read_bytes())
    assert ek.name.hex() == expected["checked"]["ek"]["name"]
    name = (folder / "ak.name").read_bytes()
    assert parse_sized_public((folder / "ak.pub").read_bytes()).name == name
    secret = (folder / "secret.data").read_bytes()
    ours = make_credential(ek, name, secret)
    file = credential_to_tools(ours.id_object[2:], ours.encrypted_secret[2:])
    theirs = (folder / "mkcred.out").read_bytes()
    assert len(file) == len(theirs)
    assert file[:12] == theirs[:12]
    assert (folder / "actcred.out").read_bytes() == secret


def test_the_name_in_infineons_creation_is_computed_from_its_public_area() -> None:
    folder = _VECTORS / "ak-creation-rsa-infineon"
    expected = json.loads((folder / "expected.json").read_text())["expected"]
    public = parse_public((folder / "ak.tpmt").read_bytes())
    assert public.name.hex() == expected["ak_name"]
    assert public.name in (folder / "create_attest.bin").read_bytes()


def _rsa_private_key(public: object, sensitive: bytes) -> rsa.RSAPrivateKey:
    """From TPMT_SENSITIVE: type, empty authValue or not, seed, one prime."""
    assert isinstance(public, rsa.RSAPublicKey)
    offset = 2
    for _ in range(2):
        offset += 2 + int.from_bytes(sensitive[offset : offset + 2])
    numbers = public.public_numbers()
    p = int.from_bytes(sensitive[offset + 2 :])
    q = numbers.n // p
    assert p * q == numbers.n
    d = pow(numbers.e, -1, (p - 1) * (q - 1))
    crt = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    return rsa.RSAPrivateNumbers(p, q, d, *crt, numbers).private_key(unsafe_skip_rsa_key_validation=True)
