"""What was sealed to this machine, and does it open now?

The file is the service's answer as it came. A secret comes out as its bytes; a key comes out as a key file
(TSS2 PEM) that other programs load and that works only while the registers hold what they held.
"""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from attestd.agent.errors import Misconfigured
from attestd.wire import Problem, b64
from tpm.device.connection import LoadedKey
from tpm.device.device import Device
from tpm.device.key_file import encode_key_file
from tpm.errors import DeviceError, StructureError
from tpm.structures.pcrs import PcrSelection


def unseal(device: Device, path: Path, *, ek: str) -> bytes:
    """The secret's bytes, or PEM of a key. `ek` is the kind of endorsement key for what is wrapped to it.

    DeviceError "policy_failed" when the registers are not those it was sealed to, "wrong_parent" when it was
    sealed to another machine; Misconfigured for another file.
    """
    sealed = _read(path)
    try:
        public, duplicate, seed = (
            b64(sealed[name], name) for name in ("public", "duplicate", "encrypted_seed")
        )
        ((bank, registers),) = sealed["policy"]["selection"].items()
        selection = PcrSelection.of(bank, registers)
        under_ek = sealed["parent"] == "ek"
    except (KeyError, TypeError, ValueError, AttributeError, Problem, StructureError):
        raise _damaged(path) from None
    parent_key: AbstractContextManager[LoadedKey] = device.ek(ek) if under_ek else device.storage_key()
    with parent_key as parent:
        blob = device.import_object(parent, public, duplicate, seed)
        if blob.area.type == "keyedhash" and blob.area.scheme is None:
            return device.unseal(parent, blob, selection)
    if under_ek:
        # A key file names a hierarchy's storage key; no other program finds its way below an endorsement key.
        raise DeviceError(
            "wrong_parent", f"{path} is a key below the EK, which no key file can name; seal it anew."
        )
    return encode_key_file(blob, registers=selection).encode()


def _read(path: Path) -> Mapping[str, Any]:
    try:
        sealed = json.loads(path.read_bytes())
    except ValueError:
        sealed = None
    if not isinstance(sealed, dict):
        raise _damaged(path)
    return sealed


def _damaged(path: Path) -> Misconfigured:
    return Misconfigured(f"{path} is no sealed key; name a file that `attestd agent attest --seal` wrote")
