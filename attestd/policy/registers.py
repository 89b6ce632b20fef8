"""Which measurements does the policy accept, register by register?

A reference value is written "sha256:<hex>", in lower case, in the policy's one bank. A register that nothing
was measured into holds zeros (0xFF in 17 to 22): as a reference value that is refused, unless the author says
so with `allow_unmeasured`.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from attestd.policy.fields import Fields, entries, plain_text, refusal, register_key
from tpm.errors import PolicyError

BANKS = {"sha512": 64, "sha384": 48, "sha256": 32}
"""The banks that may be judged, the strongest first, and the size of their digests in bytes."""

_HEX = re.compile(r"[0-9a-f]+")


def unmeasured(value: bytes) -> bool:
    """Whether a register with this value has never been extended: all bytes 0x00, or all 0xFF."""
    return not value.strip(b"\x00") or not value.strip(b"\xff")


def load_bank(document: Fields) -> str:
    """The one bank that this policy judges; SHA-1 is left out on purpose."""
    bank = document.text("bank", default="sha256")
    if bank not in BANKS:
        step = "sha1 is not safe, choose a stronger bank" if bank == "sha1" else "choose one of these"
        raise refusal("bank_wrong", "bank", expected=" or ".join(sorted(BANKS)), found=bank, step=step)
    return bank


def load_pcrs(document: Fields, *, bank: str, allowed: Collection[int]) -> dict[int, tuple[bytes, ...]]:
    """[pcrs]: each register with its reference values, in ascending order; {} if the document has no such
    table.
    """
    if not document.has("pcrs"):
        return {}
    found: dict[int, tuple[bytes, ...]] = {}
    for key, listed in document.members("pcrs"):
        register = register_key(key, "pcrs")
        path = f"pcrs.{key}"
        values = tuple(read_digest(value, at, bank=bank) for at, value in entries(listed, path))
        if len(set(values)) != len(values):
            raise PolicyError("value_twice", f"{path}: one value is listed twice; name it once")
        if register not in allowed and any(unmeasured(value) for value in values):
            raise _unmeasured_reference(register, path)
        found[register] = values
    return dict(sorted(found.items()))


def written(bank: str, value: bytes) -> str:
    """A digest as a policy writes it: "sha256:<hex>"."""
    return f"{bank}:{value.hex()}"


def read_digest(value: object, path: str, *, bank: str) -> bytes:
    """A digest of this bank, as the document writes it."""
    text = plain_text(value, path)
    algorithm, colon, digits = text.partition(":")
    size = BANKS[bank]
    if not colon or algorithm != bank or len(digits) != 2 * size or _HEX.fullmatch(digits) is None:
        raise refusal(
            "digest_wrong",
            path,
            expected=f'"{bank}:" and {2 * size} lower-case hex digits',
            found=text,
            step=f"write a value of the policy's bank, {bank}",
        )
    return bytes.fromhex(digits)


def _unmeasured_reference(register: int, path: str) -> PolicyError:
    return PolicyError(
        "unmeasured_reference",
        f"{path}: expected a measured value, found all 0x00 or all 0xFF, as before any measurement; "
        f"remove it, or write allow_unmeasured = [{register}] at the top if that is on purpose",
    )
