"""What does a person read when a command fails, and with which exit status does it end?

One line with the next step, never a traceback: 1 refused or check failed, 2 usage or a file that cannot be
read, 3 unreachable. ATTESTD_DEBUG=1 lets the original error through.
"""

from __future__ import annotations

import http.client
import ssl
from typing import Any

import click

from attestd.config import environment
from attestd.wire import Problem
from tpm.errors import AttestationError, DeviceError, PolicyError


class Failure(click.ClickException):
    """Refused, or a check failed: a command's end, told in one line on stderr."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        click.echo(f"attestd: {self.message}", err=True)


class Unusable(Failure):
    """Wrong usage, or a file that cannot be read."""

    exit_code = 2


class Unreachable(Failure):
    """The service or the database does not answer."""

    exit_code = 3


def failure_of(error: Exception) -> click.ClickException | None:
    """The line and exit status for an error that reached the command line; None lets it through."""
    match error:
        case click.exceptions.NoArgsIsHelpError() | Failure():
            return error
        case click.UsageError():
            where = error.ctx.command_path if error.ctx else "attestd"
            return Unusable(f"{error.format_message().rstrip('.')}; see `{where} --help`")
        case click.FileError():
            return Unusable(error.format_message())
        case click.ClickException():
            return Failure(error.format_message())
    return None if environment().get("ATTESTD_DEBUG") else _of_ours(error)


def _of_ours(error: Exception) -> Failure:
    match error:
        case Problem():
            return Failure(f"refused ({error.code}): {error.detail}")
        case DeviceError():
            return Failure(f"the TPM refused ({error.reason}): {error.detail}")
        case PolicyError(reason="file_unreadable"):
            return Unusable(error.detail)
        case PolicyError():
            return Failure(error.detail)
        case AttestationError():
            return Failure(f"{error.reason}: {error.detail}")
        case OSError() | http.client.HTTPException():
            return _of_system(error)
    # By name: importing the store to look at its class would load the database drivers.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "StoreUnavailable" in kinds:
        return Unreachable(f"the database does not answer: {error}; is it running, is its URL right?")
    if "StoreError" in kinds:
        return Failure(str(error))
    return Failure(f"internal error: {type(error).__name__}: {error}; set ATTESTD_DEBUG=1 to see where")


def _of_system(error: OSError | http.client.HTTPException) -> Failure:
    """A file that cannot be used, or a service that does not answer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = getattr(error, "verify_message", None) or error
        return Failure(f"the server's certificate is not trusted: {why}; name its CA with --ca FILE")
    if isinstance(error, OSError) and error.filename and not isinstance(error, ConnectionError):
        return Unusable(f"{error.filename}: {error.strerror or error}; name a file that can be used")
    return Unreachable(f"unreachable: {error}; is the service running and the address right?")
