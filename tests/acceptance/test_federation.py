"""Would a cloud's workload identity federation, a secrets store's JWT login and a Kubernetes API server
accept our tokens?

Each is given the issuer's URL, an audience and a subject, finds the keys by OpenID discovery over TLS, and
believes what a generic OpenID library believes (Authlib and joserfc). What each demands beyond that is in the
table.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from authlib.integrations.flask_oauth2 import ResourceProtector  # type: ignore[import-untyped]
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator  # type: ignore[import-untyped]
from authlib.oidc.core import IDToken  # type: ignore[import-untyped]
from flask import Flask
from joserfc import jwt as joserfc_jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import extract_compact
from werkzeug.serving import BaseWSGIServer, make_server

from tests.attestd.oauth.world import TOOLS, World
from tests.attestd.web.certificates import Authority
from tests.attestd.web.echo_service import free_port
from tests.attester import Machine, activation_body, enrollment_body, new_round
from tests.deployment import SERVER, Deployment, credential, policy_for


@dataclass(frozen=True)
class Party:
    """Who trusts tokens of others, and what it demands of them."""

    name: str
    audience: str
    algs: tuple[str, ...]
    subject_bytes: int = 2048
    longest: int = 24 * 3600
    """Seconds from `iat` to `exp`."""


PARTIES = (
    Party("aws", "sts.amazonaws.com", ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512")),
    Party("google", "https://iam.googleapis.com/projects/1/pools/edge", ("RS256", "ES256"), 127),
    Party("azure", "api://AzureADTokenExchange", ("RS256",)),
    Party("vault", "https://vault.example.org", ("RS256",)),
    Party("kubernetes", "kubernetes", ("RS256",)),
)
BY_NAME = {party.name: party for party in PARTIES}


class Refused(Exception):
    """The party does not believe the token."""


@dataclass(frozen=True)
class RelyingParty:
    """A party as its operator configured it: issuer and subject are compared whole."""

    party: Party
    issuer: str
    subject: str
    authority: Path

    def accept(self, token: str, *, now: int | None = None) -> dict[str, Any]:
        # OpenID Connect Discovery 1.0, sections 4.1 and 4.3.
        told = self._get(self.issuer + "/.well-known/openid-configuration")
        if told["issuer"] != self.issuer or not told["jwks_uri"].startswith("https://"):
            raise Refused("the document is another issuer's")
        for required in ("response_types_supported", "subject_types_supported"):
            assert told[required], required
        assert "RS256" in told["id_token_signing_alg_values_supported"]
        keys = KeySet.import_key_set(self._get(told["jwks_uri"]))  # type: ignore[arg-type]
        try:
            found = joserfc_jwt.decode(token, keys, algorithms=list(self.party.algs))
            claims = IDToken(found.claims, found.header, self._demands())
            claims.validate(now=now or int(time.time()))
        except (JoseError, ValueError) as error:
            raise Refused(str(error)) from error
        if len(claims["sub"].encode()) > self.party.subject_bytes:
            raise Refused("the subject is too long")
        if not 0 < claims["exp"] - claims["iat"] <= self.party.longest:
            raise Refused("the token lives too long")
        return dict(claims)

    def _demands(self) -> dict[str, Any]:
        return {
            "iss": {"essential": True, "value": self.issuer},
            "sub": {"essential": True, "value": self.subject},
            "aud": {"essential": True, "value": self.party.audience},
        }

    def _get(self, url: str) -> dict[str, Any]:
        answer = requests.get(url, verify=str(self.authority), timeout=10, allow_redirects=False)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("application/json")
        document: dict[str, Any] = answer.json()
        return document


@dataclass
class Federated:
    """A service that the world reaches over TLS at its own URL, with one accepted machine."""

    deployment: Deployment
    machine: Machine
    url: str
    authority: Path

    def svid(self, *audience: str, **options: Any) -> str:
        """A JWT-SVID of the agent `billing`."""
        self.machine = self.machine.later()
        wanted = credential("jwt-svid", audience=list(audience), **options)
        challenge = self.deployment.challenge(self.machine)
        body = new_round(self.machine, challenge, self.url, credentials=[wanted]).body()
        return str(self.deployment.expect(200, "/v1/attestations", body)["credentials"][0]["token"])

    def party(self, name: str, **changes: str) -> RelyingParty:
        subject = f"spiffe://example.org/agent/billing/{self.machine.device_id}"
        given = {"issuer": self.url, "subject": subject} | changes
        return RelyingParty(BY_NAME[name], authority=self.authority, **given)


def sign_with_rsa(deployment: Deployment) -> str:
    """As the README says it; the kid of the new key."""
    deployment.operate("keys", "add", "--use", "jwt", "--alg", "RS256")
    (kid,) = [key["kid"] for key in deployment.listed("keys", "list") if key["alg"] == "RS256"]
    deployment.operate("keys", "activate", kid, "--now")
    time.sleep(1.1)  # a running service follows within a second
    return str(kid)


@pytest.fixture(scope="module")
def federated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federated]:
    folder = tmp_path_factory.mktemp("federation")
    authority, port = Authority(folder), free_port()
    pair = authority.issue("server")
    url = f"https://127.0.0.1:{port}"
    settings = {"external_url": f'"{url}"', "audit_unproven": "0"}
    deployment = Deployment.create(folder / "service", settings=settings)
    machine = Machine.create(deployment.maker)
    answer = deployment.expect(201, "/v1/enrollments", enrollment_body(machine))
    deployment.expect(201, "/v1/activations", activation_body(machine, answer, url))
    audiences = json.dumps([party.audience for party in PARTIES])
    policy = policy_for(machine).replace('["https://a.example.org", "https://b.example.org"]', audiences)
    deployment.apply(policy)
    server: BaseWSGIServer = make_server(
        "127.0.0.1",
        port,
        deployment.client.application,
        threaded=True,
        ssl_context=(str(pair.certificate), str(pair.key)),
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Federated(deployment, machine, url, authority.pem)
    server.shutdown()
    server.server_close()
    deployment.close()


@pytest.fixture(scope="module")
def elliptic(federated: Federated) -> dict[str, str]:
    """For each party, a JWT-SVID from before there was an RSA key."""
    return {party.name: federated.svid(party.audience) for party in PARTIES}


@pytest.fixture(scope="module")
def rsa(federated: Federated, elliptic: dict[str, str]) -> str:
    return sign_with_rsa(federated.deployment)


@pytest.mark.parametrize("name", BY_NAME)
def test_each_accepts_a_jwt_svid_that_the_rsa_key_signed(federated: Federated, rsa: str, name: str) -> None:
    party = federated.party(name)
    token = federated.svid(party.party.audience)
    header, claims = header_of(token), party.accept(token)
    assert (header["alg"], header["kid"], header["typ"]) == ("RS256", rsa, "JWT")
    assert (claims["iss"], claims["sub"], claims["aud"]) == (
        federated.url,
        party.subject,
        [party.party.audience],
    )


@pytest.mark.parametrize("name", BY_NAME)
def test_who_takes_nothing_but_rs256_needs_the_rsa_key(
    federated: Federated, rsa: str, elliptic: dict[str, str], name: str
) -> None:
    party = federated.party(name)
    if "ES256" in party.party.algs:
        assert party.accept(elliptic[name])["sub"] == party.subject
        return
    with pytest.raises(Refused):
        party.accept(elliptic[name])


@pytest.mark.parametrize("name", BY_NAME)
def test_none_accepts_a_token_for_another_party_subject_or_issuer(
    federated: Federated, rsa: str, name: str
) -> None:
    party = federated.party(name)
    others = [other for other in PARTIES if other.name != name]
    with pytest.raises(Refused):
        party.accept(federated.svid(others[0].audience))
    token = federated.svid(party.party.audience)
    with pytest.raises(Refused):
        federated.party(name, subject=party.subject.replace("billing", "telemetry")).accept(token)
    with pytest.raises(Refused):
        federated.party(name, issuer=federated.url + "/").accept(token)
    head, claims, signature = token.split(".")
    with pytest.raises(Refused):
        party.accept(f"{head}.{claims}.{'A' * len(signature)}")
    assert party.accept(token)


def test_a_token_is_accepted_no_longer_than_it_lives(federated: Federated, rsa: str) -> None:
    party = federated.party("vault")
    token = federated.svid(party.party.audience)
    ends = party.accept(token)["exp"]
    assert party.accept(token, now=ends - 1)
    with pytest.raises(Refused):
        party.accept(token, now=ends + 1)


def test_the_attestation_result_beside_it_is_nobodys_login(federated: Federated, rsa: str) -> None:
    machine = federated.machine = federated.machine.later()
    body = new_round(machine, federated.deployment.challenge(machine), federated.url).body()
    result = federated.deployment.expect(200, "/v1/attestations", body)["result"]
    for name in BY_NAME:
        with pytest.raises(Refused):
            federated.party(name).accept(result)


# --- access tokens ------------------------------------------------------------------------------------------


class Gateway(JWTBearerTokenValidator):  # type: ignore[misc]
    """Authlib's reader of RFC 9068, at a resource."""

    def __init__(self, keys: Callable[[], dict[str, Any]], resource: str = TOOLS) -> None:
        super().__init__(issuer=SERVER, resource_server=resource)
        self._keys = keys

    def get_jwks(self) -> dict[str, Any]:
        return self._keys()


