"""Is what rests on a posture dead the moment that the posture is, and never younger than it says?"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from attestd.clock import now_ms
from attestd.oauth import posture
from attestd.oauth.client.choose import authenticate
from attestd.oauth.client.client import Client
from attestd.oauth.errors import OAuthError
from attestd.store import devices
from attestd.store.credentials import Issued
from attestd.store.devices import Device
from attestd.store.engine import Transaction
from tests.attestd.oauth.agents import (
    WAYS,
    Agent,
    accepted,
    by_assertion,
    by_certificate,
    by_jwt_svid,
    new_agent,
    prepared,
    refused,
)
from tests.attestd.oauth.conftest import MakeAgent
from tests.deployment import POLICY, Deployment, policy_for

HOUR = 3600


@pytest.fixture
def agent(agent_of: MakeAgent) -> Agent:
    return agent_of("private_key_jwt")


@pytest.fixture
def client(agent: Agent) -> Client:
    return accepted(agent, by_assertion(agent))


def fault(agent: Agent, device: Device | None, issued: Issued) -> str | None:
    return posture.fault(agent.deployment.service, device, issued, now=now_ms())


Change = Callable[[Device, Issued], tuple[Device | None, Issued]]
DEAD: list[tuple[str, Change]] = [
    ("credential_ended", lambda d, i: (d, replace(i, revoked_at=1))),
    ("credential_ended", lambda d, i: (d, replace(i, expires_at=now_ms()))),
    ("device_unknown", lambda d, i: (None, i)),
    ("device_unknown", lambda d, i: (replace(d, device_id="0" * 64), i)),
    ("device_banned", lambda d, i: (replace(d, state="banned"), i)),
    ("device_banned", lambda d, i: (replace(d, state="retired"), i)),
    ("device_pending", lambda d, i: (replace(d, state="pending"), i)),
    ("root_withdrawn", lambda d, i: (replace(d, root_sha256="0" * 64), i)),
    ("root_withdrawn", lambda d, i: (d, replace(i, root_sha256="0" * 64))),
    ("boot_ended", lambda d, i: (replace(d, reset_count=(d.reset_count or 0) + 1), i)),
    ("boot_ended", lambda d, i: (replace(d, restart_count=(d.restart_count or 0) + 1), i)),
    ("boot_ended", lambda d, i: (replace(d, reset_count=None, restart_count=None), i)),
    ("posture_lost", lambda d, i: (replace(d, posture="refused"), i)),
    ("posture_lost", lambda d, i: (replace(d, posture=None), i)),
]
_NO_CLIENT = {"credential_ended", "device_unknown", "device_banned", "device_pending"}


@pytest.mark.parametrize(("word", "change"), DEAD)
def test_what_rests_on_a_posture_dies_with_it(
    word: str, change: Change, agent: Agent, client: Client
) -> None:
    assert fault(agent, client.device, client.credential) is None
    device, issued = change(client.device, client.credential)
    assert fault(agent, device, issued) == word
    service = agent.deployment.service
    assert not posture.is_live(service, device, issued, now=now_ms())
    with pytest.raises(OAuthError) as refusal:
        posture.live_posture(service, device, issued, now=now_ms(), max_age=HOUR)
    expected = "invalid_client" if word in _NO_CLIENT else "invalid_grant"
    assert (refusal.value.error, refusal.value.cause) == (expected, word)


def test_a_device_that_the_operator_lists_needs_no_root(agent: Agent, client: Client) -> None:
    service = agent.deployment.service
    admission = replace(service.config.admission, ek_allow=frozenset({client.device.device_id}))
    listed = replace(service, config=replace(service.config, admission=admission))
    device = replace(client.device, root_sha256="0" * 64)
    assert posture.is_live(listed, device, client.credential, now=now_ms())
    assert not posture.is_live(service, device, client.credential, now=now_ms())


@pytest.mark.parametrize("denial", ["denied_manufacturers", "denied_firmware"])
def test_qt_12_what_was_issued_before_a_tpm_was_denied_is_dead(
    denial: str, agent: Agent, client: Client
) -> None:
    service, device = agent.deployment.service, client.device
    denied = {"denied_manufacturers": device.manufacturer, "denied_firmware": device.firmware_version}[denial]
    admission = replace(service.config.admission, **{denial: frozenset({denied})})
    strict = replace(service, config=replace(service.config, admission=admission))
    assert posture.fault(service, device, client.credential, now=now_ms()) is None
    assert posture.fault(strict, device, client.credential, now=now_ms()) == "tpm_denied"


def test_a_device_without_a_root_was_admitted_without_one(agent: Agent, client: Client) -> None:
    device, issued = replace(client.device, root_sha256=None), replace(client.credential, root_sha256=None)
    assert fault(agent, device, issued) is None


# --- until when -------------------------------------------------------------------------------------------

NOW = 1_764_000_000_000
MINUTE = 60_000
AGES: list[tuple[int | None, int, int, int | None]] = [
    # max_posture_age (s), posture's age (ms), credential's end (ms from now) → end (ms from now)
    (None, 0, 60 * MINUTE, 10 * MINUTE),
    (None, 0, 5 * MINUTE, 5 * MINUTE),
    (None, 10 * MINUTE, 60 * MINUTE, None),
    (3600, 0, 90 * MINUTE, 60 * MINUTE),
    (3600, 30 * MINUTE, 90 * MINUTE, 30 * MINUTE),
    (3600, 30 * MINUTE, 5 * MINUTE, 5 * MINUTE),
    (3600, 60 * MINUTE, 90 * MINUTE, None),
    (60, 0, 90 * MINUTE, MINUTE),
    (60, MINUTE - 1, 90 * MINUTE, 1),
    (60, MINUTE, 90 * MINUTE, None),
]


@pytest.mark.parametrize(("max_age", "age", "credential_left", "left"), AGES)
def test_nothing_new_outlives_the_posture_or_the_credential(
    max_age: int | None, age: int, credential_left: int, left: int | None, agent: Agent, client: Client
) -> None:
    device = replace(
        client.device, posture_at=NOW - age, posture_until=NOW - age + 10 * MINUTE, root_sha256=None
    )
    issued = replace(client.credential, expires_at=NOW + credential_left, root_sha256=None)
    service = agent.deployment.service
    if left is not None:
        assert posture.live_posture(service, device, issued, now=NOW, max_age=max_age) == NOW + left
        return
    with pytest.raises(OAuthError) as refusal:
        posture.live_posture(service, device, issued, now=NOW, max_age=max_age)
    assert (refusal.value.error, refusal.value.cause) == ("invalid_grant", "posture_old")
    # What was issued before lives until its own end.
    assert posture.is_live(service, device, issued, now=NOW)


def test_a_posture_without_a_time_is_old(agent: Agent, client: Client) -> None:
    device = replace(client.device, posture_at=None)
    service = agent.deployment.service
    for max_age in (None, HOUR):
        with pytest.raises(OAuthError) as refusal:
            posture.live_posture(service, device, client.credential, now=now_ms(), max_age=max_age)
        assert refusal.value.cause == "posture_old"


# --- with a real service ----------------------------------------------------------------------------------


def live(agent: Agent, client: Client, *, now: int | None = None) -> str | None:
    """The audit word of the refusal, asked in a transaction as the outcome's would be."""
    service = agent.deployment.service

    def ask(tx: Transaction) -> int:
        return posture.live_posture_in(
            service,
            tx,
            client.credential.credential_id,
            now=now or now_ms(),
            max_age=HOUR,
        )

    try:
        assert service.store.read(ask) > now_ms()
    except OAuthError as error:
        return error.cause
    return None


