"""The listener for clients with certificates: the peer is who its X.509-SVID says, and no header is."""

import json
import ssl
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.acceptance.serving import Serving
from tests.attestd.oauth.agents import Agent, new_agent
from tests.attestd.oauth.world import TOOLS, Reply, World
from tests.attester import b64url, new_key

SVID = "x509-svid"


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The agent loner is the resource, too, and proves itself by its certificate."""
    world = World.create(tmp_path_factory.mktemp("mtls") / "service")
    loner = world.agent("loner", SVID)
    with (world.deployment.directory / "attestd.toml").open("a") as file:
        entry = f'audience = "{TOOLS}"\njwks = "file:tools.jwks"\nclient_id = "{loner.client_id}"'
        file.write(f"[[resource]]\n{entry}\n")
    with Serving.create(world, mtls=True) as made:
        yield made
    world.deployment.close()


def ask(serving: Serving, agent: Agent, **form: Any) -> Reply:
    connection = serving.open(agent)
    fields = {"grant_type": "client_credentials", "client_id": agent.client_id, "resource": TOOLS}
    reply = serving.post("/oauth/token", {**fields, **form}, connection=connection)
    connection.close()
    return reply


def introspect(serving: Serving, agent: Agent, token: str, **form: Any) -> Reply:
    connection = serving.open(agent)
    reply = serving.post("/oauth/introspect", {"token": token, **form}, connection=connection)
    connection.close()
    return reply


def claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def test_an_agent_gets_a_token_bound_to_its_certificate(serving: Serving) -> None:
    agent = serving.world.agent("planner", SVID)
    reply = ask(serving, agent)
    assert reply.status == 200, reply
    assert reply.members["token_type"] == "Bearer"
    digest = hashes.Hash(hashes.SHA256())
    digest.update(agent.certificate)
    assert claims(reply.members["access_token"])["cnf"] == {"x5t#S256": b64url(digest.finalize())}


def test_the_aliases_lead_there(serving: Serving) -> None:
    told = serving.get("/.well-known/oauth-authorization-server")
    base = f"https://127.0.0.1:{serving.port + 1}"
    assert told["mtls_endpoint_aliases"]["token_endpoint"] == f"{base}/oauth/token"
    assert told["tls_client_certificate_bound_access_tokens"] is True
    assert "tls_client_auth" in told["token_endpoint_auth_methods_supported"]
    assert "tls_client_auth" in told["introspection_endpoint_auth_methods_supported"]


def test_a_proof_there_names_that_address_and_binds_to_the_key(serving: Serving) -> None:
    agent = serving.world.agent("planner", SVID)
    connection = serving.open(agent)
    fields = {"grant_type": "client_credentials", "client_id": agent.client_id, "resource": TOOLS}
    url = f"https://127.0.0.1:{serving.port + 1}/oauth/token"
    refused = serving.post("/oauth/token", fields, {"DPoP": agent.dpop()}, connection=connection)
    assert refused.error == (400, "invalid_dpop_proof")
    bound = serving.post("/oauth/token", fields, {"DPoP": agent.dpop(htu=url)}, connection=connection)
    assert bound.members["token_type"] == "DPoP"
    assert set(claims(bound.members["access_token"])["cnf"]) == {"jkt"}
    connection.close()


@pytest.mark.parametrize("client_id", [None, "spiffe://example.org/agent/helper/x"])
def test_the_request_names_the_certificates_client(serving: Serving, client_id: str | None) -> None:
    agent = serving.world.agent("planner", SVID)
    assert ask(serving, agent, client_id=client_id).error == (401, "invalid_client")
    assert ask(serving, agent).status == 200


def test_without_a_certificate_there_is_no_connection(serving: Serving) -> None:
    assert serving.authority is not None
    context = ssl.create_default_context(cafile=str(serving.authority.pem))
    connection = serving.open(serving.world.agent("planner", SVID))
    stranger = type(connection)("127.0.0.1", serving.port + 1, timeout=5, context=context)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        serving.post("/oauth/token", {}, connection=stranger)
    connection.close()


def forged(agent: Agent, authority: x509.Certificate | None, key: Any) -> Agent:
    """The agent with a certificate that somebody else made: with the names and the serial of the real one."""
    real = x509.load_der_x509_certificate(agent.certificate)
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "else")])
    own = new_key("p256")
    names = real.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(name if authority is None else authority.subject)
        .public_key(own.public_key())
        .serial_number(real.serial_number)
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(minutes=5))
        .add_extension(names, critical=True)
    )
    text = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    chain = text if authority is None else text + authority.public_bytes(Encoding.PEM).decode()
    return Agent(agent.deployment, agent.machine, "forged", own, chain)


def test_mt_12_a_certificate_of_another_ca_or_of_a_leaf_makes_no_connection(serving: Serving) -> None:
    agent = serving.world.agent("planner", SVID)
    leaf = x509.load_der_x509_certificate(agent.certificate)
    for false in (forged(agent, None, new_key("p256")), forged(agent, leaf, agent.key)):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(serving, false)
    assert ask(serving, agent).status == 200


@pytest.mark.parametrize(
    "name", ["X-SSL-Client-Cert", "X-Forwarded-Client-Cert", "Client-Cert", "X-Client-Cert"]
)
def test_oa_5_a_certificate_in_a_header_changes_nothing(serving: Serving, name: str) -> None:
    planner, helper = serving.world.agent("planner", SVID), serving.world.agent("helper", SVID)
    header = {name: f":{b64encode(helper.certificate).decode()}:"}
    fields = {"grant_type": "client_credentials", "client_id": helper.client_id, "resource": TOOLS}
    plain = serving.post("/oauth/token", fields, header)
    assert plain.error == (401, "invalid_client")
    connection = serving.open(planner)
    assert serving.post("/oauth/token", fields, header, connection=connection).error == (
        401,
        "invalid_client",
    )
    own = serving.post(
        "/oauth/token", fields | {"client_id": planner.client_id}, header, connection=connection
    )
    assert claims(own.members["access_token"])["client_id"] == planner.client_id
    connection.close()


def test_a_resource_asks_with_its_certificate_over_one_connection_and_nothing_is_written(
    serving: Serving,
) -> None:
    world = serving.world
    loner = world.agent("loner", SVID)
    token = ask(serving, world.agent("planner", SVID)).members["access_token"]
    before = world.count("spent_nonces"), world.count("audit_records")
    connection = serving.open(loner)
    for _ in range(5):
        reply = serving.post("/oauth/introspect", {"token": token}, connection=connection)
        assert (reply.status, reply.members["active"]) == (200, True)
        assert reply.members["cnf"] == claims(token)["cnf"]
    connection.close()
    assert (world.count("spent_nonces"), world.count("audit_records")) == before


def test_an_agent_that_is_no_resource_learns_nothing(serving: Serving) -> None:
    world = serving.world
    token = ask(serving, world.agent("planner", SVID)).members["access_token"]
    reply = introspect(serving, world.agent("helper", SVID), token)
    assert reply.error == (401, "invalid_client")
    assert "active" not in reply.members
    two = introspect(serving, world.agent("loner", SVID), token, client_assertion="x")
    assert two.error == (400, "invalid_request")


def test_a_resource_whose_machine_lost_its_posture_learns_nothing(tmp_path: Path) -> None:
    world = World.create(tmp_path / "service")
    second = world.deployment.machine()
    asker = world.agent("loner", SVID, machine=second)
    with (world.deployment.directory / "attestd.toml").open("a") as file:
        entry = f'audience = "{TOOLS}"\njwks = "file:tools.jwks"\nclient_id = "{asker.client_id}"'
        file.write(f"[[resource]]\n{entry}\n")
    with Serving.create(world, mtls=True) as serving:
        token = ask(serving, world.agent("planner", SVID)).members["access_token"]
        assert introspect(serving, asker, token).members["active"]
        world.deployment.operate("device", "ban", second.device_id)
        assert introspect(serving, asker, token).error == (401, "invalid_client")
    world.deployment.close()


def _is_let_in(serving: Serving, agent: Agent) -> bool:
    try:
        return ask(serving, agent).status == 200
    except OSError:
        return False


def test_a_new_ca_counts_without_a_restart(tmp_path: Path) -> None:
    world = World.create(tmp_path / "service")
    with Serving.create(world, mtls=True) as serving:
        old = world.agent("planner", SVID)
        assert ask(serving, old).status == 200
        world.deployment.operate("keys", "add", "--use", "x509")
        listed = [key for key in world.deployment.listed("keys", "list") if key["use"] == "x509"]
        new = next(key["kid"] for key in listed if key["state"] == "published")
        world.deployment.operate("keys", "activate", new, "--now")
        world.deployment.service.keyring._read_at = 0
        fresh = new_agent(world.deployment, world.machine.later(), SVID, name="helper")
        issuer = x509.load_der_x509_certificate(fresh.certificate).issuer.rfc4514_string()
        assert new in issuer
        deadline = datetime.now(UTC) + timedelta(seconds=6)
        # The listener reads the files, the client authentication the states: both look once a second.
        while not _is_let_in(serving, fresh):
            assert datetime.now(UTC) < deadline, json.dumps(serving.log()[-500:])
        assert ask(serving, old).status == 200
    world.deployment.close()
