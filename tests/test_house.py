"""Does the code keep the house's rules: short functions and modules, few parameters, nothing left open?"""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FUNCTION_LINES = 40
MODULE_LINES = 300
PARAMETERS = 6
VAGUE_NAMES = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}

# Written in halves, so that this file does not contain them.
LEFT_OPEN = (
    r"\bTO" + r"DO\b",
    r"\bFIX" + r"ME\b",
    r"\bXX" + r"X\b",
    "NotImplemented" + "Error",
    "pragma: no " + "cover",
    r"pytest\.sk" + r"ip|pytest\.mark\.sk" + "ip|importor" + "skip",
    r"\bxf" + r"ail\b",
    r"mock\.pa" + "tch",
)
NOT_OURS_TO_NAME = (
    r"py" + r"pi\.org",
    "python" + "hosted",
    r"deb\.deb" + r"ian\.org",
    r"npm" + r"js\.",
    r"\.\./sha" + r"red\b",
    "/wo" + "rk/(main|shared)",
)

SOURCES = sorted([*ROOT.glob("tpm/**/*.py"), *ROOT.glob("attestd/**/*.py")])
TESTS = sorted([*ROOT.glob("tests/**/*.py"), *ROOT.glob("scripts/**/*.py")])


def long_functions(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            if size > FUNCTION_LINES:
                yield f"{node.name} has {size} lines"


def wide_functions(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len([one for one in given if one.arg not in ("self", "cls")])
            if count > PARAMETERS:
                yield f"{node.name} has {count} parameters"


def faults_of_house(source: str) -> list[str]:
    """The caps that a module breaks, and a first line that does not say what the module is for."""
    faults = [*long_functions(source), *wide_functions(source)]
    if (lines := source.count("\n")) > MODULE_LINES:
        faults.append(f"the module has {lines} lines")
    if not ast.get_docstring(ast.parse(source)):
        faults.append("the module does not begin with the question that it answers")
    return faults


def found_words(text: str, patterns: tuple[str, ...]) -> list[str]:
    return [match.group() for pattern in patterns for match in re.finditer(pattern, text)]


def tracked() -> Iterator[Path]:
    """Every text file that git knows or would add; data under tests/vectors is other people's."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in listed.splitlines():
        path = ROOT / name
        if not name.startswith("tests/vectors/") and path.is_file() and b"\0" not in path.read_bytes()[:4096]:
            yield path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_short_and_says_what_it_answers(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    if path.name == "__init__.py":
        body = ast.parse(source).body
        assert len(body) == 1, "an __init__ holds its docstring only"
    assert faults_of_house(source) == []


def test_tests_keep_the_caps_on_functions() -> None:
    faults = {}
    for path in TESTS:
        source = path.read_text(encoding="utf-8")
        if found := [*long_functions(source), *wide_functions(source)]:
            faults[str(path.relative_to(ROOT))] = found
    assert faults == {}


def test_no_module_or_folder_has_a_vague_name() -> None:
    named = {part for path in SOURCES for part in path.relative_to(ROOT).with_suffix("").parts}
    assert named & VAGUE_NAMES == set()


def test_nothing_is_left_open_and_no_registry_or_machine_is_named() -> None:
    faults = {}
    for path in tracked():
        text = path.read_text(encoding="utf-8", errors="replace")
        if words := found_words(text, LEFT_OPEN + NOT_OURS_TO_NAME):
            faults[str(path.relative_to(ROOT))] = words
    assert faults == {}


def test_the_caps_are_found_when_broken() -> None:
    long = '"""Why?"""\n\n\ndef f():\n' + "    x = 1\n" * FUNCTION_LINES
    wide = '"""Why?"""\n\n\ndef f(a, b, c, *, d, e, f, g): ...\n'
    assert faults_of_house(long) == ["f has 41 lines"]
    assert faults_of_house(wide) == ["f has 7 parameters"]
    assert faults_of_house('"""Why?"""\n' + "\n" * MODULE_LINES) == ["the module has 301 lines"]
    assert faults_of_house("x = 1\n") == ["the module does not begin with the question that it answers"]


def test_code_within_the_caps_has_no_faults() -> None:
    good = '"""Why?"""\n\n\ndef f(self, a, b, c, d, e, f):\n' + "    x = 1\n" * (FUNCTION_LINES - 1)
    assert faults_of_house(good) == []


def test_open_ends_and_hosts_are_found() -> None:
    text = "# TO" + "DO later\nsee py" + "pi.org and ../sha" + "red/x"
    assert len(found_words(text, LEFT_OPEN + NOT_OURS_TO_NAME)) == 3
