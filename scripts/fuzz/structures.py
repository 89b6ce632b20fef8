"""What must hold of any bytes that are given as a TPM's structure: quote, public area or signature?"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from scripts.fuzz.harness import Target
from tpm.structures.algorithms import TpmAlg
from tpm.structures.attest import parse_quote
from tpm.structures.public import PublicArea, parse_public
from tpm.structures.signature import parse_signature

VECTORS = Path(__file__).parents[2] / "tests" / "vectors"

_MAGIC_AND_TYPE = b"\xff\x54\x43\x47\x80\x18"


def targets() -> Iterator[Target]:
    """One for each structure."""
    # But for linux-tpm12, whose quote is that of a TPM 1.2.
    yield Target("quote", check_quote, _seeds("quotes/*/quote*.msg", "attestations/[!l]*/quote*.msg"))
    yield Target("public_area", check_public, _seeds("*/*/*.tpmt"))
    yield Target("signature", check_signature, _seeds("*/*/quote*.sig"))


def check_quote(raw: bytes) -> None:
    """What is read of a quote is written as the same bytes."""
    quote = parse_quote(raw)
    clock = quote.clock
    counters = struct.pack(">QIIB", clock.clock, clock.reset_count, clock.restart_count, clock.safe)
    written = _MAGIC_AND_TYPE + _sized(quote.qualified_signer) + _sized(quote.extra_data) + counters
    written += struct.pack(">Q", quote.firmware_version) + quote.selection.raw + _sized(quote.pcr_digest)
    assert quote.raw == raw == written


def check_public(raw: bytes) -> None:
    """The area keeps its bytes, its members stand in them in order, and its key is one or is refused."""
    public = parse_public(raw)
    assert public.raw == raw
    assert public.sized == _sized(raw)
    assert raw[2:4] == struct.pack(">H", public.name_alg.id)
    assert raw[4 : 10 + len(public.auth_policy)] == struct.pack(">I", public.attributes) + _sized(
        public.auth_policy
    )
    assert raw.endswith(b"".join(_sized(one) for one in public.unique))
    _check_key(public)


def check_signature(raw: bytes) -> None:
    """What is read of a signature stands in its bytes, all of them."""
    signature = parse_signature(raw)
    assert signature.raw == raw
    scheme = {"rsassa": TpmAlg.RSASSA, "rsapss": TpmAlg.RSAPSS, "ecdsa": TpmAlg.ECDSA}[signature.scheme]
    assert raw[:4] == struct.pack(">HH", scheme, signature.hash.id)
    if signature.scheme != "ecdsa":
        assert raw[4:] == _sized(signature.value)
        return
    size = int.from_bytes(raw[4:6], "big")
    assert signature.r == int.from_bytes(raw[6 : 6 + size], "big")
    assert signature.s == int.from_bytes(raw[8 + size :], "big")


def _check_key(public: PublicArea) -> None:
    if public.type in ("rsa", "ecc"):
        public.public_key()


def _seeds(*patterns: str) -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for pattern in patterns for path in sorted(VECTORS.glob(pattern)))


def _sized(content: bytes) -> bytes:
    return struct.pack(">H", len(content)) + content
