"""An agent gets what authenticates it as an OAuth client, bound to a key that it proved."""

import json
from typing import Any

import jwt
import pytest

from attestd.store import credentials
from attestd.store.credentials import Issued
from tests.attester import Machine, TpmKey, jwk_of, new_key, signing_key
from tests.deployment import SERVER, Deployment, credential, policy_for

GRANTS = """
[[grant]]
agent = "planner"
formats = ["client-attestation"]
ttl = "7m"
key = "tpm"
scopes = ["plan.read"]
[[grant]]
agent = "helper"
formats = ["client-attestation", "wit-svid"]
key = "any"
"""


@pytest.fixture
def agents(deployment: Deployment) -> Machine:
    """A machine that is accepted, with an agent of each rule for keys."""
    machine = deployment.machine()
    deployment.apply(policy_for(machine, extra=GRANTS))
    return machine


def wanted(agent: str, key: Any, **members: Any) -> dict[str, Any]:
    return credential("client-attestation", agent, key=key, **members)


def named(key: TpmKey) -> dict[str, str]:
    return {"name": key.name.hex()}


def row(deployment: Deployment, credential_id: str) -> Issued:
    found = deployment.service.store.read(lambda tx: credentials.get(tx, credential_id))
    assert found is not None
    return found


def test_a_client_attestation_is_bound_to_the_key_that_lives_in_the_tpm(
    deployment: Deployment, agents: Machine
) -> None:
    key = signing_key()
    answer = deployment.attest(agents, certified=[key], credentials=[wanted("planner", named(key))])
    (given,) = answer["credentials"]
    spiffe_id = f"spiffe://example.org/agent/planner/{agents.device_id}"
    assert given.keys() == {"format", "spiffe_id", "agent", "token", "expires_at"}
    assert (given["format"], given["agent"], given["spiffe_id"]) == (
        "client-attestation",
        "planner",
        spiffe_id,
    )
    header = jwt.get_unverified_header(given["token"])
    published = jwt.PyJWKSet.from_dict(json.loads(deployment.client.get("/.well-known/jwks.json").data))
    claims = jwt.decode(given["token"], published[header["kid"]], algorithms=["ES256"], issuer=SERVER)
    assert header["typ"] == "oauth-client-attestation+jwt"
    assert (claims["sub"], claims["exp"] - claims["iat"]) == (spiffe_id, 420)
    assert claims["cnf"]["jwk"] == jwk_of(key.key)
    kept = row(deployment, claims["jti"])
    assert (kept.format, kept.resident, kept.spiffe_id) == ("client-attestation", True, spiffe_id)
    assert json.loads(str(kept.key_jwk)) == jwk_of(key.key)
    details = deployment.audit(event="issue", decision="accepted")[-1]
    assert (details["details"]["format"], details["details"]["credential_id"]) == (
        "client-attestation",
        claims["jti"],
    )


def test_a_software_key_is_bound_where_the_grant_allows_any_and_is_kept_as_such(
    deployment: Deployment, agents: Machine
) -> None:
    key = new_key("p256")
    answer = deployment.attest(agents, credentials=[wanted("helper", jwk_of(key))])
    claims = jwt.decode(answer["credentials"][0]["token"], options={"verify_signature": False})
    kept = row(deployment, claims["jti"])
    assert claims["cnf"]["jwk"] == json.loads(str(kept.key_jwk)) == jwk_of(key)
    assert not kept.resident


def test_a_grant_that_demands_a_tpm_key_never_gives_one_for_a_software_key(
    deployment: Deployment, agents: Machine
) -> None:
    body = deployment.round(agents, credentials=[wanted("planner", jwk_of(new_key("p256")))]).body()
    refused = deployment.problem(body, 403, "not_entitled")
    assert refused["pointer"] == "/credentials/0/key"
    key = signing_key()
    deployment.attest(agents.later(), certified=[key], credentials=[wanted("planner", named(key))])


