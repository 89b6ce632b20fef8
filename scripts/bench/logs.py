"""What do logs add to a round?

Beside each round with logs stands one of another machine without them, through the same server. The machine
is a recorded one; its list of what ran is made here, and an extension of register 10 is that of its list.
"""

import hashlib
import json
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts.bench.measure import Row
from scripts.bench.server import Client, attestd_server, enrolled
from tests import recorded
from tests.attester import Machine, b64, jwk_of, new_key, new_round
from tests.deployment import run
from tests.tpm.ima.kernel import Kernel, digest_field
from tpm.eventlog.events import EventType
from tpm.eventlog.reader import read_log
from tpm.eventlog.replay import replay

ROUNDS = 150
WARM_UP = 5
FIRST_PART = 100_000
NEW = 100
_FILES = 1_000
"""Different files in the list of allowed digests; they run again and again."""

_RULES = """
[boot]
event_log = "required"
secure_boot = true
command_line = ["{command_line}"]
phases = ["sysinit:ready"]
"""
_GRANT = '[[grant]]\nagent = "billing"\nformats = ["x509-svid"]\nkey = "any"\n'
_IMA = '[ima]\nrequired = true\nallow = ["bench.digests"]\n'

Bodies = Callable[[int], dict[str, Any]]
"""The members about logs that the round of this number sends."""
First = Callable[[int], int]


class Bench:
    """A service with two machines: one that a policy judges by its logs, one by its registers alone."""

    def __init__(self, directory: Path, port: int, client: Client, machines: tuple[Machine, Machine]) -> None:
        self.directory = directory
        self.client = client
        self.server = f"http://127.0.0.1:{port}"
        self.plain, self.logging = machines
        self.keys = {machine.device_id: jwk_of(new_key("p256")) for machine in machines}
        self.moment = 0

    def apply(self, policy: str, name: str) -> None:
        path = self.directory / f"{name}.toml"
        path.write_text(f'name = "{name}"\n[match]\nlabels = {{ kind = ["{name}"] }}\n{policy}')
        config = str(self.directory / "attestd.toml")
        run("policy", "apply", str(path), "--config", config)
        run("device", "label", self.logging.device_id, f"kind={name}", "--config", config)

    def pairs(self, name: str, bodies: Bodies, *, bound: float, first: First = lambda _: 0) -> Row:
        """Each round with logs beside one without; `first` is the entry of the list at which it begins."""
        ours, floor = [], []
        for number in range(ROUNDS + WARM_UP):
            more = bodies(number)
            spent, least = self.round(self.logging, more, first(number)), self.round(self.plain, {})
            if number >= WARM_UP:
                ours.append(spent)
                floor.append(least)
        return Row.beside(name, ours, floor, bound=bound)

    def round(self, machine: Machine, more: dict[str, Any], first: int = 0) -> float:
        """Microseconds in the two requests."""
        self.moment += 1
        machine = machine.later(self.moment)
        begin = time.perf_counter_ns()
        status, challenge = self.client.json("/v1/challenges", {"device_id": machine.device_id})
        spent = time.perf_counter_ns() - begin
        assert status == 201, challenge
        key = self.keys[machine.device_id]
        wanted = [{"format": "x509-svid", "agent": "billing", "key": key}]
        made = new_round(machine, challenge, self.server, credentials=wanted, ima_from=first)
        body = json.dumps(made.body() | more).encode()
        begin = time.perf_counter_ns()
        status, answer = self.client.post("/v1/attestations", body)
        spent += time.perf_counter_ns() - begin
        assert status == 200, answer
        return spent / 1000


def rows() -> Iterator[Row]:
    """A log that is sent whole and is new; by its digest; and a list of which most was judged before."""
    with tempfile.TemporaryDirectory(prefix="attestd-bench-") as work:
        directory = Path(work) / "service"
        with attestd_server(directory) as (port, maker):
            client = Client(port)
            server = f"http://127.0.0.1:{port}"
            machine = replace(enrolled(client, maker, directory, server), pcrs=recorded.registers())
            bench = Bench(directory, port, client, (enrolled(client, maker, directory, server), machine))
            rules = recorded.components() + _RULES.format(command_line=recorded.COMMAND_LINE) + _GRANT
            bench.apply(rules, "logs")
            yield from _event_logs(bench)
            yield _list(bench, rules)
            client.close()


def _event_logs(bench: Bench) -> Iterator[Row]:
    userspace = b64(recorded.userspace_log())
    events = len(read_log(recorded.EVENT_LOG).events)
    title = f"round with a log of {events} events"
    yield bench.pairs(
        f"{title}, never seen",
        lambda number: {"event_log": b64(_another(number)), "userspace_log": userspace},
        bound=1.5,
    )
    digest = hashlib.sha256(_another(ROUNDS + WARM_UP - 1)).hexdigest()
    named = {"event_log": {"sha256": digest}, "userspace_log": userspace}
    yield bench.pairs(f"{title}, by digest", lambda _: named, bound=1.25)


def _another(number: int) -> bytes:
    """The recorded log with one more event, in a register of which nobody asks: no cache has seen it."""
    event = struct.pack("<III", 14, int(EventType.EV_IPL), 2)
    data = b"%d" % number
    for bank, identifier in (("sha1", 0x0004), ("sha256", 0x000B)):
        event += struct.pack("<H", identifier) + hashlib.new(bank, data).digest()
    return recorded.EVENT_LOG + event + struct.pack("<I", len(data)) + data


def _list(bench: Bench, rules: str) -> Row:
    names = [b"/usr/lib/x86_64-linux-gnu/lib%d/some-name.so" % number for number in range(_FILES)]
    allowed = "".join(f"sha256:{digest_field(name)[8:].hex()}  {name.decode()}\n" for name in names)
    (bench.directory / "bench.digests").write_text(allowed)
    bench.apply(rules + _IMA, "files")
    quoted = bench.logging.pcrs
    firmware = replay(read_log(recorded.EVENT_LOG)).banks["sha256"]
    kernel = Kernel(boot={one: firmware.get(one, bytes(32)) for one in range(10)}).aggregate()
    logs = {"event_log": b64(_another(0)), "userspace_log": b64(recorded.userspace_log())}

    def run_until(count: int) -> None:
        while len(kernel.records) < count:
            kernel.run(names[len(kernel.records) % _FILES])
        bench.logging = replace(bench.logging, pcrs={**quoted, 10: kernel.quoted.values[10]})

    run_until(FIRST_PART)
    bench.round(bench.logging, {**logs, "ima_log": b64(kernel.raw())})
    known = {"sha256": hashlib.sha256(_another(0)).hexdigest()}

    def part(number: int) -> dict[str, Any]:
        first = FIRST_PART + NEW * number
        run_until(first + NEW)
        return {**logs, "event_log": known, "ima_log": b64(kernel.raw(first=first))}

    title = f"round with {NEW} new entries after {FIRST_PART:,}"
    return bench.pairs(title, part, bound=1.75, first=lambda number: FIRST_PART + NEW * number)
