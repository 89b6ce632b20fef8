"""A whole service in a directory, made as an operator makes it, for tests that come in through the front
door."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from flask.testing import FlaskClient

from attestd.app import build_service, build_web
from attestd.cli.main import main
from attestd.config import load_config
from attestd.service import Service
from tests.attester import Machine, TestMaker, activation_body, enrollment_body, new_round

SERVER = "http://127.0.0.1:8440"
POLICY = "pcr-policy.toml"


class Refused(AssertionError):
    """An answer that was not the expected one."""


@dataclass
class Deployment:
    """`directory` as `attestd init` leaves it, with a maker whose TPMs are admitted at once."""

    directory: Path
    maker: TestMaker
    service: Service
    client: FlaskClient
    refused: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        settings: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        prepare: Callable[[Path], None] | None = None,
    ) -> "Deployment":
        """`settings` replace lines of the configuration: key → TOML value, the key as the file has it. `options`
        are those of `attestd init`; `prepare` changes the directory before anything reads it."""
        maker = TestMaker.create()
        run("init", str(directory), "--trust-domain", "example.org", *options)
        configure(directory, {"auto_admit": "true", "unproven_per_second": "0", "device_per_minute": "0"})
        configure(directory, dict(settings or {}))
        (directory / "ek-roots" / "maker.pem").write_bytes(maker.pem)
        if prepare is not None:
            prepare(directory)
        service = build_service(load_config(directory / "attestd.toml", {}))
        return cls(directory, maker, service, build_web(service).test_client())

    def close(self) -> None:
        self.service.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- the operator
    # -------------------------------------------------------------------------------------------------

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

    def counts(self) -> dict[str, int]:
        """What must not change when nothing is issued."""
        tables = ("credentials", "sealed_keys", "devices")
        return self.service.store.read(
            lambda tx: {
                name: tx.execute(f"SELECT COUNT(*) AS n FROM {name}").fetchone()["n"] for name in tables
            }
        )

    def audit(self, **wanted: Any) -> list[dict[str, Any]]:
        """The audit's records with these members, oldest first."""
        records = self.listed("audit", "show")
        return [r for r in records if all(r.get(key) == value for key, value in wanted.items())]

    # --- the wire
    # -----------------------------------------------------------------------------------------------------

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

    # --- devices
    # ------------------------------------------------------------------------------------------------------

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

    def round(self, machine: Machine, **members: Any) -> Any:
        """A healthy round that is not sent yet."""
        return new_round(machine, self.challenge(machine), SERVER, **members)

    def attest(self, machine: Machine, **members: Any) -> dict[str, Any]:
        """A healthy attestation; fails the test when it is refused."""
        return self.expect(200, "/v1/attestations", self.round(machine, **members).body())

    def problem(self, body: Any, status: int, code: str, path: str = "/v1/attestations") -> dict[str, Any]:
        """The problem with which this is refused: 4xx, nothing issued, one audit record, no secret in the
        answer."""
        before, records = self.counts(), len(self.audit())
        found, answer = self.post(path, body)
        assert (found, answer.get("code")) == (status, code), (found, answer)
        assert self.counts() == before
        assert len(self.audit()) == records + 1
        assert self.audit()[-1]["decision"] == "refused" or self.audit(decision="refused", code=code)
        assert not {"credentials", "sealed_keys", "result", "nonce"} & answer.keys()
        return answer


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
