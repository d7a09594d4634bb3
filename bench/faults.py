"""The faults whose detection is timed: how each is made and mended, and what both ways see it by.

A fault is real where it can be: processes die and stop, a file system of the bench's own fills,
bytes of a file flip, a line is written to a log. What ranks report is said by the real Reporter of
real processes. The GPU and the network port are behind the seams of bench.seamed.

`wait` is what the framework itself waits before it calls anybody, taken from checks/live.toml: a
perfect observer would not be earlier. What is asked of dvfd is the time beyond it.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.scraping import Rule
from bench.seamed import Seams
from bench.simulated import order
from bench.told import Labels
from dvfd.model import Criterion

COOL, HOT = 70, 95
"""Degrees of the GPU, well and not: its limit is 75."""

LINE = "Traceback (most recent call last):\n"

FULL = 0.98
"""Share of the file system that is filled: less than 5 % free fails."""

FLIP = 0x40

SCRAPED = 20.0
"""Seconds in which the slower scrape has seen a new job's counters: `increase` needs one look at a
counter before it grew, or the fault is never seen."""


@dataclass(slots=True)
class Stage:
    """What a trial has in its hands. `checkpoint` is the file that its job saves, `disk` a file
    system of its own; `errors` is what the port has counted.
    """

    ranks: list[subprocess.Popen[str]]
    seams: Seams
    log: Path
    checkpoint: Path
    disk: Path
    errors: int = 0


@dataclass(frozen=True, slots=True)
class Begun:
    """When a fault was made (CLOCK_MONOTONIC), and the seconds from then on in which it was none by
    what the job had declared.
    """

    at: float
    wait: float = 0.0


Waits = Callable[[Criterion], float]


def at_once(_criterion: Criterion) -> float:
    """One sample is enough."""
    return 0.0


def held(criterion: Criterion) -> float:
    """It must last for the criterion's `for`."""
    return criterion.hold


def half_a_window(criterion: Criterion) -> float:
    """The median of a window turns when half of it is bad; then it must last."""
    return criterion.window / 2 + criterion.hold


