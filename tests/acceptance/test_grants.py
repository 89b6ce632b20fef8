"""Does a machine get all that it may have and nothing else, and is it told where it asked too much?"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.attester import (
    CERTIFY,
    ENDORSEMENT,
    Machine,
    Round,
    TpmKey,
    b64,
    jwk_of,
    jws_value,
    new_key,
    parent_key,
    qualified,
    sign,
    signing_key,
    sized,
)
from tests.deployment import Deployment, credential, policy_for

ATTEST = "/v1/attestations"
A, B = "https://a.example.org", "https://b.example.org"


def resident(key: TpmKey, form: str = "x509-svid", agent: str = "telemetry") -> dict[str, Any]:
    return credential(form, agent, key={"name": key.name.hex()})


def soft(form: str = "x509-svid", agent: str = "billing") -> dict[str, Any]:
    return credential(form, agent, key=jwk_of(new_key("p256")))


# Entitlement, all or nothing


@pytest.mark.parametrize(
    ("asked", "pointer", "cause"),
    [
        ([soft(), soft(agent="nobody")], "/credentials/1", "grant_missing"),
        ([soft(agent="nobody"), soft()], "/credentials/0", "grant_missing"),
        ([soft(agent="telemetry")], "/credentials/0/key", "software_key"),
        ([soft(), soft("wit-svid", "telemetry")], "/credentials/1/key", "software_key"),
        ([credential("jwt-svid", "telemetry", audience=[A])], "/credentials/0", "grant_missing"),
        ([credential("jwt-svid", audience=["https://c.example"])], "/credentials/0/audience/0", "audience"),
        ([credential("jwt-svid", audience=[A, B, A + "/"])], "/credentials/0/audience/2", "audience"),
        ([credential("jwt-svid", audience=[A.upper()])], "/credentials/0/audience/0", "audience"),
        ([soft(), credential("jwt-svid", audience=["*"])], "/credentials/1/audience/0", "audience"),
    ],
)
def test_what_is_not_granted_is_pointed_at_and_nothing_is_given(
    plant: Deployment, gateway: Machine, asked: list[dict[str, Any]], pointer: str, cause: str
) -> None:
    told = plant.problem(plant.round(gateway, credentials=asked).body(), 403, "not_entitled", cause=cause)
    assert told["pointer"] == pointer
    assert plant.live(gateway) == 0
    plant.attest(gateway.later(), credentials=[soft(), credential("jwt-svid", audience=[A, B])])


@pytest.mark.parametrize("name", ["other", "disk2", "0"])
def test_a_seal_that_is_not_given_is_pointed_at(plant: Deployment, gateway: Machine, name: str) -> None:
    good = {"name": "disk", "parent": "ek"}
    asked = {"credentials": [soft()], "sealed_keys": [good, {"name": name, "parent": "ek"}]}
    told = plant.problem(plant.round(gateway, **asked).body(), 403, "not_entitled", cause="seal_missing")
    assert told["pointer"] == "/sealed_keys/1/name"
    plant.attest(gateway.later(), credentials=[soft()], sealed_keys=[good])


def test_a_placeholder_without_a_value_gives_no_id(deployment: Deployment) -> None:
    machine = deployment.machine()
    template = 'ttl = "5m"\nspiffe_id = "spiffe://{trust_domain}/site/{label:site}/{name}"'
    deployment.apply(policy_for(machine).replace('ttl = "5m"', template))
    body = deployment.round(machine, credentials=[soft()]).body()
    told = deployment.problem(body, 403, "not_entitled", cause="placeholder_missing")
    assert told["pointer"] == "/credentials/0/agent"
    deployment.operate("device", "label", machine.device_id, "site=plant-1")
    deployment.operate("device", "rename", machine.device_id, "press-7")
    (issued,) = deployment.attest(machine.later(), credentials=[soft()])["credentials"]
    assert issued["spiffe_id"] == "spiffe://example.org/site/plant-1/press-7"


def test_several_grants_may_name_one_agent(deployment: Deployment) -> None:
    machine, key = deployment.machine(), signing_key()
    more = '[[grant]]\nagent = "telemetry"\nformats = ["jwt-svid"]\nkey = "any"\naudiences = ["https://a.example.org"]\n'
    deployment.apply(policy_for(machine, extra=more))
    asked = [resident(key), credential("jwt-svid", "telemetry", audience=[A])]
    answer = deployment.attest(machine, certified=[key], credentials=asked)
    assert len({issued["spiffe_id"] for issued in answer["credentials"]}) == 1
    body = deployment.round(machine.later(), credentials=[soft(agent="telemetry")]).body()
    deployment.problem(body, 403, "not_entitled", cause="software_key")


def test_asking_for_nothing_gives_the_result_alone(plant: Deployment, gateway: Machine) -> None:
    answer = plant.attest(gateway)
    assert (answer["verdict"], answer["credentials"], answer["sealed_keys"]) == ("accepted", [], [])
    assert answer["result"].count(".") == 2
    assert (answer["known_event_log"], answer["ima_next"]) == (None, None)


MALFORMED: list[tuple[dict[str, Any], str]] = [
    (credential("x509-svid"), "key"),
    (credential("wit-svid", key=None), "key"),
    (credential("jwt-svid"), "audience"),
    (credential("jwt-svid", audience=[]), "audience"),
    (credential("jwt-svid", audience=[A, A]), "audience"),
    (credential("jwt-svid", audience=[A], key=jwk_of(new_key("p256"))), "key"),
    (soft() | {"audience": [A]}, "audience"),
    (credential("client-attestation"), "key"),
    (credential("x509", key=jwk_of(new_key("p256"))), "format"),
    (credential("X509-SVID", key=jwk_of(new_key("p256"))), "format"),
]


@pytest.mark.parametrize(("asked", "member"), MALFORMED)
def test_a_credential_is_asked_for_in_its_own_way(
    plant: Deployment, gateway: Machine, asked: dict[str, Any], member: str
) -> None:
    body = plant.round(gateway, credentials=[soft(), asked]).body()
    assert plant.problem(body, 400, "malformed")["pointer"] == f"/request/credentials/1/{member}"
    plant.attest(gateway, credentials=[soft()])


# Keys in the TPM: named, certified and proven


def twin(plant: Deployment, machine: Machine) -> None:
    key = signing_key()
    plant.attest(machine.later(60_000), certified=[key], credentials=[resident(key)])


def test_a_key_that_is_named_is_certified(plant: Deployment, gateway: Machine) -> None:
    key, parent = signing_key(), parent_key()
    seal = {"name": "disk", "parent": {"name": parent.name.hex()}}
    asked = {"credentials": [resident(key)], "sealed_keys": [seal]}
    for certified, missing in (([], {key, parent}), ([key], {parent}), ([parent], {key})):
        told = plant.problem(
            plant.round(gateway, certified=certified, **asked).body(), 403, "evidence_incomplete"
        )
        found = {(f["code"], f["subject"], f["found"]) for f in told["findings"]}
        assert found == {("key_not_proven", one.name.hex(), "certificate_missing") for one in missing}
    twin(plant, gateway)


def test_a_key_that_is_certified_is_named(plant: Deployment, gateway: Machine) -> None:
    key, more = signing_key(), signing_key()
    body = plant.round(gateway, certified=[key, more], credentials=[resident(key)]).body()
    assert plant.problem(body, 400, "malformed")["pointer"] == "/certified/1"
    twin(plant, gateway)


def test_a_key_is_certified_once_and_may_be_named_often(plant: Deployment, gateway: Machine) -> None:
    key = signing_key()
    asked = [resident(key), resident(key, "wit-svid"), resident(key, agent="billing")]
    body = plant.round(gateway, certified=[key, key], credentials=asked).body()
    assert plant.problem(body, 400, "malformed")["pointer"] == "/certified/1"
    assert len(plant.attest(gateway, certified=[key], credentials=asked)["credentials"]) == 3


def with_certificate(body: dict[str, Any], **parts: str) -> dict[str, Any]:
    return {**body, "certified": [{**body["certified"][0], **parts}]}


def lies_about_a_key(plant: Deployment, machine: Machine, key: TpmKey) -> dict[str, dict[str, Any]]:
    """Bodies that differ in the certification of one key, and what is found."""
    round_ = plant.round(machine, certified=[key], credentials=[resident(key)])
    body, again = round_.body(), plant.round(machine, certified=[key], credentials=[resident(key)]).body()
    stranger = plant.machine()
    other_key = signing_key()
    digest = b"\1" * 32
    return {
        "bad_signature": with_certificate(body, **machine.with_new_ak().certify(key, digest)),
        "nonce_mismatch": {**body, "certified": again["certified"]},
        "nonce_missing": with_certificate(body, **machine.certify(key, b"")),
        "name_mismatch": with_certificate(body, **parts_over(round_, other_key)),
        "qualified_signer": with_certificate(body, **certified_as(round_, key, stranger.qualified_signer)),
        "wrong_type": with_certificate(body, **body["quote"]),
        "proof_missing": {name: value for name, value in body.items() if name != "proofs"},
        "bad_proof": {**body, "proofs": [b64(jws_value(other_key.key, b"x"))]},
    }


def parts_over(round_: Round, key: TpmKey) -> dict[str, str]:
    """The certification of another key for the same request, without its public area."""
    other = replace(round_, certified=(key,)).body()["certified"][0]
    return {"attest": other["attest"], "signature": other["signature"]}


def certified_as(round_: Round, key: TpmKey, signer: bytes) -> dict[str, str]:
    """The same certification under another signer's name."""
    digest = hashlib.sha256(json.dumps(round_.request).encode()).digest()
    body = sized(key.name) + sized(qualified(ENDORSEMENT, key.name))
    attest = round_.machine.attested(CERTIFY, digest, body, signer=signer)
    return {"attest": b64(attest), "signature": b64(sign(round_.machine.ak, attest))}


