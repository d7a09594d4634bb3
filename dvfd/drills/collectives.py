"""Time collectives between the ranks of this node: run them, and distrust what they write.

What is timed and how stands in `dvfd.drills.workers.collective`; bandwidths are those of NCCL's
own tests (procedures, 17), in bytes per second.
"""

from __future__ import annotations

import itertools
import json
import math
import operator
import os
import re
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.derive import percentile
from dvfd.drills.gradient import last_words
from dvfd.drills.interpreter import BARE, LOADING, read_answer
from dvfd.drills.launchers import TORCHRUN
from dvfd.errors import ProbeError, ToolError

if TYPE_CHECKING:
    from dvfd.drills.drill import Task

WORKER = "dvfd.drills.workers.collective"

ALL = "all"
"""The team of all ranks, as the worker calls it."""

BUCKET = 25 * 1024 * 1024
"""Bytes of a gradient bucket: `bucket_cap_mb` of DistributedDataParallel, 25 unless told."""

UNITS = {"B": 1, "KiB": 1024, "MiB": 1024**2}

LARGE = 1024**2
FEW, MANY = 20, 100
"""Iterations of a message above LARGE bytes, and of any other (procedures, 17)."""

TURNS = 10
"""Each message has so many turns, the worker's own number: two messages of a turn are seconds
apart."""

TIMEOUT = 30.0
"""Seconds of one collective: a bucket takes 0.1 here, and 0.4 on a link of 1 Gbit/s."""

RUNNING = 300.0
"""Seconds beyond loading for all messages, and for torchrun to end a rank that stands still: 30."""

BUS: Mapping[str, Callable[[int], float]] = {
    "all_reduce": lambda ranks: 2 * (ranks - 1) / ranks,
    "all_gather": lambda ranks: (ranks - 1) / ranks,
}
"""busbw over algbw by operation: what a link carries, whatever the number of ranks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One operation on messages of one size; times in seconds, of the slowest rank.

    `low` and `high` bound the median with about 95 % confidence.
    """

    operation: str
    algorithm: str
    message: str  # its size by name: 64KiB, bucket
    bytes: int
    iterations: int
    median: float
    mad: float
    p95: float
    p99: float
    algbw: float
    busbw: float
    low: float
    high: float
    verified: int  # collectives whose every element was looked at
    wrong: int  # of these
    turns: tuple[float, ...]  # the median of each of TURNS, of each time where those are fewer
    example: str = ""
    team: str = ALL


@dataclass(frozen=True, slots=True)
class Failure:
    """A collective that raised or timed out in a rank, in torch's words."""

    rank: int
    at: str
    error: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    """All that one start of the ranks showed. `ended` says why they ended early, if they did."""

    measured: tuple[Measured, ...] = ()
    failures: tuple[Failure, ...] = ()
    ended: str = ""
    torch: str = ""
    addresses: tuple[str, ...] = ()  # that rank 0 listened on


def size(message: str) -> int:
    """Bytes of a message by its name: `64KiB`, `4MiB`, `bucket`. Raises ProbeError."""
    if message == "bucket":
        return BUCKET
    found = re.fullmatch(r"([1-9]\d*)(B|KiB|MiB)", message)
    if not found:
        raise ProbeError(f"message {message!r}: wanted a size like 64KiB or 4MiB, or bucket")
    return int(found[1]) * UNITS[found[2]]


def measure(task: Task, *, ranks: int, messages: Sequence[str]) -> list[Measured]:
    """The all-reduce of *ranks* ranks on this node for each of *messages*, by name.

    Raises ToolError, ProbeError where a rank failed or any sum was wrong: no figure stands then.
    """
    found = benchmark(task, ranks=ranks, messages=messages)
    if found.failures:
        raise ProbeError("; ".join(filter(None, (found.ended, told(found.failures[0])))))
    if found.ended:
        raise ProbeError(found.ended)
    for each in found.measured:
        if each.wrong:
            raise ProbeError(
                f"{each.operation} of {each.message}: {each.wrong} of {each.verified} results are "
                f"wrong; {each.example}"
            )
    return list(found.measured)


def told(failure: Failure) -> str:
    """In one line."""
    return f"rank {failure.rank}, {failure.at}: {failure.error}"


def benchmark(
    task: Task, *, ranks: int, messages: Sequence[str], iterations: Mapping[str, int] | None = None
) -> Benchmark:
    """Run the ranks once, through all *messages*; *iterations* are more than the usual, by message.

    Raises ToolError, ProbeError if they left nothing to read.
    """
    place = Path(tempfile.mkdtemp(dir=task.scratch))
    answer, plan = place / "answer.json", place / "plan.json"
    exercises = [exercise(m, least=(iterations or {}).get(m, 0)) for m in messages]
    backend = task.config.profile.backend
    document = {"answer": str(answer), "backend": backend, "timeout": TIMEOUT}
    plan.write_text(json.dumps(document | {"exercises": exercises}), encoding="utf-8")
    ended = _launch(task, plan, ranks)
    notes = [_failure(read_answer(path)) for path in place.glob("answer.json.failed-*")]
    failures = tuple(failure for _, failure in sorted(notes, key=lambda note: note[0]))
    if failures or not answer.exists():
        return Benchmark(failures=failures, ended=ended or "the ranks ended and left no answer")
    return replace(_read(read_answer(answer), exercises, messages, ranks=ranks), ended=ended)


