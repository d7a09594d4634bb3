"""Sum the rows of a packet into the one row that the store keeps. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dvfd.store.folds import StepFold

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dvfd.telemetry.wire import Row


def fold(job: str, rank: int, rows: Sequence[Row], at: float) -> StepFold:
    """Sum one row or more; *at* is when the last one ended, Unix seconds."""
    losses = [row.loss for row in rows if row.loss is not None]
    norms = [row.grad_norm for row in rows if row.grad_norm is not None]
    finite = [loss for loss in losses if math.isfinite(loss)]
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
        compute_sum=_sum(row.compute for row in rows),
        comm_sum=_sum(row.communication for row in rows),
        bytes_sum=_sum(row.bytes for row in rows),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum of what was reported; None if nothing was."""
    given = [value for value in values if value is not None]
    return math.fsum(given) if given else None
