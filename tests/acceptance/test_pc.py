"""PC: are the registers those that the TPM signed, in one bank that is worth something?"""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from tests.attester import HASHES, Machine, Round, selection
from tests.deployment import Deployment, policy_for

ATTEST = "/v1/attestations"


def selecting(round_: Round, selected: bytes, registers: Iterable[int] = ()) -> Round:
    """The same round with a quote that says it covers `selected`."""
    chosen = tuple(registers)
    return replace(
        round_, quoting=lambda machine, digest, _: machine.quote(digest, chosen, selected=selected)
    )


def banks(*entries: tuple[str, Iterable[int]], size: int = 3, count: int | None = None) -> bytes:
    """TPML_PCR_SELECTION."""
    raw = struct.pack(">I", len(entries) if count is None else count)
    for bank, registers in entries:
        bits = sum(1 << register for register in registers if register < 8 * size)
        raw += struct.pack(">HB", HASHES[bank], size) + bits.to_bytes(size, "little")
    return raw


def in_bank(machine: Machine, bank: str) -> Machine:
    """The same machine looked at through another bank."""
    values = {r: hashlib.new(bank, b"pcr%d" % r).digest() for r in range(24)}
    return replace(machine, bank=bank, pcrs=values)


# PC-3


@pytest.mark.parametrize(
    "selected",
    [
        banks(),
        banks(("sha256", ())),
        banks(("sha256", ()), ("sha384", ())),
        banks(("sha1", ())),
        banks(("sha256", ()), ("sha256", ())),
    ],
    ids=["no bank", "no register", "two banks of none", "SHA-1 of none", "one twice"],
)
@pytest.mark.parametrize("values", [{}, {"sha256": {}}])
def test_pc_3_a_quote_of_nothing_proves_nothing(
    plant: Deployment, gateway: Machine, selected: bytes, values: dict[str, Any]
) -> None:
    round_ = plant.round(gateway)
    empty = replace(selecting(round_, selected), extra={"pcrs": values})
    told = plant.problem(empty.body(), 403, "evidence_incomplete", cause="selection_empty")
    assert told["findings"][0]["code"] == "selection_empty"
    plant.attest(gateway)


def test_pc_3_values_beside_an_empty_quote_are_not_believed(plant: Deployment, gateway: Machine) -> None:
    empty = selecting(plant.round(gateway), banks(("sha256", ())))
    plant.problem(empty.body(), 403, "evidence_incomplete", cause="selection_empty")
    plant.attest(gateway)


# PC-5


def test_pc_5_sha1_is_no_bank_to_judge_by(plant: Deployment, gateway: Machine) -> None:
    weak = replace(plant.round(gateway), machine=in_bank(gateway, "sha1"))
    plant.problem(weak.body(), 403, "evidence_incomplete", cause="bank_not_allowed")
    both = selecting(plant.round(gateway), banks(("sha1", (0, 7)), ("sha256", (0, 7))), (0, 7))
    plant.problem(both.body(), 403, "evidence_incomplete", cause="bank_not_allowed")
    plant.attest(gateway)


def test_pc_5_nor_may_a_policy_name_it(plant: Deployment, gateway: Machine) -> None:
    path = plant.directory / "weak.toml"
    path.write_text(policy_for(in_bank(gateway, "sha1"), name="weak"))
    assert "sha1" in plant.operate("policy", "apply", str(path), status=1).stderr
    plant.attest(gateway)


@pytest.mark.parametrize(
    ("selected", "cause"),
    [
        (banks(("sha256", (0, 7)), ("sha384", (0, 7))), "banks_several"),
        (banks(("sha256", (0, 7)), ("sha384", ())), "banks_several"),
        (banks(("sha256", (0,)), ("sha256", (7,))), "bank_repeated"),
        (banks(("sha256", (0, 7)), ("sha256", ())), "bank_repeated"),
    ],
)
def test_pc_5_a_quote_is_of_one_bank(
    plant: Deployment, gateway: Machine, selected: bytes, cause: str
) -> None:
    lie = selecting(plant.round(gateway), selected, (0, 7))
    plant.problem(lie.body(), 403, "evidence_incomplete", cause=cause)
    plant.attest(gateway)


