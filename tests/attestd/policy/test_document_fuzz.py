"""Whatever the bytes of a policy are, the answer is a policy or a PolicyError."""

import contextlib
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.policy.document import load_policy
from tests.attestd.policy.documents import HEALTHY, load, refused
from tpm.errors import PolicyError


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_but_a_policy_error(source: bytes) -> None:
    with pytest.raises(PolicyError):
        load_policy(source, {})


toml_keys = st.sampled_from(
    ["name", "bank", "pcrs", "match", "clock", "grant", "seal", "allow_unmeasured", "disclose", "x", "boot"]
)
toml_values = st.recursive(
    st.sampled_from(
        ["1", "-1", "nan", "1e999", "true", '""', '"sha256:00"', "2027-01-31T00:00:00Z", "'a'", "0x10"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from("07ab"), inner, max_size=3).map(
            lambda items: "{" + ", ".join(f"{key} = {value}" for key, value in items.items()) + "}"
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(toml_keys, toml_values, max_size=6))
def test_no_toml_document_raises_anything_but_a_policy_error(members: dict[str, str]) -> None:
    text = "\n".join(f"{key} = {value}" for key, value in members.items())
    tomllib.loads(text)
    assert refused(text).detail.isprintable()


@given(st.integers(0, len(HEALTHY)), st.sampled_from(["", "\n", "[", '"', "#", "=", "\x00", "é", "}", "7"]))
def test_no_edit_of_a_healthy_policy_raises_anything_but_a_policy_error(at: int, inserted: str) -> None:
    with contextlib.suppress(PolicyError):
        load(HEALTHY[:at] + inserted + HEALTHY[at + 1 :])
