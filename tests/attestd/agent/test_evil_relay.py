"""What a false service has its devices' TPMs do is of no use at the true one, nor anywhere else."""

import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes
from typing import Any

import pytest

from attestd.agent.attest import Wanted
from attestd.agent.enroll import enroll
from attestd.agent.errors import Refusal, Unreachable
from attestd.agent.machine import Machine
from attestd.agent.state import State
from attestd.agent.transport import Server
from attestd.wire import Problem
from tests.attestd.agent.far_side import (
    ACTIVATE,
    ATTEST,
    ATTESTED,
    CHALLENGE,
    ENROLL,
    FarSide,
    Raw,
    Said,
    answer,
    challenge,
    problem,
)
from tests.attestd.agent.running.simulated import Line, World, world
from tests.deployment import SERVER
from tests.tpm.device.leftovers import leftovers
from tpm.device.device import Device
from tpm.errors import DeviceError
from tpm.seal.credential import make_credential
from tpm.structures.public import parse_sized_public
from tpm.swtpm import SoftwareTpm

RESULT = Wanted(None, (), "tpm", (), ())
"""An attestation that asks for nothing but its result."""


@pytest.fixture
def true(shared_tpm: SoftwareTpm, tmp_path: Path) -> Iterator[World]:
    """The true service, which knows the machine, and the machine's own way to it."""
    with world(tmp_path, shared_tpm) as made:
        yield made
    assert leftovers(shared_tpm) == {}


def passed_on(true: World, path: str, body: Mapping[str, Any]) -> Raw:
    """What the true service says to this, as the false one hands it on."""
    try:
        return answer(true.deployment.ask(path, json.loads(json.dumps(body)), now=true.clock.now))
    except Problem as refused:
        return problem(refused.status, refused.code)


class Between(FarSide):
    """A false service that asks the true one for everything, and keeps what it was told."""

    def __init__(self, true: World) -> None:
        super().__init__()
        self.told: list[Raw] = []
        for path in (ENROLL, ACTIVATE, CHALLENGE, ATTEST):
            self.answers[path] = partial(self._ask, true, path)

    def _ask(self, true: World, path: str) -> Said:
        self.told.append(passed_on(true, path, self.asked[-1][1]))
        return self.told[-1]


def member(tpm: SoftwareTpm, state: State, server: Server) -> Machine:
    """The machine after enrolling there."""
    with Device(tpm.tcti) as device:
        enroll(device, server, state)
    return Machine.enrolled(tpm.tcti, state.directory)


# --- ActivateCredential ---------------------------------------------------------------------------


def test_ag_1_a_challenge_relayed_from_the_true_service_enrols_nobody_there(
    true: World, shared_tpm: SoftwareTpm, tmp_path: Path
) -> None:
    with Between(true) as false, pytest.raises(Refusal) as refusal:
        member(shared_tpm, State(tmp_path / "lured"), Server(false.url))
    assert refusal.value.code == "enrollment_refused"
    assert [path for path, _ in false.asked] == [ENROLL, ACTIVATE]
    assert true.device_ids == []


def test_the_same_machine_enrols_where_nobody_is_between(true: World, shared_tpm: SoftwareTpm) -> None:
    with Device(shared_tpm.tcti) as device:
        membership = enroll(device, Line(SERVER, weather=true.weather), true.state)
    assert true.device_ids == [membership.device_id]


SECRETS = (token_bytes(32), bytes(32), b"", b"\1", token_bytes(16))


class Oracle(FarSide):
    """Has the device's TPM open what it likes."""

    def __init__(self, secret: bytes, token: str = "e") -> None:
        super().__init__()
        self.secret, self.token = secret, token
        self.answers[ENROLL] = self._credential
        self.answers[ACTIVATE] = problem(403, "enrollment_refused")

    def _credential(self) -> Said:
        introduction = self.asked[-1][1]
        ek, ak = (parse_sized_public(b64decode(introduction[name])) for name in ("ek_public", "ak_public"))
        made = make_credential(ek, self.named(ak.name), self.secret)
        wrapped = {"id_object": made.id_object, "encrypted_secret": made.encrypted_secret}
        credential = {name: b64encode(raw).decode() for name, raw in wrapped.items()}
        return {"enrollment": self.token, "credential": credential}

    def named(self, ak: bytes) -> bytes:
        return ak


@pytest.mark.parametrize("secret", SECRETS[:2] + SECRETS[3:], ids=["random", "zeros", "byte", "short"])
@pytest.mark.parametrize("token", ["e", "attestd-activate http://127.0.0.1 x", "e" * 70_000])
def test_ag_1_what_the_tpm_opened_leaves_it_as_a_mac_over_our_words_alone(
    shared_tpm: SoftwareTpm, tmp_path: Path, secret: bytes, token: str
) -> None:
    with Oracle(secret, token) as false, pytest.raises(Refusal):
        member(shared_tpm, State(tmp_path / "state"), Server(false.url))
    (_, introduction), (_, activation) = false.asked
    ours = b"attestd-activate\0" + false.url.encode() + b"\0" + token.encode()
    proof = hmac.digest(secret, ours, "sha256")
    assert activation == {"enrollment": token, "proof": b64encode(proof).decode()}
    for given in (secret, sha256(secret).digest()):
        for written in (given.hex(), b64encode(given).decode()):
            assert len(secret) < 16 or written not in json.dumps([introduction, activation])


