"""`attestd audit trace ID`: which agent did it, on whose behalf, under which posture and policy?"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from attestd.clock import now_ms
from attestd.store import audit, credentials
from attestd.store.audit import AuditEvent
from tests.attestd.oauth.world import ACCESS_TOKEN, LOGIN, TOOLS, World

Steps = list[dict[str, Any]]


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.create(tmp_path / "service")
    yield made
    made.deployment.close()


def trace(world: World, identifier: str) -> Steps:
    return world.deployment.listed("audit", "trace", identifier)


def told(world: World, identifier: str) -> str:
    return world.deployment.operate("audit", "trace", identifier).stdout


def kinds(steps: Steps) -> list[str]:
    return [step["step"] for step in steps]


def lose_posture(world: World) -> None:
    changed = world.machine.later().extended(7, b"\x01" * 32)
    ends = world.deployment.live(world.machine)
    world.deployment.problem(world.deployment.round(changed).body(), 403, "posture_rejected", ends=ends)


# --- the chain ------------------------------------------------------------------------------------


def test_a_token_is_traced_from_the_machines_enrolment_to_whose_call_it_is(world: World) -> None:
    planner = world.agent()
    token = claims_of(world.delegated(planner, world.login.token()))
    steps = trace(world, token["jti"])
    assert kinds(steps) == ["enrolled", "attested", "credential", "token"]
    enrolled, attested, credential, call = steps
    assert {step["device_id"] for step in steps} == {world.machine.device_id}
    assert (enrolled["state"], enrolled["ak"]) == ("active", world.deployment.row(world.machine).ak_name)
    row = world.deployment.rows("SELECT * FROM attestations WHERE outcome = 'issued'")[0]
    assert attested["attestation_id"] == row["attestation_id"]
    assert (attested["decision"], attested["evidence_sha256"]) == ("accepted", row["evidence_sha256"])
    assert attested["policy_digest"] == row["policy_digest"]
    assert (credential["credential_id"], credential["spiffe_id"]) == (
        claims_of(planner.text)["jti"],
        token["client_id"],
    )
    assert (call["agent"], call["client_id"]) == ("planner", token["client_id"])
    assert (call["subject"], call["subject_issuer"]) == ("alice", LOGIN)
    assert (call["actors"], call["audience"]) == (token["act"], [TOOLS])
    assert (call["scope"], call["confirmation"]) == (token["scope"], token["cnf"])
    assert call["policy"] == f"{row['policy_name']}@{row['policy_version']}"
    assert (call["ended_at"], call["ended_because"]) == (None, None)
    assert call["request_id"]


def test_calls_with_a_token_end_its_trace_and_lead_back_to_the_machine(world: World) -> None:
    token = world.delegated(world.agent(), world.login.token())
    jti, service = claims_of(token)["jti"], world.deployment.service
    assert world.introspect(token).members["active"]
    assert kinds(trace(world, jti))[-1] == "token"
    now = now_ms()
    service.maintain(now)
    assert world.introspect(token).members["active"]
    assert world.introspect(token).members["active"]
    assert not world.introspect(token, world.ledger).members["active"]
    service.maintain(now + 1000)
    steps = trace(world, jti)
    assert kinds(steps) == ["enrolled", "attested", "credential", "token", "called"]
    assert (steps[-1]["resource"], steps[-1]["count"], steps[-1]["subject"]) == (TOOLS, 1, "alice")
    service.maintain(now + 61_000)
    steps = trace(world, jti)
    assert [step["count"] for step in steps if step["step"] == "called"] == [1, 2]
    assert f"called {TOOLS}, once" in told(world, jti)
    assert f"called {TOOLS}, 2 times until " in told(world, jti)
    world.deployment.operate("audit", "verify")


def test_who_passed_it_on_is_part_of_it_and_what_others_got_besides_is_not(world: World) -> None:
    planner, helper = world.agent("planner"), world.agent("helper")
    first = world.delegated(planner, world.login.token())
    second = world.delegated(helper, first, ACCESS_TOKEN)
    other = claims_of(world.token(helper)["access_token"])
    ids = [claims_of(each)["jti"] for each in (first, second)]
    steps = trace(world, ids[1])
    assert [step["token_id"] for step in steps if step["step"] == "token"] == ids
    assert [step["agent"] for step in steps if step["step"] == "token"] == ["planner", "helper"]
    assert {step["agent"] for step in steps if step["step"] == "credential"} == {"planner", "helper"}
    # What the first led to is found from it as well; what the helper did for itself belongs to neither.
    assert [step["token_id"] for step in trace(world, ids[0]) if step["step"] == "token"] == ids
    assert other["jti"] not in json.dumps([steps, trace(world, ids[0])])


def test_a_credential_an_attestation_and_a_request_lead_to_what_came_of_them(world: World) -> None:
    planner = world.agent()
    tokens = {claims_of(world.token(planner)["access_token"])["jti"] for _ in range(2)}
    svid = world.agent("planner", "x509-svid")
    chain = ["enrolled", "attested", "credential", "token", "token"]
    credential = claims_of(planner.text)["jti"]
    steps = trace(world, credential)
    assert kinds(steps) == chain
    assert {step["token_id"] for step in steps if step["step"] == "token"} == tokens
    attestation = steps[1]["attestation_id"]
    assert trace(world, attestation) == steps
    assert trace(world, steps[1]["request_id"]) == steps
    assert kinds(trace(world, steps[0]["request_id"])) == ["enrolled"]
    asked = trace(world, steps[3]["request_id"])
    assert [step["token_id"] for step in asked if step["step"] == "token"] == [steps[3]["token_id"]]
    serial = world.deployment.rows("SELECT credential_id FROM credentials WHERE format = 'x509-svid'")[0]
    assert kinds(trace(world, serial["credential_id"])) == ["enrolled", "attested", "credential"]
    assert svid.machine is world.machine


def test_another_machines_steps_are_not_mixed_in(world: World) -> None:
    other = world.deployment.machine()
    one, two = world.agent(), world.agent(machine=other)
    steps = [trace(world, claims_of(world.token(each)["access_token"])["jti"]) for each in (one, two)]
    assert [{step["device_id"] for step in each} for each in steps] == [
        {world.machine.device_id},
        {other.device_id},
    ]


# --- its end --------------------------------------------------------------------------------------


def test_a_lost_posture_is_told_with_what_was_found(world: World) -> None:
    token = claims_of(world.token(world.agent())["access_token"])
    lose_posture(world)
    steps = trace(world, token["jti"])
    assert kinds(steps) == ["enrolled", "attested", "credential", "token", "attested"]
    assert (steps[2]["ended_because"], steps[2]["ended_at"]) == ("posture_rejected", steps[4]["time"])
    assert (steps[4]["decision"], steps[4]["code"]) == ("refused", "posture_rejected")


def test_a_revoked_token_and_what_was_made_of_it_have_their_end(world: World) -> None:
    planner, helper = world.agent("planner"), world.agent("helper")
    first = world.delegated(planner, world.login.token())
    second = world.delegated(helper, first, ACCESS_TOKEN)
    assert world.revoke(planner, first).status == 200
    steps = trace(world, claims_of(first)["jti"])
    assert kinds(steps)[-1] == "revoked"
    ended = {step["token_id"]: step["ended_because"] for step in steps if step["step"] == "token"}
    assert ended == {claims_of(each)["jti"]: "revoked_by_client" for each in (first, second)}


def test_a_ban_is_told(world: World) -> None:
    token = claims_of(world.token(world.agent())["access_token"])
    world.deployment.operate("device", "ban", world.machine.device_id)
    steps = trace(world, token["jti"])
    assert (steps[-1]["step"], steps[-1]["verb"]) == ("admin", "device ban")
    assert steps[2]["ended_because"] == "banned"


def test_an_operators_admission_is_a_step(world: World) -> None:
    world.deployment.operate("device", "ban", world.machine.device_id)
    world.deployment.operate("device", "unban", world.machine.device_id)
    token = claims_of(world.token(world.agent())["access_token"])
    steps = trace(world, token["jti"])
    assert kinds(steps) == ["enrolled", "admin", "attested", "credential", "token"]
    assert steps[1]["verb"] == "device unban"


def test_a_refused_request_is_told_by_its_identifier(world: World) -> None:
    reply = world.ask(world.agent(), resource=TOOLS, scope="plan.everything")
    steps = trace(world, reply.headers["X-Request-Id"])
    assert (steps[-1]["step"], steps[-1]["decision"], steps[-1]["code"]) == (
        "token",
        "refused",
        "invalid_scope",
    )
    assert kinds(steps) == ["enrolled", "attested", "credential", "token"]
    assert "refused: invalid_scope, scope_widened" in told(world, reply.headers["X-Request-Id"])


def test_what_the_tables_forgot_the_log_still_tells(world: World) -> None:
    planner = world.agent()
    token = claims_of(world.delegated(planner, world.login.token()))
    before = trace(world, token["jti"])
    later = now_ms() + 400 * 86_400_000
    store = world.deployment.service.store
    store.write(lambda tx: tx.execute("DELETE FROM tokens"))
    store.write(lambda tx: credentials.purge(tx, later))
    assert trace(world, token["jti"]) == before


# --- what is believed -----------------------------------------------------------------------------


def test_what_nobody_proved_explains_nothing(world: World) -> None:
    """A record on the service's chain that names a token of a device is no step of that token."""
    token = claims_of(world.token(world.agent())["access_token"])
    before = trace(world, token["jti"])
    service = world.deployment.service
    lie = AuditEvent(
        event="token",
        decision="accepted",
        device_id=world.machine.device_id,
        request_id="r-lie",
        details={"token_id": token["jti"], "parents": [token["jti"]], "subject": "mallory", "expires_at": 1},
    )
    signer = service.audit_signer(now_ms())
    service.store.write(lambda tx: audit.append(tx, signer, lie, chain=None, now=now_ms()))
    assert trace(world, token["jti"]) == before


