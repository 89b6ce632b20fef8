"""What does [boot] demand of the facts in a machine's event log?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from attestd.policy.fields import Fields, matching, refusal, typed
from attestd.policy.registers import read_digest
from tpm.errors import PolicyError

REQUIRED, UNAVAILABLE = "required", "unavailable"

_KNOWN = (
    "event_log",
    "secure_boot",
    "authorities",
    "dbx_revision",
    "dbx_includes",
    "command_line",
    "command_line_requires",
    "command_line_forbids",
    "phases",
    "known_events",
)
_ALWAYS = (0, 4, 7)
_REVISION = re.compile(r"(0|[1-9][0-9]{0,4})\.(0|[1-9][0-9]{0,4})")
_WORD = re.compile(r"[^\s\"]+")
_PHASES = re.compile(r"[a-z0-9-]+(:[a-z0-9-]+)*")


@dataclass(frozen=True, slots=True)
class BootRules:
    """[boot] as it was loaded; what is empty or None is not demanded.

    `event_log` is "required", or "unavailable" for machines that have none, of which nothing is demanded
    then. `secure_boot` also refuses shim's MokSBState = 1, debug mode and events of PCR 7 that nobody
    understands. `authorities` are SHA-256 digests of the certificates (DER) that may let an image run, or
    hashes of a database that may; they need Secure Boot on. `dbx_revision` is the lowest that is good,
    `dbx_includes` are SHA-256 image hashes that must be revoked. `command_lines` are whole lines, any one of
    which is good; words are judged as the kernel splits them, a required one only where no later one
    overrides it. `phases` are paths as systemd writes them, "enter-initrd:leave-initrd".
    `known_events` are digests, in the policy's bank, of events that hide nothing although they are no fact.
    """

    event_log: str
    secure_boot: bool
    authorities: frozenset[bytes]
    dbx_revision: tuple[int, int] | None
    dbx_includes: frozenset[bytes]
    command_lines: tuple[str, ...]
    required_words: tuple[str, ...]
    forbidden_words: tuple[str, ...]
    phases: tuple[str, ...]
    known_events: frozenset[bytes]

    @property
    def judges_command_line(self) -> bool:
        return bool(self.command_lines or self.required_words or self.forbidden_words)

    @property
    def demands(self) -> bool:
        """Does it demand more than that there be a log?"""
        facts = self.secure_boot, self.authorities, self.dbx_revision, self.dbx_includes, self.phases
        return any(facts) or self.judges_command_line

    def needed(self) -> frozenset[int]:
        """The registers to which the log must replay for these facts to count."""
        if self.event_log == UNAVAILABLE:
            return frozenset()
        lines = (8, 9, 11, 12) if self.judges_command_line else ()
        return frozenset((*_ALWAYS, *lines, *((11,) if self.phases else ())))


def load_boot(document: Fields, *, bank: str) -> BootRules | None:
    """The table [boot], or None. PolicyError names the key, what was expected and found."""
    if not document.has("boot"):
        return None
    fields = Fields(document.value("boot"), "boot", known=_KNOWN)
    rules = BootRules(
        event_log=fields.choice("event_log", (REQUIRED, UNAVAILABLE)),
        secure_boot=_load_secure_boot(fields),
        authorities=_digests(fields, "authorities", "sha256"),
        dbx_revision=_load_revision(fields),
        dbx_includes=_digests(fields, "dbx_includes", "sha256"),
        command_lines=fields.texts("command_line") if fields.has("command_line") else (),
        required_words=_words(fields, "command_line_requires"),
        forbidden_words=_words(fields, "command_line_forbids"),
        phases=_load_phases(fields),
        known_events=_digests(fields, "known_events", bank),
    )
    if rules.event_log == UNAVAILABLE and (rules.demands or rules.known_events):
        raise PolicyError(
            "log_unavailable",
            'boot.event_log: expected "required" beside demands on facts, found "unavailable"; '
            "facts come from the log: require it, or leave event_log alone in [boot]",
        )
    return rules


def _load_secure_boot(fields: Fields) -> bool:
    if not fields.has("secure_boot"):
        return False
    if not typed(fields.value("secure_boot"), bool, "boot.secure_boot"):
        raise refusal(
            "value_wrong",
            "boot.secure_boot",
            expected="true",
            found=False,
            step="leave it out where Secure Boot does not matter",
        )
    return True


def _digests(fields: Fields, key: str, bank: str) -> frozenset[bytes]:
    if not fields.has(key):
        return frozenset()
    return frozenset(read_digest(value, at, bank=bank) for at, value in fields.items(key))


def _load_revision(fields: Fields) -> tuple[int, int] | None:
    if not fields.has("dbx_revision"):
        return None
    text = matching(fields.text("dbx_revision"), _REVISION, "boot.dbx_revision")
    return revision(text)


def revision(text: str) -> tuple[int, int]:
    """A revision of dbx such as "7.0", to compare."""
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def _words(fields: Fields, key: str) -> tuple[str, ...]:
    if not fields.has(key):
        return ()
    found = fields.texts(key)
    for index, word in enumerate(found):
        matching(word, _WORD, f"boot.{key}[{index}]")
    return found


def _load_phases(fields: Fields) -> tuple[str, ...]:
    if not fields.has("phases"):
        return ()
    found = fields.texts("phases")
    for index, path in enumerate(found):
        matching(path, _PHASES, f"boot.phases[{index}]")
    return found


def told(rules: BootRules) -> Mapping[str, object]:
    """[boot] as JSON, digests as the document writes them."""
    return {
        "event_log": rules.event_log,
        "secure_boot": rules.secure_boot,
        "authorities": sorted(f"sha256:{one.hex()}" for one in rules.authorities),
        "dbx_revision": None if rules.dbx_revision is None else "{}.{}".format(*rules.dbx_revision),
        "dbx_includes": sorted(f"sha256:{one.hex()}" for one in rules.dbx_includes),
        "command_line": list(rules.command_lines),
        "command_line_requires": list(rules.required_words),
        "command_line_forbids": list(rules.forbidden_words),
        "phases": list(rules.phases),
        "known_events": sorted(one.hex() for one in rules.known_events),
    }
