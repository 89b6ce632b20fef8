"""How does a machine keep its identity? It runs this, from boot on."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import click

from attestd.agent.lock import AlreadyRunning
from attestd.agent.running.run import Surroundings, run
from attestd.cli import failures
from attestd.cli.agent_options import reported
from attestd.cli.agent_settings import settings_from, settings_options
from attestd.config import environment


@click.command("run")
@settings_options
def command(**given: Any) -> None:
    """Attest at boot and from then on; serve what this machine holds to its programs. SIGHUP reads the
    settings again, SIGTERM ends it."""
    _log_lines()
    try:
        with reported():
            asyncio.run(run(Surroundings(lambda: settings_from(**given), environment())))
    except AlreadyRunning as error:
        raise failures.Failure(str(error)) from None


def _log_lines() -> None:
    """One line an event on stderr; systemd's journal has its own clock."""
    form = "%(message)s" if environment().get("JOURNAL_STREAM") else "%(asctime)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
