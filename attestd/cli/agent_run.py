"""How does a machine keep its identity? It runs this, from boot on."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import click

from attestd.agent.lock import AlreadyRunning
from attestd.agent.run import Surroundings, run
from attestd.agent.settings import DEFAULT_FILE, DEFAULT_TPM, Settings, load_settings
from attestd.cli import failures
from attestd.cli.agent_options import reported
from attestd.config import environment

_CONFIG = "ATTESTD_AGENT_CONFIG"


@click.command("run")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help=f"The settings; else {_CONFIG}, else {DEFAULT_FILE} if it is there.",
)
@click.option("--server", metavar="URL", help="The service; else as the settings say, or as it has joined.")
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="PEM of the CA that the server's certificate is from.",
)
@click.option(
    "--tpm", metavar="TCTI", help="The TPM; else as the settings say, ATTESTD_TPM, or the system's."
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="What the device remembers of its enrolment; else as the settings say.",
)
def command(
    config: Path | None, server: str | None, ca: Path | None, tpm: str | None, state: Path | None
) -> None:
    """Attest at boot and from then on; serve what this machine holds to its programs. SIGHUP reads the
    settings again, SIGTERM ends it."""

    def load() -> Settings:
        settings = _settings(config)
        return replace(
            settings,
            server=server or settings.server,
            ca=settings.ca if ca is None else ca.absolute(),
            root_sha256=settings.root_sha256 if ca is None else None,
            tpm=tpm or _tpm_of_environment(settings) or settings.tpm,
            state=settings.state if state is None else state.absolute(),
        )

    _log_lines()
    try:
        with reported():
            asyncio.run(run(Surroundings(load, environment())))
    except AlreadyRunning as error:
        raise failures.Failure(str(error)) from None


def _settings(named: Path | None) -> Settings:
    told = environment().get(_CONFIG)
    path = named or (Path(told) if told else DEFAULT_FILE)
    if path == DEFAULT_FILE and named is None and not path.exists():
        return Settings()
    return load_settings(path)


def _tpm_of_environment(settings: Settings) -> str | None:
    return environment().get("ATTESTD_TPM") if settings.tpm == DEFAULT_TPM else None


def _log_lines() -> None:
    """One line an event on stderr; systemd's journal has its own clock."""
    form = "%(message)s" if environment().get("JOURNAL_STREAM") else "%(asctime)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
