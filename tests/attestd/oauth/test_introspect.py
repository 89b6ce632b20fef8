"""Introspection: who may ask, about what, and what makes a token inactive."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from attestd.clock import now_ms
from attestd.store import meta, tokens
from tests.attestd.oauth.agents import GONE, seconds
from tests.attestd.oauth.world import ACCESS_TOKEN, ASSERTION, LEDGER, TOOLS, Tool, World, jkt
from tests.deployment import SERVER


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World.create(tmp_path_factory.mktemp("introspect") / "service")
    yield made
    made.deployment.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[World]:
    """A world of the test's own."""
    made = World.create(tmp_path / "service")
    yield made
    made.deployment.close()


def test_a_resource_learns_everything_that_the_token_says(world: World) -> None:
    agent = world.agent()
    details = '[{"type":"report","actions":["read"]}]'
    token = world.delegated(agent, world.login.token(), scope="plan.read", authorization_details=details)
    told = world.introspect(token).members
    assert told.pop("active") is True
    assert told.pop("token_type") == "DPoP"
    assert told == jwt.decode(token, options={"verify_signature": False})
    assert told["cnf"] == {"jkt": jkt(agent)}
    assert told["act"] == {"sub": agent.client_id}
    assert told["urn:attestd:attestation"]["assurance"] == "ek_verified"
    assert told["authorization_details"] == [{"type": "report", "actions": ["read"]}]


def test_a_bearer_token_is_said_to_be_one(world: World) -> None:
    token = world.bearer(world.agent("courier", "jwt-svid")).members["access_token"]
    assert world.introspect(token).members["token_type"] == "Bearer"


def test_oa_11_a_token_for_another_resource_is_inactive_and_nothing_more(world: World) -> None:
    token = world.token(world.agent())["access_token"]
    assert world.is_active(token)
    assert not world.is_active(token, world.ledger)
    assert world.is_active(world.token(world.agent(), resource=LEDGER)["access_token"], world.ledger)


INACTIVE: list[tuple[str, Callable[[World], str]]] = [
    ("empty_parts", lambda w: ".."),
    ("garbage", lambda w: "x" * 2000),
    ("dots", lambda w: "." * 20_000),
    ("wit", lambda w: w.agent().text),
    ("jwt_svid", lambda w: w.agent("courier", "jwt-svid").text),
    ("client_attestation", lambda w: w.agent("helper", "client-attestation").text),
    ("id_token", lambda w: w.login.token()),
    ("dpop_proof", lambda w: w.agent().dpop()),
    ("cut", lambda w: w.token(w.agent())["access_token"][:-2]),
    ("other_signature", lambda w: flipped(w.token(w.agent())["access_token"])),
    ("alg_none", lambda w: forged(w, alg="none")),
    ("hs256", lambda w: forged(w, alg="HS256")),
    ("other_kid", lambda w: forged(w, kid="other")),
    ("own_key_in_header", lambda w: forged(w, jwk={"kty": "EC"})),
]


