"""How do I run a software TPM beside my agent, in CI or on a desk?"""

import signal
import sys
from pathlib import Path
from types import FrameType

import click
from cryptography.hazmat.primitives.serialization import Encoding

from tpm.swtpm import SoftwareTpm, run_until_closed

_KINDS = {"p256": ("p256",), "rsa": ("rsa",), "both": ("p256", "rsa")}


@click.command("swtpm")
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the TPM here: the next start is the same machine. Without it every start is a new one.",
)
@click.option(
    "--ek-root",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write the root of its endorsement certificate here (PEM), for `attestd ek-roots import`.",
)
@click.option("--ek", type=click.Choice(sorted(_KINDS)), default="p256", show_default=True)
def command(state: Path | None, ek_root: Path | None, ek: str) -> None:
    """Run a software TPM: print one line, its TCTI, and stay until standard input closes.

    The line is what `attestd agent --tpm` takes. A software TPM proves nothing about the machine it runs on.
    """
    signal.signal(signal.SIGTERM, _end)
    tpm = SoftwareTpm(ek=_KINDS[ek], state=state)
    if ek_root is not None:
        ek_root.write_bytes(tpm.ek_root.public_bytes(Encoding.PEM))
    run_until_closed(tpm, sys.stdin, sys.stdout)


def _end(_signal: int, _frame: FrameType | None) -> None:
    # An exception, so that the context manager ends the emulator.
    raise SystemExit(0)
