"""The watch: a steady pass over everything, and a prompt one over what was touched."""

from __future__ import annotations

import queue
import time
from dataclasses import replace

from dvfd.clock import SystemClock
from dvfd.model import (
    Check,
    Comparison,
    Criterion,
    Limit,
    Report,
    Result,
    Sample,
    Verdict,
    labels,
)
from dvfd.watch import Watch


def criterion(name: str, metric: str) -> Criterion:
    return Criterion(
        id=f"live.{name}", item="1", clause="c", text="t", metric=metric, unit="bool",
        comparison=Comparison.EQUAL, limit=Limit(value=1),
    )  # fmt: skip


CHECK = Check(
    id="live",
    title="Live",
    clause="c",
    watch=True,
    criteria=(criterion("alive", "rank_responding"), criterion("heat", "temperature")),
)


class Seen:
    """Collects what the watch asks to be judged."""

    def __init__(self) -> None:
        self.passes: queue.Queue[list[str]] = queue.Queue()

    def __call__(self, check: Check, criteria: tuple[Criterion, ...]) -> None:
        self.passes.put([c.id for c in criteria])


def started(seen: Seen, **options: object) -> Watch:
    watch = Watch(CHECK, seen, clock=SystemClock(), **{"interval": 60.0, **options})  # type: ignore[arg-type]
    watch.start()
    assert seen.passes.get(timeout=30) == ["live.alive", "live.heat"]
    return watch


def test_a_touched_metric_is_judged_at_once_and_alone() -> None:
    seen = Seen()
    watch = started(seen)
    began = time.monotonic()
    watch.wake(["rank_responding", "no_such_metric"])
    assert seen.passes.get(timeout=30) == ["live.alive"]
    assert time.monotonic() - began < 30  # all are judged again a minute after
    watch.stop()


def test_a_storm_of_wakes_is_judged_in_few_passes() -> None:
    seen = Seen()
    watch = started(seen)
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        watch.wake(["temperature"])
        time.sleep(0.001)
    watch.stop()
    assert 1 <= seen.passes.qsize() <= 14


def test_everything_is_judged_at_the_interval() -> None:
    seen = Seen()
    watch = started(seen, interval=0.05)
    assert seen.passes.get(timeout=30) == ["live.alive", "live.heat"]
    watch.stop()


def test_silence_is_measured_when_its_deadline_passes() -> None:
    seen = Seen()
    clock = SystemClock()
    deadline = clock.boot() + 0.2
    watch = started(seen, deadline=lambda: deadline, overdue=lambda: ["rank_responding"])
    assert seen.passes.get(timeout=30) == ["live.alive"]
    assert clock.boot() >= deadline
    watch.stop()


def test_an_unknown_metric_wakes_nobody() -> None:
    seen = Seen()
    watch = started(seen)
    watch.wake(["no_such_metric"])
    time.sleep(0.1)
    assert seen.passes.empty()
    watch.stop()


def sample(value: float, rank: int = 0) -> Sample:
    return Sample("rank_responding", value, 0.0, labels(job="gpt", rank=rank))


def test_an_event_that_moves_is_judged_at_once_and_one_that_stays_is_not() -> None:
    seen = Seen()
    watch = started(seen, events=["rank_responding"])
    watch.notice([sample(1, rank=0), sample(1, rank=1)])
    assert seen.passes.get(timeout=30) == ["live.alive"]
    watch.notice([sample(1, rank=0), sample(1, rank=1)])
    time.sleep(0.1)
    assert seen.passes.empty()
    watch.notice([sample(1, rank=0), sample(0, rank=1)])
    assert seen.passes.get(timeout=30) == ["live.alive"]
    watch.stop()


def test_a_level_that_wanders_waits_for_the_next_pass() -> None:
    seen = Seen()
    watch = started(seen)
    watch.notice([sample(1), sample(0)])
    time.sleep(0.1)
    assert seen.passes.empty()
    watch.stop()


def test_a_pass_that_crashes_is_no_progress_and_no_end() -> None:
    seen = Seen()
    crashes = [ZeroDivisionError()]

    def judge(check: Check, criteria: tuple[Criterion, ...]) -> None:
        if crashes:
            raise crashes.pop()
        seen(check, criteria)

    watch = Watch(CHECK, judge, clock=SystemClock(), interval=0.05)
    began = SystemClock().boot()
    watch.start()
    assert seen.passes.get(timeout=30) == ["live.alive", "live.heat"]
    assert watch.beat() >= began + 0.05
    watch.stop()


def test_a_sample_that_grows_too_old_between_two_passes_is_judged_then() -> None:
    seen, clock = Seen(), SystemClock()
    alive = replace(CHECK.criteria[0], max_age=0.3)
    spoke = clock.now()

    def judge(check: Check, criteria: tuple[Criterion, ...]) -> Report:
        seen(check, criteria)
        at = clock.now()
        verdict = Verdict.PASS if at - spoke <= alive.max_age else Verdict.UNKNOWN
        results = (Result(alive, verdict, at, "", sampled_at=spoke),)
        return Report(check, results, at)

    watch = Watch(CHECK, judge, clock=clock, interval=60.0)
    watch.start()
    seen.passes.get(timeout=60)

    assert sorted(seen.passes.get(timeout=30)) == ["live.alive", "live.heat"]
    assert clock.now() - spoke > alive.max_age
    watch.stop()
    assert seen.passes.empty()
