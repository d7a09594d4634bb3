"""What a job that runs now is held against: the run of it that somebody accepted. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dvfd.runs.baselines import Accepted

ACCEPT = "dvfd stability accept RUN --name NAME"


@dataclass(frozen=True, slots=True)
class Yardstick:
    """Of one job: its accepted run, and what is not known of it, in words."""

    run: Accepted | None
    single: float | None = None  # samples/second of one process, by that run's efficiency
    efficiency: float | None = None
    communication: float | None = None
    no_efficiency: str = ""
    no_communication: str = ""


def yardstick(standing: Iterable[Accepted], job: str, processes: int) -> Yardstick:
    """The newest accepted run of *job* on as many *processes*, as those who compare need it."""
    named = [each for each in standing if each.job == job]
    found = max((e for e in named if e.processes == processes), key=lambda e: e.at, default=None)
    if found is None:
        others = ", ".join(sorted({str(e.processes) for e in named}, key=int))
        have = f"; there are accepted ones with {others}" if others else ""
        lack = f"no run of job {job} with {processes} processes is accepted{have}: {ACCEPT}"
        return Yardstick(None, no_efficiency=lack, no_communication=lack)
    told, said = found.measured, f"run {found.run}, accepted by {found.by},"
    single = None
    if told.throughput and told.efficiency:
        single = told.throughput / (found.processes * told.efficiency)
    return Yardstick(
        found,
        single,
        told.efficiency if single else None,
        told.communication,
        "" if single else f"{said} has no efficiency: one process was not measured beside it",
        "" if told.communication is not None else f"{said} reported no communication",
    )
