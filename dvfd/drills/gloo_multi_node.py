"""Ring, tree, all-gather and barrier over several nodes, and the speed-up of training on them.

Under the profile's backend, whatever the name says (reading 5).
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from dvfd.derive import percentile
from dvfd.drills import collectives, fleet, processors, sweep
from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.drills.interpreter import finite
from dvfd.drills.ring import figures
from dvfd.drills.sweep import HALF, Sweep, Swept, row
from dvfd.errors import ProbeError
from dvfd.model import Sample, labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dvfd.drills.drill import Task

    Found = Sample | Remark | Trouble | Fact

CORRECT = "collective_correct_ratio"
BUSBW = "collective_busbw_bytes_per_second"
HALF_BUSBW = "collective_half_busbw_bytes_per_second"
TREE = "collective_tree_ratio"
GATHERED = "collective_gathered_tensors"
BARRIER = "collective_barrier_seconds"
VIOLATIONS = "collective_barrier_violations"
SPEEDUP = "scaling_speedup_ratio"

MESSAGES = ("256B", "64KiB", "1MiB", "16MiB", "bucket")

ALGORITHMS = ("builtin", "ring", "tree", "doubling", "hierarchical")
"""The backend's own, and those of `dvfd.drills.workers.algorithms`."""

OFTEN = 60
"""How often the bucket is timed by the backend's own algorithm: two bandwidths of it are compared,
and three times as many as must be make the interval almost half as wide."""


class Collectives:
    """Sums and copies verified, bandwidth of all ranks and of half of them, tree against ring."""

    name = "ring, tree and all-gather"
    metrics = (CORRECT, BUSBW, HALF_BUSBW, TREE, GATHERED)

    def exercises(self, task: Task) -> list[fleet.Exercise]:
        """One sweep."""
        return [_sweep(task).exercise(task)]

    def run(self, task: Task) -> Iterator[Found]:
        """Raises ProbeError where a rank failed."""
        found, at = _sweep(task).read(task), task.clock.now()
        yield from _right(found, at)
        yield from _bandwidths(task, found, at)
        yield from _trees(found, at)
        yield from _crowded(task, (BUSBW, TREE))
        yield from _table(found)
        yield from fleet.facts(fleet.answer(task))


def _sweep(task: Task) -> Sweep:
    """Every algorithm and the all-gather, message by message; then the bucket by half the ranks."""
    rows = []
    for message in MESSAGES:
        for algorithm in ALGORITHMS:
            least = OFTEN if (algorithm, message) == ("builtin", "bucket") else 0
            rows.append(row(message, algorithm=algorithm, least=least))
        rows.append(row(message, operation="all_gather"))
    if fleet.ranks(task) > 1:
        rows.append(row("bucket", team=HALF, least=OFTEN))
    return Sweep("collectives", tuple(rows))


def _right(found: Swept, at: float) -> Iterator[Found]:
    """The share of right results by operation and algorithm; the builtin one counts as a ring too,
    for it is one where messages are large."""
    kinds = [("all_reduce", algorithm) for algorithm in ALGORITHMS]
    for operation, algorithm in [*kinds, ("all_gather", "builtin")]:
        same = {algorithm, "builtin"} if algorithm == "ring" else {algorithm}
        about = [m for m in found.measured if m.operation == operation and m.algorithm in same]
        where = labels(operation=operation, algorithm=algorithm)
        for (kind, by, message, _), why in found.shortened.items():
            if kind == operation and by in same and not _timed(found, kind, by, message):
                yield Trouble(CORRECT, f"{by} of {message} was not timed: {why}", where)
        if not about:
            continue
        verified, wrong = (sum(m.verified for m in about), sum(m.wrong for m in about))
        yield Sample(CORRECT, (verified - wrong) / verified, at, where)
        for each in (m for m in about if m.wrong):
            text = f"{each.algorithm}, {each.message}: {each.wrong} of {each.verified} wrong"
            yield Remark(CORRECT, f"{text}; {each.example}", where)
    if found.whole is not None:
        yield Sample(GATHERED, found.whole, at)


def _timed(found: Swept, operation: str, algorithm: str, message: str) -> bool:
    wanted = (operation, algorithm, message)
    return any((m.operation, m.algorithm, m.message) == wanted for m in found.measured)


def _bandwidths(task: Task, found: Swept, at: float) -> Iterator[Found]:
    for metric, team in ((BUSBW, "all"), (HALF_BUSBW, HALF)):
        if team == HALF and fleet.ranks(task) < 2:
            why = f"{fleet.ranks(task)} rank on each node: there is no half of them"
            yield Trouble(metric, why)
            yield Trouble(BUSBW, why)
            continue
        each = found.of("all_reduce", "builtin", "bucket", team)
        scale = each.busbw * each.median
        low, high = scale / each.high, scale / each.low
        yield Sample(metric, each.busbw, at, low=low, high=high)


def _trees(found: Swept, at: float) -> Iterator[Found]:
    """Tree over ring by message, and where they cross."""
    points = []
    for message in MESSAGES:
        where = labels(message=message)
        try:
            tree, ring = (found.of("all_reduce", way, message) for way in ("tree", "ring"))
        except ProbeError as error:
            yield Trouble(TREE, str(error), where)
            continue
        value, low, high = sweep.ratio(tree, ring)
        points.append((tree.bytes, value))
        yield Sample(TREE, value, at, where, low, high)
    if points:
        yield Remark(TREE, crossing(points))
        yield Fact("tree and ring", crossing(points))


def crossing(points: Sequence[tuple[int, float]]) -> str:
    """In words at which size the ring becomes the faster one."""
    crosses = sweep.crossover(points)
    if crosses is not None:
        return f"tree and ring cross at about {crosses / 1024:.3g} KiB"
    faster = "tree" if points[-1][1] < 1 else "ring"
    return f"{faster} is the faster one at every size that was tried"


