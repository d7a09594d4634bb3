"""What the store keeps of a telemetry packet: its steps folded into one row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFold:
    """The steps that one packet carried, summed: seconds, bytes, samples; `at` in Unix seconds.

    `loss_sum` runs over the `loss_count` finite losses; `nonfinite` counts the others. A sum that
    the job did not report is None. `began` and `ended` are when the first and the last of the steps
    ended, CLOCK_BOOTTIME; `stepping_sum` is the time of the steps that reported communication and
    whose beginning is known, `exposed_sum` their communication. `sequence` is that of the last row,
    0 where the packet's stands for it.
    """

    job: str
    rank: int
    first_step: int
    last_step: int
    count: int
    at: float
    samples_sum: float | None = None
    loss_sum: float | None = None
    loss_count: int = 0
    nonfinite: int = 0
    compute_sum: float | None = None
    comm_sum: float | None = None
    bytes_sum: float | None = None
    began: float = 0.0
    ended: float = 0.0
    norm_sum: float = 0.0
    norm_count: int = 0
    compute_count: int = 0
    stepping_sum: float = 0.0
    exposed_sum: float = 0.0
    allreduce_sum: float = 0.0
    allreduce_count: int = 0
    sequence: int = 0
