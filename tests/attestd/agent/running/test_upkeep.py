"""What an unattended machine does by itself, in each trouble and out of it again."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attestd.agent.errors import Refusal, Unreachable
from attestd.agent.holdings import Holdings
from attestd.agent.logs import LogFiles
from attestd.agent.machine import opened
from attestd.agent.running.posture import Watch
from attestd.agent.running.upkeep import Upkeep
from attestd.agent.trouble import Regime, sentence
from tests.attestd.agent.running.simulated import HOUR, MINUTE, SECOND, World, workload, world
from tests.deployment import SERVER
from tests.serving import FRESH
from tests.tpm.device.leftovers import leftovers
from tpm.swtpm import SoftwareTpm

ATTEST, ENROLL = "/v1/attestations", "/v1/enrollments"
BUILDER = workload("builder", "x509-svid", "wit-svid")
OTHER = FRESH.replace(f'0 = ["sha256:{"00" * 32}"]', f'0 = ["sha256:{"11" * 32}"]')
"""A policy that this machine does not fulfil."""
SHA256 = {"sha256": b"\7" * 32}


@pytest.fixture
def here(software_tpm: SoftwareTpm, tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, software_tpm, BUILDER) as made:
        yield made
        assert len(set(made.device_ids)) <= 1
        assert leftovers(software_tpm) == {}


@pytest.fixture
def running(here: World) -> Upkeep:
    """The agent with its identity."""
    upkeep = here.boot()
    upkeep.work()
    assert identity(here, upkeep) is not None
    return upkeep


def identity(here: World, upkeep: Upkeep, agent: str = "builder") -> str | None:
    """The SPIFFE ID that it may show now."""
    held = upkeep.holdings.current(agent, now=here.clock.now)
    return None if held is None or held.x509 is None else held.x509.spiffe_id


def told(here: World) -> dict[str, Any]:
    standing = here.state.standing()
    assert standing is not None
    return dict(standing)


# --- getting it, keeping it -----------------------------------------------------------------------


def test_a_machine_that_never_enrolled_enrols_and_has_its_identity_at_the_first_try(here: World) -> None:
    upkeep = here.boot()
    assert upkeep.holdings == Holdings({}, {"builder": "the first attestation has not ended yet"}, None)
    upkeep.work()
    assert identity(here, upkeep) == f"spiffe://example.org/agent/builder/{here.device_ids[0]}"
    assert told(here)["identity"] is True
    assert told(here)["posture"]["policy"]["name"] == "fresh"


def test_without_a_service_to_enrol_at_it_waits_for_join_and_then_goes_on(here: World) -> None:
    named = here.settings
    here.settings = type(named)(state=named.state, tpm=named.tpm, workloads=named.workloads)
    upkeep = here.boot()
    here.after(upkeep, 2 * HOUR)
    assert told(here)["posture"]["verdict"] == "not enrolled"
    assert (here.weather.requests, len(here.said)) == ([], 1)
    here.settings = named
    here.boot().work()
    here.after(upkeep, 11 * SECOND)
    assert identity(here, upkeep) is not None


def test_it_renews_in_the_second_half_and_the_old_one_lives_on_meanwhile(
    here: World, running: Upkeep
) -> None:
    first = running.holdings.held["builder"]
    assert first.x509 is not None
    life = first.x509.expires_at - here.clock.now
    here.until(running, here.clock.now + int(life * 0.48))
    assert running.holdings.held["builder"] is first
    here.until(running, here.clock.now + int(life * 0.14))
    second = running.holdings.held["builder"]
    assert second.x509 is not None
    assert first.x509.expires_at > here.clock.now
    assert (second.x509.key, second.x509.spiffe_id) != (first.x509.key, "")
    assert second.x509.expires_at > first.x509.expires_at


def test_a_machine_without_workloads_keeps_its_standing(here: World) -> None:
    here.settings = replace(here.settings, workloads=())
    upkeep = here.boot()
    upkeep.work()
    assert (told(here)["identity"], told(here)["credentials"]) == (True, [])
    here.after(upkeep, HOUR)
    assert 8 <= here.weather.count(ATTEST) <= 13
    here.deployment.apply(OTHER, "policy-0.toml")
    here.after(upkeep, 10 * MINUTE)
    assert told(here)["identity"] is False


def test_a_service_that_the_settings_do_not_name_is_not_used(here: World, running: Upkeep) -> None:
    here.settings = type(here.settings)(
        server="https://elsewhere.example.org", state=here.settings.state, workloads=(BUILDER,)
    )
    elsewhere = here.boot()
    elsewhere.work()
    assert (identity(here, elsewhere), told(here)["posture"]["code"]) == (None, "misconfigured")
    assert SERVER in told(here)["posture"]["detail"]


# --- outages --------------------------------------------------------------------------------------


def test_an_outage_costs_nothing_as_long_as_the_old_credentials_last_and_it_says_so(
    here: World, running: Upkeep
) -> None:
    here.weather.away()
    here.after(running, 4 * MINUTE)
    assert identity(here, running) is not None
    assert (told(here)["old_credentials"], told(here)["posture"]["verdict"]) == (True, "unreachable")
    assert any("the old credentials are used until" in line for line in here.said)
    here.weather.fair()
    here.after(running, 5 * MINUTE)
    assert (told(here)["old_credentials"], told(here)["posture"]["verdict"]) == (False, "accepted")


def test_what_has_expired_is_held_no_more_and_everybody_sees_it(here: World, running: Upkeep) -> None:
    here.weather.away()
    seen = running.holdings
    here.after(running, 6 * MINUTE)
    assert running.holdings is not seen
    assert not running.holdings.held
    assert set(running.holdings.withheld) == {"builder"}
    assert (told(here)["identity"], told(here)["credentials"]) == (False, [])
    here.weather.fair()
    here.after(running, 6 * MINUTE)
    assert identity(here, running) is not None


def test_ag_6_a_service_that_fails_for_hours_is_asked_less_than_sixty_times_an_hour(
    here: World, running: Upkeep
) -> None:
    here.weather.fault = Unreachable("cannot serve now: 500")
    start = here.clock.now + 10 * MINUTE
    here.after(running, 5 * HOUR)
    times = [time for time, _ in here.weather.requests if time >= start]
    assert 60 < len(times) < 60 * 5
    assert not any(later - first < HOUR for first, later in zip(times, times[61:], strict=False))


def test_ag_6_a_service_that_says_slow_down_is_not_asked_before_it_said(here: World) -> None:
    here.weather.slow_down(120)
    upkeep = here.boot()
    here.after(upkeep, 119 * SECOND)
    assert len(here.weather.requests) == 1
    here.weather.fair()
    here.after(upkeep, 4 * SECOND)
    assert identity(here, upkeep) is not None


def test_a_tpm_that_somebody_else_uses_is_this_machines_trouble_and_passes(
    here: World, running: Upkeep
) -> None:
    class Gone(type(here.tpm)):  # type: ignore[misc]
        tcti = "swtpm:path=/nowhere"

    there = here.tpm
    here.tpm = Gone()
    other = here.boot()
    other.work()
    assert told(here)["posture"]["verdict"] == str(Regime.FAULT)
    here.tpm = there
    again = here.boot()
    again.work()
    assert identity(here, again) is not None


# --- denials --------------------------------------------------------------------------------------


def test_a_denial_is_slow_and_ends_within_its_pause_when_the_policy_is_mended(
    here: World, running: Upkeep
) -> None:
    here.deployment.apply(OTHER, "policy-0.toml")
    here.after(running, HOUR)
    refused = here.weather.refused.count("posture_rejected")
    assert 10 <= refused <= 15
    posture = told(here)["posture"]
    assert (posture["verdict"], posture["code"]) == ("denied", "posture_rejected")
    assert posture["findings"][0]["subject"] == "pcr0"
    here.deployment.apply(FRESH, "policy-0.toml")
    here.after(running, 6 * MINUTE)
    assert identity(here, running) is not None


def test_the_journal_names_each_objection_once_and_not_at_every_try(here: World, running: Upkeep) -> None:
    here.deployment.apply(OTHER, "policy-0.toml")
    here.after(running, HOUR)
    assert here.weather.refused.count("posture_rejected") > 1
    lines = [line for line in here.said if line.startswith("pcr_unexpected pcr0, expected")]
    assert len(lines) == 1
    assert lines[0].endswith(f"found {'00' * 32}")


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        ({"code": "secure_boot_off", "subject": "pcr7"}, "secure_boot_off pcr7"),
        (
            {"code": "c", "subject": "pcr4", "event": 33, "artefact": "started it", "expected": ["a", "b"]},
            "c pcr4, event 33 (started it), expected a or b",
        ),
        ({"code": "c", "event": "\x1b[2J\n", "found": {"a": 1}}, "c, event ?[2J?, found {'a': 1}"),
        ({}, "None"),
    ],
)
def test_a_finding_is_one_line_whatever_the_service_wrote(finding: dict[str, Any], said: str) -> None:
    assert sentence(finding) == said


def test_a_denied_machine_tries_at_once_when_a_register_changed(here: World) -> None:
    here.tpm.extend(7, SHA256)
    upkeep = here.boot()
    here.after(upkeep, SECOND)
    assert here.weather.refused == ["posture_rejected"]
    here.tpm.reset()
    here.after(upkeep, 31 * SECOND)
    assert identity(here, upkeep) is not None


def test_a_denied_machine_whose_registers_are_the_same_does_not_try_sooner(here: World) -> None:
    here.tpm.extend(7, SHA256)
    upkeep = here.boot()
    here.after(upkeep, 4 * MINUTE)
    here.tpm.extend(10, SHA256)
    here.after(upkeep, 29 * SECOND)
    assert here.weather.refused == ["posture_rejected"]


def test_a_denied_machine_keeps_what_it_has_until_that_ends(here: World, running: Upkeep) -> None:
    here.deployment.apply(OTHER, "policy-0.toml")
    here.after(running, 4 * MINUTE)
    assert here.weather.refused
    assert identity(here, running) is not None
    assert told(here)["old_credentials"] is True


def test_who_lost_everything_by_a_denial_is_refused_also_while_the_service_is_away(
    here: World, running: Upkeep
) -> None:
    here.deployment.apply(OTHER, "policy-0.toml")
    here.after(running, 4 * MINUTE)
    assert running.holdings.refused == frozenset()  # It still has something.
    here.after(running, 20 * MINUTE)
    assert running.holdings.refused == {"builder"}
    here.weather.away()
    here.after(running, 20 * MINUTE)
    assert running.holdings.refused == {"builder"}
    here.weather.fair()
    here.deployment.apply(FRESH, "policy-0.toml")
    here.after(running, 20 * MINUTE)
    assert (running.holdings.refused, running.holdings.withheld) == (frozenset(), {})


def test_who_lost_everything_by_an_outage_is_not_refused(here: World, running: Upkeep) -> None:
    here.weather.away()
    here.after(running, 20 * MINUTE)
    assert (set(running.holdings.withheld), running.holdings.refused) == ({"builder"}, frozenset())


def test_a_banned_machine_has_nothing_any_more_until_it_is_unbanned(here: World, running: Upkeep) -> None:
    had = running.holdings.held["builder"].x509
    here.deployment.operate("device", "ban", here.device_ids[0])
    here.after(running, 200 * SECOND)
    assert had is not None
    assert had.expires_at > here.clock.now
    assert not running.holdings.held
    assert told(here)["posture"]["code"] == "device_banned"
    here.deployment.operate("device", "unban", here.device_ids[0])
    here.after(running, 6 * MINUTE)
    assert identity(here, running) is not None


def test_who_waits_for_an_operator_has_its_identity_soon_after_the_approval(
    software_tpm: SoftwareTpm, tmp_path: Path
) -> None:
    with world(tmp_path, software_tpm, BUILDER, settings={"auto_admit": "false", "tofu": "true"}) as here:
        upkeep = here.boot()
        here.after(upkeep, 20 * MINUTE)
        assert (told(here)["posture"]["verdict"], told(here)["posture"]["code"]) == (
            "pending",
            "device_pending",
        )
        assert 5 <= len(here.weather.refused) <= 9
        assert upkeep.holdings.refused == frozenset()
        here.deployment.operate("device", "approve", here.device_ids[0])
        here.after(upkeep, 6 * MINUTE)
        assert identity(here, upkeep) is not None
        membership = here.state.membership()
        assert membership is not None
        assert membership.state == "active"


def test_what_a_refusal_says_is_bounded_before_it_is_kept(here: World, running: Upkeep) -> None:
    finding = {"code": "pcr_unexpected", "subject": "pcr0", "expected": ["aa"], "found": "bb"}
    long = {"code": "x" * 5000}
    members = {
        "code": "posture_rejected",
        "detail": "No." * 1000,
        "findings": [long, "text", *[finding] * 60],
    }
    here.weather.only, here.weather.fault = ATTEST, Refusal(403, members)
    here.after(running, 4 * MINUTE)
    posture = told(here)["posture"]
    assert (len(posture["findings"]), len(posture["detail"])) == (48, 200)


@pytest.mark.parametrize("which", ["event_log", "userspace"])
def test_a_log_that_grew_makes_another_machine_of_it_and_imas_list_does_not(
    software_tpm: SoftwareTpm, tmp_path: Path, which: str
) -> None:
    log, ima = tmp_path / "log", tmp_path / "ima"
    log.write_bytes(b"one")
    watch = Watch(software_tpm.tcti, tmp_path, replace(LogFiles(ima=ima), **{which: log}))
    watch.begin(0)
    ima.write_bytes(b"a program ran")
    assert not watch.changed(1)
    log.write_bytes(b"one, two")
    assert watch.changed(2)
    assert not watch.changed(3)
    log.unlink()
    assert watch.changed(4)


def test_a_tpm_that_cannot_be_looked_at_has_not_changed(software_tpm: SoftwareTpm, tmp_path: Path) -> None:
    watch = Watch("swtpm:path=/nowhere", tmp_path, LogFiles())
    watch.begin(0)
    assert not watch.changed(1)


# --- several agents -------------------------------------------------------------------------------


def test_an_agent_that_gets_nothing_takes_nothing_from_the_others_and_is_asked_for_again(
    here: World,
) -> None:
    here.settings = type(here.settings)(
        server=SERVER,
        state=here.settings.state,
        workloads=(workload("stranger"), BUILDER, workload("alien", "wit-svid")),
    )
    upkeep = here.boot()
    upkeep.work()
    assert upkeep.holdings.held.keys() == {"builder"}
    assert upkeep.holdings.withheld["stranger"] == "fresh grants this agent no x509-svid."
    assert upkeep.holdings.withheld.keys() == upkeep.holdings.refused == {"stranger", "alien"}
    here.after(upkeep, 55 * MINUTE)
    assert here.weather.refused.count("not_entitled") == 2
    here.after(upkeep, 10 * MINUTE)
    assert here.weather.refused.count("not_entitled") == 4
    assert identity(here, upkeep) is not None


def test_a_policy_that_names_the_agent_is_followed_at_the_next_round(here: World) -> None:
    here.settings = type(here.settings)(
        server=SERVER, state=here.settings.state, workloads=(workload("stranger"), BUILDER)
    )
    upkeep = here.boot()
    upkeep.work()
    grant = '[[grant]]\nagent = "stranger"\nformats = ["x509-svid"]\nttl = "5m"\nkey = "any"\n'
    here.deployment.apply(FRESH + grant, "policy-0.toml")
    here.after(upkeep, 4 * MINUTE)
    assert identity(here, upkeep, "stranger") is not None
    assert upkeep.holdings.withheld == {}


def test_a_sealed_key_that_the_policy_does_not_give_leaves_the_credentials(
    here: World, tmp_path: Path
) -> None:
    sealing = workload("builder", files=tmp_path / "files", seals=("disk", "unheard-of"))
    here.settings = type(here.settings)(server=SERVER, state=here.settings.state, workloads=(sealing,))
    upkeep = here.boot()
    upkeep.work()
    assert identity(here, upkeep) is not None
    assert "builder" in told(here)["notes"]


def test_sealed_keys_are_asked_for_only_while_they_are_not_there(here: World, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    sealing = workload("builder", files=folder, seals=("disk",))
    here.settings = type(here.settings)(server=SERVER, state=here.settings.state, workloads=(sealing,))
    upkeep = here.boot()
    upkeep.work()
    sealed = upkeep.holdings.held["builder"].files["disk.seal.json"]
    assert json.loads(sealed)["name"] == "disk"
    here.after(upkeep, 4 * MINUTE)
    assert here.deployment.count("sealed_keys") == 2
    folder.mkdir()
    (folder / "disk.seal.json").write_bytes(sealed)
    here.after(upkeep, 12 * MINUTE)
    assert here.deployment.count("sealed_keys") == 2
    assert "disk.seal.json" not in upkeep.holdings.held["builder"].files


def test_bearer_tokens_are_asked_for_in_advance_only_where_files_are_written(
    here: World, tmp_path: Path
) -> None:
    audiences = ("https://a.example.org",)
    formats = ("x509-svid", "jwt-svid")
    for folder in (None, tmp_path / "files"):
        wanted = workload("builder", *formats, audiences=audiences, files=folder)
        here.settings = type(here.settings)(server=SERVER, state=here.settings.state, workloads=(wanted,))
        upkeep = here.boot()
        upkeep.work()
        held = upkeep.holdings.held["builder"]
        assert (held.jwt is not None, "builder.jwt" in held.files) == (folder is not None,) * 2


def test_what_is_only_delivered_is_renewed_before_it_ends(software_tpm: SoftwareTpm, tmp_path: Path) -> None:
    short = 'formats = ["x509-svid", "wit-svid"]\nttl = "10m"'
    policy = FRESH.replace(short, short.replace('"x509-svid", "wit-svid"', '"client-attestation"'))
    policy = policy.replace('ttl = "5m"', 'ttl = "6h"')
    client = workload("telemetry", "client-attestation", files=tmp_path / "files", key="tpm")
    with world(tmp_path, software_tpm, BUILDER, client, policies=(policy,)) as here:
        upkeep = here.boot()
        upkeep.work()
        first = upkeep.holdings.held["telemetry"].files
        assert upkeep.standing().next_at <= here.clock.now + 6 * MINUTE
        here.after(upkeep, 9 * MINUTE)
        assert upkeep.holdings.held["telemetry"].files != first


@pytest.mark.parametrize("end", ["", None, 7, "soon"])
def test_an_answer_that_does_not_say_when_it_ends_is_not_held(here: World, end: object) -> None:
    post = here.weather.post

    def without(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = post(path, body)
        for each in answer.get("credentials", ()):
            each["expires_at"] = end
        return answer

    here.weather.post = without  # type: ignore[method-assign,assignment]
    upkeep = here.boot()
    upkeep.work()
    assert not upkeep.holdings.held
    assert "does not say when to renew" in told(here)["posture"]["detail"]


def test_other_settings_are_taken_up_at_once_and_who_is_not_named_has_nothing(
    here: World, running: Upkeep
) -> None:
    other = workload("telemetry", "x509-svid", key="tpm")
    running.reconfigure(type(here.settings)(server=SERVER, state=here.settings.state, workloads=(other,)))
    here.weather.away()
    assert running.due() <= here.clock.now
    running.work()
    assert running.holdings.held == {}
    here.weather.fair()
    here.after(running, MINUTE)
    assert running.holdings.held.keys() == {"telemetry"}


# --- rotations ------------------------------------------------------------------------------------


def test_another_bundle_is_seen_within_its_refresh_hint_without_a_round(here: World, running: Upkeep) -> None:
    before, rounds = running.holdings, here.weather.count(ATTEST)
    here.rotate("x509")
    here.after(running, 61 * SECOND)
    bundle = running.holdings.bundle
    assert bundle is not None
    assert before.bundle is not None
    assert (len(bundle.authorities), len(before.bundle.authorities)) == (2, 1)
    assert running.holdings.held["builder"].files["bundle.pem"].count(b"BEGIN") == 2
    assert here.weather.count(ATTEST) == rounds


@pytest.mark.parametrize("use", ["x509", "wit"])
def test_a_retired_key_ends_what_it_signed_and_a_round_follows_at_once(
    here: World, running: Upkeep, use: str
) -> None:
    old, rounds = here.rotate(use), here.weather.count(ATTEST)
    here.withdraw(old)
    here.after(running, 62 * SECOND)
    assert here.weather.count(ATTEST) == rounds + 1
    assert any("retired" in line for line in here.said)
    here.after(running, MINUTE)
    assert here.weather.count(ATTEST) == rounds + 1


# --- the same device, or none ---------------------------------------------------------------------


def lost_key(here: World) -> None:
    """The machine as after its TPM was cleared: the attestation key's recipe makes nothing any more."""
    recipe = here.state.recipe()
    assert recipe is not None
    with SoftwareTpm() as other, opened(other.tcti) as device:
        here.state.keep_recipe(device.create_ak())


