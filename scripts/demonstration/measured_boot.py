"""What did a real machine measure when it booted, and how does a software TPM come to hold the same?

The machine's firmware log is read here only as far as playing it again needs: register and digests of each
event. What the events mean is nobody's concern here.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.demonstration.claims import claim
from tpm.swtpm import SoftwareTpm

RECORDING = Path(__file__).parents[2] / "tests" / "vectors" / "vm" / "ovmf-uki-secureboot"
BOOT_LOG, SYSTEMD_LOG = "boot.log", "systemd.log"
LOG_OPTIONS = ("--event-log", BOOT_LOG, "--userspace-log", SYSTEMD_LOG)
"""How an agent in the directory of these logs names them."""

PHASES = (b"sysinit", b"ready")
PLAYED = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11)
"""The registers that firmware and systemd extended; IMA's, PCR 10, has a log of its own."""

_BANKS = {0x0004: ("sha1", 20), 0x000B: ("sha256", 32)}
_NO_ACTION = 3
_BOOT_APPLICATION = 0x80000003
_PCR_READ = 0x17E


@dataclass(frozen=True, slots=True)
class Event:
    """One extend of one register: a digest for each bank."""

    register: int
    kind: int
    digests: Mapping[str, bytes]


def recorded_boot() -> tuple[Event, ...]:
    """All that the machine measured: its firmware's log, then the two phases that systemd adds to PCR 11."""
    log = tuple(_read_log((RECORDING / "eventlog.bin").read_bytes()))
    return log + tuple(_phase(name) for name in PHASES)


def another_kernel(boot: tuple[Event, ...]) -> tuple[Event, ...]:
    """The same boot, but the image that the firmware started last was another: one event's digests differ."""
    last = max(number for number, event in enumerate(boot) if event.kind == _BOOT_APPLICATION)
    digests = {
        bank: hashlib.new(bank, b"an image that nobody released").digest() for bank in boot[last].digests
    }
    return (*boot[:last], replace(boot[last], digests=digests), *boot[last + 1 :])


def reference_values() -> dict[int, str]:
    """What the registers of the real machine held, SHA-256 in hex, as it was read from its TPM."""
    about = json.loads((RECORDING / "expected.json").read_text())
    return {int(register): value for register, value in about["expected"]["pcrs"]["sha256"].items()}


def play(boot: tuple[Event, ...], tpm: SoftwareTpm) -> None:
    """Measure the boot into this TPM, as the machine's firmware did into its own."""
    for event in boot:
        tpm.extend(event.register, event.digests)


def write_logs(directory: Path, boot: tuple[Event, ...]) -> None:
    """What this machine's firmware and systemd say that they measured: the recorded log, with this boot's
    digests."""
    raw = (RECORDING / "eventlog.bin").read_bytes()
    for recorded, measured in zip(recorded_boot(), boot, strict=True):
        for bank, digest in measured.digests.items():
            if digest != recorded.digests[bank]:
                raw = raw.replace(recorded.digests[bank], digest)
    (directory / BOOT_LOG).write_bytes(raw)
    (directory / SYSTEMD_LOG).write_bytes(b"".join(_phase_record(name) for name in PHASES))


def start_another(directory: Path, tpm: SoftwareTpm) -> None:
    """The machine loads one more program, which nobody released: measured, and logged as measured."""
    digests = {bank: hashlib.new(bank, b"a program nobody released").digest() for bank, _ in _BANKS.values()}
    tpm.extend(4, digests)
    record = struct.pack("<III", 4, _BOOT_APPLICATION, len(digests))
    for number, (bank, _) in _BANKS.items():
        record += struct.pack("<H", number) + digests[bank]
    with (directory / BOOT_LOG).open("ab") as log:
        log.write(record + struct.pack("<I", 0))


def kernel_digest() -> str:
    """What the firmware measured of the image that it started, SHA-256 in hex."""
    return next(event.digests["sha256"].hex() for event in recorded_boot() if event.kind == _BOOT_APPLICATION)


def registers(tpm: SoftwareTpm) -> dict[int, str]:
    """What the registers hold, SHA-256 in hex."""
    return {register: _read_register(tpm, register).hex() for register in PLAYED}


def claim_registers(held: Mapping[int, str], expected: Mapping[int, str], *, but: frozenset[int]) -> None:
    """These registers hold what the real machine's held, except for those in `but`, which do not."""
    differing = {register for register in PLAYED if held[register] != expected[register]}
    claim(
        differing == but,
        f"registers {sorted(but)} should differ from the real machine's, not {sorted(differing)}",
    )


def _read_log(raw: bytes) -> Iterator[Event]:
    """The events of a crypto-agile log (TCG PC Client Platform Firmware Profile, 10.2), without its header
    event."""
    (size,) = struct.unpack_from("<I", raw, 28)
    offset = 32 + size
    while offset < len(raw):
        register, kind, count = struct.unpack_from("<III", raw, offset)
        offset += 12
        digests = {}
        for _ in range(count):
            bank, length = _BANKS[struct.unpack_from("<H", raw, offset)[0]]
            digests[bank] = raw[offset + 2 : offset + 2 + length]
            offset += 2 + length
        offset += 4 + struct.unpack_from("<I", raw, offset)[0]
        if kind != _NO_ACTION:
            yield Event(register, kind, digests)


def _phase(name: bytes) -> Event:
    """What systemd-pcrphase measures when the system reaches this phase."""
    return Event(11, 0xD, {bank: hashlib.new(bank, name).digest() for bank, _ in _BANKS.values()})


def _phase_record(name: bytes) -> bytes:
    """The same in systemd's own log (a JSON text sequence)."""
    digests = [{"hashAlg": bank, "digest": digest.hex()} for bank, digest in _phase(name).digests.items()]
    content = {"string": name.decode(), "bootId": "0" * 32, "timestamp": 0, "eventType": "phase"}
    record = {"pcr": 11, "digests": digests, "content_type": "systemd", "content": content}
    return b"\x1e" + json.dumps(record).encode() + b"\n"


def _read_register(tpm: SoftwareTpm, register: int) -> bytes:
    """TPM2_PCR_Read of one register of the SHA-256 bank."""
    selection = struct.pack(">IHB", 1, 0x000B, 3) + (1 << register).to_bytes(3, "little")
    return tpm.execute(_PCR_READ, (), selection, authorized=False)[-32:]
