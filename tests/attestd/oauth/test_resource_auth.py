"""A resource that proves itself by its machine's certificate: the TLS layer is played, the rest is real."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from attestd.clock import now_ms
from attestd.counterparts import Resource
from attestd.oauth.errors import OAuthError
from attestd.oauth.introspect import introspect
from attestd.oauth.request import Request
from attestd.oauth.resource_auth import Resources
from attestd.oauth.server import AuthorizationServer
from tests.attestd.oauth.agents import ASSERTION, Agent, request
from tests.attestd.oauth.world import TOOLS, World
from tests.attester import Machine

SVID = "x509-svid"


class Asking:
    """The resource, an agent on a machine of its own, and a token that it may ask about."""

    def __init__(self, folder: Path) -> None:
        self.world = World.create(folder)
        self.machine: Machine = self.world.deployment.machine()
        self.agent: Agent = self.world.agent("loner", SVID, machine=self.machine)
        service = self.world.deployment.service
        configured = Resource(TOOLS, self.world.deployment.directory / "tools.jwks", self.agent.client_id)
        self.server = replace(AuthorizationServer.open(service), resources=Resources([configured]))
        self.token = self.world.token(self.world.agent())["access_token"]

    def request(self, agent: Agent | None = None, **form: str) -> Request:
        return request({"token": self.token, **form}, certificate=(agent or self.agent).certificate)

    def is_active(self) -> bool:
        answer = introspect(self.server, self.request())
        assert answer.members is not None
        return bool(answer.members["active"])

    def refused(self, asked: Request, error: str, cause: str) -> None:
        with pytest.raises(OAuthError) as caught:
            introspect(self.server, asked)
        assert (caught.value.error, caught.value.cause) == (error, cause)


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    made = Asking(tmp_path / "service")
    yield made
    made.world.deployment.close()


def test_the_configured_machine_learns_and_another_does_not(asking: Asking) -> None:
    assert asking.is_active()
    other = asking.world.agent("helper", SVID)
    asking.refused(asking.request(other), "invalid_client", "resource_unknown")


def test_one_way_at_a_time_and_under_its_own_name(asking: Asking) -> None:
    both = {"client_assertion": asking.world.tools.assertion(), "client_assertion_type": ASSERTION}
    asking.refused(asking.request(**both), "invalid_request", "two_methods")
    asking.refused(asking.request(client_id=TOOLS), "invalid_client", "client_id_mismatch")
    assert introspect(asking.server, asking.request(client_id=asking.agent.client_id)).members


def test_a_machine_that_was_lost_asks_no_more(asking: Asking) -> None:
    assert asking.is_active()
    asking.world.deployment.attest(asking.machine.rebooted())
    asking.refused(asking.request(), "invalid_client", "credential_ended")


def test_a_banned_machine_asks_no_more(asking: Asking) -> None:
    assert asking.is_active()
    asking.world.deployment.service.store.write(
        lambda tx: (
            tx.execute(
                "UPDATE devices SET state = 'banned' WHERE device_id = ?", (asking.machine.device_id,)
            ).rowcount
        )
    )
    asking.refused(asking.request(), "invalid_client", "device_banned")


@pytest.mark.parametrize("column", ["key_thumbprint", "spiffe_id", "format"])
def test_a_credential_that_was_not_issued_so_is_none(asking: Asking, column: str) -> None:
    assert asking.is_active()
    asking.world.deployment.service.store.write(
        lambda tx: (
            tx.execute(
                f"UPDATE credentials SET {column} = 'else' WHERE device_id = ?", (asking.machine.device_id,)
            ).rowcount
        )
    )
    asking.refused(asking.request(), "invalid_client", "credential_unknown")


def test_a_certificate_that_was_verified_once_ends_with_the_ca_that_signed_it(asking: Asking) -> None:
    assert asking.is_active()
    service = asking.world.deployment.service
    service.store.write(
        lambda tx: tx.execute("UPDATE signing_keys SET state = 'retired' WHERE key_use = 'x509'").rowcount
    )
    service.keyring._read_at = 0
    later = replace(asking.request(), now=now_ms())
    asking.refused(later, "invalid_client", "svid_issuer")
