"""Is every bad value of every member refused at its place, with one record, and is nothing issued or lost?"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from attestd.wire import STATUS
from tests.attester import (
    Machine,
    Round,
    TestMaker,
    activation_body,
    b64,
    enrollment_body,
    jwk_of,
    new_key,
    new_round,
    parent_key,
    signing_key,
)
from tests.bad_values import (
    BAD_VALUES,
    NEVER_JSON,
    pointers,
    replaced,
    with_duplicate,
    with_unknown,
    without,
)
from tests.deployment import OF_VALUE, SERVER, Deployment, credential

ENROLL, ACTIVATE = "/v1/enrollments", "/v1/activations"
CHALLENGE, ATTEST = "/v1/challenges", "/v1/attestations"
REQUEST = "/request"
"""Stands for the bytes that the TPM signs, which are a document inside another."""

Document = dict[str, Any]
KEY, PARENT, SOFTWARE_KEY = signing_key(), parent_key(), new_key("p256")


def new_round_of(machine: Machine, challenge: Document) -> Round:
    """A round that uses every member."""
    return new_round(
        machine,
        challenge,
        SERVER,
        certified=(KEY, PARENT),
        boot_id="boot-1",
        ima_from=0,
        credentials=[
            credential("x509-svid", "telemetry", key={"name": KEY.name.hex()}),
            credential("wit-svid", key=jwk_of(SOFTWARE_KEY)),
            credential("jwt-svid", audience=["https://a.example.org"]),
        ],
        sealed_keys=[
            {"name": "disk", "parent": "ek"},
            {"name": "disk", "parent": {"name": PARENT.name.hex()}},
        ],
    )


def attestation(round_: Round, raw: bytes | None = None) -> Document:
    return round_.body(raw) | {"event_log": None, "userspace_log": None, "ima_log": None}


def enrollment(machine: Machine, maker: TestMaker) -> Document:
    chain = [b64(maker.certificate.public_bytes(Encoding.DER))]
    return enrollment_body(machine, ek_chain=chain, hostname="gateway-1")


def shapes() -> Iterator[tuple[str, str]]:
    """Every document and pointer, of documents like those that are sent."""
    maker = TestMaker.create()
    machine = Machine.create(maker)
    round_ = new_round_of(machine, {"nonce": "", "pcr_selection": [{"bank": "sha256", "pcrs": [0, 7]}]})
    documents = {
        ENROLL: enrollment(machine, maker),
        ACTIVATE: {"enrollment": "", "proof": ""},
        CHALLENGE: {"device_id": ""},
        ATTEST: attestation(round_),
        REQUEST: round_.request,
    }
    for path, document in documents.items():
        yield from ((path, pointer) for pointer in pointers(document))


class Sender:
    """One machine that sends its documents to one service."""

    def __init__(self, plant: Deployment) -> None:
        self.plant = plant
        self.machine = plant.machine()
        self.newcomer = Machine.create(plant.maker)
        begun = plant.expect(201, ENROLL, enrollment_body(self.newcomer))
        self.round = self.fresh()
        self.documents: dict[str, Document] = {
            ENROLL: enrollment(self.newcomer, plant.maker),
            ACTIVATE: dict(activation_body(self.newcomer, begun, SERVER)),
            CHALLENGE: {"device_id": self.machine.device_id},
            ATTEST: attestation(self.round),
            REQUEST: self.round.request,
        }

    def fresh(self) -> Round:
        """A round with a nonce that is not spent."""
        return new_round_of(self.machine, self.plant.challenge(self.machine))

    def send(self, path: str, raw: bytes) -> tuple[int, Document]:
        """`raw` where this document belongs."""
        if path == REQUEST:
            return self.plant.post(ATTEST, attestation(self.round, raw))
        return self.plant.post(path, raw)

    def check_refused(self, path: str, raw: bytes, what: str) -> Document:
        """4xx as a problem that the table knows, with one record and nothing of value."""
        length = self.plant.audit_length()
        status, told = self.send(path, raw)
        assert 400 <= status < 500, (what, status, told)
        assert STATUS[told["code"]] == told["status"] == status, what
        assert told["type"] == f"urn:attestd:problem:{told['code']}", what
        assert not OF_VALUE & told.keys(), what
        assert self.plant.audit_length() == length + 1, what
        (record,) = self.plant.audit(request_id=told["request_id"])
        assert (record["decision"], record["code"]) == ("refused", told["code"]), what
        assert len(json.dumps(told)) < 2000, what
        return told


@pytest.fixture(scope="module")
def sender(plant: Deployment) -> Sender:
    return Sender(plant)


NAMES = {"text", "number_as_text"}
WORDS = NAMES | {"arabic_digits", "line_separator", "crlf", "escape_sequence"}
BYTES = {"empty_text", "megabyte_of_text"}

GOOD: dict[tuple[str, str], set[str]] = {
    (ENROLL, "/ek_chain"): {"list"},
    (ENROLL, "/hostname"): {"null", "empty_text", *NAMES},
    (ATTEST, "/proofs/1"): {"null"},
    (ATTEST, "/event_log"): {"null"},
    (ATTEST, "/userspace_log"): {"null", "empty_text"},
    (ATTEST, "/ima_log"): {"null", *BYTES},
    (REQUEST, "/v"): {"one"},
    (REQUEST, "/boot_id"): {"null", *NAMES},
    (REQUEST, "/ima_from"): {"zero", "one"},
}
"""What is bad for most members and good for these: the answer is the usual one."""

FALSE: dict[tuple[str, str], tuple[set[str], int, str]] = {
    (ENROLL, "/ek_certificate"): (BYTES, 403, "enrollment_refused"),
    (ENROLL, "/ek_chain/0"): (BYTES, 403, "enrollment_refused"),
    (ACTIVATE, "/enrollment"): (WORDS, 404, "not_found"),
    (ACTIVATE, "/proof"): (BYTES, 403, "enrollment_refused"),
    (ATTEST, "/pcrs"): ({"object"}, 403, "evidence_incomplete"),
    (ATTEST, "/pcrs/sha256"): ({"object"}, 403, "evidence_incomplete"),
    (ATTEST, "/proofs"): ({"list", "list_of_null"}, 403, "evidence_incomplete"),
    (ATTEST, "/proofs/0"): ({"null", *BYTES}, 403, "evidence_incomplete"),
    (ATTEST, "/proofs/1"): (BYTES, 403, "evidence_incomplete"),
    (REQUEST, "/server"): (WORDS, 403, "attestation_failed"),
    (REQUEST, "/credentials/0/agent"): (NAMES, 403, "not_entitled"),
    (REQUEST, "/credentials/1/agent"): (NAMES, 403, "not_entitled"),
    (REQUEST, "/credentials/2/agent"): (NAMES, 403, "not_entitled"),
    (REQUEST, "/credentials/2/audience/0"): (WORDS, 403, "not_entitled"),
    (REQUEST, "/sealed_keys/0/name"): (NAMES, 403, "not_entitled"),
    (REQUEST, "/sealed_keys/1/name"): (NAMES, 403, "not_entitled"),
}
"""What is well formed and not so: (bad values, status, code)."""

ELSEWHERE = {
    (ENROLL, "/ek_certificate", "null"): "/ek_chain",
    (ATTEST, "/certified", "list"): "/proofs",
    (REQUEST, "/credentials", "list"): "/certified/0",
    (REQUEST, "/sealed_keys", "list"): "/certified/1",
}
"""A member without which another one makes no sense: the pointer is that one's."""