LIES = ["bad_signature", "nonce_mismatch", "nonce_missing", "name_mismatch", "qualified_signer", "wrong_type"]
LIES += ["proof_missing", "bad_proof"]


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa"])
@pytest.mark.parametrize("lie", LIES)
def test_a_key_is_certified_by_the_same_tpm_for_the_same_request_and_proves_itself(
    plant: Deployment, gateway: Machine, kind: str, lie: str
) -> None:
    key = signing_key(kind)
    body = lies_about_a_key(plant, gateway, key)[lie]
    told = plant.problem(body, 403, "evidence_incomplete", cause="key_not_proven")
    assert told["findings"][0]["subject"] == key.name.hex()
    assert told["findings"][0]["found"] == lie
    answer = plant.attest(gateway.later(), certified=[key], credentials=[resident(key)])
    assert len(answer["credentials"]) == 1


Proofs = list[Any]
WRONG_PROOFS: dict[str, Callable[[Proofs, Proofs], Proofs]] = {
    "swapped": lambda proofs, earlier: proofs[::-1],
    "of an earlier request": lambda proofs, earlier: earlier,
    "one missing": lambda proofs, earlier: [proofs[0], None],
    "one left out": lambda proofs, earlier: proofs[:1],
    "zeros": lambda proofs, earlier: [proofs[0], b64(bytes(64))],
    "empty": lambda proofs, earlier: [proofs[0], ""],
    "none": lambda proofs, earlier: [],
}


