"""Whatever answers, the agent bounds it, chooses every name itself, and signs nothing but its own request."""

import itertools
import json
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes
from typing import Any

import pytest

from attestd.agent.errors import Refusal, Unreachable
from attestd.agent.transport import ANSWER_LIMIT, RETRY_LIMIT, Server
from tests.attestd.agent.far_side import (
    ACTIVATE,
    ATTEST,
    ATTESTED,
    BUNDLE,
    CHALLENGE,
    ENROLL,
    PUBLISHED,
    WANTED,
    FarSide,
    Raw,
    Told,
    answer,
    challenge,
    member_of,
    problem,
)
from tests.serving import Agent
from tests.tpm.device.leftovers import leftovers
from tpm.device.device import Device
from tpm.seal.credential import make_credential
from tpm.structures.attest import parse_quote
from tpm.structures.public import parse_sized_public
from tpm.swtpm import SoftwareTpm
from tpm.verify.device_id import device_identifier


@pytest.fixture
def far() -> Iterator[FarSide]:
    with FarSide() as far:
        yield far


@pytest.fixture
def member(far: FarSide, shared_tpm: SoftwareTpm, tmp_path: Path) -> Agent:
    """A machine that believes to be enrolled at the far side."""
    return member_of(far, Agent(shared_tpm, tmp_path / "state", far.url))


def refused(member: Agent, out: Path, *, status: int = 3) -> str:
    """One line on stderr, nothing written, nothing left in the TPM."""
    told = member.attest(out, *WANTED, status=status)
    assert not out.exists()
    assert len(told.stderr.splitlines()) == 1
    assert told.stderr.isprintable() or told.stderr.rstrip("\n").isprintable()
    assert len(told.stderr) < 1000
    assert leftovers(member.tpm) == {}
    return told.stderr


def test_a_good_far_side_is_believed(member: Agent, tmp_path: Path) -> None:
    member.attest(tmp_path / "out", *WANTED)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "result.jwt", "bundle.pem", "builder.jwt", "disk.seal.json"
    }  # fmt: skip


def credential(**changed: Any) -> Told:
    good = dict(ATTESTED["credentials"][0])
    return {**ATTESTED, "credentials": [good | changed]}


@pytest.mark.parametrize(
    "said",
    [
        {**ATTESTED, "sealed_keys": [{"name": "../../evil"}]},
        {**ATTESTED, "sealed_keys": [{"name": "/etc/evil"}]},
        {**ATTESTED, "sealed_keys": [{"name": "other"}]},
        {**ATTESTED, "sealed_keys": [{"name": "disk"}, {"name": "disk"}]},
        {**ATTESTED, "sealed_keys": []},
        {**ATTESTED, "sealed_keys": None},
        {**ATTESTED, "credentials": []},
        {**ATTESTED, "credentials": [*ATTESTED["credentials"], *ATTESTED["credentials"]]},
        {**ATTESTED, "credentials": ["x"]},
        {**ATTESTED, "result": None},
        {**ATTESTED, "result": "\u00e9\ud800"},
        credential(agent="../evil"),
        credential(agent="telemetry"),
        credential(format="x509-svid"),
        credential(format="evil"),
        credential(token=None),
        credential(token=["t"]),
        {},
        [],
    ],
    ids=itertools.count(),
)
def test_ag_1_an_answer_that_is_not_what_was_asked_for_is_refused(
    far: FarSide, member: Agent, tmp_path: Path, said: Told
) -> None:
    far.answers[ATTEST] = answer(said)
    refused(member, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"state"}


