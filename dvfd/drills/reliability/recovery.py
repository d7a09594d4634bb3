"""Watch a job come back after a harm: who noticed when, and the next team that trains."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dvfd.drills.reliability.course import Timeline
from dvfd.drills.reliability.job import CHECKPOINTS, LOOK, gone
from dvfd.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dvfd.drills.reliability.course import Team
    from dvfd.drills.reliability.job import Job
    from dvfd.drills.trail import Process

RETURN = 120.0
"""Seconds for a recovery to be waited for: four times the longest that any criterion allows."""

STEPS_BEFORE = 6 * CHECKPOINTS + 5
"""Steps before the harm: checkpoints, and some steps that have to be done again. Until step 85 the
loss of the reference job bends so much that a training that nobody disturbed seemed to jump by more
than 3 MAD in 36 to 84 of 100 cases; from step 120 on in 1 of 360 (three seeds).
"""

STEPS_BETWEEN = CHECKPOINTS + 5
"""Steps before the next harm of the same job."""

STEPS_AFTER = 10
"""Steps beyond those before the harm: their loss is compared."""


class Eyes:
    """What is seen of a job that was harmed at *harmed*, while *team* trained."""

    def __init__(
        self, job: Job, team: Team, harmed: float, *, others: Sequence[Process] = ()
    ) -> None:
        """The end of one of *others*, by default of any of the team, says that it was noticed."""
        self._job = job
        self._others = others or team.processes
        self._newest = team.newest
        self._before = sum(each.joined <= team.joined for each in job.teams())
        self.harmed = harmed
        self.noticed: float | None = None
        self.seen: float | None = None  # by our receiver: what `dvfd status` would tell
        job.unwell = None

    def before(self) -> list[Team]:
        """The teams up to the one that was harmed."""
        return self._job.teams()[: self._before]

    def after(self) -> list[Team]:
        """Those that came after it and trained."""
        return [team for team in self._job.teams()[self._before :] if team.first is not None]

    def watch(self, until: Callable[[], bool], seconds: float) -> bool:
        """Look until *until* holds, for at most so many *seconds*; whether it did. Raises
        DvfdError if the job ends.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._job.look()
            self.seen = self.seen or self._job.unwell
            if self.noticed is None and gone(self._others):
                self.noticed = self._job.task.clock.boot()
            if until():
                return True
            time.sleep(LOOK)
        return False

    def returned(self, healed: float) -> Timeline:
        """Wait until the job trains again and is further than it was; how that went. Raises
        DvfdError.
        """
        wanted = self._newest + STEPS_AFTER

        def trains() -> bool:
            found = self._job.teams()
            return (
                bool(found) and found[-1].newest >= wanted and found[-1].after(healed) is not None
            )

        if not self.watch(trains, RETURN):
            raise ProbeError(
                f"no step {wanted} within {RETURN:g} s of the healing: {self._job.stands()}"
            )
        team = self._job.now()
        fresh = bool(self.after())
        first = team.after(healed)
        assert first is not None
        return Timeline(
            harmed=self.harmed,
            noticed=self.noticed,
            seen=self.seen,
            healed=healed,
            joined=team.joined if fresh else None,
            loaded=team.loaded if fresh else None,
            first=first,
            level=team.made(self._newest + 1),
        )
