"""How do I run the service?"""

from __future__ import annotations

import sys

import click

from attestd.app import build_service, build_web
from attestd.cli.options import config_option, require_database
from attestd.config import Config
from attestd.web.listeners import listeners_of
from attestd.web.server import Parts, serve


@click.command()
@config_option
def command(config: Config) -> None:
    """Run the service in the foreground until SIGTERM; SIGHUP reloads its certificates.

    Logs go to stderr: JSON lines, or short lines on a terminal. Anything but loopback needs [tls] certificate
    and key, or behind_proxy = true with a proxy in front.
    """
    require_database(config)
    status = serve(config, Parts(build_service, build_web), listeners_of(config))
    sys.exit(1 if status else 0)
