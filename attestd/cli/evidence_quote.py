"""Does this quote hold: of this key, for this nonce, over these registers?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from attestd.cli.evidence_files import FILE, Pcrs, answer, read_file, read_pcrs
from attestd.cli.failures import Unusable
from attestd.cli.output import json_option
from tpm.errors import AttestationError
from tpm.structures.attest import Quote, parse_quote
from tpm.verify.loose import read_attestation_key, read_loose_signature
from tpm.verify.pcrs import check_quoted_values
from tpm.verify.quote import verify_quote

_HEX = re.compile(r"([0-9a-fA-F]{2})*")
_SMALL = 1 << 16


@dataclass(frozen=True, slots=True)
class Given:
    """The evidence, as it lies in the files; `registers` is the PCR file, if one was named."""

    ak: bytes
    attest: bytes
    signature: bytes
    nonce: bytes
    registers: Pcrs | None


@click.command("quote")
@click.option("--ak", type=FILE, required=True, metavar="FILE", help="TPM2B_PUBLIC, TPMT_PUBLIC or PEM.")
@click.option("--attest", type=FILE, required=True, metavar="FILE", help="TPMS_ATTEST, what was signed.")
@click.option("--signature", type=FILE, required=True, metavar="FILE", help="TPMT_SIGNATURE, or plain bytes.")
@click.option("--nonce", required=True, metavar="HEX", help="The qualifying data; '' for none.")
@click.option("--pcrs", type=FILE, metavar="FILE.json", help="The values of exactly the quoted registers.")
@json_option
def command(ak: Path, attest: Path, signature: Path, nonce: str, pcrs: Path | None, as_json: bool) -> None:
    """Verify a quote with its attestation key, its nonce and its registers."""
    if _HEX.fullmatch(nonce) is None:
        raise Unusable(f"--nonce is {nonce[:40]!r}, which is not hexadecimal")
    small = [read_file(path, _SMALL) for path in (ak, attest, signature)]
    registers = None if pcrs is None else read_pcrs(pcrs)
    given = Given(small[0], small[1], small[2], bytes.fromhex(nonce), registers)
    quote: Quote | None = None
    fault: AttestationError | None = None
    try:
        quote = parse_quote(given.attest)
        _check(quote, given)
    except AttestationError as error:
        fault = error
    told = _told(quote, fault)
    answer(told, as_json=as_json, lines=_lines(told, fault, given.registers is not None))


def _check(quote: Quote, given: Given) -> None:
    # 1. The key signed it, for this nonce.
    key = read_attestation_key(given.ak)
    signature = read_loose_signature(given.signature, key.key)
    ak = key.accepted(signature)
    verified = verify_quote(quote, signature, ak=ak, expected_extra_data=given.nonce, expected_signers=None)
    # 2. It covers some register, and the values are those it covers.
    check_quoted_values(verified, given.registers, hash=ak.hash)


def _told(quote: Quote | None, fault: AttestationError | None) -> Mapping[str, Any]:
    """DESIGN's answer: what the quote says, as far as it can be read, also where it does not hold."""
    told: dict[str, Any] = {
        "valid": fault is None,
        "reason": None if fault is None else fault.reason,
        "selection": None,
        "pcr_digest": None,
        "clock": None,
        "firmware_version": None,
    }
    if quote is not None:
        clock = quote.clock
        told |= {
            "selection": _selection(quote),
            "pcr_digest": quote.pcr_digest.hex(),
            "clock": {
                "clock": clock.clock,
                "reset_count": clock.reset_count,
                "restart_count": clock.restart_count,
                "safe": clock.safe,
            },
            "firmware_version": f"{quote.firmware_version:016x}",
        }
    return told


def _selection(quote: Quote) -> dict[str, list[int]]:
    """By bank; one that is named twice, which does not hold, with the registers of both."""
    found: dict[str, set[int]] = {}
    for bank, pcrs in quote.selection.banks:
        found.setdefault(bank, set()).update(pcrs)
    return {bank: sorted(pcrs) for bank, pcrs in found.items()}


def _lines(told: Mapping[str, Any], fault: AttestationError | None, compared: bool) -> Iterator[str]:
    yield "The quote holds." if fault is None else f"The quote does not hold ({fault.reason}): {fault.detail}"
    if told["clock"] is None:
        return
    banks = (f"{bank} {', '.join(map(str, pcrs)) or 'none'}" for bank, pcrs in told["selection"].items())
    yield f"  registers   {'; '.join(banks) or 'none'}"
    yield f"  digest      {told['pcr_digest']}{'' if compared else ' (not compared: no --pcrs)'}"
    clock = told["clock"]
    safe = "" if clock["safe"] else ", not safe: it may have gone back"
    counts = f"{clock['reset_count']} resets, {clock['restart_count']} restarts"
    yield f"  clock       {clock['clock'] / 1000:.3f} s, {counts}{safe}"
    yield f"  firmware    {told['firmware_version']}"
