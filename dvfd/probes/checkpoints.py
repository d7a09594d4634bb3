"""Checkpoints of the jobs here: their age and count as reported, and whether the newest is whole.

Between verifications only sizes and change times are looked at: a file that changed after its save
is verified at once, and until the answer is there nothing is said of it.
"""

from __future__ import annotations

import os
import stat
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from dvfd import shell
from dvfd.errors import ProbeError
from dvfd.model import Sample, labels
from dvfd.probes.places import locate
from dvfd.probes.verifier import Answer, Records, Runner, Target, Verifier, in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dvfd.config import Checkpoints as Settings
    from dvfd.telemetry.checkpoint_state import CheckpointState

ENTRIES = 2000
"""Files of one checkpoint whose change times are looked at in a pass: 2 us each on a local disk."""

SUPERSEDED = 300.0
"""Seconds for which the word on an earlier checkpoint stands while the newest is verified: time to
read 100 GB of it. A job that saves faster than that is never out of sight."""

SPREAD = 60.0
"""Seconds over which the nodes of a job begin to read a new checkpoint, each at its own: told of it
at one moment they would all fall upon one file server. Leaves four of SUPERSEDED's five minutes."""

AGED = 2.0
"""Verification intervals after which an answer no longer stands: two in a row did not come."""


INTACT, LOADABLE = "checkpoint_intact", "checkpoint_loadable"


class Checkpoints:
    """Probe over `states`, the live jobs' checkpoints. May block on a dead file system."""

    name = "checkpoints"
    metrics = (
        "checkpoint_age_seconds",
        "checkpoint_missing",
        "checkpoint_failures_total",
        INTACT,
        LOADABLE,
    )
    deadline = 10.0

    def __init__(
        self,
        states: Callable[[], Iterable[CheckpointState]],
        *,
        settings: Settings,
        records: Records,
        interval: float = 5.0,
        proc: Path = Path("/proc"),
        run: Runner = shell.run,
        start: Callable[[Callable[[], None]], None] = in_thread,
        turn: Callable[[str], float] = lambda _job: 0.0,
    ) -> None:
        """*turn* is this node's own place among those that read a job's checkpoint, in [0, 1)."""
        self.interval = interval
        self.gaps: dict[str, str] = {}
        self._states = states
        self._settings = settings
        self._proc = proc
        self._turn = turn
        self._wanted: dict[str, float] = {}
        self._broken: frozenset[str] = frozenset()
        self._verifier = Verifier(settings, records=records, run=run, start=start)

    def sample(self, at: float) -> Iterator[Sample]:
        """Up to five samples for each job; `gaps` names what could not be said, and why."""
        states = list(self._states())
        jobs = {state.job for state in states}
        self._verifier.keep_only(jobs)
        self._wanted = {job: since for job, since in self._wanted.items() if job in jobs}
        gaps: dict[str, list[str]] = {}
        found = [(state, self._verified(state, at)) for state in states]
        self._broken = frozenset(s.job for s, said in found if said[INTACT] is False)
        for state, said in found:
            yield from _reported(state, at)
            for metric, value in said.items():
                if isinstance(value, str):
                    gaps.setdefault(metric, []).append(f"job {state.job}: {value}")
                else:
                    yield Sample(metric, float(value), at, labels(job=state.job))
        self.gaps = {metric: "; ".join(why) for metric, why in gaps.items()}

    def explains(self, metric: str, of: Mapping[str, str]) -> bool:
        """Whether a series is silent because the checkpoint is known not to be whole: nobody loads
        that, and it was told.
        """
        return metric == LOADABLE and of.get("job") in self._broken

    def _verified(self, state: CheckpointState, at: float) -> dict[str, bool | str]:
        """For both metrics the value, or why there is none."""
        if not state.path:
            return _both("no checkpoint reported yet")
        try:
            place = locate(state.path, state.pid, proc=self._proc)
            mark = fingerprint(place)
        except ProbeError as error:
            return _both(str(error))
        except FileNotFoundError:
            return self._gone(state)
        except OSError as error:
            return _both(f"{state.path}: {error.strerror}")
        target = Target(state.job, state.path, state.saved_at, place, mark)
        holding = "a save is under way" if state.began_at is not None else ""
        if not holding and state.shared and self._waits(target, at):
            holding = "waits for this node's turn to read it"
        return self._standing(target, at, holding)

    def _gone(self, state: CheckpointState) -> dict[str, bool | str]:
        if state.pid is not None and not (self._proc / str(state.pid)).exists():
            past = self._verifier.answer(state.job)
            if past and past.target.path == state.path and past.target.place != Path(state.path):
                return _both(f"{state.path}: lay in a container that has ended")
        return {INTACT: False, LOADABLE: False}  # it is not there

    def _waits(self, target: Target, at: float) -> bool:
        """Whether other nodes begin first. A file that changed after its save waits for nobody."""
        answer = self._verifier.answer(target.job)
        if answer and (answer.target.path, answer.target.saved_at) == (
            target.path,
            target.saved_at,
        ):
            self._wanted.pop(target.job, None)
            return False
        # Not from the save: a job that saves often would never be verified.
        since = self._wanted.setdefault(target.job, at)
        return 0 <= at - since < SPREAD * self._turn(target.job)

    def _standing(self, target: Target, at: float, holding: str) -> dict[str, bool | str]:
        """What the last answer says of *target*; asks for the next where one is due and nothing is
        *holding* it.
        """
        answer = self._verifier.answer(target.job)
        same = answer is not None and answer.target == target
        age = at - answer.asked if answer else 0.0
        if not holding and (not same or not 0 <= age < self._settings.verify_every):
            self._verifier.request(target, at=at)
        answer = self._verifier.answer(target.job)
        if answer is None or answer.target != target:
            if answer and answer.target.path != target.path and 0 <= at - answer.asked < SUPERSEDED:
                return _said(answer)
            return _both(f"{target.path}: {holding or 'being verified'}")
        if at - answer.asked > AGED * self._settings.verify_every:
            return _both(f"{target.path}: last verified {at - answer.asked:.0f} s ago")
        return _said(answer)


