"""Rows IM of the abuse cases, over HTTP: what a machine ran is what its policy allows, all of it."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from attestd.policy.ima_allow import capture
from tests import recorded
from tests.attester import Machine, Round, b64
from tests.deployment import Deployment
from tests.tpm.ima.kernel import Kernel, digest_field
from tpm.ima.measurements import read_entries, read_records

ATTEST = "/v1/attestations"
FILES = (b"/usr/bin/sh", b"/usr/bin/telemetry", b"/usr/lib/libc.so.6")
LATER = (b"/usr/bin/env", b"/usr/bin/cat")
POLICY = """
name = "plant"
disclose = "findings"
[ima]
required = true
allow = ["plant.digests"]
exclude = ["/var/tmp"]
[[grant]]
agent = "billing"
formats = ["x509-svid"]
key = "any"
"""


def allow(deployment: Deployment, *paths: bytes, text: str = POLICY) -> None:
    """The policy that allows these files."""
    lines = [f"sha256:{digest_field(path)[8:].hex()}  {path.decode()}\n" for path in paths]
    (deployment.directory / "plant.digests").write_text("".join(lines))
    deployment.apply(text)


def booted(*paths: bytes) -> Kernel:
    kernel = Kernel.booted()
    for path in paths or FILES:
        kernel.run(path)
    return kernel


def holding(machine: Machine, kernel: Kernel) -> Machine:
    """The machine a moment later, its registers as this kernel extended them."""
    return replace(machine.later(), pcrs={**machine.pcrs, **kernel.quoted.values})


def listed(round_: Round, raw: bytes) -> dict[str, Any]:
    return {**round_.body(), "ima_log": b64(raw)}


def codes(told: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["code"], one["subject"]) for one in told["findings"]]


@pytest.fixture
def deployment(deployment: Deployment) -> Deployment:
    allow(deployment, *FILES, *LATER)
    return deployment


@pytest.fixture
def machine(deployment: Deployment) -> Machine:
    return deployment.machine()


def test_a_challenge_asks_for_the_list_and_its_registers(deployment: Deployment, machine: Machine) -> None:
    told = deployment.challenge(machine)
    assert (told["event_log"], told["ima_log"]) == (False, True)
    assert told["pcr_selection"] == [{"bank": "sha256", "pcrs": list(range(11))}]


@pytest.mark.parametrize("form", ["binary", "ascii"])
def test_im_1_files_that_the_policy_allows_are_accepted_and_an_unknown_one_is_named(
    deployment: Deployment, machine: Machine, form: str
) -> None:
    kernel = booted()
    machine = holding(machine, kernel)
    answer = deployment.expect(200, ATTEST, listed(deployment.round(machine), kernel.raw(form)))
    assert answer["ima_next"] == 4
    kernel.run(b"/usr/bin/evil").run(b"/usr/bin/sh", b"changed")
    machine = holding(machine, kernel)
    told = deployment.problem(
        listed(deployment.round(machine), kernel.raw(form)), 403, "posture_rejected", cause="ima_unknown"
    )
    assert codes(told) == [("ima_unknown", "/usr/bin/evil"), ("ima_unknown", "/usr/bin/sh")]


def test_a_list_that_is_required_and_did_not_come_is_missing(
    deployment: Deployment, machine: Machine
) -> None:
    machine = holding(machine, booted())
    told = deployment.problem(
        deployment.round(machine).body(), 403, "evidence_incomplete", cause="log_missing"
    )
    assert codes(told) == [("log_missing", "ima_log")]


def test_a_list_that_is_not_required_is_judged_where_it_comes(
    deployment: Deployment, machine: Machine
) -> None:
    pcrs = f'[pcrs]\n0 = ["sha256:{booted().boot[0].hex()}"]\n[ima]'.replace("00" * 32, "01" * 32)
    text = POLICY.replace("required = true", "required = false").replace("[ima]", pcrs)
    allow(deployment, *FILES, text=text)
    kernel = booted(b"/usr/bin/evil")
    kernel.boot[0] = b"\1" * 32
    fresh = Kernel(boot=kernel.boot).aggregate().run(b"/usr/bin/evil")
    machine = holding(machine, fresh)
    deployment.expect(200, ATTEST, deployment.round(machine).body())
    told = deployment.problem(listed(deployment.round(machine), fresh.raw()), 403, "posture_rejected")
    assert codes(told) == [("ima_unknown", "/usr/bin/evil")]


def test_im_5_the_list_of_another_boot_is_refused(deployment: Deployment, machine: Machine) -> None:
    kernel = booted()
    other = holding(machine, kernel)
    other = replace(other, pcrs={**other.pcrs, 4: b"\4" * 31 + b"\5"})
    told = deployment.problem(listed(deployment.round(other), kernel.raw()), 403, "evidence_incomplete")
    assert codes(told) == [("boot_aggregate", "ima_log")]
    deployment.expect(200, ATTEST, listed(deployment.round(holding(machine, kernel)), kernel.raw()))


def test_im_6_a_list_that_register_10_does_not_cover_is_refused(
    deployment: Deployment, machine: Machine
) -> None:
    kernel = booted()
    machine = holding(machine, kernel)
    short = booted(*FILES[:2])
    told = deployment.problem(listed(deployment.round(machine), short.raw()), 403, "evidence_incomplete")
    assert codes(told) == [("ima_not_covered", "ima_log")]
    # What is beyond the quoted value happened later, and nobody vouches for it yet.
    longer = booted(*FILES, b"/usr/bin/evil")
    answer = deployment.expect(200, ATTEST, listed(deployment.round(machine), longer.raw()))
    assert answer["ima_next"] == 4


def test_im_6_a_list_that_became_shorter_within_its_boot_is_refused(
    deployment: Deployment, machine: Machine
) -> None:
    kernel = booted()
    machine = holding(machine, kernel)
    deployment.expect(200, ATTEST, listed(deployment.round(machine), kernel.raw()))
    short = booted(*FILES[:2])
    back = holding(machine, short)
    told = deployment.problem(
        listed(deployment.round(back), short.raw()), 403, "evidence_incomplete", cause="ima_rollback"
    )
    assert codes(told) == [("ima_rollback", "ima_log")]
    # After a reboot it begins anew.
    deployment.expect(200, ATTEST, listed(deployment.round(holding(back.rebooted(), short)), short.raw()))


def test_a_list_may_continue_where_the_last_one_ended(deployment: Deployment, machine: Machine) -> None:
    kernel = booted()
    machine = holding(machine, kernel)
    first = deployment.expect(200, ATTEST, listed(deployment.round(machine), kernel.raw()))["ima_next"]
    # Nothing new.
    machine = machine.later()
    answer = deployment.expect(200, ATTEST, listed(deployment.round(machine, ima_from=first), b""))
    assert answer["ima_next"] == first
    for path in LATER:
        kernel.run(path)
    machine = holding(machine, kernel)
    body = listed(deployment.round(machine, ima_from=first), kernel.raw(first=first))
    assert deployment.expect(200, ATTEST, body)["ima_next"] == len(kernel.records)
    kernel.run(b"/usr/bin/evil")
    machine = holding(machine, kernel)
    body = listed(deployment.round(machine, ima_from=len(kernel.records) - 1), kernel.raw(first=6))
    told = deployment.problem(body, 403, "posture_rejected")
    assert codes(told) == [("ima_unknown", "/usr/bin/evil")]


def another_place(deployment: Deployment, machine: Machine, first: int) -> tuple[Machine, int]:
    return machine, first - 1


def another_boot(deployment: Deployment, machine: Machine, first: int) -> tuple[Machine, int]:
    return machine.rebooted(), first


def another_policy(deployment: Deployment, machine: Machine, first: int) -> tuple[Machine, int]:
    allow(deployment, *FILES)
    return machine, first


def another_device(deployment: Deployment, machine: Machine, first: int) -> tuple[Machine, int]:
    return replace(deployment.machine(), pcrs=machine.pcrs), first


@pytest.mark.parametrize("changed", [another_place, another_boot, another_policy, another_device])
def test_a_part_of_a_list_counts_only_after_the_part_that_was_judged(
    deployment: Deployment,
    machine: Machine,
    changed: Callable[[Deployment, Machine, int], tuple[Machine, int]],
) -> None:
    kernel = booted()
    machine = holding(machine, kernel)
    first = deployment.expect(200, ATTEST, listed(deployment.round(machine), kernel.raw()))["ima_next"]
    machine, place = changed(deployment, machine.later(), first)
    told = deployment.problem(
        listed(deployment.round(machine, ima_from=place), kernel.raw(first=place)), 409, "log_needed"
    )
    assert told["pointer"] == "/ima_log"
    deployment.expect(200, ATTEST, listed(deployment.round(machine), kernel.raw()))


def test_im_6_a_cleared_tpm_begins_its_list_anew_once_the_operator_says_so(
    deployment: Deployment, machine: Machine
) -> None:
    kernel = booted()
    machine = holding(machine, kernel)
    first = deployment.expect(200, ATTEST, listed(deployment.round(machine), kernel.raw()))["ima_next"]
    # Its counters began anew and are, by now, those of the boot in which it was last judged.
    fresh = booted(*FILES[:1])
    cleared = replace(holding(machine, fresh), clock=machine.clock + 1000)
    told = deployment.problem(listed(deployment.round(cleared), fresh.raw()), 403, "evidence_incomplete")
    assert codes(told) == [("ima_rollback", "ima_log")]
    deployment.operate("device", "rebase", machine.device_id)
    assert deployment.count("ima_marks") == 0
    # A part of the list would need what came before it.
    told = deployment.problem(
        listed(deployment.round(cleared.later(), ima_from=first), b""), 409, "log_needed"
    )
    assert told["pointer"] == "/ima_log"
    deployment.expect(200, ATTEST, listed(deployment.round(cleared.later()), fresh.raw()))


def test_a_rebase_forgets_no_other_devices_list(deployment: Deployment, machine: Machine) -> None:
    kernel = booted()
    other = holding(deployment.machine(), kernel)
    deployment.expect(200, ATTEST, listed(deployment.round(other), kernel.raw()))
    deployment.operate("device", "rebase", machine.device_id)
    assert deployment.count("ima_marks") == 1


def test_a_refused_list_moves_no_mark(deployment: Deployment, machine: Machine) -> None:
    kernel = booted(b"/usr/bin/evil")
    machine = holding(machine, kernel)
    deployment.problem(listed(deployment.round(machine), kernel.raw()), 403, "posture_rejected")
    assert deployment.count("ima_marks") == 0
    told = deployment.problem(listed(deployment.round(machine.later(), ima_from=2), b""), 409, "log_needed")
    assert told["pointer"] == "/ima_log"


def test_im_7_a_list_that_cannot_be_read_is_refused(deployment: Deployment, machine: Machine) -> None:
    kernel = booted()
    machine = holding(machine, kernel)
    for raw in (b"no list\n", kernel.raw()[:-1], b"\n" * 1000):
        told = deployment.problem(listed(deployment.round(machine), raw), 403, "evidence_incomplete")
        assert [subject for _, subject in codes(told)] == ["ima_log"]
    deployment.expect(200, ATTEST, listed(deployment.round(machine), kernel.raw()))


def test_the_recorded_machines_list_belongs_to_its_boot(deployment: Deployment) -> None:
    records = list(read_records(recorded.IMA_LIST))
    value = bytes(32)
    for record in records:
        value = hashlib.sha256(value + hashlib.sha256(record.data).digest()).digest()
    machine = replace(deployment.machine(), pcrs={**recorded.registers(), 10: value})
    known = capture(read_entries(recorded.IMA_LIST), comment="the recorded machine")
    (deployment.directory / "plant.digests").write_bytes(known.source)
    deployment.apply(POLICY.replace("required", 'violations = "accept"\nrequired'))
    answer = deployment.expect(200, ATTEST, listed(deployment.round(machine), recorded.IMA_LIST))
    assert answer["ima_next"] == len(records) == 395
