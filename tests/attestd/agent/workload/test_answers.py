"""What a caller gets is what it is entitled to and what is there; why it gets nothing has one right word."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from attestd.agent.holdings import NOTHING, Holdings
from attestd.agent.settings import Workload
from attestd.agent.workload import answers, messages
from attestd.agent.workload.answers import FOREVER, Reading
from attestd.agent.workload.calls import Prepared
from attestd.agent.workload.messages import Call
from tests.attestd.agent.workload.domain import Domain, workload

NOW, HOUR = 1_900_000_000_000, 3_600_000
DOMAIN = Domain.new()
A, B = workload("a", hint="inside"), workload("b", hint="inside")
X509_ONLY = workload("a", formats=("x509-svid",))
RESIDENT = workload("a", key="tpm")
HELD = DOMAIN.holdings(A, B, until=NOW + HOUR)

SVIDS: list[tuple[Reading, Call]] = [
    (answers.x509_svids, messages.FETCH_X509_SVID),
    (answers.wit_svids, messages.FETCH_WIT_SVID),
]
BUNDLES: list[tuple[Reading, Call]] = [
    (answers.x509_bundles, messages.FETCH_X509_BUNDLES),
    (answers.jwt_bundles, messages.FETCH_JWT_BUNDLES),
    (answers.wit_bundles, messages.FETCH_WIT_BUNDLES),
]


def read(reading: Reading, *workloads: Workload, holdings: Holdings = HELD, now: int = NOW) -> Any:
    """The message that goes out."""
    call = dict([*SVIDS, *BUNDLES])[reading]
    return call.response.FromString(reading(workloads, holdings, now).raw)


def refused(reading: Reading, *workloads: Workload, holdings: Holdings = HELD, now: int = NOW) -> Status:
    with pytest.raises(GRPCError) as error:
        reading(workloads, holdings, now)
    return error.value.status


@pytest.mark.parametrize("reading", [each for each, _ in SVIDS])
def test_all_that_the_caller_has_comes_in_the_operators_order(reading: Reading) -> None:
    for order in ((A, B), (B, A)):
        told = read(reading, *order).svids
        assert [each.spiffe_id for each in told] == [DOMAIN.spiffe_id(each.agent) for each in order]


@pytest.mark.parametrize("reading", [each for each, _ in SVIDS])
def test_a_hint_is_there_once(reading: Reading) -> None:
    assert [each.hint for each in read(reading, A, B).svids] == ["inside", ""]
    other = replace(B, hint="outside")
    assert [each.hint for each in read(reading, A, other).svids] == ["inside", "outside"]


def test_an_x509_svid_comes_whole() -> None:
    (told,) = read(answers.x509_svids, A).svids
    svid = HELD.held["a"].x509
    assert svid is not None
    assert told.x509_svid == b"".join(svid.chain)
    assert (told.x509_svid_key, told.bundle) == (svid.key, DOMAIN.certificate)


def test_a_wit_svid_comes_with_its_private_key_as_a_jwk() -> None:
    (told,) = read(answers.wit_svids, A).svids
    svid = HELD.held["a"].wit
    assert svid is not None
    assert (told.wit_svid, told.wit_svid_key) == (svid.text, svid.key)
    assert '"d"' in told.wit_svid_key


@pytest.mark.parametrize("reading", [each for each, _ in SVIDS])
@pytest.mark.parametrize(
    ("expected", "workloads", "holdings"),
    [
        # Not what the operator gave it.
        (Status.PERMISSION_DENIED, (workload("a", formats=("jwt-svid",)),), HELD),
        # The answer would need a key that cannot leave the TPM.
        (Status.PERMISSION_DENIED, (RESIDENT,), DOMAIN.holdings(RESIDENT, until=NOW + HOUR)),
        # The service said no.
        (Status.PERMISSION_DENIED, (A,), DOMAIN.holdings(until=0, refused={"a": "posture"})),
        # Nothing yet, the service was not reached, or it has been away for too long.
        (Status.UNAVAILABLE, (A,), NOTHING),
        (Status.UNAVAILABLE, (A,), replace(NOTHING, bundle=DOMAIN.bundle, withheld={"a": "unreachable"})),
        (Status.UNAVAILABLE, (A,), DOMAIN.holdings(until=0)),
        (Status.UNAVAILABLE, (A,), DOMAIN.holdings(A, until=NOW)),
        (Status.UNAVAILABLE, (A, B), DOMAIN.holdings(until=0, refused={"a": "posture"})),
    ],
)
def test_why_there_is_nothing_has_one_word(
    expected: Status, workloads: tuple[Workload, ...], holdings: Holdings, reading: Reading
) -> None:
    assert refused(reading, *workloads, holdings=holdings) is expected


def test_an_x509_svid_without_anybody_to_trust_is_not_there_yet() -> None:
    assert refused(answers.x509_svids, A, holdings=replace(HELD, bundle=None)) is Status.UNAVAILABLE


@pytest.mark.parametrize("reading", [each for each, _ in SVIDS])
def test_what_some_of_several_have_is_given(reading: Reading) -> None:
    ended = DOMAIN.held(A, until=NOW)
    some = replace(HELD, held={"a": ended, "b": HELD.held["b"]})
    assert [each.spiffe_id for each in read(reading, A, B, holdings=some).svids] == [DOMAIN.spiffe_id("b")]
    withheld = replace(HELD, held={"b": HELD.held["b"]}, refused=frozenset({"a"}))
    assert len(read(reading, A, B, holdings=withheld).svids) == 1
    resident = DOMAIN.holdings(RESIDENT, B, until=NOW + HOUR)
    assert len(read(reading, RESIDENT, B, holdings=resident).svids) == 1


@pytest.mark.parametrize("reading", [each for each, _ in BUNDLES])
def test_whoever_has_a_rule_may_verify_others_whatever_it_has_itself(reading: Reading) -> None:
    for holdings in (HELD, DOMAIN.holdings(until=0, refused={"a": "posture"})):
        assert list(read(reading, RESIDENT, holdings=holdings).bundles) == ["spiffe://example.org"]
    assert refused(reading, A, holdings=NOTHING) is Status.UNAVAILABLE


def test_each_bundle_has_the_keys_of_its_kind_only() -> None:
    assert read(answers.x509_bundles, A).bundles["spiffe://example.org"] == DOMAIN.certificate
    keys = read(answers.jwt_bundles, A).bundles["spiffe://example.org"]
    assert keys == DOMAIN.bundle.jwt_keys.encode()
    assert read(answers.wit_bundles, A).bundles["spiffe://example.org"] == DOMAIN.bundle.wit_keys


def test_an_answer_ends_with_the_first_credential_in_it() -> None:
    shorter = replace(HELD, held={**HELD.held, "b": DOMAIN.held(B, until=NOW + 1000)})
    assert answers.x509_svids((A, B), shorter, NOW).until == NOW + 1000
    assert answers.x509_svids((A,), shorter, NOW).until == NOW + HOUR
    assert answers.x509_bundles((A,), shorter, NOW).until == FOREVER


def counted(reading: Reading, made: list[int]) -> Reading:
    def read_one(workloads: Any, holdings: Holdings, now: int) -> answers.Answer:
        made.append(now)
        return reading(workloads, holdings, now)

    return read_one


@pytest.mark.parametrize(
    ("again", "times"),
    [
        (lambda ask, reading: ask(reading, (A,), HELD, NOW + 1), 1),
        (lambda ask, reading: ask(reading, (A, B), HELD, NOW), 2),
        (lambda ask, reading: ask(reading, (A,), replace(HELD), NOW), 2),
    ],
)
def test_an_answer_is_made_once_for_one_picture(again: Callable[..., Any], times: int) -> None:
    made: list[int] = []
    prepared, reading = Prepared(), counted(answers.x509_svids, made)
    prepared.answer(reading, (A,), HELD, NOW)
    again(prepared.answer, reading)
    assert len(made) == times


def test_an_answer_that_was_made_is_not_given_after_its_end() -> None:
    prepared = Prepared()
    prepared.answer(answers.x509_svids, (A,), HELD, NOW)
    with pytest.raises(GRPCError):
        prepared.answer(answers.x509_svids, (A,), HELD, NOW + HOUR)
