"""What does this machine need to emulate another one? Debian's packages, installed where they are missing."""

import os
import shutil
import subprocess
from collections.abc import Callable

from scripts.demonstration.claims import Disappointed

PACKAGES = (
    *("qemu-system-x86", "ovmf", "swtpm", "debootstrap", "e2fsprogs", "dosfstools", "mtools"),
    *("systemd-boot-efi", "binutils", "sbsigntool"),
)


def install_missing(say: Callable[[str], None]) -> None:
    """Disappointed where it cannot be done: not on Debian, or not as root."""
    if shutil.which("dpkg-query") is None:
        raise Disappointed(f"this is not Debian; install the like of: {' '.join(PACKAGES)}")
    if os.geteuid() != 0:
        raise Disappointed("making a root file system needs root; run this as root")
    missing = [package for package in PACKAGES if not _is_installed(package)]
    if missing:
        say(f"installing from Debian: {' '.join(missing)}")
        if not _apt("install", "-y", "--no-install-recommends", *missing):
            _apt("update")
            if not _apt("install", "-y", "--no-install-recommends", *missing):
                raise Disappointed(f"apt-get cannot install {' '.join(missing)}")


def _is_installed(package: str) -> bool:
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    return subprocess.run(query, capture_output=True, text=True).stdout == "installed"


def _apt(*words: str) -> bool:
    command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *words]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, env=environment, capture_output=True).returncode == 0
