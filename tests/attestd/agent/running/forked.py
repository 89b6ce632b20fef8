"""What a process does that was forked from one that has loaded the agent already."""

import os


def agent(config: str, log: str) -> None:
    """`attestd agent run`, its lines in this file."""
    from attestd.cli.main import main

    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    main(["agent", "run", "--config", config])
