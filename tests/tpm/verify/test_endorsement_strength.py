"""Are weak keys refused, in EK certificates and above them?"""

import random
from dataclasses import replace
from math import prod

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.tpm.verify.authorities import MODULUS, NOW, Authority, ek_form, rsa_key
from tpm.errors import EvidenceError
from tpm.verify.certificate import PublicKey
from tpm.verify.endorsement import verify_endorsement
from tpm.verify.endorsement_strength import check_strength, has_roca_fingerprint

ROOT = Authority.root()


def first_primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        found += [number] if all(number % prime for prime in found) else []
        number += 1
    return found


def roca_prime(bits: int, primes: int, chance: random.Random) -> int:
    """k·M + (65537^a mod M) of that size, as the broken library chose it, prime or not."""
    product = prod(first_primes(primes))
    low = pow(65537, chance.randrange(1, 1 << 40), product)
    lowest, highest = 3 << (bits - 2), 1 << bits
    return chance.randrange(lowest // product + 1, (highest - low) // product) * product + low


def roca_modulus(bits: int, seed: int = 1) -> int:
    """The library's M had 39, 71, 126 or 225 primes, by the size of the key."""
    primes = 39 if bits < 992 else 71 if bits < 1984 else 126 if bits < 3968 else 225
    chance = random.Random(seed)
    return roca_prime(bits // 2, primes, chance) * roca_prime(bits // 2, primes, chance)


def reason(key: PublicKey) -> str:
    with pytest.raises(EvidenceError) as caught:
        verify_endorsement(ROOT.endorse(ek_form(key)), [], roots=[ROOT.certificate], ek=None, now=NOW)
    return caught.value.reason


@pytest.mark.parametrize(
    "key",
    [
        rsa_key(roca_modulus(2048)),
        rsa_key(MODULUS >> 1024 | 1),
        rsa_key(MODULUS >> 1 | 1),
        rsa_key(exponent=3),
        rsa_key(exponent=17),
        rsa_key(MODULUS - 1),
        ec.generate_private_key(ec.SECP192R1()).public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        ec.generate_private_key(ec.BrainpoolP256R1()).public_key(),
    ],
    ids=["ROCA", "1024 bits", "2047 bits", "e = 3", "e = 17", "even", "P-192", "secp256k1", "brainpool"],
)
def test_ct_8_a_weak_ek_is_refused(key: PublicKey) -> None:
    assert reason(key) == "weak_key"


@pytest.mark.parametrize(
    "key",
    [
        rsa_key(),
        rsa.generate_private_key(65537, 3072).public_key(),
        ec.generate_private_key(ec.SECP256R1()).public_key(),
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        ec.generate_private_key(ec.SECP521R1()).public_key(),
    ],
    ids=["RSA-2048", "RSA-3072", "P-256", "P-384", "P-521"],
)
def test_ct_8_a_sound_ek_is_taken(key: PublicKey) -> None:
    check_strength(key, whose="the EK")
    leaf = ROOT.endorse(ek_form(key))
    assert verify_endorsement(leaf, [], roots=[ROOT.certificate], ek=None, now=NOW).key == key


@pytest.mark.parametrize("bits", [512, 1024, 2048, 3072, 4096])
def test_ct_8_every_size_of_roca_is_known(bits: int) -> None:
    assert all(has_roca_fingerprint(roca_modulus(bits, seed)) for seed in range(5))


def test_ct_8_sound_moduli_have_no_fingerprint() -> None:
    chance = random.Random(2)
    assert not any(has_roca_fingerprint(chance.getrandbits(2048) | 1 << 2047 | 1) for _ in range(2000))
    assert not has_roca_fingerprint(MODULUS)


def test_ct_8_a_power_modulo_each_prime_is_not_yet_one_modulo_all() -> None:
    """A test prime by prime would take it for ROCA: independent powers, joined by the Chinese remainders."""
    chance = random.Random(3)
    primes = first_primes(39)
    product = prod(primes)
    modulus = 0
    for prime in primes:
        rest = product // prime
        modulus += pow(65537, chance.randrange(1, 1 << 20), prime) * rest * pow(rest, -1, prime)
    modulus = modulus % product + product * (chance.getrandbits(1820) << 8)
    assert all(modulus % prime in {pow(65537, a, prime) for a in range(prime)} for prime in primes)
    assert not has_roca_fingerprint(modulus)
    assert has_roca_fingerprint(pow(65537, 1000, product) + product * (chance.getrandbits(1820) << 8))


@pytest.mark.parametrize("weak", ["root", "intermediate"])
def test_ct_8_a_weak_key_above_is_refused_too(weak: str) -> None:
    short = rsa.generate_private_key(65537, 1024)
    root = Authority.root("Root", short if weak == "root" else None)
    maker = root.authority("Maker CA", short if weak == "intermediate" else None)
    with pytest.raises(EvidenceError) as caught:
        verify_endorsement(maker.endorse(), [maker.der], roots=[root.certificate], ek=None, now=NOW)
    assert caught.value.reason == "weak_key"
    sound = ROOT.authority("Maker CA", rsa.generate_private_key(65537, 2048))
    leaf = sound.endorse(replace(ek_form()))
    assert verify_endorsement(leaf, [sound.der], roots=[ROOT.certificate], ek=None, now=NOW)
