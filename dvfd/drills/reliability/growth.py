"""Scenario 4: processes join a job under load, and it goes on with all of them.

All workers start anew when the count changes, so undisturbed is a short planned pause (reading 49).
The global batch stays as it is, and with it the learning rate: else the losses do not compare.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dvfd.drills.drill import Fact
from dvfd.drills.reliability import consent, figures, fuse
from dvfd.drills.reliability.course import Timeline
from dvfd.drills.reliability.job import PER_PROCESS, elastic, free_port, started
from dvfd.drills.reliability.recovery import RETURN, STEPS_AFTER, STEPS_BEFORE, STEPS_BETWEEN
from dvfd.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dvfd.drills.drill import Task
    from dvfd.drills.reliability.course import Team
    from dvfd.drills.reliability.figures import Figure
    from dvfd.drills.reliability.job import Job

NAME = "growth"

OTHERS = "a job of yours grows by its own launcher: dvfd starts no process of it; leave out --job"


class Growth:
    """Double a job's processes while it trains."""

    name = "growth under load"
    metrics = (figures.SECONDS, figures.LOST, figures.SAMPLES, figures.JUMP)

    def run(self, task: Task) -> Iterator[Figure]:
        """Start the reference job and let as many processes join. Raises DvfdError."""
        with consent.lease(task, "processes join a job, all its workers start anew"):
            if task.options.job:
                raise ProbeError(OTHERS)
            ranks = max(2, task.processes)
            parts = steps(ranks, halfway=task.options.halfway)
            port, most = free_port(), 1 + len(parts)
            first = elastic(ranks, port, most, host=True)
            task.say(f"the reference job starts with {ranks} processes")
            with started(task, first, batch=ranks * PER_PROCESS) as job:
                yield from provoke(job, ranks, parts, port)


def steps(ranks: int, *, halfway: bool) -> tuple[int, ...]:
    """How many processes join at a time. Raises ProbeError if half of them is no whole number."""
    if not halfway:
        return (ranks,)
    if ranks % 2:
        raise ProbeError(f"{ranks} processes have no way by half as many more: leave --halfway out")
    return (ranks // 2, ranks // 2)


def provoke(job: Job, ranks: int, parts: tuple[int, ...], port: int) -> Iterator[Figure]:
    """Let *parts* join one after the other, and tell what came of it. Raises DvfdError."""
    job.trains(ranks, max(STEPS_BEFORE, job.newest() + STEPS_BETWEEN))
    count = len(job.teams())
    lines, verified = [], []
    for more in parts:
        old = job.now()
        lines.append(_grow(job, old, more, port, most=1 + len(parts)))
        verified.append(job.verified(_as_it_ended(job, old).newest))
    worst = max(lines, key=lambda line: line.recovery)
    at = job.task.clock.now()
    before = job.teams()[:count]
    after = [team for team in job.teams()[count:] if team.first is not None]
    path = " -> ".join(str(team.world) for team in [before[-1], *after])
    yield from figures.timed(NAME, worst, f"processes joined: {path}", at)
    yield Fact(
        f"{NAME}: batch", f"{job.batch} samples over all ranks throughout, one learning rate"
    )
    yield from figures.continued(NAME, before, after, verified, at)


def _grow(job: Job, old: Team, more: int, port: int, *, most: int) -> Timeline:
    """Let *more* join *old*; the pause, from the last step of that team on."""
    asked, ranks = fuse.boot(), old.world
    job.task.say(f"{more} processes join {ranks}")
    job.start(elastic(more, port, most, host=False))
    wanted = old.newest + STEPS_AFTER

    def trains(found: list[Team]) -> bool:
        team = found[-1]
        return team.world == ranks + more and team.newest >= max(wanted, team.resumed + STEPS_AFTER)

    job.until(trains, RETURN, f"{ranks + more} processes that train")
    new, old = job.now(), _as_it_ended(job, old)
    first = new.first
    assert first is not None
    ended = old.made(old.newest)
    assert ended is not None
    return Timeline(
        harmed=asked, noticed=None, healed=ended, joined=new.joined, loaded=new.loaded,
        first=first, level=new.made(old.newest + 1), began="asked", ended="last step before",
    )  # fmt: skip


def _as_it_ended(job: Job, old: Team) -> Team:
    """The same team with all its steps."""
    return next(team for team in job.teams() if team.joined == old.joined)