@pytest.mark.parametrize(
    "identifier", ["nothing", "-x", "%", "a%", "_" * 22, "a b", "", '","x":"', "a" * 300, "\x1b[2J"]
)
def test_what_is_unknown_ends_with_one_and_one_line(world: World, identifier: str) -> None:
    world.token(world.agent())
    ended = world.deployment.operate("audit", "trace", identifier, status=1)
    assert (ended.stdout, len(ended.stderr.splitlines())) == ("", 1)
    assert "\x1b" not in ended.stderr


def test_an_identifier_that_looks_like_an_option_is_one_nevertheless(world: World) -> None:
    planner = world.agent()
    for _ in range(400):
        token = claims_of(world.token(planner)["access_token"])
        if token["jti"].startswith("-"):
            break
    else:
        pytest.fail("no identifier began with a dash; each 64th does")
    assert trace(world, token["jti"])[-1]["token_id"] == token["jti"]


# --- for people -----------------------------------------------------------------------------------


def test_the_story_says_which_agent_on_whose_behalf_under_which_posture_and_policy(world: World) -> None:
    planner, helper = world.agent("planner"), world.agent("helper")
    first = world.delegated(planner, world.login.token())
    token = claims_of(world.delegated(helper, first, ACCESS_TOKEN))
    lines = told(world, token["jti"]).splitlines()
    marked = [number for number, line in enumerate(lines) if "→" in line]
    assert len(marked) == 1
    call = "\n".join(lines[marked[0] :])
    for part in (
        f"access token {token['jti']}",
        f"agent        {token['client_id']}",
        f"on behalf of alice of {LOGIN}",
        f"passed on by {token['act']['act']['sub']}",
        f"for          {TOOLS}  {token['scope']}",
        "posture      attestation ",
        f"bound to     jkt {token['cnf']['jkt']}",
        "until        ",
    ):
        assert part in call
    assert lines[0].endswith("enrolled: active, ek_verified")
    assert any("evidence     sha256:" in line for line in lines)


def test_what_a_stranger_chose_breaks_no_line(world: World) -> None:
    text = "alice\u2028\u202emallory"
    token = claims_of(world.delegated(world.agent(), world.login.token(sub="alice \u00fc")))
    assert "on behalf of alice \\u00fc of" in told(world, token["jti"])
    reply = world.exchange(world.agent(), world.login.token(sub=text))
    assert reply.status == 400
