"""Which policies are in force, what do they demand, and how do I change them?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from attestd.cli.administration import Administration, administration
from attestd.cli.failures import Failure, Unusable
from attestd.cli.options import config_option, store_of
from attestd.cli.output import json_option, print_object
from attestd.cli.policy_set import load_version, refuse_ties
from attestd.cli.policy_text import demands, summary
from attestd.clock import rfc3339
from attestd.config import Config
from attestd.policy.document import Policy, files_of, load_policy
from attestd.store import policies
from attestd.store.engine import Transaction
from attestd.store.policies import Document, PolicyVersion
from tpm.errors import PolicyError


@click.group("policy")
def command() -> None:
    """Check, apply and roll back appraisal policies."""


@command.command("check")
@click.option("--config", expose_value=False, metavar="FILE", help="Taken as by every verb, and not read.")
@json_option
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=click.Path(path_type=Path))
def check(files: tuple[Path, ...], as_json: bool) -> None:
    """Say what the policies in FILE… demand and give, or at which key one is refused. Reads nothing else."""
    refused = 0
    for path in files:
        try:
            policy = _load(path)[0]
        except PolicyError as error:
            refused += 1
            if as_json:
                print_object(
                    {"file": str(path), "valid": False, "reason": error.reason, "detail": error.detail}
                )
            click.echo(f"attestd: {path}: {error.detail}", err=True)
            continue
        if as_json:
            print_object({"file": str(path), "valid": True, "reason": None, **demands(policy)})
        else:
            click.echo("\n".join([f"{path}: {policy.name} sha256:{policy.digest}", *summary(policy)]))
    if refused:
        raise Failure(f"{refused} of {len(files)} refused; correct what is named above")


@command.command("show")
@config_option
@json_option
@click.argument("name", required=False)
def show(config: Config, name: str | None, as_json: bool) -> None:
    """List the policies in force, or print the document of one of them as it was applied."""
    with store_of(config) as store:
        active = store.read(policies.active)
    chosen = active if name is None else [version for version in active if version.name == name]
    if name is not None and not chosen:
        raise Failure(f"no policy {name} is in force; see attestd policy show")
    if not chosen:
        click.echo("no policy is in force: every device is refused; attestd policy apply FILE", err=True)
    for version in chosen:
        if as_json:
            print_object(_version(version, active=True) | demands(load_version(version).document))
        elif name is None:
            click.echo(_line(version))
        else:
            click.echo(_line(version), err=True)
            click.echo(version.source, nl=False)


@command.command("apply")
@config_option
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=click.Path(path_type=Path))
def apply(config: Config, files: tuple[Path, ...]) -> None:
    """Put the policies in FILE… into force, all of them or none; a running service follows in a second."""
    loaded = _load_all(files)
    with administration(config) as office:
        before, applied = office.change(lambda tx: _apply(office, tx, loaded))
        in_force = {version.name: version for version in office.store.read(policies.active)}
    for version in applied:
        if version.digest == before.get(version.name):
            click.echo(f"{_label(version)} sha256:{version.digest} is in force already")
        elif in_force.get(version.name) == version:
            click.echo(f"{_label(version)} sha256:{version.digest} is in force")
        else:
            raise Failure(
                f"{_label(version)} was changed by somebody else meanwhile; see attestd policy show"
            )


@command.command("history")
@config_option
@json_option
@click.argument("name")
def history(config: Config, name: str, as_json: bool) -> None:
    """Print every version of a policy, oldest first."""
    with store_of(config) as store:
        versions, active = store.read(lambda tx: (policies.history(tx, name), policies.active(tx)))
    if not versions:
        raise Failure(f"there never was a policy {name}; see attestd policy show")
    for version in versions:
        if as_json:
            print_object(_version(version, active=version in active))
        else:
            click.echo(_line(version) + ("  in force" if version in active else ""))


@command.command("rollback")
@config_option
@click.argument("name")
@click.argument("number", metavar="VERSION", type=click.IntRange(min=1))
def rollback(config: Config, name: str, number: int) -> None:
    """Put an old version's document into force again, as a new version: history only grows."""
    with administration(config) as office:
        before, restored = office.change(lambda tx: _rollback(office, tx, name, number))
    if restored.digest == before:
        click.echo(f"{_label(restored)} sha256:{restored.digest} is in force already: the same document")
    else:
        click.echo(
            f"{_label(restored)} sha256:{restored.digest} is in force: the document of {name}@{number}"
        )


