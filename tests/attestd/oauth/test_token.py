"""The token endpoint: who gets what, bound to what, for how long, and what the audit says of it."""

from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest

from attestd.clock import now_ms
from tests.attestd.oauth.agents import seconds
from tests.attestd.oauth.world import LEDGER, LOGIN, TOOLS, World, jkt


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World.create(tmp_path_factory.mktemp("token") / "service")
    yield made
    made.deployment.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[World]:
    """A world of the test's own."""
    made = World.create(tmp_path / "service")
    yield made
    made.deployment.close()


def claims(token: str) -> dict:
    return jwt.decode(token, options={"verify_signature": False})


def test_an_agent_gets_a_token_bound_to_its_key_for_one_audience(world: World) -> None:
    agent = world.agent()
    reply = world.ask(agent, resource=TOOLS, scope="plan.write plan.read")
    assert reply.status == 200, reply
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["DPoP-Nonce"]
    assert (reply.members["token_type"], reply.members["scope"]) == ("DPoP", "plan.read plan.write")
    assert 290 <= reply.members["expires_in"] <= 300
    told = claims(reply.members["access_token"])
    assert told["sub"] == told["client_id"] == agent.client_id
    assert (told["aud"], told["cnf"]) == (TOOLS, {"jkt": jkt(agent)})
    assert told["iss"] == "http://127.0.0.1:8440"
    assert "act" not in told


def test_the_audit_says_who_got_what_under_which_posture_and_policy(world: World) -> None:
    agent = world.agent()
    reply = world.ask(agent, resource=TOOLS, scope="plan.read")
    record = world.deployment.audit(event="token", decision="accepted")[-1]
    told = claims(reply.members["access_token"])
    assert record["request_id"] == reply.headers["X-Request-Id"]
    assert record["device_id"] == record["chain"] == world.machine.device_id
    assert record["policy"] == told["urn:attestd:attestation"]["policy"]
    expected = {
        "agent": "planner",
        "client_id": agent.client_id,
        "subject": agent.client_id,
        "audience": [TOOLS],
        "scope": "plan.read",
        "token_id": told["jti"],
        "attestation_id": told["urn:attestd:attestation"]["attestation"],
        "method": "private_key_jwt",
        "grant_type": "client_credentials",
    }
    assert record["details"].items() >= expected.items()
    assert reply.members["access_token"] not in str(record)


# --- what is asked for ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "error", "cause"),
    [
        ({"grant_type": None}, "invalid_request", "grant_type"),
        ({"grant_type": "password"}, "unsupported_grant_type", "grant_type"),
        ({"grant_type": "refresh_token"}, "unsupported_grant_type", "grant_type"),
        ({"grant_type": ["client_credentials", "client_credentials"]}, "invalid_request", "parameter_twice"),
        ({"scope": ["plan.read", "plan.read"]}, "invalid_request", "parameter_twice"),
        ({"unheard_of": ["1", "2"]}, "invalid_request", "parameter_twice"),
        ({"scope": "root"}, "invalid_scope", "scope_widened"),
        ({"scope": "plan.read  plan.write"}, "invalid_scope", None),
        ({"resource": "https://else.example.org"}, "invalid_target", "target_widened"),
        ({"resource": TOOLS + "/"}, "invalid_target", "target_widened"),
        ({"resource": TOOLS + "#x"}, "invalid_target", "resource"),
        ({"resource": "tools"}, "invalid_target", "resource"),
        ({"resource": [TOOLS, LEDGER]}, "invalid_target", "audiences"),
        ({"resource": None}, "invalid_target", "no_target"),
        ({"authorization_details": "[]"}, "invalid_authorization_details", "details_form"),
        ({"authorization_details": '[{"type":"erase"}]'}, "invalid_authorization_details", "details_type"),
    ],
)
def test_oa_11_what_the_grant_does_not_give_is_refused_by_the_rfcs_name(
    world: World, form: dict, error: str, cause: str | None
) -> None:
    reply = world.ask(world.agent(), **({"resource": TOOLS} | form))
    assert reply.error == (400, error)
    assert "access_token" not in reply.members
    record = world.deployment.audit(event="token", decision="refused")[-1]
    assert (record["code"], record["cause"]) == (error, cause)


def test_authorization_details_are_granted_as_they_were_asked_for(world: World) -> None:
    details = '[{"type":"transfer","actions":["start"],"amount":"12.50"}]'
    members = world.token(world.agent(), authorization_details=details)
    expected = [{"type": "transfer", "actions": ["start"], "amount": "12.50"}]
    assert members["authorization_details"] == expected
    assert claims(members["access_token"])["authorization_details"] == expected


