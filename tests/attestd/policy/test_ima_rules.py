"""[ima] means what its author wrote, or is refused at its key."""

import re
from typing import Any

import pytest

from attestd.policy.ima_judge import is_excluded
from attestd.policy.ima_rules import ImaRules, load_ima, named_files
from tests.tpm.ima.test_file_signature import KEYS, pem
from tpm.errors import PolicyError

DIGEST = "sha256:" + "ab" * 32
FILES = {
    "a.digests": f"{DIGEST}  /usr/bin/demo\n".encode(),
    "b.digests": f"{DIGEST}  /usr/bin/other\n".encode(),
    "ima.pem": pem(KEYS["rsa"]),
}
HEALTHY: dict[str, Any] = {
    "required": True,
    "allow": ["a.digests", "b.digests"],
    "keys": ["ima.pem"],
    "exclude": ["/var/tmp", "/opt/my app/"],
    "keyrings": {".ima": [DIGEST]},
    "match": "path",
    "violations": "accept",
    "sha1_padded": "accept",
}


def load(**changes: Any) -> ImaRules:
    table = {key: value for key, value in {**HEALTHY, **changes}.items() if value is not None}
    return load_ima(table, FILES)


def test_a_healthy_table_loads() -> None:
    rules = load()
    assert rules.files == ("a.digests", "b.digests", "ima.pem") == named_files(HEALTHY)
    assert rules.allowed.digests == {DIGEST}
    assert len(rules.keys.by_id) == 1
    assert rules.exclude == (b"/var/tmp", b"/opt/my_app")
    assert rules.keyrings == {b".ima": {DIGEST}}
    assert (rules.required, rules.match, rules.violations, rules.sha1_padded) == (
        True,
        "path",
        "accept",
        "accept",
    )


def test_what_is_left_out_is_strict() -> None:
    rules = load_ima({"required": False, "allow": ["a.digests"]}, FILES)
    assert (rules.required, rules.match, rules.violations, rules.sha1_padded) == (
        False,
        "digest",
        "reject",
        "reject",
    )
    assert (rules.exclude, rules.keyrings, dict(rules.keys.by_id)) == ((), {}, {})
    assert load_ima({"required": True, "keys": ["ima.pem"]}, FILES).allowed.digests == frozenset()


BAD = {
    "no required": ({"required": None}, "ima.required"),
    "required as text": ({"required": "yes"}, "ima.required"),
    "nothing allowed": ({"allow": None, "keys": None}, "ima: it allows no file"),
    "an empty list": ({"allow": []}, "ima.allow"),
    "a file that is not there": ({"allow": ["c.digests"]}, r"ima.allow\[0\]: c.digests"),
    "a file twice": ({"allow": ["a.digests", "a.digests"]}, r"ima.allow\[1\]"),
    "a file elsewhere": ({"allow": ["../a.digests"]}, r"ima.allow\[0\]"),
    "a list as a key": ({"keys": ["a.digests"]}, "a.digests: There is no PEM"),
    "a key as a list": ({"allow": ["ima.pem"]}, "ima.pem, line 1"),
    "an unknown key": ({"excludes": ["/x"]}, "ima.excludes.*did you mean exclude"),
    "another violations": ({"violations": "ignore"}, "ima.violations"),
    "another match": ({"match": "name"}, "ima.match"),
    "an empty keyring": ({"keyrings": {".ima": []}}, "ima.keyrings..ima"),
    "no keyrings": ({"keyrings": {}}, "ima.keyrings"),
    "a weak keyring": ({"keyrings": {".ima": ["sha1:" + "ab" * 20]}}, r"ima.keyrings..ima\[0\]"),
    "a short keyring": ({"keyrings": {".ima": ["sha256:abcd"]}}, r"ima.keyrings..ima\[0\]"),
}


@pytest.mark.parametrize(("changes", "told"), BAD.values(), ids=BAD.keys())
def test_a_table_that_cannot_be_meant_is_refused_at_its_key(changes: dict[str, Any], told: str) -> None:
    load()
    with pytest.raises(PolicyError) as caught:
        load(**changes)
    assert re.match(told, caught.value.detail), caught.value.detail


PATTERNS = [".*", "^/tmp", "/tmp$", "/.*", "/tmp/.*", "/tmp/*", "/tmp/?", "(a+)+$", "/a|/b", "/[a-z]", ".+"]
NO_PREFIXES = ["", "/", "//", "/tmp/../", "/./tmp", "tmp", "/tmp//x", "/..", "\\", "/a\nb"]


@pytest.mark.parametrize("pattern", PATTERNS + NO_PREFIXES)
def test_im_7_an_exclusion_is_the_beginning_of_a_path_and_no_pattern(pattern: str) -> None:
    assert load(exclude=["/tmp"]).exclude == (b"/tmp",)
    with pytest.raises(PolicyError, match=r"ima.exclude\[0\]"):
        load(exclude=[pattern])


@pytest.mark.parametrize(
    ("path", "excluded"),
    [
        (b"/tmp", True),
        (b"/tmp/", True),
        (b"/tmp/a/b", True),
        (b"/tmp/a\nb", True),
        (b"/tmpevil", False),
        (b"/tmp.d/x", False),
        (b"/usr/tmp/x", False),
        (b"tmp/x", False),
        (b"/tmp/../bin/evil", False),
        (b"/tmp/..", False),
        (b"/tmp/..x", True),
        (b"", False),
    ],
)
def test_an_exclusion_is_a_whole_name_and_what_is_below_it(path: bytes, excluded: bool) -> None:
    assert is_excluded(load(exclude=["/srv", "/tmp"]).exclude, path) is excluded
