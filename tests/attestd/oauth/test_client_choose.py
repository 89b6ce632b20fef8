"""Does a request authenticate in exactly one way, and each token in the one place that is its own?"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from attestd.clock import now_ms
from attestd.oauth.client.client import Confirmation
from attestd.oauth.replay import Spend
from attestd.oauth.request import Request
from attestd.store import nonces
from attestd.store.store import Store
from tests.attestd.oauth import agents
from tests.attestd.oauth.agents import (
    ASSERTION,
    SVID_ASSERTION,
    WAYS,
    Agent,
    accepted,
    refused,
    request,
    thumbprint,
)
from tests.attestd.oauth.conftest import MakeAgent
from tests.attester import b64, new_key


@pytest.mark.parametrize("method", WAYS)
def test_every_way_to_authenticate_gives_the_agent_its_device_and_its_grant(
    method: str, agent_of: MakeAgent
) -> None:
    agent = agent_of(method)
    client = accepted(agent, WAYS[method][2](agent))
    assert client.method == method
    assert (client.grant.agent, client.policy.document.name) == (agent.name, "plant")
    assert client.credential.format == WAYS[method][0] in client.grant.formats
    assert client.resident is False


@pytest.mark.parametrize("method", ["private_key_jwt", "workload_identity_token", "attest_jwt_client_auth"])
def test_a_token_is_to_be_bound_to_the_key_of_the_credential(method: str, agent_of: MakeAgent) -> None:
    agent = agent_of(method)
    client = accepted(agent, WAYS[method][2](agent))
    assert client.confirmation.claim() == {"jkt": thumbprint(agent.key)}
    assert client.proven_dpop is False
    assert len(client.spends) == 1


@pytest.mark.parametrize("method", [name for name in WAYS if name != "attest_jwt_client_auth_dpop"])
def test_a_dpop_proof_by_the_credentials_key_binds_and_is_spent_too(method: str, agent_of: MakeAgent) -> None:
    agent = agent_of(method)
    plain = accepted(agent, WAYS[method][2](agent))
    client = accepted(agent, _with_header(WAYS[method][2](agent), "dpop", agent.dpop()))
    assert client.confirmation == Confirmation("jkt", thumbprint(agent.key))
    assert client.proven_dpop is True
    assert len(client.spends) == len(plain.spends) + 1


@pytest.mark.parametrize("method", [name for name in WAYS if name != "spiffe_jwt"])
def test_a_dpop_proof_by_any_other_key_is_refused(method: str, agent_of: MakeAgent) -> None:
    agent = agent_of(method)
    stranger = replace(agent, key=new_key("p256"))
    asked = _with_header(WAYS[method][2](agent), "dpop", stranger.dpop())
    refused(agent, asked, "invalid_dpop_proof", "dpop_other_key", status=400)


@pytest.mark.parametrize("method", WAYS)
def test_a_broken_dpop_proof_is_not_ignored(method: str, agent_of: MakeAgent) -> None:
    agent = agent_of(method)
    asked = _with_header(WAYS[method][2](agent), "dpop", agent.dpop(htm="GET"))
    refused(agent, asked, "invalid_dpop_proof", "dpop_htm", status=400)


def test_a_jwt_svid_is_bound_to_nothing(agent_of: MakeAgent) -> None:
    agent = agent_of("spiffe_jwt")
    client = accepted(agent, WAYS["spiffe_jwt"][2](agent))
    assert (client.confirmation.claim(), client.grant.bearer) == (None, True)


def test_a_request_without_authentication_is_refused(agent_of: MakeAgent) -> None:
    agent = agent_of("private_key_jwt")
    refused(agent, request({"client_id": agent.client_id}), "invalid_client", "client_missing", status=401)
    lone = request({"client_id": agent.client_id}, headers={"DPoP": agent.dpop()})
    refused(agent, lone, "invalid_client", "client_missing", status=401)


PAIRS = [(one, other) for one in WAYS for other in WAYS if WAYS[one][2] is not WAYS[other][2] and one < other]
_SAME = {"attest_jwt_client_auth", "attest_jwt_client_auth_dpop"}


@pytest.mark.parametrize(("one", "other"), [pair for pair in PAIRS if set(pair) != _SAME])
def test_two_ways_at_once_are_refused_though_each_is_healthy(
    one: str, other: str, agent_of: MakeAgent
) -> None:
    agent, second = agent_of(one), agent_of(other)
    first, added = WAYS[one][2](agent), WAYS[other][2](second)
    both = replace(
        first,
        headers={**first.headers, **added.headers},
        parameters={**first.parameters, **added.parameters},
        certificate=first.certificate or added.certificate,
    )
    if {one, other} == {"spiffe_jwt", "private_key_jwt"}:
        both = replace(first, parameters={**first.parameters, "client_assertion": ("a", "b")})
    cause = "parameter_twice" if {one, other} == {"spiffe_jwt", "private_key_jwt"} else "two_methods"
    refused(agent, both, "invalid_request", cause, status=400)


@pytest.mark.parametrize("method", WAYS)
def test_a_secret_beside_a_healthy_authentication_is_a_second_way(method: str, agent_of: MakeAgent) -> None:
    agent = agent_of(method)
    asked = WAYS[method][2](agent)
    refused(agent, _with_header(asked, "authorization", "Basic YTpi"), "invalid_request", "two_methods")
    with_secret = replace(asked, parameters={**asked.parameters, "client_secret": ("a",)})
    refused(agent, with_secret, "invalid_request", "two_methods")


def test_a_client_secret_is_no_authentication(agent_of: MakeAgent) -> None:
    agent = agent_of("private_key_jwt")
    error = refused(
        agent, request(headers={"Authorization": "Basic YTpi"}), "invalid_client", "client_secret"
    )
    assert (error.status, error.headers["WWW-Authenticate"].split()[0]) == (401, "Basic")
    error = refused(
        agent, request({"client_id": "a", "client_secret": "b"}), "invalid_client", "client_secret"
    )
    assert error.headers == {}


@pytest.mark.parametrize(
    ("parameters", "cause"),
    [
        ({"client_assertion": "a.b.c"}, "assertion_type"),
        ({"client_assertion": "a.b.c", "client_assertion_type": "urn:other"}, "assertion_type"),
        ({"client_assertion_type": ASSERTION}, "assertion_not_compact"),
        ({"client_assertion_type": SVID_ASSERTION}, "jwt_svid_not_compact"),
    ],
)
def test_half_an_assertion_is_none(parameters: dict[str, str], cause: str, agent_of: MakeAgent) -> None:
    refused(agent_of("private_key_jwt"), request(parameters), "invalid_client", cause, status=401)


@pytest.mark.parametrize("name", ["client_id", "client_assertion", "client_assertion_type"])
def test_a_parameter_given_twice_is_refused_even_if_equal(name: str, agent_of: MakeAgent) -> None:
    agent = agent_of("private_key_jwt")
    asked = agents.by_assertion(agent, parameters={"client_id": agent.client_id})
    accepted(agent, asked)
    twice = {**asked.parameters, name: asked.parameters[name] * 2}
    refused(agent, replace(asked, parameters=twice), "invalid_request", "parameter_twice", status=400)


@pytest.mark.parametrize("method", WAYS)
def test_a_client_id_that_is_another_clients_is_refused_and_an_empty_one_is_none(
    method: str, agent_of: MakeAgent
) -> None:
    agent = agent_of(method)
    asked = WAYS[method][2](agent)
    other = agent.client_id.replace(agent.name, "keeper")
    wrong = replace(asked, parameters={**asked.parameters, "client_id": (other,)})
    refused(agent, wrong, "invalid_client", "client_id_mismatch")
    right = replace(asked, parameters={**asked.parameters, "client_id": (agent.client_id,)})
    accepted(agent, right)
    empty = replace(asked, parameters={**asked.parameters, "client_id": ("",)})
    if method == "tls_client_auth":
        refused(agent, empty, "invalid_client", "client_id_missing")
    else:
        accepted(agent, empty)


# --- OA-5 -------------------------------------------------------------------------------------------------

CERTIFICATE_HEADERS = [
    "X-SSL-Client-Cert",
    "X-SSL-Cert",
    "X-Client-Cert",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-Tls-Client-Cert",
    "X-ARR-ClientCert",
    "Client-Cert",
    "Client-Cert-Chain",
    "SSL_CLIENT_CERT",
    "X-SSL-Client-Verify",
]


@pytest.mark.parametrize("name", CERTIFICATE_HEADERS)
@pytest.mark.parametrize("form", ["pem", "rfc9440"])
def test_oa_5_no_header_ever_gives_a_certificate(name: str, form: str, agent_of: MakeAgent) -> None:
    agent = agent_of("tls_client_auth")
    value = agent.text.replace("\n", "%0A") if form == "pem" else f":{b64(agent.certificate)}:"
    asked = agents.by_certificate(agent, headers={name: value}, certificate=None)
    refused(agent, asked, "invalid_client", "client_missing", status=401)
    # Beside the real one it changes nothing.
    accepted(agent, agents.by_certificate(agent, headers={name: value}))


# --- MT-8: every token in every place ---------------------------------------------------------------------

PLACES: dict[str, Callable[[Agent, str], Request]] = {
    "client_assertion": lambda agent, token: agents.by_assertion(agent, token),
    "jwt_svid": lambda agent, token: agents.by_jwt_svid(agent, token),
    "wit": lambda agent, token: agents.by_wit(replace(agent, text=token)),
    "wpt": lambda agent, token: agents.by_wit(agent, token),
    "attestation": lambda agent, token: agents.by_attestation(replace(agent, text=token)),
    "pop": lambda agent, token: agents.by_attestation(agent, token),
}
TOKENS: dict[str, tuple[str, Callable[[Agent], str]]] = {
    "client_assertion": ("private_key_jwt", lambda agent: agent.assertion()),
    "jwt_svid": ("spiffe_jwt", lambda agent: agent.text),
    "wit": ("workload_identity_token", lambda agent: agent.text),
    "wpt": ("workload_identity_token", lambda agent: agent.wpt()),
    "attestation": ("attest_jwt_client_auth", lambda agent: agent.text),
    "pop": ("attest_jwt_client_auth", lambda agent: agent.pop()),
    "dpop": ("attest_jwt_client_auth", lambda agent: agent.dpop()),
}
HOME = {
    "client_assertion": "private_key_jwt",
    "jwt_svid": "spiffe_jwt",
    "wit": "workload_identity_token",
    "wpt": "workload_identity_token",
    "attestation": "attest_jwt_client_auth",
    "pop": "attest_jwt_client_auth",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", TOKENS)
def test_mt_8_a_token_counts_in_its_own_place_and_in_no_other(
    kind: str, place: str, agent_of: MakeAgent
) -> None:
    method, make = TOKENS[kind]
    token = make(agent_of(method))
    agent = agent_of(HOME[place])
    asked = PLACES[place](agent, token)
    if kind == place:
        accepted(agent, asked)
        return
    prefix = {"client_assertion": "assertion", "pop": "attestation_pop"}.get(place, place)
    reason = "header_key" if kind == "dpop" else "typ"
    if (kind, place) == ("jwt_svid", "client_assertion"):
        reason = "sub"  # both may be of the type JWT, but a JWT-SVID is not issued by its subject
    refused(agent, asked, "invalid_client", f"{prefix}_{reason}")


# --- replay -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name in WAYS if name not in ("tls_client_auth", "spiffe_jwt")])
def test_what_proves_a_client_can_be_spent_once_and_the_store_remembers(
    method: str, agent_of: MakeAgent
) -> None:
    agent = agent_of(method)
    asked = WAYS[method][2](agent)
    first, again = accepted(agent, asked), accepted(agent, asked)
    assert first.spends == again.spends
    other = accepted(agent, WAYS[method][2](agent))
    store = agent.deployment.service.store

    def spend(client_spends: tuple[Spend, ...]) -> list[bool]:
        return store.write(
            lambda tx: [nonces.spend(tx, s.key, spent_at=now_ms(), expires_at=s.until) for s in client_spends]
        )

    assert all(spend(first.spends))
    assert not any(spend(again.spends))
    # A second worker, or this one after a restart, asks the same store.
    store = Store.open(agent.deployment.service.config.database)
    assert not any(spend(again.spends))
    assert all(spend(other.spends))
    store.close()


def _with_header(asked: Request, name: str, value: str) -> Request:
    return replace(asked, headers={**asked.headers, name: value})
