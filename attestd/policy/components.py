"""Of which parts may a boot be made, and in which variants?

The registers that components name are a closed world: whatever else was measured there is objected to.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from attestd.clock import EPOCH
from attestd.policy.fields import Fields, entries, matching, plain_text, refusal, register_key
from attestd.policy.labels import AGENT
from attestd.policy.registers import read_digest
from tpm.errors import PolicyError
from tpm.structures.algorithms import hash_by_name

PHASES = 11
"""The register of the boot's phases."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One edition of a component: its digests in the order in which each register receives its own of them.

    `until` is when it ends to be good (milliseconds), None: never.
    """

    name: str
    digests: tuple[bytes, ...]
    until: int | None

    def expired(self, now: int) -> bool:
        return self.until is not None and self.until <= now


@dataclass(frozen=True, slots=True)
class Component:
    """A part of the boot, such as the kernel; `variants` stand side by side, any one of them is good."""

    name: str
    pcrs: tuple[int, ...]
    variants: tuple[Variant, ...]


def load_components(document: Fields, *, bank: str) -> tuple[Component, ...]:
    """[[component]]: each name once; no digest belongs to two components of one register."""
    if not document.has("component"):
        return ()
    found: list[Component] = []
    for at, value in document.items("component"):
        component = _component(value, at, bank=bank)
        for earlier in found:
            _refuse_conflict(earlier, component, at)
        found.append(component)
    return tuple(found)


def load_actions(
    document: Fields, *, components: tuple[Component, ...], phases: Collection[str], bank: str
) -> Mapping[int, frozenset[bytes]]:
    """[actions]: for a register of a component, what else may be measured there, by its digest in this bank.

    An entry is the text itself, such as "Calling EFI Application from Boot Option", or a digest. The words of
    the boot's allowed phases are allowed in their register too.
    """
    closed = {register for component in components for register in component.pcrs}
    found: dict[int, frozenset[bytes]] = {}
    if PHASES in closed:
        words = {word for path in phases for word in path.split(":")}
        found[PHASES] = frozenset(hash_by_name(bank).digest(word.encode()) for word in words)
    if not document.has("actions"):
        return found
    for key, listed in document.members("actions"):
        register = register_key(key, "actions")
        path = f"actions.{key}"
        if register not in closed:
            raise refusal(
                "register_unused",
                path,
                expected="a register that a component names",
                found=register,
                step="remove it: only components' registers are a closed world",
            )
        listed_here = frozenset(_action(value, at, bank=bank) for at, value in entries(listed, path))
        found[register] = found.get(register, frozenset()) | listed_here
    return found


def _action(value: object, at: str, *, bank: str) -> bytes:
    text = plain_text(value, at)
    if text.startswith(f"{bank}:"):
        return read_digest(text, at, bank=bank)
    return hash_by_name(bank).digest(text.encode())


def _component(value: object, path: str, *, bank: str) -> Component:
    fields = Fields(value, path, known=("name", "pcrs", "variant"))
    name = matching(fields.text("name"), AGENT, fields.at("name"))
    variants = tuple(_variant(one, at, bank=bank) for at, one in fields.items("variant"))
    names = [variant.name for variant in variants]
    for index, one in enumerate(names):
        if one in names[:index]:
            at = f"{path}.variant[{index}].name"
            raise refusal("value_twice", at, expected="a new name", found=one, step="rename it")
    return Component(name, fields.registers("pcrs"), variants)


def _variant(value: object, path: str, *, bank: str) -> Variant:
    fields = Fields(value, path, known=("name", "digests", "until"))
    return Variant(
        name=fields.text("name"),
        digests=tuple(read_digest(one, at, bank=bank) for at, one in fields.items("digests")),
        until=_until(fields) if fields.has("until") else None,
    )


def _until(fields: Fields) -> int:
    value = fields.value("until")
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise PolicyError(
            "type_wrong",
            f"{fields.at('until')}: expected a time with its offset; write it like 2027-01-31T00:00:00Z",
        )
    return (value - EPOCH) // timedelta(milliseconds=1)


def _refuse_conflict(earlier: Component, component: Component, path: str) -> None:
    if earlier.name == component.name:
        raise refusal(
            "value_twice", f"{path}.name", expected="a new name", found=component.name, step="rename it"
        )
    if not set(earlier.pcrs) & set(component.pcrs):
        return
    theirs = {digest for variant in earlier.variants for digest in variant.digests}
    both = [digest for variant in component.variants for digest in variant.digests if digest in theirs]
    if both:
        raise refusal(
            "components_conflict",
            f"{path}.variant",
            expected=f"digests that are not those of {earlier.name}, which shares a register",
            found=both[0].hex(),
            step="leave it in one component",
        )
