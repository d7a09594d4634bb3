"""The framework's floors on throughput at one process count, and which of them binds. Pure.

The source states several numbers for one (reading 16): each is a criterion of its own, and what
binds is the highest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvfd.model import PROCESSES, Comparison

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dvfd.model import Check, Criterion

THROUGHPUT = "run_window_throughput_samples_per_second"
EFFICIENCY, SMALLER = "scaling_efficiency_ratio", "scaling_smaller_efficiency_ratio"
ERROR = "scaling_projection_error_ratio"
TO_COME, TO_COME_EFFICIENCY = (
    "projection_throughput_samples_per_second",
    "projection_efficiency_ratio",
)

RATE, WRITTEN = "samples/second", "as written"

LEAST = frozenset({Comparison.AT_LEAST, Comparison.MORE_THAN})


@dataclass(frozen=True, slots=True)
class Floor:
    """A throughput in samples/second that some criterion asks for, and how it comes about."""

    value: float
    words: str
    criterion: str


@dataclass(frozen=True, slots=True)
class Known:
    """What floors are made of: throughput of one process, efficiency of the next smaller count,
    throughput that was foretold. None where it is not known.
    """

    single: float | None = None
    smaller: float | None = None
    foretold: float | None = None


def floors(checks: Mapping[str, Check], processes: int, known: Known) -> tuple[Floor, ...]:
    """Every floor at *processes*, lowest first; of equal ones that of a check of that count."""
    own_first = sorted(checks.values(), key=lambda check: check.processes != processes)
    every = _all(own_first, processes, known)
    found = sorted(every, key=lambda floor: (floor.value, floor.words != WRITTEN))
    once = {round(floor.value, 6): floor for floor in reversed(found)}
    return tuple(once[value] for value in sorted(once))


def binding(found: Sequence[Floor]) -> Floor | None:
    """The highest."""
    return found[-1] if found else None


def told(found: Sequence[Floor]) -> str:
    """All of them and which binds, as a report says it."""
    most = binding(found)
    if most is None:
        return "no floor is known"
    each = ", ".join(f"{floor.value:.5g} {floor.words}" for floor in found)
    return f"floors: {each}; {most.value:.5g} binds ({most.criterion})"


def _all(checks: Iterable[Check], processes: int, known: Known) -> Iterator[Floor]:
    for check in checks:
        for criterion in check.criteria:
            if criterion.comparison not in LEAST:
                continue
            if processes in criterion.counts:
                yield from _of(criterion.among(processes), processes, known)
            elif str(processes) == dict(criterion.where).get(PROCESSES, str(check.processes)):
                yield from _of(criterion, processes, known)


def _of(criterion: Criterion, processes: int, known: Known) -> Iterator[Floor]:
    limit, linear = criterion.limit, None
    if known.single is not None:
        linear = processes * known.single
    if criterion.metric in {THROUGHPUT, TO_COME} and limit.value is not None:
        if criterion.unit == RATE:  # a band of windows is a share of them
            yield Floor(limit.value, WRITTEN, criterion.id)
    elif criterion.metric in {EFFICIENCY, TO_COME_EFFICIENCY} and linear is not None:
        if limit.value is not None:
            words = f"by {limit.value:.4g} of linear"
            yield Floor(limit.value * linear, words, criterion.id)
        elif limit.metric == SMALLER and known.smaller is not None:
            words = f"by {limit.times:.4g} of the smaller count's efficiency"
            yield Floor(limit.times * known.smaller * linear, words, criterion.id)
    elif criterion.metric == ERROR and limit.value is not None and known.foretold is not None:
        words = f"by {known.foretold:.5g} foretold"
        yield Floor((1 + limit.value) * known.foretold, words, criterion.id)