@pytest.mark.parametrize("wrong", WRONG_PROOFS)
def test_a_proof_is_for_this_request_and_by_the_key_at_its_index(
    plant: Deployment, gateway: Machine, wrong: str
) -> None:
    keys = [signing_key(), signing_key()]
    asked: dict[str, Any] = {"certified": keys, "credentials": [resident(key) for key in keys]}
    earlier, body = plant.round(gateway, **asked).body(), plant.round(gateway, **asked).body()
    proofs = WRONG_PROOFS[wrong](body["proofs"], earlier["proofs"])
    told = plant.problem({**body, "proofs": proofs}, 403, "evidence_incomplete", cause="key_not_proven")
    assert {f["found"] for f in told["findings"]} <= {"bad_proof", "proof_missing"}
    plant.attest(gateway.later(), **asked)


def test_there_are_not_more_proofs_than_keys(plant: Deployment, gateway: Machine) -> None:
    body = plant.round(gateway).body()
    assert plant.problem({**body, "proofs": [None]}, 400, "malformed")["pointer"] == "/proofs"
    plant.expect(200, ATTEST, body)


def test_a_parent_needs_no_proof_and_can_give_none(plant: Deployment, gateway: Machine) -> None:
    parent = parent_key()
    asked = {"certified": [parent], "sealed_keys": [{"name": "disk", "parent": {"name": parent.name.hex()}}]}
    body = plant.round(gateway, **asked).body()
    forced = {**body, "proofs": [b64(jws_value(parent.key, b"x"))]}
    told = plant.problem(forced, 403, "evidence_incomplete")
    assert told["findings"][0]["found"] == "bad_proof"
    fresh = plant.round(gateway, **asked).body()
    del fresh["proofs"]
    plant.expect(200, ATTEST, fresh)


