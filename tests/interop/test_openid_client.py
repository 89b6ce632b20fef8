"""Does openid-client (npm) work with the service: as an agent with DPoP, for itself and for a user, and as a
resource?

The users' OpenID Provider is oidc-provider (npm); the service fetches its keys by discovery."""

from typing import Any

import pytest
from joserfc.jws import extract_compact

from tests.interop.javascript import Refused
from tests.interop.parties import DESK, LEDGER, OTHER, TOOLS, Parties
from tests.interop.users import sign_in

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"


def ask(parties: Parties, verb: str, **task: Any) -> Any:
    """As the planner, with its key, but for what `task` replaces."""
    given = {"issuer": parties.issuer, "client_id": parties.planner.client_id, "key": parties.planner.key}
    return parties.openid_client.call(verb, **{**given, **task})


def exchange(parties: Parties, token: str, kind: str = ID_TOKEN, **parameters: str) -> Any:
    asked = {"subject_token": token, "subject_token_type": kind, "resource": TOOLS, **parameters}
    return ask(parties, "grant", grant_type=EXCHANGE, parameters=asked)


def introspect(parties: Parties, token: str) -> Any:
    """As the resource TOOLS."""
    return ask(parties, "introspect", client_id=TOOLS, key=parties.tools_key, token=token)


@pytest.fixture(scope="module")
def alice(parties: Parties) -> dict[str, str]:
    """Her tokens from the application that the service trusts to name its users."""
    return sign_in(parties.provider, DESK)


@pytest.mark.parametrize("algorithm", ["oauth2", "oidc"])
def test_an_agent_is_granted_a_token_whichever_document_it_discovers_by(
    parties: Parties, algorithm: str
) -> None:
    parameters = {"resource": TOOLS, "scope": "plan.read plan.write"}
    given = {"grant_type": "client_credentials", "parameters": parameters, "algorithm": algorithm}
    granted = ask(parties, "grant", **given)
    assert (granted["token_type"], granted["scope"]) == ("dpop", "plan.read plan.write")
    told = introspect(parties, granted["access_token"])
    assert (told["active"], told["sub"]) == (True, parties.planner.client_id)
    ask(parties, "revoke", token=granted["access_token"])
    assert introspect(parties, granted["access_token"]) == {"active": False}


def test_a_proof_by_another_key_binds_nothing(parties: Parties) -> None:
    given = {"grant_type": "client_credentials", "parameters": {"resource": TOOLS}}
    with pytest.raises(Refused) as refused:
        ask(parties, "grant", **given, proof_key=parties.tools_key)
    assert (refused.value.error, refused.value.status) == ("invalid_dpop_proof", 400)
    assert ask(parties, "grant", **given)["access_token"]


def test_alice_lets_the_agent_act_for_her(parties: Parties, alice: dict[str, str]) -> None:
    assert extract_compact(alice["id_token"].encode()).headers()["alg"] == "RS256"
    granted = exchange(parties, alice["id_token"], scope="plan.read")
    assert (granted["issued_token_type"], granted["token_type"]) == (ACCESS_TOKEN, "dpop")
    told = introspect(parties, granted["access_token"])
    assert (told["active"], told["sub"], told["scope"]) == (True, "alice", "plan.read")
    assert told["client_id"] == parties.planner.client_id
    assert told["act"] == {"sub": parties.planner.client_id}


def test_a_token_that_she_gave_another_application_is_refused(
    parties: Parties, alice: dict[str, str]
) -> None:
    with pytest.raises(Refused) as refused:
        exchange(parties, sign_in(parties.provider, OTHER)["id_token"])
    assert (refused.value.error, refused.value.status) == ("invalid_request", 400)
    assert exchange(parties, alice["id_token"])["access_token"]


def test_her_token_is_no_more_than_it_says(parties: Parties, alice: dict[str, str]) -> None:
    token = alice["id_token"]
    head, body, signature = token.split(".")
    for subject, kind in (
        (f"{head}.{body}.{'A' * len(signature)}", ID_TOKEN),
        (token, ACCESS_TOKEN),
        (alice["access_token"], ACCESS_TOKEN),
    ):
        with pytest.raises(Refused) as refused:
            exchange(parties, subject, kind)
        assert refused.value.error == "invalid_request"
    for changed, error in (
        ({"scope": "plan.admin"}, "invalid_scope"),
        ({"resource": "urn:x"}, "invalid_target"),
    ):
        with pytest.raises(Refused) as refused:
            exchange(parties, token, **changed)
        assert refused.value.error == error
    assert exchange(parties, token, resource=LEDGER)["access_token"]


def test_what_was_made_of_her_token_is_passed_on_no_further(parties: Parties, alice: dict[str, str]) -> None:
    first = exchange(parties, alice["id_token"])["access_token"]
    with pytest.raises(Refused) as refused:
        exchange(parties, first, ACCESS_TOKEN)
    assert refused.value.error == "invalid_request"
    assert introspect(parties, first)["active"]
