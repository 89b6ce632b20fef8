"""Do imports go one way?

The table is the map of the architecture: each place names the places that it may import. A folder or module
that is not in it may import nothing, so a new one must be given its place here first.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

EVIDENCE = ("tpm.errors", "tpm.structures", "tpm.verify", "tpm.eventlog", "tpm.ima", "tpm.seal")
GROUND = (
    "tpm.errors",
    "attestd.addresses",
    "attestd.clock",
    "attestd.notify",
    "attestd.spiffe",
    "attestd.tables",
    "attestd.wire",
)
RIM = (
    *GROUND,
    "attestd.config",
    "attestd.counterparts",
    "attestd.limits",
    "attestd.listening",
    "attestd.log_cache",
    "attestd.nonce",
    "attestd.protocol",
)
PARTS = (
    *RIM,
    *EVIDENCE,
    "attestd.adoption",
    "attestd.exposure",
    "attestd.issue",
    "attestd.policy",
    "attestd.store",
    "attestd.trust",
)
VERBS = (
    "attestd.service",
    "attestd.vouch",
    "attestd.round.claim",
    "attestd.grant",
    "attestd.round",
    "attestd.enroll",
    "attestd.attest",
)
"""The service's steps in the order in which they may know each other: each imports only those before it."""
DEVICES_COMMANDS = tuple(sorted(f"attestd.cli.{path.stem}" for path in ROOT.glob("attestd/cli/agent*.py")))
"""The device's verbs, one module each."""

DEVICE = (*GROUND, *EVIDENCE, "attestd.config", "tpm.device", "attestd.agent")
DEVICES_PARTS = tuple(
    f"attestd.agent.{part}" for part in ("workload", "delivery", "running", "program", "doctor")
)

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    # tpm: errors <- structures <- verify <- eventlog, ima; structures <- seal; everything <- device
    "tpm.errors": (),
    "tpm.structures": ("tpm.errors",),
    "tpm.verify": ("tpm.errors", "tpm.structures"),
    "tpm.eventlog": ("tpm.errors", "tpm.structures", "tpm.verify"),
    "tpm.ima": ("tpm.errors", "tpm.structures", "tpm.verify"),
    "tpm.seal": ("tpm.errors", "tpm.structures"),
    "tpm.device": EVIDENCE,
    "tpm.swtpm_ca": ("tpm.errors",),
    "tpm.swtpm": ("tpm.errors", "tpm.swtpm_ca"),
    # attestd: the ground that agent and service share
    "attestd.addresses": (),
    "attestd.clock": (),
    "attestd.notify": (),
    "attestd.spiffe": ("tpm.errors",),
    "attestd.wire": ("tpm.errors",),
    "attestd.tables": ("tpm.errors", "attestd.clock"),
    "attestd.listening": GROUND,
    "attestd.counterparts": GROUND,
    "attestd.denied": GROUND,
    "attestd.config": (*GROUND, "attestd.listening", "attestd.counterparts", "attestd.denied"),
    "attestd.limits": GROUND,
    "attestd.log_cache": (),
    "attestd.nonce": GROUND,
    "attestd.protocol": GROUND,
    # three parts that know nothing of each other
    "attestd.store": (*GROUND, "tpm.verify"),
    "attestd.issue": (*GROUND, *EVIDENCE),
    "attestd.policy": (*GROUND, *EVIDENCE),
    "attestd.trust": (*GROUND, *EVIDENCE),
    "attestd.exposure": (*GROUND, *EVIDENCE, "attestd.config"),
    "attestd.adoption": (*GROUND, *EVIDENCE, "attestd.config", "attestd.issue", "attestd.store"),
    # store, issue, policy <- service <- grant, enroll <- attest <- web <- app <- cli
    **{verb: (*PARTS, *VERBS[:rank]) for rank, verb in enumerate(VERBS)},
    # the authorization server beside attest
    "attestd.oauth": (*PARTS, *VERBS),
    "attestd.web": (*PARTS, *VERBS, "attestd.oauth"),
    "attestd.app": (*PARTS, *VERBS, "attestd.oauth", "attestd.web"),
    "attestd.cli": (
        *PARTS,
        *VERBS,
        "attestd.oauth",
        "attestd.web",
        "attestd.app",
        "tpm.swtpm",
        "tpm.swtpm_ca",
    ),
    # for those who are called: alone, so that it may be copied into any application
    "attestd.resource": (),
    "attestd.resource.flask_guard": ("attestd.resource",),
    # agent beside web: the device's side, without the service's parts
    "attestd.agent": (*GROUND, *EVIDENCE, "attestd.config", "tpm.device"),
    # workload, delivery <- running, program, doctor
    "attestd.agent.workload": DEVICE,
    "attestd.agent.delivery": (*DEVICE, "attestd.agent.workload"),
    **dict.fromkeys(
        ("attestd.agent.running", "attestd.agent.program", "attestd.agent.doctor"),
        (*DEVICE, "attestd.agent.workload", "attestd.agent.delivery"),
    ),
    # each auth object beside the one library that it is for
    "attestd.agent.auth": (*GROUND, "attestd.agent"),
    "attestd.agent.auth.flows": ("attestd.agent.auth",),
    "attestd.agent.auth.requests": ("attestd.agent.auth",),
    "attestd.agent.auth.httpx": ("attestd.agent.auth", "attestd.agent.auth.flows"),
    "attestd.agent.auth.httpx2": ("attestd.agent.auth", "attestd.agent.auth.flows"),
    **dict.fromkeys(
        DEVICES_COMMANDS,
        (*DEVICE, *DEVICES_PARTS, "attestd.cli", *DEVICES_COMMANDS),
    ),
}

