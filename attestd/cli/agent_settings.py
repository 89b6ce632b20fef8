"""Which settings does a verb of the running agent go by: the file's, and what options say instead?"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from attestd.agent.settings import DEFAULT_FILE, DEFAULT_TPM, Settings, load_settings
from attestd.cli.failures import Unusable
from attestd.config import environment

Command = TypeVar("Command", bound=Callable[..., Any])

_CONFIG = "ATTESTD_AGENT_CONFIG"
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def settings_options(command: Command) -> Command:
    """Gives the command `config`, `server`, `ca`, `root_sha256`, `tpm` and `state`, for `settings_from`."""
    file = click.Path(dir_okay=False, path_type=Path)
    there = click.Path(exists=True, dir_okay=False, path_type=Path)
    folder = click.Path(file_okay=False, path_type=Path)
    for option in (
        click.option(
            "--state",
            type=folder,
            metavar="DIR",
            help="What the device remembers of its enrolment; else as the settings say.",
        ),
        click.option(
            "--tpm",
            metavar="TCTI",
            help="The TPM; else as the settings say, ATTESTD_TPM, or the system's.",
        ),
        click.option(
            "--root-sha256",
            metavar="HEX",
            callback=_fingerprint,
            help="SHA-256 of the server's root certificate, as its operator gave it to you, instead of --ca.",
        ),
        click.option(
            "--ca", type=there, metavar="FILE", help="PEM of the CA that the server's certificate is from."
        ),
        click.option(
            "--server", metavar="URL", help="The service; else as the settings say, or as it has joined."
        ),
        click.option(
            "--config",
            type=file,
            metavar="FILE",
            help=f"The settings; else {_CONFIG}, else {DEFAULT_FILE} if it is there.",
        ),
    ):
        command = option(command)
    return command


def settings_from(config: Path | None, **said: Any) -> Settings:
    """The file's settings with what options and the environment say instead. PolicyError or OSError for a
    file that cannot be used, Unusable for two options that contradict each other."""
    return said_instead(_settings(config), **said)


def said_instead(
    settings: Settings,
    *,
    server: str | None,
    ca: Path | None,
    root_sha256: str | None,
    tpm: str | None,
    state: Path | None,
) -> Settings:
    """The settings with what options and the environment say instead; Unusable as for `settings_from`."""
    if ca is not None and root_sha256 is not None:
        raise Unusable("--ca and --root-sha256 both name whom to trust; keep one")
    trust = (settings.ca, settings.root_sha256)
    if ca is not None or root_sha256 is not None:
        trust = (None if ca is None else ca.absolute(), root_sha256)
    return replace(
        settings,
        server=server or settings.server,
        ca=trust[0],
        root_sha256=trust[1],
        tpm=tpm or _tpm_of_environment(settings) or settings.tpm,
        state=settings.state if state is None else state.absolute(),
    )


def settings_file(named: Path | None) -> Path | None:
    """The file that is read; None where nobody named one and the system's is not there."""
    told = environment().get(_CONFIG)
    path = named or (Path(told) if told else DEFAULT_FILE)
    return None if named is None and path == DEFAULT_FILE and not path.exists() else path


def _settings(named: Path | None) -> Settings:
    path = settings_file(named)
    return Settings() if path is None else load_settings(path)


def _tpm_of_environment(settings: Settings) -> str | None:
    return environment().get("ATTESTD_TPM") if settings.tpm == DEFAULT_TPM else None


def _fingerprint(_: click.Context, __: click.Parameter, given: str | None) -> str | None:
    """The digits, however they are written; Unusable for what is no SHA-256."""
    if given is None:
        return None
    digits = given.replace(":", "").lower()
    if _FINGERPRINT.fullmatch(digits) is None:
        raise Unusable("--root-sha256 is no SHA-256: write its 64 hex digits")
    return digits
