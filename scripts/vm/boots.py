"""What has to hold, boot by boot? One device, started in five ways."""

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from scripts.demonstration.claims import Disappointed
from scripts.vm.console import Console
from scripts.vm.policy import policy
from scripts.vm.service import AUDIENCE
from scripts.vm.uki import Image
from scripts.vm.volume import add_key, ask, is_mounted, make_volume, opens
from scripts.vm.world import COMMAND_LINE, World

ANOTHER_LINE = f"{COMMAND_LINE} nokaslr"

_IDENTITY_SECONDS = 300.0
_SVID = r"telemetry\[\d+\]: I am (spiffe://\S+), user (\d+)"
_OPENED, _ROOT = "Finished systemd-cryptsetup@data.service", "Mounting sysroot.mount"


@dataclass(frozen=True, slots=True)
class Identity:
    """The device, and what its first boot received: an SVID's name, and a token that rests on that boot."""

    device: str
    spiffe_id: str
    token: str


def tell(world: World) -> None:
    """All boots; what does not hold is reported and does not keep the others from being tried."""
    image = world.image("1")
    world.service.apply(policy([image]))
    first = first_boot(world, image)
    boots: tuple[Callable[[World, Image, Identity], None], ...] = (
        second_boot,
        another_command_line,
        without_secure_boot,
        released_image,
    )
    for boot in boots:
        try:
            boot(world, image, first)
        except Disappointed as error:
            world.report.check("the boot went its way", False, str(error))


def first_boot(world: World, image: Image) -> Identity:
    world.report.begin("boot 1", "a new device: systemd enrols it, attests, and hands out its identity")
    known = world.service.known()
    with world.boot("boot 1", image) as console:
        device = _admit(world, known)
        spiffe_id, user = _svid(console, world)
        world.report.say(f"user {user} is {spiffe_id}")
        world.report.check(
            "approved, it attests by itself; a program without rights fetched its SVID",
            spiffe_id == f"spiffe://example.org/agent/telemetry/{device}" and user != "0",
            spiffe_id,
        )
        token = _token(console)
        world.report.check("a token that rests on this boot is active", world.service.is_active(token))
        make_volume(console)
        world.report.check("the sealed key opens the volume", *opens(console))
        return Identity(device, spiffe_id, token)


def second_boot(world: World, image: Image, first: Identity) -> None:
    world.report.begin("boot 2", "the same again: one identity, a new epoch")
    known = world.service.known()
    with world.boot("boot 2", image) as console:
        spiffe_id, _ = _svid(console, world)
        world.report.check("the same identity", spiffe_id == first.spiffe_id, spiffe_id)
        world.report.check("no other device came of it", world.service.known() == known)
        world.report.check("the last boot's token is dead", not world.service.is_active(first.token))
        world.report.check("a new token is active", world.service.is_active(_token(console)))
        _check_volume(world, console, opened=True)
        _check_order(world, console)


def another_command_line(world: World, _: Image, first: Identity) -> None:
    world.report.begin("boot 3", "the same kernel with one more word on its command line")
    with world.boot("boot 3", world.image("another-line", ANOTHER_LINE)) as console:
        _check_refused(world, console, r"pcr(?:4|9|11|12)", "command_line_unexpected")
        why = world.service.operate("device", "why", first.device)
        world.report.say(why)
        world.report.check(
            "`attestd device why` names event, accepted line and what was found", _names_line(why), why
        )
        world.report.check(
            "no SVID", not re.search(_SVID, console.text) and "spiffe" not in _telemetry(console)
        )
        _check_volume(world, console, opened=False)


def without_secure_boot(world: World, image: Image, first: Identity) -> None:
    world.report.begin("boot 4", "the accepted image, but Secure Boot is off")
    with world.boot("boot 4", image, secure_boot=False) as console:
        _check_refused(world, console, "pcr7", "secure_boot_off")
        why = world.service.operate("device", "why", first.device)
        world.report.check("`attestd device why` names PCR 7", "pcr7" in why, why)
        world.report.check("no SVID", not re.search(_SVID, console.text))
        _check_volume(world, console, opened=False)