@pytest.mark.parametrize(
    ("key", "members", "pointer"),
    [
        (None, {}, "/request/credentials/0/key"),
        ("jwk", {"audience": ["https://a.example.org"]}, "/request/credentials/0/audience"),
        ("private", {}, "/request/credentials/0/key"),
        ("alg", {}, "/request/credentials/0/key"),
    ],
)
def test_a_client_attestation_that_is_asked_for_wrongly_is_malformed(
    deployment: Deployment, agents: Machine, key: str | None, members: dict[str, Any], pointer: str
) -> None:
    jwk = jwk_of(new_key("p256"))
    keys = {None: None, "jwk": jwk, "private": {**jwk, "d": jwk["x"]}, "alg": {**jwk, "alg": "HS256"}}
    body = deployment.round(agents, credentials=[wanted("helper", keys[key], **members)]).body()
    refused = deployment.problem(body, 400, "malformed")
    assert refused["pointer"] == pointer
    deployment.attest(agents.later(), credentials=[wanted("helper", jwk)])


def test_an_agent_without_the_format_in_its_grant_gets_none(deployment: Deployment, agents: Machine) -> None:
    body = deployment.round(agents, credentials=[wanted("billing", jwk_of(new_key("p256")))]).body()
    assert deployment.problem(body, 403, "not_entitled")["pointer"] == "/credentials/0"


def test_key_reuse_no_client_attestation_is_bound_to_another_devices_key(
    deployment: Deployment, agents: Machine
) -> None:
    key = jwk_of(new_key("p256"))
    other = deployment.machine()
    deployment.apply(policy_for(other, extra=GRANTS, registers=(0, 7)))
    deployment.attest(agents, credentials=[wanted("helper", key)])
    body = deployment.round(other, credentials=[wanted("helper", key)]).body()
    assert deployment.problem(body, 409, "identity_bound")["pointer"] == "/credentials/0/key"
    deployment.attest(other.later(), credentials=[wanted("helper", jwk_of(new_key("p256")))])


def test_every_bound_format_keeps_the_key_that_a_client_proves(
    deployment: Deployment, agents: Machine
) -> None:
    key = signing_key()
    asked = [
        credential("x509-svid", "telemetry", key=named(key)),
        credential("wit-svid", "telemetry", key=named(key)),
        credential("jwt-svid", audience=["https://a.example.org"]),
    ]
    deployment.attest(agents, certified=[key], credentials=asked)
    spiffe_id = f"spiffe://example.org/agent/telemetry/{agents.device_id}"
    listed = deployment.service.store.read(lambda tx: credentials.list_for_device(tx, agents.device_id))
    now = max(each.issued_at for each in listed)
    by_format = {each.format: each for each in listed}
    assert by_format["jwt-svid"].key_jwk is None
    for form in ("x509-svid", "wit-svid"):
        found = deployment.service.store.read(
            lambda tx, form=form: credentials.find_bound(
                tx, spiffe_id, str(by_format[form].key_thumbprint), now, credential_format=form
            )
        )
        assert found == by_format[form]
        assert found.resident
        assert json.loads(str(found.key_jwk)) == jwk_of(key.key)


def test_oa_9_a_new_boot_ends_the_client_attestations_of_the_last(
    deployment: Deployment, agents: Machine
) -> None:
    jwk = jwk_of(new_key("p256"))
    answer = deployment.attest(agents, credentials=[wanted("helper", jwk)])
    claims = jwt.decode(answer["credentials"][0]["token"], options={"verify_signature": False})
    assert row(deployment, claims["jti"]).revoked_at is None
    deployment.attest(agents.later(), credentials=[wanted("helper", jwk)])
    assert row(deployment, claims["jti"]).revoked_at is None
    deployment.attest(agents.rebooted())
    assert row(deployment, claims["jti"]).revoked_reason == "boot_ended"
