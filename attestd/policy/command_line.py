"""Was the kernel started with words that the policy accepts?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from attestd.policy.boot import BootRules
from attestd.policy.findings import Finding
from attestd.policy.proven_boot import ProvenBoot
from tpm.eventlog.facts.command_line import CommandLine
from tpm.eventlog.words import shown

_BLANKS = " \t\n\v\f\r"
_WIDER_BLANKS = _BLANKS + "\xa0"
"""Linux takes a byte 0xA0 for a blank, and so splits words within some characters of UTF-8."""
_PERHAPS_BLANK = re.compile(r'[\0-\x20"\x7f-\U0010ffff]+')

_READ = 2048 - len("BOOT_IMAGE=") - 1
"""Bytes of a line that every kernel reads; what is behind is cut off, on x86 and ARM."""


def judge_command_lines(rules: BootRules, boot: ProvenBoot) -> Iterator[Finding]:
    """Every line that a kernel may have been started with is judged; one that was only hashed must be known
    by its digest.
    """
    lines = boot.facts.command_lines
    if not lines:
        yield Finding("fact_unproven", "command_line", ("a kernel command line in the log",))
    for line in lines:
        if rules.command_lines and not any(line.is_exactly(known) for known in rules.command_lines):
            yield _finding("command_line_unexpected", line, boot, rules.command_lines, _text(line))
        if rules.required_words or rules.forbidden_words:
            yield from _judge_words(rules, line, boot)


def split_words(text: str, blanks: str = _BLANKS) -> tuple[str, ...]:
    """The words as the kernel splits them: at blanks outside of double quotes, up to "--", behind which
    stands what is init's. Quotes around a word or a value are left out, others are part of it.
    """
    found: list[str] = []
    word, quoted = "", False
    for character in text:
        if character in blanks and not quoted:
            if word:
                found.append(_unquoted(word))
            word = ""
        else:
            quoted ^= character == '"'
            word += character
    if word:
        found.append(_unquoted(word))
    return tuple(found[: found.index("--")] if "--" in found else found)


def _unquoted(word: str) -> str:
    """As the kernel's `next_arg` leaves it: of quotes at its end it takes one."""
    body = word.removeprefix('"')
    place = body.find("=", 1)
    opened = place > 0 and body.startswith('"', place + 1)
    if opened or body != word:
        body = body.removesuffix('"')
    return body[: place + 1] + body[place + 2 :] if opened else body


def has_word(words: Iterable[str], wanted: str) -> bool:
    """Is it among them? Without "=" the name alone counts. "-" and "_" are alike in names."""
    if "=" not in wanted:
        return any(_name(word) == _name(wanted) for word in words)
    return any(_alike(word, wanted) for word in words)


def is_effective(text: str, wanted: str, required: Sequence[str]) -> bool:
    """Is the word read by every kernel, and does no later one of its name override it?

    A later one does unless it is required as well, as for a name that may be given several times.
    """
    line, word, others = _as_bytes(text), _as_bytes(wanted), [_as_bytes(one) for one in required]
    return all(_holds(line, word, others, blanks) for blanks in (_BLANKS, _WIDER_BLANKS))


def _holds(line: str, wanted: str, required: Sequence[str], blanks: str) -> bool:
    sure, words = split_words(_read_part(line), blanks), split_words(line.replace("\0", " "), blanks)
    if "=" not in wanted:
        return has_word(sure, wanted)
    places = [at for at, word in enumerate(sure) if _alike(word, wanted)]
    if not places:
        return False
    # The word itself is among them: within quotes it may go on where not every kernel reads.
    later = [word for word in words[places[-1] :] if _name(word) == _name(wanted)]
    return all(any(_alike(word, one) for one in required) for word in later)


def _judge_words(rules: BootRules, line: CommandLine, boot: ProvenBoot) -> Iterator[Finding]:
    text = _known_text(line, boot)
    if text is None:
        wanted = ("a command line whose words are in the log, or command_line in [boot]",)
        yield _finding("fact_unproven", line, boot, wanted, line.digest.hex())
        return
    for word in rules.required_words:
        if not is_effective(text, word, rules.required_words):
            yield _finding("command_line_unexpected", line, boot, (word,), shown(text))
    # What stands inside of quotes, behind "--" or beside a strange character is objected to as well.
    everywhere = (*split_words(text), *_PERHAPS_BLANK.split(text))
    for word in rules.forbidden_words:
        if has_word(everywhere, word):
            yield _finding("command_line_forbidden", line, boot, (f"no {word}",), shown(text))


def _as_bytes(text: str) -> str:
    """A character for each byte that the kernel gets."""
    return text.encode("utf-8", "replace").decode("latin-1")


def _read_part(line: str) -> str:
    """The whole words that every kernel reads: its EFI stub stops at a line feed."""
    read = re.split("[\0\n]", line, maxsplit=1)[0]
    return read if len(read) <= _READ else read[:_READ].rpartition(" ")[0]


def _known_text(line: CommandLine, boot: ProvenBoot) -> str | None:
    """Its text, or that of another line of the log of which it is a copy: GRUB measures what it then gives to
    the kernel's stub, without the kernel's path or with BOOT_IMAGE= before it.
    """
    if line.text is not None:
        return line.text
    for other in boot.facts.command_lines:
        if other.text is not None:
            path, _, rest = other.text.partition(" ")
            for copy in (other.text, rest, f"BOOT_IMAGE={other.text}", f"BOOT_IMAGE={path} {rest}"):
                if line.is_exactly(copy):
                    return copy
    return None


def _name(word: str) -> str:
    return word.partition("=")[0].replace("-", "_")


def _alike(word: str, other: str) -> bool:
    return _name(word) == _name(other) and word.partition("=")[1:] == other.partition("=")[1:]


def _text(line: CommandLine) -> str:
    return line.digest.hex() if line.text is None else shown(line.text)


def _finding(
    code: str, line: CommandLine, boot: ProvenBoot, expected: tuple[str, ...], found: str
) -> Finding:
    register = boot.events[line.event].register
    return Finding(code, f"pcr{register}", expected, found, line.event, boot.words(line.event))
