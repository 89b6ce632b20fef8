"""CH: is a challenge unpredictable, good for one device and one minute, and used once?"""

import hashlib
import math
import os
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from attestd.clock import now_ms
from attestd.nonce import Nonces
from attestd.store import meta
from tests.attester import Machine, b64, jwk_of, new_key
from tests.deployment import SERVER, Deployment, credential, policy_for

ATTEST, CHALLENGE = "/v1/attestations", "/v1/challenges"
SECOND = 1000


# CH-1


def test_ch_1_a_quote_without_qualifying_data_answers_no_request(plant: Deployment, gateway: Machine) -> None:
    round_ = plant.round(gateway)
    bare = replace(round_, quoting=lambda machine, _, registers: machine.quote(b"", registers))
    plant.problem(bare.body(), 403, "attestation_failed", cause="nonce_missing")
    plant.expect(200, ATTEST, round_.body())


@pytest.mark.parametrize("nonce", [None, "", "AA==", b64(bytes(31)), b64(bytes(33)), "missing"])
def test_ch_1_a_request_without_a_nonce_is_malformed(
    plant: Deployment, gateway: Machine, nonce: str | None
) -> None:
    round_ = plant.round(gateway)
    request = {**round_.request, "nonce": nonce}
    if nonce == "missing":
        del request["nonce"]
    told = plant.problem(replace(round_, request=request).body(), 400, "malformed")
    assert told["pointer"] == "/request/nonce"
    plant.expect(200, ATTEST, round_.body())


# CH-2


def test_ch_2_the_same_evidence_counts_once(plant: Deployment, gateway: Machine) -> None:
    body = plant.round(gateway, credentials=[credential("x509-svid", key=jwk_of(new_key("p256")))]).body()
    plant.expect(200, ATTEST, body)
    plant.problem(body, 409, "nonce_spent", device_id=gateway.device_id)
    assert plant.live(gateway) == 1


def test_ch_2_other_evidence_for_the_same_nonce_does_not_count_either(
    plant: Deployment, gateway: Machine
) -> None:
    first = plant.round(gateway)
    plant.expect(200, ATTEST, first.body())
    second = replace(first, machine=gateway.later(), request=first.request | {"boot_id": "another"})
    plant.problem(second.body(), 409, "nonce_spent")


def test_ch_2_of_eight_at_once_one_is_accepted(plant: Deployment, gateway: Machine) -> None:
    body = plant.round(gateway, credentials=[credential("x509-svid", key=jwk_of(new_key("p256")))]).body()

    def send(_: int) -> tuple[int, str | None]:
        answer = plant.client.application.test_client().post(ATTEST, json=body)
        return answer.status_code, answer.get_json().get("code")

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(send, range(8)), key=lambda answer: answer[0])
    assert answers == [(200, None), *[(409, "nonce_spent")] * 7]
    assert plant.live(gateway) == 1
    assert len(plant.audit(event="attest", device_id=gateway.device_id)) == 8


# CH-5


