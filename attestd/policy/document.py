"""What does this policy document demand, and what does it give?

TOML, read strictly: whatever is unknown, empty, of another type or not yet supported is refused with its
place and the next step, so that a policy which loads means what its author wrote.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

from attestd.policy.boot import UNAVAILABLE, BootRules, load_boot
from attestd.policy.clock import ClockRules, load_clock
from attestd.policy.components import Component, load_actions, load_components
from attestd.policy.fields import Fields, entries, matching, plain_text, refusal
from attestd.policy.grants import Grant, Seal, load_grants, load_seals
from attestd.policy.ima_rules import ImaRules, load_ima, named_files
from attestd.policy.labels import SEGMENT, label_value_fault
from attestd.policy.registers import load_bank, load_pcrs
from tpm.errors import PolicyError
from tpm.ima.aggregate import aggregated
from tpm.ima.replay import REGISTER as IMA_REGISTER
from tpm.structures.algorithms import hash_by_name

MAX_SOURCE = 256 * 1024
DISCLOSE = ("none", "codes", "findings")

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_MANUFACTURER = re.compile(r"[!-~]{1,4}|id:[0-9A-F]{8}")
_KNOWN = (
    "name",
    "description",
    "bank",
    "disclose",
    "allow_unmeasured",
    "match",
    "pcrs",
    "boot",
    "component",
    "actions",
    "ima",
    "clock",
    "grant",
    "seal",
)


@dataclass(frozen=True, slots=True)
class Match:
    """Which devices a policy covers; all conditions hold. Without any it covers every device."""

    labels: Mapping[str, tuple[str, ...]]
    manufacturers: tuple[str, ...]

    @property
    def specificity(self) -> int:
        return len(self.labels) + bool(self.manufacturers)


@dataclass(frozen=True, slots=True)
class Policy:
    """A document that was accepted; made by `load_policy` only.

    `digest` is the SHA-256 of `source` and of the files that it names, in lower-case hex, and names this
    policy in every result. `pcrs` holds the reference values as bytes, any one of which is good; `actions`
    what else may be measured into a component's register. Its version is the store's to say.
    """

    source: bytes
    digest: str
    name: str
    description: str
    bank: str
    disclose: str
    match: Match
    pcrs: Mapping[int, tuple[bytes, ...]]
    allow_unmeasured: frozenset[int]
    boot: BootRules | None
    components: tuple[Component, ...]
    actions: Mapping[int, frozenset[bytes]]
    ima: ImaRules | None
    clock: ClockRules
    grants: tuple[Grant, ...]
    seals: tuple[Seal, ...]

    @property
    def on_reset(self) -> str:
        return self.clock.on_reset

    @property
    def needs_event_log(self) -> bool:
        return bool(self.components) or (self.boot is not None and self.boot.event_log != UNAVAILABLE)

    @property
    def needs_ima_log(self) -> bool:
        return self.ima is not None

    @property
    def demands(self) -> bool:
        """Is there any machine that it refuses for what it booted or ran?"""
        boot = self.boot is not None and self.boot.demands
        return bool(self.pcrs or self.components or boot or (self.ima is not None and self.ima.required))

    def told_by_log(self) -> frozenset[int]:
        """The registers of which the event log has to tell."""
        by_facts = frozenset() if self.boot is None else self.boot.needed()
        return by_facts.union(*(component.pcrs for component in self.components))

    def needed(self) -> tuple[int, ...]:
        """The registers that a quote must hold, ascending: those judged and those that seals are bound to."""
        needed = set(self.pcrs) | self.told_by_log()
        if self.ima is not None:
            # IMA's first entry is the digest of what was there before it began.
            needed |= {IMA_REGISTER, *aggregated(hash_by_name(self.bank))}
        return tuple(sorted(needed.union(*(seal.pcrs for seal in self.seals))))


def load_policy(source: bytes, files: Mapping[str, bytes]) -> Policy:
    """The policy in these bytes; PolicyError names the key, what was expected and found, and the next step.

    `files` are the contents of the files that the document names, and of no others (`files_of`).
    """
    document = Fields(_parse(source), "", known=_KNOWN)
    _check_files(document, files)
    bank = load_bank(document)
    allowed = frozenset(document.registers("allow_unmeasured") if document.has("allow_unmeasured") else ())
    boot = load_boot(document, bank=bank)
    components = load_components(document, bank=bank)
    phases = () if boot is None else boot.phases
    policy = Policy(
        source=source,
        digest=policy_digest(source, files),
        name=matching(document.text("name"), _NAME, "name"),
        description=document.text("description") if document.has("description") else "",
        bank=bank,
        disclose=document.choice("disclose", DISCLOSE, default="codes"),
        match=_load_match(document),
        pcrs=load_pcrs(document, bank=bank, allowed=allowed),
        allow_unmeasured=allowed,
        boot=boot,
        components=components,
        actions=load_actions(document, components=components, phases=phases, bank=bank),
        ima=load_ima(document.value("ima"), files) if document.has("ima") else None,
        clock=load_clock(document),
        grants=load_grants(document),
        seals=load_seals(document),
    )
    _check_whole(policy)
    return policy


def files_of(source: bytes) -> tuple[str, ...]:
    """The names of the files beside the document that belong to it; PolicyError as `load_policy`."""
    return _named(Fields(_parse(source), "", known=_KNOWN))


def policy_digest(source: bytes, files: Mapping[str, bytes]) -> str:
    """Hex SHA-256 of the document; of one that names files, followed by a NUL, the name, a NUL and
    the SHA-256 of each, in the order of their names. No document holds a NUL.
    """
    parts = [source]
    for name in sorted(files):
        parts += [b"\0", name.encode(), b"\0", hashlib.sha256(files[name]).digest()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _named(document: Fields) -> tuple[str, ...]:
    return named_files(document.value("ima")) if document.has("ima") else ()


def _check_files(document: Fields, files: Mapping[str, bytes]) -> None:
    unnamed = sorted(set(files) - set(_named(document)))
    if unnamed:
        raise PolicyError("file_unnamed", f"{unnamed[0]}: no key of the policy names this file; leave it out")


def _check_whole(policy: Policy) -> None:
    boot = policy.boot
    if policy.components and boot is not None and boot.event_log == UNAVAILABLE:
        raise PolicyError(
            "log_unavailable",
            'boot.event_log: expected "required" beside [[component]], found "unavailable"; components are '
            "found in the log: require it, or remove them",
        )
    if not policy.demands:
        raise PolicyError(
            "demands_nothing",
            "pcrs: this policy demands nothing of a machine; add [pcrs] with digests, a fact to [boot], "
            "[[component]] or [ima]",
        )


def _parse(source: bytes) -> dict[str, object]:
    if len(source) > MAX_SOURCE:
        raise PolicyError("too_large", f"the policy has {len(source)} bytes; write at most {MAX_SOURCE}")
    try:
        return tomllib.loads(source.decode("utf-8"))
    except UnicodeDecodeError as error:
        at = f"at byte {error.start}"
        raise PolicyError("toml_invalid", f"the policy is not UTF-8 {at}; save it as UTF-8") from None
    except RecursionError:
        raise PolicyError("toml_invalid", "the policy is nested too deep; flatten it") from None
    except ValueError as error:  # TOMLDecodeError, and integers of thousands of digits
        raise PolicyError("toml_invalid", f"the policy is not TOML: {error}; correct it there") from None


def _load_match(document: Fields) -> Match:
    if not document.has("match"):
        return Match(labels={}, manufacturers=())
    fields = Fields(document.value("match"), "match", known=("labels", "manufacturers"))
    labels = _load_labels(fields) if fields.has("labels") else {}
    manufacturers = fields.texts("manufacturers") if fields.has("manufacturers") else ()
    for index, name in enumerate(manufacturers):
        matching(name, _MANUFACTURER, f"match.manufacturers[{index}]")
    if not labels and not manufacturers:
        raise PolicyError("list_empty", "match: it names no condition; add labels or manufacturers")
    return Match(labels=labels, manufacturers=manufacturers)


def _load_labels(fields: Fields) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for key, listed in fields.members("labels"):
        path = f"match.labels.{matching(key, SEGMENT, 'match.labels')}"
        found[key] = tuple(_label_value(value, at) for at, value in entries(listed, path))
    return found


def _label_value(value: object, path: str) -> str:
    text = plain_text(value, path)
    fault = label_value_fault(text)
    if fault is not None:
        raise refusal("value_wrong", path, expected="a label's value", found=text, step=fault)
    return text
