"""What is to be seen of this machine's TPM: from the system, and by asking it?

Nothing is written, and what is created in the TPM for a moment is flushed again.
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from attestd.agent.doctor.check import Unread, made
from attestd.agent.lock import tpm_look
from attestd.agent.state import State
from tpm.device.device import Device
from tpm.device.endorsement import Endorsement
from tpm.device.properties import Properties
from tpm.structures.pcrs import PCR_COUNT, PcrSelection

PATIENCE_SECONDS = 10.0
"""For an agent that is at the TPM: one round, where its service answers."""
BANKS = ("sha256", "sha384", "sha512", "sha1")
"""The bank that is compared with logs is the first of these that is in use."""
_NAMES = ("tpmrm0", "tpm0")


@dataclass(frozen=True, slots=True)
class Node:
    """A device file. `refused` is errno's name for what opening it gave, None where it opens or was not
    tried; `group` may open it if `group_may`; `holders` are processes that have it open, as far as they may
    be seen."""

    path: Path
    refused: str | None
    group: str
    group_may: bool
    holders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Nodes:
    """`named` is the device file that the TCTI names, None for a TPM that is none; `kernels` is the major
    version of the TPM that the kernel knows ("2"), None where it knows none; `user` is who looked."""

    tcti: str
    named: Path | None
    there: tuple[Node, ...]
    kernels: str | None
    user: str


@dataclass(frozen=True, slots=True)
class TpmReading:
    """What the TPM says. `registers` are those of one bank; `ak` is the name of the attestation key that the
    state's recipe makes, None without a recipe."""

    properties: Properties
    leavings: tuple[int, ...] | Unread
    allocation: Mapping[str, tuple[int, ...]] | Unread
    registers: Mapping[str, Mapping[int, bytes]] | Unread
    endorsement: Endorsement | Unread
    ak: bytes | Unread | None


def read_nodes(
    tcti: str,
    *,
    devices: Path = Path("/dev"),
    kernel: Path = Path("/sys/class/tpm/tpm0"),
    processes: Path = Path("/proc"),
) -> Nodes:
    """The device files, the one that `tcti` names tried."""
    kind, _, where = tcti.partition(":")
    named = (Path(where) if where else devices / _NAMES[0]) if kind == "device" else None
    paths = dict.fromkeys([devices / name for name in _NAMES] + ([named] if named is not None else []))
    there = tuple(_node(path, path == named, processes) for path in paths if path.exists())
    return Nodes(tcti, named, there, _kernels(kernel), _user())


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _kernels(folder: Path) -> str | None:
    """Kernels before 5.6 know the TPM and do not say of which version it is."""
    with suppress(OSError):
        return (folder / "tpm_version_major").read_text(encoding="ascii").strip()
    return "unknown" if folder.exists() else None


def _node(path: Path, tried: bool, processes: Path) -> Node:
    told = path.stat()
    try:
        group = grp.getgrgid(told.st_gid).gr_name
    except KeyError:
        group = str(told.st_gid)
    may = told.st_mode & (stat.S_IRGRP | stat.S_IWGRP) == stat.S_IRGRP | stat.S_IWGRP
    opened = made(lambda: os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))) if tried else None
    refused = opened.code if isinstance(opened, Unread) else None
    holders = tuple(_holders(path, processes)) if refused == "EBUSY" else ()
    return Node(path, refused, group, may, holders)


def _holders(path: Path, processes: Path) -> Iterator[str]:
    for process in processes.iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                if any(os.readlink(each) == str(path) for each in (process / "fd").iterdir()):
                    name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                    yield f"{name}, process {process.name}"


def read_tpm(tcti: str, state: Path, *, patience: float = PATIENCE_SECONDS) -> TpmReading | Unread:
    """What the TPM says, in one turn of its users."""
    return made(lambda: _asked(tcti, state, patience))


def _asked(tcti: str, state: Path, patience: float) -> TpmReading:
    with tpm_look(state, patience=patience), Device(tcti) as device:
        return TpmReading(
            device.properties(),
            # First, before anything of ours is loaded.
            made(device.leavings),
            allocation := made(device.allocation),
            made(lambda: _registers(device, allocation)),
            made(device.endorsement),
            made(lambda: _ak(device, State(state))),
        )


def _registers(
    device: Device, allocation: Mapping[str, tuple[int, ...]] | Unread
) -> Mapping[str, Mapping[int, bytes]]:
    if isinstance(allocation, Unread):
        return {}
    for bank in BANKS:
        if pcrs := [pcr for pcr in allocation.get(bank, ()) if pcr < PCR_COUNT]:
            return device.read_pcrs(PcrSelection.of(bank, pcrs))
    return {}


def _ak(device: Device, state: State) -> bytes | None:
    recipe = state.recipe()
    if recipe is None:
        return None
    with device.ak(recipe) as key:
        return key.name
