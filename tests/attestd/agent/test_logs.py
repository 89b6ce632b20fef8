"""The agent sends its logs where they are asked for: whole once, then by digest and from where it ended."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attestd.agent.logs import Known, LogFiles, Logs
from attestd.agent.state import State
from attestd.wire import b64encode
from tests import recorded
from tests.serving import Agent, Serving
from tests.tpm.ima.kernel import Kernel
from tpm.ima.entry import Record
from tpm.ima.replay import extension
from tpm.structures.algorithms import SHA1, SHA256
from tpm.swtpm import SoftwareTpm

FILES = (b"/usr/bin/sh", b"/usr/bin/telemetry")
POLICY = f"""
name = "fleet"
disclose = "findings"
{recorded.components()}
[boot]
event_log = "required"
secure_boot = true
[ima]
required = true
allow = ["fleet.digests"]
[[grant]]
agent = "builder"
formats = ["x509-svid"]
key = "any"
"""
WANTED = ("--agent", "builder", "--format", "x509-svid", "--key", "software")


def measure(tpm: SoftwareTpm, records: list[Record]) -> None:
    """As the kernel extends register 10."""
    for record in records:
        tpm.extend(10, {bank.name: extension(record, bank, padded=False) for bank in (SHA1, SHA256)})


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path / "service", policies=())
    kernel = Kernel().run(FILES[0]).run(FILES[1])
    lines = [record.data[8 + 4 : 12 + 32].hex() for record in kernel.records]
    text = "".join(f"sha256:{line}  {path.decode()}\n" for line, path in zip(lines, FILES, strict=True))
    (serving.directory / "fleet.digests").write_text(text)
    (serving.directory / "fleet.toml").write_text(POLICY)
    serving.operate("policy", "apply", str(serving.directory / "fleet.toml"))
    with serving:
        yield serving


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {name: tmp_path / name for name in ("event", "userspace", "ima")}
    found["event"].write_bytes(recorded.EVENT_LOG)
    found["userspace"].write_bytes(recorded.userspace_log())
    return found


def options(files: dict[str, Path]) -> tuple[str | Path, ...]:
    return tuple(word for name, path in files.items() for word in (f"--{name}-log", path))


def test_a_machine_proves_its_boot_and_what_it_ran_and_continues_where_it_ended(
    fleet: Serving, software_tpm: SoftwareTpm, files: dict[str, Path], tmp_path: Path
) -> None:
    recorded.play(software_tpm)
    agent = Agent(software_tpm, tmp_path / "state", fleet.url)
    agent.enroll()
    told = json.loads(agent.attest(tmp_path / "out", *WANTED, status=1).stderr)
    assert {finding["code"] for finding in told["findings"]} == {"log_missing"}
    kernel = Kernel(boot={one: recorded.registers()[one] for one in range(10)}).aggregate().run(FILES[0])
    measure(software_tpm, kernel.records)
    files["ima"].write_bytes(kernel.raw())
    agent.attest(tmp_path / "out", *WANTED, *options(files))
    kept = json.loads((tmp_path / "state" / "logs.json").read_text())
    assert kept["ima_next"] == 2
    assert kept["event_log"] == hashlib.sha256(recorded.EVENT_LOG).hexdigest()
    kernel.run(FILES[1])
    measure(software_tpm, kernel.records[2:])
    files["ima"].write_bytes(kernel.raw())
    agent.attest(tmp_path / "out", *WANTED, *options(files))
    assert json.loads((tmp_path / "state" / "logs.json").read_text())["ima_next"] == 3
    # The service changed its mind about what is good: all of it is sent again, without anybody's help.
    (fleet.directory / "fleet.toml").write_text(POLICY + "# changed\n")
    fleet.operate("policy", "apply", str(fleet.directory / "fleet.toml"))
    agent.attest(tmp_path / "out", *WANTED, *options(files))


def logs(tmp_path: Path, files: dict[str, Path]) -> Logs:
    return Logs(LogFiles(files["event"], files["userspace"], files["ima"]), State(tmp_path / "state"))


def answer(**members: Any) -> dict[str, Any]:
    return {"known_event_log": None, "ima_next": None} | members


def test_a_log_that_the_last_answer_named_goes_by_digest(tmp_path: Path, files: dict[str, Path]) -> None:
    mine = logs(tmp_path, files)
    assert mine.known() == Known()
    whole = mine.members(mine.known(), event_log=True, ima_log=False)
    assert whole == {
        "event_log": b64encode(recorded.EVENT_LOG),
        "userspace_log": b64encode(recorded.userspace_log()),
    }
    digest = "ab" * 32
    mine.remember(answer(known_event_log=digest))
    assert mine.members(mine.known(), event_log=True, ima_log=False)["event_log"] == whole["event_log"]
    true = hashlib.sha256(recorded.EVENT_LOG).hexdigest()
    mine.remember(answer(known_event_log=true))
    by_digest = mine.members(mine.known(), event_log=True, ima_log=False)
    assert by_digest == whole | {"event_log": {"sha256": true}}
    mine.forget()
    assert mine.known() == Known()


def test_nothing_goes_that_was_not_asked_for(tmp_path: Path, files: dict[str, Path]) -> None:
    files["ima"].write_bytes(Kernel.booted().raw())
    mine = logs(tmp_path, files)
    assert mine.members(mine.known(), event_log=False, ima_log=False) == {}
    assert set(mine.members(mine.known(), event_log=False, ima_log=True)) == {"ima_log"}


@pytest.mark.parametrize("form", ["binary", "ascii"])
def test_a_list_is_sent_from_the_entry_that_is_expected_next(
    tmp_path: Path, files: dict[str, Path], form: str
) -> None:
    kernel = Kernel.booted().run(FILES[0]).run(FILES[1])
    files["ima"].write_bytes(kernel.raw(form))
    mine = logs(tmp_path, files)
    for first in range(4):
        sent = mine.members(Known("boot", None, first), event_log=False, ima_log=True)["ima_log"]
        assert sent == b64encode(kernel.raw(form, first=first))


def test_what_is_known_of_another_boot_is_forgotten(tmp_path: Path, files: dict[str, Path]) -> None:
    mine = logs(tmp_path, files)
    mine.remember(answer(ima_next=5))
    assert mine.known().ima_next == 5
    path = tmp_path / "state" / "logs.json"
    for text in (
        path.read_text().replace('"boot_id": "', '"boot_id": "x'),
        "[]",
        "no JSON",
        '{"ima_next": -1}',
    ):
        path.write_text(text)
        assert mine.known() == Known()


def test_logs_that_are_not_there_are_not_sent(tmp_path: Path, files: dict[str, Path]) -> None:
    files["event"].write_bytes(b"")
    assert logs(tmp_path, files).members(Known(), event_log=True, ima_log=True) == {}
