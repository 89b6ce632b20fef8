"""Does a policy that we ship accept the machine whose boot it describes, and no other?"""

from dataclasses import replace
from pathlib import Path

from tests import recorded
from tests.attester import b64, signing_key
from tests.deployment import Deployment, credential

POLICY = Path(__file__).parents[2] / "policies" / "measured-boot.toml"


def test_measured_boot_accepts_the_machine_that_it_was_written_for(deployment: Deployment) -> None:
    deployment.apply(POLICY.read_text())
    enrolled = deployment.machine()
    deployment.operate("device", "label", enrolled.device_id, "boot=measured")
    machine, key = replace(enrolled, pcrs=recorded.registers()), signing_key()
    wanted = [credential("x509-svid", "telemetry", key={"name": key.name.hex()})]
    logs = {"event_log": b64(recorded.EVENT_LOG), "userspace_log": b64(recorded.userspace_log())}

    # One register that the firmware extended once more: the log does not lead to it.
    other = machine.extended(4, bytes(32)).later()
    body = deployment.round(other, certified=(key,), credentials=wanted).body() | logs
    told = deployment.problem(body, 403, "evidence_incomplete")
    assert [finding["code"] for finding in told["findings"]] == ["log_replay"]

    body = deployment.round(machine.later(2000), certified=(key,), credentials=wanted).body() | logs
    answer = deployment.expect(200, "/v1/attestations", body)
    assert [one["format"] for one in answer["credentials"]] == ["x509-svid"]