def test_a_ban_between_authentication_and_outcome_is_seen(deployment: Deployment) -> None:
    agent = new_agent(deployment, prepared(deployment), "wit-svid")
    client = accepted(agent, by_assertion(agent))
    assert live(agent, client) is None
    deployment.operate("device", "ban", agent.machine.device_id)
    assert live(agent, client) in ("credential_ended", "device_banned")
    refused(agent, by_assertion(agent), "invalid_client", "assertion_bad_signature")


def test_a_new_boot_ends_what_was_issued_in_the_last(deployment: Deployment) -> None:
    agent = new_agent(deployment, prepared(deployment), "wit-svid")
    client = accepted(agent, by_assertion(agent))
    rebooted = agent.machine.rebooted()
    deployment.attest(rebooted)
    assert live(agent, client) in ("credential_ended", "boot_ended")
    fresh = new_agent(deployment, rebooted.later(), "wit-svid")
    assert live(fresh, accepted(fresh, by_assertion(fresh))) is None


def test_a_refused_posture_ends_what_was_issued_before(deployment: Deployment) -> None:
    agent = new_agent(deployment, prepared(deployment), "x509-svid")
    client = accepted(agent, by_certificate(agent))
    bad = agent.machine.extended(7, bytes(32)).later()
    deployment.problem(deployment.round(bad).body(), 403, "posture_rejected", ends=1)
    assert live(agent, client) in ("credential_ended", "posture_lost")
    refused(agent, by_certificate(agent), "invalid_client", "credential_ended", status=401)


