"""What runs before the machine's root is mounted? As little as finds it, made by dracut with systemd."""

import shutil
from pathlib import Path

from scripts.vm.root import in_root, kernel_of

_MODULES = "systemd systemd-initrd dracut-systemd base fs-lib rootfs-block udev-rules kernel-modules shutdown"
_DRIVERS = "virtio_pci virtio_blk ext4 dm_crypt vfat nls_ascii nls_cp437"


def make_initrd(tree: Path, path: Path) -> None:
    """An initrd for the kernel of the tree, from what is installed there."""
    _, release = kernel_of(tree)
    inside = Path("boot/initrd.img")
    command = ["dracut", "--force", "--kver", release, "--no-hostonly", "--no-hostonly-cmdline"]
    command += ["--compress", "zstd -3", "--modules", _MODULES, "--drivers", _DRIVERS]
    in_root(tree, *command, "--force-drivers", "virtio_pci virtio_blk ext4", f"/{inside}")
    shutil.move(tree / inside, path)
