"""What does reading an event log cost, beside the hashing in it?

The floor is the extends of every bank and one hash of each event's data: what nobody who replays a log and
believes nothing unmeasured can leave out. Beside it stand the figures of others for logs of like size.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from scripts.bench.measure import Row, Work, pair
from tpm.eventlog.events import EventLog
from tpm.eventlog.facts.boot import read_facts
from tpm.eventlog.reader import read_log
from tpm.eventlog.replay import extends, replay

_LOGS = Path(__file__).parents[2] / "tests" / "vectors" / "eventlogs"
_MEASURED = (
    "workstation-arch-sdboot",
    "gce-rhel8-secureboot",
    "lenovo-t480-fedora",
    "gce-ubuntu2104-nodbx",
    "hp-elitebook830g6-ubuntu-baseline",
)
_BOUND = 5.0
_PEER_EVENTS = 80
_PEER = "(go-tpm-tools: 1,200–1,400 µs)"


def rows() -> Iterator[Row]:
    """Parse, replay in all banks, and the facts of one, for logs of real machines."""
    for name in _MEASURED:
        raw = (_LOGS / name / "log.bin").read_bytes()
        log = read_log(raw)
        title = f"event log, {len(log.events)} events, {len(log.algorithms)} banks"
        row = pair(title, _ours(raw), _floor(log), bound=_BOUND, pairs=400)
        yield replace(row, note=_PEER if len(log.events) >= _PEER_EVENTS else "")
    seen = (_LOGS / _MEASURED[-1] / "log.bin").read_bytes()
    known = {hashlib.sha256(seen).digest()}
    yield pair(
        "event log, seen before",
        lambda: hashlib.sha256(seen).digest() in known,
        lambda: hashlib.sha256(seen).digest(),
        bound=1.5,
        pairs=400,
    )


def _ours(raw: bytes) -> Work:
    def work() -> object:
        log = read_log(raw)
        replay(log)
        return read_facts(log, bank="sha256", registers=None)

    return work


def _floor(log: EventLog) -> Work:
    extended = [(event.register, event.digests) for event in log.events if extends(event)]
    data = [event.data for event in log.events]
    hashes = [(bank, getattr(hashlib, bank)) for bank in log.algorithms]

    def work() -> None:
        for bank, new in hashes:
            values = dict.fromkeys(range(24), bytes(new().digest_size))
            for register, digests in extended:
                if bank in digests:
                    values[register] = new(values[register] + digests[bank]).digest()
        for content in data:
            hashlib.sha256(content).digest()

    return work
