"""Is a key known before it signs, and as long as something that it signed is alive?"""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.issue import rotation
from attestd.issue.key_files import create_key
from attestd.issue.keys import KeyRing, create_keys
from attestd.store.signing_keys import SigningKey
from attestd.wire import Problem
from tests.attestd.issue.material import NOW, TRUST_DOMAIN, State, States, new_ring, open_ring
from tpm.errors import PolicyError

PUBLISHED = NOW + rotation.PUBLISH_SECONDS * 1000
"""When a key that was published at NOW is known to everybody."""


def refusal_of(attempt: object, *args: object, **named: object) -> str:
    with pytest.raises(PolicyError) as caught:
        attempt(*args, **named)  # type: ignore[operator]
    return caught.value.reason


def test_mt_9_a_key_is_published_before_its_first_use() -> None:
    state = State("new")
    for early in (NOW - 1, NOW, PUBLISHED - 1):
        assert refusal_of(rotation.may_activate, state, now=early, at_once=False) == "key_too_new"
    rotation.may_activate(state, now=PUBLISHED, at_once=False)
    rotation.may_activate(state, now=NOW, at_once=True)


def test_mt_9_a_key_is_published_longer_than_others_keep_what_they_fetched() -> None:
    assert rotation.PUBLISH_SECONDS >= 3 * rotation.REFRESH_SECONDS


def test_mt_9_a_retired_key_never_signs_again() -> None:
    state = State("old", state="retired", retired_at=NOW)
    assert refusal_of(rotation.may_activate, state, now=PUBLISHED, at_once=True) == "key_retired"
    assert refusal_of(rotation.may_retire, state, now=PUBLISHED) == "key_retired"


def test_mt_9_a_key_is_retired_when_nothing_that_it_signed_is_alive() -> None:
    state = State("old", last_expiry=PUBLISHED)
    assert refusal_of(rotation.may_retire, state, now=PUBLISHED - 1) == "key_in_use"
    rotation.may_retire(state, now=PUBLISHED)


def test_mt_9_the_key_that_signs_is_not_retired() -> None:
    state = State("only", state="active")
    assert refusal_of(rotation.may_retire, state, now=PUBLISHED) == "key_signs"
    assert refusal_of(rotation.may_activate, state, now=PUBLISHED, at_once=True) == "key_signs"
    rotation.may_retire(replace(state, state="published"), now=PUBLISHED)


def test_what_the_store_keeps_is_what_rotation_asks_for() -> None:
    key = SigningKey(
        kid="k", use="jwt", alg="ES256", state="published", fingerprint="", created_at=NOW, published_at=NOW
    )
    rotation.may_activate(key, now=PUBLISHED, at_once=False)
    assert rotation.published([key], "jwt") == (key,)


def test_one_key_of_a_use_signs() -> None:
    states = [
        State("a"),
        State("b", state="active"),
        State("c", state="retired"),
        State("w", "wit", state="active"),
    ]
    assert rotation.signing(states, "jwt") == states[1]
    assert rotation.signing(states, "ear") is None
    # Two that both say so are a fault of the store's, and neither is taken.
    assert rotation.signing([*states, State("d", state="active")], "jwt") is None


changes = st.lists(
    st.tuples(st.sampled_from(["add", "retire"]), st.integers(min_value=-5, max_value=5)), max_size=30
)


@given(changes)
def test_the_sequence_of_the_bundle_rises_with_every_change(steps: list[tuple[str, int]]) -> None:
    """Whatever the operators' clocks say."""
    states: list[State] = []
    now, before = NOW, 0
    for verb, drift in steps:
        now += drift
        moment = rotation.moment_of_change(states, now=now)
        live = [index for index, state in enumerate(states) if state.state != "retired"]
        if verb == "add" or not live:
            states.append(State(f"k{len(states)}", published_at=moment))
        else:
            states[live[0]] = replace(states[live[0]], state="retired", retired_at=moment)
        assert rotation.sequence(states, ["jwt"]) > before
        before = rotation.sequence(states, ["jwt"])


def test_the_sequence_of_the_bundle_does_not_follow_what_is_not_in_it() -> None:
    states = [
        State("a"),
        State("e", "ear", published_at=PUBLISHED),
        State("u", "audit", published_at=PUBLISHED),
    ]
    assert rotation.sequence(states, ["x509", "jwt", "wit"]) == NOW
    assert rotation.sequence([], ["jwt"]) == 0


def test_the_ring_signs_with_the_active_key_and_publishes_it_and_the_others(tmp_path: Path) -> None:
    ring, states = new_ring(tmp_path / "keys")
    (first,) = (state for state in states.rows if state.use == "jwt")
    added = create_key(tmp_path / "keys", use="jwt", alg="ES256", trust_domain=TRUST_DOMAIN, now=NOW)
    states.rows.append(State(added.kid, published_at=NOW + 1))
    keys = ring.at(NOW)
    assert keys.signer("jwt").kid == first.kid
    assert [signer.kid for signer in keys.published("jwt")] == [first.kid, added.kid]
    assert keys.missing == ()


