"""What changes between the judgement and the record keeps the token from leaving."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import jwt
import pytest

from attestd.clock import now_ms
from attestd.issue import access_token
from attestd.issue.jws import sign
from attestd.oauth.client.choose import authenticate
from attestd.oauth.draft import Draft, narrow
from attestd.oauth.errors import OAuthError
from attestd.oauth.grants import client_credentials, token_exchange
from attestd.oauth.grants.asked import Asked
from attestd.oauth.record import record_token
from attestd.oauth.request import Request
from attestd.oauth.server import AuthorizationServer
from attestd.store import tokens
from attestd.wire import Problem
from tests.attestd.oauth.agents import by_assertion
from tests.attestd.oauth.world import ACCESS_TOKEN, LEDGER, TOOLS, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.create(tmp_path / "service")
    yield made
    made.deployment.close()


def asked_for(world: World, subject: str | None = None) -> tuple[Request, Asked]:
    """What the helper asks for, on its own authority or on behalf of a token's subject."""
    service = world.deployment.service
    agent = world.agent("helper", machine=world.machine)
    parameters = {"resource": (TOOLS,)}
    if subject is not None:
        parameters |= {"subject_token": (subject,), "subject_token_type": (ACCESS_TOKEN,)}
    request = by_assertion(agent, parameters=parameters, headers={"dpop": agent.dpop()})
    client = authenticate(service, request)
    ask = client_credentials.ask if subject is None else token_exchange.ask
    return request, ask(AuthorizationServer.open(service), request, client)


def drafted(world: World, subject: str | None = None) -> tuple[Request, Draft]:
    request, asked = asked_for(world, subject)
    return request, narrow(world.deployment.service, request, asked, token_id="token-1")


def record(world: World, request: Request, draft: Draft) -> None:
    kid = world.deployment.service.keyring.at(request.now).signer("jwt").kid
    record_token(world.deployment.service, request, draft, kid=kid)


def kept(world: World, token_id: str = "token-1") -> bool:
    return world.deployment.service.store.read(lambda tx: tokens.get(tx, token_id)) is not None


def test_what_did_not_change_is_kept(world: World) -> None:
    request, draft = drafted(world)
    record(world, request, draft)
    assert kept(world)


Change = Callable[[World], object]


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


def narrow_policy(world: World) -> None:
    policy = (world.deployment.directory / "pcr-policy.toml").read_text()
    world.deployment.apply(policy.replace('"help"', '"other"'))


def override_policy(world: World) -> None:
    """A more specific policy decides from now on; the one before is still in force for others."""
    policy = (world.deployment.directory / "pcr-policy.toml").read_text()
    world.deployment.operate("device", "label", world.machine.device_id, "site=x")
    text = policy.replace('name = "plant"', 'name = "site"', 1) + '\n[match]\nlabels = { site = ["x"] }\n'
    world.deployment.apply(text.replace('"help"', '"other"'), name="site.toml")


def rotate_key(world: World) -> None:
    world.deployment.service.store.write(
        lambda tx: tx.execute("UPDATE signing_keys SET state = 'retired' WHERE key_use = 'jwt'").rowcount
    )


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (ban, "credential_ended"),
        (lose_posture, "credential_ended"),
        (reboot, "credential_ended"),
        (withdraw_root, "root_withdrawn"),
        (narrow_policy, "policy_changed"),
        (override_policy, "policy_changed"),
        (rotate_key, "key_changed"),
    ],
)
def test_a_token_that_is_drafted_does_not_leave_when_this_changes(
    world: World, change: Change, cause: str
) -> None:
    request, draft = drafted(world)
    kid = world.deployment.service.keyring.at(request.now).signer("jwt").kid
    change(world)
    with pytest.raises(OAuthError) as caught:
        record_token(world.deployment.service, request, draft, kid=kid)
    assert caught.value.cause == cause
    assert caught.value.recorded
    assert not kept(world)
    last = world.deployment.audit(event="token", decision="refused")[-1]
    assert (last["cause"], last["device_id"]) == (cause, world.machine.device_id)


def test_a_device_state_alone_is_enough(world: World) -> None:
    """Where the credential's row still says that it is good."""
    request, draft = drafted(world)
    world.deployment.service.store.write(
        lambda tx: tx.execute("UPDATE devices SET state = 'banned'").rowcount
    )
    with pytest.raises(OAuthError) as caught:
        record(world, request, draft)
    assert caught.value.cause == "device_banned"