FROM_OTHERS: dict[str, set[str]] = {
    "tpm.structures": {"cryptography"},
    "tpm.verify": {"cryptography"},
    "tpm.eventlog": {"cryptography"},
    "tpm.ima": {"cryptography"},
    "tpm.seal": {"cryptography"},
    "tpm.device": {"cryptography", "tpm2_pytss"},
    "tpm.swtpm": {"cryptography"},
    "tpm.swtpm_ca": {"cryptography"},
    "attestd.nonce": {"cryptography"},
    "attestd.protocol": {"pydantic", "pydantic_core"},
    "attestd.store": {"psycopg", "psycopg_pool", "sqlite3", "sqlite_utils"},
    "attestd.issue": {"cryptography", "jwt"},
    "attestd.adoption": {"cryptography"},
    "attestd.trust": {"cryptography"},
    "attestd.service": {"cryptography"},
    "attestd.round": {"cryptography"},
    "attestd.enroll": {"cryptography"},
    "attestd.oauth": {"cryptography", "jwt"},
    "attestd.resource": {"cryptography", "jwt"},
    "attestd.resource.flask_guard": {"flask"},
    "attestd.web": {"cryptography", "flask", "gunicorn", "prometheus_client", "pydantic", "werkzeug"},
    "attestd.app": {"cryptography", "flask", "gunicorn"},
    "attestd.cli": {"click", "cryptography", "gunicorn", "tomlkit"},
    "attestd.agent": {"cryptography"},
    "attestd.agent.delivery": {"cryptography"},
    "attestd.agent.running": {"cryptography"},
    "attestd.agent.program": {"cryptography"},
    "attestd.agent.doctor": {"cryptography"},
    "attestd.agent.workload": {"cryptography", "google", "grpclib", "h2", "hyperframe", "jwt"},
    "attestd.agent.auth.requests": {"requests"},
    "attestd.agent.auth.flows": {"anyio"},
    "attestd.agent.auth.httpx": {"httpx"},
    "attestd.agent.auth.httpx2": {"httpx2"},
    **{verb: {"click"} for verb in DEVICES_COMMANDS},
}
"""Packages that are not ours, by place; `sqlite3` is listed though it is in the standard library."""

WATCHED_STANDARD = {"sqlite3"}


def modules() -> dict[str, str]:
    """Every module of ours with its source."""
    found = {}
    for path in [*ROOT.glob("tpm/**/*.py"), *ROOT.glob("attestd/**/*.py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path.read_text(encoding="utf-8")
    return found


def place_of(module: str) -> str | None:
    """The most specific entry of the map that the module belongs to."""
    fitting = [place for place in MAY_IMPORT if module == place or module.startswith(place + ".")]
    return max(fitting, key=len, default=None)


def imported(source: str) -> Iterator[str]:
    """The dotted names that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or "")
            elif node.module in ("attestd", "tpm"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def violations(module: str, source: str) -> list[str]:
    """What this module imports and may not."""
    place = place_of(module)
    allowed = () if place is None else (place, *MAY_IMPORT[place])
    others = FROM_OTHERS.get(place or "", set())
    bad = []
    for name in imported(source):
        package = name.split(".")[0]
        if package in ("attestd", "tpm"):
            refused = place_of(name) not in allowed
        elif package in sys.stdlib_module_names and package not in WATCHED_STANDARD:
            refused = place is None
        else:
            refused = package not in others
        if refused:
            bad.append(f"{module} imports {name}")
    return bad


def reached(start: str, sources: dict[str, str]) -> set[str]:
    """Every name that is imported when the modules below `start` are, directly or through others of ours."""
    seen: set[str] = set()
    pending = [name for name in sources if name == start or name.startswith(start + ".")]
    while pending:
        module = pending.pop()
        for name in imported(sources.get(module, "")):
            candidates = {name, name.rpartition(".")[0]} if name.startswith(("attestd", "tpm")) else {name}
            fresh = candidates - seen
            seen |= fresh
            pending += [one for one in fresh if one in sources]
    return seen


FOR_ANOTHER_LIBRARY = "os.environ.setdefault('TSS2_LOG', 'all+none')"
"""How the TPM library is kept quiet: it looks nowhere else. Nothing of ours is decided by it."""


def reads_environment(source: str) -> bool:
    """Does this source look at the process's environment?"""
    words = {"environ", "environb", "getenv", "getenvb"}
    plain = ast.unparse(ast.parse(source)).replace(FOR_ANOTHER_LIBRARY, "")
    for node in ast.walk(ast.parse(plain)):
        if isinstance(node, ast.Attribute) and node.attr in words and ast.unparse(node.value) == "os":
            return True
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and words & {one.name for one in node.names}
        ):
            return True
    return False


def test_imports_follow_the_map() -> None:
    assert [bad for module, source in modules().items() for bad in violations(module, source)] == []


def test_every_module_has_its_place_in_the_map() -> None:
    placeless = [module for module in modules() if place_of(module) is None]
    assert sorted(placeless) == ["attestd", "tpm"]


def test_every_place_of_the_map_exists() -> None:
    known = modules()
    assert [place for place in MAY_IMPORT if place not in known] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tpm.structures.attest", "import attestd.wire"),
        ("tpm.structures.attest", "from tpm.verify.quote import verify_quote"),
        ("tpm.verify.quote", "import tpm2_pytss"),
        ("attestd.policy.document", "from attestd.store import devices"),
        ("attestd.issue.wit", "import flask"),
        ("attestd.attest", "import sqlite3"),
        ("attestd.agent.attest", "from attestd.store.engine import Store"),
        ("attestd.agent.attest", "import pydantic"),
        ("attestd.cli.device", "from tpm.device.device import Device"),
        ("attestd.web.routes", "from . import answers"),
        ("attestd.unheard_of", "import json"),
        ("attestd.grant", "from attestd.attest import attest"),
    ],
)
def test_an_import_against_the_map_is_found(module: str, source: str) -> None:
    assert violations(module, source) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tpm.structures.attest", "from tpm.errors import StructureError\nimport struct"),
        ("tpm.verify.quote", "from tpm.structures.attest import Quote"),
        ("attestd.store.engine", "import sqlite3"),
        ("attestd.attest", "from attestd.grant import grant"),
        ("attestd.cli.agent_attest", "from tpm.device.device import Device"),
        ("attestd.web.routes", "import flask"),
    ],
)
def test_an_import_along_the_map_is_accepted(module: str, source: str) -> None:
    assert violations(module, source) == []


