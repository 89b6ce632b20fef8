"""An operator at a fresh directory: runs commands, and looks into the store that they changed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from attestd.cli.main import main
from attestd.store import audit_show, devices
from attestd.store.audit_show import Wanted
from attestd.store.devices import Device
from attestd.store.store import Store

DEVICE = "ab" * 32
OTHER = "cd" * 32
NOW = 1_790_000_000_000


@dataclass(frozen=True)
class Operator:
    """`directory` was made by `attestd init`."""

    directory: Path

    def run(self, *words: str) -> Result:
        """Server verbs are told where the configuration is."""
        named = [] if words[:2] == ("policy", "check") else ["--config", str(self.directory / "attestd.toml")]
        return CliRunner().invoke(main, [*words, *named])

    def done(self, *words: str) -> str:
        """The output of a command that must succeed."""
        result = self.run(*words)
        assert result.exit_code == 0, result.output
        return result.stdout

    def refused(self, *words: str, status: int = 1) -> str:
        """The one line on stderr of a command that must fail with this status, and that changes nothing."""
        before = self.admin_records()
        result = self.run(*words)
        assert result.exit_code == status, result.output
        assert self.admin_records() == before
        last = result.stderr.splitlines()[-1]
        assert last.startswith("attestd: ")
        return last

    def objects(self, *words: str) -> list[dict[str, Any]]:
        """What a command prints with --json, one object a line."""
        return [json.loads(line) for line in self.done(*words, "--json").splitlines()]

    def write(self, name: str, content: str | bytes) -> str:
        """A file in the directory; its path."""
        path = self.directory / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def store(self) -> Store:
        return Store.open(f"sqlite:{self.directory / 'attestd.db'}")

    def device(self, device_id: str = DEVICE) -> Device:
        found = self.store().read(lambda tx: devices.find(tx, device_id))
        assert found is not None
        return found

    def admin_records(self) -> list[dict[str, Any]]:
        """All audit records of operators' changes, oldest first."""
        return self.store().read(lambda tx: list(audit_show.records(tx, Wanted(event="admin"))))

    def last_record(self) -> dict[str, Any]:
        return self.admin_records()[-1]

    def add(self, device_id: str = DEVICE, **members: Any) -> None:
        """A device as if it had enrolled."""
        given = {"state": "active", "assurance": "ek_verified", "name": "gw-1"} | members
        device = Device(device_id=device_id, created_at=NOW, updated_at=NOW, **given)
        self.store().write(lambda tx: devices.insert(tx, device))
