"""The runs of this node as other daemons may read them: what /api/v1/runs answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dvfd.errors import DvfdError
from dvfd.runs.told import KINDS, Told, table
from dvfd.store.run_reading import Reading

if TYPE_CHECKING:
    from pathlib import Path

    from dvfd.model import Clock
    from dvfd.runs.conductor import Conductor
    from dvfd.runs.run import Run


class Served:
    """Reads what the conductor knows and what lies in the runs' files. Any thread."""

    def __init__(self, conductor: Conductor, directory: Path, clock: Clock) -> None:
        self._conductor = conductor
        self._directory = directory
        self._clock = clock

    def told(self, limit: int) -> list[dict[str, Any]]:
        """The newest runs, the newest first."""
        newest = self._conductor.runs()[::-1][:limit]
        return [self._told(run).to_document() for run in newest]

    def rows(self, run_id: str, since: int, limit: int) -> dict[str, Any]:
        """What the file of a run holds after mark *since*, about *limit* rows of each kind.

        Raises DvfdError if there is no such run, or its file cannot be read.
        """
        if not run_id:
            raise DvfdError("no name of a run")
        run = self._told(self._conductor.run(run_id))  # before the rows: when done, none follows
        file = Reading(self._directory / f"{run.id}.db")
        until, newest = file.reach(since, limit), file.mark()
        found = {
            kind: table(kind, getattr(file, kind)(since, until))
            if until > since
            else table(kind, ())
            for kind in KINDS
        }
        return {"run": run.to_document(), "since": since, "until": until, "newest": newest, **found}

    def _told(self, run: Run) -> Told:
        now, t, done = self._conductor.standing(run)
        return Told.of_run(now, t=t, at=self._clock.now(), done=done)