@pytest.mark.parametrize(
    "changed",
    [
        {"nonce": None},
        {"nonce": 1},
        {"nonce": "not base64"},
        {"nonce": b64encode(bytes(31)).decode()},
        {"nonce": b64encode(bytes(33)).decode()},
        {"nonce": b64encode(bytes(1 << 20)).decode()},
        {"nonce": "\x1b[2J"},
        {"pcr_selection": None},
        {"pcr_selection": ["sha256"]},
        {"pcr_selection": [{"bank": "sha256"}]},
        {"pcr_selection": [{"bank": "sha256", "pcrs": []}]},
        {"pcr_selection": [{"bank": "sha256", "pcrs": [24]}]},
        {"pcr_selection": [{"bank": "sha256", "pcrs": [-1]}]},
        {"pcr_selection": [{"bank": "sha256", "pcrs": [10**30]}]},
        {"pcr_selection": [{"bank": "sha256", "pcrs": ["0"]}]},
        {"pcr_selection": [{"bank": "\x1b[2Jmd5", "pcrs": [0]}]},
        {"pcr_selection": [{"bank": ["sha256"], "pcrs": [0]}]},
    ],
    ids=lambda changed: str(changed)[:60],
)
def test_ag_1_a_challenge_that_cannot_be_one_is_not_answered(
    far: FarSide, member: Agent, tmp_path: Path, changed: Told
) -> None:
    far.answers[CHALLENGE] = challenge(**changed)
    refused(member, tmp_path / "out")
    assert far.count(ATTEST) == 0


def test_ag_1_the_tpm_signs_a_request_of_our_own_that_names_this_server(
    far: FarSide, member: Agent, tmp_path: Path
) -> None:
    member.attest(tmp_path / "out", *WANTED)
    (request,) = far.requests()
    assert (request["purpose"], request["server"], request["device_id"]) == ("attest", far.url, "ab" * 32)
    body = next(body for path, body in far.asked if path == ATTEST)
    quote = parse_quote(b64decode(body["quote"]["attest"]))
    assert quote.extra_data == sha256(b64decode(body["request"])).digest()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "does not answer"),
        (b"\x16\x03\x01", "does not answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n{}", "does not answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n{}", "does not answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + b'{"nonce":', "not JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx", "not JSON"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "does not answer"),
        (answer(b"<html>a portal</html>"), "not JSON"),
        (answer([1]), "not JSON"),
        (answer("text"), "not JSON"),
        (answer(b"[" * 100_000), "not JSON"),
        (answer(b'{"n":' + b"9" * 10_000 + b"}"), "not JSON"),
        (answer(b'{"a":"\xff"}'), "not JSON"),
        (answer(b"", 204), "not JSON"),
        (answer(b"{" + b" " * ANSWER_LIMIT + b"}"), f"more than {ANSWER_LIMIT} bytes"),
        (answer({"detail": "\x1b[2J" + "x" * 10_000}, 500), "cannot serve now"),
        (answer({"detail": None}, 503), "cannot serve now"),
    ],
    ids=lambda said: repr(said[:40]),
)
def test_ag_1_what_is_no_answer_of_this_protocol_is_told_and_ends_it(
    far: FarSide, member: Agent, tmp_path: Path, said: Raw, words: str
) -> None:
    far.answers[CHALLENGE] = said
    assert words in refused(member, tmp_path / "out")


def test_ag_1_an_endless_answer_is_read_no_further_than_its_bound(
    far: FarSide, member: Agent, tmp_path: Path
) -> None:
    piece = b"%x\r\n%s\r\n" % (1 << 16, b" " * (1 << 16))
    far.answers[CHALLENGE] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + piece * 200
    assert "more than" in refused(member, tmp_path / "out")


def drip(head: bytes, drop: bytes) -> Iterator[bytes]:
    """A drop now and then, for ever."""
    yield head
    while True:
        time.sleep(0.02)
        yield drop


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b" "),
    ],
    ids=["continue", "header", "length", "chunked", "close"],
)
def test_ag_1_a_server_that_drips_is_left_in_time(head: bytes, drop: bytes) -> None:
    with FarSide({"/slow": lambda: drip(head, drop)}) as far:
        started = time.monotonic()
        with pytest.raises(Unreachable, match=r"no whole answer within 0\.4 seconds"):
            Server(far.url, patience=0.4).get("/slow")
        assert time.monotonic() - started < 2


def test_ag_1_a_server_that_says_nothing_is_left_in_time() -> None:
    with FarSide({"/slow": lambda: drip(b"", b"")}) as far:
        started = time.monotonic()
        with pytest.raises(Unreachable, match="does not answer"):
            Server(far.url, patience=0.4).get("/slow")
        assert time.monotonic() - started < 2


