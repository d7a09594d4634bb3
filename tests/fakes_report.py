"""A run made by hand: its rows, and what they are judged as. Nothing in it is random."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvfd.catalogue import load as load_catalogue
from dvfd.config import Config
from dvfd.model import Check, Labels, labels
from dvfd.runs.report import document
from dvfd.runs.rows import Event, Minute, What, Window
from dvfd.runs.run import Axis, Plan, Run, Stage
from dvfd.runs.tally import Tally
from dvfd.runs.verdicts import Judged, judged
from dvfd.store.folds import StepFold
from dvfd.store.run_file import RunFile

ARMED = 1_790_000_000.0
BEGAN = 30.0
HASHES = {"catalogue": "c0ffee" * 10, "profile": "ab" * 32, "evidence": "12" * 32}
FACTS = {"kernel": "6.8.0", "processor": "Example 9000"}

COUNTERS = (
    "job_nonfinite_total", "job_loss_spikes_total", "run_gradient_norm_disagreements_total",
    "run_gradient_norm_excursions_total",
)  # fmt: skip

CONFIG = Config(
    node={"name": "node4"},
    override={"stability_phase1.throughput": {"limit": 200, "reason": "smaller batch until May"}},
)
CATALOGUE = load_catalogue(CONFIG)
PHASE1 = CATALOGUE.checks["stability_phase1"]


@dataclass
class FakeRows:
    """Rows, as a run's file would give them."""

    of_windows: list[Window] = field(default_factory=list)
    of_minutes: list[Minute] = field(default_factory=list)
    of_events: list[Event] = field(default_factory=list)

    def windows(self, since: int = 0, until: int | None = None) -> Iterator[Window]:
        yield from self.of_windows

    def minutes(self, since: int = 0, until: int | None = None) -> Iterator[Minute]:
        yield from self.of_minutes

    def events(self, since: int = 0, until: int | None = None) -> Iterator[Event]:
        yield from self.of_events

    def mark(self) -> int:
        return 1


def plan(check: Check = PHASE1, **keys: Any) -> Plan:
    given = {"job": "gpt", "by": "alice", "note": "second attempt", "argv": ("torchrun", "x.py")}
    return Plan.of(check, **(given | keys))


def run(stage: Stage = Stage.COMPLETE, *, lasted: float = 86_400.0, **keys: Any) -> Run:
    """A run that began 30 s after it was armed and lasted for *lasted* seconds."""
    ended = BEGAN + lasted
    defaults: dict[str, Any] = {
        "id": "phase1_20260921T141320Z_c0fe",
        "plan": plan(),
        "node": "node4",
        "stage": stage,
        "armed_at": ARMED,
        "axis": Axis(boot_id="b", offset=0.0),
        "began_t": BEGAN,
        "warm_t": BEGAN + min(600.0, lasted / 10),
        "ended_t": ended,
        "ended_at": ARMED + ended,
        "seen_t": ended,
        "seen_at": ARMED + ended,
    }
    return Run(**(defaults | keys))


def windows(
    lasted: float, *, ranks: int = 4, every: int = 100, step: float = 0.5, away: Any = ()
) -> list[Window]:
    """Whole intervals of every rank; those that end within a stretch of *away* are missing."""
    length = every * step
    count = int(lasted / length)
    found = []
    for number in range(count):
        began, ended = BEGAN + number * length + step, BEGAN + (number + 1) * length
        if any(since <= ended < until for since, until in away):
            continue
        share = number / max(1, count)
        loss = 2.0 + 4.0 * math.exp(-5 * share) + 0.05 * math.sin(number / 3)
        found += [
            Window(
                node="node4", rank=rank, window=number, session=f"s{rank}",
                first_step=number * every + 1, last_step=(number + 1) * every, steps=every,
                began=began, ended=ended, samples=length * (67 + 3 * math.sin(number / 7)),
                loss=loss * every, losses=every,
                norm=every * (1.0 + 0.2 * math.cos(number / 5)), norms=every,
                compute=0.4 * every, computes=every,
                communication=0.02 * every, stepping=0.45 * every,
            )
            for rank in range(ranks)
        ]  # fmt: skip
    return found


