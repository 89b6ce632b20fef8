"""Nothing gets wider, longer or deeper than what it comes from."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.oauth.errors import OAuthError
from attestd.oauth.narrowing import (
    MAX_DETAILS,
    MAX_DETAILS_SIZE,
    Actor,
    act_claim,
    check_may_act,
    extend_actors,
    narrow_audience,
    narrow_details,
    narrow_lifetime,
    narrow_scope,
    read_actors,
    read_details,
)

NAMES = st.sampled_from(["a", "b", "c", "d"])
NOW = 1_800_000_000_123
AGENT = "spiffe://example.org/agent/a/1"


def refused(error: str, call: Any, *arguments: Any, **named: Any) -> None:
    with pytest.raises(OAuthError) as caught:
        call(*arguments, **named)
    assert caught.value.error == error


@given(st.lists(NAMES, min_size=1), st.lists(NAMES, unique=True), st.none() | st.sets(NAMES))
def test_a_scope_is_what_was_asked_for_or_refused(
    wanted: list[str], granted: list[str], parent: set[str] | None
) -> None:
    allowed = set(granted) if parent is None else set(granted) & parent
    if set(wanted) <= allowed:
        found = narrow_scope(" ".join(wanted), granted=granted, parent=parent)
        assert set(found.split()) == set(wanted)
    else:
        refused("invalid_scope", narrow_scope, " ".join(wanted), granted=granted, parent=parent)
    assert set(narrow_scope(None, granted=granted, parent=parent).split()) == allowed


@pytest.mark.parametrize("scope", [" a", "a ", "a  b", 'a"', "a\\", "a\tb", "ä", "a\n"])
def test_a_scope_that_rfc_6749_does_not_know_is_refused(scope: str) -> None:
    refused("invalid_scope", narrow_scope, scope, granted=[scope, *scope.split()], parent=None)


@given(st.lists(NAMES), st.lists(NAMES, unique=True), st.none() | st.sets(NAMES))
def test_a_token_is_for_one_audience_that_both_allow(
    wanted: list[str], granted: list[str], parent: set[str] | None
) -> None:
    allowed = set(granted) if parent is None else set(granted) & parent
    good = set(wanted) or (allowed if len(allowed) == 1 else set())
    if len(good) == 1 and good <= allowed:
        assert {narrow_audience(wanted, granted=granted, parent=parent)} == good
    else:
        refused("invalid_target", narrow_audience, wanted, granted=granted, parent=parent)


PARENT: dict[str, Any] = {
    "type": "pay",
    "actions": ["read", "start"],
    "limit": 10,
    "to": {"name": "x", "no": [1, 2]},
}

WITHIN = [
    PARENT,
    PARENT | {"actions": ["read"]},
]
BEYOND: list[dict[str, Any]] = [
    PARENT | {"type": "report"},
    PARENT | {"actions": ["read", "stop"]},
    PARENT | {"limit": 11},
    PARENT | {"limit": True},
    PARENT | {"limit": "10"},
    PARENT | {"to": {"name": "x", "no": [2, 1]}},
    PARENT | {"to": {"name": "x"}},
    PARENT | {"to": {"name": "x", "no": [1, 2], "more": 1}},
    PARENT | {"override": 1},
    PARENT | {"locations": ["https://a.example.org"]},
    PARENT | {"privileges": ["admin"]},
    PARENT | {"identifier": "another"},
    {name: value for name, value in PARENT.items() if name != "actions"},
    {name: value for name, value in PARENT.items() if name != "limit"},
]


def as_text(*details: Any) -> str:
    return json.dumps(list(details))


@pytest.mark.parametrize("detail", WITHIN)
def test_details_within_their_parents_are_given(detail: dict[str, Any]) -> None:
    assert narrow_details(as_text(detail), types=["pay"], parent=[PARENT]) == (detail,)


@pytest.mark.parametrize("detail", BEYOND)
def test_details_beyond_their_parents_are_refused(detail: dict[str, Any]) -> None:
    wanted = as_text(detail)
    refused("invalid_authorization_details", narrow_details, wanted, types=["pay", "report"], parent=[PARENT])
    assert narrow_details(wanted, types=["pay", "report"], parent=None) == (detail,)


def test_details_true_and_one_are_not_the_same() -> None:
    parent = {"type": "pay", "flag": 1}
    refused(
        "invalid_authorization_details",
        narrow_details,
        as_text({"type": "pay", "flag": True}),
        types=["pay"],
        parent=[parent],
    )


def test_without_details_asked_for_the_parents_go_on_as_far_as_the_grant_knows_their_type() -> None:
    report = {"type": "report"}
    assert narrow_details(None, types=["report"], parent=[PARENT, report]) == (report,)
    assert narrow_details(None, types=["report"], parent=None) == ()
    refused("invalid_authorization_details", narrow_details, as_text(report), types=["report"], parent=[])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "[1]",
        "[null]",
        '[{"actions":["a"]}]',
        '[{"type":""}]',
        '[{"type":7}]',
        '[{"type":"a","type":"b"}]',
        '[{"type":"a","actions":"read"}]',
        '[{"type":"a","actions":[]}]',
        '[{"type":"a","actions":[1]}]',
        '[{"type":"a","locations":{}}]',
        '[{"type":"a","identifier":1}]',
        '[{"type":"a","limit":1.5}]',
        '[{"type":"a","limit":NaN}]',
        '[{"type":"a"}],"more":[1]',
        '[{"type":"a"}]}',
        '[{"type":"\\ud800"}]',
        as_text(*[{"type": "a"}] * (MAX_DETAILS + 1)),
        as_text({"type": "a", "x": "y" * MAX_DETAILS_SIZE}),
        "[" * 4000,
    ],
)
def test_details_that_are_not_what_rfc_9396_has_are_refused(text: str) -> None:
    refused("invalid_authorization_details", read_details, text)


def test_details_with_every_common_field_are_read() -> None:
    detail = {
        "type": "a",
        "locations": ["l"],
        "actions": ["x"],
        "datatypes": ["d"],
        "privileges": ["p"],
        "identifier": "i",
    }
    assert read_details(as_text(detail)) == (detail,)


@given(st.lists(st.none() | st.integers(NOW - 10**6, NOW + 10**7)))
def test_nothing_lives_longer_than_what_it_rests_on(ends: list[int | None]) -> None:
    first = min([NOW + 300_000, *(end for end in ends if end is not None)])
    if first // 1000 * 1000 < NOW + 1000:
        refused("invalid_grant", narrow_lifetime, now=NOW, ends=ends)
    else:
        end = narrow_lifetime(now=NOW, ends=ends)
        assert end % 1000 == 0
        assert NOW < end <= first


def test_chains_grow_to_their_depth_and_no_further() -> None:
    actors: tuple[Actor, ...] = ()
    for number in range(3):
        actors = extend_actors(f"agent-{number}", subject="alice", actors=actors, depth=3)
    assert act_claim(actors) == {"sub": "agent-2", "act": {"sub": "agent-1", "act": {"sub": "agent-0"}}}
    refused("invalid_request", extend_actors, "agent-3", subject="alice", actors=actors, depth=3)
    refused("invalid_request", extend_actors, "agent-0", subject="alice", actors=(), depth=0)


@pytest.mark.parametrize(
    "actors", [(Actor(AGENT),), (Actor("b"), Actor(AGENT)), (Actor(AGENT, "https://else"),)]
)
def test_nobody_is_twice_in_a_chain(actors: tuple[Actor, ...]) -> None:
    refused("invalid_request", extend_actors, AGENT, subject="alice", actors=actors, depth=8)
    refused("invalid_request", extend_actors, AGENT, subject=AGENT, actors=(), depth=8)
    assert extend_actors("c", subject="alice", actors=actors, depth=8)[1:] == actors


@given(st.lists(st.builds(Actor, NAMES, st.none() | NAMES), max_size=8))
def test_a_chain_is_read_as_it_was_written(actors: list[Actor]) -> None:
    assert read_actors(act_claim(actors), issuer=None, most=8) == tuple(actors)


def test_actors_of_another_issuer_are_that_issuers() -> None:
    assert read_actors({"sub": "a", "exp": 1}, issuer="https://i", most=8) == (Actor("a", "https://i"),)


@pytest.mark.parametrize(
    "claim",
    [
        "a",
        [],
        {},
        {"sub": 1},
        {"sub": ""},
        {"sub": "a", "iss": 1},
        {"sub": "a", "act": "b"},
        {"sub": "a", "iss": None},
    ],
)
def test_what_is_no_chain_is_refused(claim: Any) -> None:
    refused("invalid_request", read_actors, claim, issuer="https://i", most=8)


def test_a_chain_that_is_too_long_is_refused() -> None:
    refused("invalid_request", read_actors, act_claim([Actor("a")] * 9), issuer=None, most=8)


@pytest.mark.parametrize(
    "claim", [None, {"sub": AGENT}, {"sub": AGENT, "iss": "us"}, {"sub": AGENT, "client_id": AGENT}]
)
def test_whom_the_subject_named_may_act(claim: Any) -> None:
    check_may_act(claim, agent=AGENT, issuers=["us"])


@pytest.mark.parametrize(
    "claim",
    [
        {},
        "x",
        [],
        {"sub": AGENT + "x"},
        {"iss": "us"},
        {"sub": AGENT, "iss": "them"},
        {"sub": AGENT, "email": "a@b"},
        {"sub": AGENT, "client_id": "b"},
        {"sub": [AGENT]},
        0,
        False,
    ],
)
def test_whom_the_subject_did_not_name_may_not(claim: Any) -> None:
    refused("invalid_request", check_may_act, claim, agent=AGENT, issuers=["us"])
