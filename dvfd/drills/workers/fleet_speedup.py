"""Training throughput of all ranks of a crew against that of one, in turns.

The reference model of the convergence drill, the same samples per rank: weak scaling. While rank 0
trains alone the others wait, so it has the node to itself. Before the first turn both train long
enough to know how many steps a turn has.

Options: `backend`, `batch` (samples per rank and step), `seconds` of a turn, `turns`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from dvfd.drills.curve import Configuration
from dvfd.drills.workers import fleet_group
from dvfd.drills.workers.collective import CollectiveFailed
from dvfd.drills.workers.convergence import BEFORE, Training
from dvfd.drills.workers.fleet import Crew
from dvfd.drills.world import World

SEED = 1

TRIAL = 10
"""Steps by which a step's time is known well enough to plan turns."""

SLACK = 60.0
"""Seconds beyond a turn that a rank may come late."""


class Side:
    """One of the two that are compared, as one rank takes part in it; *crew* knows the others."""

    def __init__(self, crew: Crew, name: str, place: World, batch: int) -> None:
        self._crew, self._name = crew, name
        self._works = crew.rank < place.size
        self._training = Training(Configuration(batch=batch * place.size), place, SEED)
        self._steps, self._patience = 0, SLACK
        self.speeds: list[float] = []

    def plan(self, seconds: float) -> None:
        """Have turns of so many seconds, by rank 0's clock."""
        self._took(BEFORE)
        each = self._took(TRIAL) / TRIAL
        said = self._crew.gather(self._name, max(TRIAL, round(seconds / each)) if each else 0)
        self._steps = int(said[0])
        self._patience = seconds + SLACK

    def turn(self) -> None:
        """Train a turn, once all are there; samples per second of all ranks of this side."""
        self._crew.step(self._name, timeout=self._patience)
        if took := self._took(self._steps):
            self.speeds.append(self._steps * self._training.wanted.batch / took)

    def _took(self, steps: int) -> float:
        """Seconds of *steps* steps, 0 for a rank that has no part in it."""
        if not self._works:
            return 0.0
        began = time.monotonic()
        for _ in range(steps):
            self._training.advance()
        if self._training.place.device.type == "cuda":
            torch.cuda.synchronize(self._training.place.device)
        took = time.monotonic() - began
        self._training.gather()
        return took


def run(crew: Crew, options: Mapping[str, Any]) -> dict[str, list[float]]:
    """Samples per second of all ranks together and of rank 0 alone, one for each turn.

    Raises CollectiveFailed, Missing.
    """
    place = fleet_group.join(crew, options["backend"])
    group = fleet_group.witness()
    try:
        return _speeds(crew, place, options)
    except RuntimeError as error:
        patience = fleet_group.ENTERING
        why = fleet_group.broke(crew, group, error, "training", patience=patience)
        raise CollectiveFailed(why) from error


def _speeds(crew: Crew, place: World, options: Mapping[str, Any]) -> dict[str, list[float]]:
    batch = int(options["batch"])
    together = Side(crew, "together", place, batch)
    alone = Side(crew, "alone", World(0, 1, place.device), batch)
    for side in (together, alone):
        side.plan(float(options["seconds"]))
    for turn in range(int(options["turns"])):
        crew.say(f"training: turn {turn + 1} of {options['turns']}")
        together.turn()
        alone.turn()
    return {"together": together.speeds, "alone": alone.speeds}
