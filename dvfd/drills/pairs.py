"""What the convergence drill keeps between its runs: plans, and the curves of finished runs.

All runs of one configuration lie in one directory, named by its hash. A file of anything else in
their place is refused. Those of several nodes lie apart, in a directory for these very nodes.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from dvfd.drills import curve
from dvfd.drills.curve import Configuration
from dvfd.drills.drill import Fact
from dvfd.errors import ProbeError
from dvfd.reduce import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dvfd.drills.curve import Curve

FEWEST = 200
"""Steps without which a curve has no shape: the analysis smooths over a hundredth of them."""

WHOLE = 0.9
"""A pair that took less than this share of the planned time was shorter than planned: speeds
measured at the start are wrong by some percent."""


NODES, ASIDE = "nodes-", "aside-"
"""How the names of directories begin: of runs over several nodes, and of what was put aside."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """A place for the runs of one time, in seconds, and one number of distributed processes."""

    state: Path
    planned: float
    processes: int

    def home(self, plan: Plan) -> Path:
        """Where the runs of *plan* lie."""
        return self.state / plan.configuration.hash


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


def among(state: Path, names: Iterable[str]) -> Path:
    """Where in *state* lies what the nodes of these *names* trained together."""
    told = ",".join(sorted(names)).encode()
    return state / f"{NODES}{hashlib.sha256(told).hexdigest()[:12]}"


def planned(known: Configuration, long: float, speeds: Mapping[int, float]) -> Plan:
    """As many samples as both sides can see one after the other in *long* seconds.

    Raises ProbeError if they are too few, or a speed is none.
    """
    for processes, speed in speeds.items():
        if not isinstance(speed, int | float) or not 0.0 < speed < math.inf:
            raise ProbeError(f"a speed of {speed!r} samples/s with {processes} processes")
    steps = int(long / sum(1.0 / speed for speed in speeds.values()) / known.batch)
    if steps < FEWEST:
        raise ProbeError(
            f"{seconds(long)} are {steps} steps here, wanted at least {FEWEST}: "
            f"give --duration {math.ceil(long * FEWEST / max(1, steps))}"
        )
    return Plan(replace(known, samples=steps * known.batch), long)


def keep(shelf: Shelf, plan: Plan, speeds: Mapping[int, float]) -> None:
    """Remember the plan for the next run of the drill."""
    known = replace(plan.configuration, samples=0)
    document = {
        "configuration": asdict(plan.configuration),
        "planned": plan.planned,
        "speeds": {str(n): speed for n, speed in speeds.items()},
    }
    curve.put(_place(shelf, known), document)


def _place(shelf: Shelf, known: Configuration) -> Path:
    """Where the plan is kept: each length has its own, so that a quick look spoils no long one."""
    return shelf.state / f"plan-{known.hash}-{shelf.planned:g}s.json"


def kept(shelf: Shelf, known: Configuration) -> tuple[Plan, Mapping[int, float]] | None:
    """The plan of earlier runs, if it is for the same configuration and time."""
    try:
        found = curve.document(_place(shelf, known))
        configuration = Configuration.from_dict(found["configuration"])
        plan = Plan(configuration, float(found["planned"]))
        speeds = {n: float(found["speeds"][str(n)]) for n in (shelf.processes, 1)}
    except (ProbeError, KeyError, TypeError, ValueError):
        return None
    same = replace(configuration, samples=0) == known and plan.planned == shelf.planned
    sound = configuration.steps >= FEWEST and all(0 < s < math.inf for s in speeds.values())
    return (plan, speeds) if same and sound else None


def put_aside(state: Path, at: int) -> None:
    """Begin anew; what there was stays beside, under another name."""
    mark = f"{ASIDE}{at}"
    for path in state.iterdir() if state.exists() else ():
        if not path.name.startswith((ASIDE, NODES)):
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


def seed(home: Path, plan: Plan, processes: int) -> int:
    """The first whose pair is not finished."""
    found = 1
    while finished(pair(home, found, processes), plan):
        found += 1
    return found


def refuse(run: Run, why: str, at: int) -> str:
    """Make room for *run*; which file in its place was refused, in words, if there was one."""
    if not run.file.exists():
        return ""
    aside = run.file.with_suffix(f".refused-{at}")
    run.file.rename(aside)
    return f"{why}; kept as {aside.name}, trained again"


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
