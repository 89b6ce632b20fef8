"""`attestd agent exec` beside a served socket, as a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ATTESTD = Path(sys.executable).with_name("attestd")
REPOSITORY = Path(__file__).parents[4]

_TELL = """
import json, os, sys
names = [name for name in os.environ if name.startswith("ATTESTD_") and name.endswith("_FILE")]
print(json.dumps({
    "environ": {n: v for n, v in os.environ.items() if n.startswith(("ATTESTD_", "SPIFFE_"))},
    "files": {n: open(os.environ[n]).read() for n in names},
    "modes": {n: oct(os.lstat(os.environ[n]).st_mode & 0o777) for n in names},
    "owners": sorted({os.lstat(os.environ[n]).st_uid for n in names}),
    "folder": oct(os.stat(os.path.dirname(os.environ.get("ATTESTD_CREDENTIALS", "/x"))).st_mode & 0o7777),
}), flush=True)
"""
TELL = ("/usr/bin/env", "python3", "-I", "-c", _TELL)
"""A program that prints what it was given."""

RUN_AS_USER = """
import codecs, ctypes, encodings.idna, getpass, grp, logging, os, pwd, sys
import asyncio.unix_events, multiprocessing.connection
import attestd.cli.agent_exec, attestd.cli.agent_token, attestd.cli.agent
from attestd.cli.main import main
for each in ("ascii", "latin-1", "utf-8", "idna"):
    codecs.lookup(each)
uid = int(sys.argv[1])
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
main(["agent", *sys.argv[2:]])
"""
"""The command after it has become another user, who may be unable to enter the interpreter's directory."""


@dataclass
class Running:
    """One run; what its program prints comes line by line."""

    process: "subprocess.Popen[str]"

    @classmethod
    def start(
        cls,
        socket: Path | str,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        uid: int | None = None,
        own_terminal: int | None = None,
        **given: Any,
    ) -> "Running":
        """`arguments` from the options on. `uid`: as that user, if we are the superuser.
        `own_terminal`: in a session of its own, with that terminal."""
        called = ["exec", "--socket", str(socket), *arguments]
        command = [str(ATTESTD), "agent"] if uid is None else [sys.executable, "-c", RUN_AS_USER, str(uid)]
        surroundings = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}
        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | given
        if own_terminal is not None:
            given |= dict.fromkeys(("stdin", "stdout", "stderr"), own_terminal)
            given["preexec_fn"] = lambda: _take_terminal(own_terminal)
        process: subprocess.Popen[str] = subprocess.Popen(
            [*command, *called],
            env={**surroundings, **(environ or {})},
            cwd=REPOSITORY,
            text=True,
            **given,
        )
        return cls(process)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def told(self) -> dict[str, Any]:
        """What TELL prints."""
        text = self.line()
        assert text, self.end()
        members: dict[str, Any] = json.loads(text)
        return members

    def end(self, status: int | None = None) -> tuple[str, str]:
        """What it printed until it ended, and on standard error."""
        out, err = self.process.communicate(timeout=30)
        if status is not None:
            assert self.process.returncode == status, (self.process.returncode, out, err)
        return out, err


def _take_terminal(terminal: int) -> None:
    os.setsid()
    os.close(os.open(os.ttyname(terminal), os.O_RDWR))


def until(holds: Callable[[], bool], *, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
