"""Does a machine that really boots get its identity, and only that machine in that state?

Makes a small Debian, a device of it with the agent's package, and signed kernel images; runs the service here; then
switches the device on several times in QEMU. Exit status 0 only if every promise held.
"""

import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from scripts.demonstration.claims import Disappointed
from scripts.vm.boots import tell
from scripts.vm.device import device_root, package
from scripts.vm.host import install_missing
from scripts.vm.initrd import make_initrd
from scripts.vm.machine import Machine, prepare
from scripts.vm.report import Report
from scripts.vm.root import base_root, kernel_of, make_disk
from scripts.vm.service import serving
from scripts.vm.world import World
from tpm.swtpm import SoftwareTpm

CACHE = Path(".cache/vm")


def main(arguments: Sequence[str]) -> int:
    if arguments:
        print("usage: python -m scripts.vm", file=sys.stderr)
        return 2
    report = Report(sys.stdout)
    try:
        install_missing(report.say)
        with ExitStack() as stack:
            tell(_world(report, CACHE.absolute(), stack))
    except Disappointed as error:
        report.check("it could be tried", False, str(error))
    return 0 if report.table() else 1


def _world(report: Report, cache: Path, stack: ExitStack) -> World:
    cache.mkdir(parents=True, exist_ok=True)
    report.begin("before", "a clean Debian, the agent's package, a service")
    base = base_root(cache, report.say)
    run = cache / "run"
    shutil.rmtree(run, ignore_errors=True)
    with SoftwareTpm(state=run / "machine" / "tpm") as tpm:
        maker = tpm.ek_root
    service = stack.enter_context(serving(run / "service", maker))
    report.say("the service runs; it trusts the TPM's maker")
    tree = device_root(cache, base, package(report.say), ca=service.tls.root)
    make_initrd(tree, run / "initrd")
    make_disk(tree, run / "device.img")
    machine = Machine(run / "machine", run / "device.img", service.port)
    prepare(machine)
    report.say("the device is installed")
    return World(report, cache, kernel_of(tree)[0], run / "initrd", service, machine)


def _end(number: int, _: FrameType | None) -> None:
    # An exception, so that the context managers end what runs.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    sys.exit(main(sys.argv[1:]))
