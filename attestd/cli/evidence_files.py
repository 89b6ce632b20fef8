"""What do the files say that are to be verified offline, and how is the answer told?

A file that cannot be opened ends the command with status 2; what one contains is evidence, and its faults are
reasons why it does not hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from attestd.cli.failures import Unusable
from attestd.cli.output import print_object
from attestd.wire import Problem, load_json

FILE_LIMIT = 256 << 20
"""Bytes of one file; a list of IMA is the largest that machines have."""
FILE = click.Path(path_type=Path)
Pcrs = Mapping[str, Mapping[int, bytes]]

_REGISTER = re.compile(r"0|[1-9][0-9]?")
_HEX = re.compile(r"([0-9a-fA-F]{2})*")
_REGISTERS = 24


def read_file(path: Path, limit: int = FILE_LIMIT) -> bytes:
    """The whole file; Unusable where it cannot be opened or is larger than anything of its kind."""
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror or error}; name a file that can be read") from None
    if len(raw) > limit:
        raise Unusable(f"{path} has more than {limit} bytes; it is no evidence of this kind")
    return raw


def read_pcrs(path: Path) -> Pcrs:
    """A PCR file, `{"sha256": {"0": hex, …}, …}`; Unusable where it is none. Lengths are not checked."""
    try:
        banks = load_json(read_file(path, 1 << 20))
    except Problem as problem:
        raise _malformed(path, problem.detail) from None
    return {bank: _bank(path, bank, registers) for bank, registers in banks.items()}


def answer(told: Mapping[str, Any], *, as_json: bool, lines: Iterable[str]) -> NoReturn:
    """Print what was found, and end: 0 if it holds, 1 if not."""
    if as_json:
        print_object(told)
    else:
        for line in lines:
            click.echo(line)
    raise click.exceptions.Exit(0 if told["valid"] else 1)


def _bank(path: Path, bank: str, registers: Any) -> Mapping[int, bytes]:
    if not isinstance(registers, dict):
        raise _malformed(path, f"{bank} is no object of registers")
    found = {}
    for register, value in registers.items():
        if _REGISTER.fullmatch(register) is None or int(register) >= _REGISTERS:
            raise _malformed(path, f"{bank} has the register {register[:20]!r}, which TPMs have not")
        if not isinstance(value, str) or _HEX.fullmatch(value) is None:
            raise _malformed(path, f"register {register} of {bank} is not hexadecimal")
        found[int(register)] = bytes.fromhex(value)
    return found


def _malformed(path: Path, why: str) -> Unusable:
    return Unusable(f'{path} is no PCR file such as {{"sha256": {{"0": "<hex>"}}}}: {why}')