def test_a_machine_whose_attestation_key_is_gone_enrols_anew_as_the_same_device(
    here: World, running: Upkeep
) -> None:
    before = here.device_ids
    lost_key(here)
    here.after(running, 4 * MINUTE)
    assert identity(here, running) is not None
    assert here.device_ids == before
    assert any("enrolling anew as the same device (ak_changed)" in line for line in here.said)


def test_where_the_operator_does_not_allow_it_a_lost_key_stays_lost(here: World, running: Upkeep) -> None:
    here.settings = type(here.settings)(
        server=SERVER, state=here.settings.state, reactivate=False, workloads=(BUILDER,)
    )
    lost_key(here)
    enrolments = here.weather.count(ENROLL)
    upkeep = here.boot()
    here.after(upkeep, 10 * MINUTE)
    assert (identity(here, upkeep), told(here)["posture"]["code"]) == (None, "ak_changed")
    assert here.weather.count(ENROLL) == enrolments


def test_a_service_that_forgot_the_key_is_told_it_again_at_most_once_in_a_pause(
    here: World, running: Upkeep
) -> None:
    before = here.device_ids
    here.forget()
    here.after(running, 4 * MINUTE)
    assert (identity(here, running) is not None, here.device_ids) == (True, before)
    here.weather.only = ATTEST
    here.weather.fault = Refusal(403, {"code": "attestation_failed", "detail": "No."})
    enrolments = here.weather.count(ENROLL)
    here.after(running, HOUR)
    assert 9 <= here.weather.count(ENROLL) - enrolments <= 14