def until_the_mean_is_hot(criterion: Criterion) -> float:
    """The mean of a window that was COOL reaches the limit; then it must last."""
    limit = criterion.limit.value
    assert limit is not None
    return criterion.window * (limit - COOL) / (HOT - COOL) + criterion.hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A class of faults.

    `criterion` must call; `follows` are labels of what may call as well because of it. `job` are
    the options of a job's ranks, None without a job; the trial begins once /metrics has `needs` of
    it and it has been so for `settle` seconds. `read` is how often dvfd reads the source, in
    seconds, where nobody tells it. `prompt` says that dvfd is asked to be so: of process and value
    faults, not of those of time. `apart` is on a node of its own. `short` is the number of trials
    of a short run.
    """

    name: str
    text: str
    criterion: str
    rule: str
    inject: Callable[[Stage], Begun]
    mend: Callable[[Stage], None] = lambda _stage: None
    hold: str = "0s"
    wait: Waits = at_once
    job: tuple[str, ...] | None = None
    needs: str = ""
    settle: float = 0.0
    ranks: int = 2
    follows: tuple[Labels, ...] = ()
    read: float = 0.0
    prompt: bool = True
    apart: bool = False
    short: int = 2

    @property
    def at_once(self) -> bool:
        """Whether it is one of process or value that the framework calls for without a wait."""
        return self.prompt and self.wait is at_once

    def scraped(self, criterion: Criterion) -> Rule:
        """The rule of the way without dvfd."""
        return Rule(self.name, self.rule, criterion.severity.value, self.hold)


# --- What is done ------------------------------------------------------------------------------


def _signal(number: signal.Signals) -> Callable[[Stage], Begun]:
    def inject(stage: Stage) -> Begun:
        at = time.monotonic()
        stage.ranks[-1].send_signal(number)
        return Begun(at)

    return inject


def _order(what: str) -> Callable[[Stage], Begun]:
    def inject(stage: Stage) -> Begun:
        return Begun(order(stage.ranks[-1], what))

    return inject


def _spike(stage: Stage) -> Begun:
    """The loss of a job is one: all ranks report it."""
    return Begun(min(order(rank, "spike") for rank in stage.ranks))


def _save_no_more(stage: Stage) -> Begun:
    at = time.monotonic()
    return Begun(at, order(stage.ranks[0], "unsaved") - at)


def _flip(stage: Stage) -> Begun:
    with stage.checkpoint.open("r+b") as file:
        file.seek(stage.checkpoint.stat().st_size // 2)
        old = file.read(1)[0]
        file.seek(-1, 1)
        at = time.monotonic()
        file.write(bytes([old ^ FLIP]))
    return Begun(at)


def _fill(stage: Stage) -> Begun:
    size = int(shutil.disk_usage(stage.disk).total * FULL)
    at = time.monotonic()
    (stage.disk / "ballast").write_bytes(bytes(size))
    return Begun(at)


def _empty(stage: Stage) -> None:
    (stage.disk / "ballast").unlink()


def _write(stage: Stage) -> Begun:
    at = time.monotonic()
    with stage.log.open("a", encoding="utf-8") as file:
        file.write(LINE)
    return Begun(at)


def _count_errors(stage: Stage) -> Begun:
    stage.errors += 7
    at = time.monotonic()
    stage.seams.errors(stage.errors)
    return Begun(at)


def _heat(stage: Stage) -> Begun:
    at = time.monotonic()
    stage.seams.warm(HOT)
    return Begun(at)


def _cool(stage: Stage) -> None:
    stage.seams.warm(COOL)


# --- All of them -------------------------------------------------------------------------------

GONE: tuple[Labels, ...] = (
    {"criterion": "live.progress"},
    {"criterion": "live.step_skew"},
    {"criterion": "live.ranks_missing"},
    {"alertname": "DvfdBlind", "probe": "ranks"},
)
"""A rank that is gone makes no steps, is behind the others, missing after a minute, and what it
computes is not seen any more."""

FAULTS = (
    Fault(
        name="kill", text="Rank killed", criterion="live.responding", follows=GONE, job=(),
        rule="dvfd_rank_responding{} == 0", inject=_signal(signal.SIGKILL),
    ),
    Fault(
        name="stop", text="Rank stopped", criterion="live.responding", follows=GONE, job=(),
        rule="dvfd_rank_responding{} == 0", inject=_signal(signal.SIGSTOP),
    ),
    Fault(
        name="nan", text="NaN loss", criterion="live.loss_finite", job=(),
        rule="increase(dvfd_job_nonfinite_total{}[1m]) > 0", inject=_order("nan"),
        settle=SCRAPED,
    ),
    Fault(
        name="spike", text="Loss spike", criterion="live.loss_spikes", job=(),
        rule="increase(dvfd_job_loss_spikes_total{}[1m]) > 0", inject=_spike, settle=SCRAPED,
    ),
    Fault(
        name="straggler", text="Straggler", criterion="live.stragglers", job=("--compute=0.4",),
        rule="dvfd_rank_straggler_ratio{} < 0.75", hold="60s", inject=_order("slow"),
        wait=half_a_window, needs="rank_straggler_ratio", settle=35, read=5, short=1, prompt=False,
        apart=True,
    ),
    Fault(
        name="missing", text="Checkpoint missing", criterion="live.checkpoint_missing",
        job=("--saves=0",), rule="dvfd_checkpoint_missing{} > 0", inject=_save_no_more,
        needs="checkpoint_age_seconds", read=2, ranks=1, prompt=False,
    ),
    Fault(
        name="corrupt", text="Checkpoint corrupt", criterion="live.checkpoint_intact",
        job=("--saves=1",),
        rule="dvfd_checkpoint_intact{} == 0", inject=_flip, needs="checkpoint_intact", read=2,
    ),
    Fault(
        name="disk", text="Disk full", criterion="live.disk_free", job=("--saves=1",),
        rule="node_filesystem_avail_bytes{} / node_filesystem_size_bytes{} < 0.05", hold="60s",
        inject=_fill, mend=_empty, wait=held, needs="filesystem_free_ratio", read=15, short=1,
        ranks=1,
    ),
    Fault(
        name="port", text="NIC errors (sysfs seam)", criterion="live.network_errors",
        rule="increase(node_network_receive_errs_total{}[1m]) > 0", inject=_count_errors, read=5,
    ),
    Fault(
        name="log", text="Log error", criterion="live.log_errors",
        rule="increase(dvfd_log_errors_total{}[1m]) > 0", inject=_write, read=1,
    ),
    Fault(
        name="gpu", text="GPU over temperature (NVML seam)", criterion="live.gpu_temperature",
        rule="avg_over_time(dvfd_gpu_temperature_celsius{}[1m]) >= 75", hold="30s",
        inject=_heat, mend=_cool, wait=until_the_mean_is_hot, needs="gpu_temperature_celsius",
        settle=60, read=5, short=1,
    ),
)  # fmt: skip