def minutes(lasted: float, *, ranks: int = 4, away: Any = ()) -> list[Minute]:
    """What the probes saw of processors, memory, power and temperature."""
    found = []
    for minute in range(math.ceil((BEGAN + lasted) / 60)):
        if any(since <= minute * 60 < until for since, until in away):
            continue
        wave = math.sin(minute / 40)
        found += [one(metric, labels(job="gpt"), minute, 0.0) for metric in COUNTERS]
        for rank in range(ranks):
            own = labels(job="gpt", rank=rank)
            found.append(one("rank_cpu_ratio", own, minute, 0.93 - 0.01 * rank + 0.02 * wave))
        for place in range(2):
            own = labels(numa_node=place)
            found.append(one("node_memory_used_ratio", own, minute, 0.61 + 0.03 * place))
            own = labels(package=place)
            found.append(one("cpu_temperature_celsius", own, minute, 62 + 3 * wave + place))
            watts = 212 + 9 * wave + 2 * place
            found.append(
                one("cpu_package_energy_joules_total", own, minute, 1e6)._replace(grown=60 * watts)
            )
    return found


def one(metric: str, own: Labels, minute: int, value: float) -> Minute:
    return Minute(
        node="node4", metric=metric, labels=own, minute=minute, count=12, sum=12 * value,
        low=value * 0.98, high=value * 1.02, last=value, covered=60.0,
    )  # fmt: skip


def event(t: float, what: What, text: str = "", **keys: Any) -> Event:
    return Event(**{"node": "node4", "t": t, "at": ARMED + t, "what": what, "text": text} | keys)


def saves(lasted: float, *, each: float = 250.0) -> list[Event]:
    found = []
    for number in range(1, int(lasted / each) + 1):
        t, step = BEGAN + number * each, number * 500
        found += [
            event(t - 4, What.BEGUN, step=step),
            event(t, What.SAVED, f"/checkpoints/{step}.pt", step=step, value=3.5),
            event(t + 9, What.VERIFIED, f"/checkpoints/{step}.pt", step=step),
        ]
    return found


def rows(lasted: float = 86_400.0, *more: Event, ranks: int = 4, away: Any = ()) -> FakeRows:
    """A run that went well, but for *more*; nobody looked during *away*."""
    events = [event(0.0, What.STAGE, "armed"), event(BEGAN, What.UP), *saves(lasted)]
    for since, until in away:
        events += [event(since, What.UNSEEN, "the daemon was not running"), event(until, What.UP)]
    return FakeRows(
        windows(lasted, ranks=ranks, away=away),
        minutes(lasted, ranks=ranks, away=away),
        sorted([*events, *more], key=lambda e: e.t),
    )


def verdicts(of: Run, given: FakeRows, check: Check = PHASE1) -> tuple[Judged, ...]:
    """What the real tally and the real judge make of the rows."""
    tally = Tally(of.plan)
    for row in (*given.of_windows, *given.of_minutes, *given.of_events):
        tally.add(row)
    t = of.seen_t if of.ended_t is None else of.ended_t
    return judged(check, of, tally, t=t, at=ARMED + t)


def report(
    of: Run | None = None, given: FakeRows | None = None, check: Check = PHASE1, **keys: Any
) -> dict[str, Any]:
    """The document of a run; *keys* take the place of its parts."""
    of = of or run()
    given = rows() if given is None else given
    parts: dict[str, Any] = {
        "judged": verdicts(of, given, check),
        "goodput": None,
        "hashes": HASHES,
        "overrides": CATALOGUE.overrides,
        "environment": FACTS,
    }
    parts |= keys
    return document(of, check, given, parts.pop("judged"), parts.pop("goodput"), **parts)


def write(path: Path, of: Run, given: FakeRows) -> RunFile:
    """The run's file with these rows, open, as a daemon that watched would leave it."""
    file = RunFile.create(path, of.to_document())
    file.node, file.job, file.every = of.node, of.plan.job, of.plan.every
    file.set_axis(of.axis)
    for number, window in enumerate(given.of_windows):
        file.take([(window.session, number + 1, [_fold(window, of)])])
    file.add([*given.of_minutes, *given.of_events])
    file.heartbeat(of.seen_t, of.seen_at)
    file.flush()
    assert not file.trouble
    return file


def _fold(window: Window, of: Run) -> StepFold:
    """What a rank's packets would have been folded to."""
    return StepFold(
        job=of.plan.job, rank=window.rank, first_step=window.first_step,
        last_step=window.last_step, count=window.steps, at=0.0, samples_sum=window.samples,
        loss_sum=window.loss, loss_count=window.losses, nonfinite=window.nonfinite,
        compute_sum=window.compute, compute_count=window.computes, began=window.began,
        ended=window.ended, norm_sum=window.norm, norm_count=window.norms,
        exposed_sum=window.communication, stepping_sum=window.stepping,
    )  # fmt: skip
