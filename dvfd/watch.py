"""Judge what must be known now: everything at a steady pace, and at once what a metric wakes.

Silence wakes as well: a verdict whose sample grows too old between two passes is judged then, so
that nothing passes for longer than the greatest age of its sample.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator

import structlog

from dvfd.model import Check, Clock, Criterion, Labels, Report, Sample, Verdict

log = structlog.get_logger()

GAP = 0.05
"""Least seconds between two woken passes: a storm of events costs 20 passes a second at most."""

FIRST = 5.0
"""Seconds to wait for the first pass, which takes some milliseconds."""

SERIES_LIMIT = 10_000
"""Values remembered: as many series as the store keeps alive."""

TOO_OLD = 0.1
"""Seconds after a sample's greatest age: at that age it still counts, and so do those that the same
pass of the sampler took a little later."""

Judge = Callable[[Check, tuple[Criterion, ...]], Report | None]


class Watch:
    """The loop that keeps a check's verdicts current."""

    def __init__(
        self,
        check: Check,
        judge: Judge,
        *,
        clock: Clock,
        interval: float,
        events: Iterable[str] = (),
        deadline: Callable[[], float | None] = lambda: None,
        overdue: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """*judge* is called with the criteria that need a look. *events* are metrics that are
        judged as soon as a value of theirs moves: counters, yes and no. *deadline* gives the boot
        time at which silence alone becomes a breach, or None; *overdue* is then called to measure
        that silence, and returns the metrics that it sampled.
        """
        self._check = check
        self._judge = judge
        self._clock = clock
        self._interval = interval
        self._deadline = deadline
        self._overdue = overdue
        self._by_metric: dict[str, list[Criterion]] = {}
        for criterion in check.criteria:
            for metric in {criterion.metric, criterion.limit.metric} - {""}:
                self._by_metric.setdefault(metric, []).append(criterion)
        self._events = self._by_metric.keys() & set(events)
        self._values: dict[tuple[str, Labels], float] = {}
        self._touched: set[str] = set()
        self._stale = math.inf  # boot time at which the first sample is too old
        self._condition = threading.Condition()
        self._stop = threading.Event()
        self._judged = threading.Event()
        self._beat = 0.0
        self._thread = threading.Thread(target=self._loop, name="watch", daemon=True)

    def start(self) -> None:
        """Begin, and come back once everything was judged for the first time."""
        self._beat = self._clock.boot()
        self._thread.start()
        self._judged.wait(FIRST)

    def stop(self) -> None:
        """End after the pass in progress."""
        with self._condition:
            self._stop.set()
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join(5)

    def wake(self, metrics: Iterable[str]) -> None:
        """Judge the criteria of *metrics* now. Any thread; never blocks on a judgement."""
        known = self._by_metric.keys() & set(metrics)
        if known:
            with self._condition:
                self._touched |= known
                self._condition.notify()

    def notice(self, samples: Iterable[Sample]) -> None:
        """Wake for the events among *samples* that moved; levels wait for the next pass."""
        moved = {s.metric for s in samples if s.metric in self._events and self._moved(s)}
        if moved:
            self.wake(moved)

    def beat(self) -> float:
        """Boot time of the last pass over everything."""
        return self._beat

    def _moved(self, sample: Sample) -> bool:
        """Whether a series has another value than before; a new one has."""
        if len(self._values) > SERIES_LIMIT:
            self._values.clear()  # names of jobs long gone: each live series wakes once more
        series = (sample.metric, sample.labels)
        moved = self._values.get(series) != sample.value
        self._values[series] = sample.value
        return moved

    def _loop(self) -> None:
        """Go round for as long as the daemon lives. A pass that crashes is told and not counted as
        progress: the loop turns late, and its verdicts lapse, but alarms go on when it works again.
        """
        due = self._clock.boot()
        while not self._stop.is_set():
            try:
                due = self._round(due)
            except Exception:
                log.exception("a pass of the watch crashed")
                due = self._clock.boot() + self._interval
                self._stop.wait(GAP)

    def _round(self, due: float) -> float:
        """Judge what needs it, then sleep; when the next whole pass is due."""
        now, woken = self._clock.boot(), 0.0
        if now >= due:
            self._pass(self._check.criteria)
            self._beat = self._clock.boot()
            self._judged.set()
            # After a suspend the missed passes are not made up for.
            due = max(due + self._interval, now)
        elif touched := self._take():
            woken = now
            self._pass(self._criteria(touched))
        if self._clock.boot() >= self._stale:
            self.wake(self._by_metric)
        elif self._wait(min(due, self._stale), woken):
            self.wake(self._overdue())
        return due

    def _pass(self, criteria: tuple[Criterion, ...]) -> None:
        """Judge, and note when the first of what passes will be too old to."""
        report, boot = self._judge(self._check, criteria), self._clock.boot()
        left = [] if report is None else list(_left(report))
        self._stale = boot + min((each for each in left if each > 0), default=math.inf)

    def _take(self) -> set[str]:
        with self._condition:
            touched, self._touched = self._touched, set()
        return touched

    def _criteria(self, metrics: set[str]) -> tuple[Criterion, ...]:
        wanted = {c.id: c for m in metrics for c in self._by_metric[m]}
        return tuple(wanted.values())

    def _wait(self, due: float, woken: float) -> bool:
        """Sleep until there is something to do; whether that is a deadline that passed."""
        now = self._clock.boot()
        deadline = self._deadline()
        silent = deadline is not None and now < deadline < due
        until = max(now, deadline if silent and deadline is not None else due)
        with self._condition:
            if (
                not self._touched
                and not self._stop.is_set()
                and not self._condition.wait(until - now)
            ):
                return silent
        self._stop.wait(min(GAP, max(0.0, woken + GAP - self._clock.boot())))
        return False


def _left(report: Report) -> Iterator[float]:
    """Seconds from *report* on for which the sample of each pass is young enough."""
    for r in report.results:
        if r.verdict is Verdict.PASS and r.sampled_at is not None:
            yield r.sampled_at + r.criterion.max_age - report.at + TOO_OLD