@pytest.mark.parametrize("disclose", ["none", "codes", "findings"])
def test_the_bank_that_is_missing_is_told_always(deployment: Deployment, disclose: str) -> None:
    machine = deployment.machine()
    deployment.apply(policy_for(machine).replace('disclose = "findings"', f'disclose = "{disclose}"'))
    other = replace(deployment.round(machine), machine=in_bank(machine, "sha384"))
    told = deployment.problem(other.body(), 403, "evidence_incomplete", cause="bank_missing")
    assert told["findings"] == [
        {"code": "bank_missing", "subject": "sha256", "expected": ["sha256"], "found": "sha384"}
    ]
    deployment.attest(machine)


# PC-7


@pytest.mark.parametrize("unmeasured", [bytes(32), b"\xff" * 32], ids=["zeros", "ones"])
def test_pc_7_a_register_that_nothing_was_measured_into_is_no_good_one(
    plant: Deployment, gateway: Machine, unmeasured: bytes
) -> None:
    fresh = replace(gateway, pcrs={**gateway.pcrs, 7: unmeasured})
    told = plant.problem(plant.round(fresh).body(), 403, "posture_rejected", cause="pcr_unmeasured")
    assert [(f["code"], f["subject"]) for f in told["findings"]] == [("pcr_unmeasured", "pcr7")]
    plant.attest(gateway)


@pytest.mark.parametrize(("register", "unmeasured"), [(7, bytes(32)), (17, b"\xff" * 32), (22, b"\xff" * 32)])
def test_pc_7_a_policy_lists_such_a_value_only_on_purpose(
    deployment: Deployment, register: int, unmeasured: bytes
) -> None:
    machine = deployment.machine()
    fresh = replace(machine, pcrs={**machine.pcrs, register: unmeasured})
    text = policy_for(fresh, registers=(0, register))
    path = deployment.directory / "unmeasured.toml"
    path.write_text(text)
    assert "allow_unmeasured" in deployment.operate("policy", "apply", str(path), status=1).stderr
    deployment.apply(policy_for(fresh, registers=(0, register), top=f"allow_unmeasured = [{register}]"))
    deployment.attest(fresh)


# PC-8


