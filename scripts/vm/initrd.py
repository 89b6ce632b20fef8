"""What runs before the machine's root is mounted? What finds it and, on a device, what opens its volume."""

import shutil
from pathlib import Path

from scripts.vm.root import in_root, kernel_of

_MODULES = "systemd systemd-initrd dracut-systemd base fs-lib rootfs-block udev-rules kernel-modules shutdown"
_DRIVERS = "virtio_pci virtio_blk ext4"
_SETTINGS = ("/etc/systemd/system.conf.d", "/etc/systemd/system/attestd-unseal@.service.d")
_OWN = Path(__file__).parent / "dracut"


def make_initrd(tree: Path, path: Path) -> None:
    """An initrd for the kernel of the tree, from what is installed there; with attestd if that is."""
    _, release = kernel_of(tree)
    modules = _MODULES
    if (tree / "usr/bin/attestd").exists():
        modules += " attestd"
        shutil.copytree(_OWN, tree / "usr/lib/dracut/modules.d/91attestd", dirs_exist_ok=True)
    inside = Path("boot/initrd.img")
    command = ["dracut", "--force", "--kver", release, "--no-hostonly", "--no-hostonly-cmdline"]
    command += ["--compress", "zstd -3", "--modules", modules, "--drivers", _DRIVERS]
    for directory in _SETTINGS:
        if (tree / directory.lstrip("/")).exists():
            command += ["--include", directory, directory]
    in_root(tree, *command, "--force-drivers", _DRIVERS, f"/{inside}")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(tree / inside, path)
