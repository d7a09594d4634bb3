"""Train the same thing on several processes and on one, and read off how their losses compare.

The processes are this node's, or those of several nodes: then the lead alone has the curves, trains
the one process and judges.

Each run of the drill adds one pair with a seed of its own. Finished runs are files under the hash
of their configuration in the drill's state, so pairs come together over days; a run that was
interrupted goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from dvfd import cluster
from dvfd.drills import curve, fleet, pairs
from dvfd.drills.curve import Configuration
from dvfd.drills.drill import Elsewhere, Fact, Ran, Remark, Trouble
from dvfd.drills.interpreter import BARE, LOADING, first_to_fall, last_words, read_answer
from dvfd.drills.pairs import Plan, Shelf
from dvfd.errors import ProbeError, ToolError
from dvfd.model import Sample
from dvfd.reduce import seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from dvfd.drills.drill import Task
    from dvfd.drills.pairs import Run
    from dvfd.shell import Output

    Found = Sample | Remark | Trouble | Fact | Ran | Elsewhere

WORKER = "dvfd.drills.workers.convergence"

PLAN = "plan.json"

PER_PROCESS = 4
"""Samples per process and step: the reference job's."""

WARM_UP = 50
"""Steps over which the learning rate rises: AdamW's second moments are noise before that."""

MEASURING = (3.0, 60.0)
"""Seconds, at least and at most, that the speed of a side is measured; a 20th of what is planned
lies between them."""

PATIENCE = 4.0
"""A run may take so many times what was measured: another load came, or a validation."""

BETWEEN = "loss curves"
"""The exercise of the ranks of several nodes."""

ANALYSING = 600.0
"""Seconds for the statistics: about 10 for a million steps."""

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "GROUP_", "ROLE_", "TORCHELASTIC_", "PET_")
"""What a rank's environment has from its launcher: a child with it would think that it is one."""


class Side(Protocol):
    """Where several processes train together."""

    def train(self, task: Task, arguments: Sequence[str], *, limit: float) -> None:
        """Run the worker with *arguments* in every rank, within *limit* seconds. Raises
        DvfdError."""
        ...

    def close(self) -> None:
        """Need the ranks no longer."""
        ...


class Torchrun:
    """Ranks that torchrun starts anew for every order."""

    def train(self, task: Task, arguments: Sequence[str], *, limit: float) -> None:
        """Run the worker under torchrun."""
        command = [
            task.python, "-m", "torch.distributed.run",
            "--nnodes=1", f"--nproc_per_node={task.processes}", "--rdzv-backend=c10d",
            "--rdzv-endpoint=127.0.0.1:0", "--max-restarts=0", str(BARE), WORKER,
        ]  # fmt: skip
        _run(task, [*command, *arguments], limit=2 * LOADING + limit)

    def close(self) -> None:
        """Nothing is kept."""


def single(task: Task, arguments: Sequence[str], *, limit: float) -> None:
    """Run the worker as one process, with one thread like a rank. Raises DvfdError."""
    _run(task, [task.python, str(BARE), WORKER, *arguments], limit=LOADING + limit)


def _run(task: Task, command: Sequence[str], *, limit: float) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith(TORCHRUN)}
    env["OMP_NUM_THREADS"] = env.get("OMP_NUM_THREADS", "1")  # torchrun warns where it is not set
    output = task.run(command, timeout=limit, env=env, on_line=task.say)
    if output.code:
        raise ToolError(f"training failed: {cause(output)}")


def cause(output: Output) -> str:
    """Which rank failed first and why, from the words of torchrun, else the last words."""
    lines = [line.strip() for line in output.stderr.splitlines()]
    error = next((line for line in lines if _is_error(line)), "")
    first = first_to_fall(output.stderr)
    return "; ".join(filter(None, (first, error[:300]))) or last_words(output)


def _is_error(line: str) -> bool:
    """Whether *line* ends a traceback, or is what C++ says before it aborts."""
    name = line.partition("]: ")[2] if line.startswith("[rank") else line
    kind = name.partition(":")[0].rpartition(".")[2]
    if kind == "ChildFailedError":  # torchrun's own: that there was one is known
        return False
    return kind.endswith(("Error", "Exception", "Fault")) or line.startswith(
        ("what():", "terminate called")
    )


