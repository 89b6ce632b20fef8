"""Which command does the user want? Each noun is a module that is imported only when it is named.

`attestd --version` and `attestd --help` must answer at once, so nothing heavy is imported here: no web
framework, no cryptography, no database.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from attestd.cli.failures import failure_of
from attestd.cli.lazy import Lazy

NOUNS = {
    "init": "Make a directory that serves: configuration, keys, database.",
    "serve": "Run the service in the foreground.",
    "check": "Look at the configuration and everything that it names.",
    "doctor": "Look at a running service as its devices see it.",
    "device": "List, approve, ban, label and explain devices.",
    "policy": "Check, apply and roll back appraisal policies.",
    "keys": "List, add, activate and retire signing keys.",
    "ek-roots": "List, import and remove the TPM makers that are trusted.",
    "agent": "The device's side: join, run, hand out credentials, unseal.",
    "audit": "Show, verify and trace the audit log.",
    "evidence": "Verify evidence in files, without a server.",
    "install-service": "Write the systemd unit of the service.",
    "swtpm": "Run a software TPM until stdin closes.",
}
"""Every noun with its line of help; its module, "-" written "_", has a `command`."""


class Nouns(Lazy):
    """The root: its commands from the table, and its errors in one line."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with _told_in_one_line():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _told_in_one_line():
            return super().invoke(ctx)


def _quiet() -> None:
    # The driver's log says in many lines what its exception says in one; a service's log still has it.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())


@contextmanager
def _told_in_one_line() -> Iterator[None]:
    """Errors leave as one line and an exit status; what click needs to end by itself passes."""
    try:
        yield
    except (click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise
    except Exception as error:
        failure = failure_of(error)
        if failure is None or failure is error:
            raise
        raise failure from error


main = Nouns(
    "attestd",
    NOUNS,
    module="attestd.cli.{}",
    help="Short-lived agent credentials for machines that prove with their TPM how they booted.",
    context_settings={"help_option_names": ["-h", "--help"]},
    callback=_quiet,
)
