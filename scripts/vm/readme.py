"""Is what the README promises of a new device true? Its commands are followed, as they stand there.

The first indented block of the section belongs to two parties; a comment with "on the service" or "on the
device" says whose a line and those behind it are. Words in capitals are what a reader fills in.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.demonstration.claims import Disappointed

SECTION = "A device in ten lines"
_README = Path("README.md")
_PARTY = re.compile(r"#.*\bon the (service|device)\b")


@dataclass(frozen=True, slots=True)
class Step:
    """A command, over several lines where a document goes with it, and where it is typed."""

    party: str
    command: str


def steps(filled_in: Mapping[str, str], text: str | None = None) -> tuple[Step, ...]:
    """The commands of the section in their order. Disappointed where it has none."""
    readme = _README.read_text() if text is None else text
    section = re.search(rf"^## {SECTION}\n(.*?)(?=^## |\Z)", readme, re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"(?:^ {4}.*\n(?:\n(?= {4}))?)+", section[1], re.MULTILINE) if section else []
    if not blocks:
        raise Disappointed(f'README.md has no commands under "{SECTION}"')
    lines = [_fill_in(line[4:], filled_in) for line in blocks[0].splitlines()]
    return tuple(_commands(iter(lines)))


def _commands(lines: Iterator[str]) -> Iterator[Step]:
    party = "device"
    for line in lines:
        if turn := _PARTY.search(line):
            party = turn[1]
        command = re.sub(r"(?:^|\s+)# .*", "", line)
        if not command.strip():
            continue
        if document := re.search(r"<<\s*-?'?\"?(\w+)", command):
            for more in lines:
                command += f"\n{more}"
                if more.strip() == document[1]:
                    break
        while command.endswith("\\"):
            command = command[:-1] + re.sub(r"\s+# .*", "", next(lines).lstrip())
        yield Step(party, command)


def _fill_in(line: str, filled_in: Mapping[str, str]) -> str:
    for word, value in filled_in.items():
        line = re.sub(rf"\b{word}\b", value, line)
    return line


def at_the_service(command: str, *, configuration: Path, attestd: Path) -> tuple[int, str]:
    """Status and output of a command that is typed where the service runs."""
    environment = os.environ | {
        "ATTESTD_CONFIG": str(configuration),
        "PATH": f"{attestd.parent}:{os.environ.get('PATH', '')}",
    }
    ended = subprocess.run(
        ["bash", "-ec", command],
        cwd=configuration.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return ended.returncode, ended.stdout.strip()
