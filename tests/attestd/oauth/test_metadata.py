"""What is published of the authorization server: true, whole, cheap."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attestd.clock import now_ms
from attestd.config import load_config
from attestd.oauth import challenge
from attestd.oauth.metadata import Metadata, mtls_url
from attestd.oauth.server import AuthorizationServer
from attestd.oauth.token import GRANTS
from tests.attestd.oauth.world import LEDGER, TOOLS, World
from tests.deployment import SERVER

SERVER_PATH = "/.well-known/oauth-authorization-server"
OPENID_PATH = "/.well-known/openid-configuration"
URL = f"{SERVER}/attest"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World.create(tmp_path_factory.mktemp("metadata") / "service")
    yield made
    made.deployment.close()


def published(world: World, path: str = SERVER_PATH) -> dict[str, Any]:
    answer = world.deployment.client.get(path)
    assert answer.status_code == 200
    assert answer.content_type == "application/json"
    return dict(json.loads(answer.data))


def test_the_metadata_says_what_rfc_8414_demands_and_what_is_there(world: World) -> None:
    told = published(world)
    assert told["issuer"] == SERVER
    assert told["token_endpoint"] == f"{SERVER}/oauth/token"
    assert told["jwks_uri"] == f"{SERVER}/.well-known/jwks.json"
    assert told["response_types_supported"] == []
    assert told["grant_types_supported"] == list(GRANTS)
    assert "none" not in str(told["token_endpoint_auth_signing_alg_values_supported"])
    assert told["scopes_supported"] == ["help", "plan.admin", "plan.read", "plan.write"]
    assert told["authorization_details_types_supported"] == ["report", "transfer"]
    assert told["tls_client_certificate_bound_access_tokens"] is False
    assert "mtls_endpoint_aliases" not in told
    assert "tls_client_auth" not in told["token_endpoint_auth_methods_supported"]


def test_every_endpoint_that_is_named_is_there(world: World) -> None:
    told = published(world)
    for name, url in told.items():
        if name.endswith("_endpoint"):
            answer = world.deployment.client.post(url.removeprefix(SERVER), data={})
            assert answer.status_code in (200, 400, 401), (name, answer.status_code)
    assert world.deployment.client.get(told["jwks_uri"].removeprefix(SERVER)).status_code == 200


def test_openid_discovery_has_the_same_and_what_openid_demands(world: World) -> None:
    told, openid = published(world), published(world, OPENID_PATH)
    assert {name for name in told if told[name] != openid[name]} == {"response_types_supported"}
    assert openid["response_types_supported"] == ["id_token"]
    assert openid["subject_types_supported"] == ["public"]
    assert openid["id_token_signing_alg_values_supported"] == ["ES256"]


def test_the_service_says_as_a_resource_which_server_it_trusts(world: World) -> None:
    told = published(world, "/.well-known/oauth-protected-resource")
    assert told["resource"] == SERVER
    assert told["authorization_servers"] == [SERVER]
    assert told["dpop_signing_alg_values_supported"] == ["ES256", "ES384", "PS256"]


@pytest.mark.parametrize("path", [SERVER_PATH, OPENID_PATH, "/.well-known/oauth-protected-resource"])
def test_a_document_that_is_known_is_not_sent_again(world: World, path: str) -> None:
    first = world.deployment.client.get(path)
    assert first.headers["Cache-Control"] == "public, max-age=60"
    again = world.deployment.client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    other = world.deployment.client.get(path, headers={"If-None-Match": '"other"'})
    assert (other.status_code, other.data) == (200, first.data)


def test_a_new_policy_is_told_at_once(tmp_path: Path) -> None:
    world = World.create(tmp_path / "service")
    before = world.deployment.client.get(SERVER_PATH).headers["ETag"]
    policy = (world.deployment.directory / "pcr-policy.toml").read_text()
    world.deployment.apply(policy.replace('"plan.admin"', '"plan.everything"'))
    assert "plan.everything" in published(world)["scopes_supported"]
    assert world.deployment.client.get(SERVER_PATH).headers["ETag"] != before
    world.deployment.close()


def test_a_challenge_is_given_to_anyone_and_is_one_of_ours(world: World) -> None:
    records = world.count("audit_records"), world.count("spent_nonces")
    for form in ({}, {"x": "y"}):
        reply = world.post("/oauth/challenge", form)
        assert reply.headers["Cache-Control"] == "no-store"
        given = reply.members["attestation_challenge"]
        challenge.check(world.deployment.service.challenges, given, now=now_ms())
    empty = world.deployment.client.post("/oauth/challenge")
    assert empty.status_code == 200
    assert (world.count("audit_records"), world.count("spent_nonces")) == records


def configured(tmp_path: Path, url: str, tls: str = "") -> Any:
    path = tmp_path / "attestd.toml"
    path.write_text(f'trust_domain = "example.org"\nexternal_url = "{url}"\n[tls]\n{tls}\n')
    return load_config(path, {})


@pytest.mark.parametrize(
    ("url", "listen", "alias"),
    [
        ("https://attest.example.org", "0.0.0.0:8441", "https://attest.example.org:8441"),
        ("https://attest.example.org:8440/x", "127.0.0.1:9", "https://attest.example.org:9/x"),
        ("https://[::1]:8440", "[::1]:8441", "https://[::1]:8441"),
    ],
)
def test_the_mtls_listener_is_found_under_our_name_and_its_port(
    tmp_path: Path, url: str, listen: str, alias: str
) -> None:
    config = configured(tmp_path, url, f'certificate = "c"\nkey = "k"\nmtls_listen = "{listen}"')
    assert mtls_url(config) == alias
    assert mtls_url(configured(tmp_path, url)) is None


def test_a_url_with_a_path_is_found_before_and_behind_it(world: World, tmp_path: Path) -> None:
    service = world.deployment.service
    server = AuthorizationServer.open(replace(service, config=replace(service.config, external_url=URL)))
    documents = Metadata(server).documents()
    for path in (f"{SERVER_PATH}/attest", SERVER_PATH, f"{OPENID_PATH}/attest"):
        told = json.loads(documents[path](now_ms()).body)
        assert told["token_endpoint"] == f"{URL}/oauth/token"


def test_both_resources_of_the_configuration_may_ask(world: World) -> None:
    agent = world.agent()
    for target, tool in ((TOOLS, world.tools), (LEDGER, world.ledger)):
        assert world.is_active(world.token(agent, resource=target)["access_token"], tool)


def test_the_description_of_the_interface_has_the_forms(world: World) -> None:
    told = published(world, "/openapi.json")
    post = told["paths"]["/oauth/token"]["post"]
    assert list(post["requestBody"]["content"]) == ["application/x-www-form-urlencoded"]
    assert "requestBody" not in told["paths"]["/oauth/challenge"]["post"]
    assert "invalid_client" in told["components"]["schemas"]["OAuthError"]["properties"]["error"]["enum"]