def test_an_answer_in_pieces_that_arrives_in_time_is_read() -> None:
    whole = answer({"a": 1})
    with FarSide({"/slow": lambda: (bytes([byte]) for byte in whole)}) as far:
        assert Server(far.url, patience=5).get("/slow") == {"a": 1}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_ag_5_a_redirect_is_refused_and_the_body_sent_nowhere_else(
    far: FarSide, member: Agent, tmp_path: Path, status: int
) -> None:
    with FarSide() as elsewhere:
        for path in (CHALLENGE, ATTEST):
            far.answers[path] = answer({}, status, f"Location: {elsewhere.url}{path}\r\n")
            assert "redirect" in refused(member, tmp_path / "out")
            far.answers[CHALLENGE] = challenge
        assert elsewhere.asked == []


@pytest.mark.parametrize(
    "published",
    [
        {},
        {"keys": None},
        {"keys": []},
        {"keys": PUBLISHED["keys"][:1]},
        {"keys": ["x"]},
        {"keys": [{"use": "x509-svid"}]},
        {"keys": [{"use": "x509-svid", "x5c": []}]},
        {"keys": [{"use": "x509-svid", "x5c": ["AAAA"]}]},
        {"keys": [{"use": "x509-svid", "x5c": ["!"]}]},
    ],
    ids=str,
)
def test_a_bundle_without_authorities_leaves_no_credentials(
    far: FarSide, member: Agent, tmp_path: Path, published: Told
) -> None:
    far.answers[BUNDLE] = published
    refused(member, tmp_path / "out")


@pytest.mark.parametrize("code", ["nonce_spent", "nonce_expired", "conflict"])
def test_where_the_service_says_to_begin_anew_it_does_with_a_new_nonce(
    far: FarSide, member: Agent, tmp_path: Path, code: str
) -> None:
    said = iter([problem(409, code), problem(409, code), answer(ATTESTED)])
    far.answers[ATTEST] = lambda: next(said)
    member.attest(tmp_path / "out", *WANTED)
    nonces = [request["nonce"] for request in far.requests()]
    assert len(nonces) == len(set(nonces)) == 3


@pytest.mark.parametrize(
    ("said", "rounds"),
    [
        (problem(409, "nonce_expired"), 3),
        (problem(409, "identity_bound"), 1),
        (problem(403, "attestation_failed"), 1),
        (problem(429, "slow_down"), 1),
        (problem(400, "malformed", pointer="/quote"), 1),
        (problem(403, "evidence_incomplete", findings="all"), 1),
        (problem(403, "evidence_incomplete", findings=[1, {"code": "bank_missing"}]), 1),
        (problem(403, "evidence_incomplete", findings=[{"code": "bank_missing", "expected": [7]}]), 1),
        (problem(403, "evidence_incomplete", findings=[{"code": "bank_missing", "expected": ["sha256"]}]), 3),
        (answer({"code": ["conflict"]}, 409), 1),
        (answer({"detail": "\x1b[2J"}, 403), 1),
    ],
    ids=lambda said: repr(said[-60:]) if isinstance(said, bytes) else None,
)
def test_a_refusal_ends_it_after_at_most_three_rounds(
    far: FarSide, member: Agent, tmp_path: Path, said: Raw, rounds: int
) -> None:
    far.answers[ATTEST] = said
    told = refused(member, tmp_path / "out", status=1)
    assert json.loads(told) == json.loads(said.partition(b"\r\n\r\n")[2])
    assert far.count(ATTEST) == rounds


def test_a_bank_that_the_tpm_lacks_is_told(far: FarSide, member: Agent, tmp_path: Path) -> None:
    missing = [{"code": "bank_missing", "expected": ["sha999"]}]
    far.answers[ATTEST] = problem(403, "evidence_incomplete", findings=missing)
    told = refused(member, tmp_path / "out", status=1)
    assert "asks for the banks sha256; this TPM has sha1" in told


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("1000000000", None),
        ("999999999", RETRY_LIMIT),
        ("-1", None),
        ("Wed, 21 Oct 2015", None),
        ("\u00b2", None),
    ],
)
def test_ag_6_what_the_server_says_of_later_is_bounded(header: str, seconds: int | None) -> None:
    busy = answer({"code": "slow_down"}, 429, f"Retry-After: {header}\r\n")
    with FarSide({"/busy": busy}) as far, pytest.raises(Refusal) as refusal:
        Server(far.url).get("/busy")
    assert refusal.value.retry_after == seconds


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("999999999", RETRY_LIMIT), ("-1", None)])
@pytest.mark.parametrize("body", [{"code": "unavailable"}, b"<html>later</html>"], ids=["problem", "proxy"])
def test_ag_6_and_so_it_is_where_the_server_cannot_serve(
    header: str, seconds: int | None, body: object
) -> None:
    away = answer(body, 503, f"Retry-After: {header}\r\n")
    with FarSide({"/away": away}) as far, pytest.raises(Unreachable) as unreachable:
        Server(far.url).get("/away")
    assert unreachable.value.retry_after == seconds


