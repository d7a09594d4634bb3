"""The source's scripts by their own names: `python tests/validate_hardware.py` is `dvfd check`.

Those that train also run as the ranks of a torchrun: `ranked`.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from dvfd.cli import main as command_line
from dvfd.drills import inside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dvfd.config import Config
    from dvfd.model import Check


def check(name: str, *options: str) -> None:
    """Run and judge check *name* with this script's arguments; ends the process."""
    sys.argv = ["dvfd", "check", name, *options, *sys.argv[1:]]
    command_line()


def ranked(name: str) -> None:
    """The same where torchrun started us: rank 0 judges, the others take part. Ends the process.

    On several nodes the first rank of each runs the check there. A rank that only takes part ends
    with 0 whatever happened: torchrun would else stop rank 0 before it has told of it.
    """
    rank = inside.rank()
    if rank is None:
        check(name)
    several = name in BETWEEN or inside.nodes() > 1
    if rank == 0 or (several and inside.heads()):
        # Another rank's death: torchrun asks us to end, and waits 30 s. The worker listens to that
        # meanwhile; afterwards there is a report to write.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if rank:  # another node's report: torchrun's own stdout is rank 0's alone
            sys.stdout = sys.stderr
        told = () if name in BETWEEN or not several else (f"--nodes={inside.nodes()}",)
        try:
            check(name, "--inside", *told)
        finally:
            inside.clear()
    sys.stdout = sys.stderr  # what is printed there is rank 0's report alone
    (_between if several else FOLLOW[name])(*_asked(name))
    sys.stderr.flush()
    os._exit(0)  # a group whose ranks are gone may wait for them at the interpreter's end


def _asked(name: str) -> tuple[Check, Config, Mapping[str, Any]]:
    """The check, the configuration and what the command line says: what rank 0 reads too."""
    from dvfd.catalogue import load as load_catalogue  # noqa: PLC0415  # in a rank only
    from dvfd.cli.checks import check as command  # noqa: PLC0415
    from dvfd.config import load as load_config  # noqa: PLC0415

    asked = command.make_context("check", [name, *sys.argv[1:]]).params
    config = load_config()
    return load_catalogue(config).checks[name], config, asked


def _gradients(check: Check, config: Config, asked: Mapping[str, Any]) -> None:
    from dvfd.drills import gradient  # noqa: PLC0415  # in a rank only

    seconds = asked["duration"] or check.duration
    gradient.follow(inside.shared() / gradient.ANSWER, seconds, config.profile.backend)


def _losses(_check: Check, config: Config, _asked: Mapping[str, Any]) -> None:
    from dvfd.drills import convergence  # noqa: PLC0415  # in a rank only

    convergence.follow(config.profile.backend)


def _between(_check: Check, _config: Config, _asked: Mapping[str, Any]) -> None:
    from dvfd.drills import fleet  # noqa: PLC0415  # in a rank only

    fleet.follow()


BETWEEN = ("network", "gloo_multi_node", "topology_3node", "topology_4node")
"""Checks between nodes: on each node the first rank runs the check and keeps its report."""

FOLLOW: Mapping[str, Callable[[Check, Config, Mapping[str, Any]], None]] = {
    "gradient_sync": _gradients,
    "loss_convergence": _losses,
    **dict.fromkeys(BETWEEN, _between),
}
"""How a rank other than 0 takes part in each check."""
