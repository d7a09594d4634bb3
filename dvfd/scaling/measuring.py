"""Measure a training's throughput on some processes: the daemon's own receiver hears it.

Without a command it is the reference job. The training is ended when it was heard for long enough.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dvfd.drills.calibrate import reference
from dvfd.drills.trial import trial
from dvfd.environment import environment_facts
from dvfd.runs.baselines import blocks
from dvfd.runs.training import hash_of
from dvfd.scaling import asked
from dvfd.scaling.points import WINDOWS, How, Point

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dvfd.drills.drill import Task


def command_of(task: Task, command: Sequence[str], processes: int) -> list[str]:
    """What would be run: *command*, or the reference job with *processes* ranks on this node.

    Its backend is told only where it is not the job's own, as a stability run of it has it: both
    are the same training.
    """
    if command:
        return list(command)
    made = reference(task, processes)
    return made[:-1] if made[-1] == "--backend=gloo" else made


def measure(
    task: Task, command: Sequence[str], *, processes: int, seconds: float, by: str
) -> Point:
    """Train for *seconds* after the warm-up. Raises DvfdError."""
    chosen = command_of(task, command, processes)
    here = min(processes, task.processes) if command else processes
    found = trial(task, chosen, seconds=seconds, processes=processes, here=here)
    ended = task.clock.now()
    point = Point(
        processes=processes,
        throughput=sum(found.rates) / len(found.rates),
        how=How.MEASURED,
        configuration=hash_of(chosen, found.job),
        began=ended - found.seconds,
        ended=ended,
        by=by,
        windows=blocks(found.rates, WINDOWS),
        communication=found.communication,
        nodes=task.config.profile.nodes if processes > here else 1,
        job=found.job,
        command=found.command,
        processor=environment_facts(task.proc).get("processor", ""),
    )
    (ends,) = asked.ask([point], run=task.run).intervals
    if ends is None:
        return point
    return replace(point, low=min(ends[0], point.throughput), high=max(ends[1], point.throughput))
