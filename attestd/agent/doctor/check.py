"""What was looked at, how is it, and what helps?

A reading that cannot be made is a value like any other, so that one fault does not hide what else is to be
seen.
"""

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from attestd.agent.trouble import trouble_of

T = TypeVar("T")

Verdict = Literal["ok", "warn", "fail"]
"""`warn`: it works, and somebody should know; or it matters only to some policies."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line. `fix` is what to do about it, empty where nothing is to be done."""

    name: str
    verdict: Verdict
    found: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Unread:
    """What could not be read: a word for judgments, a sentence for people. Of the system's refusals the word
    is errno's name ("EACCES")."""

    code: str
    why: str


def made(reading: Callable[[], T]) -> T | Unread:
    """The reading, or why there is none."""
    try:
        return reading()
    except OSError as error:
        word = errno.errorcode.get(error.errno or 0, "EIO")
        return Unread(word, f"{error.filename or ''}: {error.strerror or error}".removeprefix(": "))
    except Exception as error:  # Whatever breaks off here, the other readings are made.
        trouble = trouble_of(error)
        return Unread(trouble.code, trouble.detail)


def judged(name: str, judgment: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """The judgment's checks; one that breaks off is told as what it is, and the next are made."""
    try:
        yield from judgment()
    except Exception as error:
        said = f"cannot be judged: {type(error).__name__}: {error}"
        yield Check(name, "fail", said, "report this with the output of --json")
