"""Do the parsers stand a short run of `make fuzz`, and would it find what it looks for?"""

import time
from contextlib import suppress

import pytest

from scripts.fuzz.__main__ import PARTS
from scripts.fuzz.harness import KEPT, Target, run
from tpm.errors import StructureError

TARGETS = [target for part in PARTS for target in part.targets()]
ROUNDS = 1500


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_hostile_bytes_are_answered_soon_and_with_errors_of_ours(target: Target) -> None:
    assert list(run(target, rounds=ROUNDS, seed=7)) == []


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_seed_is_accepted(target: Target) -> None:
    """Else the mutations would only show that what is wrong anyway is refused."""
    accepted = []
    for seed in target.seeds:
        with suppress(StructureError):
            target.parse(seed)
            accepted.append(seed)
    assert accepted != []


def test_every_kept_input_belongs_to_a_parser() -> None:
    names = {target.name for target in TARGETS}
    assert {path.name for path in KEPT.iterdir() if path.is_dir()} <= names


def _foreign(raw: bytes) -> None:
    if len(raw) > 3:
        raise ValueError("a foreign exception")


def _slow(raw: bytes) -> None:
    time.sleep(1.1)


def _refusing(raw: bytes) -> None:
    raise StructureError("truncated")


@pytest.mark.parametrize(("parse", "faults"), [(_foreign, True), (_slow, True), (_refusing, False)])
def test_a_parser_that_fails_is_found(parse: object, faults: bool) -> None:
    target = Target("none", parse, (b"seed",))  # type: ignore[arg-type]
    assert bool(list(run(target, rounds=0, seed=1))) is faults


def test_the_same_seed_draws_the_same_inputs() -> None:
    def drawn(seed: int) -> list[bytes]:
        seen: list[bytes] = []
        list(run(Target("none", seen.append, (b"something to change",)), rounds=50, seed=seed))
        return seen

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