def _reported(state: CheckpointState, at: float) -> Iterator[Sample]:
    where = labels(job=state.job)
    yield Sample("checkpoint_failures_total", float(state.failed), at, where)
    if state.saved_at is not None:
        yield Sample("checkpoint_age_seconds", max(0.0, at - state.saved_at), at, where)
    if state.every > 0:
        yield Sample("checkpoint_missing", float(state.missing), at, where)


def _both(value: bool | str) -> dict[str, bool | str]:
    return dict.fromkeys((INTACT, LOADABLE), value)


def _said(answer: Answer) -> dict[str, bool | str]:
    why = f"{answer.target.path}: {answer.reason}"
    return {
        INTACT: why if answer.intact is None else answer.intact,
        LOADABLE: why if answer.loadable is None else answer.loadable,
    }


def fingerprint(path: Path) -> int:
    """A number that changes when a file of the checkpoint does: its name, size or change time.

    The change time (ctime) cannot be set back by a program. Raises OSError.
    """
    top = path.stat()
    traces = sorted(_below(path)) if stat.S_ISDIR(top.st_mode) else [_trace("", top)]
    # Not hash(): that of a text is another in each process, and answers outlive the daemon.
    return int.from_bytes(blake2b(repr(traces).encode(), digest_size=7).digest())


def _below(path: Path) -> Iterator[tuple[str, int, int, int]]:
    left, folders = ENTRIES, [path]
    while folders and left > 0:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                left -= 1
                if left < 0:
                    return
                yield _trace(entry.path, entry.stat(follow_symlinks=False))
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))


def _trace(name: str, found: os.stat_result) -> tuple[str, int, int, int]:
    return (name, found.st_size, found.st_ctime_ns, found.st_ino)
