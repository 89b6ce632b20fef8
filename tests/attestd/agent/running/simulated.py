"""A service and a machine whose time is a number: all is real but the clock, the network and chance."""

import json
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from attestd.agent.errors import Refusal, Unreachable
from attestd.agent.logs import LogFiles
from attestd.agent.running.home import Home
from attestd.agent.running.outlet import Outlet
from attestd.agent.running.upkeep import Upkeep
from attestd.agent.settings import Callers, Settings, Workload
from attestd.agent.state import State
from attestd.agent.transport import Server
from attestd.clock import now_ms
from attestd.store import signing_keys
from attestd.wire import Problem
from tests.deployment import SERVER, Deployment
from tests.serving import FRESH
from tpm.swtpm import SoftwareTpm
from tpm.swtpm_ca import shared_test_ca

SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
BUNDLE = "/.well-known/spiffe/bundle"
MEMORY = Path("/dev/shm")


@dataclass
class Clock:
    now: int = field(default_factory=now_ms)

    def __call__(self) -> int:
        return self.now


@dataclass
class Weather:
    """What is between machine and service. `requests` are the times and paths of all that were sent."""

    deployment: Deployment
    clock: Clock
    fault: Exception | None = None
    only: str | None = None
    """The path that the fault is on; None: all of them."""
    published: bytes | None = None
    """The bundle, until somebody changes the keys."""
    requests: list[tuple[int, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def away(self) -> None:
        self.fault = Unreachable(f"{SERVER} does not answer")

    def slow_down(self, retry_after: int) -> None:
        self.fault = Refusal(429, {"code": "slow_down", "detail": "Too many."}, retry_after)

    def fair(self) -> None:
        self.fault = None

    def count(self, path: str = BUNDLE) -> int:
        """How many requests there were; each round and each look at the bundle begins with one for it."""
        return [asked for _, asked in self.requests].count(path)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self._pass(path)
        try:
            answer: dict[str, Any] = self.deployment.ask(path, dict(body), now=self.clock.now)
        except Problem as problem:
            self.refused.append(problem.code)
            members = json.loads(json.dumps(problem.body("r")))
            raise Refusal(problem.status, members, problem.retry_after) from None
        return json.loads(json.dumps(answer))  # type: ignore[no-any-return]

    def get(self, path: str) -> dict[str, Any]:
        self._pass(path)
        if self.published is None:
            service = self.deployment.service
            documents = service.discovery.documents(service.keyring.at(self.clock.now))
            self.published = documents.spiffe_bundle.body
        return json.loads(self.published)  # type: ignore[no-any-return]

    def _pass(self, path: str) -> None:
        self.requests.append((self.clock.now, path))
        if self.fault is not None and self.only in (None, path):
            raise self.fault


@dataclass(frozen=True)
class Line(Server):
    """A way to the service without a network."""

    weather: Weather | None = None

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        assert self.weather is not None
        return self.weather.post(path, body)

    def get(self, path: str) -> dict[str, Any]:
        assert self.weather is not None
        return self.weather.get(path)


def workload(agent: str, *formats: str, **changed: Any) -> Workload:
    """A workload with these formats (an X.509-SVID under a software key), but for what is changed."""
    anybody = Callers(frozenset({"root"}), frozenset(), frozenset(), frozenset())
    plain = {"key": "software", "audiences": (), "hint": "", "files": None, "on_renewal": (), "seals": ()}
    given = {"agent": agent, "formats": formats or ("x509-svid",), "callers": anybody, **plain, **changed}
    return Workload(**given)


@dataclass
class World:
    """One service, one machine, and what its agent said. `settings` are those of the next start."""

    tpm: SoftwareTpm
    deployment: Deployment
    clock: Clock
    weather: Weather
    state: State
    settings: Settings
    chance: random.Random
    said: list[str] = field(default_factory=list)
    outlet: Outlet | None = None
    home: Home = field(init=False)
    """Of the last start."""

    def boot(self) -> Upkeep:
        """The agent, started anew on what is kept."""
        self.home = Home(self.tpm.tcti, self.state, lambda url: Line(url, weather=self.weather), LogFiles())
        return Upkeep(
            self.home,
            self.settings,
            clock=self.clock,
            draw=self.chance.random,
            say=self.said.append,
            outlet=self.outlet,
        )

    def until(self, upkeep: Upkeep, end: int, *, most: int = 10_000) -> None:
        """Do what is due, when it is due, up to this time."""
        for _ in range(most):
            due = upkeep.due()
            if due > end:
                self.clock.now = max(self.clock.now, end)
                return
            self.clock.now = max(self.clock.now, due)
            upkeep.work()
        raise AssertionError(f"no rest in {most} steps: {self.said[-5:]}")

    def after(self, upkeep: Upkeep, duration: int) -> None:
        self.until(upkeep, self.clock.now + duration)

    @property
    def device_ids(self) -> list[str]:
        rows = self.deployment.rows("SELECT device_id FROM devices")
        return [row["device_id"] for row in rows]

    def rotate(self, use: str) -> str:
        """A new key of this use signs from now on; returns the name of the one that did."""
        before = {key.kid: key.state for key in self._keys(use)}
        self.deployment.operate("keys", "add", "--use", use)
        (added,) = [key.kid for key in self._keys(use) if key.kid not in before]
        self.deployment.operate("keys", "activate", added, "--now")
        self.weather.published = None
        return next(kid for kid, state in before.items() if state == "active")

    def retire(self, kid: str) -> bool:
        """Publish that key no more; not while something that it signed is alive."""
        store, now = self.deployment.service.store, self.clock.now
        self.weather.published = None
        return bool(store.write(lambda tx: signing_keys.retire(tx, kid, now)))

    def withdraw(self, kid: str) -> None:
        """The same, though something that it signed is alive: the key was stolen."""
        sql = "UPDATE signing_keys SET state = 'retired', retired_at = ? WHERE kid = ?"
        store, now = self.deployment.service.store, self.clock.now
        self.weather.published = None
        store.write(lambda tx: tx.execute(sql, (now, kid)))

    def forget(self) -> None:
        """The service knows no device any more, as after a backup was restored that is older than it."""
        self.deployment.service.store.write(lambda tx: tx.execute("DELETE FROM devices"))

    def _keys(self, use: str | None = None) -> list[signing_keys.SigningKey]:
        return self.deployment.service.store.read(lambda tx: signing_keys.list_all(tx, use=use))


@contextmanager
def in_memory(otherwise: Path) -> Iterator[Path]:
    """Simulated time has thousands of writes, and each would wait for the disk."""
    if not MEMORY.is_dir():
        yield otherwise
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


@contextmanager
def world(
    directory: Path,
    tpm: SoftwareTpm,
    *workloads: Workload,
    policies: Sequence[str] = (FRESH,),
    settings: Mapping[str, str] | None = None,
) -> Iterator[World]:
    """The service admits this process's software TPMs at once; `settings` are its configuration's lines."""
    root = shared_test_ca().root.public_bytes(Encoding.PEM)
    with in_memory(directory) as folder:
        deployment = Deployment.create(folder / "service", roots=[root], settings=settings)
        try:
            for number, policy in enumerate(policies):
                deployment.apply(policy, f"policy-{number}.toml")
            clock = Clock()
            state = State(folder / "state")
            wanted = Settings(server=SERVER, tpm=tpm.tcti, state=state.directory, workloads=workloads)
            weather = Weather(deployment, clock)
            yield World(tpm, deployment, clock, weather, state, wanted, random.Random(7))
        finally:
            deployment.close()