def released_image(world: World, old: Image, first: Identity) -> None:
    world.report.begin("boot 5", "a new image, a variant of the policy since before the boot")
    new = world.image("2")
    world.service.apply(policy([old, new]))
    with world.boot("boot 5", new) as console:
        spiffe_id, _ = _svid(console, world)
        world.report.check("accepted, with the same identity", spiffe_id == first.spiffe_id, spiffe_id)
        held, said = opens(console)
        closed = not held and "policy_failed" in said
        world.report.check("what was sealed to the old image does not open under the new one", closed, said)
        ask(console)
        add_key(console)
        world.report.check("a key sealed to the new image opens the volume", *opens(console))
    world.report.begin("boot 6", "the new image once more")
    with world.boot("boot 6", new) as console:
        _check_volume(world, console, opened=True)


def _admit(world: World, known: frozenset[str]) -> str:
    """What an operator does when a new device waits; its identifier."""
    end = time.monotonic() + _IDENTITY_SECONDS
    while not (new := [each for each in world.service.devices() if each["device_id"] not in known]):
        if time.monotonic() > end:
            raise Disappointed("no device has enrolled")
        time.sleep(2)
    device = str(new[0]["device_id"])
    world.report.check("systemd alone enrolled it; it waits for its operator", new[0]["state"] == "pending")
    world.service.operate("device", "approve", device)
    return device


def _svid(console: Console, world: World) -> tuple[str, str]:
    found = console.said(_SVID, within=_IDENTITY_SECONDS)
    if found is None:
        said = console.run("systemctl --no-pager status attestd-agent telemetry 2>&1 | tail -60")
        raise Disappointed(f"no SVID came: {said.text}")
    return found[1], found[2]


def _token(console: Console) -> str:
    said = console.run(f"attestd agent token --agent console --audience {AUDIENCE}")
    if (found := re.search(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", said.text)) is None:
        raise Disappointed(f"no token came: {said.text}")
    return found[0]


def _telemetry(console: Console) -> str:
    return console.run("systemctl is-active telemetry.service").text


def _names_line(why: str) -> bool:
    """The event of register 11 by its number, the accepted line, and what was started by its digest."""
    found = hashlib.sha256(ANOTHER_LINE.encode()).hexdigest()
    event = re.search(rf"pcr11 .*event \d+ .*expects {re.escape(COMMAND_LINE)}; found sha256:{found}", why)
    return event is not None


def _check_refused(world: World, console: Console, register: str, code: str) -> None:
    """The agent says so on the console by itself, and `agent status` says it to whoever asks."""
    found = console.said(rf"attestd\[\d+\]: ({code} {register}, event \d+.*)", within=_IDENTITY_SECONDS)
    world.report.say(found[1] if found else "the console named no event")
    world.report.check("refused, and the console names register, event and artefact", found is not None)
    status = console.run("attestd agent status --json").text
    world.report.check(f"`attestd agent status` says {code}", code in status, status)


def _check_volume(world: World, console: Console, *, opened: bool) -> None:
    mounted, said = is_mounted(console)
    if opened:
        world.report.check("the boot opened and mounted the volume", mounted, said)
        return
    unsealed, answer = opens(console)
    closed = not mounted and not unsealed and "policy_failed" in answer
    world.report.check("the volume stayed closed: the TPM does not open its key", closed, f"{said}\n{answer}")


def _check_order(world: World, console: Console) -> None:
    """By the journal: the volume was open before root was mounted."""
    said = console.run(f"journalctl -b -o short-monotonic --no-pager | grep -E '{_OPENED}|{_ROOT}'").text
    opened, root = said.find(_OPENED), said.find(_ROOT)
    world.report.check("that was in the initrd, before root was mounted", 0 <= opened < root, said)
