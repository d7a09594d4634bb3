"""Weeks of one job for the tests of reviews: its counters and its throughput, by the hour."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from fakes import FakeClock

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.drills.findings import Findings
from dvfd.judgements import Judgements
from dvfd.model import Labels, Result, Sample, labels
from dvfd.reviews.review import COMPARED, DIFFERED, OBSERVED, PROCESSES, THROUGHPUT, UP, Reviews
from dvfd.reviews.slopes import answer
from dvfd.reviews.uptime import HOUR
from dvfd.runs.baselines import Accepted, Measured
from dvfd.shell import Output

NOW = 1_800_000_000.0
"""A whole hour."""

CATALOGUE = load(Config())


class FakePast:
    """What the store has of job gpt over so many hours before NOW, with *lost* hours of no
    observation and *down* ones, by their number from the end.
    """

    def __init__(
        self,
        hours: int = 30 * 24 + 30,
        *,
        lost: Iterable[int] = (),
        down: Iterable[int] = (),
        pace: Callable[[int], float] = lambda hour: 240.0 + hour % 3,
        differed: float = 0.0,
        processes: float = 4.0,
    ) -> None:
        self.courses: dict[str, list[Sample]] = {}
        lost, down = set(lost), set(down)
        up = observed = 0.0
        for ago in range(hours, -1, -1):
            at = NOW - ago * HOUR
            if ago in lost:
                continue
            if ago < hours:
                observed += HOUR
                up += 0.0 if ago in down else HOUR
            counters = {UP: up, OBSERVED: observed, COMPARED: observed / 10}
            for metric, value in counters.items():
                self.add(metric, value, at)
            self.add(DIFFERED, differed if ago == 0 else 0.0, at)
            self.add(PROCESSES, processes, at)
            if ago not in down:
                self.add(THROUGHPUT, pace(hours - ago), at)

    def add(self, metric: str, value: float, at: float, job: str = "gpt") -> None:
        sample = Sample(metric, value, at, labels(job=job), span=HOUR)
        self.courses.setdefault(metric, []).append(sample)

    def latest(self, metric: str) -> Sequence[Sample]:
        return self.courses.get(metric, [])[-1:]

    def series(
        self, metric: str, of: Labels, *, since: float, until: float, **_keys: Any
    ) -> Sequence[Sample]:
        found = self.courses.get(metric, ())
        return [s for s in found if s.labels == of and since < s.at <= until]

    medians = series

    def reports(self, _check: str, _limit: int) -> Sequence[Any]:
        return ()


class Standing:
    """Runs that somebody accepted."""

    def __init__(self, *accepted: Accepted) -> None:
        self._accepted = accepted

    def standing(self) -> Sequence[Accepted]:
        return self._accepted


def accepted(**more: Any) -> Accepted:
    """A run of gpt on 4 processes: 240 samples/s, an efficiency of 96 %, 8 % communication."""
    measured = Measured(throughput=240.0, efficiency=0.96, communication=0.08)
    made = Accepted(
        run="r1", check="stability_phase1", processes=4, job="gpt", job_hash="ab", report="cd",
        hashes={}, measured=measured, by="Ann Lee", submitted="root", at=NOW - 60 * 86400.0,
    )  # fmt: skip
    return replace(made, **more)


def in_here(_argv: Sequence[str], *, stdin: bytes = b"", **_keys: Any) -> Output:
    """The child's answer without a child: processes cost a second each."""
    return Output(0, json.dumps(answer(json.loads(stdin))), "", 0.0)


def reviews(past: FakePast, *runs: Accepted, **more: Any) -> Reviews:
    return Reviews(past, Standing(*runs), FakeClock(NOW), **{"run": in_here, **more})


def found(past: FakePast, *runs: Accepted, check: str = "weekly", **more: Any) -> Findings:
    made = reviews(past, *runs, **more).of(CATALOGUE.checks[check])
    assert made is not None
    return made


class Bare:
    """A store without samples that keeps nothing."""

    def samples(self, criterion: Any, *, until: float) -> Sequence[Sample]:
        return ()

    def keep(self, report: Any, *, scheduled: float | None = None) -> None:
        pass


def judged(
    past: FakePast, *runs: Accepted, check: str = "weekly", **more: Any
) -> dict[str, Result]:
    """The results of *check* by the name of each criterion."""
    review = reviews(past, *runs, **more)
    judgements = Judgements(CATALOGUE, store=Bare(), clock=FakeClock(NOW), reviewed=review.of)
    report = judgements.run_check(CATALOGUE.checks[check])
    return {r.criterion.id.partition(".")[2]: r for r in report.results}


def noisy(
    seed: int, hours: int, *, slope: float = 0.0, noise: float = 0.005
) -> Callable[[int], float]:
    """A throughput with white noise that changes by *slope* a week."""
    chance = np.random.default_rng(seed)
    values = 240.0 * (1 + chance.normal(0, noise, hours + 1) + slope * np.arange(hours + 1) / 168)
    return lambda hour: float(values[hour])
