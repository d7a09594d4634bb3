"""Restore a job's newest checkpoint in a scratch process, before a list is judged.

A checkpoint that the job took away while it was read is no failure: then there is a newer one.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd import shell
from dvfd.errors import ProbeError
from dvfd.probes.checkpoints import fingerprint
from dvfd.probes.places import locate
from dvfd.probes.verifier import KIND, Records, Runner, Target, Verifier
from dvfd.telemetry.checkpoint_state import CheckpointState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dvfd.config import Checkpoints as Settings

TRIES = 3
"""Checkpoints that may be taken away one after the other: a job that saves faster than its state
can be read shows that by then.
"""

BOUND: Runner = partial(shell.run, bound=True)
"""Ends with the daemon."""

Restored = tuple[bool | None, str]
"""Whether the state came out equal, None where that could not be shown; and how that is known."""


class Restorer:
    """Knows the newest checkpoint of each job, and has it restored. Any thread."""

    def __init__(
        self,
        states: Callable[[], Iterable[CheckpointState]],
        *,
        settings: Settings,
        records: Records,
        run: Runner = BOUND,
        proc: Path = Path("/proc"),
    ) -> None:
        self._states = states
        self._verifier = Verifier(settings, records=records, run=run)
        self._proc = proc

    def restored(self, job: str) -> Restored:
        """The newest checkpoint of *job*, now. Takes as long as all of it takes to be read."""
        last: Restored = (None, "no checkpoint was reported yet")
        for _ in range(TRIES):
            state = self._newest(job)
            if state is None or not state.path:
                break
            found, why = self._restore(state)
            last = found, f"{state.path}: {why}"
            if found is not False or self._stands(state):
                break
        return last

    def _newest(self, job: str) -> CheckpointState | None:
        return next((state for state in self._states() if state.job == job), None)

    def _stands(self, state: CheckpointState) -> bool:
        """Whether no newer one was saved meanwhile."""
        now = self._newest(state.job)
        return now is None or (now.path, now.saved_at) == (state.path, state.saved_at)

    def _restore(self, state: CheckpointState) -> Restored:
        try:
            place = locate(state.path, state.pid, proc=self._proc)
            target = Target(state.job, state.path, state.saved_at, place, fingerprint(place))
        except ProbeError as error:
            return None, str(error)
        except FileNotFoundError:
            return False, "not there"
        except OSError as error:
            return None, f"{error.strerror}"
        intact, loadable, why = self._verifier.verify(target, whole=True)
        if intact is False or loadable is False:
            return False, why
        return (True if intact and loadable else None), why


def last_seen(records: Mapping[str, Mapping[str, object]]) -> list[CheckpointState]:
    """What the store remembers of the newest checkpoint of each job, from its own manifests."""
    return [
        CheckpointState(job=job, path=str(kept["path"]), saved_at=_moment(kept.get("saved_at")))
        for job, kept in records.items()
    ]


def _moment(at: object) -> float | None:
    return float(at) if isinstance(at, int | float) else None


MANIFESTS = KIND
"""Kind of the records that `last_seen` is of."""
