"""A whole service in a directory, made as an operator makes it, for tests that come in through the front
door."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from click.testing import CliRunner, Result
from flask.testing import FlaskClient

from attestd.app import VERBS, build_service, build_web
from attestd.cli.main import main
from attestd.clock import now_ms
from attestd.config import load_config
from attestd.issue.audit_keys import audit_verifier
from attestd.protocol import read
from attestd.service import Service
from attestd.store import devices
from attestd.store.audit import Head
from attestd.store.audit_show import Wanted, records
from attestd.store.audit_verify import Fault, verify
from attestd.store.devices import Device
from attestd.wire import Problem, load_json
from tests.attester import Machine, Round, TestMaker, activation_body, enrollment_body, new_round

SERVER = "http://127.0.0.1:8440"
POLICY = "pcr-policy.toml"
BASELINE = "reset_count, restart_count, clock, boot_id"
OF_VALUE = {"credentials", "sealed_keys", "result", "nonce", "credential", "enrollment", "device_id"}
"""Members of good answers, of which a refusal has none."""


class Refused(AssertionError):
    """An answer that was not the expected one."""


@dataclass
class Deployment:
    """`directory` as `attestd init` leaves it, with a maker whose TPMs are admitted at once."""

    directory: Path
    maker: TestMaker
    service: Service
    client: FlaskClient

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        settings: Mapping[str, str] | None = None,
        roots: Sequence[bytes] = (),
        options: Sequence[str] = (),
        prepare: Callable[[Path], None] | None = None,
    ) -> "Deployment":
        """`settings` replace lines of the configuration: key → TOML value, the key as the file has it.
        `roots` (PEM or DER) are trusted beside the maker's own. `options` are those of `attestd init`;
        `prepare` changes the directory before anything reads it."""
        maker = TestMaker.create()
        run("init", str(directory), "--trust-domain", "example.org", *options)
        configure(directory, {"auto_admit": "true", "unproven_per_second": "0", "device_per_minute": "0"})
        configure(directory, dict(settings or {}))
        (directory / "ek-roots" / "maker.pem").write_bytes(maker.pem)
        for number, root in enumerate(roots):
            (directory / "ek-roots" / f"root{number}.crt").write_bytes(root)
        if prepare is not None:
            prepare(directory)
        return cls(directory, maker, *start(directory))

    def restart(self) -> None:
        """The same directory under a new process's service."""
        self.service.close()
        self.service, self.client = start(self.directory)

    def close(self) -> None:
        self.service.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- the operator -----------------------------------------------------------------------------

    def operate(self, *arguments: str, status: int = 0) -> Result:
        """`attestd NOUN VERB … --config …`; fails the test when it ends otherwise."""
        return run(*arguments, "--config", str(self.directory / "attestd.toml"), status=status)

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        """The objects that a listing prints with `--json`."""
        output = self.operate(*arguments, "--json").stdout
        return [json.loads(line) for line in output.splitlines()]

    def apply(self, text: str, name: str = POLICY) -> None:
        path = self.directory / name
        path.write_text(text)
        self.operate("policy", "apply", str(path))

    def rows(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        """What the database says."""
        found: list[dict[str, Any]] = self.service.store.read(
            lambda tx: tx.execute(sql, parameters).fetchall()
        )
        return found

    def count(self, table: str, where: str = "1 = 1") -> int:
        return int(self.rows(f"SELECT COUNT(*) AS n FROM {table} WHERE {where}")[0]["n"])

    def counts(self) -> dict[str, int]:
        """How much was issued, and how many devices there are."""
        return {table: self.count(table) for table in ("credentials", "sealed_keys", "devices")}

    def kept(self) -> dict[str, Any]:
        """What no refusal changes: what was issued, who is known and speaks with which key, how each device
        last looked, which policies are in force. What is still alive is `live`."""
        columns = "device_id, name, state, assurance, ek_public, ak_name, root_sha256, " + BASELINE
        return {
            "counts": self.counts(),
            "devices": self.rows(f"SELECT {columns} FROM devices ORDER BY device_id"),
            "policies": self.rows("SELECT * FROM active_policies ORDER BY name"),
        }

    def live(self, machine: Machine | None = None) -> int:
        """Credentials that nothing has ended; expiry is not looked at."""
        whose = "" if machine is None else f" AND device_id = '{machine.device_id}'"
        return self.count("credentials", "revoked_at IS NULL" + whose)

    def row(self, machine: Machine) -> Device:
        """The machine's row; fails the test when there is none."""
        device = self.service.store.read(lambda tx: devices.find(tx, machine.device_id))
        assert device is not None
        return device

    def audit(self, **wanted: Any) -> list[dict[str, Any]]:
        """The audit's records with these members, oldest first."""
        asked = {name: wanted.pop(name) for name in tuple(wanted) if name in Wanted.__slots__}
        found = self.service.store.read(lambda tx: list(records(tx, Wanted(**asked))))
        return [record for record in found if all(record.get(key) == wanted[key] for key in wanted)]

    def audit_length(self) -> int:
        """How many records there are, but for those that announce a new chain."""
        heads = self.rows("SELECT COUNT(*) AS chains, SUM(sequence) AS total FROM audit_heads")[0]
        return int(heads["total"] - heads["chains"])

    def audit_faults(self, anchors: Mapping[str, Head] | None = None) -> tuple[Fault, ...]:
        """What `attestd audit verify` would complain of."""
        keys = audit_verifier(self.service.keyring.at(now_ms()))
        return self.service.store.read(lambda tx: verify(tx, keys, anchors)).faults

    # --- the wire ---------------------------------------------------------------------------------

    def post(self, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.client.post(path, data=raw, content_type="application/json")
        return answer.status_code, json.loads(answer.data)

    def expect(self, status: int, path: str, body: Any) -> dict[str, Any]:
        """The answer, which must have this status."""
        found, answer = self.post(path, body)
        if found != status:
            raise Refused(f"{path}: expected {status}, got {found}: {json.dumps(answer)}")
        return answer

    # --- devices ----------------------------------------------------------------------------------

    def machine(self, **kind: Any) -> Machine:
        """A new machine of the trusted maker, enrolled."""
        machine = Machine.create(self.maker, **kind)
        self.enroll(machine)
        return machine

    def enroll(self, machine: Machine) -> dict[str, Any]:
        answer = self.expect(201, "/v1/enrollments", enrollment_body(machine))
        return self.expect(201, "/v1/activations", activation_body(machine, answer, SERVER))

    def challenge(self, machine: Machine) -> dict[str, Any]:
        return self.expect(201, "/v1/challenges", {"device_id": machine.device_id})

    def round(self, machine: Machine, *, now: int | None = None, **members: Any) -> Round:
        """A healthy round that is not sent yet; `now` is another time of its challenge."""
        if now is None:
            return new_round(machine, self.challenge(machine), SERVER, **members)
        told = self.ask("/v1/challenges", {"device_id": machine.device_id}, now=now)
        return new_round(machine, told, SERVER, **members)

    def attest(self, machine: Machine, **members: Any) -> dict[str, Any]:
        """A healthy attestation; fails the test when it is refused."""
        return self.expect(200, "/v1/attestations", self.round(machine, **members).body())

    # --- refusals ---------------------------------------------------------------------------------

    def problem(
        self,
        body: Any,
        status: int,
        code: str,
        path: str = "/v1/attestations",
        *,
        ends: int = 0,
        **record: Any,
    ) -> dict[str, Any]:
        """The problem with which this is refused: 4xx, nothing issued, one audit record with these members,
        nothing of value in the answer, and no more than `ends` credentials ended."""
        before, live, length = self.kept(), self.live(), self.audit_length()
        found, answer = self.post(path, body)
        assert (found, answer.get("code")) == (status, code), (found, answer)
        assert self.kept() == before
        assert self.live() == live - ends
        self._check_record(answer, length, record)
        assert not OF_VALUE & answer.keys()
        return answer

    def _check_record(self, answer: dict[str, Any], length: int, expected: Mapping[str, Any]) -> None:
        assert self.audit_length() == length + 1
        (found,) = self.audit(request_id=answer["request_id"])
        assert (found["decision"], found["code"]) == ("refused", answer["code"])
        assert {name: found[name] for name in expected} == dict(expected)

    def ask(self, path: str, body: Any, *, now: int) -> dict[str, Any]:
        """What the verb answers at that time (milliseconds), without the web around it; raises Problem."""
        verb = next(verb for verb in VERBS if verb.path == path)
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = verb.call(self.service, read(verb.model, load_json(raw)), now=now, request_id=token_hex(8))
        return dict(answer)

    def refusal(self, path: str, body: Any, *, now: int) -> tuple[str, str | None]:
        """Code and cause with which the verb refuses at that time; nothing is issued."""
        before = self.counts()
        try:
            answer = self.ask(path, body, now=now)
        except Problem as problem:
            assert self.counts() == before
            return problem.code, problem.cause
        raise Refused(f"{path}: expected a refusal, got {json.dumps(answer)}")


def start(directory: Path) -> tuple[Service, FlaskClient]:
    service = build_service(load_config(directory / "attestd.toml", {}))
    return service, build_web(service).test_client()


def run(*arguments: str, status: int = 0) -> Result:
    """The command line in this process."""
    result = CliRunner().invoke(main, list(arguments), standalone_mode=True)
    if result.exit_code != status:
        raise Refused(
            f"attestd {' '.join(arguments)}: {result.exit_code}: {result.output}"
        ) from result.exception
    return result


def configure(directory: Path, settings: Mapping[str, str]) -> None:
    """Replace the lines of these keys in `attestd.toml`, commented or not."""
    path = directory / "attestd.toml"
    lines = path.read_text().splitlines()
    for key, value in settings.items():
        places = [i for i, line in enumerate(lines) if line.lstrip("# ").startswith(f"{key} =")]
        lines[places[0]] = f"{key} = {value}"
    path.write_text("\n".join(lines) + "\n")


def policy_for(
    machine: Machine,
    *,
    name: str = "plant",
    registers: tuple[int, ...] = (0, 7),
    extra: str = "",
    top: str = "",
) -> str:
    """A policy that accepts this machine as it is now and grants its agents everything that exists."""
    values = "\n".join(f'{r} = ["{machine.bank}:{machine.pcrs[r].hex()}"]' for r in registers)
    return f"""
name = "{name}"
bank = "{machine.bank}"
disclose = "findings"
{top}
[pcrs]
{values}
[[grant]]
agent = "telemetry"
formats = ["x509-svid", "wit-svid"]
ttl = "10m"
[[grant]]
agent = "billing"
formats = ["x509-svid", "wit-svid", "jwt-svid"]
ttl = "5m"
key = "any"
audiences = ["https://a.example.org", "https://b.example.org"]
[[seal]]
name = "disk"
kind = "secret-32"
pcrs = [0, 7]
{extra}
"""


def credential(form: str, agent: str = "billing", **members: Any) -> dict[str, Any]:
    """One member of `credentials`."""
    return {"format": form, "agent": agent} | members
