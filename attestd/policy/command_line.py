"""Was the kernel started with words that the policy accepts?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attestd.policy.boot import BootRules
from attestd.policy.findings import Finding
from attestd.policy.proven_boot import ProvenBoot
from tpm.eventlog.facts.command_line import CommandLine
from tpm.eventlog.words import shown

_BLANKS = " \t\n\v\f\r"
_PERHAPS_BLANK = re.compile(r'[\0-\x20"\x7f-\U0010ffff]+')
"""Linux takes a byte 0xA0 for a blank, and so splits words within some characters of UTF-8."""

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


def split_words(text: str) -> tuple[str, ...]:
    """The words as the kernel splits them: at blanks outside of double quotes, the quotes left out,
    up to "--", behind which stands what is init's.
    """
    found: list[str] = []
    word, quoted, begun = "", False, False
    for character in text + " ":
        if character == '"':
            quoted, begun = not quoted, True
        elif character in _BLANKS and not quoted:
            if begun:
                found.append(word)
            word, begun = "", False
        else:
            word, begun = word + character, True
    if quoted:
        found.append(word.rstrip())
    return tuple(found[: found.index("--")] if "--" in found else found)


def has_word(words: tuple[str, ...], wanted: str) -> bool:
    """Is it among them? Without "=" the name alone counts. "-" and "_" are alike in names."""
    name, equals, _ = wanted.partition("=")
    if not equals:
        return any(_name(word) == _name(name) for word in words)
    return any(
        _name(word) == _name(name) and word.partition("=")[1:] == wanted.partition("=")[1:] for word in words
    )


def _judge_words(rules: BootRules, line: CommandLine, boot: ProvenBoot) -> Iterator[Finding]:
    text = _known_text(line, boot)
    if text is None:
        wanted = ("a command line whose words are in the log, or command_line in [boot]",)
        yield _finding("fact_unproven", line, boot, wanted, line.digest.hex())
        return
    words = split_words(_read_part(text))
    for word in rules.required_words:
        if not has_word(words, word):
            yield _finding("command_line_unexpected", line, boot, (word,), shown(text))
    # What stands inside of quotes, behind "--" or beside a strange character is objected to as well.
    everywhere = (*split_words(text), *_PERHAPS_BLANK.split(text))
    for word in rules.forbidden_words:
        if has_word(everywhere, word):
            yield _finding("command_line_forbidden", line, boot, (f"no {word}",), shown(text))


def _read_part(text: str) -> str:
    """The whole words that the kernel reads for certain."""
    raw = text.partition("\0")[0].encode("utf-8", "replace")
    if len(raw) > _READ:
        raw = raw[:_READ].rpartition(b" ")[0]
    return raw.decode("utf-8", "replace")


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


def _text(line: CommandLine) -> str:
    return line.digest.hex() if line.text is None else shown(line.text)


def _finding(
    code: str, line: CommandLine, boot: ProvenBoot, expected: tuple[str, ...], found: str
) -> Finding:
    register = boot.events[line.event].register
    return Finding(code, f"pcr{register}", expected, found, line.event, boot.words(line.event))
