"""What the book of jobs shows of a run's job at a moment: the input of `advance`."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from dvfd.runs.advance import Seen
from dvfd.runs.placement import misplaced
from dvfd.runs.run import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dvfd.runs.run import Run
    from dvfd.telemetry.job import Job
    from dvfd.telemetry.jobs import JobBook
    from dvfd.telemetry.rank import Rank


class Sight:
    """Looks for the job of one run. Remembers from which step its ranks went on."""

    def __init__(
        self,
        book: JobBook,
        *,
        armed: float,
        placed: Callable[[Mapping[int, int]], tuple[str, ...]] = misplaced,
    ) -> None:
        """*armed* is the boot time of the arming: what a job did before is not of this run."""
        self._book = book
        self._armed = armed
        self._placed = placed
        self._first: dict[int, int] = {}
        self._lived: float = armed

    def look(self, run: Run, *, boot: float, exited: str = "", lost: str = "") -> Seen:
        """The job now, at boot time *boot*."""
        expected = max(1, run.plan.processes // run.plan.nodes)
        t = run.axis.t(boot)
        with self._book.lock:
            job = self._job(run)
            if job is None:
                return Seen(
                    t=t, expected=expected, exited=exited, lost=lost, living=False,
                    gone=boot - self._lived,
                )  # fmt: skip
            moved = [rank for rank in job.ranks.values() if self._moved(rank)]
            if job.live:
                self._lived = boot
            return Seen(
                t=t,
                ranks=len(moved),
                expected=expected,
                world_size=job.world_size,
                checkpoint_every=job.saves.every,
                stride=_strides(run, moved),
                steps=min(map(self._steps, moved), default=0),
                ended=job.ended is not None,
                living=job.live,
                gone=boot - self._lived,
                exited=exited,
                lost=lost,
                wrong=self._wrong(run, moved, expected),
            )

    def _job(self, run: Run) -> Job | None:
        """The newest job of that name which was heard since the run was armed."""
        found = [
            job
            for job in self._book.all()
            if job.name == run.plan.job
            and any(rank.since >= self._armed or self._moved(rank) for rank in job.ranks.values())
        ]
        return max(found, key=lambda job: max(r.since for r in job.ranks.values()), default=None)

    def _moved(self, rank: Rank) -> bool:
        """Whether it made a step since the run was armed."""
        return rank.stepped is not None and rank.stepped >= self._armed

    def _steps(self, rank: Rank) -> int:
        step = rank.step or 0
        return step - self._first.setdefault(rank.rank, step)

    def _wrong(self, run: Run, moved: list[Rank], expected: int) -> tuple[str, ...]:
        """What is wrong with the places of the ranks: asked once, when the run is to begin."""
        if run.stage is not Stage.ARMED or len(moved) < expected:
            return ()
        pids = {rank.rank: rank.pid for rank in moved if rank.process}
        if len(pids) < len(moved):
            return ("the processes of the ranks cannot be seen from here: is /proc shared?",)
        return self._placed(pids)


def _strides(run: Run, moved: list[Rank]) -> int:
    """The most batches between two reports: asked, like the places, when the run is to begin."""
    return max(map(_stride, moved), default=1) if run.stage is Stage.ARMED else 1


def _stride(rank: Rank) -> int:
    """The most steps between two rows that it sent."""
    steps = [step for _, step in rank.ends]
    return max((after - before for before, after in pairwise(steps)), default=1)
