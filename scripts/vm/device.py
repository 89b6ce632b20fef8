"""What does a device have beyond a clean Debian? The agent's package, its settings, and one local program."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from scripts.demonstration.claims import Disappointed
from scripts.vm.root import in_root, write_files
from scripts.vm.service import AUDIENCE, URL

_AGENT = f"""\
server = "{URL}"
root_sha256 = "ROOT"

[[workload]]
agent = "telemetry"
audiences = ["{AUDIENCE}"]
unit = ["telemetry.service"]

[[workload]]
agent = "console"
user = ["root"]
"""

# Runs as a user of its own, made for it, without any right: who it is, the agent sees from the kernel.
_TELEMETRY = """\
[Unit]
Description=telemetry, a program that needs an identity
Wants=attestd-agent.target
After=attestd-agent.target

[Service]
Type=oneshot
RemainAfterExit=yes
DynamicUser=yes
SyslogIdentifier=telemetry
StandardOutput=journal+console
ExecStart=/usr/bin/attestd agent exec -- /usr/local/bin/telemetry
Restart=on-failure
RestartSec=5s

[Install]
WantedBy=multi-user.target
"""

_PROGRAM = """\
#!/bin/sh
# Says who it is by the certificate that it was given, if that holds under the bundle that came with it.
set -eu
openssl verify -CAfile "$ATTESTD_BUNDLE_FILE" "$ATTESTD_SVID_FILE" >&2
name=$(openssl x509 -in "$ATTESTD_SVID_FILE" -noout -ext subjectAltName | sed -n 's/ *URI://p')
echo "I am $name, user $(id -u)"
"""

_PATIENT = "[Unit]\nJobTimeoutSec=400s\n[Service]\nTimeoutStartSec=400s\n"

_MOUNTS = """\
/dev/disk/by-id/virtio-root / ext4 rw,noatime 0 0
/dev/disk/by-id/virtio-esp /efi vfat rw,umask=0077,nofail 0 0
/dev/mapper/data /srv/data ext4 rw,nofail,x-systemd.device-timeout=5s 0 0
"""

# Whatever the agent says of itself is to be seen on the console.
_CONSOLE = "[Service]\nStandardOutput=journal+console\nStandardError=journal+console\n"


def build_package(say: Callable[[str], None]) -> Path:
    """The agent's package, built from what is here."""
    built = subprocess.run(["scripts/debian/build"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if built.returncode:
        raise Disappointed(f"the package was not built: {built.stderr.strip()[-2000:]}")
    path = Path(built.stdout.split()[-1])
    say(f"{path.name}: {path.stat().st_size // 2**20} MiB")
    return path


def newcomer_root(tree: Path, base: Path, package: Path) -> None:
    """A clean Debian with the package as a file in root's home, and nothing of it installed."""
    tree.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", str(base), str(tree)], check=True)
    shutil.copyfile(package, tree / "root" / package.name)


def device_root(tree: Path, base: Path, package: Path, *, root_sha256: str) -> None:
    """A tree with the package installed and everything enabled; what is left is to switch the machine on."""
    newcomer_root(tree, base, package)
    in_root(tree, "dpkg", "--install", f"/root/{package.name}")
    (tree / "root" / package.name).unlink()
    system = "etc/systemd/system"
    write_files(
        tree,
        {
            "etc/attestd/agent.toml": _AGENT.replace("ROOT", root_sha256),
            f"{system}/telemetry.service": _TELEMETRY,
            f"{system}/attestd-agent.service.d/console.conf": _CONSOLE,
            f"{system}/attestd-agent.service.d/patient.conf": "[Service]\nTimeoutStartSec=400s\n",
            f"{system}/attestd-unseal@.service.d/patient.conf": _PATIENT,
            "usr/local/bin/telemetry": _PROGRAM,
            "etc/crypttab": "data /dev/disk/by-id/virtio-data none luks,headless=true,x-initrd.attach\n",
            "etc/fstab": _MOUNTS,
        },
    )
    (tree / "usr/local/bin/telemetry").chmod(0o755)
    in_root(tree, "systemctl", "enable", "telemetry.service", "attestd-agent.service")
