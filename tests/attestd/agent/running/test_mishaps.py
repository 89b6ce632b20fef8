"""What must not happen and does ends nothing that is held, and takes neither the processor nor hours."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from attestd.agent.delivery.files import Delivery
from attestd.agent.holdings import Holdings
from attestd.agent.logs import LogFiles
from attestd.agent.machine import opened
from attestd.agent.running.demand import Demands
from attestd.agent.running.keeper import LEAST_SECONDS, Keeper
from attestd.agent.running.outlet import Nowhere
from attestd.agent.running.posture import fingerprint
from attestd.agent.running.upkeep import Upkeep
from tests.attestd.agent.running.simulated import HOUR, MINUTE, SECOND, Clock, World, workload, world
from tests.serving import FRESH
from tpm.swtpm import SoftwareTpm

ATTEST = "/v1/attestations"
BUILDER = workload("builder", "x509-svid", "wit-svid")
OTHER = FRESH.replace(f'0 = ["sha256:{"00" * 32}"]', f'0 = ["sha256:{"11" * 32}"]')
"""A policy that this machine does not fulfil."""


@pytest.fixture
def here(software_tpm: SoftwareTpm, tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, software_tpm, BUILDER) as made:
        yield made


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where credentials are delivered, in memory."""
    made = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="attestd-test."))
    yield made / "builder"
    shutil.rmtree(made)


def delivering(here: World, folder: Path) -> Upkeep:
    """The agent, started anew, writing files."""
    here.settings = replace(here.settings, workloads=(workload("builder", "x509-svid", files=folder),))
    here.outlet = Delivery(here.settings.workloads, tell=here.said.append)
    return here.boot()


class Broken(Nowhere):
    """Raises what nobody foresaw, as long as it is broken."""

    broken = True

    def show(self, holdings: Holdings, *, now: int) -> None:
        if self.broken:
            raise RuntimeError("nobody foresaw this")

    def due(self) -> int | None:
        return 0 if self.broken else None


# --- deliveries -----------------------------------------------------------------------------------


def test_a_delivery_that_fails_is_tried_again_every_half_minute_and_rests_between(
    here: World, folder: Path
) -> None:
    upkeep = delivering(here, folder)
    upkeep.work()
    folder.chmod(0o777)
    here.until(upkeep, here.clock.now + HOUR, most=200)
    assert upkeep.due() > here.clock.now
    assert upkeep.holdings.held
    assert "builder" in upkeep.standing().notes
    folder.chmod(0o700)
    here.after(upkeep, MINUTE)
    assert upkeep.standing().notes == {}
    assert (folder / "builder.svid.pem").exists()


def test_ag_3_a_banned_machine_that_starts_anew_removes_what_was_delivered_before(
    here: World, folder: Path
) -> None:
    here.deployment.apply(FRESH.replace('ttl = "5m"', 'ttl = "24h"'), "policy-0.toml")
    delivering(here, folder).work()
    here.deployment.operate("device", "ban", here.device_ids[0])
    delivering(here, folder).work()
    assert list(folder.iterdir()) == []


def test_a_denied_machine_that_starts_anew_keeps_what_was_delivered_before(here: World, folder: Path) -> None:
    upkeep = delivering(here, folder)
    upkeep.work()
    here.deployment.apply(OTHER, "policy-0.toml")
    denied = delivering(here, folder)
    denied.work()
    assert denied.standing().told()["posture"]["verdict"] == "denied"
    assert (folder / "builder.svid.pem").exists()


def test_ag_3_an_agent_that_is_not_entitled_any_more_loses_its_files_at_the_next_start(
    here: World, folder: Path
) -> None:
    delivering(here, folder).work()
    here.deployment.apply(FRESH.replace('agent = "builder"', 'agent = "else"'), "policy-0.toml")
    after = delivering(here, folder)
    after.work()
    assert here.weather.refused == ["not_entitled"]
    assert list(folder.iterdir()) == []


# --- what nobody foresaw --------------------------------------------------------------------------


def test_what_nobody_foresaw_ends_nothing_that_is_held_and_is_tried_again_ever_more_slowly(
    here: World,
) -> None:
    here.outlet = broken = Broken()
    upkeep = here.boot()
    upkeep.work()
    assert upkeep.holdings.held.keys() == {"builder"}
    assert any("RuntimeError: nobody foresaw this" in line for line in here.said)
    here.until(upkeep, here.clock.now + HOUR, most=200)
    assert upkeep.holdings.held.keys() == {"builder"}
    broken.broken = False
    here.after(upkeep, 10 * MINUTE)
    assert here.state.standing() is not None


@pytest.mark.parametrize("what", ["before the first round", "between two"])
def test_a_membership_that_cannot_be_read_ends_nothing(here: World, what: str) -> None:
    upkeep = here.boot()
    if what == "between two":
        upkeep.work()
    (here.state.directory / "enrollment.json").unlink(missing_ok=True)
    (here.state.directory / "enrollment.json").mkdir(parents=True)
    here.after(upkeep, 4 * MINUTE)
    assert upkeep.standing().device_id is None
    (here.state.directory / "enrollment.json").rmdir()
    here.after(upkeep, 10 * MINUTE)
    assert (upkeep.standing().trouble, upkeep.standing().device_id) == (None, here.device_ids[0])
    assert not any("should not happen" in line for line in here.said)


