"""`dvfd run`: the daemon itself."""

from __future__ import annotations

from pathlib import Path

import click

from dvfd.cli.config import path_option


@click.command()
@path_option
def run(path: Path | None) -> None:
    """Watch this node and the jobs on it until told to stop.

    Example: dvfd run -c /etc/dvfd/dvfd.toml
    """
    from dvfd import config, log
    from dvfd.daemon import Daemon

    settings = config.load(path)
    log.setup(settings.log_level)
    Daemon(settings).run()