def test_mt_9_a_rotation_under_a_running_ring_reaches_it_within_a_second(tmp_path: Path) -> None:
    ring, states = new_ring(tmp_path / "keys")
    (old,) = (state for state in states.rows if state.use == "jwt")
    assert ring.at(NOW).signer("jwt").kid == old.kid
    added = create_key(tmp_path / "keys", use="jwt", alg="RS256", trust_domain=TRUST_DOMAIN, now=NOW)
    states.rows = [state for state in states.rows if state.use != "jwt"]
    states.rows += [
        replace(old, state="published"),
        State(added.kid, alg="RS256", state="active", published_at=NOW + 1),
    ]
    assert ring.at(NOW + 999).signer("jwt").kid == old.kid
    keys = ring.at(NOW + 1000)
    assert (keys.signer("jwt").kid, keys.signer("jwt").alg) == (added.kid, "RS256")
    assert [signer.kid for signer in keys.published("jwt")] == [old.kid, added.kid]
    states.rows = [state for state in states.rows if state.kid != old.kid]
    states.rows.append(replace(old, state="retired", retired_at=NOW + 1500))
    assert [signer.kid for signer in ring.at(NOW + 2000).published("jwt")] == [added.kid]


def test_the_states_are_read_once_a_second_and_again_when_the_clock_goes_back(tmp_path: Path) -> None:
    ring, states = new_ring(tmp_path / "keys")
    for moment in (NOW, NOW + 1, NOW + 999):
        ring.at(moment)
    assert states.reads == 1
    ring.at(NOW - 1)
    assert states.reads == 2


def test_a_replica_without_a_published_keys_file_says_so_and_finds_it_later(tmp_path: Path) -> None:
    ring, states = new_ring(tmp_path / "keys")
    create_keys(tmp_path / "other", trust_domain=TRUST_DOMAIN, now=NOW)
    added = create_key(tmp_path / "other", use="wit", alg="ES256", trust_domain=TRUST_DOMAIN, now=NOW)
    states.rows.append(State(added.kid, use="wit", published_at=NOW))
    assert ring.at(NOW).missing == (added.kid,)
    fingerprint = ring.fingerprint()
    name = f"wit-{added.kid}.pem"
    (tmp_path / "other" / name).rename(tmp_path / "keys" / name)
    assert ring.at(NOW + 1000).missing == ()
    assert ring.fingerprint() != fingerprint


def test_a_retired_key_may_leave_the_directory(tmp_path: Path) -> None:
    ring, states = new_ring(tmp_path / "keys")
    states.rows.append(State("0" * 32, state="retired", retired_at=NOW))
    assert ring.at(NOW).missing == ()


def test_without_a_key_that_signs_nothing_is_issued(tmp_path: Path) -> None:
    ring, states = new_ring(tmp_path / "keys")
    assert ring.at(NOW).signer("jwt").use == "jwt"
    states.rows = [state for state in states.rows if state.use != "jwt"]
    with pytest.raises(Problem) as caught:
        ring.at(NOW + 1000).signer("jwt")
    assert caught.value.status == 503


def test_a_key_whose_state_is_of_another_use_signs_nothing(tmp_path: Path) -> None:
    ring, states = new_ring(tmp_path / "keys")
    (ear,) = (state for state in states.rows if state.use == "ear")
    states.rows = [state for state in states.rows if state.use not in ("jwt", "ear")]
    states.rows.append(replace(ear, use="jwt"))
    keys = ring.at(NOW)
    assert keys.missing == (ear.kid,)
    with pytest.raises(Problem):
        keys.signer("jwt")


def test_a_ca_of_another_trust_domain_stops_the_start(tmp_path: Path) -> None:
    create_keys(tmp_path / "keys", trust_domain="other.example", now=NOW)
    assert refusal_of(open_ring, tmp_path / "keys", States()) == "ca_certificate"
    KeyRing(tmp_path / "keys", trust_domain="other.example", read_states=States().read)


def test_mt_3_a_key_of_ours_is_known_as_such(tmp_path: Path) -> None:
    ring, _ = new_ring(tmp_path / "keys")
    keys = ring.at(NOW)
    assert all(keys.holds(keys.signer(use).jwk) for use in ("x509", "jwt", "wit", "ear", "audit"))
    assert not keys.holds({**keys.signer("jwt").jwk, "x": keys.signer("jwt").jwk["y"]})


def test_a_running_ring_goes_on_with_what_it_has_when_a_new_file_is_bad(tmp_path: Path) -> None:
    """Whoever starts is refused; who runs is not ready, and issues with the keys that were good."""
    ring, states = new_ring(tmp_path / "keys")
    added = create_key(tmp_path / "keys", use="wit", alg="ES256", trust_domain=TRUST_DOMAIN, now=NOW)
    states.rows.append(State(added.kid, use="wit", published_at=NOW))
    path = tmp_path / "keys" / f"wit-{added.kid}.pem"
    path.chmod(0o644)
    keys = ring.at(NOW)
    assert keys.missing == (added.kid,)
    assert keys.signer("wit").kid != added.kid
    assert refusal_of(open_ring, tmp_path / "keys", states) == "key_file_mode"
    path.chmod(0o600)
    assert ring.at(NOW + 1000).missing == ()
