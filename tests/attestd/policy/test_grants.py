"""A grant and a sealed key are exactly what the standards and this version know."""

import pytest

from tests.attestd.policy.documents import HEALTHY, changed, load, refused

LATER_IN_GRANT = [
    'scopes = ["telemetry.write"]',
    'authorization_details = ["transfer"]',
    "bearer = false",
    'max_posture_age = "1h"',
    'delegation = { issuers = ["https://login.example.org"], depth = 2 }',
]


@pytest.mark.parametrize("line", LATER_IN_GRANT)
def test_a_grants_key_of_a_later_version_is_refused_by_name(line: str) -> None:
    error = refused(changed('key = "tpm"', f'key = "tpm"\n{line}'))
    assert error.reason == "feature_unsupported"
    assert error.detail.startswith(f"grant[0].{line.split(' ')[0]} is not supported by this version")
    assert "OAuth" in error.detail


def test_client_attestation_and_authorized_seals_are_refused_by_name() -> None:
    attestation = refused(changed('"wit-svid"', '"client-attestation"'))
    authorized = refused(changed('name = "disk"', 'name = "disk"\nauthorized = true'))
    assert (attestation.reason, authorized.reason) == ("feature_unsupported", "feature_unsupported")
    assert "client-attestation" in attestation.detail
    assert authorized.detail.startswith("seal[0].authorized")


@pytest.mark.parametrize(
    "ttl", ["0s", "-10m", "25h", "1441m", "2d", "1e3s", "10", "m", "", "10 m", "3600", "１m", "10m\\n"]
)
def test_mt_5_a_time_to_live_is_a_duration_of_at_most_a_day(ttl: str) -> None:
    error = refused(changed('"10m"', f'"{ttl}"'))
    assert error.reason == "value_wrong"
    assert error.detail.startswith("grant[0].ttl:")


@pytest.mark.parametrize(("ttl", "seconds"), [("1s", 1), ("10m", 600), ("24h", 86_400), ("1d", 86_400)])
def test_mt_5_a_time_to_live_within_bounds_is_kept_in_seconds(ttl: str, seconds: int) -> None:
    assert load(changed('"10m"', f'"{ttl}"')).grants[0].ttl == seconds


KINDS = ["secret-16", "secret-128", "ec-p256", "rsa-2048", "hmac-sha256"]
BAD_KINDS = [
    "secret-15",
    "secret-129",
    "secret-016",
    "secret-",
    "secret",
    "secret-32x",
    "rsa-3072",
    "ec-p384",
    "",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_sealed_key_can_be_named(kind: str) -> None:
    assert load(changed('"secret-32"', f'"{kind}"')).seals[0].kind == kind


@pytest.mark.parametrize("kind", BAD_KINDS)
def test_another_kind_of_sealed_key_is_refused(kind: str) -> None:
    error = refused(changed('"secret-32"', f'"{kind}"'))
    assert error.reason == "value_wrong"
    assert error.detail.startswith("seal[0].kind:")


def test_the_names_of_sealed_keys_are_unique() -> None:
    again = '[[seal]]\nname = "{}"\nkind = "secret-16"\npcrs = [7]\n'
    assert refused(HEALTHY + again.format("disk")).reason == "value_twice"
    assert len(load(HEALTHY + again.format("swap")).seals) == 2


def test_a_jwt_svid_needs_an_audience() -> None:
    error = refused(changed('audiences = ["https://ingest.example.org"]\n', ""))
    assert (error.reason, error.detail.partition(":")[0]) == ("key_missing", "grant[1].audiences")


@pytest.mark.parametrize(
    "line", ['name = "edge-gateway"\n', 'formats = ["x509-svid", "wit-svid"]\n', 'agent = "telemetry"\n']
)
def test_a_missing_key_is_named(line: str) -> None:
    error = refused(changed(line, ""))
    assert error.reason == "key_missing"
    assert line.partition(" ")[0] in error.detail


def test_two_grants_of_one_agent_share_no_format() -> None:
    error = refused(changed('formats = ["jwt-svid"]', 'formats = ["jwt-svid", "wit-svid"]'))
    assert (error.reason, error.detail.partition(":")[0]) == ("grants_conflict", "grant[1].formats")


def test_two_grants_of_one_agent_have_one_spiffe_id() -> None:
    other = 'formats = ["jwt-svid"]\nspiffe_id = "spiffe://{trust_domain}/other/{device_id}"'
    error = refused(changed('formats = ["jwt-svid"]', other))
    assert (error.reason, error.detail.partition(":")[0]) == ("grants_conflict", "grant[1].spiffe_id")
    assert (
        load(changed('agent = "telemetry"\nformats', 'agent = "other"\nformats')).grants[1].agent == "other"
    )
