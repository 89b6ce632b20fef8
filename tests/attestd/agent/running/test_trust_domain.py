"""A machine is of one trust domain from its first accepted attestation on, whatever its service becomes."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from attestd.agent.attest import ROUND_SECONDS
from attestd.agent.errors import Unreachable
from attestd.agent.holdings import NOTHING
from attestd.agent.logs import LogFiles
from attestd.agent.machine import opened
from attestd.agent.running.demand import Demands
from attestd.agent.running.home import Home
from attestd.agent.running.rounds import Rounds
from attestd.agent.running.upkeep import Upkeep
from attestd.agent.state import Membership, State
from attestd.agent.trouble import AnotherTpm
from tests.attestd.agent.far_side import ATTEST, CHALLENGE, ENROLL, WANTED, FarSide, member_of
from tests.attestd.agent.running.simulated import BUNDLE, HOUR, MINUTE, Line, World, workload, world
from tests.deployment import SERVER
from tests.serving import Agent
from tpm.swtpm import SoftwareTpm

AUDIENCES = ("https://a.example.org",)
BUILDER = workload("builder", "x509-svid", "jwt-svid", audiences=AUDIENCES)
BOTH = f"{SERVER} is of the trust domain example.org now, this machine of bank.example; .* join anew"


@pytest.fixture
def here(software_tpm: SoftwareTpm, tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, software_tpm, BUILDER) as made:
        yield made


@pytest.fixture
def joined(here: World) -> Upkeep:
    """The agent with its identity, of example.org."""
    upkeep = here.boot()
    upkeep.work()
    assert set(upkeep.holdings.held) == {"builder"}
    return upkeep


def turn(here: World) -> None:
    """From now on the service is of another trust domain than the one that was joined."""
    membership, _ = here.state.enrolment()
    here.state.keep_membership(replace(membership, trust_domain="bank.example"))


def home_of(here: World) -> Home:
    return Home(here.tpm.tcti, here.state, lambda url: Line(url, weather=here.weather), LogFiles())


def test_the_first_accepted_round_says_which_trust_domain_it_is(here: World, joined: Upkeep) -> None:
    membership, _ = here.state.enrolment()
    assert membership.trust_domain == "example.org"
    here.after(joined, HOUR)
    assert here.state.membership() == membership
    assert set(joined.holdings.held) == {"builder"}


def test_ag_1_no_later_round_says_otherwise(here: World, joined: Upkeep) -> None:
    home_of(here).admitted("bank.example")
    assert here.state.enrolment()[0].trust_domain == "example.org"


def test_ag_1_a_service_of_another_trust_domain_is_shown_nothing_and_enrolled_at_by_nobody(
    here: World, joined: Upkeep
) -> None:
    before = {path: here.weather.count(path) for path in (CHALLENGE, ATTEST, ENROLL)}
    held, bundle = joined.holdings.held["builder"].x509, joined.holdings.bundle
    turn(here)
    here.forget()
    here.after(joined, HOUR)
    assert {path: here.weather.count(path) for path in before} == before
    assert joined.holdings.held == {}
    assert held is not None
    trouble = joined.standing().trouble
    assert trouble is not None
    assert trouble.detail.startswith(f"{SERVER} is of the trust domain example.org now")
    assert joined.holdings.bundle == bundle
    # The twin: as the service is what it was, the forgotten machine enrols anew and stays of its domain.
    membership, _ = here.state.enrolment()
    here.state.keep_membership(replace(membership, trust_domain="example.org"))
    here.after(joined, HOUR)
    assert set(joined.holdings.held) == {"builder"}
    assert here.state.enrolment()[0].trust_domain == "example.org"


def test_ag_1_nor_is_its_bundle_taken_between_two_rounds(here: World, joined: Upkeep) -> None:
    turn(here)
    here.weather.published = None
    first, looks = joined.holdings.bundle, here.weather.count(BUNDLE)
    while here.weather.count(BUNDLE) == looks:
        here.clock.now = max(here.clock.now, joined.due())
        joined.work()
    assert any("the bundle was not read: " in line and "bank.example" in line for line in here.said)
    assert joined.holdings.bundle is first


def test_ag_1_nor_is_a_token_of_it_handed_out(here: World, joined: Upkeep) -> None:
    demands = Demands(home_of(here), here.settings, lambda: NOTHING, clock=here.clock)
    assert demands.jwt_svid("builder", AUDIENCES)
    turn(here)
    here.clock.now += MINUTE
    with pytest.raises(Unreachable, match=BOTH):
        demands.jwt_svid("builder", AUDIENCES)


def test_ag_1_enrolling_anew_at_the_same_service_does_not_make_it_forget(here: World, joined: Upkeep) -> None:
    turn(here)
    assert home_of(here).reactivate().trust_domain == "bank.example"
    assert here.state.enrolment()[0].trust_domain == "bank.example"


def test_an_enrolment_of_an_older_agent_is_read_and_completed(here: World, joined: Upkeep) -> None:
    membership, _ = here.state.enrolment()
    here.state.keep_membership(replace(membership, trust_domain=None))
    path = here.state.directory / "enrollment.json"
    assert "trust_domain" not in path.read_text()
    upkeep = here.boot()
    upkeep.work()
    assert set(upkeep.holdings.held) == {"builder"}
    assert here.state.membership() == membership


def test_ag_1_an_operator_who_attests_by_hand_is_told_the_same(
    shared_tpm: SoftwareTpm, tmp_path: Path
) -> None:
    with FarSide() as far:
        agent = member_of(far, Agent(shared_tpm, tmp_path / "state", far.url))
        agent.attest(tmp_path / "out", *WANTED)
        state = State(agent.state)
        membership, _ = state.enrolment()
        assert membership.trust_domain == "example.org"
        agent.attest(tmp_path / "out", *WANTED)
        state.keep_membership(replace(membership, trust_domain="bank.example"))
        told = agent.attest(tmp_path / "other", *WANTED, status=3).stderr
    assert "is of the trust domain example.org now, this machine of bank.example; " in told
    assert not (tmp_path / "other").exists()


# --- where an enrolment was lost by half, and what is not to be written ------------------------------


def test_a_lost_attestation_key_is_made_anew_where_only_the_enrolment_names_the_service(
    here: World, joined: Upkeep
) -> None:
    here.settings = replace(here.settings, server=None)
    for lost in True, False:
        if lost:
            (here.state.directory / "ak.recipe").unlink()
        upkeep = here.boot()
        upkeep.work()
        assert set(upkeep.holdings.held) == {"builder"}
    assert len(here.device_ids) == 1


def test_a_lost_attestation_key_makes_no_device_of_another_tpm(here: World, joined: Upkeep) -> None:
    (here.state.directory / "ak.recipe").unlink()
    with SoftwareTpm() as other:
        home = Home(other.tcti, here.state, lambda url: Line(url, weather=here.weather), LogFiles())
        with pytest.raises(AnotherTpm):
            home.enrolled(SERVER)
    with opened(here.tpm.tcti) as device:
        assert device.banks()
    assert len(here.device_ids) == 1
    assert home_of(here).enrolled(SERVER).trust_domain == "example.org"


class NoRoom(State):
    """A state directory whose enrolment cannot be written any more."""

    def keep_membership(self, membership: Membership) -> None:
        raise OSError("No space left on device")


def test_an_admitted_machine_on_a_full_disk_has_its_identity(here: World, joined: Upkeep) -> None:
    membership, _ = here.state.enrolment()
    here.state.keep_membership(replace(membership, state="pending", trust_domain=None))
    full = replace(home_of(here), state=NoRoom(here.state.directory))
    renewed = Rounds(full, clock=here.clock, say=here.said.append).run(here.settings, [BUILDER])
    assert set(renewed.held) == {"builder"}
    Rounds(home_of(here), clock=here.clock, say=here.said.append).run(here.settings, [BUILDER])
    assert here.state.membership() == membership


@dataclass(frozen=True)
class Dated(Line):
    """Notes by when each answer must be there."""

    ends: list[float] = field(default_factory=list)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self.ends.append(self.end)
        return super().post(path, body)


def test_ag_1_all_that_a_round_asks_of_its_service_ends_by_one_deadline(here: World) -> None:
    line, before = Dated(SERVER, weather=here.weather), time.monotonic()
    home = replace(home_of(here), connect=lambda _: line)
    rounds = Rounds(home, clock=here.clock, say=here.said.append)
    rounds.run(here.settings, [BUILDER])
    here.forget()
    rounds.run(here.settings, [BUILDER])
    assert [path for _, path in here.weather.requests].count(ENROLL) == 2
    first, second = sorted(set(line.ends))
    assert before + ROUND_SECONDS <= first < second <= time.monotonic() + ROUND_SECONDS