def test_a_tpm_without_banks_has_a_fingerprint_by_its_logs(software_tpm: SoftwareTpm, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one")
    with opened(software_tpm.tcti) as device:
        files, banks = LogFiles(event_log=log), device.banks

        class Bare:
            """The same TPM with all its banks switched off."""

            def banks(self) -> tuple[str, ...]:
                return ()

        before = fingerprint(Bare(), files)  # type: ignore[arg-type]
        assert before == fingerprint(Bare(), files)  # type: ignore[arg-type]
        assert banks()
        assert before != fingerprint(device, files)
        log.write_bytes(b"two")
        assert before != fingerprint(Bare(), files)  # type: ignore[arg-type]


def test_what_is_always_due_does_not_take_the_processor(here: World) -> None:
    class Hurried(Upkeep):
        worked = 0

        def due(self) -> int:
            return 0

        def work(self) -> None:
            self.worked += 1

    upkeep = here.boot()
    hurried = Hurried(here.home, here.settings)
    demands = Demands(here.home, here.settings, lambda: upkeep.holdings)

    async def run(seconds: float) -> None:
        stop = asyncio.Event()
        kept = asyncio.create_task(Keeper(hurried, demands).run(stop))
        await asyncio.sleep(seconds)
        stop.set()
        await kept

    asyncio.run(run(10 * LEAST_SECONDS))
    assert 2 <= hurried.worked <= 13


# --- reloads --------------------------------------------------------------------------------------


def test_reloads_in_an_outage_cost_none_of_the_tries_that_an_hour_has(here: World) -> None:
    upkeep = here.boot()
    here.weather.away()
    upkeep.work()
    for _ in range(70):
        here.after(upkeep, 12 * SECOND)
        upkeep.reconfigure(replace(here.settings))
        upkeep.work()
    here.weather.fair()
    here.after(upkeep, 6 * MINUTE)
    assert upkeep.holdings.held


def test_a_reload_is_tried_at_once_and_a_storm_of_them_every_ten_seconds(here: World) -> None:
    upkeep = here.boot()
    here.weather.slow_down(600)
    upkeep.work()
    here.weather.requests.clear()
    for _ in range(60):
        here.clock.now += SECOND
        upkeep.reconfigure(replace(here.settings))
        upkeep.work()
    assert 5 <= len(here.weather.requests) <= 7
    assert here.weather.requests[0][0] == here.clock.now - 59 * SECOND


def test_a_banned_machines_callers_are_refused_also_after_a_reload(here: World) -> None:
    upkeep = here.boot()
    upkeep.work()
    here.deployment.operate("device", "ban", here.device_ids[0])
    here.after(upkeep, 4 * MINUTE)
    assert upkeep.holdings.refused == {"builder"}
    here.weather.away()
    other = workload("telemetry")
    upkeep.reconfigure(replace(here.settings, workloads=(BUILDER, other)))
    upkeep.work()
    assert upkeep.holdings.refused >= {"builder"}
    assert upkeep.holdings.held == {}


def test_a_reload_refuses_nobody_whom_the_service_did_not(here: World) -> None:
    upkeep = here.boot()
    upkeep.work()
    here.weather.away()
    upkeep.reconfigure(replace(here.settings, workloads=(BUILDER, workload("telemetry"))))
    upkeep.work()
    assert upkeep.holdings.refused == frozenset()
    assert upkeep.holdings.held.keys() == {"builder"}


# --- bundles and clocks ---------------------------------------------------------------------------


def test_a_machine_that_is_denied_from_its_start_holds_the_bundle_and_sees_the_next_one(
    here: World,
) -> None:
    here.deployment.apply(OTHER, "policy-0.toml")
    upkeep = here.boot()
    upkeep.work()
    bundle = upkeep.holdings.bundle
    assert (bundle is None, upkeep.holdings.held) == (False, {})
    here.rotate("x509")
    here.after(upkeep, 61 * SECOND)
    after = upkeep.holdings.bundle
    assert bundle is not None
    assert after is not None
    assert (len(bundle.authorities), len(after.authorities)) == (1, 2)


@pytest.mark.parametrize(("ahead", "told"), [(295, True), (200, True), (0, False), (20, False)])
def test_a_clock_that_is_ahead_by_much_of_a_life_is_said(here: World, ahead: int, told: bool) -> None:
    here.weather.clock = Clock(here.clock.now)
    here.clock.now += ahead * SECOND
    upkeep = here.boot()
    upkeep.work()
    assert upkeep.holdings.held
    assert ("clock" in upkeep.standing().notes) is told
    assert any("seconds ahead of the service's; set it" in line for line in here.said) is told
