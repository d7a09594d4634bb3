"""What `watch_gradients` costs a training step at its default sampling: a paired A/B in one run.

Four ranks train three copies of the reference model in turn, block by block, in all six orders: one
watched (B), two not (A, and A once more). B over A is what watching costs; A over A is what the
machine makes of nothing. Intervals are Student's t over the logarithms of the rounds' ratios. The
time inside the watch is taken as well, where it is spent: those intervals are the range of the
rounds. Processor time is the calling thread's; the watch has no other.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.harness import chosen, finish
from bench.record import Figure, at_most

RANKS = 4
ROUNDS = 24

STUDENT = {5: 2.571, 23: 2.069}
"""97.5 % quantile of Student's t by degrees of freedom: Fisher and Yates, table III."""

LIMIT = 1.0
"""Percent of a step."""

Round = dict[str, tuple[float, float, float, float]]
"""By arm: the slowest rank's seconds, all ranks' processor seconds, and the same two of what was
inside the watch."""


def main() -> None:
    """Measure and keep."""
    options = chosen(__doc__)
    rounds = 6 if options.short else ROUNDS
    with tempfile.TemporaryDirectory() as place:
        ranks = _run(Path(place), rounds)
    found = [_together([rank[number] for rank in ranks]) for number in range(rounds)]
    finish("gradient_hook", options, _figures(found), {"rounds": found})


def _run(place: Path, rounds: int) -> list[list[Round]]:
    """What each rank noted."""
    argv = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={RANKS}",
        "-m", "bench.watched_steps", str(place), str(rounds),
    ]  # fmt: skip
    subprocess.run(argv, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=1800)
    return [json.loads(path.read_text()) for path in sorted(place.glob("rank-*.json"))]


def _together(ranks: Sequence[Round]) -> Round:
    """One round of all ranks."""
    columns = {arm: list(zip(*(rank[arm] for rank in ranks), strict=True)) for arm in ranks[0]}
    return {
        arm: (max(wall), sum(cpu), max(inside), sum(inside_cpu))
        for arm, (wall, cpu, inside, inside_cpu) in columns.items()
    }


def _figures(found: Sequence[Round]) -> list[Figure]:
    limited = [
        (
            "cpu_inside",
            "Watching gradients, in place: processor time, of a step",
            _inside(found, 1),
        ),
        ("wall_inside", "Watching gradients, in place: elapsed time, of a step", _inside(found, 0)),
        ("cpu", "Steps watched over not (B/A), processor time", _percent(found, "with", 1)),
        ("wall", "Steps watched over not (B/A), elapsed time", _percent(found, "with", 0)),
    ]
    noise = [
        ("cpu_noise", "The same of nothing (A/A), processor time", _percent(found, "again", 1)),
        ("wall_noise", "The same of nothing (A/A), elapsed time", _percent(found, "again", 0)),
    ]
    return [
        *(
            _careful(at_most(name, text, value, "%", LIMIT, interval=(low, high)))
            for name, text, (value, low, high) in limited
        ),
        *(
            Figure(name, text, value, "%", low=low, high=high)
            for name, text, (value, low, high) in noise
        ),
    ]


def _inside(found: Sequence[Round], which: int) -> tuple[float, float, float]:
    """The watch's share of its own steps in percent: the mean and the range."""
    shares = [100 * each["with"][2 + which] / each["with"][which] for each in found]
    return statistics.mean(shares), min(shares), max(shares)


def _careful(figure: Figure) -> Figure:
    """An interval across the mark says neither yes nor no."""
    assert figure.low is not None
    assert figure.high is not None
    if figure.low <= LIMIT < figure.high:
        wanted = f"{figure.wanted}; interval straddles it: unknown"
        return replace(figure, wanted=wanted, reached=None)
    return figure


def _percent(found: Sequence[Round], arm: str, which: int) -> tuple[float, float, float]:
    """By how much *arm* exceeds `without`, in percent, and where that lies with 95 % confidence."""
    logs = [math.log(each[arm][which] / each["without"][which]) for each in found]
    mean = statistics.mean(logs)
    half = STUDENT[len(logs) - 1] * statistics.stdev(logs) / math.sqrt(len(logs))
    value, low, high = (100 * (math.exp(log) - 1) for log in (mean, mean - half, mean + half))
    return value, low, high


if __name__ == "__main__":
    main()
