"""What digest does an object carry so that only this policy opens it?

TPM 2.0 Part 3, chapter 23: each assertion extends the digest so far, beginning with zeros as long as the
object's hash. Whoever computes one compares nothing here: the TPM does, when the policy is satisfied or
not.
"""

import struct
from collections.abc import Sequence

from tpm.structures.algorithms import Hash, TpmCc
from tpm.structures.pcrs import PcrSelection


def start(hash: Hash) -> bytes:
    """The digest before the first assertion."""
    return bytes(hash.size)


def policy_pcr(digest: bytes, hash: Hash, selection: PcrSelection, pcr_digest: bytes) -> bytes:
    """The registers of `selection` hash to `pcr_digest` under `hash`; both as the session will give them."""
    return hash.digest(digest + _code(TpmCc.POLICY_PCR) + selection.raw + pcr_digest)


def policy_secret(digest: bytes, hash: Hash, name: bytes, reference: bytes = b"") -> bytes:
    """The entity called `name` (of a hierarchy: its handle) was authorized with its authValue."""
    return _update(digest, hash, TpmCc.POLICY_SECRET, name, reference)


def policy_or(hash: Hash, branches: Sequence[bytes]) -> bytes:
    """One of two to eight policies holds. What was asserted before is part of each branch, so no digest
    comes in.
    """
    if not 2 <= len(branches) <= 8:
        raise ValueError(f"PolicyOR joins two to eight branches, found {len(branches)}")
    return hash.digest(start(hash) + _code(TpmCc.POLICY_OR) + b"".join(branches))


def policy_authorize(hash: Hash, key_name: bytes, reference: bytes = b"") -> bytes:
    """A policy holds that the key called `key_name` has signed; the digest starts anew, so none comes in.

    `key_name` is the Name of the public area as the device will load it, attributes and all.
    """
    return _update(start(hash), hash, TpmCc.POLICY_AUTHORIZE, key_name, reference)


def policy_nv(
    digest: bytes, hash: Hash, index_name: bytes, operand: bytes, *, offset: int, operation: int
) -> bytes:
    """The NV index at `offset` compares with `operand` by `operation` (TPM_EO, Part 2, 6.8)."""
    arguments = hash.digest(operand + struct.pack(">HH", offset, operation))
    return hash.digest(digest + _code(TpmCc.POLICY_NV) + arguments + index_name)


def policy_command_code(digest: bytes, hash: Hash, command: int) -> bytes:
    """The session authorizes this command only."""
    return hash.digest(digest + _code(TpmCc.POLICY_COMMAND_CODE) + _code(command))


def policy_duplication_select(
    digest: bytes, hash: Hash, new_parent_name: bytes, object_name: bytes | None = None
) -> bytes:
    """The session may duplicate to this parent only; with `object_name`, this object only."""
    included = b"" if object_name is None else object_name
    flag = bytes([object_name is not None])
    return hash.digest(digest + _code(TpmCc.POLICY_DUPLICATION_SELECT) + included + new_parent_name + flag)


def policy_auth_value(digest: bytes, hash: Hash) -> bytes:
    """The object's authValue is given too, as HMAC or (PolicyPassword has the same digest) as password."""
    return hash.digest(digest + _code(TpmCc.POLICY_AUTH_VALUE))


def _update(digest: bytes, hash: Hash, command: int, name: bytes, reference: bytes) -> bytes:
    # PolicyUpdate (Part 3, 23.2.3): the second round is made even for an empty reference.
    return hash.digest(hash.digest(digest + _code(command) + name) + reference)


def _code(command: int) -> bytes:
    return struct.pack(">I", command)
