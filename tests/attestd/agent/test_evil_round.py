"""Whatever stands where in an answer, a round ends as what it is: nothing half-read is held, no other error
comes of it, nothing stays in the TPM, and the running agent goes on."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest

from attestd.agent.enroll import enroll
from attestd.agent.errors import Refusal, Unreachable
from attestd.agent.logs import LogFiles
from attestd.agent.machine import Machine
from attestd.agent.running.bundle import fetch_bundle
from attestd.agent.running.home import Home
from attestd.agent.running.renewal import Renewed, renew
from attestd.agent.running.schedule import SHORTEST_RENEWAL
from attestd.agent.running.upkeep import Upkeep
from attestd.agent.settings import Settings
from attestd.agent.state import State
from attestd.agent.transport import ANSWER_LIMIT, Server
from tests.attestd.agent.far_side import FarSide, answer, member_of, problem
from tests.attestd.agent.running.simulated import BUNDLE, HOUR, MINUTE, SECOND, Line, World, workload, world
from tests.deployment import SERVER
from tests.serving import FRESH, Agent
from tests.tpm.device.leftovers import leftovers
from tpm.device.device import Device
from tpm.errors import DeviceError
from tpm.swtpm import SoftwareTpm

CHALLENGE, ATTEST, ENROLL = "/v1/challenges", "/v1/attestations", "/v1/enrollments"
AUDIENCES = ("https://a.example.org", "https://b.example.org")


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


BAD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    10**30,
    1.5,
    "",
    "x",
    "\ud800",
    "\0",
    "\x1b[2J",
    "../../etc/passwd",
    "A" * 100_000,
    "9999-12-31T23:59:59Z",
    [],
    [None],
    [[]],
    nested(500),
    {},
    {"a": 1},
)
"""What a member may be instead, of whatever type it should be."""

Place = tuple[str | int, ...]


def places(document: Any, here: Place = ()) -> Iterator[Place]:
    """Where a document has members, inner ones too."""
    members = document.items() if isinstance(document, dict) else enumerate(document)
    for name, value in members:
        yield (*here, name)
        if isinstance(value, dict | list):
            yield from places(value, (*here, name))


def spoilt(document: Mapping[str, Any], place: Place, value: Any) -> dict[str, Any]:
    """The document with another value at this place."""
    made: Any = deepcopy(dict(document))
    at = made
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    return dict(made)


def in_place(place: Place, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda answer: spoilt(answer, place, value)


@dataclass(frozen=True)
class Spoiling(Line):
    """A service that answers one path otherwise than it would."""

    path: str = ""
    otherwise: Callable[[dict[str, Any]], dict[str, Any]] = dict

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = Line.post(self, path, body)
        return self.otherwise(answer) if path == self.path else answer

    def get(self, path: str) -> dict[str, Any]:
        answer = Line.get(self, path)
        return self.otherwise(answer) if path == self.path else answer


WORKLOADS = (
    workload("builder", "x509-svid", "wit-svid", "jwt-svid", audiences=AUDIENCES, files=Path("/nowhere")),
    workload("telemetry", "x509-svid", key="tpm"),
)


@pytest.fixture(scope="module")
def here(shared_tpm: SoftwareTpm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("round"), shared_tpm, *WORKLOADS) as made:
        with Device(shared_tpm.tcti) as device:
            enroll(device, Line(SERVER, weather=made.weather), made.state)
        yield made
    assert leftovers(shared_tpm) == {}


def tried(
    here: World, path: str, otherwise: Callable[[dict[str, Any]], dict[str, Any]]
) -> Renewed | Exception:
    """A round with that, which may end in no other way than these."""
    server = Spoiling(SERVER, weather=here.weather, path=path, otherwise=otherwise)
    try:
        return renew(Machine(here.tpm.tcti, here.state, server), WORKLOADS, clock=here.clock)
    except (Refusal, Unreachable, DeviceError) as error:
        return error


def seen(here: World, path: str) -> dict[str, Any]:
    """What the service answers there."""
    kept: list[dict[str, Any]] = []

    def keep(answer: dict[str, Any]) -> dict[str, Any]:
        kept.append(answer)
        return answer

    assert isinstance(tried(here, path, keep), Renewed)
    return kept[-1]


IDENTITIES = {"builder", "telemetry"}


def check(here: World, found: Renewed | Exception) -> None:
    """What is held is whole and ours, or nothing is."""
    if isinstance(found, Renewed):
        assert set(found.held) | set(found.withheld) == IDENTITIES
        for agent, held in found.held.items():
            for svid in (held.x509, held.wit, held.jwt):
                assert svid is None or svid.spiffe_id.startswith(f"spiffe://example.org/agent/{agent}/")
                assert svid is None or here.clock.now < svid.expires_at
            assert all(isinstance(name, str) and "/" not in name for name in held.files)
    else:
        assert str(found).isprintable()
        assert len(str(found)) < 1000


def test_ag_1_whatever_stands_in_a_challenge_a_round_ends_as_what_it_is(here: World) -> None:
    for place in places(seen(here, CHALLENGE)):
        for value in BAD:
            check(here, tried(here, CHALLENGE, in_place(place, value)))


def test_ag_1_whatever_stands_in_a_bundle_it_is_read_or_not_taken(here: World) -> None:
    for place in places(seen(here, BUNDLE)):
        for value in BAD:
            server = Spoiling(SERVER, weather=here.weather, path=BUNDLE, otherwise=in_place(place, value))
            try:
                bundle, hint = fetch_bundle(server, None)
            except Unreachable as error:
                check(here, error)
            else:
                assert bundle.trust_domain == "example.org"
                assert hint is None or hint >= 0


def test_ag_1_whatever_stands_in_what_is_issued_a_round_ends_as_what_it_is(here: World) -> None:
    """Each place with a part of the bad values, each bad value at a part of the places."""
    for number, place in enumerate(places(seen(here, ATTEST))):
        for value in BAD[number % 4 :: 4]:
            check(here, tried(here, ATTEST, in_place(place, value)))


def test_ag_1_whatever_stands_in_an_enrolment_it_ends_as_what_it_is(
    here: World, software_tpm: SoftwareTpm, tmp_path: Path
) -> None:
    answer = {"enrollment": "e", "credential": {"id_object": "AAA=", "encrypted_secret": "AAA="}}
    for path, good in (ENROLL, answer), ("/v1/activations", {"device_id": "ab" * 32, "state": "active"}):
        for place in places(good):
            for value in BAD:
                server = Spoiling(SERVER, weather=here.weather, path=path, otherwise=in_place(place, value))
                state = State(tmp_path / "state")
                with Device(software_tpm.tcti) as device, pytest.raises((Refusal, Unreachable, DeviceError)):
                    enroll(device, server, state)
                assert state.membership() is None


def test_a_round_with_good_answers_holds_all(here: World) -> None:
    """The twin of these."""
    renewed = tried(here, "", dict)
    assert isinstance(renewed, Renewed)
    builder = renewed.held["builder"]
    assert None not in (builder.x509, builder.wit, builder.jwt, renewed.held["telemetry"].x509)
    check(here, renewed)


# --- without end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["credentials", "sealed_keys"])
def test_ag_1_a_service_that_takes_everything_back_is_asked_a_bounded_number_of_times(
    here: World, kind: str
) -> None:
    def never(_: Mapping[str, Any]) -> dict[str, Any]:
        raise Refusal(403, {"code": "not_entitled", "detail": "No.", "pointer": f"/{kind}/0"})

    before = here.weather.count(ATTEST)
    found = tried(here, ATTEST, never)
    assert isinstance(found, Refusal)
    assert here.weather.count(ATTEST) - before <= len(WORKLOADS) + 1


def test_ag_1_a_service_that_says_anew_for_ever_is_asked_three_times(here: World) -> None:
    def again(_: Mapping[str, Any]) -> dict[str, Any]:
        raise Refusal(409, {"code": "nonce_expired", "detail": "Too late."})

    before = here.weather.count(ATTEST)
    assert isinstance(tried(here, ATTEST, again), Refusal)
    assert here.weather.count(ATTEST) - before == 3


def test_ag_6_credentials_that_end_at_once_do_not_hurry_the_agent(
    software_tpm: SoftwareTpm, tmp_path: Path
) -> None:
    hasty = FRESH.replace('ttl = "5m"', 'ttl = "1s"')
    builder = workload("builder", "x509-svid")
    with world(tmp_path, software_tpm, builder, policies=(hasty,)) as made:
        upkeep = made.boot()
        made.after(upkeep, 10 * MINUTE)
        rounds = [time for time, path in made.weather.requests if path == ATTEST]
        assert 1 < len(rounds) <= 10 * MINUTE // SHORTEST_RENEWAL + 1
        # And the twin: what lives for minutes is renewed in its time.
        made.deployment.apply(FRESH, "policy-0.toml")
        made.after(upkeep, HOUR)
        later = [time for time in rounds_of(made) if time > rounds[-1] + MINUTE]
        gaps = [after - before for before, after in pairwise(later)]
        assert gaps
        assert all(140 * SECOND < gap < 190 * SECOND for gap in gaps)


def test_ag_6_a_policy_that_is_another_each_time_does_not_hurry_it_either(
    software_tpm: SoftwareTpm, tmp_path: Path
) -> None:
    """Another policy may give what the last one did not: that is asked for once, not for ever."""
    numbers = count(1)

    def another(answer: dict[str, Any]) -> dict[str, Any]:
        return answer | {"policy": {"name": "p", "version": next(numbers), "digest": "00" * 32}}

    workloads = (workload("builder", "x509-svid"), workload("stranger", "x509-svid"))
    with world(tmp_path, software_tpm, *workloads) as made:
        line = Spoiling(SERVER, weather=made.weather, path=ATTEST, otherwise=another)
        home = Home(software_tpm.tcti, made.state, lambda _: line, LogFiles())
        upkeep = Upkeep(home, made.settings, clock=made.clock, draw=made.chance.random)
        made.after(upkeep, HOUR)
        # Renewed after 150 to 180 seconds; each such round may be followed by one that asks for all.
        assert 20 < len(rounds_of(made)) < 4 * HOUR // (150 * SECOND)


def rounds_of(made: World) -> list[int]:
    return [time for time, path in made.weather.requests if path == ATTEST]


# --- what is not read -----------------------------------------------------------------------------


def test_ag_4_what_an_answer_says_to_run_fetch_or_write_is_passed_over(here: World, tmp_path: Path) -> None:
    marker = tmp_path / "made"
    orders = {
        "payload": f"touch {marker}",
        "exec": ["/usr/bin/touch", str(marker)],
        "on_renewal": ["/usr/bin/touch", str(marker)],
        "save_as": str(marker),
        "files": {str(marker): "x"},
        "revocation_actions": [{"run": f"touch {marker}"}],
        "__class__": "os.system",
        "url": "http://127.0.0.1:1/",
    }
    for path in (CHALLENGE, ATTEST, BUNDLE):
        for wrap in (lambda answer: answer | orders, in_every_table(orders)):
            check(here, tried(here, path, wrap))
    assert not marker.exists()


def in_every_table(added: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def put(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: put(each) for name, each in value.items()} | added
        return [put(each) for each in value] if isinstance(value, list) else value

    return lambda answer: dict(put(answer))


def test_ag_1_a_refusal_with_anything_in_it_is_told_and_changes_nothing(here: World) -> None:
    good = {
        "code": "posture_rejected",
        "detail": "It is not.",
        "findings": [{"code": "pcr_unexpected", "subject": "pcr7", "expected": ["00"], "found": "11"}],
        "pointer": "/credentials/0",
        "error": "invalid",
        "error_description": "It is not.",
    }
    for number, place in enumerate(places(good)):
        for value in BAD[number % 3 :: 3]:

            def refuse(_: Mapping[str, Any], told: Mapping[str, Any] = spoilt(good, place, value)) -> Any:
                raise Refusal(403, told)

            found = tried(here, ATTEST, refuse)
            assert isinstance(found, Refusal)
            check(here, found)


# --- the running agent ----------------------------------------------------------------------------


def deep(depth: int) -> bytes:
    """A refusal with a finding as deep as that."""
    inner = b'{"a":' * depth + b"1" + b"}" * depth
    return answer(b'{"code":"posture_rejected","detail":"No.","findings":[%s]}' % inner, 403)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (deep(20), "posture_rejected"),
        (deep(300), "no_answer"),
        (deep(900), "no_answer"),
        (deep(100_000), "no_answer"),
        (answer(b'{"code":"posture_rejected","findings":[' + b"{}," * 30_000 + b"{}]}", 403), "no_answer"),
        (answer(b'{"code":"posture_rejected","code":"device_banned"}', 403), "no_answer"),
        (answer(b'{"code":"posture_rejected","detail":"\\ud800"}', 403), "no_answer"),
        (answer(b'{"code":"posture_rejected","n":' + b"9" * 4000 + b"}", 403), "no_answer"),
        (problem(403, "posture_rejected", detail="\x1b[2J" * 1000), "posture_rejected"),
        (problem(403, "\x1b[2J"), "?[2J"),
        (answer({"code": ["x"]}, 403), "403"),
    ],
    ids=lambda value: repr(value[-30:]) if isinstance(value, bytes) else value,
)
def test_ag_1_whatever_a_refusal_holds_the_agent_writes_down_how_it_stands_and_goes_on(
    shared_tpm: SoftwareTpm, tmp_path: Path, said: bytes, code: str
) -> None:
    with FarSide({BUNDLE: said}) as far:
        agent = member_of(far, Agent(shared_tpm, tmp_path / "state", far.url))
        state = State(agent.state)
        settings = Settings(server=far.url, tpm=shared_tpm.tcti, state=state.directory, workloads=WORKLOADS)
        said_lines: list[str] = []
        upkeep = Upkeep(Home(shared_tpm.tcti, state, Server, LogFiles()), settings, say=said_lines.append)
        upkeep.work()
        standing = state.standing()
    assert standing is not None
    assert standing["posture"]["code"] == code
    assert far.count(BUNDLE) == 1
    assert all(line.isprintable() and len(line) < 1000 for line in said_lines)
    assert (state.directory / "standing.json").stat().st_size < ANSWER_LIMIT
