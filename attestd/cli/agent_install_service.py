"""How does the agent come up with the machine?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from attestd.agent.settings import DEFAULT_FILE, DEFAULT_STATE
from attestd.cli.failures import Unusable
from attestd.cli.install_options import install, install_options, this_attestd
from attestd.cli.service_files import AGENT, Wanted


@click.command("install-service")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"The agent's settings; else {DEFAULT_FILE}.",
)
@install_options
def command(config: Path | None, root: Path, now: bool, dry_run: bool, **asked: Any) -> None:
    """Write the systemd units of the agent and make its user. Harmless to do again."""
    config = None if config is None else config.absolute()
    if config is not None and not (root / config.relative_to("/")).is_file():
        raise Unusable(f"{config} is not there; a sample comes with attestd as agent.toml")
    enrolled = (root / DEFAULT_STATE.relative_to("/") / "enrollment.json").exists()
    wanted = Wanted(
        part=AGENT,
        root=root,
        user=asked["user"] or AGENT.user,
        executable=asked["executable"] or this_attestd(),
        config=config,
    )
    install(wanted, now=now, dry_run=dry_run, first=[] if enrolled else ["attestd agent join URL"])