def test_the_event_log_goes_only_where_it_is_asked_for(far: FarSide, member: Agent, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"log")
    for asked in (False, True, "true"):
        far.answers[CHALLENGE] = challenge(event_log=asked)
        member.attest(tmp_path / "out", *WANTED, "--event-log", tmp_path / "log")
    sent = [body.get("event_log") for path, body in far.asked if path == ATTEST]
    assert sent == [None, b64encode(b"log").decode(), None]


CREDENTIAL = {"id_object": "AAA=", "encrypted_secret": "AAA="}


@pytest.mark.parametrize(
    ("enrolled", "status"),
    [
        ({}, 3),
        ({"enrollment": "e"}, 3),
        ({"enrollment": 1, "credential": CREDENTIAL}, 3),
        ({"enrollment": "e", "credential": {"id_object": "AAA="}}, 3),
        ({"enrollment": "e", "credential": CREDENTIAL | {"id_object": "\x1b"}}, 3),
        ({"enrollment": "e", "credential": CREDENTIAL | {"id_object": [1]}}, 3),
        ({"enrollment": "e", "credential": CREDENTIAL}, 1),
        ({"enrollment": "e", "credential": CREDENTIAL | {"id_object": b64encode(bytes(70_000)).decode()}}, 1),
    ],
    ids=lambda said: str(said)[:70],
)
def test_ag_1_an_enrolment_that_cannot_be_one_is_not_answered(
    far: FarSide, shared_tpm: SoftwareTpm, tmp_path: Path, enrolled: Told, status: int
) -> None:
    far.answers[ENROLL] = enrolled
    told = Agent(shared_tpm, tmp_path / "state", far.url).enroll(status=status)
    assert len(told.stderr.splitlines()) == 1
    assert "internal error" not in told.stderr
    assert far.count(ACTIVATE) == 0
    assert not (tmp_path / "state" / "enrollment.json").exists()
    assert leftovers(shared_tpm) == {}


def test_a_refused_enrolment_is_the_problem_as_json(
    far: FarSide, shared_tpm: SoftwareTpm, tmp_path: Path
) -> None:
    far.answers[ENROLL] = problem(403, "enrollment_refused")
    told = Agent(shared_tpm, tmp_path / "state", far.url).enroll(status=1)
    assert json.loads(told.stderr)["code"] == "enrollment_refused"
    assert leftovers(shared_tpm) == {}


def credential_for(far: FarSide) -> Told:
    """What an honest service makes of the last introduction; its secret is of no account here."""
    introduction = far.asked[-1][1]
    ek, ak = (parse_sized_public(b64decode(introduction[name])) for name in ("ek_public", "ak_public"))
    made = make_credential(ek, ak.name, token_bytes(32))
    wrapped = {"id_object": made.id_object, "encrypted_secret": made.encrypted_secret}
    return {"enrollment": "e", "credential": {name: b64encode(raw).decode() for name, raw in wrapped.items()}}


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, 0),
        ({"device_id": "cd" * 32}, 3),
        ({"device_id": None}, 3),
        ({"state": "root"}, 3),
        ({"state": [1]}, 3),
    ],
    ids=str,
)
def test_ag_1_the_device_is_who_its_tpm_says_whatever_the_server_calls_it(
    far: FarSide, shared_tpm: SoftwareTpm, tmp_path: Path, changed: Told, status: int
) -> None:
    with Device(shared_tpm.tcti) as device:
        identifier = device_identifier(device.endorsement().public.public_key())
    far.answers[ENROLL] = lambda: credential_for(far)
    far.answers[ACTIVATE] = {"device_id": identifier, "state": "active", **changed}
    Agent(shared_tpm, tmp_path / "state", far.url).enroll(status=status)
    assert (tmp_path / "state" / "enrollment.json").exists() == (status == 0)
