"""No answer of a server can become a command: the source of the agent, and of all of ours that it reaches,
has nothing that would run one, but for two modules that run what this machine's operator wrote, and one that
runs a program of the system's without arguments."""

import ast
from collections.abc import Iterator
from functools import cache

import pytest

from tests.test_imports import imported, modules, reached

RUNNING_MODULES = {
    "code", "codeop", "concurrent.futures.process", "ctypes", "dill", "imp", "importlib", "marshal",
    "multiprocessing", "pickle", "pkgutil", "pty", "runpy", "shelve", "subprocess", "xmlrpc",
}  # fmt: skip
RUNNING_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint"}
RUNNING_OF_OS = ("system", "popen", "exec", "spawn", "posix_spawn", "fork", "startfile")

RUNS = {
    "attestd.agent.program.child": {"ctypes", "subprocess"},
    "attestd.agent.delivery.on_renewal": {"ctypes", "subprocess"},
}
"""What runs programs: the one that `attestd agent exec` was given, and the one that the settings name. Each
has the C library take the agent's capabilities from it first."""
RUNS_ONE = {"attestd.agent.workload.passed": {"subprocess"}}
"""What starts a process only so that it ends."""
ASKS = {
    "attestd.agent.program.child": {"attestd.agent.program.exec"},
    "attestd.agent.delivery.on_renewal": {"attestd.agent.delivery.files"},
}
"""Who has them run it."""
NAMED_BY_US = {"attestd.agent.running.run", "attestd.agent.state", "attestd.agent.program.supply"}
"""Where an attribute is looked up by a name that is not written there: names of our own fields."""


def runs(source: str) -> Iterator[str]:
    """What in this source could run a program or code."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in RUNNING_CALLS:
                yield name
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name.startswith(RUNNING_OF_OS):
                yield f"os.{name}"
            case ast.ImportFrom(module="os", names=names):
                yield from (f"os.{one.name}" for one in names if one.name.startswith(RUNNING_OF_OS))
            case ast.keyword(arg="shell"):
                yield "shell"
            case ast.Attribute(attr=name) if name.startswith("create_subprocess"):
                yield name
    for name in imported(source):
        if any(name == each or name.startswith(each + ".") for each in RUNNING_MODULES):
            yield name


def looks_up(source: str) -> Iterator[str]:
    """Attributes that are looked up or set by a name which is not written there."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id="getattr" | "setattr" | "delattr"), args=[_, named, *_]):
                if not isinstance(named, ast.Constant):
                    yield ast.unparse(node)
            case ast.Call(func=ast.Name(id="globals" | "vars" | "locals")):
                yield ast.unparse(node)


@cache
def ours() -> dict[str, str]:
    """The agent's modules, and all of ours that they reach."""
    sources = modules()
    found = reached("attestd.agent", sources)
    return {
        name: source
        for name, source in sources.items()
        if name in found or name == "attestd.agent" or name.startswith("attestd.agent.")
    }


def test_ag_4_nothing_that_the_agent_reaches_runs_programs_but_what_its_operator_named() -> None:
    found = {name: set(runs(source)) for name, source in ours().items()}
    assert {name: what for name, what in found.items() if what} == RUNS | RUNS_ONE


def test_ag_4_what_is_started_only_to_end_is_named_in_the_source_and_has_no_arguments() -> None:
    for name in RUNS_ONE:
        tree = ast.parse(ours()[name])
        named = {
            ast.unparse(node.targets[0]): node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        }
        calls = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and "subprocess." in ast.unparse(node.func)
        ]
        assert [ast.unparse(call.args[0]) for call in calls] == ["[_ENDING]"]
        assert named["_ENDING"] == "/bin/cat"


def test_ag_4_what_runs_programs_is_asked_by_one_module_and_knows_no_server() -> None:
    for module, known in ASKS.items():
        importers = {name for name, source in ours().items() if name != module and module in within(source)}
        assert importers == known
        reach = reached(module, ours())
        assert not reach & {"attestd.agent.transport", "attestd.agent.attest", "http.client", "socket"}


def within(source: str) -> set[str]:
    """The modules that are imported, whichever way it is written."""
    return {candidate for name in imported(source) for candidate in (name, name.rpartition(".")[0])}


def test_ag_4_no_attribute_is_looked_up_by_a_name_that_somebody_sends() -> None:
    found = {name for name, source in ours().items() if list(looks_up(source))}
    assert {name for name in found if name.startswith("attestd.agent")} == NAMED_BY_US


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess",
        "from subprocess import run",
        "import os\nos.system('x')",
        "import os\nos.execvp('x', ['x'])",
        "import os\nos.posix_spawn('x', [], {})",
        "from os import popen",
        "eval('1')",
        "exec('1')",
        "__import__('os')",
        "import importlib.util",
        "from importlib import import_module",
        "import pickle",
        "import marshal",
        "import asyncio\nasyncio.create_subprocess_exec('x')",
        "f(shell=True)",
    ],
)
def test_what_could_run_something_is_found(source: str) -> None:
    assert list(runs(source))


@pytest.mark.parametrize(
    "source", ["import os\nos.open('x', 0)", "def execute(): ...\nexecute()", "re.compile('x')"]
)
def test_what_could_not_is_not(source: str) -> None:
    assert list(runs(source)) == []


def test_a_lookup_by_another_name_is_found() -> None:
    assert list(looks_up("getattr(x, name)(1)"))
    assert list(looks_up("globals()[name]()"))
    assert list(looks_up("getattr(x, 'name')")) == []
