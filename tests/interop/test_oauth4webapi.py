"""Does oauth4webapi (npm) work with the service: as an agent with DPoP, a resource, a reader of tokens?"""

import json
from typing import Any

import pytest

from tests.interop.javascript import Refused
from tests.interop.parties import LEDGER, TOOLS, Parties


def ask(parties: Parties, verb: str, **task: Any) -> Any:
    """As the planner, with its key, but for what `task` replaces."""
    given = {"issuer": parties.issuer, "client_id": parties.planner.client_id, "key": parties.planner.key}
    return parties.oauth4webapi.call(verb, **{**given, **task})


def grant(parties: Parties, **parameters: str) -> Any:
    asked = {"resource": TOOLS, "scope": "plan.read", **parameters}
    return ask(parties, "grant", grant_type="client_credentials", parameters=asked)


def introspect(parties: Parties, token: str, **task: str) -> Any:
    """As the resource TOOLS."""
    return ask(
        parties, "introspect", **{"client_id": TOOLS, "key": parties.tools_key, "token": token, **task}
    )


def validate(parties: Parties, token: str, **task: str) -> Any:
    """A call with this token and a proof by the planner's key, as the resource TOOLS reads it."""
    return ask(parties, "validate", **{"token": token, "audience": TOOLS, "url": f"{TOOLS}/run", **task})


def test_it_accepts_every_discovery_document(parties: Parties) -> None:
    told = ask(parties, "discover")
    assert told["oauth2"]["issuer"] == told["oidc"]["issuer"] == parties.issuer
    assert told["oauth2"]["token_endpoint"] == f"{parties.issuer}/oauth/token"
    alias = told["oauth2"]["mtls_endpoint_aliases"]["token_endpoint"]
    assert alias == f"{parties.mtls}/oauth/token"
    assert told["resource"]["authorization_servers"] == [parties.issuer]


def test_an_agent_is_told_a_nonce_once_and_then_granted_a_bound_token(parties: Parties) -> None:
    granted = grant(parties)
    assert (granted["token_type"], granted["scope"], granted["nonces"]) == ("dpop", "plan.read", 1)
    claims = validate(parties, granted["access_token"])
    assert claims["sub"] == claims["client_id"] == parties.planner.client_id
    assert (claims["aud"], claims["scope"]) == (TOOLS, "plan.read")


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"scope": "plan.admin"}, "invalid_scope"),
        ({"resource": "https://elsewhere.example.org"}, "invalid_target"),
        ({"authorization_details": json.dumps([{"type": "report"}])}, "invalid_authorization_details"),
    ],
)
def test_what_was_not_granted_is_refused_in_words_that_it_knows(
    parties: Parties, changed: dict[str, str], error: str
) -> None:
    with pytest.raises(Refused) as refused:
        grant(parties, **changed)
    assert (refused.value.error, refused.value.status) == (error, 400)
    assert grant(parties)["scope"] == "plan.read"


def test_it_reads_the_authorization_details_that_were_granted(parties: Parties) -> None:
    details = [{"type": "transfer", "actions": ["prepare"], "locations": [TOOLS]}]
    granted = grant(parties, authorization_details=json.dumps(details))
    assert granted["authorization_details"] == details
    assert introspect(parties, granted["access_token"])["authorization_details"] == details


def test_neither_another_clients_key_nor_another_proofs_is_taken(parties: Parties) -> None:
    given = {"grant_type": "client_credentials", "parameters": {"resource": TOOLS}}
    with pytest.raises(Refused) as refused:
        ask(parties, "grant", **given, proof_key=parties.tools_key)
    assert (refused.value.error, refused.value.status) == ("invalid_dpop_proof", 400)
    with pytest.raises(Refused) as refused:
        ask(parties, "grant", **given, key=parties.tools_key)
    assert (refused.value.error, refused.value.status) == ("invalid_client", 401)
    assert grant(parties)["access_token"]


def test_a_resource_reads_no_token_for_another_and_no_other_keys_proof(parties: Parties) -> None:
    token = grant(parties)["access_token"]
    with pytest.raises(Refused):
        validate(parties, token, audience=LEDGER)
    with pytest.raises(Refused):
        validate(parties, token, key=parties.tools_key)
    head, body, signature = token.split(".")
    with pytest.raises(Refused):
        validate(parties, f"{head}.{body}.{'A' * len(signature)}")
    assert validate(parties, token)["aud"] == TOOLS


def test_a_resource_introspects_until_the_agent_revokes(parties: Parties) -> None:
    token = grant(parties)["access_token"]
    told = introspect(parties, token)
    assert (told["active"], told["client_id"]) == (True, parties.planner.client_id)
    assert told["token_type"] == "DPoP"
    assert set(told["cnf"]) == {"jkt"}
    assert introspect(parties, grant(parties, resource=LEDGER)["access_token"]) == {"active": False}
    with pytest.raises(Refused) as refused:
        introspect(parties, token, key=parties.planner.key)
    assert refused.value.status == 401
    ask(parties, "revoke", token=token)
    assert introspect(parties, token) == {"active": False}
