"""Whose turn it is in a job that is watched by turns, and what each turn took. Pure.

A job trains on, and what its reporter does changes every BLOCK steps: nothing, nothing again, dvfd,
prometheus_client. Every round has each once, in another order. Blocks of one round lie seconds
apart, so what disturbs the machine disturbs all of them: it is rounds that are compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.resample import mean_interval

ARMS = ("without", "again", "dvfd", "prometheus")
BLOCK = 25
"""Steps of a turn; as many lie between two hashes of the job, so that every turn has one."""

ORDERS = tuple(
    tuple(ARMS[n] for n in order)
    for order in ((0, 1, 3, 2), (1, 2, 0, 3), (2, 3, 1, 0), (3, 0, 2, 1))
)
"""Williams' square: each comes in each place once, and after each other once."""


def arm_of(step: int) -> str:
    """Whose turn the step number *step* is."""
    block = step // BLOCK
    return ORDERS[block // len(ARMS) % len(ORDERS)][block % len(ARMS)]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a rank: its number, when it was reported, and in the call the seconds and the
    processor seconds of its thread.
    """

    number: int
    end: float
    wall: float
    cpu: float


def rounds(steps: Sequence[Step], warm_up: float) -> list[dict[str, float]]:
    """Mean seconds a step of each arm, round by round: whole ones that began *warm_up* seconds
    after the first step. The first step of a turn, in which what reports is changed, is left out.
    """
    since = steps[0].end + warm_up
    found: dict[int, dict[str, list[float]]] = {}
    for step in steps:
        block = step.number // BLOCK
        arms = found.setdefault(block // len(ARMS), {})
        arms.setdefault(arm_of(step.number), []).append(step.end)
    return [
        {arm: (ends[-1] - ends[0]) / (BLOCK - 1) for arm, ends in arms.items()}
        for arms in found.values()
        if len(arms) == len(ARMS) and all(len(ends) == BLOCK for ends in arms.values())
        if min(ends[0] for ends in arms.values()) >= since
    ]


def ratio(found: Sequence[Mapping[str, float]], arm: str, base: str) -> tuple[float, float, float]:
    """Step time of *arm* over that of *base*: geometric mean over rounds, bootstrap interval."""
    return mean_interval([math.log(each[arm] / each[base]) for each in found], math.exp)


def call(steps: Sequence[Step], arm: str, what: str) -> list[float]:
    """What the calls of *arm* took: "wall" or "cpu"; the first of a turn is left out here too."""
    own = (s for s in steps if arm_of(s.number) == arm and s.number % BLOCK)
    return [getattr(step, what) for step in own]
