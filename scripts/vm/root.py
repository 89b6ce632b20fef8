"""What is on the machine's system disk? A small Debian 12, made from this machine's own mirror.

The tree is made once and kept; a machine's disk is a copy of it with what that machine has in addition.
Commands inside of a tree run in a mount namespace of their own, so that nothing stays mounted whatever
happens.
"""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from scripts.demonstration.claims import Disappointed

SUITE = "bookworm"
PACKAGES = (
    *("systemd", "systemd-sysv", "udev", "dbus", "linux-image-amd64", "dracut", "zstd"),
    *("iproute2", "ca-certificates", "cryptsetup-bin", "python3", "tpm-udev", "openssl"),
    *("libtss2-esys-3.0.2-0", "libtss2-mu0", "libtss2-sys1", "libtss2-rc0", "libtss2-fapi1"),
    *("libtss2-tctildr0", "libtss2-tcti-device0"),
)
"""A bootable system, what the volume needs, and what the agent's package depends on."""

_UNUSED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")
_FOREIGN = ("sound", "drivers/gpu", "drivers/media", "drivers/infiniband", "drivers/staging")
"""Kernel modules of hardware that the machine has not."""

_INSIDE = """\
mount --bind /dev "$0/dev" && mount -t proc proc "$0/proc" && mount -t tmpfs tmpfs "$0/run" &&
exec chroot "$0" "$@"
"""

# What keeps an emulated machine busy and proves nothing. systemd 252 measures the phases of a boot without a
# log of it, so that no verifier can replay PCR 11 afterwards: who judges that register masks these two.
_MASKED = (
    *("systemd-pcrphase.service", "systemd-pcrphase-sysinit.service", "e2scrub_reap.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("fstrim.timer", "motd-news.timer", "systemd-networkd-wait-online.service"),
)

_FILES: Mapping[str, str] = {
    "etc/hostname": "gateway\n",
    "etc/hosts": "127.0.0.1 localhost gateway\n10.0.2.100 attestd.example.org\n",
    "etc/fstab": "/dev/vdb / ext4 rw,noatime 0 0\n",
    "etc/systemd/network/10-wired.network": "[Match]\nType=ether\n[Network]\nAddress=10.0.2.15/24\n",
    "etc/systemd/system/serial-getty@ttyS0.service.d/login.conf": (
        "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --keep-baud 115200 - dumb\n"
    ),
    # An emulated machine on a busy one: nothing is too late because it is slow.
    "etc/systemd/system.conf.d/patient.conf": (
        "[Manager]\nDefaultTimeoutStartSec=400s\nDefaultTimeoutStopSec=60s\nDefaultDeviceTimeoutSec=400s\n"
    ),
    "root/.hushlogin": "",
}


def base_root(cache: Path, say: Callable[[str], None]) -> Path:
    """The tree of a clean Debian, made at the first call and whenever what it is made of has changed."""
    tree, stamp = cache / "root", cache / "root.made"
    recipe = repr((SUITE, PACKAGES, _UNUSED, _FOREIGN, _INSIDE, _MASKED, _FILES))
    fingerprint = hashlib.sha256(recipe.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == fingerprint:
        return tree
    say("making a clean Debian: about a minute, once")
    stamp.unlink(missing_ok=True)
    shutil.rmtree(tree, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, str(tree), _mirror()]
    _quietly(command)
    _install(tree)
    _configure(tree)
    stamp.write_text(fingerprint)
    return tree


def in_root(tree: Path, *command: str) -> str:
    """Run a command inside of the tree, without services; what it wrote."""
    return _quietly(["unshare", "--mount", "sh", "-c", _INSIDE, str(tree.absolute()), *command])


def write_files(tree: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def make_disk(tree: Path, path: Path, *, mebibytes: int = 2048) -> None:
    """An ext4 image of the tree; nothing is mounted for it."""
    path.unlink(missing_ok=True)
    _quietly(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(path), f"{mebibytes}M"])


def kernel_of(tree: Path) -> tuple[Path, str]:
    """The kernel's image and its release."""
    (image,) = (tree / "boot").glob("vmlinuz-*")
    return image, image.name.removeprefix("vmlinuz-")


def _install(tree: Path) -> None:
    # Names and mirrors are resolved inside as they are outside.
    for name in ("resolv.conf", "hosts"):
        shutil.copyfile(f"/etc/{name}", tree / "etc" / name)
    acquire = subprocess.run(["apt-config", "dump", "Acquire"], check=True, capture_output=True, text=True)
    write_files(tree, {"etc/apt/apt.conf.d/50outside": acquire.stdout})
    apt = ("env", "DEBIAN_FRONTEND=noninteractive", "INITRD=No", "apt-get", "-qq")
    in_root(tree, *apt, "update")
    in_root(tree, *apt, "install", "-y", "--no-install-recommends", *PACKAGES)
    (tree / "etc/apt/apt.conf.d/50outside").unlink()


def _configure(tree: Path) -> None:
    write_files(tree, _FILES)
    system = tree / "etc/systemd/system"
    for unit in _MASKED:
        (system / unit).symlink_to("/dev/null")
    in_root(tree, "systemctl", "enable", "systemd-networkd.service", "serial-getty@ttyS0.service")
    in_root(tree, "systemd-machine-id-setup")
    _, release = kernel_of(tree)
    _remove(tree / name for name in _UNUSED)
    _remove(tree / "usr/lib/modules" / release / "kernel" / name for name in _FOREIGN)
    _remove((tree / "boot").glob("initrd*"))
    in_root(tree, "depmod", release)
    for name in (".updated",):
        (tree / "etc" / name).touch()
        (tree / "var" / name).touch()


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _mirror() -> str:
    """The first archive that this machine's own apt is set to; security and other suites are not needed."""
    for path in sorted([Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]):
        if not path.exists():
            continue
        text = path.read_text()
        for line in re.findall(
            r"^(?:URIs:|deb(?:\s+\[[^]]*\])?)\s+(\S+/debian/?)(?:\s|$)", text, re.MULTILINE
        ):
            return str(line)
    raise Disappointed("no Debian archive is named in /etc/apt/sources.list*; name one there")


def _quietly(command: list[str]) -> str:
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ended.returncode:
        said = (ended.stdout + ended.stderr).strip()[-2000:]
        raise Disappointed(f"{command[0]} ended with {ended.returncode}: {said}")
    return ended.stdout