def place_of(path: str, pointer: str, name: str) -> str:
    """Where the fault is told to be."""
    if (path, pointer, name) in ELSEWHERE:
        return ELSEWHERE[path, pointer, name]
    if pointer.startswith("/credentials/1/key/"):
        pointer = "/credentials/1/key"  # a key is good or bad as a whole
    return ("/request" if path == REQUEST else "") + pointer


@pytest.mark.parametrize(("path", "pointer"), list(shapes()))
def test_every_bad_value_is_refused_at_its_place(sender: Sender, path: str, pointer: str) -> None:
    kept, live = sender.plant.kept(), sender.plant.live()
    well_formed = GOOD.get((path, pointer), set()) | FALSE.get((path, pointer), (set(), 0, ""))[0]
    for name, token in BAD_VALUES.items():
        if name in well_formed:
            continue
        raw = replaced(sender.documents[path], pointer, token)
        told = sender.check_refused(path, raw, name)
        assert told["code"] in ("malformed", "noncanonical"), (name, told)
        expected = place_of(path, pointer, name)
        if name in NEVER_JSON:  # refused as bytes or text: where, as far as a reader of JSON can say
            assert expected.startswith(told["pointer"]) or told["pointer"].startswith(expected), (name, told)
        else:
            assert told["pointer"].startswith(expected), (name, told)
    assert (sender.plant.kept(), sender.plant.live()) == (kept, live)


@pytest.mark.parametrize(
    ("path", "pointer", "name"), [(*at, name) for at, names in GOOD.items() for name in sorted(names)]
)
def test_what_is_good_for_a_member_is_taken(sender: Sender, path: str, pointer: str, name: str) -> None:
    status, told = send_fresh(sender, path, pointer, name)
    assert status == (201 if path == ENROLL else 200), told