class Convergence:
    """The whole drill: plan, train what is missing of a pair, analyse all pairs."""

    name = "loss curves"
    metrics = (
        "loss_curve_difference_ratio",
        "loss_speed_ratio",
        "loss_final_difference_ratio",
        "loss_diverged",
        "loss_oscillations",
        "loss_gap_excess_ratio",
        "loss_nonfinite_values",
    )

    def __init__(self, side: Side | None = None, model: Configuration | None = None) -> None:
        self._side = side or Torchrun()
        self._model = model or Configuration()

    def exercises(self, task: Task) -> list[fleet.Exercise]:
        """The distributed run, where it is on several nodes."""
        count = fleet.nodes(task)
        if count < 2 or not task.options.soak:
            return []
        told = {
            "backend": task.config.profile.backend,
            "model": asdict(self._asked(count * task.processes)),
            "planned": task.planned,
            "measure": _measuring(task),
            "fresh": task.options.fresh,
        }
        worker = "dvfd.drills.workers.fleet_convergence"
        long = 2 * LOADING + 20 * _measuring(task) + PATIENCE * task.planned
        return [fleet.Exercise(name=BETWEEN, module=worker, seconds=long, options=told)]

    def run(self, task: Task) -> Iterator[Found]:
        """Add a pair and compare all there are. Raises DvfdError."""
        try:
            if why := _left_out(task):
                yield from (Trouble(metric, why) for metric in self.metrics)
                return
            if fleet.nodes(task) > 1:
                yield from self._between(task)
                return
            if task.options.inside:
                self._side = Ranks(task.config.profile.backend)
            yield from self._pairs(task)
        except OSError as error:
            raise ProbeError(f"{error.filename or task.state}: {error.strerror}") from None
        finally:
            self._side.close()

    def _pairs(self, task: Task) -> Iterator[Found]:
        if task.options.fresh:
            pairs.put_aside(task.state, int(task.clock.now()))
        shelf = Shelf(task.state, task.planned, task.processes)
        plan, speeds = self._plan(task, shelf)
        home = shelf.home(plan)
        yield from pairs.others(task.state, home)
        seed = pairs.seed(home, plan, task.processes)
        many, _ = pairs.pair(home, seed, task.processes)
        yield from self._train(task, plan, many, speeds[task.processes])
        self._side.close()  # what follows takes hours and needs one process
        yield from self._compared(task, shelf, plan, seed, speeds[1])

    def _between(self, task: Task) -> Iterator[Found]:
        """The same, the distributed run trained by several nodes: the lead goes on with it."""
        answer = fleet.answer(task)
        heard = answer.of(BETWEEN)
        if heard.failures:
            raise ProbeError(f"training failed: {heard.why}")
        yield from fleet.facts(answer)
        led = cluster.lead(task.config.cluster).name
        if task.config.node.name != led:
            yield Elsewhere(led)
            return
        state = pairs.among(task.state, [met.name for met in answer.nodes])
        shelf = Shelf(state, task.planned, len(heard.values))
        done = trained(heard)
        if done.refused:
            yield Fact("loss curve refused", done.refused)
        yield from pairs.others(state, shelf.home(done.plan))
        _write_plan(task, done.plan.configuration)
        yield from self._compared(task, shelf, done.plan, done.seed, done.speed)

    def _compared(
        self, task: Task, shelf: Shelf, plan: Plan, seed: int, speed: float
    ) -> Iterator[Found]:
        """Train the one process beside the distributed run of *seed*, and compare all pairs."""
        home = shelf.home(plan)
        many, one = pairs.pair(home, seed, shelf.processes)
        pairs.read(many, plan)
        yield from self._train(task, plan, one, speed)
        runs = pairs.complete(home, plan, shelf.processes)
        yield Ran(pairs.ran(plan, runs))
        yield Fact("loss curves", _words(plan, len(runs), shelf.processes))
        yield from figures(_analyse(task, runs), self.metrics, task.clock.now())

    # --- the plan -----------------------------------------------------------------------------

    def _plan(self, task: Task, shelf: Shelf) -> tuple[Plan, Mapping[int, float]]:
        """What is compared, and the speed of each side in samples per second.

        The plan of an earlier run stands if nothing has changed: runs of it can be added to.
        """
        known = self._here(task)
        found = pairs.kept(shelf, known)
        if not found:
            speeds = self._speeds(task)
            found = pairs.planned(known, task.planned, speeds), speeds
            pairs.keep(shelf, *found)
        _write_plan(task, found[0].configuration)
        return found

    def _here(self, task: Task) -> Configuration:
        """What would be trained with the torch and on the text that are here."""
        asked = self._asked(task.processes)
        _write_plan(task, asked)
        here = self._measure(task, 1, 0.0)
        return replace(asked, torch=str(here["torch"]), text=str(here["text"]))

    def _asked(self, processes: int) -> Configuration:
        """What so many processes train together: as many samples each, however many they are."""
        each = PER_PROCESS * processes
        return replace(self._model, batch=each, warm_up=WARM_UP * each)

    def _speeds(self, task: Task) -> dict[int, float]:
        found = {}
        for processes in (task.processes, 1):
            task.say(f"measuring the speed of {processes} process{'es' * (processes > 1)}")
            speed = self._measure(task, processes, _measuring(task))["speed"]
            if not isinstance(speed, int | float) or not 0.0 < speed < math.inf:
                raise ProbeError(f"a speed of {speed!r} samples/s with {processes} processes")
            found[processes] = float(speed)
        return found

    def _measure(self, task: Task, processes: int, long: float) -> dict[str, Any]:
        answer = task.scratch / f"measured-{processes}-{long:g}.json"
        self._order(task, processes, answer, ["--measure", str(long)], limit=LOADING + 5 * long)
        said = read_answer(answer)
        if missing := {"torch", "text", "speed", "processes"} - set(said):
            raise ProbeError(f"the worker's answer lacks {', '.join(sorted(missing))}")
        if said["processes"] != processes:
            raise ProbeError(f"{said['processes']} processes trained, wanted {processes}")
        return said

    def _order(
        self, task: Task, processes: int, answer: Path, more: Sequence[str], *, limit: float
    ) -> None:
        arguments = ["--plan", str(task.scratch / PLAN), "--answer", str(answer), *more]
        arguments += ["--backend", task.config.profile.backend]
        train = self._side.train if processes > 1 else single
        train(task, arguments, limit=limit)

    # --- one run ------------------------------------------------------------------------------

    def _train(self, task: Task, plan: Plan, run: Run, speed: float) -> Iterator[Fact]:
        """Train *run* if it is not finished; say which file in its place was no such run."""
        if not (why := pairs.unfinished(run, plan)):
            return
        if refused := pairs.refuse(run, why, int(task.clock.now())):
            yield Fact("loss curve refused", refused)
        expected = plan.seconds(speed)
        task.say(f"seed {run.seed}, processes {run.processes}: about {seconds(expected)}")
        more = ["--seed", str(run.seed), "--checkpoints", str(run.checkpoints)]
        limit = LOADING + PATIENCE * expected
        try:
            self._order(task, run.processes, run.file, more, limit=limit)
        except ToolError as error:
            raise ToolError(f"{error}; another run of the drill goes on from there") from None
        pairs.read(run, plan)


