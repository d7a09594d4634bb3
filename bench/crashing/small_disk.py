"""A small disk of our own, to be filled to the brim or made read-only: a tmpfs in a mount namespace
that ends with the process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

SIZE = "12m"
BLOCK = 4096
IN_OWN = "DVFD_OWN_MOUNTS"


def alone(module: str) -> None:
    """Begin anew in a mount namespace of our own, unless we are in it."""
    if os.environ.get(IN_OWN):
        return
    os.environ[IN_OWN] = "1"
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", module]
    os.execvp(command[0], [*command, *sys.argv[1:]])


class SmallDisk:
    """A tmpfs at `place`, and a file in it that takes all the room."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._ballast = place / "ballast"
        place.mkdir()
        _mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place))

    def fill(self, spare: int) -> None:
        """Take all room but *spare* bytes."""
        with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as ballast:
            while True:
                ballast.write(b"x" * BLOCK)
        os.truncate(self._ballast, max(0, self._ballast.stat().st_size - spare))

    def freeze(self) -> None:
        """Make it read-only. The kernel lets nobody do so while a file is open to be written."""
        _mount("-o", "remount,ro", str(self.place))

    def heal(self) -> None:
        """There is room again, and it may be written."""
        _mount("-o", "remount,rw", str(self.place))
        self._ballast.unlink(missing_ok=True)

    def clear(self) -> None:
        """Empty it."""
        for path in self.place.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