def flipped(token: str) -> str:
    head, _, signature = token.rpartition(".")
    return f"{head}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def forged(world: World, **header: Any) -> str:
    """The claims of a living token under a stranger's signature."""
    token = world.token(world.agent())["access_token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    return world.login.token(header=jwt.get_unverified_header(token) | header, **claims)


@pytest.mark.parametrize("make", [row[1] for row in INACTIVE], ids=[row[0] for row in INACTIVE])
def test_mt_7_mt_8_whatever_is_no_access_token_of_ours_is_inactive(
    world: World, make: Callable[[World], str]
) -> None:
    reply = world.introspect(make(world))
    assert (reply.status, reply.members) == (200, {"active": False})


def test_an_expired_token_is_inactive(own: World) -> None:
    token = own.delegated(own.agent(), own.login.token(exp=seconds() + 3))
    assert own.is_active(token)
    expiry = jwt.decode(token, options={"verify_signature": False})["exp"]
    while seconds() < expiry:
        pass
    assert not own.is_active(token)


@pytest.mark.parametrize(("ahead", "status"), [(3_000, 200), (3_600_000, 503)])
def test_nothing_is_active_while_the_clock_is_behind_what_was_seen(
    own: World, ahead: int, status: int
) -> None:
    token = own.token(own.agent())["access_token"]
    seen = now_ms() + ahead
    own.deployment.service.store.write(lambda tx: meta.put(tx, "highest_time", str(seen)))
    reply = own.introspect(token)
    assert (reply.status, reply.members.get("active")) == (status, True if status == 200 else None), reply


# --- who asks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "error", "status"),
    [
        ({"client_assertion": None, "client_assertion_type": None}, "invalid_client", 401),
        ({"client_assertion": None}, "invalid_client", 401),
        (
            {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"},
            "invalid_client",
            401,
        ),
        ({"client_id": LEDGER}, "invalid_client", 401),
        ({"client_secret": "x"}, "invalid_client", 401),
        ({"token": None}, "invalid_request", 400),
    ],
)
def test_oa_11_who_does_not_authenticate_learns_nothing(
    world: World, form: dict[str, Any], error: str, status: int
) -> None:
    token = world.token(world.agent())["access_token"]
    reply = world.introspect(token, **form)
    assert reply.error == (status, error)
    assert "active" not in reply.members


def test_an_access_token_does_not_authenticate_a_resource(world: World) -> None:
    token = world.token(world.agent())["access_token"]
    reply = world.post("/oauth/introspect", {"token": token}, {"Authorization": f"Bearer {token}"})
    assert reply.error == (401, "invalid_client")
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")


def test_an_agent_is_no_resource(world: World) -> None:
    agent = world.agent()
    token = world.token(agent)["access_token"]
    reply = world.introspect(token, client_assertion=agent.assertion())
    assert reply.error == (401, "invalid_client")


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"aud": f"{SERVER}/oauth/introspect"}, "assertion_aud"),
        ({"aud": [SERVER, TOOLS]}, "assertion_aud"),
        ({"sub": LEDGER}, "assertion_sub"),
        ({"iss": "https://stranger.example.org", "sub": "https://stranger.example.org"}, "assertion_sub"),
        ({"exp": GONE}, "assertion_claim"),
        ({"exp": 1}, "assertion_expired"),
        ({"exp": 4102444800}, "assertion_lifetime"),
        ({"exp": "9999999999"}, "assertion_claim"),
        ({"jti": GONE}, "assertion_claim"),
        ({"jti": "x" * 10_000}, "assertion_claim"),
        ({"iat": None}, "assertion_claim"),
        ({"header": {"alg": "none"}}, "assertion_alg"),
        ({"header": {"alg": "HS256"}}, "assertion_alg"),
        ({"header": {"kid": "else"}}, "assertion_key_unknown"),
        ({"header": {"typ": "wit+jwt"}}, "assertion_typ"),
    ],
)
def test_oa_8_a_resources_assertion_that_is_wrong_in_one_thing_is_refused(
    world: World, changes: dict[str, Any], cause: str
) -> None:
    token = world.token(world.agent())["access_token"]
    reply = world.introspect(token, client_assertion=world.tools.assertion(**changes))
    assert reply.error == (401, "invalid_client")
    record = world.deployment.audit(event="request", decision="refused")[-1]
    assert (record["code"], record["cause"]) == ("invalid_client", cause)
    assert world.is_active(token)


def test_a_resource_with_another_key_is_refused_and_an_assertion_is_good_once(world: World) -> None:
    token = world.token(world.agent())["access_token"]
    assert world.introspect(token, Tool(TOOLS)).error == (401, "invalid_client")
    assertion = world.tools.assertion()
    assert world.introspect(token, client_assertion=assertion).members["active"]
    assert world.introspect(token, client_assertion=assertion).error == (401, "invalid_client")


def test_a_key_that_is_taken_out_of_the_file_ends_at_once(own: World) -> None:
    token = own.token(own.agent())["access_token"]
    assert own.is_active(token)
    path = own.deployment.directory / "tools.jwks"
    path.write_text(path.read_text().replace("tool-1", "tool-2"))
    assert own.introspect(token).error == (401, "invalid_client")