def in_child(work: Callable[[], bytes]) -> bytes:
    """What a forked process makes."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(work())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        made = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return made


def many(nonces: Nonces, now: int, count: int = 4000) -> bytes:
    """All at one time and for one device: nothing but chance tells them apart."""
    return b"".join(nonces.issue("0" * 64, now=now) for _ in range(count))


def test_ch_5_no_nonce_comes_twice_over_a_restart_and_four_processes(deployment: Deployment) -> None:
    now = now_ms()
    pieces = [in_child(lambda: many(deployment.service.nonces, now)) for _ in range(4)]
    deployment.restart()
    pieces.append(many(deployment.service.nonces, now))
    joined = b"".join(pieces)
    nonces = {joined[start : start + 32] for start in range(0, len(joined), 32)}
    assert len(nonces) == 20_000
    # NIST SP 800-22, 2.1: the frequency of ones. One good generator in a million fails this.
    bits = len(joined) * 8
    ones = int.from_bytes(joined, "big").bit_count()
    assert math.erfc(abs(2 * ones - bits) / math.sqrt(2 * bits)) > 1e-6
    # Neither a part of it: every byte takes every value.
    assert all(len({nonce[place] for nonce in nonces}) == 256 for place in range(32))


def test_ch_5_a_challenge_is_one_of_them(plant: Deployment, gateway: Machine) -> None:
    first, second = (b64decode(plant.challenge(gateway)["nonce"]) for _ in range(2))
    assert len(first) == len(second) == 32
    assert plant.service.nonces.issued_at(first, gateway.device_id) <= now_ms()
    assert first != second


# CH-6

ALIASES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "the nonce itself": lambda digest, nonce: nonce,
    "a prefix": lambda digest, nonce: digest[:31],
    "half of it": lambda digest, nonce: digest[:16],
    "zeros behind": lambda digest, nonce: digest + bytes(2),
    "zeros before": lambda digest, nonce: bytes(2) + digest,
    "hexadecimal": lambda digest, nonce: digest.hex().encode(),
    "upper case": lambda digest, nonce: digest.hex().upper().encode(),
    "base64": lambda digest, nonce: b64(digest).encode(),
    "base64url": lambda digest, nonce: urlsafe_b64encode(digest),
    "twice": lambda digest, nonce: digest + digest,
    "hashed again": lambda digest, nonce: hashlib.sha256(digest).digest(),
    "one byte": lambda digest, nonce: digest[:1],
}


@pytest.mark.parametrize("alias", ALIASES)
def test_ch_6_what_only_resembles_the_request_is_not_it(
    plant: Deployment, gateway: Machine, alias: str
) -> None:
    round_ = plant.round(gateway)
    nonce = b64decode(round_.request["nonce"])
    lie = replace(
        round_,
        quoting=lambda machine, digest, registers: machine.quote(ALIASES[alias](digest, nonce), registers),
    )
    plant.problem(lie.body(), 403, "attestation_failed", cause="nonce_mismatch")
    plant.expect(200, ATTEST, round_.body())


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text.rstrip("="),
        lambda text: text + "=",
        lambda text: text.replace("+", "-").replace("/", "_").rstrip("=") + "-=",
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: b64decode(text).hex(),
    ],
    ids=["no padding", "more padding", "url alphabet", "line end", "space", "hex"],
)
def test_ch_6_a_nonce_has_one_spelling(
    plant: Deployment, gateway: Machine, spell: Callable[[str], str]
) -> None:
    round_ = plant.round(gateway)
    alias = replace(round_, request=round_.request | {"nonce": spell(round_.request["nonce"])})
    status, told = plant.post(ATTEST, alias.body())
    assert (status, told["pointer"]) == (400, "/request/nonce")
    plant.expect(200, ATTEST, round_.body())


@pytest.mark.parametrize("bit", range(0, 256, 11))
def test_ch_6_a_nonce_that_was_not_issued_is_none(plant: Deployment, gateway: Machine, bit: int) -> None:
    round_ = plant.round(gateway)
    raw = bytearray(b64decode(round_.request["nonce"]))
    raw[bit // 8] ^= 1 << bit % 8
    forged = replace(round_, request=round_.request | {"nonce": b64(bytes(raw))})
    plant.problem(forged.body(), 403, "attestation_failed", cause="nonce_unknown")
    plant.expect(200, ATTEST, round_.body())


def test_a_nonce_is_for_one_device_one_server_and_one_life_of_the_database(
    plant: Deployment, gateway: Machine, deployment: Deployment
) -> None:
    other = plant.machine()
    borrowed = replace(plant.round(gateway), machine=other)
    mine = replace(borrowed, request=borrowed.request | {"device_id": other.device_id})
    plant.problem(mine.body(), 403, "attestation_failed", cause="nonce_unknown")
    round_ = plant.round(gateway)
    foreign = replace(round_, request=round_.request | {"nonce": deployment.challenge(gateway)["nonce"]})
    plant.problem(foreign.body(), 403, "attestation_failed", cause="nonce_unknown")
    for server in ("http://127.0.0.1:8441", SERVER + "/", "HTTP://127.0.0.1:8440", "http://localhost:8440"):
        misled = replace(round_, request=round_.request | {"server": server})
        plant.problem(misled.body(), 403, "attestation_failed", cause="wrong_server")
    plant.expect(200, ATTEST, round_.body())


# CH-7


def test_ch_7_a_nonce_lives_sixty_seconds(deployment: Deployment, machine: Machine) -> None:
    now = now_ms()
    body = deployment.round(machine, now=now).body()
    late = deployment.round(machine.later(), now=now).body()
    assert deployment.refusal(ATTEST, late, now=now + 60 * SECOND + 1) == ("nonce_expired", None)
    assert deployment.count("spent_nonces") == 0
    assert deployment.ask(ATTEST, body, now=now + 60 * SECOND)["verdict"] == "accepted"


def test_ch_7_a_nonce_from_a_time_to_come_is_not_good_yet(deployment: Deployment, machine: Machine) -> None:
    now = now_ms()
    body = deployment.round(machine, now=now + 6 * SECOND).body()
    assert deployment.refusal(ATTEST, body, now=now) == ("nonce_expired", "nonce_from_future")
    # As far as clocks of replicas may differ it is.
    assert deployment.ask(ATTEST, body, now=now + SECOND)["verdict"] == "accepted"


def test_ch_7_a_clock_that_went_back_gives_no_nonce_a_second_life(
    deployment: Deployment, machine: Machine
) -> None:
    now = now_ms()
    body = deployment.round(machine, now=now).body()
    deployment.ask(ATTEST, body, now=now)
    deployment.service.maintain(now + 20 * 60 * SECOND)
    assert deployment.count("spent_nonces") == 0
    assert deployment.refusal(ATTEST, body, now=now) == ("unavailable", "clock_went_back")
    ahead = now + 20 * 60 * SECOND
    fresh = deployment.round(machine.later(), now=ahead).body()
    assert deployment.ask(ATTEST, fresh, now=ahead)["verdict"] == "accepted"
    # By no more than the skew that is let pass it may differ.
    fresh = deployment.round(machine.later(2000), now=ahead - 4 * SECOND).body()
    assert deployment.ask(ATTEST, fresh, now=ahead - 4 * SECOND)["verdict"] == "accepted"


def test_ch_7_a_restored_backup_knows_no_nonce_of_before(deployment: Deployment, machine: Machine) -> None:
    body = deployment.round(machine).body()
    deployment.service.store.write(lambda tx: meta.raise_epoch(tx, now_ms()))
    deployment.restart()
    deployment.problem(body, 403, "attestation_failed", cause="nonce_unknown")
    deployment.attest(machine)


# CH-8


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment.create(tmp_path / "service", settings={"unproven_per_second": "50"})
    made.apply(policy_for(Machine.create(made.maker)))
    yield made
    made.close()


def test_ch_8_a_flood_of_challenges_writes_nothing_and_harms_nobody(limited: Deployment) -> None:
    machine = limited.machine()
    waiting = limited.round(machine)
    before, length = limited.kept(), limited.audit_length()
    attacker = {"REMOTE_ADDR": "192.0.2.7"}
    answers = [
        limited.client.post(CHALLENGE, json={"device_id": machine.device_id}, environ_base=attacker)
        for _ in range(3000)
    ]
    statuses = {answer.status_code for answer in answers}
    assert statuses == {201, 429}
    granted = sum(answer.status_code == 201 for answer in answers)
    assert 50 <= granted < 1500
    slowed = next(answer for answer in answers if answer.status_code == 429)
    assert slowed.get_json()["code"] == "slow_down"
    assert int(slowed.headers["Retry-After"]) >= 1
    assert limited.kept() == before
    assert limited.count("spent_nonces") == limited.count("attestations") == 0
    # The refusals have ten records a minute and one with their number, and no more.
    assert limited.audit_length() <= length + 2 * 11
    limited.expect(200, ATTEST, waiting.body())
    limited.expect(201, CHALLENGE, {"device_id": machine.device_id})


def test_ch_8_what_was_counted_is_told_when_the_minute_ends(limited: Deployment) -> None:
    body, attacker = {"device_id": "0" * 64}, {"REMOTE_ADDR": "192.0.2.7"}
    answers = [limited.client.post(CHALLENGE, json=body, environ_base=attacker) for _ in range(500)]
    refused = sum(answer.status_code == 429 for answer in answers)
    limited.service.maintain(now_ms() + 60 * SECOND)
    assert sum(record["count"] for record in limited.audit(code="slow_down")) == refused


def test_ch_8_a_device_that_proved_itself_has_a_limit_of_its_own(tmp_path: Path) -> None:
    strict = Deployment.create(tmp_path / "service", settings={"device_per_minute": "3"})
    strict.apply(policy_for(Machine.create(strict.maker)))
    machine, other = strict.machine(), strict.machine()
    for step in range(3):
        strict.attest(machine.later(step))
    body = strict.round(machine.later(9)).body()
    strict.problem(body, 429, "slow_down", cause="device_rate")
    assert strict.count("spent_nonces") == 3
    strict.attest(other)
    # Evidence that somebody else made takes nothing from the device's share.
    liar = other.later(7).with_new_ak()
    for _ in range(4):
        strict.problem(strict.round(liar).body(), 403, "attestation_failed")
    strict.attest(other.later(8))
    strict.close()


# CH-9


def test_ch_9_a_refused_posture_has_used_its_nonce(plant: Deployment, gateway: Machine) -> None:
    round_ = plant.round(gateway.extended(7, bytes(32)))
    plant.problem(round_.body(), 403, "posture_rejected")
    plant.problem(round_.body(), 409, "nonce_spent")
    healed = replace(round_, machine=gateway.later())
    plant.problem(healed.body(), 409, "nonce_spent")
    plant.attest(gateway.later())


def test_ch_9_who_does_not_hold_the_key_can_burn_nothing(plant: Deployment, gateway: Machine) -> None:
    round_ = plant.round(gateway)
    liar = replace(round_, machine=gateway.with_new_ak())
    for _ in range(3):
        plant.problem(liar.body(), 403, "attestation_failed")
    body = round_.body()
    damaged = {**body, "quote": {**body["quote"], "signature": b64(liar.machine.quote(bytes(32), (0,))[1])}}
    plant.problem(damaged, 403, "attestation_failed")
    plant.expect(200, ATTEST, body)


# What is asked for


def test_a_challenge_says_what_to_quote_and_until_when(plant: Deployment, gateway: Machine) -> None:
    told = plant.challenge(gateway)
    assert told.keys() == {"nonce", "expires_at", "pcr_selection", "event_log", "ima_log"}
    assert told["pcr_selection"] == [{"bank": "sha256", "pcrs": [0, 7]}]
    assert (told["event_log"], told["ima_log"]) == (False, False)
    stranger = plant.expect(201, CHALLENGE, {"device_id": "0" * 64})
    assert {**stranger, "nonce": "", "expires_at": ""} == {**told, "nonce": "", "expires_at": ""}


def test_without_any_policy_the_firmwares_registers_are_asked_for(deployment: Deployment) -> None:
    machine = deployment.machine()
    assert deployment.challenge(machine)["pcr_selection"] == [{"bank": "sha256", "pcrs": list(range(8))}]
    deployment.problem(deployment.round(machine).body(), 403, "no_policy", cause="policy_none")
    deployment.apply(policy_for(machine))
    deployment.attest(machine.later())


def test_each_bank_that_a_policy_names_is_asked_for_the_strongest_first(deployment: Deployment) -> None:
    machine = deployment.machine()
    long = Machine(**{**vars(machine), "bank": "sha384", "pcrs": {r: bytes([r + 1]) * 48 for r in range(24)}})
    labelled = '[match]\nlabels = { kind = ["long"] }\n'
    deployment.apply(policy_for(machine))
    text = policy_for(long, name="long", registers=(0, 2, 4), extra=labelled)
    deployment.apply(text.replace("pcrs = [0, 7]", "pcrs = [14]"), "long.toml")
    assert deployment.challenge(machine)["pcr_selection"] == [
        {"bank": "sha384", "pcrs": [0, 2, 4, 14]},
        {"bank": "sha256", "pcrs": [0, 7]},
    ]
    deployment.attest(machine)
    deployment.operate("device", "label", machine.device_id, "kind=long")
    told = deployment.problem(deployment.round(machine.later()).body(), 403, "evidence_incomplete")
    assert told["findings"] == [
        {"code": "bank_missing", "subject": "sha384", "expected": ["sha384"], "found": "sha256"}
    ]
    deployment.attest(replace(long, clock=machine.clock + 2000))
