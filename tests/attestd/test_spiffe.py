"""Is only a SPIFFE ID taken for one?"""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spiffe.spiffe_id.spiffe_id import SpiffeId

from attestd.spiffe import trust_domain_of, validate_spiffe_id, validate_trust_domain, validate_workload_id

VECTORS = Path(__file__).parents[1] / "vectors" / "spiffe" / "go-spiffeid-strings"
IDS = json.loads((VECTORS / "ids.json").read_text())


def test_the_vectors_are_all_there() -> None:
    expected = json.loads((VECTORS / "expected.json").read_text())["expected"]
    assert (len(IDS["valid"]), len(IDS["invalid"])) == (expected["valid"], expected["invalid"])


@pytest.mark.parametrize("text", IDS["valid"])
def test_valid_ids_of_go_spiffe_are_accepted(text: str) -> None:
    validate_spiffe_id(text)
    assert trust_domain_of(text) == "trustdomain"


@pytest.mark.parametrize("text", [case["id"] for case in IDS["invalid"]])
def test_invalid_ids_of_go_spiffe_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"SPIFFE ID|trust domain"):
        validate_spiffe_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "SPIFFE://trustdomain/a",
        "spiffe://Trustdomain/a",
        "spiffe://trustdomain:8080/a",
        "spiffe://user@trustdomain/a",
        "spiffe://trustdomain/a?b",
        "spiffe://trustdomain/a#b",
        "spiffe://trustdomain/a\n",
        "spiffe://trustdomain\n",
        "spiffe://trustdomain/ä",
        "spiffe://" + "a" * 256,
        "spiffe://trustdomain/" + "a" * 2028,
        "wimse://trustdomain/a",
    ],
)
def test_what_is_not_canonical_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"SPIFFE ID|trust domain"):
        validate_spiffe_id(text)


def test_the_longest_id_is_accepted() -> None:
    validate_workload_id("spiffe://trustdomain/" + "a" * 2027)
    validate_trust_domain("a" * 255)


def test_a_workload_has_a_path() -> None:
    validate_workload_id("spiffe://trustdomain/a")
    with pytest.raises(ValueError, match="has a path"):
        validate_workload_id("spiffe://trustdomain")


@given(st.text() | st.from_regex(r"spiffe://[a-z0-9._-]*(/[A-Za-z0-9._-]*)*", fullmatch=True))
def test_what_is_accepted_is_accepted_by_the_spiffe_package_unchanged(text: str) -> None:
    try:
        validate_spiffe_id(text)
    except ValueError:
        return
    assert str(SpiffeId(text)) == text
