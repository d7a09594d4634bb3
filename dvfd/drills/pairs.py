"""What the convergence drill keeps between its runs: plans, and the curves of finished runs.

All runs of one configuration lie in one directory, named by its hash. A file of anything else in
their place is refused.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from dvfd.drills import curve
from dvfd.drills.curve import Configuration
from dvfd.drills.drill import Fact
from dvfd.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from dvfd.drills.curve import Curve
    from dvfd.drills.drill import Task

FEWEST = 200
"""Steps without which a curve has no shape: the analysis smooths over a hundredth of them."""

WHOLE = 0.9
"""A pair that took less than this share of the planned time was shorter than planned: speeds
measured at the start are wrong by some percent."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs that are compared: what they are runs of, and for how many seconds a pair was
    planned. The samples follow from speeds measured once, and are the same for all runs."""

    configuration: Configuration
    planned: float

    def seconds(self, speed: float) -> float:
        """How long a run takes at *speed* samples a second."""
        return self.configuration.samples / speed


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a plan: its file and its checkpoints."""

    home: Path
    seed: int
    processes: int

    @property
    def file(self) -> Path:
        """Where its curve lies once it is finished."""
        return self.home / f"seed-{self.seed}-processes-{self.processes}.json"

    @property
    def checkpoints(self) -> Path:
        """Where it saves what it has so far."""
        return self.home / f"seed-{self.seed}-processes-{self.processes}"


def keep(task: Task, plan: Plan, speeds: Mapping[int, float]) -> None:
    """Remember the plan for the next run of the drill."""
    known = replace(plan.configuration, samples=0)
    document = {
        "configuration": asdict(plan.configuration),
        "planned": plan.planned,
        "speeds": {str(n): speed for n, speed in speeds.items()},
    }
    curve.put(_place(task, known), document)


def _place(task: Task, known: Configuration) -> Path:
    """Where the plan is kept: each length has its own, so that a quick look spoils no long one."""
    return task.state / f"plan-{known.hash}-{task.planned:g}s.json"


def kept(task: Task, known: Configuration) -> tuple[Plan, Mapping[int, float]] | None:
    """The plan of earlier runs, if it is for the same configuration and time."""
    try:
        found = curve.document(_place(task, known))
        configuration = Configuration.from_dict(found["configuration"])
        plan = Plan(configuration, float(found["planned"]))
        speeds = {n: float(found["speeds"][str(n)]) for n in (task.processes, 1)}
    except (ProbeError, KeyError, TypeError, ValueError):
        return None
    same = replace(configuration, samples=0) == known and plan.planned == task.planned
    sound = configuration.steps >= FEWEST and all(0 < s < math.inf for s in speeds.values())
    return (plan, speeds) if same and sound else None


def put_aside(state: Path, at: int) -> None:
    """Begin anew; what there was stays beside, under another name."""
    mark = f"aside-{at}"
    for path in state.iterdir():
        if not path.name.startswith("aside-"):
            (state / mark).mkdir(exist_ok=True)
            path.rename(state / mark / path.name)


def others(state: Path, home: Path) -> Iterator[Fact]:
    """Say which runs are not looked at."""
    left = sorted(p.name for p in state.iterdir() if p.is_dir() and p != home)
    if left:
        words = f"of another configuration or put aside, not compared: {', '.join(left)}"
        yield Fact("loss curves left out", words)


def pair(home: Path, seed: int, processes: int) -> tuple[Run, Run]:
    """The distributed run and the single-process run of *seed*."""
    return Run(home, seed, processes), Run(home, seed, 1)


def read(run: Run, plan: Plan) -> Curve:
    """The curve of a finished run. Raises ProbeError if it is of anything else."""
    found = curve.read(run.file)
    seen = (found.hash, found.processes, found.seed, found.batch, len(found.losses))
    wanted = plan.configuration
    expected = (wanted.hash, run.processes, run.seed, wanted.batch, wanted.steps)
    if seen != expected:
        raise ProbeError(f"{run.file.name}: a run of {seen}, wanted {expected}: refused")
    return found


def unfinished(run: Run, plan: Plan) -> str:
    """Why *run* has no curve that counts, or nothing."""
    try:
        read(run, plan)
    except ProbeError as error:
        return str(error)
    return ""


def finished(both: tuple[Run, Run], plan: Plan) -> bool:
    """Whether both curves are there."""
    return not any(unfinished(run, plan) for run in both)


def complete(home: Path, plan: Plan, processes: int) -> list[tuple[Run, Run]]:
    """Every pair of which both runs are finished, by seed."""
    names = (path.name.split("-") for path in home.glob("seed-*-processes-1.json"))
    seeds = sorted(int(name[1]) for name in names if name[1].isdecimal())
    found = (pair(home, seed, processes) for seed in seeds)
    return [both for both in found if finished(both, plan)]


def ran(plan: Plan, runs: Sequence[Sequence[Run]]) -> float:
    """Seconds that every pair trained, or the planned ones if it was nearly that."""
    took = min(sum(read(run, plan).seconds for run in both) for both in runs)
    return plan.planned if took >= WHOLE * plan.planned else took
