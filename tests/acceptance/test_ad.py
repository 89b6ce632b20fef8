"""AD: does the audit of a real service show every change to it, and is what weakens the service told?"""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.attester import Machine, jwk_of, new_key
from tests.deployment import Deployment, credential, policy_for, run
from tpm.swtpm_ca import make_test_ca


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A service that has seen two machines: enrolment, acceptance, refusals."""
    made = Deployment.create(tmp_path_factory.mktemp("history") / "service", settings={"audit_unproven": "0"})
    machine, other = made.machine(), made.machine()
    made.apply(policy_for(machine))
    for step, one in enumerate((machine, other)):
        made.attest(one.later(step), credentials=[credential("wit-svid", key=jwk_of(new_key("p256")))])
        made.problem(made.round(one.extended(7, bytes(32)).later(50)).body(), 403, "posture_rejected", ends=1)
        made.problem({}, 400, "malformed")
    made.service.close()
    yield made
    made.close()


@pytest.fixture
def copied(history: Deployment, tmp_path: Path) -> Path:
    """The same directory, to be changed."""
    history.service.close()
    return Path(shutil.copytree(history.directory, tmp_path / "copy"))


def verify(directory: Path, *more: str, status: int) -> dict[str, object]:
    config = str(directory / "attestd.toml")
    found = run("audit", "verify", "--json", "--config", config, *more, status=status)
    told: dict[str, object] = json.loads(found.stdout.splitlines()[0])
    return told


def change(directory: Path, *statements: str) -> None:
    """What somebody with the file, but without the audit key, can do."""
    with sqlite3.connect(directory / "attestd.db") as database:
        for statement in statements:
            database.execute(statement)
    database.close()


def chain_of(directory: Path) -> str:
    """A device's chain."""
    with sqlite3.connect(directory / "attestd.db") as database:
        (chain,) = database.execute("SELECT MIN(chain) FROM audit_heads WHERE chain <> 'service'").fetchone()
    database.close()
    return str(chain)


EDIT = "UPDATE audit_records SET record = REPLACE(record, '\"refused\"', '\"accepted\"') WHERE {}"
MUTATIONS: dict[str, Callable[[str], list[str]]] = {
    "edited": lambda chain: [EDIT.format(f"chain = '{chain}' AND record LIKE '%refused%'")],
    "deleted": lambda chain: [f"DELETE FROM audit_records WHERE chain = '{chain}' AND sequence = 2"],
    "reordered": lambda chain: [
        f"UPDATE audit_records SET sequence = -sequence WHERE chain = '{chain}' AND sequence IN (2, 3)",
        f"UPDATE audit_records SET sequence = 5 + sequence WHERE chain = '{chain}' AND sequence IN (-2, -3)",
    ],
    "cut": lambda chain: [
        f"DELETE FROM audit_records WHERE chain = '{chain}' AND sequence = "
        f"(SELECT MAX(sequence) FROM audit_records WHERE chain = '{chain}')"
    ],
    "a chain gone": lambda chain: [
        f"DELETE FROM audit_records WHERE chain = '{chain}'",
        f"DELETE FROM audit_heads WHERE chain = '{chain}'",
    ],
    "the head gone": lambda chain: [f"DELETE FROM audit_heads WHERE chain = '{chain}'"],
    "a signature": lambda chain: [f"UPDATE audit_heads SET signature = x'00' WHERE chain = '{chain}'"],
}


def test_ad_4_the_audit_of_a_service_holds(history: Deployment) -> None:
    told = verify(history.directory, status=0)
    assert (told["valid"], told["faults"]) == (True, [])


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_ad_4_a_change_is_found_and_named(copied: Path, mutation: str) -> None:
    chain = chain_of(copied)
    assert verify(copied, status=0)["valid"] is True
    change(copied, *MUTATIONS[mutation](chain))
    told = verify(copied, status=1)
    assert told["valid"] is False
    faults = told["faults"]
    assert isinstance(faults, list)
    assert {fault["chain"] for fault in faults} <= {chain, "service"}
    assert chain in json.dumps(faults)


def test_ad_4_the_first_bad_record_is_named(copied: Path) -> None:
    chain = chain_of(copied)
    change(copied, EDIT.format(f"chain = '{chain}' AND record LIKE '%refused%'"))
    with sqlite3.connect(copied / "attestd.db") as database:
        records = database.execute(
            "SELECT sequence, event, decision FROM audit_records WHERE chain = ? ORDER BY sequence", (chain,)
        ).fetchall()
    database.close()
    refused = next(sequence for sequence, _, decision in records if decision == "refused")
    (fault,) = verify(copied, status=1)["faults"]  # type: ignore[misc]
    assert (fault["chain"], fault["sequence"], fault["kind"]) == (chain, refused, "edited")


def test_ad_4_an_older_copy_of_the_whole_file_is_found_by_a_kept_head(
    deployment: Deployment, machine: Machine, tmp_path: Path
) -> None:
    deployment.attest(machine)
    deployment.service.close()
    older = (deployment.directory / "attestd.db").read_bytes()
    deployment.attest(machine.later())
    anchor = tmp_path / "heads.json"
    anchor.write_text(json.dumps(verify(deployment.directory, status=0)))
    deployment.service.close()
    assert verify(deployment.directory, "--head", str(anchor), status=0)["valid"] is True
    (deployment.directory / "attestd.db").write_bytes(older)
    for beside in deployment.directory.glob("attestd.db-*"):
        beside.unlink()
    assert verify(deployment.directory, status=0)["valid"] is True
    told = verify(deployment.directory, "--head", str(anchor), status=1)
    assert {fault["kind"] for fault in told["faults"]} == {"older_copy"}  # type: ignore[attr-defined]


def test_every_decision_is_on_the_record(deployment: Deployment) -> None:
    machine = deployment.machine()
    deployment.apply(policy_for(machine))
    asked = {
        "credentials": [credential("x509-svid", key=jwk_of(new_key("p256")))],
        "sealed_keys": [{"name": "disk", "parent": "ek"}],
    }
    answer = deployment.attest(machine, **asked)
    records = [
        (record["event"], record["decision"], record["policy"])
        for record in deployment.audit(device_id=machine.device_id)
        if record["chain"] == machine.device_id
    ]
    assert records == [
        ("activate", "accepted", None),
        ("attest", "accepted", "plant@1"),
        ("issue", "accepted", "plant@1"),
        ("issue", "accepted", "plant@1"),
    ]
    issues = deployment.audit(event="issue")
    assert {issue["details"]["attestation_id"] for issue in issues} == {answer["attestation_id"]}
    assert len({issue["evidence_sha256"] for issue in issues} | {None}) == 2
    # Every record says where it stands.
    for record in deployment.audit():
        assert record["chain"] in ("service", machine.device_id)
        assert record["sequence"] >= 1


# AD-6


def test_ad_6_health_names_the_trust_in_software_tpms_as_long_as_it_lasts(tmp_path: Path) -> None:
    root = make_test_ca().root.public_bytes(Encoding.DER)
    made = Deployment.create(tmp_path / "service", roots=[root])
    both, switch = ["auto_admit", "emulated_tpms"], ["auto_admit"]
    assert json.loads(made.client.get("/healthz").data) == {"status": "ok", "unsafe": both}
    (made.directory / "ek-roots" / "root0.crt").unlink()
    made.restart()
    assert json.loads(made.client.get("/healthz").data) == {"status": "ok", "unsafe": switch}
    made.close()
