"""KS: does a sealed key open for this machine in this state alone, and does nobody keep a copy?"""

import hashlib
import logging
import struct
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from attestd.store.canonical import canonical_json
from tests.attester import (
    PARENT_ATTRIBUTES,
    Machine,
    TpmKey,
    activation_body,
    enrollment_body,
    jwk_of,
    name_of,
    new_key,
    opened,
    parent_key,
    selection,
    signing_key,
)
from tests.deployment import SERVER, Deployment, credential, policy_for

ATTEST = "/v1/attestations"
EK = {"name": "disk", "parent": "ek"}
KINDS = ["secret-16", "secret-32", "secret-128", "ec-p256", "rsa-2048", "hmac-sha256"]


def policy_pcr(machine: Machine, registers: Iterable[int]) -> bytes:
    """What TPM2_PolicyPCR makes of a fresh session: zeros, command code, selection, digest of the values."""
    chosen = sorted(registers)
    values = hashlib.sha256(b"".join(machine.pcrs[register] for register in chosen)).digest()
    command = struct.pack(">I", 0x0000017F)
    return hashlib.sha256(bytes(32) + command + selection(machine.bank, chosen) + values).digest()


def policy_of(public: bytes) -> bytes:
    """authPolicy of a TPM2B_PUBLIC."""
    return public[12 : 12 + int.from_bytes(public[10:12], "big")]


def ek_of(machine: Machine) -> TpmKey:
    return TpmKey(machine.ek, machine.ek_public)


def sealing(machine: Machine, seals: str) -> str:
    """The usual policy with other seals."""
    text = policy_for(machine)
    return text[: text.index("[[seal]]")] + seals


def seal(name: str, kind: str, registers: Iterable[int]) -> str:
    return f'[[seal]]\nname = "{name}"\nkind = "{kind}"\npcrs = {sorted(registers)}\n'


# KS-3


def test_ks_3_sealed_to_what_was_quoted_whatever_the_registers_hold_by_now(
    plant: Deployment, gateway: Machine
) -> None:
    body = plant.round(gateway, sealed_keys=[EK]).body()
    moved = gateway.extended(7, b"\1" * 32)
    (sealed,) = plant.expect(200, ATTEST, body)["sealed_keys"]
    digest = policy_of(b64decode(sealed["public"]))
    assert digest == policy_pcr(gateway, (0, 7)) == bytes.fromhex(sealed["policy"]["digest"])
    assert digest != policy_pcr(moved, (0, 7))
    assert sealed["policy"]["selection"] == {"sha256": [0, 7]}


def test_ks_3_values_that_come_beside_the_quote_seal_nothing(plant: Deployment, gateway: Machine) -> None:
    moved = gateway.extended(7, b"\1" * 32)
    body = plant.round(gateway, sealed_keys=[EK]).body()
    lie = {**body, "pcrs": {"sha256": {"0": moved.pcrs[0].hex(), "7": moved.pcrs[7].hex()}}}
    plant.problem(lie, 403, "evidence_incomplete", cause="pcr_mismatch")
    plant.attest(gateway.later(), sealed_keys=[EK])


# KS-4


def test_ks_4_a_key_sealed_for_one_machine_opens_in_no_other(plant: Deployment, gateway: Machine) -> None:
    other = plant.machine()
    (sealed,) = plant.attest(gateway, sealed_keys=[EK])["sealed_keys"]
    assert len(opened(ek_of(gateway), sealed)) == 32
    with pytest.raises(AssertionError, match="integrity"):
        opened(ek_of(other), sealed)


def test_ks_4_another_machines_storage_key_is_no_parent(plant: Deployment, gateway: Machine) -> None:
    other, parent = plant.machine(), parent_key()
    asked = {"sealed_keys": [{"name": "disk", "parent": {"name": parent.name.hex()}}]}
    # Certified by the TPM in which it lives, which is not the one that asks.
    body = plant.round(gateway, certified=[parent], **asked).body()
    borrowed = plant.round(other, certified=[parent], **asked).body()
    lent = {**body, "certified": borrowed["certified"]}
    told = plant.problem(lent, 403, "evidence_incomplete", cause="key_not_proven")
    assert [f["code"] for f in told["findings"]] == ["key_not_proven"]
    plant.attest(gateway.later(), certified=[parent], **asked)


def test_ks_4_there_is_no_way_to_ask_for_what_was_sealed_before(plant: Deployment, gateway: Machine) -> None:
    first = plant.attest(gateway, sealed_keys=[EK])["sealed_keys"][0]
    again = plant.attest(gateway.later(), sealed_keys=[EK])["sealed_keys"][0]
    assert (first["version"], again["version"]) == (1, 2)
    assert opened(ek_of(gateway), first) != opened(ek_of(gateway), again)
    for path in ("/v1/sealed_keys", f"/v1/sealed_keys/{name_of(b64decode(first['public'])[2:]).hex()}"):
        assert plant.client.get(path).status_code == 404


