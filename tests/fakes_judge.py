"""Criteria, samples and results for the tests of judge, alarm and derive."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dvfd.model import Comparison, Criterion, Limit, Result, Sample, Verdict, labels

NOW = 1_800_000_000.0


def criterion(wanted: str = ">= 1", **changes: Any) -> Criterion:
    """A criterion on metric `m`: `criterion("<= 5", reduce="max", window=60)`."""
    comparison, number = wanted.split()
    plain = Criterion(
        id="live.m",
        item="item 1",
        clause="a clause",
        text="m is as wanted",
        metric="m",
        unit="bool",
        comparison=Comparison(comparison),
        limit=Limit(value=float(number)),
        source="ranks",
    )
    return replace(plain, **changes)


def sample(value: float, ago: float = 0.0, **more: Any) -> Sample:
    """A sample of `m`, *ago* seconds before NOW; other keywords are labels."""
    given = {k: more.pop(k) for k in ("metric", "low", "high", "span") if k in more}
    return Sample(
        given.get("metric", "m"),
        value,
        NOW - ago,
        labels(**more),
        given.get("low"),
        given.get("high"),
        given.get("span", 0.0),
    )


def series(*values: float, every: float = 5.0, **more: Any) -> list[Sample]:
    """Samples of `m`, oldest first, the last of them now."""
    last = len(values) - 1
    return [sample(v, (last - i) * every, **more) for i, v in enumerate(values)]


def result(verdict: str, at: float = 0.0, **changes: Any) -> Result:
    """A result of `live.m` *at* seconds after NOW; other keywords are keys of the criterion."""
    own = {
        k: changes.pop(k)
        for k in ("observed", "limit", "margin", "reason", "sampled_at")
        if k in changes
    }
    reason = own.pop("reason", "because")
    return Result(criterion(**changes), Verdict(verdict), NOW + at, reason, **own)
