"""A store's series of a job for its report, to be spoilt by a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fakes_spent import AT, LOOK, Shelf

from dvfd.config import Cost
from dvfd.model import Sample, labels
from dvfd.reporting.document import document
from dvfd.reporting.from_store import story
from dvfd.reporting.story import Story

PRICE = Cost(per_hour=36.0, currency="EUR")
"""A cent a second."""


class Desk(Shelf):
    """A healthy job with all that it may tell, a look every five seconds."""

    def __init__(self, looks: int = 21, ranks: int = 2) -> None:
        super().__init__(looks, ranks)
        self.put("job_loss", [5.0 - n / looks for n in range(looks)])
        self.put("job_throughput_samples_per_second", [64.0] * looks)
        self.put("job_samples_total", [320.0 * n for n in range(looks)])
        self.put("rank_restarts_total", [0.0] * looks)
        self.bare("node_cpu_ratio", [0.5] * looks)
        self.bare("cpu_package_energy_joules_total", [500.0 * n for n in range(looks)], package=0)
        for rank in range(ranks):
            self.put("rank_compute_seconds", [0.4] * looks, rank=rank)

    def bare(self, metric: str, values: Sequence[float | None], **of: object) -> None:
        """A series of the node itself."""
        own = labels(**of)
        self.series_[metric, own] = [
            Sample(metric, value, AT + LOOK * n, own)
            for n, value in enumerate(values)
            if value is not None
        ]

    def without(self, metric: str) -> None:
        self.series_ = {key: value for key, value in self.series_.items() if key[0] != metric}

    def story(self, job: str = "gpt", **more: Any) -> Story:
        asked = {"known": {"gpt", "gpt-large"}, "node": "n0", "now": AT + LOOK * self.looks}
        return story(self, job, **{"since": AT - 1000, "until": AT + 5000, **asked, **more})

    def report(self, cost: Cost = PRICE, **more: Any) -> dict[str, Any]:
        return document(self.story(**more), cost, made_at=AT)


def came_back() -> Desk:
    """Rank 1 was killed after 40 s, both came back, and after 60 s the job steps again."""
    desk = Desk()
    done = [10.0 * n for n in range(9)] + [80.0] * 4 + [80.0 + 10 * n for n in range(1, 9)]
    for rank in (0, 1):
        desk.steps(rank, done)
    desk.put("rank_restarts_total", [0.0] * 11 + [2.0] * 10)
    up = [LOOK * n for n in range(9)] + [40.0] * 2 + [40.0 + LOOK * n for n in range(1, 11)]
    desk.put("job_up_seconds_total", up)
    return desk


def twice() -> Desk:
    """Two runs of one name: after 50 s the ranks count from the start, and none came back."""
    desk = Desk()
    for rank in (0, 1):
        desk.steps(rank, [10.0 * n for n in range(10)] + [10.0 * n for n in range(11)])
    return desk
