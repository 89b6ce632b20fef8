"""What runs before the machine's root is mounted? What finds it, and what opens the volume; made by dracut."""

import shutil
from pathlib import Path

from scripts.vm.root import in_root, kernel_of

_MODULES = "systemd systemd-initrd dracut-systemd base fs-lib rootfs-block udev-rules kernel-modules shutdown attestd"
_DRIVERS = "virtio_pci virtio_blk ext4"
_OWN = Path(__file__).parent / "dracut"


def make_initrd(tree: Path, path: Path) -> None:
    """An initrd for the kernel of the tree, from what is installed there."""
    _, release = kernel_of(tree)
    module = tree / "usr/lib/dracut/modules.d/91attestd"
    shutil.copytree(_OWN, module, dirs_exist_ok=True)
    inside = Path("boot/initrd.img")
    command = ["dracut", "--force", "--kver", release, "--no-hostonly", "--no-hostonly-cmdline"]
    command += ["--compress", "zstd -3", "--modules", _MODULES, "--drivers", _DRIVERS]
    in_root(tree, *command, "--force-drivers", _DRIVERS, f"/{inside}")
    shutil.move(tree / inside, path)
