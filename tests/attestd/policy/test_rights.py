"""What an agent may ask of the token endpoint is said exactly, or the policy is refused."""

import pytest

from attestd.policy.grants import Grant
from attestd.policy.rights import Delegation
from tests.attestd.policy.documents import HEALTHY, changed, load, refused

LOGIN = "https://login.example.org"


def with_line(line: str) -> str:
    """The healthy policy, this line in its first grant, which is of key "tpm"."""
    return changed('key = "tpm"', f'key = "tpm"\n{line}')


def grant_with(line: str) -> Grant:
    return load(with_line(line)).grants[0]


def delegation(issuers: str = f'["{LOGIN}"]', depth: str = "2") -> str:
    return f"delegation = {{ issuers = {issuers}, depth = {depth} }}"


def test_a_grant_without_rights_opens_nothing() -> None:
    grant = load(HEALTHY).grants[0]
    assert (grant.scopes, grant.audiences, grant.authorization_details) == ((), (), ())
    assert (grant.bearer, grant.max_posture_age, grant.delegation) == (False, None, None)


def test_every_right_is_read() -> None:
    lines = [
        'audiences = ["https://tools.example.org", "urn:example:ledger"]',
        'scopes = ["telemetry.write", "read:a/b*"]',
        'authorization_details = ["transfer", "https://example.org/types/payment"]',
        "bearer = false",
        'max_posture_age = "1h"',
        delegation(f'["{LOGIN}", "https://other.example/tenant/v2.0/", "http://127.0.0.1:9000"]', "3"),
    ]
    grant = grant_with("\n".join(lines))
    assert grant.audiences == ("https://tools.example.org", "urn:example:ledger")
    assert grant.scopes == ("telemetry.write", "read:a/b*")
    assert grant.authorization_details == ("transfer", "https://example.org/types/payment")
    assert grant.max_posture_age == 3600
    issuers = (LOGIN, "https://other.example/tenant/v2.0/", "http://127.0.0.1:9000")
    assert grant.delegation == Delegation(issuers=issuers, depth=3)


@pytest.mark.parametrize("grant", [0, 1], ids=["mine", "its sibling"])
def test_rights_belong_to_the_grant_that_names_them_and_to_no_other_of_the_agent(grant: int) -> None:
    grants = load(with_line('scopes = ["telemetry.write"]')).grants
    assert grants[0].agent == grants[1].agent
    assert grants[grant].scopes == (("telemetry.write",), ())[grant]


@pytest.mark.parametrize(
    "scope", ["", "two words", 'quo"te', "back\\\\slash", "é", "tab\\t", "new\\nline", "\\u007f"]
)
def test_oa_4_a_scope_is_one_scope_token(scope: str) -> None:
    error = refused(
        with_line(f"scopes = ['a', \"{scope}\"]" if '"' not in scope else f"scopes = ['a', '{scope}']")
    )
    assert error.reason == "value_wrong"
    assert error.detail.startswith("grant[0].scopes[1]:")
    assert grant_with("scopes = ['a']").scopes == ("a",)


@pytest.mark.parametrize("key", ["scopes", "audiences", "authorization_details"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[]", "list_empty"),
        ('["a", "a"]', "value_twice"),
        ('"a"', "type_wrong"),
        ("[7]", "type_wrong"),
        ("true", "type_wrong"),
        ('["a b"]', "value_wrong"),
    ],
)
def test_a_list_of_rights_is_one_of_different_texts(key: str, value: str, reason: str) -> None:
    error = refused(with_line(f"{key} = {value}"))
    assert error.reason == reason
    assert error.detail.startswith(f"grant[0].{key}")
    assert getattr(grant_with(f'{key} = ["a"]'), key) == ("a",)


@pytest.mark.parametrize("key", ["audiences", "authorization_details"])
def test_nobody_can_believe_that_a_star_matches(key: str) -> None:
    error = refused(with_line(f'{key} = ["https://*.example.org"]'))
    assert (error.reason, error.detail.partition(":")[0]) == ("value_wrong", f"grant[0].{key}[0]")


def test_a_bearer_token_never_comes_of_a_grant_that_promises_a_tpm_key() -> None:
    error = refused(with_line("bearer = true"))
    assert (error.reason, error.detail.partition(":")[0]) == ("value_wrong", "grant[0].bearer")
    assert 'key = "any"' in error.detail
    allowed = changed('key = "tpm"', 'key = "any"\nbearer = true')
    assert load(allowed).grants[0].bearer
    # The default is "tpm" too.
    assert refused(changed('key = "tpm"', "bearer = true")).reason == "value_wrong"


@pytest.mark.parametrize("value", ['"yes"', "1", "[]"])
def test_bearer_is_true_or_false(value: str) -> None:
    assert refused(with_line(f"bearer = {value}")).reason == "type_wrong"


@pytest.mark.parametrize("age", ["0s", "-1m", "25h", "60", "", "forever", "2d"])
def test_mt_5_a_postures_age_is_a_duration_of_at_most_a_day(age: str) -> None:
    error = refused(with_line(f'max_posture_age = "{age}"'))
    assert (error.reason, error.detail.partition(":")[0]) == ("value_wrong", "grant[0].max_posture_age")
    assert grant_with('max_posture_age = "24h"').max_posture_age == 86_400


@pytest.mark.parametrize(
    "issuer",
    [
        "http://login.example.org",
        "login.example.org",
        "https://Login.example.org",
        "https://me@login.example.org",
        "https://login.example.org?tenant=a",
        "https://login.example.org#a",
        "https://*.example.org",
        "https://localhost:80@evil.example",
        "file:///etc/passwd",
        "https://",
    ],
)
def test_oa_10_users_come_from_an_issuer_that_is_one_https_url(issuer: str) -> None:
    error = refused(with_line(delegation(f'["{LOGIN}", "{issuer}"]')))
    assert error.reason == "value_wrong"
    assert error.detail.startswith("grant[0].delegation.issuers[1]:")


@pytest.mark.parametrize(
    ("line", "reason", "at"),
    [
        (delegation(depth="0"), "value_wrong", "grant[0].delegation.depth"),
        (delegation(depth="9"), "value_wrong", "grant[0].delegation.depth"),
        (delegation(depth="-1"), "value_wrong", "grant[0].delegation.depth"),
        (delegation(depth="true"), "type_wrong", "grant[0].delegation.depth"),
        (delegation(depth='"2"'), "type_wrong", "grant[0].delegation.depth"),
        (delegation(issuers="[]"), "list_empty", "grant[0].delegation.issuers"),
        ("delegation = { depth = 2 }", "key_missing", "grant[0].delegation.issuers"),
        (f'delegation = {{ issuers = ["{LOGIN}"] }}', "key_missing", "grant[0].delegation.depth"),
        ("delegation = true", "type_wrong", "grant[0].delegation"),
        (f'delegation = {{ isuers = ["{LOGIN}"], depth = 1 }}', "key_unknown", "grant[0].delegation.isuers"),
    ],
)
def test_oa_7_a_delegation_names_its_issuers_and_its_depth(line: str, reason: str, at: str) -> None:
    error = refused(with_line(line))
    assert error.reason == reason
    assert error.detail.startswith(at)


@pytest.mark.parametrize("depth", [1, 8])
def test_the_shortest_and_the_longest_delegation_are_accepted(depth: int) -> None:
    found = grant_with(delegation(depth=str(depth))).delegation
    assert found == Delegation(issuers=(LOGIN,), depth=depth)
