"""A restore that is killed between any two steps leaves the old store or the new one, and whole."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from fakes_store import opened, rows

from dvfd.store import backup

STEPS = 5
"""More than a restore has that change a name."""


def kept(path: Path, what: str) -> None:
    with opened(path) as store:
        store.put("kind", "key", {"what": what})


def dying(source: Path, store: Path, step: int) -> None:
    """Restore, and die before the step of that number that gives a file another name."""
    left = [step]

    def counted(change):
        def changed(*given: object) -> object:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return change(*given)

        return changed

    Path.rename = counted(Path.rename)
    backup._swapped = counted(backup._swapped)
    backup.restore(source, store, at=1.8e9)


@pytest.mark.parametrize("step", range(STEPS))
def test_a_restore_killed_at_any_step_leaves_one_whole_store(tmp_path: Path, step: int) -> None:
    old, new = tmp_path / "dvfd.db", tmp_path / "new.db"
    kept(new, "new")
    kept(old, "old")
    with sqlite3.connect(old) as held:  # as after a kill: what is newest lies in the WAL
        held.execute("UPDATE records SET document = replace(document, 'old', 'late')")
        held.commit()
        command = [sys.executable, __file__, str(new), str(old), str(step)]
        subprocess.run(command, check=False, timeout=60)

    (found,) = rows(old, "SELECT document FROM records")
    assert found in {('{"what":"late"}',), ('{"what":"new"}',)}
    assert rows(old, "PRAGMA integrity_check") == [("ok",)]


if __name__ == "__main__":
    dying(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
