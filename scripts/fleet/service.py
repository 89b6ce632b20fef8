"""Which service does the fleet belong to, and what did it do meanwhile?

`attestd serve` as users run it, with the limits that it has by default: the fleet comes from one address, as
the machines of a plant behind one router do. Counts come from its own audit log and its own access log.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.fleet.machine import AGENT, FORMATS
from tests.attestd.web.certificates import Pair
from tests.deployment import configure
from tests.serving import Serving
from tpm.swtpm_ca import TestCa

_POLICY = """
name = "fleet"
disclose = "findings"
allow_unmeasured = [0, 7]
[pcrs]
0 = ["sha256:{zero}"]
7 = ["sha256:{zero}"]
[clock]
# All machines of the rehearsal share the host's boot id, and their power goes without warning.
on_reset = "accept"
on_unsafe = "accept"
[[grant]]
agent = "{agent}"
formats = {formats}
ttl = "1h"
key = "any"
"""


def fleet_service(directory: Path, ca: TestCa, *, tls: Pair, database: str | None = None) -> Serving:
    """To be entered. `database` as in `attestd.toml`; without it, SQLite with full durability."""
    policy = _POLICY.format(zero="00" * 32, agent=AGENT, formats=json.dumps(FORMATS))
    serving = Serving(directory, policies=(), root=ca.root, tls=tls)
    settings = {"unproven_per_second": "50", "device_per_minute": "60", "tofu": "false"}
    if database is not None:
        settings["database"] = json.dumps(database)
    configure(directory, settings)
    path = directory / "fleet.toml"
    path.write_text(policy)
    serving.operate("policy", "apply", str(path))
    return serving


@dataclass(frozen=True, slots=True)
class Doings:
    """What the service did between two moments. `issued` counts credentials by device; `rounds` accepted
    attestations by device; `answers` all requests by status; `busy` is the service's own time in seconds."""

    issued: Mapping[str, int]
    rounds: Mapping[str, int]
    answers: Mapping[int, int]
    busy: float

    @property
    def errors(self) -> int:
        """Answers that no client asked for by what it sent."""
        return sum(count for status, count in self.answers.items() if status >= 500)

    @property
    def refused(self) -> int:
        return sum(count for status, count in self.answers.items() if 400 <= status < 500)


class Watched:
    """The service's logs from now on."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._log = serving.directory / "log"
        self._offset = self._log.stat().st_size
        self._known = set(_places(serving))

    def doings(self) -> Doings:
        """All since then."""
        issued: Counter[str] = Counter()
        rounds: Counter[str] = Counter()
        for record in self._serving.listed("audit", "show"):
            place = (record["chain"], record["sequence"])
            if place in self._known or record["decision"] != "accepted":
                continue
            issued[record["device_id"]] += record["event"] == "issue"
            rounds[record["device_id"]] += record["event"] == "attest"
        answers: Counter[int] = Counter()
        busy = 0.0
        for request in self._requests():
            answers[request["status"]] += 1
            busy += request["ms"] / 1000
        return Doings(+issued, +rounds, answers, busy)

    def requests(self) -> list[Mapping[str, Any]]:
        """The lines of its access log since then."""
        return list(self._requests())

    def _requests(self) -> Iterator[Mapping[str, Any]]:
        with self._log.open("rb") as log:
            log.seek(self._offset)
            for line in log:
                if line.endswith(b"\n"):
                    told = json.loads(line)
                    if told.get("event") == "request":
                        yield told


def _places(serving: Serving) -> Iterator[tuple[str, int]]:
    for record in serving.listed("audit", "show"):
        yield record["chain"], record["sequence"]
