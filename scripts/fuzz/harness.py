"""Does a parser answer any bytes with a value or with an error of ours, soon and in little memory?

Mutations are drawn from a seed, so that a failure is found again by its seed and round. What failed once is
kept under tests/vectors/fuzz and tried first for ever.
"""

import random
import resource
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tpm.errors import EvidenceError, StructureError

KEPT = Path(__file__).parents[2] / "tests" / "vectors" / "fuzz"

SECONDS_LIMIT = 1.0
MEMORY_LIMIT = 64 * 1024 * 1024

_NUMBERS = (0, 1, 2, 3, 4, 7, 24, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000001, 0xFFFFFFFE, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Target:
    """A parser and what it is fed. `parse` raises StructureError or EvidenceError, or returns; anything
    else is a fault. It also checks what must be true of whatever it accepts, with AssertionError.
    """

    name: str
    parse: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """An input that was not answered as it should be."""

    target: str
    raw: bytes
    what: str


def run(target: Target, *, rounds: int, seed: int) -> Iterator[Fault]:
    """The kept corpus, the seeds, and `rounds` mutations of them; every fault that they show."""
    before = _peak()
    corpus = [path.read_bytes() for path in sorted((KEPT / target.name).glob("*.bin"))]
    pool = [*corpus, *target.seeds]
    chance = random.Random(seed)
    for number in range(len(pool) + rounds):
        # What is kept is mostly refused at once; what is accepted has more that can be broken.
        near = pool if chance.random() < 0.1 else list(target.seeds)
        raw = pool[number] if number < len(pool) else mutated(chance, near)
        what = _tried(target, raw)
        if what is None and _peak() - before > MEMORY_LIMIT:
            what = f"took more than {MEMORY_LIMIT // 1024 // 1024} MiB"
            before = _peak()
        if what is not None:
            yield Fault(target.name, raw, what)


def keep(fault: Fault) -> Path:
    """Puts the input into the corpus under a name of its content."""
    import hashlib

    folder = KEPT / fault.target
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(fault.raw).hexdigest()[:16]}.bin"
    path.write_bytes(fault.raw)
    return path


def _tried(target: Target, raw: bytes) -> str | None:
    begin = time.perf_counter()
    try:
        target.parse(raw)
    except (StructureError, EvidenceError):
        pass
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    taken = time.perf_counter() - begin
    return f"took {taken:.1f} s" if taken > SECONDS_LIMIT else None


def _peak() -> int:
    """The most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def mutated(chance: random.Random, pool: list[bytes]) -> bytes:
    """One of the pool with one to four changes."""
    raw = bytearray(chance.choice(pool))
    for _ in range(chance.randint(1, 4)):
        _change(chance, raw, pool)
    return bytes(raw)


def _change(chance: random.Random, raw: bytearray, pool: list[bytes]) -> None:
    place = chance.randrange(len(raw) + 1)
    width = chance.choice((1, 2, 4, 8, 16, 64))
    match chance.randrange(8):
        case 0 if raw:
            raw[place % len(raw)] ^= 1 << chance.randrange(8)
        case 1:
            order = chance.choice("<>")
            size, code = chance.choice(((1, "B"), (2, "H"), (4, "I")))
            number = chance.choice(_NUMBERS) & ((1 << 8 * size) - 1)
            raw[place : place + size] = struct.pack(order + code, number)
        case 2:
            raw[place : place + width] = chance.randbytes(width)
        case 3:
            del raw[place : place + width]
        case 4:
            raw[place:place] = chance.randbytes(width)
        case 5:
            raw[place:place] = raw[max(0, place - width) : place]
        case 6:
            del raw[place:]
        case _:
            other = chance.choice(pool)
            start = chance.randrange(len(other) + 1)
            raw[place:place] = other[start : start + 4 * width]
