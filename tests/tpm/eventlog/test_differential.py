"""Do we make of every published log what another public parser makes of it, but where it errs?

Where they differ, the table says why we keep to ours. Registers that a TPM quoted decide about values, and
test_vectors.py compares with those.
"""

import pytest

from tests.tpm.eventlog.other_parsers import DIGITS, PROGRAM, VECTORS, Registers, asked, kept, log_files
from tpm.errors import StructureError
from tpm.eventlog.events import EventLog, EventType
from tpm.eventlog.reader import read_log
from tpm.eventlog.replay import replay
from tpm.structures.algorithms import hash_by_name

ANSWERS = kept()

ONLY_OURS: dict[str, str] = {
    "adversarial/log-short-no-action/log.bin": "takes any note at the beginning for a header that is damaged",
    "adversarial/mut-trailing-ff-padding/log.bin": "takes the unused end of a buffer for an event",
    "eventlogs/intel-secl-uefi-padded/log.bin": "takes the unused end of a buffer for an event",
    "eventlogs/lenovo-ideapad-win/log.bin": "takes the unused end of a buffer for an event",
    "eventlogs/ccel-alibaba-aael/log.bin": "does not know confidential machines' logs",
    "eventlogs/ccel-gcp-tdx-cos113/log.bin": "does not know confidential machines' logs",
}
"""Logs that we read and tpm2-tools does not, and why."""

ONLY_THEIRS: dict[str, str] = {
    "adversarial/log-spec-invalid-version/log.bin": "does not look at the version of the header",
}
"""Logs that tpm2-tools reads and we refuse, and what it overlooks."""

# The known difference in values: version 5.4 extends PCR 0 with the zeros that stand as digests in notes
# (EV_NO_ACTION), which no firmware extends, and starts it from zero whatever StartupLocality says.


def ours(log: EventLog) -> Registers:
    banks = replay(log).banks
    return {
        bank: {str(register): value.hex()[:DIGITS] for register, value in values.items()}
        for bank, values in banks.items()
        if values
    }


def with_notes(log: EventLog) -> Registers:
    """As if notes extended registers, and none began otherwise than with zeros."""
    found: dict[str, dict[str, bytes]] = {}
    for event in log.events[1 if log.format != "sha1" else 0 :]:
        for bank, digest in event.digests.items():
            hash = hash_by_name(bank)
            values = found.setdefault(bank, {})
            held = values.get(str(event.register), bytes(hash.size))
            values[str(event.register)] = hash.digest(held + digest)
    return {
        bank: {register: value.hex()[:DIGITS] for register, value in values.items()}
        for bank, values in found.items()
    }


def read(file: str) -> EventLog | None:
    try:
        return read_log((VECTORS / file).read_bytes())
    except StructureError:
        return None


def has_notes(log: EventLog) -> bool:
    return any(event.type == EventType.EV_NO_ACTION for event in log.events[1:])


def test_the_other_parser_was_asked_about_every_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(ANSWERS) == log_files()
    logs = {file: read(file) for file in ANSWERS}
    both = [file for file, log in logs.items() if log is not None and ANSWERS[file] is not None]
    noted = [file for file in both if (log := logs[file]) is not None and has_notes(log)]
    with capsys.disabled():
        print(f"\n{len(ANSWERS)} logs, {len(both)} read by both, {len(noted)} of them with notes")
    assert (len(ANSWERS), len(both), len(noted)) == (90, 75, 24)


@pytest.mark.parametrize("file", ANSWERS)
def test_what_both_read_replays_alike(file: str) -> None:
    log, theirs = read(file), ANSWERS[file]
    assert (log is not None and theirs is None) == (file in ONLY_OURS)
    assert (log is None and theirs is not None) == (file in ONLY_THEIRS)
    if log is None or theirs is None:
        return
    assert theirs == (with_notes(log) if has_notes(log) else ours(log))
    # Notes stand in PCR 0, so that all else is compared with our values in any case.
    assert _without_0(theirs) == _without_0(ours(log))


def test_what_is_kept_is_what_the_program_says_where_it_is_installed() -> None:
    """Versions differ in what they refuse and in how they take notes; nothing else may."""
    for file in log_files() if PROGRAM else ():
        log, now = read(file), asked(file)
        if log is not None and now is not None:
            assert _without_0(now) == _without_0(ours(log)), file
            assert now in (ours(log), with_notes(log)), file


def _without_0(banks: Registers) -> Registers:
    every = {
        bank: {one: value for one, value in values.items() if one != "0"} for bank, values in banks.items()
    }
    return {bank: values for bank, values in every.items() if values}