def _apply(
    office: Administration, tx: Transaction, loaded: list[Loaded]
) -> tuple[dict[str, str], list[PolicyVersion]]:
    """The digests in force before, and every document's version now."""
    refuse_ties(tx, [policy for policy, _ in loaded])
    before = {version.name: version for version in policies.active(tx)}
    kept = {name: version.digest for name, version in before.items()}
    applied = []
    for policy, files in loaded:
        if kept.get(policy.name) == policy.digest:
            applied.append(before[policy.name])
        else:
            applied.append(_put(office, tx, policy, files))
    return kept, applied


def _put(office: Administration, tx: Transaction, policy: Policy, files: dict[str, bytes]) -> PolicyVersion:
    document = Document(name=policy.name, digest=policy.digest, source=policy.source, files=files)
    (version,) = policies.apply(tx, [document], by=office.by, now=office.now)
    office.record(tx, "policy apply", {"digest": version.digest}, policy=_label(version))
    return version


def _rollback(
    office: Administration, tx: Transaction, name: str, number: int
) -> tuple[str | None, PolicyVersion]:
    """The digest in force before, and the version that is in force now."""
    old = policies.find(tx, name, number)
    if old is None:
        raise Failure(f"there is no {name}@{number}; see attestd policy history {name}")
    refuse_ties(tx, [load_version(old).document])
    before = {version.name: version for version in policies.active(tx)}.get(name)
    if before is not None and before.digest == old.digest:
        return before.digest, before
    restored = policies.rollback(tx, name, number, by=office.by, now=office.now)
    assert restored is not None
    details = {"digest": restored.digest, "restores": f"{name}@{number}"}
    office.record(tx, "policy rollback", details, policy=_label(restored))
    return (None if before is None else before.digest), restored


Loaded = tuple[Policy, dict[str, bytes]]
"""A document, and the files that it names."""


def _load(path: Path) -> Loaded:
    """PolicyError as `load_policy`; the files that the document names stand beside it."""
    source = _read(path)
    files: dict[str, bytes] = {}
    for name in files_of(source):
        beside = path.parent / name
        if beside.is_file():
            files[name] = _read(beside)
    return load_policy(source, files), files


def _load_all(files: tuple[Path, ...]) -> list[Loaded]:
    """Every document, each name once; the first that is unusable refuses them all."""
    loaded: dict[str, Loaded] = {}
    for path in files:
        try:
            policy, beside = _load(path)
        except PolicyError as error:
            raise Failure(f"nothing applied: {path}: {error.detail}") from None
        if policy.name in loaded:
            raise Failure(
                f"nothing applied: {path}: another of these files is named {policy.name}; rename one"
            )
        loaded[policy.name] = policy, beside
    return list(loaded.values())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}; name a file that can be read") from None


def _label(version: PolicyVersion) -> str:
    return f"{version.name}@{version.version}"


def _line(version: PolicyVersion) -> str:
    when = rfc3339(version.applied_at)
    return f"{_label(version)}  sha256:{version.digest}  applied {when} by {version.applied_by}"


def _version(version: PolicyVersion, *, active: bool) -> dict[str, Any]:
    return {
        "name": version.name,
        "version": version.version,
        "digest": version.digest,
        "applied_at": rfc3339(version.applied_at),
        "applied_by": version.applied_by,
        "active": active,
        "source": version.source.decode(),
    }
