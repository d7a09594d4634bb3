"""Months of raw series, made up and told so, for what reads months: blocks for a Prometheus.

Made up are only the samples of dvfd's raw metrics, a quarter of an hour apart. All that is recorded
from them is made by promtool from the rules as delivered. What was put in is counted on the way, so
that what comes out can be held against it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.harness import testbed

QUARTER = 900
DAY = 86400
SINGLE = 62.5
COST = 12.5
RANKS = 4
"""Of each node."""

CHANCE = 7
WEEK = 7 * DAY
LONG = "--max-block-duration=486h"
"""Few blocks: promtool reads its input anew for each."""


@dataclass(frozen=True, slots=True)
class Job:
    """A training job of some nodes, from a time on."""

    name: str
    nodes: tuple[str, ...]
    since: int
    pace: float
    """Samples a second of the whole job on its first day."""

    drift: float
    """Share of its pace that it loses in a day."""

    @property
    def ranks(self) -> int:
        """World size."""
        return RANKS * len(self.nodes)


@dataclass(slots=True)
class Put:
    """What was put in, summed over nodes, of one job."""

    samples: float = 0.0
    up: float = 0.0
    observed: float = 0.0
    restarts: float = 0.0
    paces: list[float] = field(default_factory=list)
    joules: float = 0.0


@dataclass(frozen=True, slots=True)
class Months:
    """*days* days until *end*, a whole hour."""

    end: int
    days: int = 92

    @property
    def start(self) -> int:
        """The first sample's time."""
        return self.end - self.days * DAY

    def jobs(self) -> tuple[Job, ...]:
        """Two jobs on three nodes; the second begins in the last month."""
        late = self.end - 30 * DAY
        return (
            Job("language", ("node-1:9109", "node-2:9109"), self.start, 430.0, 0.0008),
            Job("vision", ("node-3:9109",), late, 228.0, -0.0004),
        )

    def write(self, path: Path) -> dict[str, Put]:
        """Write OpenMetrics; what was put in, by job."""
        put = {job.name: Put() for job in self.jobs()}
        with path.open("w", encoding="utf-8") as out:
            for job in self.jobs():
                for node in job.nodes:
                    out.writelines(self._node(job, node, put[job.name]))
            out.write("# EOF\n")
        return put

    def _node(self, job: Job, node: str, put: Put) -> Iterator[str]:
        chance, count = random.Random(CHANCE), Counters()
        labels = f'job="dvfd",instance="{node}"'
        for at in range(job.since, self.end + 1, QUARTER):
            noise = chance.gauss(1.0, 0.015)
            if blind(at):
                continue
            running = not down(at, job)
            days = (at - job.since) / DAY
            pace = job.pace * (1 - job.drift * days) * noise if running else 0.0
            if at > job.since:
                count.grow(pace, len(job.nodes), running=running, began=began(at, job), put=put)
            for name, more, value in count.lines(job, pace):
                yield f"{name}{{{labels}{more}}} {value!r} {at}\n"


@dataclass(slots=True)
class Counters:
    """What grows on a node."""

    samples: float = 0.0
    up: float = 0.0
    observed: float = 0.0
    restarts: int = 0
    packages: float = 0.0
    gpus: float = 0.0
    lost: bool = False

    def grow(self, pace: float, nodes: int, *, running: bool, began: bool, put: Put) -> None:
        """By a quarter of an hour, and say so in *put*."""
        samples, watts = pace / nodes * QUARTER, (320, 2400) if running else (140, 300)
        self.samples += samples
        self.up += QUARTER * running
        self.observed += QUARTER
        self.restarts += RANKS * began
        self.packages += watts[0] * QUARTER
        self.gpus += watts[1] * QUARTER
        put.samples += samples
        put.up += QUARTER * running
        put.observed += QUARTER
        put.restarts += RANKS * began
        put.joules += sum(watts) * QUARTER
        if running:
            put.paces.append(pace)

    def lines(self, job: Job, pace: float) -> Iterator[tuple[str, str, float]]:
        """Metric, further labels, value: of everything that the rules read."""
        of = f',training_job="{job.name}"'
        if pace:
            yield "dvfd_job_throughput_samples_per_second", of, pace
        yield "dvfd_job_processes", of, job.ranks
        yield "dvfd_job_samples_total", of, self.samples
        yield "dvfd_job_up_seconds_total", of, self.up
        yield "dvfd_job_observed_seconds_total", of, self.observed
        yield "dvfd_rank_restarts_total", of, self.restarts
        yield "dvfd_cpu_package_energy_joules_total", ',package="0"', self.packages
        yield "dvfd_gpu_energy_joules_total", ',gpu="0"', self.gpus
        yield "dvfd_profile_single_process_throughput_samples_per_second", "", SINGLE
        yield "dvfd_profile_cost_per_hour", ',currency="EUR"', COST
        verdict = "PASS" if pace else "FAIL"
        yield "dvfd_check_verdict", f',check="live",verdict="{verdict}"', 1
        yield "dvfd_build_info", ',version="made-up"', 1


def down(at: int, job: Job) -> bool:
    """Hours of every week in which the job is seen and does not run.

    They end in every quarter of an hour alike: a jump between two windows of an hour is lost, one
    between samples within it counts for more, and only over many are they even.
    """
    week, within = divmod(at - job.since, WEEK)
    return 3 * DAY <= within < 3 * DAY + (1 + week % 4) * 3600 + week % 4 * QUARTER


def began(at: int, job: Job) -> bool:
    """Whether its ranks are back since the sample before."""
    return down(at - QUARTER, job) and not down(at, job)


def blind(at: int) -> bool:
    """Hours of every third week in which nobody looked."""
    return 5 * DAY <= at % (3 * WEEK) < 5 * DAY + 9 * 3600


# --- Into a Prometheus ----------------------------------------------------------------------------

KEEP = ("--storage.tsdb.retention.time=400d",)


def backfill(directory: Path, months: Months, rules: Path) -> dict[str, Put]:
    """Blocks for the Prometheus of testbed.prometheus in *directory*, raw and recorded."""
    raw, data = directory / "months.om", directory / "prometheus"
    put = months.write(raw)
    _promtool("openmetrics", LONG, str(raw), str(data))
    with testbed.prometheus(directory, "127.0.0.1:9", interval="1h", options=KEEP) as server:
        _promtool(
            "rules", LONG, f"--url={server.url}", f"--start={months.start}", f"--end={months.end}",
            "--eval-interval=1h", f"--output-dir={data}", str(rules),
        )  # fmt: skip
    return put


def _promtool(*arguments: str) -> None:
    done: Any = testbed.promtool("tsdb", "create-blocks-from", *arguments, timeout=120)
    if done.returncode:
        said = (done.stdout + done.stderr).decode()
        raise RuntimeError(f"promtool {arguments[0]} ended with {done.returncode}: {said[-800:]}")


def last_hour(now: float) -> int:
    """The last whole hour that blocks may hold: Prometheus keeps the newest in its head."""
    return math.floor(now / 3600 - 3) * 3600
