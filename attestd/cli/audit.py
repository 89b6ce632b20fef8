"""Who asked for what, how was it decided, and is the log of it as it was written?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click

from attestd.cli.audit_story import story
from attestd.cli.failures import Failure, Unusable
from attestd.cli.options import config_option, keyring_of, store_of
from attestd.cli.output import json_option, print_object, progress
from attestd.clock import now_ms, parse_duration, parse_rfc3339
from attestd.config import Config
from attestd.issue.audit_keys import audit_verifier
from attestd.store import audit_show, devices
from attestd.store.audit import Decision, Event, Head
from attestd.store.audit_show import Record, Wanted
from attestd.store.audit_trace import trace
from attestd.store.audit_verify import Verification, verify
from attestd.store.canonical import canonical_json
from attestd.store.store import Store


@click.group("audit")
def command() -> None:
    """Show, verify and trace the audit log."""


@command.command("show")
@config_option
@json_option
@click.option("--device", metavar="DEVICE", help="Only records about this device, by identifier or name.")
@click.option("--event", type=click.Choice(get_args(Event)), help="Only this kind of event.")
@click.option("--decision", type=click.Choice(get_args(Decision)), help="Only what was decided so.")
@click.option("--code", metavar="CODE", help="Only refusals with this code.")
@click.option("--request", "request_id", metavar="ID", help="Only records of this request.")
@click.option("--since", metavar="TIME", help="Only from then on: RFC 3339, or how long ago (10m, 24h, 7d).")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the last N.")
def show(config: Config, as_json: bool, since: str | None, limit: int | None, **wanted: Any) -> None:
    """Print the records, oldest first."""
    tell = print_object if as_json else _print_line
    with store_of(config) as store:
        asked = _wanted(store, since=since, **wanted)
        for record in _records(store, asked, limit):
            tell(record)


@command.command("verify")
@config_option
@json_option
@click.option(
    "--head",
    "anchor",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What `audit verify --json` printed earlier: finds a log that was put back to an older state.",
)
def verify_(config: Config, as_json: bool, anchor: Path | None) -> None:
    """Check every chain against its signed head; exit 1 and name the first bad record if one was changed.

    A database that was put back as a whole looks as it once truly was. Keep what `audit verify --json` prints
    on another machine, and give it with --head.
    """
    anchors = {} if anchor is None else _read_anchor(anchor)
    with store_of(config) as store, progress("verifying the audit log"):
        verifier = audit_verifier(keyring_of(config, store).at(now_ms()))
        verified = store.read(lambda tx: verify(tx, verifier, anchors))
    if as_json:
        print_object(_as_object(verified))
    else:
        _print_verification(verified)
    if not verified.intact:
        first = verified.faults[0]
        raise Failure(f"the audit log was changed: {_place(first.chain, first.sequence)}: {first.detail}")


@command.command("trace", context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@config_option
@json_option
@click.argument("identifier", metavar="ID")
def trace_(config: Config, as_json: bool, identifier: str) -> None:
    """Print how ID came about, from the machine's boot to the call.

    ID is a token's or credential's jti, a certificate's serial number in hex, an attestation's or a request's
    identifier. Says which agent, on whose behalf, under which posture and policy.
    """
    with store_of(config) as store, progress("reading the audit log"):
        steps = store.read(lambda tx: trace(tx, identifier))
    if not steps:
        raise Failure("nothing is recorded about this ID; is it complete, and of this service?")
    for step in steps if as_json else ():
        print_object(step)
    for line in () if as_json else story(steps, identifier):
        click.echo(line)


def _wanted(store: Store, *, device: str | None, since: str | None, **equal: str | None) -> Wanted:
    return Wanted(
        device_id=None if device is None else _device_id(store, device),
        since=None if since is None else _time(since),
        **equal,
    )


def _device_id(store: Store, device: str) -> str:
    # One that is unknown by now may still have records: a pending device that was forgotten.
    known = store.read(lambda tx: devices.resolve(tx, device))
    return device if known is None else known.device_id


def _time(text: str) -> int:
    try:
        return now_ms() - parse_duration(text) * 1000
    except ValueError:
        pass
    try:
        return parse_rfc3339(text)
    except ValueError:
        why = "is no time: write 2026-11-25T17:38:07Z, or how long ago, such as 24h"
        raise Unusable(f"--since {text} {why}") from None


def _records(store: Store, wanted: Wanted, limit: int | None) -> Iterator[Record]:
    if limit is not None:
        yield from store.read(lambda tx: audit_show.newest(tx, wanted, limit))
        return
    # Not one transaction: a pager that waits for its reader must not hold the database.
    after: audit_show.Place | None = audit_show.BEGIN
    while after is not None:
        page = store.read(partial(audit_show.page, wanted=wanted, after=after))
        yield from page.records
        after = page.after


def _print_line(record: Record) -> None:
    words = [
        record["time"],
        f"{record['chain'][:12]}#{record['sequence']}",
        record["event"],
        record["decision"],
    ]
    if record["code"] is not None:
        words.append(record["code"])
    named = {name: record[name] for name in ("cause", "policy", "request_id") if record[name] is not None}
    if record["count"] != 1:
        named["count"] = record["count"]
    words += [f"{name}={value}" for name, value in named.items()]
    # As JSON escapes it: nothing that a stranger chose reaches a terminal as such.
    printable = [canonical_json(word)[1:-1] for word in words]
    click.echo("  ".join([*printable, canonical_json(record["details"])] if record["details"] else printable))


def _read_anchor(path: Path) -> Mapping[str, Head]:
    try:
        heads = json.loads(path.read_bytes())["heads"]
        return {
            chain: Head(int(head["sequence"]), bytes.fromhex(head["hash"])) for chain, head in heads.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise Unusable(f"{path}: not what `attestd audit verify --json` prints") from None


def _as_object(verified: Verification) -> Mapping[str, Any]:
    faults = [
        {"chain": fault.chain, "sequence": fault.sequence, "kind": fault.kind, "detail": fault.detail}
        for fault in verified.faults
    ]
    heads = {
        chain: {"sequence": head.sequence, "hash": head.hash.hex()} for chain, head in verified.heads.items()
    }
    return {"valid": verified.intact, "records": verified.records, "faults": faults, "heads": heads}


def _print_verification(verified: Verification) -> None:
    for fault in verified.faults:
        click.echo(f"{fault.kind:<13}  {_place(fault.chain, fault.sequence)}: {fault.detail}")
    if verified.intact:
        chains = len(verified.heads)
        click.echo(f"intact: {verified.records} records in {chains} {'chain' if chains == 1 else 'chains'}")


def _place(chain: str, sequence: int | None) -> str:
    return f"chain {chain}" if sequence is None else f"chain {chain}, record {sequence}"