# --- what makes inactive ------------------------------------------------------------------------------------


Ending = Callable[[World], object]


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
    world.deployment.service.trust._looked = 0


def retire(world: World) -> None:
    world.deployment.operate("device", "retire", world.machine.device_id)


ENDINGS: list[Ending] = [ban, lose_posture, reboot, withdraw_root, retire]


@pytest.mark.parametrize("end", ENDINGS, ids=lambda end: end.__name__)
def test_what_ends_the_posture_ends_every_token_at_once(own: World, end: Ending) -> None:
    token = own.token(own.agent())["access_token"]
    assert own.is_active(token)
    end(own)
    assert not own.is_active(token)


def without_trust(end: Ending) -> bool:
    return end is withdraw_root


@pytest.mark.parametrize("end", ENDINGS, ids=lambda end: end.__name__)
def test_oa_9_and_every_token_that_others_made_of_it(own: World, end: Ending) -> None:
    """The planner's machine is lost; the helper's and the runner's are well."""
    second, third = own.deployment.machine(), own.deployment.machine()
    first = own.delegated(own.agent(), own.login.token())
    passed = own.delegated(own.agent("runner", machine=second), first, ACCESS_TOKEN)
    policy = (own.deployment.directory / "pcr-policy.toml").read_text()
    own.deployment.apply(policy.replace("depth = 2", "depth = 3"))
    further = own.delegated(own.agent("helper", machine=third), passed, ACCESS_TOKEN)
    beside = own.token(own.agent("loner", machine=third))["access_token"]
    assert all(own.is_active(token) for token in (first, passed, further, beside))
    end(own)
    assert not any(own.is_active(token) for token in (first, passed, further))
    assert own.is_active(beside) is not without_trust(end)


def test_oa_9_a_link_in_the_middle_ends_what_comes_after_it_and_not_what_was_before(own: World) -> None:
    second = own.deployment.machine()
    first = own.delegated(own.agent(), own.login.token())
    passed = own.delegated(own.agent("helper", machine=second), first, ACCESS_TOKEN)
    own.deployment.operate("device", "ban", second.device_id)
    assert (own.is_active(first), own.is_active(passed)) == (True, False)


def test_a_token_does_not_come_back_with_the_posture(own: World) -> None:
    token = own.token(own.agent())["access_token"]
    lose_posture(own)
    own.deployment.attest(own.machine.later(3000))
    assert (
        own.deployment.service.store.read(lambda tx: tx.execute("SELECT posture FROM devices").fetchone())[
            "posture"
        ]
        == "accepted"
    )
    assert not own.is_active(token)
    own.agents.clear()
    own.machine = own.machine.later(6000)
    assert own.is_active(own.token(own.agent())["access_token"])


def test_introspection_by_certificate_writes_nothing_and_by_key_one_row(world: World) -> None:
    token = world.token(world.agent())["access_token"]
    before, records = world.count("spent_nonces"), world.count("audit_records")
    assert world.is_active(token)
    assert world.count("spent_nonces") == before + 1
    assert world.count("audit_records") == records


def test_a_token_that_was_never_kept_is_inactive(own: World) -> None:
    token = own.token(own.agent())["access_token"]
    own.deployment.service.store.write(lambda tx: tokens.purge(tx, now_ms() + 10**9))
    assert not own.is_active(token)


def test_a_token_ends_with_the_key_that_signed_it(own: World) -> None:
    token = own.token(own.agent())["access_token"]
    assert own.is_active(token)
    own.deployment.service.store.write(
        lambda tx: tx.execute("UPDATE signing_keys SET state = 'retired' WHERE key_use = 'jwt'").rowcount
    )
    own.deployment.service.keyring._read_at = 0
    assert not own.is_active(token)


def test_the_form_says_who_asks_only_once(world: World) -> None:
    reply = world.introspect("x", client_assertion_type=[ASSERTION, ASSERTION])
    assert reply.error == (400, "invalid_request")
