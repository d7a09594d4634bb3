"""Does the backend choose well? Its own all-reduce of a bucket against every algorithm of ours.

Which paths a library takes cannot be seen from a host; that nothing beats them can (reading 25).
Of NCCL the graphs that it chose are read too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dvfd.drills import fleet, sweep
from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.drills.ring import figures
from dvfd.drills.sweep import Sweep, row
from dvfd.errors import ProbeError
from dvfd.model import Sample, labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dvfd.drills.drill import Task

    Found = Sample | Remark | Trouble | Fact

RATIO = "collective_choice_ratio"

MESSAGE = "bucket"

TRIED = ("builtin", "ring", "ring across", "tree", "doubling", "hierarchical")
"""Names of `dvfd.drills.workers.operations`: "across" goes through the ranks in the order that
changes the node at every hop."""


class Choice:
    """The backend's own all-reduce against the best that was tried."""

    name = "choice of algorithm"
    metrics = (RATIO,)

    def exercises(self, task: Task) -> list[fleet.Exercise]:
        """One sweep of one message."""
        return [SWEEP.exercise(task)]

    def run(self, task: Task) -> Iterator[Found]:
        """Raises ProbeError where a rank failed, or a sum was wrong: no time of it counts."""
        found = SWEEP.read(task)
        for each in found.measured:
            if each.wrong:
                raise ProbeError(f"{each.algorithm}: {each.wrong} sums wrong; {each.example}")
        where = labels(message=MESSAGE)
        for algorithm, why in found.untimed(MESSAGE).items():
            yield Trouble(RATIO, f"{algorithm} was not timed: {why}", where)
        builtin = found.of("all_reduce", "builtin", MESSAGE)
        others = [m for m in found.all_reduces(MESSAGE) if m.algorithm != "builtin"]
        if not others:
            raise ProbeError("nothing was timed that the backend's own could be held against")
        value, low, high = sweep.ratio(builtin, others[0])
        yield Sample(RATIO, value, task.clock.now(), where, low, high)
        text = f"best of {len(others)} others: {others[0].algorithm}, {figures(others[0])}"
        yield Remark(RATIO, text, where)
        for each in found.all_reduces(MESSAGE):
            yield Fact(f"all-reduce of a {MESSAGE}, {each.algorithm}", figures(each))
        for number, line in enumerate(found.graphs, 1):
            yield Fact(f"NCCL {number}", line)
        if task.config.profile.backend == "nccl" and not found.graphs:
            yield Trouble(RATIO, "NCCL did not tell which graphs it chose", where)


SWEEP = Sweep("choice", tuple(row(MESSAGE, algorithm=name) for name in TRIED))
