"""Being a rank of a torchrun that a person started: the source's own lines, word for word.

Rank 0 runs the whole check and judges; the others only take part in what the ranks do together.
All of them read the same command line and the same configuration, so nobody has to tell them.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd.errors import DvfdError

if TYPE_CHECKING:
    from collections.abc import Mapping

RANK, WORLD = "RANK", "WORLD_SIZE"


def rank(environment: Mapping[str, str] = os.environ) -> int | None:
    """This process's rank, None where no launcher gave it one."""
    found = environment.get(RANK, "")
    return int(found) if found.isdigit() and environment.get(WORLD, "").isdigit() else None


def world(environment: Mapping[str, str] = os.environ) -> int:
    """How many ranks there are."""
    return int(environment[WORLD])


def nodes(environment: Mapping[str, str] = os.environ) -> int:
    """How many nodes they are on: torchrun counts its agents, one on each."""
    found = environment.get("GROUP_WORLD_SIZE", "")
    return max(1, int(found)) if found.isdigit() else 1


def heads(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether we are the first rank of our node."""
    return environment.get("LOCAL_RANK", "0") == "0"


def shared() -> Path:
    """A directory that the ranks of this node's torchrun share, and nobody else may write to.

    Raises DvfdError if somebody else made it.
    """
    place = _place()
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077:
        raise DvfdError(f"{place}: not a directory of ours alone: remove it, or set TMPDIR")
    return place


def clear() -> None:
    """Leave nothing of what the ranks shared."""
    shutil.rmtree(_place(), ignore_errors=True)


def _place() -> Path:
    return Path(tempfile.gettempdir()) / f"dvfd-ranks-{os.getuid()}-{os.getppid()}"
