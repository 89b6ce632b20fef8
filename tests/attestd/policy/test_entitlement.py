"""Each device gets SPIFFE IDs of its own, under our trust domain, and only what its policy grants."""

import pytest

from attestd.policy.entitlement import NotEntitled, find_grant, find_seal, spiffe_id
from tests.attestd.policy.documents import HEALTHY, changed, load
from tpm.errors import PolicyError

DEVICE = "d0" * 32
TEMPLATE = "spiffe://{trust_domain}/agent/{agent}/{device_id}"
LABEL = 'spiffe_id = "spiffe://{trust_domain}/site/{label:site}/{name}"'


def policy_with(template: str) -> str:
    second = changed(TEMPLATE, template)
    return second.replace('formats = ["jwt-svid"]', f'spiffe_id = "{template}"\nformats = ["jwt-svid"]')


def filled(template: str, *, name: str | None = "gw-1", **labels: str) -> str:
    grant = load(policy_with(template)).grants[0]
    return spiffe_id(grant, trust_domain="example.org", device_id=DEVICE, name=name, labels=labels)


FILLED = [
    (TEMPLATE, f"spiffe://example.org/agent/telemetry/{DEVICE}"),
    ("spiffe://{trust_domain}/{name}", "spiffe://example.org/gw-1"),
    ("spiffe://{trust_domain}/d/gw.{name}", "spiffe://example.org/d/gw.gw-1"),
    ("spiffe://{trust_domain}/{label:site}/{name}", "spiffe://example.org/plant-1/gw-1"),
    ("spiffe://{trust_domain}/{agent}-{device_id}", f"spiffe://example.org/telemetry-{DEVICE}"),
    ("spiffe://{trust_domain}/{trust_domain}/{name}", "spiffe://example.org/example.org/gw-1"),
]


@pytest.mark.parametrize(("template", "expected"), FILLED)
def test_a_template_is_filled_with_what_operators_and_proofs_say(template: str, expected: str) -> None:
    assert filled(template, site="plant-1") == expected


BAD_TEMPLATES = [
    "spiffe://example.org/agent/{device_id}",
    "spiffe://{trust_domain}",
    "spiffe://{trust_domain}/",
    "spiffe://{trust_domain}.evil.example/{device_id}",
    "spiffe://{trust_domain}@evil.example/{device_id}",
    "SPIFFE://{trust_domain}/{device_id}",
    "https://{trust_domain}/{device_id}",
    "{trust_domain}/{device_id}",
    "spiffe://{trust_domain}/agent/{agent}",
    "spiffe://{trust_domain}/{label:site}",
    "spiffe://{trust_domain}/{name}{label:site}",
    "spiffe://{trust_domain}/{agent}-{name}",
    "spiffe://{trust_domain}//{device_id}",
    "spiffe://{trust_domain}/{device_id}/",
    "spiffe://{trust_domain}/./{device_id}",
    "spiffe://{trust_domain}/../{device_id}",
    "spiffe://{trust_domain}/a%2fb/{device_id}",
    "spiffe://{trust_domain}/a b/{device_id}",
    "spiffe://{trust_domain}/é/{device_id}",
    "spiffe://{trust_domain}/{device_id}?x=1",
    "spiffe://{trust_domain}/{device_id}#x",
    "spiffe://{trust_domain}/{hostname}/{device_id}",
    "spiffe://{trust_domain}/{DEVICE_ID}/{device_id}",
    "spiffe://{trust_domain}/{name:x}/{device_id}",
    "spiffe://{trust_domain}/{label:}/{device_id}",
    "spiffe://{trust_domain}/{label}/{device_id}",
    "spiffe://{trust_domain}/{label:a/b}/{device_id}",
    "spiffe://{trust_domain}/{device_id!r}",
    "spiffe://{trust_domain}/{device_id.__class__}",
    "spiffe://{trust_domain}/{}/{device_id}",
    "spiffe://{trust_domain}/{/{device_id}",
    "spiffe://{trust_domain}/{{device_id}}",
    "spiffe://{trust_domain}/*/{device_id}",
    "spiffe://{trust_domain}/spire/{device_id}",
    "spiffe://{trust_domain}/spire/server/{device_id}",
]


