"""What is the machine, and how is it switched on?

QEMU's q35 with OVMF, a TPM that swtpm emulates, three disks and one way out of its network: to the service.
The emulator's state, the firmware's variables and the disks outlive a boot; everything else ends with it.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.demonstration.claims import Disappointed
from scripts.vm.console import Console
from scripts.vm.uki import Image

SERVICE_ADDRESS, SERVICE_PORT = "10.0.2.100", 443
"""Where the machine finds the service; nothing else answers in its network."""

_OVMF = Path("/usr/share/OVMF")
_FIRMWARE = _OVMF / "OVMF_CODE_4M.secboot.fd"
_VARIABLES = {True: _OVMF / "OVMF_VARS_4M.snakeoil.fd", False: _OVMF / "OVMF_VARS_4M.fd"}
_BOARD = ("-machine", "q35,smm=on", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024")
_QUIET = ("-nodefaults", "-display", "none", "-no-reboot")
_SECURE = ("-global", "driver=cfi.pflash01,property=secure,value=on")
_STOP_SECONDS = 20.0
_DATA_BYTES, _ESP_BYTES = 64 * 2**20, 160 * 2**20


@dataclass(frozen=True, slots=True)
class Machine:
    """`home` keeps what is this machine's own; `root` is the image that its system disk begins as."""

    home: Path
    root: Path
    service_port: int

    @property
    def tpm(self) -> Path:
        """The state of its TPM, as `SoftwareTpm` made it."""
        return self.home / "tpm"

    @property
    def disk(self) -> Path:
        """Its system disk."""
        return self.home / "root.img"

    @property
    def esp(self) -> Path:
        """Its EFI system partition, a disk of its own: kernel image and sealed keys."""
        return self.home / "esp.img"

    @property
    def data(self) -> Path:
        """Its second disk, empty at first."""
        return self.home / "data.img"


def prepare(machine: Machine) -> None:
    """Give it its disks."""
    machine.home.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "--sparse=always", str(machine.root), str(machine.disk)], check=True)
    with machine.data.open("wb") as data:
        data.truncate(_DATA_BYTES)
    machine.esp.unlink(missing_ok=True)
    command = ["mkfs.vfat", "-C", str(machine.esp), str(_ESP_BYTES // 1024)]
    subprocess.run(command, check=True, capture_output=True)
    subprocess.run(["mmd", "-i", str(machine.esp), "::/EFI", "::/EFI/BOOT", "::/attestd"], check=True)


def install(machine: Machine, image: Image) -> None:
    """Put the image where the firmware looks first."""
    words = ["mcopy", "-o", "-i", str(machine.esp), str(image.path), "::/EFI/BOOT/BOOTX64.EFI"]
    subprocess.run(words, check=True)


@contextmanager
def switched_on(machine: Machine, image: Image, log: Path, *, secure_boot: bool = True) -> Iterator[Console]:
    """From power-on to the end of the context; a machine that is still on then loses its power."""
    with ExitStack() as stack:
        run = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="attestd-vm-")))
        install(machine, image)
        stack.enter_context(_running(_tpm(machine, run), run / "swtpm.log"))
        _await(run / "tpm.sock")
        command = _qemu(machine, run, variables=_variables(machine, secure_boot))
        command += ["-chardev", f"socket,id=line,path={run}/line.sock,server=on,wait=off,logfile={log}"]
        command += ["-serial", "chardev:line"]
        process = stack.enter_context(_running(command, run / "qemu.log"))
        _await(run / "line.sock", process, run / "qemu.log")
        yield stack.enter_context(Console(run / "line.sock"))


def _qemu(machine: Machine, run: Path, *, variables: Path) -> list[str]:
    relay = f"{sys.executable} -m scripts.vm.relay {machine.service_port}"
    way_out = f"guestfwd=tcp:{SERVICE_ADDRESS}:{SERVICE_PORT}-cmd:{relay}"
    return [
        "qemu-system-x86_64",
        *(*_BOARD, *_QUIET, *_SECURE),
        *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_FIRMWARE}"),
        *("-drive", f"if=pflash,unit=1,format=raw,file={variables}"),
        *("-chardev", f"socket,id=tpm,path={run}/tpm.sock"),
        *("-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"),
        # In this order Linux calls them vda, vdb and vdc; the firmware starts what it finds on the first.
        *_disk("esp", machine.esp),
        *_disk("root", machine.disk),
        *_disk("data", machine.data),
        *("-netdev", f"user,id=net,restrict=on,{way_out}", "-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
    ]


def _disk(name: str, path: Path) -> list[str]:
    # What the emulator says is written is in the page cache; a host that dies is not what is tested.
    drive = f"id={name},if=none,format=raw,cache=unsafe,file={path}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name},serial={name}"]


def _tpm(machine: Machine, run: Path) -> list[str]:
    command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={machine.tpm.absolute()}"]
    return [*command, "--ctrl", f"type=unixio,path={run}/tpm.sock"]


def _variables(machine: Machine, secure_boot: bool) -> Path:
    """The firmware's variables: as Debian ships them with its test keys, or without any key, at first."""
    path = machine.home / f"variables-{'secure' if secure_boot else 'open'}.fd"
    if not path.exists():
        shutil.copyfile(_VARIABLES[secure_boot], path)
    return path


@contextmanager
def _running(command: list[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(path: Path, process: "subprocess.Popen[bytes] | None" = None, log: Path | None = None) -> None:
    end = time.monotonic() + _STOP_SECONDS
    while not path.exists():
        if time.monotonic() > end or (process is not None and process.poll() is not None):
            said = log.read_text(errors="replace")[-500:] if log is not None else ""
            raise Disappointed(f"{path.name} did not come: {said.strip()}")
        time.sleep(0.05)
