"""Is this key too weak to believe what is signed by it or encrypted to it?"""

from math import lcm, prod

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tpm.errors import EvidenceError
from tpm.verify.certificate import PublicKey

MINIMUM_RSA_BITS = 2048
RSA_EXPONENT = 65537
CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})


def check_strength(key: PublicKey, *, whose: str) -> None:
    """EvidenceError "weak_key" unless it is RSA of 2048 bits or more with e = 65537, or on P-256, 384, 521.

    `whose` names the key in the error. Primality and shared factors are not checked: nobody can see them from
    here.
    """
    match key:
        case rsa.RSAPublicKey():
            _check_rsa(key, whose)
        case ec.EllipticCurvePublicKey():
            if key.curve.name not in CURVES:
                raise _weak(f"The key of {whose} is on {key.curve.name}, not on P-256, P-384 or P-521.")


def _check_rsa(key: rsa.RSAPublicKey, whose: str) -> None:
    numbers = key.public_numbers()
    if key.key_size < MINIMUM_RSA_BITS:
        raise _weak(f"The RSA key of {whose} has {key.key_size} bits; {MINIMUM_RSA_BITS} are needed.")
    if numbers.e != RSA_EXPONENT:
        raise _weak(f"The RSA key of {whose} has another exponent than {RSA_EXPONENT}.")
    if numbers.n % 2 == 0:
        raise _weak(f"The RSA modulus of {whose} is even.")
    if has_roca_fingerprint(numbers.n):
        raise _weak(f"The RSA key of {whose} was made by Infineon's broken library (ROCA, CVE-2017-15361).")


def has_roca_fingerprint(modulus: int) -> bool:
    """Was this modulus made as in CVE-2017-15361 (Nemec et al., "The Return of Coppersmith's Attack", 2017)?

    Primes of that library are k·M + (65537^a mod M) with M the product of the first primes, so the modulus is
    a power of 65537 modulo M as well. A modulus made otherwise is one with a chance below 2^-150.
    """
    # 1. A power modulo each prime alone: this lets nearly every sound key go.
    if any(pow(modulus, order, prime) != 1 for prime, order in _ORDERS.items()):
        return False
    # 2. A power modulo their product (Pohlig and Hellman): for each prime power in the order, the part of
    #    that order is a power of the generator's.
    return all(pow(modulus, _ORDER // power, _PRODUCT) in powers for power, powers in _POWERS.items())


def _weak(why: str) -> EvidenceError:
    return EvidenceError("weak_key", why)


def _first_primes(count: int) -> list[int]:
    primes: list[int] = []
    candidate = 2
    while len(primes) < count:
        if all(candidate % prime for prime in primes):
            primes.append(candidate)
        candidate += 1
    return primes


def _order(prime: int) -> int:
    """The least exponent with which 65537 is 1 modulo this prime."""
    power, exponent = RSA_EXPONENT % prime, 1
    while power != 1:
        power, exponent = power * RSA_EXPONENT % prime, exponent + 1
    return exponent


def _prime_powers(number: int) -> list[int]:
    found = []
    for prime in _FIRST_PRIMES:
        power = 1
        while number % (power * prime) == 0:
            power *= prime
        if power > 1:
            found.append(power)
    return found


# M of the shortest keys (512 bits) has 39 primes and divides that of every longer key. The generator is 65537
# itself.
_FIRST_PRIMES = _first_primes(39)
_PRODUCT = prod(_FIRST_PRIMES)
_ORDERS = {prime: _order(prime) for prime in _FIRST_PRIMES if prime != 2}
_ORDER = lcm(*_ORDERS.values())
_POWERS = {
    power: frozenset(pow(RSA_EXPONENT, _ORDER // power * exponent, _PRODUCT) for exponent in range(power))
    for power in _prime_powers(_ORDER)
}
