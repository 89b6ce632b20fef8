"""Does this IMA list hold, and how much of it does register 10 cover?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from attestd.cli.evidence_files import FILE, answer, read_file, read_pcrs
from attestd.cli.output import json_option
from tpm.ima.measurements import MAX_BYTES
from tpm.ima.summary import Summary, summarise


@click.command("ima")
@click.argument("log", metavar="LOG", type=FILE)
@click.option(
    "--pcrs",
    metavar="FILE",
    type=FILE,
    help='Register values, as {"sha256": {"10": "<hex>"}}; nothing is compared without.',
)
@json_option
def command(log: Path, pcrs: Path | None, as_json: bool) -> None:
    """Replay a list of IMA (ascii_ or binary_runtime_measurements) to register 10.

    With registers 0 to 9 beside it, the boot_aggregate is compared too. What the files were is not judged:
    that is for a policy's [ima].
    """
    found = summarise(read_file(log, MAX_BYTES), {} if pcrs is None else read_pcrs(pcrs))
    answer(as_object(found), as_json=as_json, lines=_lines(found, compared=pcrs is not None))


def as_object(found: Summary) -> dict[str, Any]:
    """The JSON of this verb, whole also when the list does not hold."""
    banks = found.banks
    return {
        "valid": found.valid,
        "reason": found.reason,
        "entries": found.entries,
        "template": found.template,
        "banks": banks
        and {
            bank: {str(register): value.hex() for register, value in values.items()}
            for bank, values in banks.items()
        },
        "violations": found.violations,
        "covered": found.covered,
        "boot_aggregate": found.boot_aggregate,
        "detail": found.detail,
    }


def _lines(found: Summary, *, compared: bool) -> Iterator[str]:
    yield "holds" if found.valid else f"does not hold ({found.reason}): {found.detail}"
    if found.entries is not None:
        yield f"entries         {found.entries}, {found.violations} of them violations"
        yield f"template        {found.template or 'none'}"
        yield f"boot_aggregate  {found.boot_aggregate or 'none'}"
    if found.covered is not None:
        covered = found.covered if compared else "not compared: name the registers with --pcrs"
        yield f"covered         {covered}"
    for bank, values in (found.banks or {}).items():
        for register, value in values.items():
            yield f"{bank:<8}{register:>3}     {value.hex()}"
