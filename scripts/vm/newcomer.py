"""Does somebody who has a clean Debian, the package and the README arrive at an identity?"""

import json

from scripts.vm.console import Console
from scripts.vm.policy import policy
from scripts.vm.readme import SECTION, Step, at_the_service, steps
from scripts.vm.service import ATTESTD, Service
from scripts.vm.world import World

_STEP_SECONDS = 400.0


def follow_readme(world: World) -> None:
    """Every command of the section ends well, and then the agent holds an identity."""
    world.report.begin("README", f'"{SECTION}", command by command, on a clean Debian')
    image = world.image("newcomer")
    world.service.apply(policy([image]))
    known = world.service.known()
    with world.boot("readme", image) as console:
        missing = console.run("command -v attestd || ls /usr/lib/attestd").status
        world.report.check("nothing of attestd is installed", missing != 0)
        for step in steps(
            {"FINGERPRINT": world.service.tls.root_sha256, "HEX": world.service.tls.root_sha256}
        ):
            _follow(world, console, step, known)
        status = console.run("attestd agent status --json", within=_STEP_SECONDS).text
        world.report.check("the agent says that it has an identity", _has_identity(status), status)


def _follow(world: World, console: Console, step: Step, known: frozenset[str]) -> None:
    command = step.command
    if step.party == "service":
        command = command.replace("DEVICE", next(iter(world.service.known() - known), "DEVICE"))
        status, said = _at_the_service(world.service, command)
    else:
        typed = console.run(command, within=_STEP_SECONDS)
        status, said = typed.status, typed.text
    world.report.say(f"{step.party} $ {command}")
    world.report.say("\n".join(f"    {line}" for line in said.splitlines()[-12:]))
    # A machine that waits for its operator is told what he types, and that it is not accepted yet.
    waits = status == 1 and "attestd device approve" in said
    world.report.check(f"{step.party} $ {command.splitlines()[0][:80]}", status == 0 or waits, said)


def _at_the_service(service: Service, command: str) -> tuple[int, str]:
    return at_the_service(command, configuration=service.directory / "attestd.toml", attestd=ATTESTD)


def _has_identity(status: str) -> bool:
    try:
        return json.loads(status)["agent"]["identity"] is True
    except (ValueError, TypeError, KeyError):
        return False
