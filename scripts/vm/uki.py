"""How does a kernel become one signed image, and what will the firmware measure when it starts it?

A unified kernel image is systemd's stub with kernel, initrd, command line and os-release as sections. The key
is the one that Debian's ovmf package enrolls in its "snakeoil" variables, so that Secure Boot accepts it.
"""

import hashlib
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

_STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
_KEY = Path("/usr/share/ovmf/PkKek-1-snakeoil.key")
_CERTIFICATE = Path("/usr/share/ovmf/PkKek-1-snakeoil.pem")
_ADDRESSES = {".osrel": 0x20000, ".cmdline": 0x30000, ".linux": 0x2000000, ".initrd": 0x3000000}


@dataclass(frozen=True, slots=True)
class Kernel:
    """What goes into an image: two files, and two texts that are measured with them."""

    linux: Path
    initrd: Path
    command_line: str
    version: str

    @property
    def os_release(self) -> str:
        return f'ID=debian\nNAME="attestd test machine"\nVERSION_ID={self.version}\n'


@dataclass(frozen=True, slots=True)
class Image:
    """A signed image, and the SHA-256 that the firmware extends into PCR 4 when it starts it."""

    path: Path
    kernel: Kernel
    digest: str


def build_image(kernel: Kernel, path: Path) -> Image:
    """Write the signed image to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sections = {".linux": kernel.linux, ".initrd": kernel.initrd}
    for name, text in (".osrel", kernel.os_release), (".cmdline", kernel.command_line):
        sections[name] = path.with_suffix(name)
        sections[name].write_text(text)
    command = ["objcopy"]
    for name, address in _ADDRESSES.items():
        command += [
            "--add-section",
            f"{name}={sections[name]}",
            "--change-section-vma",
            f"{name}={address:#x}",
        ]
    unsigned = path.with_suffix(".unsigned")
    subprocess.run([*command, str(_STUB), str(unsigned)], check=True)
    signing = ["sbsign", "--key", str(_open_key(path.parent)), "--cert", str(_CERTIFICATE)]
    subprocess.run([*signing, "--output", str(path), str(unsigned)], check=True, capture_output=True)
    return Image(path, kernel, authenticode(path.read_bytes()))


def authenticode(image: bytes) -> str:
    """The Authenticode SHA-256 of a PE32+ image whose sections lie one behind the other, as objcopy writes
    them: everything but the checksum, the entry of the certificate table, and that table."""
    (header,) = struct.unpack_from("<I", image, 0x3C)
    optional = header + 24
    checksum, entry = optional + 64, optional + 144
    (table,) = struct.unpack_from("<I", image, entry)
    end = table or len(image)
    covered = image[:checksum] + image[checksum + 4 : entry] + image[entry + 8 : end]
    return hashlib.sha256(covered + bytes(-end % 8)).hexdigest()


def _open_key(directory: Path) -> Path:
    """The published test key without its published passphrase, which sbsign would ask for."""
    path = directory / "snakeoil.key"
    if not path.exists():
        key = load_pem_private_key(_KEY.read_bytes(), b"snakeoil")
        path.touch(mode=0o600)
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path
