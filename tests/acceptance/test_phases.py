"""An older systemd keeps no log of its phases: which does the service know all the same, over HTTP?"""

import hashlib

import pytest

from attestd.cli.evidence_eventlog import judge as judge_files
from tests import recorded
from tests.acceptance.test_el import ATTEST, GRANT, findings, machine_of, with_log
from tests.attester import Machine, jwk_of, new_key
from tests.deployment import Deployment, credential
from tests.tpm.eventlog.logs import IPL, LogMaker, secure_boot_log

READY = "enter-initrd:leave-initrd:sysinit:ready"
PHASES_OF = 'name = "plant"\ndisclose = "findings"\n[boot]\nevent_log = "required"\nphases = ["{}"]\n' + GRANT
SECTIONS = ((".linux", b"a kernel"), (".cmdline", b"ro quiet"))


def unified_kernel() -> LogMaker:
    log = secure_boot_log()
    for name, content in SECTIONS:
        told = (name + "\0").encode("utf-16-le")
        log.add(11, IPL, told, measured=name.encode() + b"\0").add(11, IPL, told, measured=content)
    return log


def kernel_component(*, kernel: bytes = b"a kernel", actions: str = "") -> str:
    """A policy that accepts the sections of this image and nothing else in their register."""
    measured = [(name, kernel if name == ".linux" else content) for name, content in SECTIONS]
    parts = [part for name, content in measured for part in (name.encode() + b"\0", content)]
    listed = ", ".join(f'"sha256:{hashlib.sha256(part).hexdigest()}"' for part in parts)
    return f"""{actions}
[[component]]
name = "kernel"
pcrs = [11]
  [[component.variant]]
  name = "one"
  digests = [{listed}]
"""


def through(machine: Machine, *texts: str) -> Machine:
    """It has measured these since."""
    for text in texts:
        machine = machine.extended(11, hashlib.sha256(text.encode()).digest())
    return machine


def test_a_machine_whose_systemd_keeps_no_log_is_judged_by_the_phases_that_its_register_proves(
    deployment: Deployment,
) -> None:
    log = unified_kernel()
    booting = through(machine_of(deployment, log), "enter-initrd", "leave-initrd", "sysinit")
    deployment.apply(PHASES_OF.format(READY) + kernel_component())
    wanted = [credential("x509-svid", key=jwk_of(new_key("p256")))]
    # What was worked out for a log is kept by the quoted registers too: each quote has its own phases.
    told = deployment.problem(
        with_log(deployment.round(booting, credentials=wanted), log.write()), 403, "posture_rejected"
    )
    path = [one["found"] for one in told["findings"] if one["code"] == "phase_unexpected"]
    assert path == [READY.removesuffix(":ready")]
    ready = through(booting.later(), "ready")
    deployment.expect(200, ATTEST, with_log(deployment.round(ready, credentials=wanted), log.write()))
    leaving = through(ready.later(2000), "shutdown")
    told = deployment.problem(
        with_log(deployment.round(leaving), log.write()), 403, "posture_rejected", ends=1
    )
    assert ("phase_unexpected", "pcr11") in findings(told)


@pytest.mark.parametrize(
    "texts", [("ready",), ("enter-initrd", "evil"), ("sysinit", "ready"), ("leave-initrd", "enter-initrd")]
)
def test_phases_that_are_no_beginning_of_systemds_are_not_made_up(
    deployment: Deployment, texts: tuple[str, ...]
) -> None:
    log = unified_kernel()
    deployment.apply(PHASES_OF.format(":".join(texts)) + kernel_component())
    machine = machine_of(deployment, log)
    told = deployment.problem(
        with_log(deployment.round(through(machine, *texts)), log.write()), 403, "evidence_incomplete"
    )
    assert ("log_replay", "pcr11") in findings(told)
    # A log says it, as it may.
    deployment.expect(
        200,
        ATTEST,
        with_log(
            deployment.round(through(machine.later(), *texts)), log.write(), recorded.userspace_log(*texts)
        ),
    )


def test_components_of_an_inferred_history_are_judged_as_of_one_that_came(deployment: Deployment) -> None:
    log = unified_kernel()
    machine = through(machine_of(deployment, log), "enter-initrd", "leave-initrd")
    head = 'name = "plant"\ndisclose = "findings"\n'
    allowed = '[actions]\n11 = ["enter-initrd", "leave-initrd"]\n'
    deployment.apply(head + kernel_component(actions=allowed) + GRANT)
    deployment.expect(200, ATTEST, with_log(deployment.round(machine), log.write()))
    for policy, wrong, at in (
        (kernel_component(), ["enter-initrd", "leave-initrd"], len(log.read().events)),
        (kernel_component(kernel=b"another", actions=allowed), ["a kernel"], len(log.read().events) - 3),
    ):
        deployment.apply(head + policy + GRANT)
        machine = machine.later()
        told = deployment.problem(with_log(deployment.round(machine), log.write()), 403, "posture_rejected")
        objected = [one for one in told["findings"] if one["code"] == "event_unexpected"]
        assert [one["found"] for one in objected] == [
            hashlib.sha256(text.encode()).hexdigest() for text in wrong
        ]
        assert objected[0]["event"] == at


def test_a_userspace_log_that_lacks_a_phase_is_refused_and_not_completed(deployment: Deployment) -> None:
    log = unified_kernel()
    deployment.apply(PHASES_OF.format(READY))
    machine = through(machine_of(deployment, log), *READY.split(":"))
    deployment.expect(200, ATTEST, with_log(deployment.round(machine), log.write()))
    for came in (recorded.userspace_log("enter-initrd"), recorded.userspace_log(*READY.split(":")[:3])):
        machine = machine.later()
        told = deployment.problem(
            with_log(deployment.round(machine), log.write(), came), 403, "evidence_incomplete"
        )
        assert findings(told) == [("log_replay", "pcr11")]


def test_beside_inferred_phases_another_register_is_told_alone(deployment: Deployment) -> None:
    log = unified_kernel()
    deployment.apply(PHASES_OF.format(READY))
    machine = through(machine_of(deployment, log), *READY.split(":"))
    moved_on = machine.extended(7, bytes(32))
    told = deployment.problem(
        with_log(deployment.round(moved_on), log.write()), 403, "evidence_incomplete", cause="log_replay"
    )
    assert findings(told) == [("log_replay", "pcr7")]
    deployment.expect(200, ATTEST, with_log(deployment.round(machine.later()), log.write()))


def test_files_that_are_compared_without_a_quote_stay_a_mismatch(deployment: Deployment) -> None:
    log = unified_kernel()
    machine = through(machine_of(deployment, log), *READY.split(":"))
    verdict = judge_files(log.write(), None, {"sha256": {11: machine.pcrs[11]}})
    assert verdict.reason == "log_replay"
    (where,) = verdict.divergences
    assert READY in where.detail
    came = judge_files(
        log.write(), recorded.userspace_log(*READY.split(":")), {"sha256": {11: machine.pcrs[11]}}
    )
    assert came.reason is None