@pytest.mark.parametrize("how", ["revoked", "machine"])
def test_oa_9_a_parent_that_ends_meanwhile_has_no_child(world: World, how: str) -> None:
    second = world.deployment.machine()
    planner = world.agent(machine=second)
    first = world.delegated(planner, world.login.token())
    request, draft = drafted(world, first)
    if how == "revoked":
        assert world.revoke(planner, first).status == 200
    else:
        world.deployment.service.store.write(
            lambda tx: (
                tx.execute(
                    "UPDATE devices SET posture = 'refused' WHERE device_id = ?", (second.device_id,)
                ).rowcount
            )
        )
    with pytest.raises(OAuthError) as caught:
        record(world, request, draft)
    assert (caught.value.error, caught.value.cause) == ("invalid_request", "subject_inactive")
    assert not kept(world)


def test_a_clock_that_went_back_keeps_nothing(world: World) -> None:
    request, draft = drafted(world)
    ahead = now_ms() + 3_600_000
    world.deployment.service.store.write(
        lambda tx: tx.execute("UPDATE meta SET value = ? WHERE key = 'highest_time'", (str(ahead),)).rowcount
    )
    with pytest.raises(Problem) as caught:
        record(world, request, draft)
    assert caught.value.cause == "clock_went_back"
    assert not kept(world)


def test_proofs_are_spent_before_anything_is_kept(world: World) -> None:
    request, draft = drafted(world)
    record(world, request, draft)
    again = replace(draft, token=replace(draft.token, token_id="token-2"))
    with pytest.raises(OAuthError) as caught:
        record(world, request, again)
    assert caught.value.cause == "replayed"
    assert not kept(world, "token-2")


def test_a_software_key_gets_no_token_of_a_tpm_grant(world: World) -> None:
    """Whatever the registration has said of it."""
    request, asked = asked_for(world)
    client = asked.client
    bound = replace(client, grant=replace(client.grant, key="tpm"))
    with pytest.raises(OAuthError) as caught:
        narrow(world.deployment.service, request, replace(asked, client=bound), token_id="token-1")
    assert caught.value.cause == "software_key"
    resident = replace(bound, resident=True)
    assert narrow(world.deployment.service, request, replace(asked, client=resident), token_id="token-1")


def test_a_token_that_our_key_signed_in_another_name_is_inactive(world: World) -> None:
    service = world.deployment.service
    token = world.token(world.agent())["access_token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    signer = service.keyring.at(now_ms()).signer("jwt")
    for changes in ({"iss": "https://else.example.org"}, {"aud": LEDGER}, {"exp": 1}, {"jti": "unknown"}):
        assert not world.is_active(sign(signer, typ=access_token.TYP, claims={**claims, **changes}))
    assert not world.is_active(sign(signer, typ="JWT", claims=claims))
    assert world.is_active(sign(signer, typ=access_token.TYP, claims=claims))


def test_an_actor_token_whose_credential_was_ended_is_refused(world: World) -> None:
    agent = world.agent()
    other = world.agent("planner", "client-attestation")
    form = {"actor_token": other.text, "actor_token_type": "urn:ietf:params:oauth:token-type:jwt"}
    assert world.exchange(agent, world.login.token(), **form).status == 200
    world.deployment.service.store.write(
        lambda tx: (
            tx.execute("UPDATE credentials SET revoked_at = 1 WHERE format = 'client-attestation'").rowcount
        )
    )
    reply = world.exchange(agent, world.login.token(), **form)
    world.refused(reply, 400, "invalid_request", "actor_credential_ended")


def test_a_device_that_asks_too_often_has_to_wait(tmp_path: Path) -> None:
    settings = {"audit_unproven": "0", "device_per_minute": "2"}
    world = World.create(tmp_path / "limited", settings=settings)
    agent = world.agent()
    replies = [world.ask(agent, resource=TOOLS) for _ in range(3)]
    assert [reply.status for reply in replies].count(429) >= 1
    assert replies[-1].headers["Retry-After"]
    assert world.revoke(agent, "x").status == 429
    world.deployment.close()


def test_whoever_holds_an_ended_credential_is_counted_against_its_address(tmp_path: Path) -> None:
    settings = {"audit_unproven": "0", "unproven_per_second": "5", "device_per_minute": "0"}
    world = World.create(tmp_path / "limited", settings=settings)
    agent, form = world.agent(), {"grant_type": "client_credentials", "resource": TOOLS}
    proofs = [{"Workload-Identity-Token": agent.text, "Workload-Proof-Token": agent.wpt()} for _ in range(40)]
    # A proven client is not, whether it is refused (it shows no DPoP proof) or not.
    assert {world.post("/oauth/token", form, one).error for one in proofs} == {(400, "invalid_dpop_proof")}
    world.deployment.operate("device", "ban", agent.machine.device_id)
    statuses = [world.post("/oauth/token", form, proofs[0]).status for _ in range(40)]
    assert statuses[0] == 400
    assert 429 in statuses
    world.deployment.close()