# KS-5


def spellings(raw: bytes) -> list[bytes]:
    """As it might lie in a file."""
    return [raw, raw.hex().encode(), b64encode(raw), urlsafe_b64encode(raw).rstrip(b"=")]


def everything(deployment: Deployment, log: str) -> bytes:
    """Every file of the service, every row of its database, its metrics and its log."""
    files = [path.read_bytes() for path in sorted(deployment.directory.rglob("*")) if path.is_file()]
    tables = [row["name"] for row in deployment.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    rows = [repr(deployment.rows(f"SELECT * FROM {table}")).encode() for table in tables]
    metrics = deployment.client.get("/metrics").data
    return b"\n".join([*files, *rows, metrics, log.encode()])


def test_ks_5_and_ad_5_what_was_handed_out_is_nowhere(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    machine = Machine.create(deployment.maker)
    seals = "".join(seal(kind, kind, (0, 7)) for kind in KINDS)
    deployment.apply(sealing(machine, seals))
    begun = deployment.expect(201, "/v1/enrollments", enrollment_body(machine))
    proof = activation_body(machine, begun, SERVER)
    deployment.expect(201, "/v1/activations", proof)
    parts = [b64decode(begun["credential"][name]) for name in ("id_object", "encrypted_secret")]
    canaries = [machine.activate(*parts), b64decode(proof["proof"]), begun["enrollment"].encode(), *parts]
    body = deployment.round(
        machine,
        sealed_keys=[{"name": kind, "parent": "ek"} for kind in KINDS],
        credentials=[
            credential("x509-svid", key=jwk_of(new_key("p256"))),
            credential("wit-svid", key=jwk_of(new_key("p256"))),
            credential("jwt-svid", audience=["https://a.example.org"]),
        ],
    )
    answer = deployment.expect(200, ATTEST, body.body())
    deployment.problem(body.body(), 409, "nonce_spent")
    canaries.append(b64decode(body.request["nonce"]))
    canaries += [opened(ek_of(machine), sealed) for sealed in answer["sealed_keys"]]
    for part in ("duplicate", "encrypted_seed"):
        canaries += [b64decode(sealed[part]) for sealed in answer["sealed_keys"]]
    tokens = [answer["result"], *(issued["token"] for issued in answer["credentials"] if "token" in issued)]
    canaries += [part.encode() for token in tokens for part in (token, token.rsplit(".", 1)[1])]
    haystack = everything(deployment, caplog.text + canonical_json(deployment.audit()))
    assert [spelt for raw in canaries for spelt in spellings(raw) if spelt in haystack] == []
    # The search finds what is there.
    assert all(spelt in haystack for spelt in (machine.device_id.encode(), *spellings(machine.ak_public)[:1]))


def test_ks_5_no_answer_is_to_be_kept(plant: Deployment, gateway: Machine) -> None:
    for path, body in (
        (ATTEST, plant.round(gateway, sealed_keys=[EK]).body()),
        ("/v1/challenges", {"device_id": gateway.device_id}),
        ("/v1/enrollments", enrollment_body(gateway)),
        (ATTEST, {}),
    ):
        answer = plant.client.post(path, json=body)
        assert answer.headers["Cache-Control"] == "no-store"
        assert "ETag" not in answer.headers


# KS-7

PARENTS: dict[str, dict[str, Any]] = {
    "unrestricted": {"attributes": PARENT_ATTRIBUTES & ~0x00010000},
    "a signing key": {"attributes": PARENT_ATTRIBUTES | 0x00040000},
    "not born there": {"attributes": PARENT_ATTRIBUTES & ~0x20},
    "movable": {"attributes": PARENT_ATTRIBUTES & ~0x2},
    "movable with its parent": {"attributes": PARENT_ATTRIBUTES & ~0x10},
    "no cipher": {"symmetric": b"\x00\x10"},
    "3DES": {"symmetric": bytes.fromhex("000300800043")},
    "Camellia": {"symmetric": bytes.fromhex("002600800043")},
    "AES in CBC mode": {"symmetric": bytes.fromhex("000600800042")},
    "a Name of SHA-1": {"name_alg": "sha1"},
    "a scheme": {"scheme": bytes.fromhex("0019000b")},
}


def test_ks_7_a_parent_is_a_storage_key(plant: Deployment) -> None:
    for wrong, shape in PARENTS.items():
        machine = plant.machine()
        good = parent_key()
        odd = good.shaped(**shape)
        asked = {"sealed_keys": [{"name": "disk", "parent": {"name": odd.name.hex()}}]}
        status, told = plant.post(ATTEST, plant.round(machine, certified=[odd], **asked).body())
        assert (status, told["code"]) in {(403, "evidence_incomplete"), (400, "malformed")}, wrong
        if status == 403:
            assert told["findings"][0]["code"] == "key_not_resident", wrong
            assert told["findings"][0]["found"] in {"parent_attributes", "key_attributes"}, wrong
        asked = {"sealed_keys": [{"name": "disk", "parent": {"name": good.name.hex()}}]}
        plant.attest(machine.later(), certified=[good], **asked)


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa"])
@pytest.mark.parametrize("free", [0x40, 0x80, 0x400, 0])
def test_ks_7_how_a_parent_is_used_is_its_owners_business(
    plant: Deployment, gateway: Machine, kind: str, free: int
) -> None:
    parent = parent_key(kind, attributes=0x00030032 | free)
    asked = {"sealed_keys": [{"name": "disk", "parent": {"name": parent.name.hex()}}]}
    (sealed,) = plant.attest(gateway, certified=[parent], **asked)["sealed_keys"]
    assert sealed["parent"] == {"name": parent.name.hex()}
    assert len(opened(parent, sealed)) == 32
    with pytest.raises((AssertionError, ValueError), match=r"integrity|Decryption failed"):
        opened(parent_key(kind), sealed)


def test_ks_7_a_signing_key_is_no_parent_and_a_parent_does_not_sign(
    plant: Deployment, gateway: Machine
) -> None:
    key, parent = signing_key(), parent_key()
    crossed = plant.round(
        gateway,
        certified=[key, parent],
        credentials=[credential("x509-svid", key={"name": parent.name.hex()})],
        sealed_keys=[{"name": "disk", "parent": {"name": key.name.hex()}}],
    )
    told = plant.problem(crossed.body(), 403, "evidence_incomplete", cause="key_not_resident")
    assert sorted((f["subject"], *f["expected"], f["found"]) for f in told["findings"]) == sorted(
        [(key.name.hex(), "parent", "signing"), (parent.name.hex(), "signing", "parent")]
    )
    plant.attest(
        gateway.later(),
        certified=[key, parent],
        credentials=[credential("x509-svid", key={"name": key.name.hex()})],
        sealed_keys=[{"name": "disk", "parent": {"name": parent.name.hex()}}],
    )


# KS-8: that a TPM opens it in this state and in no other is proven where a TPM is.


@pytest.mark.parametrize("registers", [(7,), tuple(range(8)), tuple(range(24)), (0, 23), (14, 2, 11)])
@pytest.mark.parametrize("ak", ["p256", "p384"])
def test_ks_8_the_policy_is_that_of_the_quoted_registers_in_their_order(
    deployment: Deployment, registers: tuple[int, ...], ak: str
) -> None:
    machine = deployment.machine(ak=ak)
    deployment.apply(sealing(machine, seal("disk", "secret-32", registers)))
    (sealed,) = deployment.attest(machine, sealed_keys=[EK])["sealed_keys"]
    digest = policy_of(b64decode(sealed["public"]))
    assert digest == policy_pcr(machine, registers)
    assert sealed["policy"]["selection"] == {"sha256": sorted(registers)}
    for register in registers:
        assert digest != policy_pcr(machine.extended(register, b"\1" * 32), registers)
    assert digest != policy_pcr(replace(machine, bank="sha384"), registers)


# What is sealed


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_for_the_policy_alone_and_different_each_time(
    deployment: Deployment, kind: str
) -> None:
    machine = deployment.machine()
    deployment.apply(sealing(machine, seal("disk", kind, (0, 7))))
    sealed = [deployment.attest(machine.later(n), sealed_keys=[EK])["sealed_keys"][0] for n in range(2)]
    values = [opened(ek_of(machine), one) for one in sealed]
    assert len({*values}) == 2
    size = {"ec-p256": 32, "rsa-2048": 128, "hmac-sha256": 32}.get(kind) or int(kind.removeprefix("secret-"))
    assert [len(value) for value in values] == [size, size]
    for one in sealed:
        attributes = int.from_bytes(b64decode(one["public"])[6:10], "big")
        # Neither a password (userWithAuth) nor a claim to have been born in the TPM.
        assert attributes & 0x00000072 == 0
    rows = deployment.rows("SELECT version, kind, parent, policy_digest FROM sealed_keys ORDER BY version")
    digest = policy_pcr(machine, (0, 7)).hex()
    assert rows == [{"version": v, "kind": kind, "parent": "ek", "policy_digest": digest} for v in (1, 2)]


def test_one_round_makes_one_rsa_key(deployment: Deployment) -> None:
    machine = deployment.machine()
    deployment.apply(sealing(machine, seal("a", "rsa-2048", (0,)) + seal("b", "rsa-2048", (7,))))
    asked = [{"name": name, "parent": "ek"} for name in ("a", "b")]
    told = deployment.problem(
        deployment.round(machine, sealed_keys=asked).body(), 403, "not_entitled", cause="rsa_twice"
    )
    assert told["pointer"] == "/sealed_keys/1/name"
    for n, one in enumerate(asked):
        deployment.attest(machine.later(n), sealed_keys=[one])