def test_a_withdrawn_root_is_seen_within_a_second(deployment: Deployment) -> None:
    agent = new_agent(deployment, prepared(deployment), "wit-svid")
    client = accepted(agent, by_assertion(agent))
    root = deployment.directory / "ek-roots" / "maker.pem"
    kept = root.read_bytes()
    root.unlink()
    assert live(agent, client, now=now_ms() + 1001) == "root_withdrawn"
    root.write_bytes(kept)
    assert live(agent, client, now=now_ms() + 3000) is None


def test_a_credential_that_nobody_issued_is_none(deployment: Deployment) -> None:
    service = deployment.service
    with pytest.raises(OAuthError) as refusal:
        service.store.read(
            lambda tx: posture.live_posture_in(service, tx, "unknown", now=now_ms(), max_age=None)
        )
    assert (refusal.value.error, refusal.value.cause) == ("invalid_client", "credential_ended")


def test_a_credential_of_a_device_that_was_forgotten_opens_nothing(deployment: Deployment) -> None:
    agent = new_agent(deployment, prepared(deployment), "wit-svid")
    deployment.service.store.write(
        lambda tx: tx.execute("DELETE FROM devices WHERE device_id = ?", (agent.machine.device_id,))
    )
    refused(agent, by_assertion(agent), "invalid_client", "device_unknown", status=401)


# --- the policy is the registration -----------------------------------------------------------------------


def registration(agent: Agent, cause: str) -> None:
    error = refused(agent, by_assertion(agent), "invalid_client", cause, status=401)
    assert (error.client_id, error.device_id) == (agent.client_id, agent.machine.device_id)


def edited(deployment: Deployment, old: str, new: str) -> str:
    text = (deployment.directory / POLICY).read_text()
    assert old in text
    return text.replace(old, new)


PLANNER = 'agent = "planner"\nformats = ["x509-svid", "wit-svid", "client-attestation"]\nkey = "any"'


def test_an_agent_that_the_policy_no_longer_grants_is_no_client(deployment: Deployment) -> None:
    agent = new_agent(deployment, prepared(deployment), "wit-svid")
    accepted(agent, by_assertion(agent))
    deployment.apply(edited(deployment, 'agent = "planner"', 'agent = "reader"'))
    registration(agent, "policy_grant_missing")


def test_a_format_that_the_grant_no_longer_gives_authenticates_nobody(deployment: Deployment) -> None:
    agent = new_agent(deployment, prepared(deployment), "wit-svid")
    deployment.apply(edited(deployment, PLANNER, PLANNER.replace('"wit-svid", ', "")))
    registration(agent, "policy_grant_missing")


def test_a_software_key_is_no_client_of_a_grant_that_now_wants_one_in_the_tpm(deployment: Deployment) -> None:
    machine = prepared(deployment)
    agent = new_agent(deployment, machine, "wit-svid")
    keeper = new_agent(deployment, machine, "wit-svid", name="keeper")
    accepted(agent, by_assertion(agent))
    deployment.apply(edited(deployment, PLANNER, PLANNER.replace("any", "tpm")))
    registration(agent, "policy_software_key")
    accepted(keeper, by_assertion(keeper))


def test_an_agent_that_the_policy_names_otherwise_now_is_another_client(deployment: Deployment) -> None:
    agent = new_agent(deployment, prepared(deployment), "wit-svid")
    renamed = PLANNER + '\nspiffe_id = "spiffe://{trust_domain}/robot/{device_id}"'
    deployment.apply(edited(deployment, PLANNER, renamed))
    registration(agent, "policy_id_changed")


def test_a_device_that_no_policy_covers_has_no_clients(deployment: Deployment) -> None:
    machine = prepared(deployment)
    agent = new_agent(deployment, machine, "wit-svid")
    top = '[match]\nlabels = { site = ["plant-1"] }'
    deployment.apply(policy_for(machine, top=top))
    registration(agent, "policy_none")


def test_a_bearer_grant_taken_back_ends_its_jwt_svids(deployment: Deployment) -> None:
    courier = new_agent(deployment, prepared(deployment), "jwt-svid", name="courier")
    accepted(courier, by_jwt_svid(courier))
    deployment.apply(edited(deployment, "bearer = true", "bearer = false"))
    refused(courier, by_jwt_svid(courier), "invalid_client", "not_bearer")


@pytest.mark.parametrize("method", WAYS)
def test_what_is_read_is_the_state_of_the_store_now(method: str, agent_of: MakeAgent) -> None:
    agent = agent_of(method)
    client = authenticate(agent.deployment.service, WAYS[method][2](agent))
    now = agent.deployment.service.store.read(lambda tx: devices.find(tx, agent.machine.device_id))
    assert client.device == now