@pytest.mark.parametrize(
    ("start", "foreign"),
    [
        ("attestd.agent", {"flask", "pydantic", "gunicorn", "sqlite3", "sqlite_utils", "psycopg"}),
        ("attestd.agent.program", {"tpm2_pytss", "flask", "pydantic"}),
        ("attestd.agent.running", {"flask", "pydantic", "gunicorn", "sqlite3"}),
        ("attestd.agent.auth.session", {"requests", "httpx", "httpx2", "anyio"}),
        ("attestd.agent.auth.requests", {"httpx", "httpx2", "anyio"}),
        ("attestd.agent.auth.httpx", {"requests", "httpx2"}),
        ("attestd.agent.auth.httpx2", {"requests", "httpx"}),
        *((verb, {"tpm2_pytss"}) for verb in ("attestd.cli.agent_exec", "attestd.cli.agent_socket")),
        *((verb, {"requests", "httpx", "httpx2", "anyio"}) for verb in DEVICES_COMMANDS),
        *(
            (verb, {"flask", "pydantic", "gunicorn", "sqlite3", "sqlite_utils", "psycopg"})
            for verb in DEVICES_COMMANDS
        ),
        ("attestd.cli.main", {"flask", "pydantic", "gunicorn", "sqlite3", "sqlite_utils", "cryptography"}),
        ("attestd.app", {"tpm2_pytss"}),
        ("attestd.resource", {"tpm", "tpm2_pytss", "gunicorn", "pydantic", "sqlite3", "starlette", "mcp"}),
        ("attestd.resource.guard", {"flask", "werkzeug"}),
        ("attestd.resource.asgi", {"flask", "werkzeug"}),
        ("tpm.verify", {"tpm2_pytss", "flask", "jwt", "pydantic"}),
        ("tpm.seal", {"tpm2_pytss", "flask", "jwt", "pydantic"}),
    ],
)
def test_what_a_part_must_not_need_is_not_reached_from_it(start: str, foreign: set[str]) -> None:
    names = {name.split(".")[0] for name in reached(start, modules())}
    assert names & foreign == set()


def test_what_is_reached_through_others_is_found() -> None:
    sources = {"tpm.a": "from tpm import b", "tpm.b": "import tpm.c", "tpm.c": "import flask.views"}
    assert "flask.views" in reached("tpm.a", sources)


def test_only_the_configuration_reads_the_environment() -> None:
    readers = [module for module, source in modules().items() if reads_environment(source)]
    assert readers == ["attestd.config"]


def test_reading_the_environment_is_found() -> None:
    assert reads_environment("import os\nx = os.environ['HOME']")
    assert reads_environment("from os import getenv")
    assert reads_environment("import os\nx = 1 if os.environ.get('HOME') else os.getcwd()")
    assert not reads_environment("import os\nx = os.getcwd()")
    assert not reads_environment("import os\nos.environ.setdefault('TSS2_LOG', 'all+none')")