def _left_out(task: Task) -> str:
    """Why nothing is trained now, or nothing. On several nodes a training job is told to all."""
    if not task.options.soak:
        return "left out: --no-soak"
    if fleet.nodes(task) > 1:
        return ""
    if task.training and not task.options.force:
        return f"a training job runs: {task.training}; --force runs it all the same"
    if task.processes < 2:
        return "profile.processes_per_node is 1: there is nothing to compare with one process"
    return ""


@dataclass(frozen=True, slots=True)
class Trained:
    """What the ranks of several nodes trained: a seed of a plan. *speed* is that of one process in
    samples a second, `refused` says which file in the run's place was none.
    """

    plan: Plan
    seed: int
    speed: float
    refused: str


def trained(heard: fleet.Heard) -> Trained:
    """What the lead's first rank said. Raises ProbeError if that is not what it writes."""
    said: Mapping[str, Any] = next(filter(None, heard.values.values()), {})
    try:
        configuration = Configuration.from_dict(said["plan"]["configuration"])
        plan = Plan(configuration, float(said["plan"]["planned"]))
        speed = float(said["speed"])
        return Trained(plan, int(said["seed"]), speed, str(said["refused"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ProbeError(f"answer of the ranks: {error!r}: wanted what they write") from None


def _measuring(task: Task) -> float:
    """Seconds for which the speed of a side is measured."""
    least, most = MEASURING
    return min(most, max(least, task.planned / 20))


def _write_plan(task: Task, configuration: Configuration) -> None:
    """Tell the workers what to train."""
    curve.put(task.scratch / PLAN, asdict(configuration))


def _words(plan: Plan, pairs: int, processes: int) -> str:
    wanted = plan.configuration
    return (
        f"{pairs} pair{'s' * (pairs > 1)} of {processes} processes and 1, {wanted.samples} samples "
        f"each in {wanted.steps} steps of {wanted.batch}; "
        f"{wanted.layers} layers of {wanted.width}, {wanted.precision}, torch {wanted.torch}, "
        f"configuration {wanted.hash}"
    )


# --- Figures ----------------------------------------------------------------------------------


def _analyse(task: Task, runs: Sequence[Sequence[Run]]) -> dict[str, Any]:
    """What the statistics say, from a child of dvfd's own interpreter."""
    margin = task.limit("final")
    if margin is None:
        raise ProbeError(f"{task.check.id}.final has no limit: it is the margin of equivalence")
    asked = {"pairs": [[str(run.file) for run in pair] for pair in runs], "margin": margin}
    command = [sys.executable, "-P", "-m", "dvfd.analysis"]
    output = task.run(command, timeout=ANALYSING, stdin=json.dumps(asked).encode())
    if output.code:
        raise ToolError(f"dvfd.analysis: {last_words(output)}")
    try:
        said = json.loads(output.stdout)
    except ValueError as error:
        raise ProbeError(f"dvfd.analysis: its answer cannot be read: {error}") from None
    if not isinstance(said, dict):
        raise ProbeError("dvfd.analysis: its answer is no object")
    return said


def figures(
    said: Mapping[str, Any], metrics: Sequence[str], at: float
) -> Iterator[Sample | Remark | Trouble]:
    """What the analysis *said*, as samples a millisecond apart that end at *at*. Raises
    ProbeError."""
    try:
        for metric in metrics:
            rows = said["figures"].get(metric, [])
            for place, row in enumerate(reversed(rows)):
                yield Sample(metric, *_bounds(row, at - place / 1000))
            if not rows:
                why = said["troubles"].get(metric, "the analysis says nothing of it")
                yield Trouble(metric, str(why))
            if words := said["remarks"].get(metric):
                yield Remark(metric, str(words))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProbeError(f"dvfd.analysis: its answer is not what it should be: {error!r}") from None


def _bounds(row: Mapping[str, Any], at: float) -> Iterator[Any]:
    """The arguments of a Sample."""
    low, high = row["low"], row["high"]
    ends = [None if end is None else float(end) for end in (low, high)]
    return iter((float(row["value"]), at, (), *ends))


# --- Inside torchrun --------------------------------------------------------------------------


class Ranks:
    """The ranks that torchrun already started: this is rank 0 of them, the others `follow`."""

    def __init__(self, backend: str) -> None:
        from dvfd.drills.workers import convergence  # noqa: PLC0415  # torch, in a rank only

        self._worker = convergence
        self._place = convergence.enter(backend)
        self._open = True

    def train(self, task: Task, arguments: Sequence[str], *, limit: float) -> None:
        """Have the others do what this rank does."""
        if self._place.size != task.processes:
            raise ProbeError(
                f"torchrun started {self._place.size} ranks, profile.processes_per_node is "
                f"{task.processes}: give --nproc_per_node={task.processes}"
            )
        try:
            self._worker.lead(self._place, arguments)
        except (RuntimeError, ValueError) as error:
            self._open = False  # the ranks have no group any more that could hear of the end
            raise ToolError(f"training failed: {error}") from None

    def close(self) -> None:
        """Let the others end."""
        if self._open:
            self._open = False
            self._worker.release(self._place)


def follow(backend: str) -> NoReturn:
    """Be a rank other than 0 until rank 0 needs it no longer; ends the process."""
    from dvfd.drills import stopping  # noqa: PLC0415  # of a rank only
    from dvfd.drills.workers import convergence  # noqa: PLC0415  # torch, in a rank only

    convergence.follow(convergence.enter(backend))
    stopping.leave(0)