def status_of(world: World, token: str, *, resource: str = TOOLS) -> int:
    """What a Flask application behind Authlib's protector answers."""

    def keys() -> dict[str, Any]:
        document: dict[str, Any] = json.loads(world.deployment.client.get("/.well-known/jwks.json").data)
        return document

    app, protector = Flask("gateway"), ResourceProtector()
    protector.register_token_validator(Gateway(keys, resource))

    @app.get("/plan")
    @protector("plan.read")  # type: ignore[untyped-decorator]
    def plan() -> str:
        return "a plan"

    return app.test_client().get("/plan", headers={"Authorization": f"Bearer {token}"}).status_code


@pytest.mark.parametrize("alg", ["ES256", "RS256"])
def test_a_foreign_resource_server_reads_our_access_tokens(tmp_path: Path, alg: str) -> None:
    world = World.create(tmp_path / "service")
    if alg == "RS256":
        sign_with_rsa(world.deployment)
    token = world.token(world.agent(), scope="plan.read")["access_token"]
    assert header_of(token)["alg"] == alg
    assert status_of(world, token) == 200
    assert status_of(world, token, resource="https://other.example.org") == 401
    assert status_of(world, world.token(world.agent(), scope="plan.write")["access_token"]) == 403
    assert status_of(world, world.agent("courier", "jwt-svid").text) == 401
    world.deployment.close()


def header_of(token: str) -> dict[str, Any]:
    return dict(extract_compact(token.encode()).headers())
