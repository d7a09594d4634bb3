"""The source's scripts by their own names: `python tests/validate_hardware.py` is `dvfd check`.

Options are those of `dvfd check`. What torchrun starts instead is one of its ranks: see `ranked`.
"""

from __future__ import annotations

import sys

from dvfd.cli import main as command_line


def check(name: str) -> None:
    """Run and judge check *name* with this script's arguments; ends the process."""
    sys.argv = ["dvfd", "check", name, *sys.argv[1:]]
    command_line()
