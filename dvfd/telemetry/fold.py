"""Sum the rows of a packet into the few rows that the store keeps. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from dvfd.store.folds import StepFold

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dvfd.telemetry.wire import Row

PIECE = 50
"""Steps of a piece: collection intervals of a run are multiples of it, and no fold straddles one.
The source has 50 and 100 batches."""


@dataclass(frozen=True, slots=True)
class Before:
    """Where a rank stood before the packet: when its last step ended, CLOCK_BOOTTIME, None if the
    next interval is no step, as after a start or a checkpoint; the last sequence that counted.
    """

    stepped: float | None = None
    seen: int = 0


def folds(  # noqa: PLR0917  # what of whom, then what came before
    job: str, rank: int, rows: Sequence[Row], at: float, before: Before = Before(), cut: int = 0
) -> Iterator[StepFold]:
    """Sum rows piece by piece; *at* is when the last one ended, Unix seconds.

    No piece straddles sequence *cut*: a run's file has the rows up to there already. Nor what had
    counted before: a daemon that is killed now adds to that what the store has of the rest.
    """
    shift = at - rows[-1].boot
    stepped = before.stepped
    known = before.seen
    for _, piece in groupby(
        rows, lambda row: ((row.step - 1) // PIECE, row.sequence > cut, row.sequence > known)
    ):
        members = tuple(piece)
        yield fold(job, rank, members, members[-1].boot + shift, Before(stepped))
        stepped = members[-1].boot


def fold(
    job: str, rank: int, rows: Sequence[Row], at: float, before: Before = Before()
) -> StepFold:
    """Sum one row or more; *at* is when the last one ended, Unix seconds."""
    losses = [row.loss for row in rows if row.loss is not None]
    norms = [row.grad_norm for row in rows if row.grad_norm is not None]
    computes = [row.compute for row in rows if row.compute is not None]
    reductions = [row.allreduce for row in rows if row.allreduce is not None]
    finite = [loss for loss in losses if math.isfinite(loss)]
    real = [norm for norm in norms if math.isfinite(norm)]
    stepping, exposed = _stepping(rows, before)
    return StepFold(
        job=job,
        rank=rank,
        first_step=rows[0].step,
        last_step=rows[-1].step,
        count=len(rows),
        at=at,
        samples_sum=_sum(row.samples for row in rows),
        loss_sum=_sum(finite),
        loss_count=len(finite),
        nonfinite=sum(not math.isfinite(value) for value in losses + norms),
        compute_sum=_sum(computes),
        comm_sum=_sum(row.communication for row in rows),
        bytes_sum=_sum(row.bytes for row in rows),
        began=rows[0].boot,
        ended=rows[-1].boot,
        norm_sum=_total(real),
        norm_count=len(real),
        compute_count=len(computes),
        stepping_sum=stepping,
        exposed_sum=exposed,
        allreduce_sum=_total(reductions),
        allreduce_count=len(reductions),
        sequence=rows[-1].sequence,
    )


def _stepping(rows: Sequence[Row], before: Before) -> tuple[float, float]:
    """Seconds of the steps that reported communication and whose beginning is known, and of that
    communication.
    """
    total, exposed, stepped = 0.0, 0.0, before.stepped
    for row in rows:
        if row.communication is not None and stepped is not None and row.boot > stepped:
            total += row.boot - stepped
            exposed += row.communication
        stepped = row.boot
    return total, exposed


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum of what was reported; None if nothing was."""
    given = [value for value in values if value is not None]
    return _total(given) if given else None


def _total(values: Sequence[float]) -> float:
    """The sum; infinite where it is too large for a float, which is no reason to hear no rank."""
    try:
        return math.fsum(values)
    except OverflowError:
        return sum(values)