@pytest.mark.parametrize("bit", [1, 4, 5, 16, 17])
def test_a_credential_key_was_born_in_the_tpm_and_only_signs(
    plant: Deployment, gateway: Machine, bit: int
) -> None:
    key = signing_key(attributes=0x00040072 ^ 1 << bit)
    body = plant.round(gateway, certified=[key], credentials=[resident(key)]).body()
    status, told = plant.post(ATTEST, body)
    assert (status, told["code"]) == (403, "evidence_incomplete")
    assert [f["code"] for f in told["findings"]] == ["key_not_resident"]
    twin(plant, gateway)


# What a refused device is told


def findings_of(deployment: Deployment, machine: Machine, disclose: str) -> list[dict[str, Any]] | None:
    text = policy_for(machine).replace('disclose = "findings"', f'disclose = "{disclose}"')
    deployment.apply(text)
    changed = machine.extended(0, b"\1" * 32).extended(7, b"\1" * 32)
    told = deployment.problem(deployment.round(changed).body(), 403, "posture_rejected")
    found: list[dict[str, Any]] | None = told.get("findings")
    return found


def test_a_policy_says_how_much_is_told(deployment: Deployment) -> None:
    machine = deployment.machine()
    bare = [{"code": "pcr_unexpected", "subject": f"pcr{register}"} for register in (0, 7)]
    assert findings_of(deployment, machine, "none") is None
    assert findings_of(deployment, machine.later(1), "codes") == bare
    full = findings_of(deployment, machine.later(2), "findings")
    assert full is not None
    assert [{name: one[name] for name in ("code", "subject")} for one in full] == bare
    assert [one["expected"] for one in full] == [[machine.pcrs[register].hex()] for register in (0, 7)]


@pytest.mark.parametrize("disclose", ["none", "codes", "findings"])
def test_an_operator_is_told_all_of_it_at_every_level(deployment: Deployment, disclose: str) -> None:
    machine = deployment.machine()
    findings_of(deployment, machine, disclose)
    (why,) = deployment.listed("device", "why", machine.device_id)
    assert [(f["code"], f["subject"], f["expected"]) for f in why["findings"]] == [
        ("pcr_unexpected", f"pcr{register}", [machine.pcrs[register].hex()]) for register in (0, 7)
    ]
    deployment.attest(machine.later())


def test_incomplete_evidence_is_told_as_the_policy_says(deployment: Deployment) -> None:
    machine = deployment.machine()
    for step, disclose in enumerate(("none", "codes", "findings")):
        text = policy_for(machine).replace('disclose = "findings"', f'disclose = "{disclose}"')
        deployment.apply(text)
        narrow = replace(deployment.round(machine.later(step)), registers=(0,)).body()
        told = deployment.problem(narrow, 403, "evidence_incomplete", cause="pcr_missing")
        expected = {"none": None, "codes": [{"code": "pcr_missing", "subject": "pcr7"}]}
        if disclose in expected:
            assert told.get("findings") == expected[disclose]
        else:
            assert told["findings"][0]["expected"] == [machine.pcrs[7].hex()]
    deployment.attest(machine.later(9))
