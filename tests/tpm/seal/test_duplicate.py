"""Is what is minted what was asked for, and can only its parent take it in?"""

import struct

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tpm2_pytss.types import TPM2B_PUBLIC, TPM2B_SENSITIVE, TPMT_SENSITIVE
from tpm2_pytss.utils import wrap

from tests.tpm.seal.oracle import KINDS, Parent, oracle_public, public_bytes
from tpm.errors import EvidenceError, PolicyError
from tpm.seal.duplicate import Duplicate, duplicate
from tpm.seal.objects import mint
from tpm.structures.algorithms import SHA256
from tpm.structures.attributes import SIGN
from tpm.structures.public import Scheme, parse_public

_POLICY = bytes(range(32))
_OBJECTS = ["secret-16", "secret-32", "secret-128", "ec-p256", "rsa-2048", "hmac-sha256"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name_alg", "cipher_bits"), [("sha256", 128), ("sha384", 256), ("sha512", 256)])
def test_every_kind_of_parent_takes_in_every_object(kind: str, name_alg: str, cipher_bits: int) -> None:
    parent = Parent.make(kind, name_alg=name_alg, cipher_bits=cipher_bits)
    # The largest objects once; with large RSA parents, where a private operation takes long, one object.
    for name in {"rsa-2048": _OBJECTS, "rsa-3072": _OBJECTS[:1], "rsa-4096": _OBJECTS[:1]}.get(
        kind, _OBJECTS[:4]
    ):
        minted = mint(name, policy_digest=_POLICY)
        sealed = duplicate(minted, parent.public)
        assert (
            parent.import_object(sealed.public, sealed.duplicate, sealed.encrypted_seed) == minted.sensitive
        )


@pytest.mark.parametrize("kind", ["rsa-2048", "p256"])
def test_tpm2_pytss_wraps_the_same_object_to_the_same_size(kind: str) -> None:
    parent, minted = Parent.make(kind), mint("ec-p256", policy_digest=_POLICY)
    area = TPM2B_PUBLIC.unmarshal(minted.public.sized)[0]
    sensitive = TPM2B_SENSITIVE(sensitiveArea=TPMT_SENSITIVE.unmarshal(minted.sensitive)[0])
    _, private, seed = wrap(oracle_public(parent.public), area, sensitive)
    theirs = Duplicate(minted.public.sized, private.marshal(), seed.marshal())
    ours = duplicate(minted, parent.public)
    assert ours.public == theirs.public
    assert len(ours.duplicate) == len(theirs.duplicate)
    assert len(ours.encrypted_seed) == len(theirs.encrypted_seed)
    for sealed in (ours, theirs):
        taken = parent.import_object(sealed.public, sealed.duplicate, sealed.encrypted_seed)
        assert taken == minted.sensitive


@pytest.mark.parametrize("kind", ["rsa-2048", "p256"])
def test_another_parent_and_another_public_area_are_refused(kind: str) -> None:
    parent, other = Parent.make(kind), Parent.make(kind, which=1)
    minted = mint("secret-32", policy_digest=_POLICY)
    sealed = duplicate(minted, parent.public)
    assert parent.import_object(sealed.public, sealed.duplicate, sealed.encrypted_seed) == minted.sensitive
    with pytest.raises((InvalidSignature, ValueError)):
        other.import_object(sealed.public, sealed.duplicate, sealed.encrypted_seed)
    laxer = minted.public.sized.replace(_POLICY, bytes(32))
    with pytest.raises(InvalidSignature):
        parent.import_object(laxer, sealed.duplicate, sealed.encrypted_seed)


def test_ks_7_a_parent_that_is_no_storage_key_is_refused() -> None:
    key, minted = ec.generate_private_key(ec.SECP256R1()), mint("secret-32", policy_digest=_POLICY)
    duplicate(minted, parse_public(public_bytes(key)))
    with pytest.raises(EvidenceError) as caught:
        duplicate(minted, parse_public(public_bytes(key, attributes=0x00040072)))
    assert caught.value.reason == "parent_attributes"


@pytest.mark.parametrize("kind", _OBJECTS)
def test_no_password_opens_it_and_it_says_it_came_from_outside(kind: str) -> None:
    public = mint(kind, policy_digest=_POLICY).public
    assert public.attributes == (0 if kind.startswith("secret") else SIGN)
    assert public.auth_policy == _POLICY
    assert public.name_alg == SHA256
    assert public.symmetric is None


@pytest.mark.parametrize("size", [16, 17, 32, 64, 127, 128])
def test_a_secret_has_the_length_that_was_asked_for(size: int) -> None:
    minted = mint(f"secret-{size}", policy_digest=_POLICY)
    seed, secret = _sensitive(minted.sensitive)
    assert len(secret) == size
    assert minted.public.unique == (SHA256.digest(seed + secret),)
    assert len(seed) == 32


def test_an_hmac_key_is_bound_to_its_scheme() -> None:
    minted = mint("hmac-sha256", policy_digest=_POLICY)
    seed, key = _sensitive(minted.sensitive)
    assert len(key) == 32
    assert minted.public.scheme == Scheme("hmac", SHA256)
    assert minted.public.unique == (SHA256.digest(seed + key),)


def test_an_elliptic_key_is_the_one_whose_public_half_is_shown() -> None:
    minted = mint("ec-p256", policy_digest=_POLICY)
    _, secret = _sensitive(minted.sensitive)
    private = ec.derive_private_key(int.from_bytes(secret), ec.SECP256R1())
    assert private.public_key() == minted.public.public_key()
    assert minted.public.scheme == Scheme("ecdsa", SHA256)


def test_an_rsa_key_is_the_one_whose_public_half_is_shown() -> None:
    minted = mint("rsa-2048", policy_digest=_POLICY)
    _, prime = _sensitive(minted.sensitive)
    key = minted.public.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.public_numbers().n % int.from_bytes(prime) == 0
    assert key.key_size == 2048
    assert key.public_numbers().e == 65537


_OTHER_KINDS = [
    *(
        "secret-15",
        "secret-129",
        "secret-0",
        "secret-032",
        "secret-",
        "secret-1e2",
        "secret-٣٢",
        "secret--20",
    ),
    *("secret-9999999999", "ec-p384", "rsa-4096", "hmac-sha1", "SECRET-32"),
]


@pytest.mark.parametrize("kind", ["", "secret-32 ", "secret-32\n", *_OTHER_KINDS])
def test_another_kind_is_refused_by_name(kind: str) -> None:
    with pytest.raises(PolicyError, match="secret-N") as caught:
        mint(kind, policy_digest=_POLICY)
    assert caught.value.reason == "seal_kind"


@pytest.mark.parametrize("size", [0, 20, 31, 33, 48])
def test_a_policy_that_is_no_sha256_digest_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        mint("secret-32", policy_digest=bytes(size))


def test_ks_5_a_minted_key_does_not_show_its_secret() -> None:
    for kind in _OBJECTS:
        minted = mint(kind, policy_digest=_POLICY)
        _, secret = _sensitive(minted.sensitive)
        assert repr(secret)[2:-1] not in repr(minted)
        assert secret.hex() not in repr(minted)
        assert "sensitive" not in repr(minted)


def test_two_of_a_kind_have_nothing_in_common() -> None:
    for kind in _OBJECTS:
        one, other = mint(kind, policy_digest=_POLICY), mint(kind, policy_digest=_POLICY)
        assert one.public.name != other.public.name
        assert _sensitive(one.sensitive)[1] != _sensitive(other.sensitive)[1]


def _sensitive(raw: bytes) -> tuple[bytes, bytes]:
    """Seed and secret of a TPMT_SENSITIVE, whose authValue is empty."""
    _, auth, seed_size = struct.unpack_from(">HHH", raw)
    assert auth == 0
    seed = raw[6 : 6 + seed_size]
    (size,) = struct.unpack_from(">H", raw, 6 + seed_size)
    secret = raw[8 + seed_size :]
    assert len(secret) == size
    return seed, secret
