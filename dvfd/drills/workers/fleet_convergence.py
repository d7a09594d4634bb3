"""One distributed run of the convergence drill, trained by the ranks of several nodes.

The lead's first rank keeps plans, checkpoints and curves on its own node, in a place for these very
nodes; the others see none of them. What one process does, measured here, is measured by that rank
while the others wait; its own run comes later, when this is over.

Options: `backend`, `model` (a configuration without text, torch and samples), `planned` (seconds of
a pair), `measure` (seconds), `fresh`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dvfd.drills import curve, pairs
from dvfd.drills.curve import Configuration
from dvfd.drills.pairs import Plan, Shelf
from dvfd.drills.workers import convergence, fleet_group, fleet_text
from dvfd.drills.workers.convergence import Training
from dvfd.drills.workers.fleet import Crew
from dvfd.drills.world import World

SLACK = 120.0
"""Seconds that a rank may be late where all wait for one."""


def run(crew: Crew, options: Mapping[str, Any]) -> dict[str, Any]:
    """What was trained, by the lead's first rank: `plan`, `seed`, `refused`, one process's `speed`.

    Raises NoGroup, Missing, ValueError, ProbeError, RuntimeError (torch's own), OSError.
    """
    os.nice(5)
    convergence.one_thread()
    timeout = convergence.COLLECTIVE
    place = fleet_group.join(crew, options["backend"], timeout=timeout, led=True)
    planned = Training(Configuration(**options["model"]), place, seed=1)
    fleet_text.same(crew, planned.text.hash)
    shelf = Shelf(
        pairs.among(crew.kept, [node.name for node in crew.nodes]), options["planned"], place.size
    )
    plan, speeds = _planned(crew, planned, shelf, options)
    told = _shared(place, _next(shelf, plan) if place.leads else {})
    if told["train"]:
        _train(place, plan, pairs.Run(shelf.home(plan), told["seed"], place.size))
    mine = {"plan": asdict(plan), "speed": speeds[1]}
    return mine | {k: told[k] for k in ("seed", "refused")} if place.leads else {}


def _planned(
    crew: Crew, training: Training, shelf: Shelf, options: Mapping[str, Any]
) -> tuple[Plan, Mapping[int, float]]:
    """The plan that was kept, else a new one by the speeds that both sides have now."""
    place, known = training.place, training.here
    found = None
    if place.leads:
        if options["fresh"]:
            pairs.put_aside(shelf.state, int(time.time()))
        found = pairs.kept(shelf, known)
    if not _shared(place, {"kept": found is not None})["kept"]:
        found = _new(crew, training, shelf, options["measure"])
    said = _shared(place, {"plan": asdict(found[0]), "speeds": found[1]} if found else {})
    plan = Plan(Configuration.from_dict(said["plan"]["configuration"]), said["plan"]["planned"])
    return plan, {int(count): speed for count, speed in said["speeds"].items()}


def _new(
    crew: Crew, training: Training, shelf: Shelf, long: float
) -> tuple[Plan, Mapping[int, float]] | None:
    """By the lead's first rank; the others only help it to measure."""
    place, known = training.place, training.here
    crew.say(f"measuring the speed of {place.size} processes, then of 1")
    together = convergence.measure(training, long)["speed"]
    found = None
    if place.leads:
        alone = Training(known, World(0, 1, place.device), seed=1)
        speeds = {place.size: together, 1: convergence.measure(alone, long)["speed"]}
        found = pairs.planned(known, shelf.planned, speeds), speeds
        pairs.keep(shelf, *found)
    crew.step("a plan", timeout=5 * long + SLACK)
    return found


def _next(shelf: Shelf, plan: Plan) -> dict[str, Any]:
    """The seed whose pair is not finished, whether its distributed run is to be trained, and which
    file in that run's place was none."""
    home = shelf.home(plan)
    seed = pairs.seed(home, plan, shelf.processes)
    many, _ = pairs.pair(home, seed, shelf.processes)
    why = pairs.unfinished(many, plan)
    refused = pairs.refuse(many, why, int(time.time())) if why else ""
    return {"seed": seed, "train": bool(why), "refused": refused}


def _train(place: World, plan: Plan, run: pairs.Run) -> None:
    training = Training(plan.configuration, place, run.seed)
    if training.here != training.wanted:
        raise ValueError("torch or the text is not what was planned")
    training.resume(run.checkpoints)
    training.finish(run.checkpoints)
    if place.leads:
        curve.write(run.file, convergence.curve_of(training))


def _shared(place: World, mine: Mapping[str, Any]) -> dict[str, Any]:
    """What the lead's first rank says, in every rank."""
    found: dict[str, Any] = json.loads(place.broadcast(json.dumps(mine).encode()))
    return found