@pytest.mark.parametrize(
    ("path", "pointer", "name"), [(*at, name) for at, (names, *_) in FALSE.items() for name in sorted(names)]
)
def test_what_is_well_formed_and_not_so_is_refused_in_its_turn(
    sender: Sender, path: str, pointer: str, name: str
) -> None:
    kept, live, length = sender.plant.kept(), sender.plant.live(), sender.plant.audit_length()
    _, status, code = FALSE[path, pointer]
    found, told = send_fresh(sender, path, pointer, name)
    assert (found, told["code"]) == (status, code), told
    assert (sender.plant.kept(), sender.plant.live()) == (kept, live)
    assert sender.plant.audit_length() == length + 1


def send_fresh(sender: Sender, path: str, pointer: str, name: str) -> tuple[int, Document]:
    """The document with this value, and with a nonce that is not spent."""
    token = BAD_VALUES[name]
    if path == REQUEST:
        round_ = sender.fresh()
        return sender.plant.post(ATTEST, attestation(round_, replaced(round_.request, pointer, token)))
    document = attestation(sender.fresh()) if path == ATTEST else sender.documents[path]
    return sender.plant.post(path, replaced(document, pointer, token))


# Members that are missing, unknown or given twice

OPTIONAL = {
    (ENROLL, "/ek_chain"): 201,
    (ENROLL, "/hostname"): 201,
    (ENROLL, "/ek_certificate"): 400,  # the chain remains
    (ATTEST, "/event_log"): 200,
    (ATTEST, "/userspace_log"): 200,
    (ATTEST, "/ima_log"): 200,
    (ATTEST, "/proofs"): 403,  # evidence_incomplete
    (ATTEST, "/certified"): 400,  # the proofs remain
    (ATTEST, "/pcrs/sha256"): 403,
    (ATTEST, "/pcrs/sha256/0"): 403,
    (ATTEST, "/pcrs/sha256/7"): 403,
    (REQUEST, "/boot_id"): 200,
    (REQUEST, "/ima_from"): 200,
    (REQUEST, "/credentials"): 400,  # a certified key remains that nobody names
    (REQUEST, "/sealed_keys"): 400,
}
DOCUMENTS = [ENROLL, ACTIVATE, CHALLENGE, ATTEST, REQUEST]


@pytest.mark.parametrize("path", DOCUMENTS)
def test_what_is_missing_is_missed(sender: Sender, path: str) -> None:
    kept, live = sender.plant.kept(), sender.plant.live()
    for pointer, raw in without(sender.documents[path]):
        if (path, pointer) in OPTIONAL:
            continue
        told = sender.check_refused(path, raw, pointer)
        assert told["code"] == "malformed", (pointer, told)
        parent = place_of(path, pointer, "").rpartition("/")[0]
        assert told["pointer"].startswith(parent), (pointer, told)
    assert (sender.plant.kept(), sender.plant.live()) == (kept, live)


@pytest.mark.parametrize(("path", "pointer"), OPTIONAL)
def test_what_may_be_left_out_may_be_left_out(sender: Sender, path: str, pointer: str) -> None:
    round_ = sender.fresh()
    documents = sender.documents | {ATTEST: attestation(round_), REQUEST: round_.request}
    raw = dict(without(documents[path]))[pointer]
    if path == REQUEST:
        found, told = sender.plant.post(ATTEST, attestation(round_, raw))
    else:
        found, told = sender.plant.post(path, raw)
    assert found == OPTIONAL[path, pointer], told


@pytest.mark.parametrize("path", DOCUMENTS)
def test_unknown_members_are_refused_in_every_object(sender: Sender, path: str) -> None:
    kept, live = sender.plant.kept(), sender.plant.live()
    for pointer, raw in with_unknown(sender.documents[path]):
        told = sender.check_refused(path, raw, pointer)
        assert told["code"] == "malformed", (pointer, told)
        place = place_of(path, pointer, "")
        assert told["pointer"] in (f"{place}/unknown_member", "/request/credentials/1/key"), (pointer, told)
    assert (sender.plant.kept(), sender.plant.live()) == (kept, live)


@pytest.mark.parametrize("path", DOCUMENTS)
def test_members_that_are_given_twice_are_refused_in_every_object(sender: Sender, path: str) -> None:
    kept, live = sender.plant.kept(), sender.plant.live()
    for pointer, raw in with_duplicate(sender.documents[path]):
        told = sender.check_refused(path, raw, pointer)
        prefix = "/request" if path == REQUEST else ""
        assert (told["code"], told["pointer"]) == ("malformed", prefix + pointer), (pointer, told)
    assert (sender.plant.kept(), sender.plant.live()) == (kept, live)


