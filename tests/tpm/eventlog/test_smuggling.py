"""Can whoever sends a log change what it proves, without changing what the TPM quoted?

Type and data of every event, and records that extend nothing, are the sender's to write. Here they are
rewritten at random in logs of real machines, digests and order kept. Nothing may become a fact that was
none, and nothing that was one may vanish without a trace.
"""

import random

import pytest

from tests.tpm.vectors import Vector, vectors
from tpm.eventlog.events import Event, EventLog, EventType
from tpm.eventlog.facts.boot import BootFacts, read_facts
from tpm.eventlog.reader import read_log
from tpm.eventlog.replay import replay

NAMES = (
    "gce-rhel8-secureboot",
    "hp-elitebook830g6-ubuntu-baseline",
    "tools-moklisttrusted",
    "tools-sdboot-fedora37",
)
LOGS = [*(one for one in vectors("eventlogs/*") if one.folder.name in NAMES), *vectors("vm/*")]
LEFT_OUT = (EventType.EV_NO_ACTION, EventType.USERSPACE, EventType.EV_EFI_HCRTM_EVENT)
"""What would change the replay of PCR 0, and what no firmware's log can hold."""
KINDS = [int(kind) for kind in EventType if kind not in LEFT_OUT]
ROUNDS = 150


def read(vector: Vector) -> EventLog:
    return read_log(vector.read("eventlog.bin" if vector.has("eventlog.bin") else "log.bin"))


def facts_of(log: EventLog) -> BootFacts:
    return read_facts(log, bank="sha256", registers=None)


def rewritten(log: EventLog, chance: random.Random) -> EventLog:
    """The log with types and data of some events changed, and notes put in."""
    events: list[Event] = []
    for event in log.events:
        if chance.random() < 0.1:
            note = chance.choice(log.events).data
            events.append(Event(len(events), event.register, EventType.EV_NO_ACTION, event.digests, note))
        kind, data = event.type, event.data
        if event.type != EventType.EV_NO_ACTION and chance.random() < 0.2:
            kind = chance.choice(KINDS)
        if event.type != EventType.EV_NO_ACTION and chance.random() < 0.1:
            data = chance.choice(log.events).data
        events.append(Event(len(events), event.register, kind, event.digests, data))
    return EventLog(log.format, log.algorithms, tuple(events), log.padding)


def said(facts: BootFacts) -> dict[str, set[object]]:
    """The facts that rest on data, without their places."""
    boot = facts.secure_boot
    return {
        "secure boot": {boot.enabled} - {None},
        "databases": {(one.name, one.sha256) for one in boot.databases.values()},
        "authorities": {(one.source, one.certificate, one.hash) for one in boot.authorities},
        "shim": {(one.name, one.data) for one in boot.shim_state},
        "actions": {one.text for one in boot.actions},
        "texts": {one.text for one in facts.grub.texts},
        "sections": {(one.name, one.digest) for one in facts.uki.sections},
        "versions": {one.text for one in facts.firmware},
        "hand-over": {facts.hand_over} - {None},
        "words": {one.text for one in facts.command_lines if one.source == "systemd"},
    }


REGISTERS = {
    "authorities": 7,
    "shim": 7,
    "actions": 7,
    "databases": 7,
    "texts": 8,
    "sections": 11,
    "words": 12,
}
MAY_MOVE = {"hand-over", "versions", "actions"}
"""Facts of which each stands on its own text: retyped, another text of the same register may read as one."""


@pytest.mark.parametrize("vector", LOGS, ids=str)
def test_nothing_false_gets_in_and_nothing_true_gets_lost_unseen(vector: Vector) -> None:
    log = read(vector)
    honest = said(facts_of(log))
    chance = random.Random(f"smuggled {vector}")
    for _ in range(ROUNDS):
        changed = rewritten(log, chance)
        assert replay(changed).banks == replay(log).banks
        facts = facts_of(changed)
        for name, values in said(facts).items():
            assert values <= honest[name] or name in MAY_MOVE, name
            lost = honest[name] - values
            if lost and name in REGISTERS:
                assert facts.unexplained[REGISTERS[name]] != (), name


@pytest.mark.parametrize("vector", LOGS, ids=str)
def test_no_command_line_hides(vector: Vector) -> None:
    """What a kernel was started with is among the command lines still, or its register has a gap."""
    log = read(vector)
    honest = {line.text for line in facts_of(log).command_lines if line.source == "grub"}
    chance = random.Random(f"hidden {vector}")
    for _ in range(ROUNDS):
        facts = facts_of(rewritten(log, chance))
        shown = {line.text for line in facts.command_lines}
        assert honest <= shown or facts.unexplained[8] != ()
