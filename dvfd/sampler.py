"""Run probes on their intervals, and catch what they raise. Never judges, never measures.

Probes that cannot block share one thread and one steady beat. A probe with a deadline has a
thread of its own; a call that outlives the deadline is overdue, and so is its probe until the
call comes back. It keeps its thread: there is never a second call beside it. What it brings
after the deadline is thrown away, since nobody knows when during the stall it was true.
"""

from __future__ import annotations

import heapq
import math
import threading
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

from dvfd.errors import NotApplicable, ProbeError
from dvfd.model import ProbeHealth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dvfd.model import Clock, Labels, Probe, Sample, Unseen

BEAT = 2.0
"""Most seconds that the loop sleeps: /healthz must see it alive between slow probes."""

SAY_AGAIN = 3600.0
"""Seconds before the same message of a probe is logged again."""

MESSAGES = 20
"""Most different messages of a probe logged within SAY_AGAIN: some carry changing numbers."""

LATE_INTERVALS = 3.0
"""Intervals without a pass after which a probe's silence is named in `trouble`."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Counts:
    """What a probe's passes came to since the daemon started."""

    passes: int = 0
    errors: int = 0
    overdue: int = 0
    samples: int = 0
    dropped: int = 0


class _Source:
    """A probe and what is known of it. Written by the one thread that runs it."""

    def __init__(self, probe: Probe, interval: float) -> None:
        self.probe = probe
        self.interval = interval
        self.health = ProbeHealth(probe.name, error="has not run yet")
        self.counts = Counts()
        self.began: float | None = None  # boot time of the call in progress
        self.ended: float | None = None  # boot time of the end of the last call
        self.said: dict[str, float] = {}
        self.thread: threading.Thread | None = None

    @property
    def gaps(self) -> dict[str, str]:
        """Metrics that the probe says this machine cannot give, with the reason."""
        return dict(getattr(self.probe, "gaps", {}))

    @property
    def unseen(self) -> tuple[Unseen, ...]:
        """The series that the probe knows to be there and could not tell."""
        return tuple(getattr(self.probe, "unseen", ()))

    def concerns(self, where: Labels) -> bool:
        """Whether the probe may bring series with these labels; one that says nothing of the labels
        of its own, its `about`, may bring any.
        """
        asked = dict(where)
        own: Labels = getattr(self.probe, "about", ())
        return all(asked.get(name, value) == value for name, value in own)

    def running(self, boot: float) -> float:
        """Seconds that the call in progress has taken, 0 if there is none."""
        began = self.began
        return 0.0 if began is None else max(0.0, boot - began)

    def overdue(self, boot: float) -> bool:
        """Whether a call in progress has outlived the probe's deadline."""
        return 0 < self.probe.deadline < self.running(boot)


@dataclass(slots=True)
class _Pass:
    """What one call of a probe brought."""

    kept: list[Sample] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    error: str = ""
    inapplicable: bool = False


