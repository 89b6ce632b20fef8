"""How do two sides that share a secret derive the same keys from it?

TPM 2.0 Part 1, 11.4.10: KDFa is SP 800-108 in counter mode with HMAC, KDFe the one-step KDF of SP 800-56A.
"""

import hmac

from tpm.structures.algorithms import Hash


def kdfa(hash: Hash, key: bytes, label: bytes, context_u: bytes, context_v: bytes, bits: int) -> bytes:
    """Derive `bits` bits from `key`; `label` comes without its terminating zero."""
    fixed = label + b"\0" + context_u + context_v + bits.to_bytes(4)
    if bits <= hash.size * 8 and not bits & 7:  # One block, as for every key that this library derives.
        return hmac.digest(key, b"\0\0\0\1" + fixed, hash.name)[: bits >> 3]
    blocks = (hmac.digest(key, n.to_bytes(4) + fixed, hash.name) for n in _counters(hash, bits))
    return _cut(b"".join(blocks), bits)


def kdfe(hash: Hash, z: bytes, label: bytes, party_u: bytes, party_v: bytes, bits: int) -> bytes:
    """Derive `bits` bits from the shared point's x coordinate `z`, which is as long as the curve's field."""
    fixed = z + label + b"\0" + party_u + party_v
    blocks = (hash.digest(n.to_bytes(4) + fixed) for n in _counters(hash, bits))
    return _cut(b"".join(blocks), bits)


def _counters(hash: Hash, bits: int) -> range:
    return range(1, -(-bits // (hash.size * 8)) + 1)


def _cut(stream: bytes, bits: int) -> bytes:
    cut = stream[: (bits + 7) // 8]
    if bits % 8:
        # The surplus bits of an odd length are the high ones of the first byte.
        return bytes([cut[0] & (1 << bits % 8) - 1]) + cut[1:]
    return cut
