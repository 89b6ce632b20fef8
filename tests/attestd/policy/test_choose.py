"""The most specific policy decides, by what is verified and what operators said; a tie is an error."""

import dataclasses

import pytest

from attestd.policy.challenge import challenge_selection
from attestd.policy.choose import NoPolicy, Subject, choose_policy, find_ties
from tests.attestd.policy.documents import named

EVERYONE = named("everyone")
PLANT = named("plant", 'match.labels = { site = ["plant-1", "plant-2"] }')
IFX = named("ifx", 'match.manufacturers = ["IFX"]')
PLANT_IFX = named("plant-ifx", 'match = { labels = { site = ["plant-1"] }, manufacturers = ["IFX"] }')
PLANT_ROLE = named("plant-role", 'match.labels = { site = ["plant-1"], role = ["edge"] }')


def subject(manufacturer: str | None = None, **labels: str) -> Subject:
    return Subject(device_id="d" * 64, labels=labels, manufacturer=manufacturer)


CHOICES = [
    ((EVERYONE,), subject(), "everyone"),
    ((EVERYONE, PLANT), subject(site="plant-2"), "plant"),
    ((PLANT, EVERYONE), subject(site="plant-3"), "everyone"),
    ((EVERYONE, IFX), subject("IFX"), "ifx"),
    ((EVERYONE, IFX), subject("NTC"), "everyone"),
    ((EVERYONE, IFX), subject(None), "everyone"),
    ((EVERYONE, PLANT, IFX, PLANT_IFX), subject("IFX", site="plant-1"), "plant-ifx"),
    ((PLANT, PLANT_ROLE), subject(site="plant-1", role="edge"), "plant-role"),
    ((PLANT, PLANT_ROLE), subject(site="plant-1", role="core"), "plant"),
]


@pytest.mark.parametrize(("policies", "device", "expected"), CHOICES)
def test_the_most_specific_policy_that_covers_a_device_decides(policies, device, expected) -> None:  # type: ignore[no-untyped-def]
    assert choose_policy(policies, device).name == expected
    assert choose_policy(tuple(reversed(policies)), device).name == expected


@pytest.mark.parametrize(
    ("policies", "device"),
    [
        ((), subject()),
        ((PLANT,), subject()),
        ((PLANT,), subject(site="plant-10")),
        ((PLANT,), subject(site="PLANT-1")),
    ],
)
def test_no_policy_covers_what_no_match_names(policies, device) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NoPolicy) as caught:
        choose_policy(policies, device)
    assert (caught.value.reason, caught.value.names) == ("none", ())


def test_a_tie_is_an_error_that_names_the_policies() -> None:
    device = subject("IFX", site="plant-1")
    with pytest.raises(NoPolicy) as caught:
        choose_policy((PLANT, IFX, EVERYONE), device)
    assert (caught.value.reason, caught.value.names) == ("tie", ("ifx", "plant"))
    assert choose_policy((PLANT, IFX, PLANT_IFX), device).name == "plant-ifx"


def test_pd_6_nothing_that_a_device_says_of_itself_can_choose() -> None:
    assert {field.name for field in dataclasses.fields(Subject)} == {"device_id", "labels", "manufacturer"}
    with pytest.raises(NoPolicy):
        choose_policy((PLANT,), subject(hostname="plant-1"))


def test_pd_7_labels_are_compared_whole() -> None:
    dotted = named("dotted", 'match.labels = { site = ["plant.1"] }')
    for near in ("plant-1", "plantx1", "plant.1.attacker", "xplant.1", "plant.1\n"):
        with pytest.raises(NoPolicy):
            choose_policy((dotted,), subject(site=near))
    assert choose_policy((dotted,), subject(site="plant.1")).name == "dotted"


def test_ties_are_found_for_the_devices_that_would_tie_and_no_others() -> None:
    devices = [
        Subject("a" * 64, {"site": "plant-1"}, "IFX"),
        Subject("b" * 64, {"site": "plant-1"}, "NTC"),
        Subject("c" * 64, {}, None),
    ]
    assert find_ties((PLANT, IFX), devices) == {"a" * 64: ("ifx", "plant")}
    assert find_ties((PLANT, IFX, PLANT_IFX), devices) == {}


def test_without_a_policy_the_firmwares_registers_are_asked_for() -> None:
    assert challenge_selection(()) == (("sha256", (0, 1, 2, 3, 4, 5, 6, 7)),)


def test_a_challenge_asks_for_what_all_policies_need_strongest_bank_first() -> None:
    seal = '[[seal]]\nname = "s"\nkind = "secret-16"\npcrs = [23, 9]\n'
    policies = (
        named("a", pcrs="0 7"),
        named("b", pcrs="4 7"),
        named("c", bank="sha384", pcrs="11", seals=seal),
        named("d", bank="sha512", pcrs="2"),
    )
    expected = (("sha512", (2,)), ("sha384", (9, 11, 23)), ("sha256", (0, 4, 7)))
    assert challenge_selection(policies) == expected
    assert challenge_selection(reversed(policies)) == expected