@pytest.mark.parametrize("template", BAD_TEMPLATES)
def test_mt_11_a_template_that_is_not_ours_or_not_each_devices_own_is_refused(template: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(policy_with(template))
    assert caught.value.reason == "template_wrong"
    assert caught.value.detail.startswith("grant[0].spiffe_id: expected ")


def test_mt_11_a_path_that_only_begins_like_the_reserved_one_is_ours() -> None:
    assert filled("spiffe://{trust_domain}/spired/{name}") == "spiffe://example.org/spired/gw-1"
    assert filled("spiffe://{trust_domain}/a/spire/{name}") == "spiffe://example.org/a/spire/gw-1"


def test_a_template_is_bounded() -> None:
    with pytest.raises(PolicyError) as caught:
        load(policy_with("spiffe://{trust_domain}/" + "a" * 2000 + "/{device_id}/" + "b" * 40))
    assert caught.value.reason in {"template_wrong", "value_wrong"}


@pytest.mark.parametrize(
    ("template", "name", "labels"),
    [
        ("spiffe://{trust_domain}/{name}", None, {}),
        ("spiffe://{trust_domain}/{label:site}/{name}", "gw-1", {}),
        ("spiffe://{trust_domain}/{label:site}/{name}", "gw-1", {"Site": "plant-1"}),
    ],
)
def test_a_placeholder_without_a_value_entitles_to_nothing(
    template: str, name: str | None, labels: dict[str, str]
) -> None:
    with pytest.raises(NotEntitled) as caught:
        filled(template, name=name, **labels)
    assert caught.value.reason == "placeholder_missing"


@pytest.mark.parametrize(
    "value", ["", ".", "..", ".a", "a/b", "a b", "a%2fb", "a\n", "é", "a" * 64, "a*", "\u212a"]
)
def test_a_value_that_cannot_stand_in_a_segment_entitles_to_nothing(value: str) -> None:
    template = "spiffe://{trust_domain}/{label:site}/{device_id}"
    with pytest.raises(NotEntitled) as caught:
        filled(template, site=value)
    assert caught.value.reason == "placeholder_unfit"
    assert filled(template, site="a" * 63).endswith(f"/{'a' * 63}/{DEVICE}")


def test_mt_11_a_label_cannot_lead_below_the_reserved_path() -> None:
    with pytest.raises(NotEntitled) as caught:
        filled("spiffe://{trust_domain}/{label:site}/{device_id}", site="spire")
    assert caught.value.reason == "id_reserved"
    with pytest.raises(NotEntitled):
        filled("spiffe://{trust_domain}/sp{label:site}/{device_id}", site="ire")


def test_an_id_that_grows_too_long_entitles_to_nothing() -> None:
    template = "spiffe://{trust_domain}/" + "{label:s}/" * 60 + "{device_id}"
    assert filled(template, s="ab").endswith(DEVICE)
    with pytest.raises(NotEntitled) as caught:
        filled(template, s="a" * 63)
    assert caught.value.reason == "id_invalid"


def test_mt_11_a_grant_is_for_its_agent_and_its_formats_alone() -> None:
    policy = load(HEALTHY)
    assert find_grant(policy, agent="telemetry", credential_format="wit-svid").ttl == 600
    assert find_grant(policy, agent="telemetry", credential_format="jwt-svid").ttl == 300
    for agent, credential_format in [
        ("other", "wit-svid"),
        ("telemetry", "client-attestation"),
        ("", "x509-svid"),
    ]:
        with pytest.raises(NotEntitled) as caught:
            find_grant(policy, agent=agent, credential_format=credential_format)
        assert caught.value.reason == "grant_missing"


def test_a_sealed_key_is_found_by_its_name_alone() -> None:
    policy = load(HEALTHY)
    assert find_seal(policy, name="disk").pcrs == (0, 9)
    with pytest.raises(NotEntitled) as caught:
        find_seal(policy, name="swap")
    assert caught.value.reason == "seal_missing"
