"""What did a real machine measure? Its logs and registers, for tests that play it.

The recording has the firmware's log and IMA's; systemd's own log is written here from what it measured.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tpm.eventlog.events import EventType
from tpm.eventlog.reader import read_log
from tpm.eventlog.userspace import read_userspace
from tpm.swtpm import SoftwareTpm

RECORDING = Path(__file__).parent / "vectors" / "vm" / "ovmf-uki-secureboot"
EVENT_LOG = (RECORDING / "eventlog.bin").read_bytes()
IMA_LIST = (RECORDING / "ima.ascii").read_bytes()
PHASES = ("sysinit", "ready")

SECURE_BOOT, AUTHORITY, IMAGE, SECTION, PHASE = 4, 32, 33, 35, 46
"""Numbers of events, as both logs together count them."""


@cache
def registers() -> dict[int, bytes]:
    """All 24, SHA-256, as they were read from its TPM."""
    about = json.loads((RECORDING / "expected.json").read_text())
    return {int(one): bytes.fromhex(value) for one, value in about["expected"]["pcrs"]["sha256"].items()}


def userspace_log(*measured: str, register: int = 11) -> bytes:
    """systemd's log of these texts; without any, of the phases that the machine went through."""
    lines = []
    for text in measured or PHASES:
        digest = hashlib.sha256(text.encode()).hexdigest()
        record = {
            "pcr": register,
            "digests": [{"hashAlg": "sha256", "digest": digest}],
            "content_type": "systemd",
            "content": {"string": text, "bootId": "0" * 32, "timestamp": 1, "eventType": "phase"},
        }
        lines.append(b"\x1e" + json.dumps(record).encode() + b"\n")
    return b"".join(lines)


CALLS = "Calling EFI Application from Boot Option"
RETURNS = "Returning from EFI Application from Boot Option"
COMMAND_LINE = (RECORDING / "cmdline").read_text().strip()


def kernel_digests() -> tuple[str, ...]:
    """What the unified kernel image left: its Authenticode digest in register 4, its sections in 11."""
    log = read_log(EVENT_LOG)
    return tuple(log.events[number].digests["sha256"].hex() for number in (IMAGE, *range(34, 42)))


def components(*, digests: Sequence[str] = (), until: str = "", actions: bool = True, more: str = "") -> str:
    """[[component]] and [actions] that accept the recorded boot, unless `digests` are others. `until` ends
    the kernel's only variant; `more` are other variants."""
    listed = ", ".join(f'"sha256:{one}"' for one in digests or kernel_digests())
    allowed = f'4 = ["{CALLS}", "{RETURNS}"]' if actions else f'4 = ["{CALLS}"]'
    return f"""
[actions]
{allowed}
11 = ["sysinit", "ready"]
[[component]]
name = "kernel"
pcrs = [4, 11]
  [[component.variant]]
  name = "6.1.0-49"
  digests = [{listed}]
  {f"until = {until}" if until else ""}
  {more}
"""


def play(tpm: SoftwareTpm) -> None:
    """Measure the recorded boot into this TPM: firmware, then systemd; not what IMA measured."""
    for event in (*read_log(EVENT_LOG).events, *read_userspace(userspace_log()).events(0)):
        if event.type != EventType.EV_NO_ACTION:
            tpm.extend(event.register, event.digests)
