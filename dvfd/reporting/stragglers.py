"""Which rank computed longest, how often, and what the others waited for it. Pure.

Ranks that train together end each step together: what the slowest one computes longer than the
middle one is time that the others wait, and it is inside of the steps, not beside them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dvfd.reporting.story import Pace, Stragglers

if TYPE_CHECKING:
    from collections.abc import Mapping

Seat = tuple[int, str]
"""A rank and its node."""

ALONE = "one rank was heard: there is no other to hold it against"
UNTOLD = (
    "no rank tells its compute section: Reporter.step(compute=SECONDS) would tell the ranks "
    "apart, which the length of a step cannot, since all wait for the slowest"
)


@dataclass(slots=True)
class Watcher:
    """Takes steps in, one stretch after the other; `found` is what they come to."""

    seconds: dict[Seat, float] = field(default_factory=dict)  # of computing
    steps: dict[Seat, float] = field(default_factory=dict)
    slowest: dict[Seat, float] = field(default_factory=dict)  # seconds of the steps
    cost: dict[Seat, float] = field(default_factory=dict)
    compared: float = 0.0

    def add(self, computes: Mapping[Seat, float], steps: float, stepping: float) -> None:
        """*steps* that took *stepping* seconds, with the mean compute section of each rank."""
        for seat, compute in computes.items():
            self.seconds[seat] = self.seconds.get(seat, 0.0) + compute * steps
            self.steps[seat] = self.steps.get(seat, 0.0) + steps
        if len(computes) < 2 or steps <= 0:
            return
        self.compared += stepping
        middle = sorted(computes.values())[(len(computes) - 1) // 2]
        seat = max(computes, key=lambda each: (computes[each], each))
        behind = min(steps * (computes[seat] - middle), stepping)
        if behind > 0:
            self.slowest[seat] = self.slowest.get(seat, 0.0) + stepping
            self.cost[seat] = self.cost.get(seat, 0.0) + behind

    def found(self, heard: int) -> Stragglers:
        """What it comes to; *heard* ranks told steps."""
        if not self.compared:
            reason = ALONE if heard == 1 else UNTOLD
            return Stragglers(reason=reason)
        paces = [
            Pace(
                rank=seat[0],
                node=seat[1],
                compute=self.seconds[seat] / self.steps[seat],
                slowest=min(1.0, self.slowest.get(seat, 0.0) / self.compared),
                cost=self.cost.get(seat, 0.0),
            )
            for seat in self.seconds
            if self.steps[seat] > 0 and math.isfinite(self.seconds[seat])
        ]
        worst = sorted(paces, key=lambda pace: (-pace.cost, pace.rank))
        return Stragglers(paces=tuple(worst), compared=self.compared)
