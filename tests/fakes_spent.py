"""A store's series of one job that trains, to be spoilt by a test."""

from __future__ import annotations

from collections.abc import Sequence

from dvfd.model import Labels, Sample, labels
from dvfd.runs.goodput import Goodput
from dvfd.spent import of_job

AT = 1.8e9
LOOK = 5.0


class Shelf:
    """Series as a daemon would have written them, a look every five seconds."""

    def __init__(self, looks: int = 21, ranks: int = 2) -> None:
        self.looks, self.ranks = looks, ranks
        self.series_: dict[tuple[str, Labels], list[Sample]] = {}
        self.put("job_processes", [float(ranks)] * looks)
        self.put("job_observed_seconds_total", [LOOK * n for n in range(looks)])
        self.put("job_up_seconds_total", [LOOK * n for n in range(looks)])
        for rank in range(ranks):
            self.steps(rank, [10.0 * n for n in range(looks)])
            self.put("rank_step_seconds", [0.5] * looks, rank=rank)

    def put(self, metric: str, values: Sequence[float | None], **of: object) -> None:
        own = labels(job="gpt", **of)
        self.series_[metric, own] = [
            Sample(metric, value, AT + LOOK * n, own)
            for n, value in enumerate(values)
            if value is not None
        ]

    def steps(self, rank: int, counts: Sequence[float | None]) -> None:
        self.put("rank_steps_total", counts, rank=rank)

    def latest(self, metric: str) -> list[Sample]:
        return [found[-1] for (name, _), found in self.series_.items() if name == metric]

    def series(self, metric: str, own: Labels, *, since: float, until: float) -> list[Sample]:
        return [s for s in self.series_.get((metric, own), []) if since <= s.at <= until]

    def reports(self, check_id: str, limit: int) -> list[object]:
        return []

    def account(self) -> Goodput:
        return of_job(self, "gpt", since=AT - 1000, until=AT + 1000)  # type: ignore[arg-type]