SHAPES = {
    "size 0": banks(("sha256", (0, 7)), size=0),
    "size 1": banks(("sha256", (0, 7)), size=1),
    "size 2": banks(("sha256", (0, 7)), size=2),
    "size 4": banks(("sha256", (0, 7)), size=4),
    "size 255": banks(("sha256", (0, 7)), size=255),
    "register 24": banks(("sha256", (0, 7, 24)), size=4),
    "count 2": banks(("sha256", (0, 7)), count=2),
    "count 17": banks(("sha256", (0, 7)), count=17),
    "count 2^16": banks(("sha256", (0, 7)), count=0x10000),
    "count 2^32 - 1": banks(("sha256", (0, 7)), count=0xFFFFFFFF),
    "17 banks": banks(*[("sha256", (0, 7))] * 17),
    "unknown bank": struct.pack(">IHB", 1, 0x9999, 3) + b"\x81\0\0",
    "no bank's name": struct.pack(">IHB", 1, 0x0010, 3) + b"\x81\0\0",
    "none": b"",
    "cut": b"\0\0",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_pc_8_a_selection_of_another_shape_is_malformed(
    plant: Deployment, gateway: Machine, shape: str
) -> None:
    lie = selecting(plant.round(gateway), SHAPES[shape], (0, 7))
    assert plant.problem(lie.body(), 400, "malformed")["pointer"] == "/quote/attest"
    plant.attest(gateway)


# PC-9


def spelt(body: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**body, "pcrs": {"sha256": {**body["pcrs"]["sha256"], **changes}}}


SPELLINGS = ["00", " 0", "0 ", "+0", "-0", "٠", "０", "0x0", "0.0", "0e0", "", "24", "255", "1_0", "0\n"]


@pytest.mark.parametrize("key", SPELLINGS)
def test_pc_9_a_register_has_one_name(plant: Deployment, gateway: Machine, key: str) -> None:
    body = plant.round(gateway).body()
    values = dict(body["pcrs"]["sha256"])
    values[key] = values.pop("0")
    told = plant.problem({**body, "pcrs": {"sha256": values}}, 400, "malformed")
    assert told["pointer"].startswith("/pcrs/sha256")
    assert plant.problem(spelt(body, **{key: values[key]}), 400, "malformed")
    plant.expect(200, ATTEST, body)


@pytest.mark.parametrize(
    "spell",
    [
        lambda value: value[:-2],
        lambda value: value + "00",
        lambda value: value[:-1],
        lambda value: "",
        lambda value: value.upper(),
        lambda value: value[:10] + value[10:].upper(),
        lambda value: "0x" + value,
        lambda value: value + "\n",
        lambda value: " " + value,
        lambda value: "sha256:" + value,
        lambda value: value[:-1] + "g",
    ],
    ids=["short", "long", "odd", "empty", "upper", "mixed", "0x", "line end", "space", "prefix", "no hex"],
)
def test_pc_9_a_value_has_one_spelling(plant: Deployment, gateway: Machine, spell: Any) -> None:
    body = plant.round(gateway).body()
    wrong = spelt(body, **{"7": spell(body["pcrs"]["sha256"]["7"])})
    assert plant.problem(wrong, 400, "malformed")["pointer"] == "/pcrs/sha256/7"
    plant.expect(200, ATTEST, body)


def mismatches(machine: Machine) -> dict[str, Any]:
    """What is reported beside a quote of registers 0 and 7, by what is wrong with it."""
    zero, seven = machine.pcrs[0].hex(), machine.pcrs[7].hex()
    return {
        "another value": {"sha256": {"0": zero, "7": "11" * 32}},
        "one missing": {"sha256": {"0": zero}},
        "one more": {"sha256": {"0": zero, "7": seven, "8": machine.pcrs[8].hex()}},
        "another register": {"sha256": {"0": zero, "8": seven}},
        "swapped": {"sha256": {"0": seven, "7": zero}},
        "none": {"sha256": {}},
        "no bank": {},
        "another bank": {"sha512": {"0": "11" * 64, "7": "22" * 64}},
        "one bank more": {"sha256": {"0": zero, "7": seven}, "sha384": {}},
    }


@pytest.mark.parametrize("wrong", mismatches(Machine.create(None)))
def test_pc_9_what_is_reported_is_exactly_what_was_quoted(
    plant: Deployment, gateway: Machine, wrong: str
) -> None:
    body = {**plant.round(gateway).body(), "pcrs": mismatches(gateway)[wrong]}
    plant.problem(body, 403, "evidence_incomplete", cause="pcr_mismatch")
    plant.attest(gateway)


@pytest.mark.parametrize("count", [8, 9, 24])
@pytest.mark.parametrize("ak", ["p256", "rsa", "p384"])
def test_pc_9_any_number_of_registers_can_be_quoted(plant: Deployment, count: int, ak: str) -> None:
    machine = plant.machine(ak=ak)
    wide = replace(plant.round(machine), registers=tuple(range(count)))
    plant.expect(200, ATTEST, wide.body())


def test_pc_9_less_than_the_policy_needs_is_incomplete(plant: Deployment, gateway: Machine) -> None:
    narrow = replace(plant.round(gateway), registers=(0, 1, 2))
    told = plant.problem(narrow.body(), 403, "evidence_incomplete", cause="pcr_missing")
    (finding,) = told["findings"]
    assert (finding["code"], finding["subject"], finding["found"]) == ("pcr_missing", "pcr7", None)
    plant.attest(gateway)


def test_registers_beyond_the_policy_are_allowed_and_never_used(plant: Deployment, gateway: Machine) -> None:
    odd = replace(gateway.extended(11, b"\1" * 32), pcrs={**gateway.pcrs, 12: bytes(32)})
    wide = replace(plant.round(odd), registers=(0, 7, 11, 12))
    plant.expect(200, ATTEST, wide.body())


def test_the_banks_hash_is_not_the_signatures(deployment: Deployment) -> None:
    """A TPM hashes the registers with its key's hash, whatever the bank's is."""
    for bank in ("sha384", "sha512"):
        machine = in_bank(deployment.machine(), bank)
        deployment.apply(policy_for(machine, name="plant"))
        deployment.attest(machine)


def test_the_signed_selection_counts_and_not_the_usual_one() -> None:
    assert banks(("sha256", (0, 7))) == selection("sha256", (0, 7))
