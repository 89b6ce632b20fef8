"""How is a package tried on a clean Debian without a virtual machine?

A small Debian is made once from this machine's own mirror. `boot` starts its systemd in namespaces of its own
(mounts, processes, network, control groups), on top of an overlay: the units run as they do on a machine,
nothing of it stays, and nothing is mounted here. The kernel is this machine's; a TPM is one that is shared.
"""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SUITE = "bookworm"
_SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
_MASKED = ("systemd-networkd-wait-online.service", "systemd-udevd.service", "apt-daily.timer", "getty.target")

_BOOT = """\
set -eu
base=$1 scratch=$2
mount --make-rprivate /
root=$scratch/root
mount -t overlay overlay -o "lowerdir=$base,upperdir=$scratch/upper,workdir=$scratch/work" "$root"
ip link set lo up
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm" "$root/old"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
touch "$root/dev/console"
mount --bind /dev/null "$root/dev/console"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -p "$root/shared"
mount --bind "$scratch/shared" "$root/shared"
cd "$root"
pivot_root . old
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /bin/sh -c 'umount -l /old; exec /lib/systemd/systemd --unit=steps.service --show-status=0' </dev/null
"""

_UNIT = """\
[Unit]
After=basic.target
Wants=basic.target
FailureAction=poweroff-force
SuccessAction=poweroff-force
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/bin/bash /shared/steps
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one step ended: its exit status, and what it wrote on both streams."""

    status: int
    output: str


def mirror() -> str:
    """The first mirror of Debian in this machine's own sources. LookupError if there is none."""
    for name in _SOURCES:
        path = Path(name)
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        found = re.search(r"^(?:URIs:|deb)\s+(?:\[.*?\]\s+)?(\S+)", text, re.MULTILINE)
        if found:
            return found[1]
    raise LookupError(f"no mirror of Debian in {' or '.join(_SOURCES)}")


def clean_root(cache: Path, packages: Sequence[str]) -> Path:
    """A minimal Debian with these packages and what they depend on; made at the first call, in a minute."""
    mark = hashlib.sha256(repr((SUITE, sorted(packages), _MASKED)).encode()).hexdigest()[:16]
    root = cache / f"root-{mark}"
    if root.is_dir():
        return root
    for old in cache.glob("root-*"):
        shutil.rmtree(old)
    cache.mkdir(parents=True, exist_ok=True)
    draft = cache / "root-draft"
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(sorted(packages))}"]
    made = subprocess.run(
        [*command, SUITE, str(draft), mirror()], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise RuntimeError(f"debootstrap failed: {(made.stderr or made.stdout).strip()[-400:]}")
    for unit in _MASKED:
        (draft / "etc/systemd/system" / unit).symlink_to("/dev/null")
    draft.rename(root)
    return root


def boot(base: Path, scratch: Path, steps: Mapping[str, str], *, seconds: float) -> dict[str, Outcome]:
    """Boot, run each step with bash, one after another whatever each ends with, and power off.

    `scratch/shared` is /shared inside. RuntimeError if the machine is not down in time or a step is missing.
    """
    for name in ("upper", "work", "root", "shared/told", "upper/etc/systemd/system"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
    (scratch / "upper/etc/systemd/system/steps.service").write_text(_UNIT, encoding="utf-8")
    lines = []
    for name, step in steps.items():
        (scratch / "shared" / f"step-{name}").write_text(f"set -eu\n{step}\n", encoding="utf-8")
        log = f"/shared/told/{name}"
        lines.append(f"bash /shared/step-{name} >{log} 2>&1 </dev/null; echo $? >{log}.status\n")
    (scratch / "shared/steps").write_text("".join(lines), encoding="utf-8")
    command = [
        "unshare",
        "--mount",
        "--pid",
        "--uts",
        "--ipc",
        "--net",
        "--cgroup",
        "--fork",
        "--kill-child=KILL",
    ]
    try:
        # What systemd says as process 1 of a namespace is of no interest; what steps say is in their files.
        subprocess.run(
            [*command, "bash", "-c", _BOOT, "boot", str(base), str(scratch)],
            timeout=seconds,
            capture_output=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"the machine was not down after {seconds} s; {_last(scratch, steps)}") from None
    if missing := [name for name in steps if not (scratch / f"shared/told/{name}.status").exists()]:
        raise RuntimeError(f"the machine went down before {missing[0]}; {_last(scratch, steps)}")
    return {name: _outcome(scratch, name) for name in steps}


def _outcome(scratch: Path, name: str) -> Outcome:
    told = scratch / "shared/told" / name
    return Outcome(int(told.with_name(f"{name}.status").read_text()), told.read_text(errors="replace"))


def _last(scratch: Path, steps: Mapping[str, str]) -> str:
    """The last words of the last step that began."""
    begun = [scratch / "shared/told" / name for name in steps if (scratch / "shared/told" / name).exists()]
    return f"{begun[-1].name}: {begun[-1].read_text(errors='replace')[-800:]}" if begun else "no step began"
