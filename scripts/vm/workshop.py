"""What is made before the first boot? A clean Debian, the package, a TPM maker, a service, and machines."""

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from scripts.vm.device import build_package, device_root, newcomer_root
from scripts.vm.initrd import make_initrd
from scripts.vm.machine import Machine, prepare
from scripts.vm.report import Report
from scripts.vm.root import base_root, kernel_of, make_disk
from scripts.vm.service import Service, serving
from scripts.vm.world import World
from tpm.swtpm import SoftwareTpm
from tpm.swtpm_ca import TestCa, make_test_ca


@dataclass(frozen=True, slots=True)
class Workshop:
    """`cache` outlives a run, `run` is made anew for each."""

    report: Report
    cache: Path
    run: Path
    base: Path
    package: Path
    maker: TestCa
    service: Service

    def device(self) -> World:
        """A machine on which everything is installed and enabled."""
        tree = self.run / "device" / "root"
        device_root(tree, self.base, self.package, root_sha256=self.service.tls.root_sha256)
        return self._world("device", tree)

    def newcomer(self) -> World:
        """A machine with a clean Debian, and the package as a file in root's home."""
        tree = self.run / "newcomer" / "root"
        newcomer_root(tree, self.base, self.package)
        return self._world("newcomer", tree)

    def _world(self, name: str, tree: Path) -> World:
        home = self.run / name
        make_initrd(tree, home / "initrd")
        make_disk(tree, home / "root.made")
        with SoftwareTpm(state=home / "tpm", ca=self.maker):
            pass  # What its maker does to it: an endorsement key with a certificate.
        machine = Machine(home, home / "root.made", self.service.port)
        prepare(machine)
        self.report.say(f"the {name} is installed")
        return World(
            self.report, name, self.cache, kernel_of(tree)[0], home / "initrd", self.service, machine
        )


def workshop(report: Report, cache: Path, stack: ExitStack) -> Workshop:
    """Everything but the machines; the service ends with `stack`."""
    report.begin("before", "a clean Debian, the agent's package, a service")
    run, maker = cache / "run", make_test_ca()
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    base = base_root(cache, report.say)
    package = build_package(report.say)
    service = stack.enter_context(serving(run / "service", maker.root))
    report.say("the service runs and trusts the TPMs' maker")
    return Workshop(report, cache, run, base, package, maker, service)