def test_registers_that_move_do_not_make_a_forgotten_key_enrol_at_each(here: World, running: Upkeep) -> None:
    here.weather.only = ATTEST
    here.weather.fault = Refusal(403, {"code": "attestation_failed", "detail": "No."})
    here.after(running, 200 * SECOND)
    attested, enrolled = here.weather.count(ATTEST), here.weather.count(ENROLL)
    for _ in range(10):
        here.tpm.extend(0, SHA256)
        here.after(running, 31 * SECOND)
    assert here.weather.count(ATTEST) - attested > 8
    assert here.weather.count(ENROLL) - enrolled <= 3


def test_another_tpm_is_another_device_and_is_not_enrolled_by_itself(here: World, running: Upkeep) -> None:
    mine, enrolments = here.tpm, here.weather.count(ENROLL)
    with SoftwareTpm() as other:
        here.tpm = other
        upkeep = here.boot()
        here.after(upkeep, 20 * MINUTE)
        assert (identity(here, upkeep), told(here)["posture"]["code"]) == (None, "another_tpm")
        assert "attestd agent join" in told(here)["posture"]["detail"]
        assert here.weather.count(ENROLL) == enrolments
        assert leftovers(other) == {}
    here.tpm = mine
    back = here.boot()
    back.work()
    assert identity(here, back) is not None


