"""What does another public parser make of the same logs?

tpm2_eventlog of Debian's tpm2-tools 5.4, whose answers are kept in `tpm2_tools.json`: by file, the first
eight bytes (hex) of each register in each bank, or null where it ends with an error. Where the program is
installed, it is asked again. To keep its answers anew: `python -m tests.tpm.eventlog.other_parsers`.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

VECTORS = Path(__file__).parents[2] / "vectors"
KEPT = Path(__file__).with_name("tpm2_tools.json")
PROGRAM = shutil.which("tpm2_eventlog")
DIGITS = 16

Registers = Mapping[str, Mapping[str, str]]
"""Register (decimal) to the first `DIGITS` hex digits of its value, by bank; banks without any are absent."""

_BANK = re.compile(r"  (\w+):")
_REGISTER = re.compile(r" +([0-9]+) *: 0x([0-9a-f]+)")


def log_files() -> list[str]:
    """Every firmware log among the vectors, by its path there."""
    found = [*VECTORS.glob("*/*/log*.bin"), *VECTORS.glob("*/*/eventlog.bin")]
    return sorted(str(path.relative_to(VECTORS)) for path in found)


def kept() -> dict[str, Registers | None]:
    """Its answers as they were kept."""
    answers: dict[str, Registers | None] = json.loads(KEPT.read_text())
    return answers


def asked(file: str) -> Registers | None:
    """Its answer now; None where it ends with an error, or by a signal."""
    assert PROGRAM is not None
    done = subprocess.run([PROGRAM, VECTORS / file], capture_output=True, check=False)
    return _registers(done.stdout.decode(errors="replace")) if done.returncode == 0 else None


def _registers(printed: str) -> Registers:
    found: dict[str, dict[str, str]] = {}
    bank = ""
    for line in printed.partition("\npcrs:\n")[2].splitlines():
        if (named := _BANK.fullmatch(line)) is not None:
            bank = named[1]
        elif (value := _REGISTER.fullmatch(line)) is not None:
            found.setdefault(bank, {})[value[1]] = value[2][:DIGITS]
    return found


if __name__ == "__main__":
    KEPT.write_text(json.dumps({file: asked(file) for file in log_files()}, indent=0) + "\n")
