"""Does an attestation result claim only what was shown, and no better a status than its worst claim?"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.issue.ear import Facts, status, tier_of, trustworthiness
from attestd.issue.statement import Basis

NOTHING = Facts(frozenset(), keys_in_tpm=False)
TIERS = ["none", "affirming", "warning", "contraindicated"]


def basis(assurance: Any = "ek_verified") -> Basis:
    return Basis("a", "p@1", assurance)


@pytest.mark.parametrize(
    ("claim", "value", "shown", "not_shown"),
    [
        ("hardware", 2, (basis(), NOTHING), (basis("first_use"), NOTHING)),
        ("hardware", 2, (basis(), NOTHING), (basis("allow_listed"), NOTHING)),
        ("hardware", 2, (basis(), NOTHING), (basis("emulated"), NOTHING)),
        (
            "configuration",
            2,
            (basis(), Facts(frozenset({7}), False)),
            (basis(), Facts(frozenset({0, 1, 4}), False)),
        ),
        (
            "executables",
            3,
            (basis(), Facts(frozenset({0, 2, 4}), False)),
            (basis(), Facts(frozenset({0, 4}), False)),
        ),
        ("storage-opaque", 2, (basis(), Facts(frozenset(), True)), (basis(), NOTHING)),
        (
            "storage-opaque",
            2,
            (basis(), Facts(frozenset(), True)),
            (basis("emulated"), Facts(frozenset(), True)),
        ),
    ],
)
def test_a_claim_is_made_where_it_was_shown_and_left_out_where_not(
    claim: str, value: int, shown: tuple[Basis, Facts], not_shown: tuple[Basis, Facts]
) -> None:
    assert trustworthiness(*shown)[claim] == value
    assert claim not in trustworthiness(*not_shown)


def test_what_a_plain_tpm_cannot_show_is_never_claimed() -> None:
    everything = trustworthiness(basis(), Facts(frozenset(range(24)), keys_in_tpm=True))
    assert everything.keys() == {
        "instance-identity",
        "hardware",
        "configuration",
        "executables",
        "storage-opaque",
    }


@pytest.mark.parametrize(
    ("value", "tier"),
    [
        *[(value, "none") for value in (-1, 0, 1)],
        *[(value, "affirming") for value in (2, 31, -2, -3, -32)],
        *[(value, "warning") for value in (32, 95, -33, -96)],
        *[(value, "contraindicated") for value in (96, 127, -97, -128)],
    ],
)
def test_tiers_are_those_of_ar4si(value: int, tier: str) -> None:
    assert tier_of(value) == tier


@pytest.mark.parametrize("value", [128, -129])
def test_a_claim_is_a_signed_byte(value: int) -> None:
    with pytest.raises(ValueError, match="signed byte"):
        tier_of(value)


@given(st.dictionaries(st.text(), st.integers(min_value=-128, max_value=127)))
def test_the_status_is_no_better_than_the_worst_claim(vector: dict[str, int]) -> None:
    found = TIERS.index(status(vector))
    assert all(found >= TIERS.index(tier_of(value)) for value in vector.values())
    assert vector or found == 0