# --- clocks ---------------------------------------------------------------------------------------


def test_a_machine_that_slept_through_its_renewal_renews_when_it_wakes(here: World, running: Upkeep) -> None:
    here.clock.now += 8 * HOUR
    running.work()
    assert identity(here, running) is not None


def test_a_clock_that_was_set_back_does_not_stop_the_renewals(here: World, running: Upkeep) -> None:
    rounds = here.weather.count(ATTEST)
    here.clock.now -= 4 * SECOND
    running.work()
    assert here.weather.count(ATTEST) == rounds + 1
    here.after(running, 4 * MINUTE)
    assert here.weather.count(ATTEST) == rounds + 2


def test_a_clock_that_was_ahead_withholds_nothing_for_longer(here: World) -> None:
    here.settings = replace(here.settings, workloads=(workload("stranger"), BUILDER))
    here.weather.clock = type(here.clock)(here.clock.now)
    here.clock.now += 4 * MINUTE
    upkeep = here.boot()
    upkeep.work()
    assert here.weather.refused == ["not_entitled"]
    here.clock.now -= 4 * MINUTE
    upkeep.work()
    assert here.weather.refused == ["not_entitled"] * 2


def test_a_clock_that_is_off_is_said_and_nothing_that_is_not_valid_is_held(here: World) -> None:
    upkeep = here.boot()
    service = here.clock.now
    here.weather.clock = type(here.clock)(service)
    here.clock.now += 2 * HOUR
    upkeep.work()
    assert identity(here, upkeep) is None
    assert "clock is 7230 seconds ahead of" in told(here)["posture"]["detail"]
    here.clock.now = service - HOUR
    upkeep.work()
    assert "seconds behind the service's" in told(here)["posture"]["detail"]
    here.clock.now = service
    here.after(upkeep, 10 * SECOND)
    assert identity(here, upkeep) is not None
