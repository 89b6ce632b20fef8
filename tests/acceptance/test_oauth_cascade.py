"""OA-9: within a second after a machine is lost, every token that rests on it is dead on the running
service."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.serving import Serving
from tests.attestd.oauth.agents import ASSERTION
from tests.attestd.oauth.world import ACCESS_TOKEN, EXCHANGE, TOOLS, World

SECONDS = 1.0


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    world = World.create(tmp_path / "service")
    with Serving.create(world) as made:
        yield made
    world.deployment.close()


def is_active(serving: Serving, token: str) -> bool:
    form = {"token": token, "client_assertion_type": ASSERTION}
    reply = serving.post("/oauth/introspect", form | {"client_assertion": serving.world.tools.assertion()})
    assert reply.status == 200, reply
    return bool(reply.members["active"])


def ban(world: World) -> None:
    world.deployment.operate("device", "ban", world.machine.device_id)


def lose_posture(world: World) -> None:
    changed = world.machine.later().extended(7, b"\x01" * 32)
    ends = world.deployment.live(world.machine)
    world.deployment.problem(world.deployment.round(changed).body(), 403, "posture_rejected", ends=ends)


def reboot(world: World) -> None:
    world.deployment.attest(world.machine.rebooted())


def withdraw_root(world: World) -> None:
    (world.deployment.directory / "ek-roots" / "maker.pem").unlink()


@pytest.mark.parametrize("end", [ban, lose_posture, reboot, withdraw_root], ids=lambda end: end.__name__)
def test_oa_9_the_parents_end_is_the_end_of_all_that_descends(
    serving: Serving, end: Callable[[World], None]
) -> None:
    world = serving.world
    second = world.deployment.machine()
    first = world.delegated(world.agent(), world.login.token())
    passed = world.delegated(world.agent("helper", machine=second), first, ACCESS_TOKEN)
    assert is_active(serving, first)
    assert is_active(serving, passed)
    end(world)
    time.sleep(SECONDS)
    assert not is_active(serving, first)
    assert not is_active(serving, passed)
    helper = world.agent("helper", machine=second)
    form = {
        "grant_type": EXCHANGE,
        "subject_token": first,
        "subject_token_type": ACCESS_TOKEN,
        "resource": TOOLS,
        "client_assertion_type": ASSERTION,
        "client_assertion": helper.assertion(),
    }
    reply = serving.post("/oauth/token", form, {"DPoP": helper.dpop()})
    assert reply.status in (400, 401)
    assert "access_token" not in reply.members
