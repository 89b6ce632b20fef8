"""Which service does the fleet belong to, and what did it do meanwhile?

`attestd serve` as users run it, with the limits that it has by default: the fleet comes from one address, as
the machines of a plant behind one router do. Counts come from its own audit log and its own access log.
"""

import json
from collections import Counter
from collections.abc import Mapping
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


def fleet_service(directory: Path, ca: TestCa, *, tls: Pair, settings: Mapping[str, str]) -> Serving:
    """To be entered: on SQLite with full durability. `settings` replace lines of `attestd.toml`."""
    policy = _POLICY.format(zero="00" * 32, agent=AGENT, formats=json.dumps(FORMATS))
    serving = Serving(directory, policies=(), root=ca.root, tls=tls)
    limits = {"unproven_per_second": "50", "device_per_minute": "60", "tofu": "false"}
    configure(directory, limits | dict(settings))
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


class AccessLog:
    """The lines of the service's access log from now on, or from the last `skip`."""

    def __init__(self, serving: Serving) -> None:
        self._path = serving.directory / "log"
        self.skip()

    def skip(self) -> None:
        self._offset = self._path.stat().st_size

    def requests(self) -> list[Mapping[str, Any]]:
        """In the order of their answers."""
        with self._path.open("rb") as log:
            log.seek(self._offset)
            told = [json.loads(line) for line in log if line.endswith(b"\n")]
        return [line for line in told if line.get("event") == "request"]


class Watched:
    """The service's logs from now on."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._known = {_place(record) for record in serving.listed("audit", "show")}
        self._access = AccessLog(serving)

    def doings(self) -> Doings:
        """All since then."""
        issued: Counter[str] = Counter()
        rounds: Counter[str] = Counter()
        for record in self._serving.listed("audit", "show"):
            if record["decision"] == "accepted" and _place(record) not in self._known:
                issued[record["device_id"]] += record["event"] == "issue"
                rounds[record["device_id"]] += record["event"] == "attest"
        requests = self._access.requests()
        answers = Counter(request["status"] for request in requests)
        return Doings(+issued, +rounds, answers, sum(request["ms"] for request in requests) / 1000)


def _place(record: Mapping[str, Any]) -> tuple[str, int]:
    return record["chain"], record["sequence"]
