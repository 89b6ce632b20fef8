"""Problems, JSON and base64 have one writing; everything else is refused with a pointer."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.wire import STATUS, Problem, b64, b64encode, dump_json, join, load_json, to_problem
from tests.bad_values import BAD_VALUES, NEVER_JSON, replaced, with_duplicate
from tpm.errors import EvidenceError, NoncanonicalError, StructureError

DOCUMENT = {"a": {"b": [1, {"c": "text"}]}, "d/e~f": 2}


def refusal(raw: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        load_json(raw)
    return caught.value


def code_of(function: Callable[..., object], *arguments: object) -> str | None:
    """The code of the refusal, None for none; any other exception goes through."""
    try:
        function(*arguments)
    except Problem as problem:
        return problem.code
    return None


def test_a_plain_object_is_read() -> None:
    raw = '{"a": [null, true, -9223372036854775808, 9223372036854775807, "é😀", {}], "b": "\\ud83d\\ude00"}'
    assert load_json(raw.encode()) == json.loads(raw)


@pytest.mark.parametrize("name", sorted(NEVER_JSON))
@pytest.mark.parametrize("pointer", ["/a/b/1/c", "/d~1e~0f"])
def test_what_has_two_meanings_is_malformed_wherever_it_stands(name: str, pointer: str) -> None:
    problem = refusal(replaced(DOCUMENT, pointer, BAD_VALUES[name]))
    assert (problem.code, problem.status) == ("malformed", 400)


@pytest.mark.parametrize("name", sorted(BAD_VALUES.keys() - NEVER_JSON))
def test_what_has_one_meaning_is_left_to_the_model(name: str) -> None:
    assert "a" in load_json(replaced(DOCUMENT, "/a/b/0", BAD_VALUES[name]))


@pytest.mark.parametrize(
    "name", ["fraction", "exponent", "2^63", "huge_number", "nan", "infinity", "lone_surrogate", "nul"]
)
def test_the_pointer_names_the_member(name: str) -> None:
    assert refusal(replaced(DOCUMENT, "/a/b/1/c", BAD_VALUES[name])).pointer == "/a/b/1/c"
    assert refusal(replaced(DOCUMENT, "/d~1e~0f", BAD_VALUES[name])).pointer == "/d~1e~0f"


@pytest.mark.parametrize(("pointer", "raw"), list(with_duplicate(DOCUMENT)))
def test_a_member_given_twice_is_malformed_at_its_pointer(pointer: str, raw: bytes) -> None:
    assert refusal(raw).pointer == pointer


def test_nesting_ends_at_32() -> None:
    assert load_json(b'{"a":' + b"[" * 31 + b"]" * 31 + b"}")
    assert "32" in refusal(b'{"a":' + b"[" * 32 + b"]" * 32 + b"}").detail


def test_ht_5_numbers_are_integers_of_64_bits() -> None:
    for number in (2**63, -(2**63) - 1, 2**64, 10**400):
        assert refusal(b'{"n":%d}' % number).pointer == "/n"
    assert load_json(b'{"n":%d}' % (2**63 - 1)) == {"n": 2**63 - 1}


def test_megabytes_of_empty_lists_are_refused_before_they_are_built() -> None:
    assert "values" in refusal(b'{"a":[' + b"[]," * 1_000_000 + b"[]]}").detail
    assert "values" in refusal(b'{"a":[' + b"1," * 20_001 + b"1]}").detail


def test_a_surrogate_or_nul_in_a_name_is_malformed_and_not_sent_back() -> None:
    for raw in (
        rb'{"a":{"\ud800":1}}',
        rb'{"a":{"\u0000":1}}',
        rb'{"\udc00":1.5}',
        rb'{"\udc00":1,"\udc00":2}',
    ):
        problem = refusal(raw)
        told = dump_json(problem.body("id"))
        assert b"\\ud" not in told.replace(b"\\ufffd", b"")
        assert b"\\u0000" not in told


def test_a_megabyte_of_a_name_is_not_sent_back() -> None:
    problem = refusal(b'{"%s":1.5}' % (b"x" * 1_000_000))
    assert len(dump_json(problem.body("id"))) < 2000


def test_the_pointer_continues_where_the_bytes_stood() -> None:
    with pytest.raises(Problem) as caught:
        load_json(b'{"a":1.5}', pointer="/request")
    assert caught.value.pointer == "/request/a"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_are_a_problem(raw: bytes) -> None:
    assert code_of(load_json, raw) in (None, "malformed")


_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), _plain, max_size=5))
def test_what_is_written_is_read_back(document: dict[str, object]) -> None:
    raw = dump_json(document)
    assert raw.isascii()
    if "\\u0000" not in raw.decode():
        assert load_json(raw) == document


# base64


@given(st.binary(max_size=100))
def test_base64_is_read_back(value: bytes) -> None:
    assert b64(b64encode(value), "/x") == value


@pytest.mark.parametrize(
    "text",
    [
        "QU!JD",  # junk characters
        "QU JD",
        "QUJD\n",
        "\nQUJD",
        "QUI",  # missing padding
        "QUJD=",  # extra padding
        "QUI==",
        "QUJ=",  # trailing bits that are not zero
        "QR==",
        "-_-_",  # the URL alphabet
        "+_+/",
        "QUI=QUJD",  # data after the end
        "QUI=\n",
        "QUJDé",
        "QUJD\x00",
    ],
)
def test_ht_6_what_a_lenient_reader_would_take_is_noncanonical(text: str) -> None:
    with pytest.raises(Problem) as caught:
        b64(text, "/x")
    assert (caught.value.code, caught.value.status, caught.value.pointer) == ("noncanonical", 400, "/x")


@pytest.mark.parametrize("text", ["!", "Q", "é", "====", "\x00", "\ud800", "QUJDQ"])
def test_what_nobody_could_take_is_malformed(text: str) -> None:
    with pytest.raises(Problem) as caught:
        b64(text, "/x")
    assert (caught.value.code, caught.value.pointer) == ("malformed", "/x")


@given(st.text(max_size=20))
def test_any_text_is_canonical_base64_or_a_problem(text: str) -> None:
    code = code_of(b64, text, "/x")
    assert code in (None, "malformed", "noncanonical")
    assert code is not None or b64encode(b64(text, "/x")) == text


# problems


@pytest.mark.parametrize("code", sorted(STATUS))
def test_every_code_has_a_complete_body(code: str) -> None:
    body = Problem(code, "Because.").body("0011223344556677")
    assert body["type"] == f"urn:attestd:problem:{code}"
    assert body["status"] == STATUS[code]
    assert body["code"] == code
    assert body["request_id"] == "0011223344556677"
    assert body["title"]
    assert body["detail"]
    assert "pointer" not in body
    assert "findings" not in body


def test_an_unknown_code_cannot_be_raised() -> None:
    with pytest.raises(KeyError):
        Problem("nonsense", "Because.")


def test_ht_11_attestation_failed_is_one_body_for_every_cause() -> None:
    one = Problem("attestation_failed", "The device is unknown.", pointer="/a", cause="unknown_device")
    two = Problem(
        "attestation_failed", "The signature is wrong.", findings=[{"code": "x"}], cause="bad_signature"
    )
    assert one.body("id") == two.body("id")


def test_the_cause_never_leaves() -> None:
    assert b"secret_cause" not in dump_json(Problem("conflict", "No.", cause="secret_cause").body("id"))


def test_findings_and_pointer_are_told_where_there_are_some() -> None:
    finding = {"code": "pcr_unexpected", "subject": "pcr7"}
    body = Problem("posture_rejected", "No.", findings=[finding], pointer="/pcrs").body("id")
    assert (body["findings"], body["pointer"]) == ([finding], "/pcrs")


def test_structures_that_are_none_become_problems_with_a_pointer() -> None:
    malformed = to_problem(StructureError("truncated", "Ended early."), "/quote/attest")
    noncanonical = to_problem(NoncanonicalError("trailing_bytes"), "/quote/attest")
    assert (malformed.code, malformed.cause, malformed.pointer) == ("malformed", "truncated", "/quote/attest")
    assert (noncanonical.code, noncanonical.cause) == ("noncanonical", "trailing_bytes")
    with pytest.raises(TypeError):
        to_problem(EvidenceError("bad_signature"), "/quote")


def test_pointers_escape_what_rfc_6901_escapes() -> None:
    assert join("/a", "b/c~d") == "/a/b~1c~0d"
    assert join("", 3) == "/3"
