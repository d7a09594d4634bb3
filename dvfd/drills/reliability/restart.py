"""Scenario 2: one rank is killed, and the job comes back through its checkpoint."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from dvfd.drills.reliability import consent, figures, fuse, yours
from dvfd.drills.reliability.job import PER_PROCESS, alone, started
from dvfd.drills.reliability.recovery import STEPS_BEFORE, STEPS_BETWEEN, Eyes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dvfd.drills.drill import Task
    from dvfd.drills.reliability.figures import Figure
    from dvfd.drills.reliability.job import Job

NAME = "restart"


class Restart:
    """Kill a rank and see the job return."""

    name = "kill and rejoin"
    metrics = (figures.SECONDS, figures.LOST, figures.SAMPLES, figures.JUMP)

    def run(self, task: Task) -> Iterator[Figure]:
        """Start the reference job and kill one rank of it. Raises DvfdError."""
        with consent.lease(task, "one rank is killed"):
            if task.options.job:
                yield from yours.killed(task)
                return
            ranks = max(2, task.processes)
            task.say(f"the reference job starts with {ranks} processes")
            with started(task, alone(ranks), batch=ranks * PER_PROCESS) as job:
                yield from provoke(job, ranks)


def provoke(job: Job, ranks: int) -> Iterator[Figure]:
    """Kill one of the *ranks* that train, and tell what came of it. Raises DvfdError."""
    team = job.trains(ranks, max(STEPS_BEFORE, job.newest() + STEPS_BETWEEN))
    verified = job.verified()
    victim = team.processes[team.world // 2]
    others = [each for each in team.processes if each is not victim]
    harm = f"SIGKILL to rank {victim.rank} (pid {victim.pid}) of {ranks}"
    job.task.say(harm)
    eyes = Eyes(job, team, fuse.boot(), others=others)
    with fuse.held(victim.pid, victim.start) as handle:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    line = eyes.returned(eyes.harmed)
    at = job.task.clock.now()
    yield from figures.timed(NAME, line, harm, at)
    after = eyes.after()
    yield from figures.continued(NAME, eyes.before(), after, [verified] * len(after), at)
