"""`dvfd run`: the daemon itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import click

from dvfd.cli.config import path_option


@click.command()
@path_option
def run(path: Path | None) -> None:
    """Watch this node and the jobs on it until told to stop.

    It stays in the foreground and logs to stderr; systemd/ has the unit for a service. SIGTERM or
    Ctrl-C ends it in order: what waits for the disk is written. SIGHUP takes the configuration
    anew: a broken one is refused, the old one stays, and log, status and page say why.

    Exit code: 0 told to stop, 78 a mistake in the configuration or an address that is taken.

    Example: dvfd run -c /etc/dvfd/dvfd.toml
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        # Until the daemon has its own handlers nothing is open that would need an end.
        signal.signal(number, lambda _number, _frame: os._exit(0))
    # Those that came while the daemon was starting anew have waited for this.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # until the daemon can take it

    from dvfd import config, log
    from dvfd.daemon import Daemon

    settings = config.load(path)
    log.setup(settings.log_level)
    Daemon(settings, path=path).run()
