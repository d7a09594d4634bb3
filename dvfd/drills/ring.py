"""A ring of this node's ranks: do the sums come out right, and how long does an all-reduce take?

Gloo's own all-reduce and NCCL's are rings for large messages. What the source asks of Gloo's
version is shown by it working: Python cannot ask for the version itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dvfd.drills import collectives, processors
from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.errors import ProbeError
from dvfd.model import Sample, labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dvfd.drills.collectives import Benchmark, Measured
    from dvfd.drills.drill import Task

    Found = Sample | Remark | Trouble | Fact

CORRECT = "collective_correct_ratio"
SECONDS = "collective_allreduce_seconds"
FAILURES = "collective_failures"

SWEEP = ("1KiB", "8KiB", "64KiB", "512KiB", "4MiB", "bucket")

JUDGED = {"gloo": "64KiB", "nccl": "bucket"}
"""The message that is judged, by backend (reading 9)."""

OFTEN = 200
"""How often that message is timed: twice as often as has to be, for a narrower interval."""

WHERE = labels(operation="all_reduce", algorithm="builtin")

PREFIXES = (("G", 1e9), ("M", 1e6), ("k", 1e3))


class Ring:
    """Sums verified, times of the slowest rank, collectives that failed."""

    name = "ring"
    metrics = (CORRECT, SECONDS, FAILURES)

    def run(self, task: Task) -> Iterator[Found]:
        """Raises ToolError, ProbeError if the ranks left nothing to read."""
        if why := _refusal(task):
            yield from (Trouble(metric, why) for metric in self.metrics)
            return
        often = {JUDGED[task.config.profile.backend]: OFTEN}
        found = collectives.benchmark(task, ranks=task.processes, messages=SWEEP, iterations=often)
        yield from _failures(found, task.clock.now())
        yield from _sums(found.measured, task.clock.now())
        yield from _times(found.measured, task.clock.now())
        yield from _crowded(task)
        yield from _facts(task, found)


def _refusal(task: Task) -> str:
    """Why nothing is run, or an empty string."""
    if task.training and not task.options.force:
        return f"a training job runs: {task.training}; --force runs it all the same"
    if task.processes < 2:
        return "processes_per_node is 1: wanted at least two ranks to make a ring"
    return ""


def _failures(found: Benchmark, at: float) -> Iterator[Found]:
    """Raises ProbeError where the ranks ended for another reason, and left no figures."""
    if found.failures:
        yield Sample(FAILURES, len(found.failures), at)
        first = collectives.told(found.failures[0])
        words = "; ".join(filter(None, (found.ended, first)))
        yield Remark(FAILURES, words)
        yield from (Trouble(metric, f"not measured: {words}") for metric in (CORRECT, SECONDS))
    elif found.ended and not found.measured:
        raise ProbeError(found.ended)
    elif found.ended:
        yield Trouble(FAILURES, f"after the last collective: {found.ended}")
    else:
        yield Sample(FAILURES, 0, at)


def _sums(measured: Sequence[Measured], at: float) -> Iterator[Found]:
    if not measured:
        return
    verified, wrong = (sum(m.verified for m in measured), sum(m.wrong for m in measured))
    yield Sample(CORRECT, (verified - wrong) / verified, at, WHERE)
    for each in measured:
        if each.wrong:
            text = f"{each.message}: {each.wrong} of {each.verified} sums wrong; {each.example}"
            yield Remark(CORRECT, text, WHERE)


def _times(measured: Iterable[Measured], at: float) -> Iterator[Found]:
    for each in measured:
        if each.message in JUDGED.values():
            where = labels(message=each.message)
            yield Sample(SECONDS, each.median, at, where, low=each.low, high=each.high)


def _crowded(task: Task) -> Iterator[Remark]:
    if task.config.profile.backend == "gloo" and (text := processors.crowding(task)):
        yield Remark(SECONDS, text)


def _facts(task: Task, found: Benchmark) -> Iterator[Fact]:
    for each in found.measured:
        yield Fact(f"all-reduce of {each.message}", figures(each))
    if found.torch and task.config.profile.backend == "gloo":
        where = ", ".join(found.addresses) or "an address that could not be read"
        yield Fact("Gloo", f"that of torch {found.torch}; rank 0 listens on {where}")


def figures(found: Measured) -> str:
    """One line of a table: `median 4.08 ms (3.48 to 5.24), p95 9.1 ms, p99 16 ms, bus 24 MB/s`."""
    low, high = f"{1e3 * found.low:.3g}", f"{1e3 * found.high:.3g}"
    return (
        f"median {1e3 * found.median:.3g} ms ({low} to {high}), p95 {1e3 * found.p95:.3g} ms, "
        f"p99 {1e3 * found.p99:.3g} ms, MAD {1e3 * found.mad:.3g} ms, bus {_rate(found.busbw)}; "
        f"{found.iterations} times"
    )


def _rate(value: float) -> str:
    prefix, unit = next((p for p in PREFIXES if value >= p[1]), ("", 1.0))
    return f"{value / unit:.3g} {prefix}B/s"
