"""What a recovery is told by: its figures, taken from before and after. Judges nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.drills.reliability import course
from dvfd.model import Sample, labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dvfd.drills.reliability.course import Team, Timeline

SECONDS, LOST = "recovery_seconds", "recovery_lost_steps"
SAMPLES, JUMP = "recovery_sample_errors", "recovery_loss_jump"

Figure = Sample | Remark | Trouble | Fact


def timed(scenario: str, line: Timeline, harm: str, at: float) -> Iterator[Figure]:
    """How long it took, and the parts of it."""
    where = labels(scenario=scenario)
    yield Sample(SECONDS, line.recovery, at, where)
    yield Remark(SECONDS, f"injected on purpose: {harm}; {line.words}", where)
    yield Fact(f"{scenario}: injected fault", harm)
    yield Fact(f"{scenario}: timeline", line.words)


def continued(
    scenario: str,
    before: Sequence[Team],
    after: Sequence[Team],
    verified: Sequence[int],
    at: float,
) -> Iterator[Figure]:
    """Whether the training went on as if nothing had been: *before* the fault, and *after* it.

    *verified* has, for each team after it, the step of the newest checkpoint that was whole then.
    """
    where = labels(scenario=scenario)
    lost = [max(0, step - team.resumed) for step, team in zip(verified, after, strict=True)]
    yield Sample(LOST, float(max(lost)), at, where)
    for step, team in zip(verified, after, strict=True):
        words = f"went on from step {team.resumed}; step {step} was the newest verified checkpoint"
        yield Remark(LOST, words, where)
    found = course.seen([*before, *after])
    if found.looked:
        yield Sample(SAMPLES, float(found.errors), at, where)
        yield Remark(SAMPLES, found.words, where)
    else:
        yield Trouble(SAMPLES, "no step was made by all ranks, wanted samples to look at", where)
    yield from _loss(scenario, before, after, at)


def _loss(
    scenario: str, before: Sequence[Team], after: Sequence[Team], at: float
) -> Iterator[Figure]:
    where = labels(scenario=scenario)
    old = _losses(before)
    jumps = []
    for team in after:
        new = team.losses()
        if (off := course.jump(old, new)) is not None:
            jumps.append(off)
            again, most = course.redone(old, new)
            words = f"{again} steps done again: their losses differ by {most:.1e} at most"
            yield Remark(JUMP, words, where)
        old |= new
    if len(jumps) == len(after) or math.inf in jumps:
        yield Sample(JUMP, max(jumps), at, where)
    else:
        steps = f"{len(old)} steps in all"
        why = (
            "too few steps, or a loss that is no number, before or after: wanted losses to compare"
        )
        yield Trouble(JUMP, f"{why}; {steps}", where)


def _losses(found: Sequence[Team]) -> dict[int, float]:
    losses: dict[int, float] = {}
    for team in found:
        losses |= team.losses()
    return losses