def test_without_a_scope_the_token_has_all_of_the_grant_and_unknown_parameters_are_ignored(
    world: World,
) -> None:
    members = world.token(world.agent(), colour="blue", scope="")
    assert members["scope"] == "plan.read plan.write plan.admin"


def test_a_token_without_scopes_is_said_to_have_none_rather_than_an_empty_one(world: World) -> None:
    given = world.bearer(world.agent("courier", "jwt-svid"))
    assert given.members["scope"] == claims(given.members["access_token"])["scope"] == "plan.read"
    given = world.ask(world.agent("porter"), {}, resource=TOOLS)
    assert given.status == 200, given
    assert not {"scope"} & (given.members.keys() | claims(given.members["access_token"]).keys())


def test_a_grant_without_audiences_gives_no_token(world: World) -> None:
    reply = world.ask(world.agent("mute"), resource=TOOLS)
    world.refused(reply, 400, "unauthorized_client", "no_audiences")


# --- how it is bound --------------------------------------------------------------------------------------


def test_without_a_proof_of_the_key_there_is_no_token(world: World) -> None:
    agent = world.agent()
    reply = world.ask(agent, {}, resource=TOOLS)
    world.refused(reply, 400, "invalid_dpop_proof", "dpop_missing")
    assert reply.headers["DPoP-Nonce"]
    again = world.ask(agent, {"DPoP": agent.dpop(nonce=reply.headers["DPoP-Nonce"])}, resource=TOOLS)
    assert again.status == 200, again


def test_a_proof_by_another_key_than_the_credentials_binds_nothing(world: World) -> None:
    other = world.agent("helper")
    reply = world.ask(world.agent(), {"DPoP": other.dpop()}, resource=TOOLS)
    world.refused(reply, 400, "invalid_dpop_proof", "dpop_other_key")


def test_a_bearer_token_is_given_where_the_policy_says_so_and_bound_if_there_is_a_proof(world: World) -> None:
    members = world.bearer(world.agent("courier", "jwt-svid")).members
    assert members["token_type"] == "Bearer"
    assert "cnf" not in claims(members["access_token"])
    porter = world.agent("porter")
    assert world.ask(porter, {}, resource=TOOLS).members["token_type"] == "Bearer"
    assert world.ask(porter, resource=TOOLS).members["token_type"] == "DPoP"


def test_a_tpm_grant_gives_tokens_for_tpm_keys_alone(own: World) -> None:
    keeper = own.agent("keeper")
    assert own.token(keeper)["token_type"] == "DPoP"
    own.deployment.service.store.write(lambda tx: tx.execute("UPDATE credentials SET resident = 0"))
    assert own.ask(keeper, resource=TOOLS).error == (401, "invalid_client")


# --- how long it lives ------------------------------------------------------------------------------------


def test_a_token_ends_with_the_first_thing_that_it_rests_on(own: World) -> None:
    agent = own.agent()
    policy = (own.deployment.directory / "pcr-policy.toml").read_text()
    assert own.token(agent)["expires_in"] in (299, 300)
    own.deployment.apply(policy.replace('max_posture_age = "1h"', 'max_posture_age = "90s"'))
    assert 80 <= own.token(agent)["expires_in"] <= 90
    own.deployment.apply(policy.replace('ttl = "10m"\nscopes', 'ttl = "60s"\nscopes'))
    assert own.token(agent)["expires_in"] <= 60


def test_a_token_never_outlives_the_credential_of_its_client(own: World) -> None:
    agent = own.agent()
    end = (seconds() + 40) * 1000
    own.deployment.service.store.write(
        lambda tx: tx.execute("UPDATE credentials SET expires_at = ?", (end,)).rowcount
    )
    assert claims(own.token(agent)["access_token"])["exp"] == end // 1000


def test_a_posture_that_is_too_old_gives_no_token_until_the_machine_attests_again(own: World) -> None:
    agent = own.agent()
    old = now_ms() - 2 * 3600 * 1000
    own.deployment.service.store.write(
        lambda tx: tx.execute("UPDATE devices SET posture_at = ?", (old,)).rowcount
    )
    own.refused(own.ask(agent, resource=TOOLS), 400, "invalid_grant", "posture_old")
    own.deployment.attest(own.machine.later())
    assert own.token(agent)