class Sampler:
    """The probes' timetable. `write` takes the samples of a beat.

    `interval` caps the interval of every probe. Raises ValueError if two probes share a name.
    """

    def __init__(
        self,
        probes: Iterable[Probe],
        *,
        write: Callable[[list[Sample]], None],
        clock: Clock,
        interval: float | None = None,
    ) -> None:
        self._write = write
        self._clock = clock
        cap = math.inf if interval is None else interval
        sources = [_Source(probe, min(probe.interval, cap)) for probe in probes]
        self._sources = {source.probe.name: source for source in sources}
        if len(self._sources) != len(sources):
            raise ValueError(f"two probes of one name: {[s.probe.name for s in sources]}")
        self._heap: list[tuple[float, int, _Source]] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._beat = clock.boot()

    def start(self) -> None:
        """Start the loop and one thread for each probe that may block."""
        for source in self._sources.values():
            if source.probe.deadline > 0:
                source.thread = _thread(source.probe.name, partial(self._alone, source))
                source.thread.start()
        self._thread = _thread("sampler", self._loop)
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End the loop; a stuck call is left behind, as nothing can end it."""
        self._stop.set()
        end = self._clock.boot() + timeout  # for all of them: a site may have many that wait
        for source in self._sources.values():
            stuck = source.overdue(self._clock.boot())
            if source.thread and not stuck:
                left = max(0.0, end - self._clock.boot())
                source.thread.join(min(left, source.probe.deadline))
        if self._thread:
            self._thread.join(timeout)

    def beat(self) -> float:
        """Boot time of the loop's last progress."""
        return self._beat

    def tick(self) -> float:
        """Run the shared probes that are due, write what they bring; seconds until the next."""
        boot = self._clock.boot()
        self._beat = boot
        if not self._heap:
            shared = [s for s in self._sources.values() if s.probe.deadline <= 0]
            self._heap = [(boot, number, source) for number, source in enumerate(shared)]
        kept: list[Sample] = []
        while self._heap and self._heap[0][0] <= boot:
            due, number, source = self._heap[0]
            kept += self._sample(source)
            after = following(due, source.interval, self._clock.boot())
            heapq.heapreplace(self._heap, (after, number, source))
        self._hand_over(kept)
        self._beat = self._clock.boot()
        return min(BEAT, self._heap[0][0] - self._beat) if self._heap else BEAT

    def once(self, name: str) -> None:
        """Run the named probe now, in this thread, and write what it brings."""
        self._hand_over(self._sample(self._sources[name]))

    def health(self) -> dict[str, ProbeHealth]:
        """How each probe is doing, by name. Overdue and dead ones are found out here."""
        boot = self._clock.boot()
        return {name: self._health(source, boot) for name, source in self._sources.items()}

    def counts(self) -> dict[str, Counts]:
        """What each probe's passes came to, by name."""
        return {name: source.counts for name, source in self._sources.items()}

    def trouble(self, metric: str, where: Labels = ()) -> str:
        """Why there may be no samples of *metric*, of the series with the labels *where*: its
        probe's standing error; empty if none.
        """
        measures = (s for s in self._sources.values() if metric in s.probe.metrics)
        owners = [source for source in measures if source.concerns(where)]
        if not owners:
            return f"no probe here measures {metric}"
        boot = self._clock.boot()
        return "; ".join(filter(None, (self._trouble(s, metric, boot) for s in owners)))

    def unseen(self, metric: str, where: Labels = ()) -> str:
        """Why *metric* may have more series with the labels *where* than were told; else empty."""
        measures = (s for s in self._sources.values() if metric in s.probe.metrics)
        sources = [source for source in measures if source.concerns(where)]
        found = [(s, u.why) for s in sources for u in s.unseen if u.concerns(metric, where)]
        if not found:
            return ""
        source, why = found[0]
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        return f"probe {source.probe.name}: {why}{more}"

    def words(self, metric: str, where: Labels = ()) -> str:
        """What the source of a metric's series says itself of what it found, if it has words."""
        sources = [s for s in self._sources.values() if metric in s.probe.metrics]
        said = (getattr(s.probe, "words", "") for s in sources if s.concerns(where))
        return "; ".join(filter(None, said))

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._stop.wait(max(0.0, self.tick()))

    def _alone(self, source: _Source) -> None:
        """The life of a thread that belongs to one probe."""
        due = self._clock.boot()
        while not self._stop.is_set():
            self._hand_over(self._sample(source))
            due = following(due, source.interval, self._clock.boot())
            self._stop.wait(max(0.0, due - self._clock.boot()))

    def _hand_over(self, kept: list[Sample]) -> None:
        if kept:
            self._write(kept)

    def _sample(self, source: _Source) -> list[Sample]:
        """One pass of one probe, with its health and counts brought up to date."""
        at, began = self._clock.now(), self._clock.boot()
        source.began = began
        found = self._measure(source, at)
        took = self._clock.boot() - began
        late = 0 < source.probe.deadline < took
        if late:
            found.error = _late(source.probe.deadline, took, len(found.kept), found.error)
            found.kept, found.inapplicable = [], False
        self._account(source, found, at, took, late=late)
        source.ended = self._clock.boot()
        source.began = None
        return found.kept

    def _measure(self, source: _Source, at: float) -> _Pass:
        """Call the probe. The one place that catches whatever a probe raises."""
        found = _Pass()
        try:
            for sample in source.probe.sample(at):
                wrong = _wrong(sample, source.probe.metrics)
                found.refused.append(wrong) if wrong else found.kept.append(sample)
        except NotApplicable as reason:
            found.error, found.inapplicable = str(reason), True
        except ProbeError as error:
            found.error = str(error)
            self._say(source, "probe could not read its source", found.error)
        except Exception as error:  # noqa: BLE001  # one probe's bug must not blind the others
            found.error = f"{type(error).__name__}: {error}"
            self._say(source, "probe failed", found.error, exc_info=True)
        if found.refused:
            found.error = "; ".join(filter(None, (found.error, _refusal(found.refused))))
            found.inapplicable = False
            self._say(source, "probe brought samples that are none", found.error)
        return found

    def _account(
        self, source: _Source, found: _Pass, at: float, took: float, *, late: bool
    ) -> None:
        well = found.inapplicable or not found.error
        past, counts = source.health, source.counts
        source.health = ProbeHealth(
            source.probe.name,
            up=well,
            last_run=at,
            last_success=at if well else past.last_success,
            duration=took,
            error=found.error,
            not_applicable=found.inapplicable,
        )
        source.counts = replace(
            counts,
            passes=counts.passes + 1,
            errors=counts.errors + (not well),
            overdue=counts.overdue + late,
            samples=counts.samples + len(found.kept),
            dropped=counts.dropped + len(found.refused),
        )

    def _say(self, source: _Source, event: str, error: str, *, exc_info: bool = False) -> None:
        """Log *error* unless the probe said the same within the hour."""
        boot = self._clock.boot()
        source.said = {m: t for m, t in source.said.items() if boot - t < SAY_AGAIN}
        if error in source.said or len(source.said) >= MESSAGES:
            return
        source.said[error] = boot
        log.warning(event, probe=source.probe.name, error=error, exc_info=exc_info)

    def _health(self, source: _Source, boot: float) -> ProbeHealth:
        health = source.health
        if source.overdue(boot):
            error = f"still running after {source.running(boot):.0f} s"
            error += f", deadline {source.probe.deadline:g} s: its source does not answer"
            return replace(health, up=False, overdue=True, error=error)
        if source.thread and not source.thread.is_alive() and not self._stop.is_set():
            return replace(health, up=False, error="its thread has ended: restart the daemon")
        if health.up and not health.error and source.gaps:
            gaps = "; ".join(f"no {metric}: {why}" for metric, why in source.gaps.items())
            return replace(health, error=gaps)
        return health

    def _trouble(self, source: _Source, metric: str, boot: float) -> str:
        health, name = self._health(source, boot), source.probe.name
        if health.overdue or source.ended is None:
            return f"probe {name}: {health.error}"
        age = boot - source.ended
        if not health.up or health.not_applicable:
            return f"probe {name}, {age:.0f} s ago: {health.error}"
        if age > LATE_INTERVALS * source.interval:
            return f"probe {name} last ran {age:.0f} s ago, wanted every {source.interval:g} s"
        why = source.gaps.get(metric)
        return f"probe {name}: {why}" if why else ""


def _thread(name: str, target: Callable[[], None]) -> threading.Thread:
    """A thread that does not keep the process alive: a stuck call must not."""
    return threading.Thread(target=target, name=f"dvfd-{name}", daemon=True)


def following(due: float, interval: float, boot: float) -> float:
    """The next time on the beat of *due* after *boot*: ticks that were missed are left out."""
    missed = max(0, math.floor((boot - due) / interval))
    return due + (missed + 1) * interval


def _wrong(sample: Sample, declared: Sequence[str]) -> str:
    """Why *sample* is none, empty if it is well."""
    if sample.metric not in declared:
        return f"{sample.metric} is not declared"
    if not all(math.isfinite(v) for v in (sample.value, sample.low, sample.high) if v is not None):
        where = ",".join(f"{name}={value}" for name, value in sample.labels)
        return f"{sample.metric}{{{where}}} is {sample.value}, wanted a finite number"
    return ""


def _refusal(wrong: list[str]) -> str:
    more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"dropped: {wrong[0]}{more}"


def _late(deadline: float, took: float, samples: int, error: str) -> str:
    late = f"took {took:.1f} s, deadline {deadline:g} s: {samples} samples thrown away"
    return f"{late}; {error}" if error else late