NO_DOCUMENTS = [b"", b" ", b"null", b"[]", b"1", b'"x"', b"{", b"{}{}", b"{}\x00", b"\xff\xfe{\x00}\x00"]
NO_DOCUMENTS += [b"\xef\xbb\xbf{}", b"{'a': 1}", b"{a: 1}", b"// x\n{}", b'{"a": 1,}', b"\x1f\x8b\x08"]
NO_DOCUMENTS += [b"[" * 100_000, b'{"a":' * 100_000]


@pytest.mark.parametrize("path", DOCUMENTS)
@pytest.mark.parametrize("raw", NO_DOCUMENTS, ids=lambda raw: repr(raw[:8]))
def test_what_is_no_object_is_malformed(sender: Sender, path: str, raw: bytes) -> None:
    told = sender.check_refused(path, raw, repr(raw[:8]))
    assert (told["code"], told["pointer"]) == ("malformed", "/request" if path == REQUEST else "")


@pytest.mark.parametrize("path", DOCUMENTS)
def test_the_documents_themselves_are_taken(sender: Sender, path: str) -> None:
    """The healthy twin of everything above."""
    if path in (ATTEST, REQUEST):
        round_ = sender.fresh()
        answer = sender.plant.expect(200, ATTEST, attestation(round_, json.dumps(round_.request).encode()))
        assert (len(answer["credentials"]), len(answer["sealed_keys"])) == (3, 2)
    else:
        sender.plant.expect(201, path, sender.documents[path])


MOST: list[tuple[str, int, Any]] = [
    ("credentials", 16, credential("jwt-svid", audience=["https://a.example.org"])),
    ("sealed_keys", 16, {"name": "disk", "parent": "ek"}),
]


@pytest.mark.parametrize(("member", "most", "entry"), MOST)
def test_a_round_asks_for_so_many_and_no_more(sender: Sender, member: str, most: int, entry: Any) -> None:
    plant = sender.plant
    round_ = plant.round(sender.machine, **{member: [entry] * (most + 1)})
    assert plant.problem(round_.body(), 400, "malformed")["pointer"] == f"/request/{member}"
    answer = plant.attest(sender.machine, **{member: [entry] * most})
    assert len(answer[member]) == most


def test_a_round_brings_so_many_keys_and_no_more(sender: Sender) -> None:
    plant, keys = sender.plant, [signing_key() for _ in range(16)]
    parents = [parent_key() for _ in range(16)]
    asked: dict[str, Any] = {
        "credentials": [credential("x509-svid", key={"name": key.name.hex()}) for key in keys],
        "sealed_keys": [{"name": "disk", "parent": {"name": key.name.hex()}} for key in parents],
    }
    body = plant.round(sender.machine, certified=[*keys, *parents], **asked).body()
    more = {**body, "certified": [*body["certified"], body["certified"][0]]}
    assert plant.problem(more, 400, "malformed")["pointer"] == "/certified"
    proofs = {**body, "proofs": [*body["proofs"], None]}
    assert plant.problem(proofs, 400, "malformed")["pointer"] == "/proofs"
    answer = plant.expect(200, ATTEST, body)
    assert (len(answer["credentials"]), len(answer["sealed_keys"])) == (16, 16)


def test_a_request_has_at_most_a_mebibyte(sender: Sender) -> None:
    round_ = sender.fresh()
    raw = json.dumps(round_.request).encode()
    large = raw + b" " * ((1 << 20) + 1 - len(raw))
    sender.plant.problem(attestation(round_, large), 413, "too_large")
    sender.plant.expect(200, ATTEST, attestation(round_, large[:-1]))


@pytest.mark.parametrize("member", ["event_log", "userspace_log"])
def test_a_log_that_cannot_be_read_is_malformed_and_costs_no_nonce(sender: Sender, member: str) -> None:
    body = sender.plant.round(sender.machine).body()
    for value in (b64(b"log"), b64(b"\0" * 3), 1, {"sha256": "0"}):
        told = sender.plant.problem({**body, member: value}, 400, "malformed")
        assert told["pointer"].startswith(f"/{member}")
    sender.plant.expect(200, ATTEST, body)


def test_a_log_that_nobody_kept_is_needed_and_costs_no_nonce(sender: Sender) -> None:
    body = sender.plant.round(sender.machine).body()
    told = sender.plant.problem({**body, "event_log": {"sha256": "0" * 64}}, 409, "log_needed")
    assert told["pointer"] == "/event_log"
    sender.plant.expect(200, ATTEST, body)