def _table(found: Swept) -> Iterator[Fact]:
    for message in MESSAGES:
        first, *others = found.all_reduces(message) or (None,)
        if first is None:
            continue  # the troubles of every metric tell why
        others_told = ", ".join(f"{m.algorithm} {1e3 * m.median:.3g} ms" for m in others)
        yield Fact(
            f"all-reduce of {message}",
            f"fastest by {first.algorithm}: {figures(first)}; {others_told}",
        )
        gathered = found.of("all_gather", "builtin", message)
        yield Fact(f"all-gather of {message}", figures(gathered))
    for name, places in found.addresses.items():
        yield Fact(f"ranks of {name} listen on", ", ".join(places) or "what could not be read")
    for number, line in enumerate(found.graphs, 1):
        yield Fact(f"NCCL {number}", line)


def _crowded(task: Task, metrics: Iterable[str]) -> Iterator[Remark]:
    if task.config.profile.backend == "gloo" and (text := processors.crowding(task)):
        yield from (Remark(metric, text) for metric in metrics)


# --- Barrier --------------------------------------------------------------------------------------


class Barriers:
    """How long a barrier takes, and whether it holds."""

    name = "barrier"
    metrics = (BARRIER, VIOLATIONS)

    count = 500
    """Timed, so that 5 lie above the quantile that is judged."""

    rounds = 30

    def exercises(self, task: Task) -> list[fleet.Exercise]:
        """One of its own: what breaks in a collective leaves it."""
        options = {
            "backend": task.config.profile.backend,
            "timeout": sweep.TIMEOUT,
            "count": self.count,
            "rounds": self.rounds,
        }
        worker = "dvfd.drills.workers.fleet_barriers"
        return [fleet.Exercise(name="barriers", module=worker, seconds=120.0, options=options)]

    def run(self, task: Task) -> Iterator[Found]:
        """Raises ProbeError where a rank failed."""
        heard, at = fleet.answer(task).of("barriers"), task.clock.now()
        if heard.failures:
            raise ProbeError(heard.why)
        try:
            took = [collectives.count(n) / 1e9 for n in heard.values[0]["slowest"]]
            early = {r: collectives.count(said["early"]) for r, said in heard.values.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise ProbeError(f"answer of the ranks: {error}: wanted what they write") from None
        if len(took) != self.count or min(took) <= 0:
            raise ProbeError(f"answer of the ranks: {len(took)} barriers, wanted {self.count}")
        yield from (Sample(BARRIER, seconds, at) for seconds in took)
        yield Sample(VIOLATIONS, sum(early.values()), at)
        for rank, times in early.items():
            if times:
                text = f"rank {rank} left {times} of {self.rounds} before the last had come"
                yield Remark(VIOLATIONS, text)
        yield from _crowded(task, (BARRIER,))
        yield Fact("barrier", told(took, len(heard.values)))


def told(took: Sequence[float], ranks: int) -> str:
    """One line of figures."""
    each = {"mean": statistics.mean(took), "median": statistics.median(took)}
    each |= {f"p{q}": percentile(took, float(q)) for q in (95, 99)}
    words = ", ".join(f"{name} {1e3 * value:.3g} ms" for name, value in each.items())
    return f"{ranks} ranks, back to back: {words}; {len(took)} times"


# --- Speed-up -------------------------------------------------------------------------------------


class Speedup:
    """Training throughput on all ranks over that on one, of the reference model."""

    name = "speed-up of training"
    metrics = (SPEEDUP,)

    turns = 6
    """The least and the most of six ratios bound their median with 97 % confidence."""

    seconds = 2.0
    batch = 4
    """Samples per rank and step: the reference job's own."""

    def exercises(self, task: Task) -> list[fleet.Exercise]:
        """Half a minute of training."""
        options: dict[str, Any] = {"backend": task.config.profile.backend, "batch": self.batch}
        options |= {"seconds": self.seconds, "turns": self.turns}
        worker = "dvfd.drills.workers.fleet_speedup"
        return [fleet.Exercise(name="speed-up", module=worker, seconds=300.0, options=options)]

    def run(self, task: Task) -> Iterator[Found]:
        """Raises ProbeError where a rank failed."""
        heard, at = fleet.answer(task).of("speed-up"), task.clock.now()
        if heard.failures:
            raise ProbeError(heard.why)
        try:
            together, alone = (_speeds(heard.values[0][k]) for k in ("together", "alone"))
        except (KeyError, TypeError, ValueError) as error:
            raise ProbeError(f"answer of the ranks: {error}: wanted what they write") from None
        if not len(together) == len(alone) == self.turns:
            raise ProbeError(f"answer of the ranks: {len(together)} turns, wanted {self.turns}")
        ratios = [many / one for many, one in zip(together, alone, strict=True)]
        where = labels(processes=str(len(heard.values)))
        value = statistics.median(ratios)
        yield Sample(SPEEDUP, value, at, where, min(ratios), max(ratios))
        text = (
            f"the reference model, {self.batch} samples per process: "
            f"{statistics.median(together):.4g} samples/s on {len(heard.values)} processes, "
            f"{statistics.median(alone):.4g} on one"
        )
        yield Remark(SPEEDUP, text, where)
        yield Fact("speed-up of training", text)
        yield from _crowded(task, (SPEEDUP,))


def _speeds(values: Any) -> list[float]:
    found = [finite(value) for value in values]
    if not all(value and value > 0 for value in found):
        raise ValueError(f"{found} are no speeds")
    return [value for value in found if value]