class Misnaming(Oracle):
    def named(self, ak: bytes) -> bytes:
        """Of another key than the one that was introduced."""
        return ak[:-1] + bytes([ak[-1] ^ 1])


def test_ag_1_a_secret_for_another_key_is_not_opened(shared_tpm: SoftwareTpm, tmp_path: Path) -> None:
    with Misnaming(SECRETS[0]) as false, pytest.raises(DeviceError) as refused:
        member(shared_tpm, State(tmp_path / "state"), Server(false.url))
    assert refused.value.reason in ("wrong_parent", "tpm_refused")
    assert false.count(ACTIVATE) == 0
    assert leftovers(shared_tpm) == {}


@pytest.mark.parametrize("token", ["\ud800", "", "\u00e9", "e\0e", "e\n", "\x1b[2J"])
def test_ag_1_a_text_that_cannot_be_an_enrolment_is_not_answered(
    shared_tpm: SoftwareTpm, tmp_path: Path, token: str
) -> None:
    with Oracle(SECRETS[0], token) as false, pytest.raises(Unreachable):
        member(shared_tpm, State(tmp_path / "state"), Server(false.url))
    assert false.count(ACTIVATE) == 0


# --- quotes ---------------------------------------------------------------------------------------


@pytest.fixture
def known(true: World, shared_tpm: SoftwareTpm) -> World:
    """The true service knows the machine."""
    with Device(shared_tpm.tcti) as device:
        enroll(device, Line(SERVER, weather=true.weather), true.state)
    return true


def lured(known: World, url: str, tmp_path: Path) -> Machine:
    """The same machine with the same attestation key, led to believe that it enrolled at this URL."""
    membership, recipe = known.state.enrolment()
    state = State(tmp_path / "lured")
    state.keep_recipe(recipe)
    state.keep_membership(type(membership)(url, membership.device_id, "active", membership.ek))
    return Machine.enrolled(known.tpm.tcti, state.directory)


def test_ag_1_an_attestation_for_the_false_service_is_none_for_the_true_one(
    known: World, tmp_path: Path
) -> None:
    """Though its nonce is the true one's and its key is known there."""
    with Between(known) as false, pytest.raises(Refusal) as refusal:
        lured(known, false.url, tmp_path).attest(RESULT)
    assert refusal.value.code == "attestation_failed"
    assert false.requests()[0]["server"] == false.url
    assert known.deployment.count("attestations", "outcome = 'issued'") == 0


def test_the_same_machine_is_accepted_where_nobody_is_between(known: World) -> None:
    machine = Machine(known.tpm.tcti, known.state, Line(SERVER, weather=known.weather))
    assert machine.attest(RESULT).answer["verdict"] == "accepted"
    assert known.deployment.count("attestations", "outcome = 'issued'") == 1


def test_ag_1_a_nonce_goes_into_our_request_and_never_into_a_quote(known: World, tmp_path: Path) -> None:
    """So that nobody has a TPM say anything but: this request, in full, is mine."""
    mine = token_bytes(32)
    with FarSide({CHALLENGE: challenge(nonce=b64encode(mine).decode()), ATTEST: nothing_asked()}) as false:
        lured(known, false.url, tmp_path).attest(RESULT)
        body = next(body for path, body in false.asked if path == ATTEST)
        request = json.loads(b64decode(body["request"]))
    assert b64decode(request["nonce"]) == mine
    assert mine not in b64decode(body["quote"]["attest"])
    assert set(request) == {
        "v",
        "purpose",
        "server",
        "nonce",
        "device_id",
        "boot_id",
        "credentials",
        "sealed_keys",
    }
    assert (request["purpose"], request["credentials"], request["sealed_keys"]) == ("attest", [], [])


def nothing_asked() -> dict[str, Any]:
    return {**ATTESTED, "credentials": [], "sealed_keys": []}


@pytest.mark.parametrize(
    "added",
    [
        {"credentials": [{"format": "x509-svid", "agent": "root"}]},
        {"device_id": "ab" * 32},
        {"server": SERVER},
        {"purpose": "enroll"},
        {"ima_from": 7},
        {"audience": ["https://a.example.org"]},
    ],
    ids=str,
)
def test_ag_1_nothing_that_a_challenge_says_beyond_its_members_is_signed(
    known: World, tmp_path: Path, added: Mapping[str, Any]
) -> None:
    with FarSide({CHALLENGE: lambda: challenge(**added), ATTEST: nothing_asked()}) as false:
        machine = lured(known, false.url, tmp_path)
        machine.attest(RESULT)
        (request,) = false.requests()
        membership, _ = machine.state.enrolment()
    assert (request["server"], request["purpose"], request["v"]) == (false.url, "attest", 1)
    assert (request["device_id"], request["credentials"]) == (membership.device_id, [])
    assert "ima_from" not in request
    assert "audience" not in request
