"""Rounds with logs on each store: what is kept of them is found again, by digest and by entry."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import recorded
from tests.attester import Machine, b64
from tests.deployment import Deployment
from tests.postgres import Cluster, postgres_cluster
from tests.tpm.ima.kernel import Kernel, digest_field
from tpm.eventlog.reader import read_log
from tpm.eventlog.replay import replay

__all__ = ["postgres_cluster"]

ATTEST = "/v1/attestations"
FILES = (b"/usr/bin/sh", b"/usr/bin/telemetry", b"/usr/bin/cat")
POLICY = (
    'name = "plant"\ndisclose = "findings"\n'
    + recorded.components(until="2100-01-01T00:00:00Z")
    + f'[boot]\nevent_log = "required"\nsecure_boot = true\ncommand_line = ["{recorded.COMMAND_LINE}"]\n'
    + '[ima]\nrequired = true\nallow = ["plant.digests"]\n'
    + '[[grant]]\nagent = "billing"\nformats = ["x509-svid"]\nkey = "any"\n'
)


@pytest.fixture(params=["sqlite", "postgresql"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    options = []
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("postgres_cluster")
        options = ["--database", cluster.fresh()]
    made = Deployment.create(tmp_path / "service", settings={"audit_unproven": "0"}, options=options)
    lines = [f"sha256:{digest_field(path)[8:].hex()}  {path.decode()}\n" for path in FILES]
    (made.directory / "plant.digests").write_text("".join(lines))
    made.apply(POLICY)
    yield made
    assert made.audit_faults() == ()
    made.close()


def kernel() -> Kernel:
    """The recorded machine's, which has run one file."""
    values = replay(read_log(recorded.EVENT_LOG)).banks["sha256"]
    boot = {register: values.get(register, bytes(32)) for register in range(10)}
    return Kernel(boot=boot).aggregate().run(FILES[0])


def holding(machine: Machine, running: Kernel) -> Machine:
    return replace(machine.later(), pcrs={**recorded.registers(), 10: running.quoted.values[10]})


def sent(deployment: Deployment, machine: Machine, log: object, ima: bytes, first: int = 0) -> dict[str, Any]:
    body = deployment.round(machine, ima_from=first).body()
    return {**body, "event_log": log, "userspace_log": b64(recorded.userspace_log()), "ima_log": b64(ima)}


def test_logs_that_were_sent_whole_are_named_and_continued_after_a_restart(deployment: Deployment) -> None:
    enrolled, running = deployment.machine(), kernel()
    machine = holding(enrolled, running)
    whole = sent(deployment, machine, b64(recorded.EVENT_LOG), running.raw())
    answer = deployment.expect(200, ATTEST, whole)
    digest = hashlib.sha256(recorded.EVENT_LOG).hexdigest()
    assert (answer["known_event_log"], answer["ima_next"]) == (digest, 2)
    deployment.restart()
    running.run(FILES[1])
    machine = holding(machine, running)
    answer = deployment.expect(
        200, ATTEST, sent(deployment, machine, {"sha256": digest}, running.raw(first=2), 2)
    )
    assert (answer["known_event_log"], answer["ima_next"]) == (digest, 3)
    assert (deployment.count("device_logs"), deployment.count("ima_marks")) == (1, 1)


def test_what_logs_show_is_refused_and_explained_and_moves_nothing(deployment: Deployment) -> None:
    enrolled, running = deployment.machine(), kernel()
    machine = holding(enrolled, running)
    deployment.expect(200, ATTEST, sent(deployment, machine, b64(recorded.EVENT_LOG), running.raw()))
    running.run(b"/usr/bin/evil")
    machine = holding(machine, running)
    named = {"sha256": hashlib.sha256(recorded.EVENT_LOG).hexdigest()}
    told = deployment.problem(
        sent(deployment, machine, named, running.raw(first=2), 2), 403, "posture_rejected"
    )
    assert [(one["code"], one["subject"]) for one in told["findings"]] == [("ima_unknown", "/usr/bin/evil")]
    (mark,) = deployment.rows("SELECT entries FROM ima_marks")
    assert mark["entries"] == 2
    why = json.loads(deployment.operate("device", "why", machine.device_id, "--json").stdout)
    assert why["findings"][0]["subject"] == "/usr/bin/evil"
    # The part of the list was not judged to be good: the next one begins where the last good one ended.
    told = deployment.problem(sent(deployment, machine.later(), named, b"", 3), 409, "log_needed")
    assert told["pointer"] == "/ima_log"


def test_a_log_that_this_device_did_not_send_is_needed(deployment: Deployment) -> None:
    running = kernel()
    first, second = (holding(deployment.machine(), running) for _ in range(2))
    deployment.expect(200, ATTEST, sent(deployment, first, b64(recorded.EVENT_LOG), running.raw()))
    named = {"sha256": hashlib.sha256(recorded.EVENT_LOG).hexdigest()}
    body = sent(deployment, second, named, running.raw())
    told = deployment.problem(body, 409, "log_needed")
    assert told["pointer"] == "/event_log"
    deployment.expect(200, ATTEST, {**body, "event_log": b64(recorded.EVENT_LOG)})
    assert deployment.count("device_logs") == 2
