"""Does the Workload API hold for the `spiffe` package, which speaks it with grpcio?"""

import time
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from spiffe.spiffe_id.spiffe_id import TrustDomain
from spiffe.workloadapi.errors import (
    FetchX509SvidError,
    JwtSourceError,
    ValidateJwtSvidError,
    WorkloadApiError,
    X509SourceError,
)
from spiffe.workloadapi.jwt_source import JwtSource
from spiffe.workloadapi.workload_api_client import WorkloadApiClient
from spiffe.workloadapi.x509_source import X509Source

from attestd.agent.workload.client import socket_of
from tests.attestd.agent.workload.domain import Domain, workload
from tests.attestd.agent.workload.serving import HOUR, Serving, me, serving

A = "https://a.example.org"
DOMAIN = TrustDomain("example.org")
TELEMETRY = workload("telemetry", user=[me()], hint="inside")
STRANGERS = workload("telemetry", user=["65533"])


@pytest.fixture
def there() -> Iterator[Serving]:
    with serving(TELEMETRY) as made:
        yield made


def endpoint(there: Serving) -> str:
    return f"unix://{there.path}"


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def serial(source: X509Source) -> int:
    return int(source.get_x509_context().default_svid.leaf.serial_number)


def test_its_x509_source_follows_a_rotation_of_svids_and_authorities(there: Serving) -> None:
    source = X509Source(socket_path=endpoint(there), timeout_in_seconds=20)
    try:
        svid = source.get_x509_context().default_svid
        assert str(svid.spiffe_id) == there.shelf.domain.spiffe_id("telemetry")
        before = serial(source)
        there.put(there.shelf.domain.holdings(TELEMETRY, until=there.shelf.now() + HOUR))
        assert within(10, lambda: serial(source) != before)
        anew = Domain.new()
        there.put(anew.holdings(TELEMETRY, until=there.shelf.now() + HOUR))

        def trusted() -> set[bytes]:
            bundle = source.get_bundle_for_trust_domain(DOMAIN)
            assert bundle is not None
            return {each.public_bytes(Encoding.DER) for each in bundle.x509_authorities}

        assert within(10, lambda: trusted() == {anew.certificate})
    finally:
        source.close()


def test_its_jwt_source_fetches_follows_the_keys_and_has_tokens_validated(there: Serving) -> None:
    source = JwtSource(socket_path=endpoint(there), timeout_in_seconds=20)
    client = WorkloadApiClient(endpoint(there))
    try:
        svid = source.fetch_svid({A})
        assert str(svid.spiffe_id) == there.shelf.domain.spiffe_id("telemetry")
        assert str(client.validate_jwt_svid(svid.token, A).spiffe_id) == str(svid.spiffe_id)
        with pytest.raises(ValidateJwtSvidError):
            client.validate_jwt_svid(svid.token, "https://b.example.org")
        anew = Domain.new()
        there.put(anew.holdings(TELEMETRY, until=there.shelf.now() + HOUR))
        with pytest.raises(ValidateJwtSvidError):
            client.validate_jwt_svid(svid.token, A)
    finally:
        client.close()
        source.close()


def test_it_fetches_one_by_one_what_its_sources_follow(there: Serving) -> None:
    client = WorkloadApiClient(endpoint(there))
    try:
        assert str(client.fetch_x509_svid().spiffe_id) == there.shelf.domain.spiffe_id("telemetry")
        bundle = client.fetch_x509_bundles().get_bundle_for_trust_domain(DOMAIN)
        assert bundle is not None
        assert len(bundle.x509_authorities) == 1
        keys = client.fetch_jwt_bundles().get_bundle_for_trust_domain(DOMAIN)
        assert keys is not None
        assert keys.get_jwt_authority("t1") is not None
        with pytest.raises(WorkloadApiError):
            client.fetch_jwt_svid({"https://elsewhere.example"})
    finally:
        client.close()


def test_a_program_without_a_rule_gets_nothing_from_it() -> None:
    with serving(STRANGERS) as there:
        client = WorkloadApiClient(endpoint(there))
        try:
            with pytest.raises(FetchX509SvidError, match="no workload of this machine"):
                client.fetch_x509_svid()
        finally:
            client.close()
        with pytest.raises(X509SourceError):
            X509Source(socket_path=endpoint(there), timeout_in_seconds=1)
        with pytest.raises(JwtSourceError):
            JwtSource(socket_path=endpoint(there), timeout_in_seconds=1)


def test_its_address_of_the_endpoint_is_ours(there: Serving) -> None:
    assert socket_of(endpoint(there)) == there.path
