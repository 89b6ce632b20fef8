"""A grant and a sealed key are exactly what the standards and this version know."""

import pytest

from tests.attestd.policy.documents import HEALTHY, changed, load, refused


def test_authorized_seals_are_refused_by_name() -> None:
    authorized = refused(changed('name = "disk"', 'name = "disk"\nauthorized = true'))
    assert authorized.reason == "feature_unsupported"
    assert authorized.detail.startswith("seal[0].authorized is not supported by this version")


@pytest.mark.parametrize("key", ["tpm", "any"])
def test_a_client_attestation_is_granted_alone_or_beside_others(key: str) -> None:
    text = changed('formats = ["x509-svid", "wit-svid"]', 'formats = ["client-attestation"]')
    grant = load(text.replace('key = "tpm"', f'key = "{key}"')).grants[0]
    assert (grant.formats, grant.key) == (("client-attestation",), key)
    beside = load(changed('"wit-svid"]', '"wit-svid", "client-attestation"]')).grants[0]
    assert beside.formats == ("x509-svid", "wit-svid", "client-attestation")


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