def exercise(
    message: str,
    *,
    operation: str = "all_reduce",
    algorithm: str = "builtin",
    team: str = ALL,
    least: int = 0,
) -> dict[str, Any]:
    """What the worker is told of one message; it is timed *least* times if that is more than usual.

    Raises ProbeError.
    """
    length = size(message)
    return {
        "operation": operation,
        "algorithm": algorithm,
        "bytes": length,
        "iterations": max(FEW if length > LARGE else MANY, least),
        "team": team,
    }


def _launch(task: Task, plan: Path, ranks: int) -> str:
    """Run the ranks to their end; why they ended before it, or an empty string."""
    argv = [
        task.python, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}",
        "--max-restarts=0", str(BARE), WORKER, str(plan),
    ]  # fmt: skip
    env = {k: v for k, v in os.environ.items() if k not in TORCHRUN}
    try:
        done = task.run(argv, timeout=2 * LOADING + RUNNING, env=env, on_line=task.say)
    except ToolError as error:
        return str(error)
    return "" if done.code == 0 else last_words(done.stderr) or f"torchrun: exit code {done.code}"


def _failure(note: Mapping[str, Any]) -> tuple[float, Failure]:
    try:
        error = str(note["error"]).strip().partition("\n")[0]
        return float(note["time"]), Failure(int(note["rank"]), str(note["at"]), error)
    except (KeyError, TypeError, ValueError) as error:
        raise ProbeError(f"a rank's note lacks something: {error!r}") from None


# --- What the ranks found -----------------------------------------------------------------------


def _read(
    said: Mapping[str, Any],
    exercises: Sequence[Mapping[str, Any]],
    messages: Sequence[str],
    *,
    ranks: int,
) -> Benchmark:
    try:
        _same(said, {"world": ranks})
        found = tuple(
            measured(row, asked, message, ranks)
            for row, asked, message in zip(said["exercises"], exercises, messages, strict=True)
        )
        torch = f"{said['torch']}, git {str(said['git'])[:10]}"
        return Benchmark(found, torch=torch, addresses=tuple(map(str, said["addresses"])))
    except (KeyError, TypeError, ValueError) as error:
        raise ProbeError(f"answer of the ranks: {error}: wanted what they write") from None


def measured(
    row: Mapping[str, Any],
    asked: Mapping[str, Any],
    message: str,
    ranks: int,
    *,
    often: int | None = None,
) -> Measured:
    """What *row* says of the exercise that was *asked*, done by so many ranks; *often* instead of
    as often as was asked.

    Raises KeyError, TypeError, ValueError if it is about another.
    """
    _same(row, asked)
    times = [count(each) / 1e9 for each in row["slowest"]]
    wanted = asked["iterations"] if often is None else often
    if len(times) != wanted or min(times) <= 0:
        raise ValueError(f"{len(times)} times of {message}, wanted {wanted}")
    verified, wrong = count(row["verified"]), count(row["wrong"])
    if not len(times) <= verified >= wrong:
        raise ValueError(f"{verified} results of {message} verified, {wrong} wrong")
    median = statistics.median(times)
    low, high = median_interval(times)
    algbw = asked["bytes"] / median
    return Measured(
        operation=asked["operation"],
        algorithm=asked["algorithm"],
        message=message,
        bytes=asked["bytes"],
        iterations=len(times),
        median=median,
        mad=statistics.median(abs(each - median) for each in times),
        p95=percentile(times, 95.0),
        p99=percentile(times, 99.0),
        algbw=algbw,
        busbw=algbw * BUS[asked["operation"]](ranks),
        low=low,
        high=high,
        verified=verified,
        wrong=wrong,
        turns=tuple(statistics.median(turn) for turn in _turns(times)),
        example=str(row["example"]),
        team=asked["team"],
    )


def _turns(times: Sequence[float]) -> Iterator[Sequence[float]]:
    turns = min(TURNS, len(times))
    ends = [len(times) * turn // turns for turn in range(turns + 1)]
    return (times[first:last] for first, last in itertools.pairwise(ends))


def _same(said: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    found = {key: said[key] for key in wanted}
    if found != wanted:
        raise ValueError(f"it is about {found}, not {wanted}")


def count(value: object) -> int:
    """*value* if it is a number of things. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Bounds of the median with about 95 % confidence, whatever the distribution: values k and
    n + 1 - k in order of size. *values* are in the order of time, at least 6 of them.

    Times that follow each other resemble each other on a busy node, so that n of them say as little
    as n / inflation. Simulated, 100 times in 10 turns, correlation 0 to 0.6, turns that differ by
    up to 0.6 deviations: such bounds hold in 92 to 97 %, without the correction in 75 to 96 %.
    """
    ordered = sorted(values)
    spread = 1.96 * math.sqrt(len(values) * inflation(values))
    k = max(1, math.floor((len(values) - spread) / 2))
    return ordered[k - 1], ordered[-k]


def inflation(values: Sequence[float]) -> float:
    """1 plus twice the autocorrelations of being above or below the median, up to the first pair
    of lags whose sum is not positive (Geyer 1992); never less than 1."""
    middle = statistics.median(values)
    signs = [(each > middle) - (each < middle) for each in values]
    total = sum(map(abs, signs))
    factor = 1.0
    for lag in range(1, len(signs) // 2, 2):
        pair = _products(signs, lag) + _products(signs, lag + 1)
        if pair <= 0:
            break
        factor += 2 * pair / total
    return factor


def _products(signs: Sequence[int], lag: int) -> int:
    return sum(map(operator.mul, signs, signs[lag:]))