def test_the_audit_says_for_whom_and_on_whose_behalf_a_token_was_refused(world: World) -> None:
    agent, user = world.agent(), world.login.token(scope="plan.read")
    long = "https://x.example/" + "y" * 9000
    cases = [
        (world.exchange(agent, user, scope="plan.write"), (TOOLS, "plan.write", "alice", LOGIN)),
        (
            world.exchange(agent, world.login.token(exp=1), scope="plan.read"),
            (TOOLS, "plan.read", None, None),
        ),
        (world.ask(agent, resource=long), (long[:512], "", agent.client_id, None)),
    ]
    records = world.deployment.audit(event="token", decision="refused")[-len(cases) :]
    for (reply, (audience, *expected)), record in zip(cases, records, strict=True):
        assert (reply.status, record["request_id"]) == (400, reply.headers["X-Request-Id"])
        told = record["details"]
        assert told["audience"] == [audience]
        assert [told[name] for name in ("scope", "subject", "subject_issuer")] == expected
    assert user not in str(records)


# --- once ------------------------------------------------------------------------------------------


def test_oa_1_a_proof_is_good_once_and_its_twin_with_a_new_jti_again(world: World) -> None:
    agent = world.agent()
    proof = agent.dpop()
    assert world.ask(agent, {"DPoP": proof}, resource=TOOLS).status == 200
    reply = world.ask(agent, {"DPoP": proof}, resource=TOOLS)
    world.refused(reply, 400, "invalid_dpop_proof", "replayed")
    assert world.ask(agent, resource=TOOLS).status == 200


def test_oa_8_a_client_assertion_is_good_once(world: World) -> None:
    agent = world.agent()
    assertion = agent.assertion()
    assert world.ask(agent, resource=TOOLS, client_assertion=assertion).status == 200
    reply = world.ask(agent, resource=TOOLS, client_assertion=assertion)
    world.refused(reply, 401, "invalid_client", "replayed")


def test_a_refused_request_spends_its_proofs_too(world: World) -> None:
    agent = world.agent()
    proof, assertion = agent.dpop(), agent.assertion()
    refused = world.ask(agent, {"DPoP": proof}, resource=TOOLS, scope="root", client_assertion=assertion)
    assert refused.error == (400, "invalid_scope")
    again = world.ask(agent, {"DPoP": agent.dpop()}, resource=TOOLS, client_assertion=assertion)
    world.refused(again, 401, "invalid_client", "replayed")
    again = world.ask(agent, {"DPoP": proof}, resource=TOOLS)
    world.refused(again, 400, "invalid_dpop_proof", "replayed")


# --- posture is live --------------------------------------------------------------------------------------


def test_a_banned_device_gets_no_token_until_it_is_let_in_again_and_attests(own: World) -> None:
    agent = own.agent()
    assert own.token(agent)
    own.deployment.operate("device", "ban", own.machine.device_id)
    assert own.ask(agent, resource=TOOLS).error == (401, "invalid_client")
    own.deployment.operate("device", "unban", own.machine.device_id)
    own.agents.clear()
    assert own.token(own.agent())


def test_a_refused_posture_ends_what_the_agent_may_ask_for(own: World) -> None:
    agent = own.agent()
    changed = own.machine.later().extended(7, b"\x01" * 32)
    ends = own.deployment.live(own.machine)
    own.deployment.problem(own.deployment.round(changed).body(), 403, "posture_rejected", ends=ends)
    assert own.ask(agent, resource=TOOLS).error == (401, "invalid_client")


def test_a_new_boot_ends_what_the_agent_may_ask_for(own: World) -> None:
    agent = own.agent()
    own.deployment.attest(own.machine.rebooted())
    assert own.ask(agent, resource=TOOLS).error == (401, "invalid_client")


def test_a_withdrawn_root_ends_what_the_agent_may_ask_for(own: World) -> None:
    agent = own.agent()
    assert own.token(agent)
    (own.deployment.directory / "ek-roots" / "maker.pem").unlink()
    own.deployment.service.trust._looked = 0
    reply = own.ask(agent, resource=TOOLS)
    assert reply.error in ((400, "invalid_grant"), (401, "invalid_client"))
    record = own.deployment.audit(event="token", decision="refused")[-1]
    assert record["cause"] == "root_withdrawn"


