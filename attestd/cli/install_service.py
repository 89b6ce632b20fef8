"""How does the service come up with the machine?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from attestd.cli.failures import Unusable
from attestd.cli.install_options import ROOT, install, install_options, this_attestd
from attestd.cli.service_files import SERVER, Wanted
from attestd.config import load_config

OWN = Path("/var/lib/attestd")
FOUND = (OWN / "attestd.toml", Path("/etc/attestd/attestd.toml"))
"""Where the unit looks without --config, in this order."""


@click.command("install-service")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"The configuration that it serves; else {FOUND[0]}, then {FOUND[1]}.",
)
@install_options
def command(config: Path | None, root: Path, now: bool, dry_run: bool, **asked: Any) -> None:
    """Write the systemd unit of the service and make its user. Harmless to do again."""
    config = None if config is None else Path(config).absolute()
    present = [path for path in FOUND if _under(root, path).is_file()]
    user = asked["user"] or SERVER.user
    first = [] if config or present else [f"runuser -u {user} -- attestd init {OWN} --trust-domain NAME"]
    if now and first:
        raise Unusable(f"there is no configuration to serve yet; without --now first, then `{first[0]}`")
    wanted = Wanted(
        part=SERVER,
        root=root,
        user=user,
        executable=asked["executable"] or this_attestd(),
        config=config,
        writable=() if config is None else _written_to(config, root),
    )
    install(wanted, now=now, dry_run=dry_run, first=first)


def _written_to(config: Path, root: Path) -> tuple[Path, ...]:
    """The folder of the database, where the unit does not give it to the service anyway. PolicyError for a
    configuration that could not be served."""
    scheme, _, name = load_config(_under(root, config), {}).database.partition(":")
    folder = Path(name).parent
    if scheme != "sqlite" or folder.is_relative_to(OWN):
        return ()
    if root != ROOT and folder.is_relative_to(root):
        folder = ROOT / folder.relative_to(root)
    return () if folder.is_relative_to(OWN) else (folder,)


def _under(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")
