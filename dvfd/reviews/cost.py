"""What the samples of a period cost, in money and energy, and where its time went. No judging.

All of it is of this node: its ranks' samples, its hours, its joules. Every hour since the job was
first seen is paid for, whether it trained or not; what goodput would have made of it stands beside.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dvfd.drills.drill import Fact
from dvfd.errors import DvfdError
from dvfd.reduce import seconds
from dvfd.reviews.uptime import HOUR, grown
from dvfd.runs.goodput import Goodput, ordered
from dvfd.spent import of_job

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dvfd.config import Cost
    from dvfd.model import Sample
    from dvfd.reviews.period import Job, Past, Period

SAMPLES = "job_samples_total"
ENERGY = ("cpu_package_energy_joules_total", "gpu_energy_joules_total")

MILLION = 1e6
KILOWATT_HOUR = 3.6e6

LEAST = 1e-3
"""Shares of the time below which a part is not told."""

CHUNKS = 4
"""Parts of a period whose throughputs stand beside each other: the weeks of a month."""


def facts(past: Past, job: Job, period: Period, cost: Cost) -> Iterator[Fact]:
    """What a review of *job* stands on, in words."""
    began = max(period.since, job.observed[0].at) if job.observed else period.until
    samples = _grown(past, SAMPLES, job.labels, period)
    spent = None
    try:
        spent = of_job(past, job.name, since=began, until=period.until)
        yield Fact(f"time of {job.name}", _parts(spent))
    except DvfdError as error:
        yield Fact(f"time of {job.name}", str(error))
    yield Fact(f"performance of {job.name}", _course(job, period))
    yield Fact(f"cost of {job.name}", _money(cost, samples, period.until - began, spent))
    yield Fact(f"energy of {job.name}", _energy(past, samples, period))


def _grown(past: Past, metric: str, own: object, period: Period) -> float:
    """How much a series grew in the period; nothing if there is none."""
    found: Sequence[Sample] = [s for s in past.latest(metric) if s.labels == own]
    return math.fsum(_of_series(past, sample, period) for sample in found)


def _of_series(past: Past, sample: Sample, period: Period) -> float:
    since, until = period.since, period.until
    course = past.series(sample.metric, sample.labels, since=since - HOUR, until=until)
    return grown(course, since, until)


def _parts(spent: Goodput) -> str:
    """Where the time went, the largest losses first."""
    whole = spent.whole
    told = [
        f"{part.value} {amount / whole:.2%}"
        for part, amount in ordered(spent.parts)
        if whole > 0 and amount / whole >= LEAST
    ]
    return f"of {seconds(whole)}: {', '.join(told)}"


def _course(job: Job, period: Period) -> str:
    """The throughput of each quarter of the period."""
    length = (period.until - period.since) / CHUNKS
    parts: list[list[float]] = [[] for _ in range(CHUNKS)]
    for hour, value in job.pace.items():
        place = int(((hour + 0.5) * HOUR - period.since) / length)
        parts[min(max(place, 0), CHUNKS - 1)].append(value)
    means = [f"{math.fsum(p) / len(p):.5g}" if p else "not known" for p in parts]
    return f"{', '.join(means)} samples/s in the quarters of {period.name}, means of hours"


def _money(cost: Cost, samples: float, paid: float, spent: Goodput | None) -> str:
    if cost.per_hour is None:
        return 'not known: [cost] per_hour = 12.5 and currency = "EUR" say what this node costs'
    if samples <= 0:
        return "not known: no rank here reported samples"
    hours = paid / HOUR
    each = cost.per_hour * hours / samples * MILLION
    text = (
        f"{each:.4g} {cost.currency} per million samples: {cost.per_hour:g} {cost.currency}/h for "
        f"{hours:.1f} h, {samples:.6g} samples of this node"
    )
    if spent is None or spent.ratio is None:
        return text
    low, high = spent.ratio
    ratio = f"{low:.2%}" if high - low < LEAST else f"{low:.2%} to {high:.2%}"
    return f"{text}; {each * low:.4g} of it for productive steps (goodput {ratio})"


def _energy(past: Past, samples: float, period: Period) -> str:
    found = [sample for metric in ENERGY for sample in past.latest(metric)]
    if not found:
        return "not known: no energy counter is read here (RAPL, NVML)"
    joules = math.fsum(_of_series(past, sample, period) for sample in found)
    of = ", ".join(sorted({name for sample in found for name, _ in sample.labels}))
    text = f"{joules / KILOWATT_HOUR:.4g} kWh by the counters of each {of}"
    if samples <= 0 or joules <= 0:
        return f"{text}; for no sample that was reported"
    return (
        f"{joules / samples:.4g} J a sample: {text}, while dvfd ran, and nothing else of the node"
    )