def test_a_policy_that_no_longer_names_the_agent_ends_its_registration(own: World) -> None:
    agent = own.agent()
    policy = (own.deployment.directory / "pcr-policy.toml").read_text()
    own.deployment.apply(policy.replace('agent = "planner"', 'agent = "other"'))
    assert own.ask(agent, resource=TOOLS).error == (401, "invalid_client")
    own.deployment.apply(policy)
    assert own.token(agent)


# --- the form ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "content_type", "status", "error"),
    [
        (b'{"grant_type":"client_credentials"}', "application/json", 400, "invalid_request"),
        (b"grant_type=client_credentials", "text/plain", 400, "invalid_request"),
        (
            b"grant_type=client_credentials",
            "application/x-www-form-urlencoded; charset=latin-1",
            400,
            "invalid_request",
        ),
        (b"grant_type", "application/x-www-form-urlencoded", 400, "invalid_request"),
        (b"grant_type=%zz", "application/x-www-form-urlencoded", 400, "invalid_request"),
        (b"grant_type=%ff%fe", "application/x-www-form-urlencoded", 400, "invalid_request"),
        (b"grant_type=a%00b", "application/x-www-form-urlencoded", 400, "invalid_request"),
        (b"grant_type=\xc3\xa4", "application/x-www-form-urlencoded", 400, "invalid_request"),
        (
            b"&".join(b"a%d=1" % n for n in range(65)),
            "application/x-www-form-urlencoded",
            400,
            "invalid_request",
        ),
        (b"a=" + b"x" * 140_000, "application/x-www-form-urlencoded", 413, "too_large"),
        (b"", "application/x-www-form-urlencoded", 400, "invalid_request"),
        (b"grant_type=client_credentials", "application/x-www-form-urlencoded", 401, "invalid_client"),
        (
            b"grant_type=client%5Fcredentials",
            "Application/X-WWW-Form-URLEncoded;charset=UTF-8",
            401,
            "invalid_client",
        ),
    ],
)
def test_oa_11_a_form_is_read_in_one_way_or_not_at_all(
    world: World, body: bytes, content_type: str, status: int, error: str
) -> None:
    answer = world.deployment.client.post("/oauth/token", data=body, content_type=content_type)
    told = answer.get_json(force=True)
    assert (answer.status_code, told.get("error", told.get("code"))) == (status, error), told


def test_parameters_in_the_url_are_refused(world: World) -> None:
    reply = world.post("/oauth/token?grant_type=client_credentials", {})
    world.refused(reply, 400, "invalid_request", "query")


def test_another_method_than_post_is_none(world: World) -> None:
    for path in ("/oauth/token", "/oauth/introspect", "/oauth/revoke", "/oauth/challenge"):
        assert world.deployment.client.get(path).status_code == 405


def test_oa_5_a_certificate_in_a_header_is_a_header_like_any_other(world: World) -> None:
    agent = world.agent("planner", "x509-svid")
    for name in ("X-SSL-Client-Cert", "X-Forwarded-Client-Cert", "Client-Cert", "SSL-CLIENT-CERT"):
        form = {"grant_type": "client_credentials", "client_id": agent.client_id, "resource": TOOLS}
        reply = world.post("/oauth/token", form, {name: agent.text.replace("\n", "")})
        world.refused(reply, 401, "invalid_client", "client_missing")


def test_what_nobody_proved_is_counted_and_not_written_one_by_one(tmp_path: Path) -> None:
    world = World.create(tmp_path / "service", settings={"audit_unproven": "2"})
    for _ in range(5):
        assert world.post("/oauth/token", {"grant_type": "client_credentials"}).error == (
            401,
            "invalid_client",
        )
    assert len(world.deployment.audit(event="token", code="invalid_client")) == 2
    world.deployment.service.close()
    counted = world.deployment.audit(event="token", code="invalid_client", cause="counted")
    assert [record["count"] for record in counted] == [3]


def test_a_secret_is_no_way_to_authenticate(world: World) -> None:
    form = {"grant_type": "client_credentials", "client_id": "x", "client_secret": "y"}
    world.refused(world.post("/oauth/token", form), 401, "invalid_client", "client_secret")
    reply = world.post("/oauth/token", {"grant_type": "client_credentials"}, {"Authorization": "Basic eDp5"})
    world.refused(reply, 401, "invalid_client", "client_secret")
    assert reply.headers["WWW-Authenticate"].startswith("Basic")


def test_every_audit_record_still_verifies(world: World) -> None:
    assert world.deployment.operate("audit", "verify").exit_code == 0
