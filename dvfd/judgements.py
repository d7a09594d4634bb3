"""The current verdict of every criterion. Asks the store, lets `judge` decide, tells the sinks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from dvfd.config import Maintenance
from dvfd.judge import judge
from dvfd.model import (
    ATTESTATION,
    DRILL,
    REVIEW,
    Catalogue,
    Check,
    Clock,
    Criterion,
    Labels,
    Report,
    Result,
    Run,
    Sample,
    Sink,
    Verdict,
)

log = structlog.get_logger()

NEVER_RUN = "the test was not run here yet: dvfd check {}"

NO_REVIEW = "nothing could be made of the days of the {} list: see the log"

OWN_FIGURES = {DRILL: NEVER_RUN, REVIEW: NO_REVIEW}
"""Sources whose figures are those of one drill or review, and what is said where there is none."""

NO_RUN = "stability runs are judged by the daemon that watched them"

JOB = "job"
"""The feature in `requires` that marks criteria of a training job: maintenance excuses them."""


class Evidence(Protocol):
    """What judging needs of the store."""

    def samples(self, criterion: Criterion, *, until: float) -> Sequence[Sample]:
        """The samples that *criterion* is judged on."""
        ...

    def keep(self, report: Report, *, scheduled: float | None = None) -> None:
        """Record *report*; *scheduled* is the Unix time at which it was due."""
        ...


class Drilled(Protocol):
    """What the newest run of a check's drill found; dvfd.drills.findings has the record."""

    @property
    def samples(self) -> Sequence[Sample]:
        """Its figures: only they are judged, not those of earlier runs."""
        ...

    @property
    def run(self) -> Run:
        """What a report tells of it."""
        ...

    def trouble(self, criterion: Criterion) -> str:
        """Why *criterion* has no figure."""
        ...

    def spoken(self, result: Result) -> Result:
        """*result* with what was remarked."""
        ...


class Window(Protocol):
    """What an engine has of a criterion's window; dvfd.history.chosen makes it."""

    @property
    def samples(self) -> Sequence[Sample]:
        """What is judged."""
        ...

    @property
    def trouble(self) -> str:
        """Why there is nothing."""
        ...

    @property
    def note(self) -> str:
        """Where it is from, if not from where it should be."""
        ...


class Judgements:
    """Judges checks, and remembers the newest result of every criterion of the catalogue."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        store: Evidence,
        clock: Clock,
        sinks: Iterable[Sink] = (),
        node: str = "",
        profile_hash: str = "",
        environment_hash: str = "",
        trouble: Callable[[str, Labels], str] = lambda metric, where: "",
        words: Callable[[str, Labels], str] = lambda metric, where: "",
        unseen: Callable[[str, Labels], str] = lambda metric, where: "",
        maintenance: Sequence[Maintenance] = (),
        drilled: Callable[[str], Drilled | None] = lambda check: None,
        reviewed: Callable[[Check], Drilled | None] = lambda check: None,
        runs: Callable[[Check, float], tuple[Result, ...]] | None = None,
        attested: Callable[[Criterion, float], Result] | None = None,
        waived: Callable[[Result, float], Result] = lambda result, _at: result,
        windows: Callable[[Check, float], Mapping[str, Window]] = lambda check, at: {},
    ) -> None:
        """*trouble* gives the last error of the source of series, or an empty string, *words* what
        it says itself of what it found, *unseen* why there may be more of them; *drilled* the
        newest findings of the drill of a check, *reviewed* what a review of its days finds now,
        *runs* the results of its newest stability run, *attested* the result of a criterion on
        what people state; *waived* makes of a result what it counts as at a moment; *windows* has
        the samples of criteria, by their ids, that the store is not asked for.
        """
        self._store = store
        self._clock = clock
        self._sinks = tuple(sinks)
        self._identity = (node, catalogue.hash, profile_hash, environment_hash)
        self._trouble = trouble
        self._words = words
        self._unseen = unseen
        self._maintenance = tuple(maintenance)
        self._drilled = drilled
        self._reviewed = reviewed
        self._runs = runs
        self._attested = attested
        self._waived = waived
        self._windows = windows
        self._lock = threading.Lock()
        self._crashes: dict[str, str] = {}
        self._results: dict[str, Result] = {
            c.id: Result.unknown(c, clock.now(), "not judged yet")
            for check in catalogue.checks.values()
            for c in check.criteria
        }

    def run_check(
        self,
        check: Check,
        criteria: Iterable[Criterion] | None = None,
        *,
        scheduled: float | None = None,
    ) -> Report:
        """Judge *check* on what the store holds, keep the report, tell the sinks.

        With *criteria* only those are judged anew; the others keep their newest result.
        """
        began = self._clock.boot()
        review = self._review(check)  # may take minutes: before the lock
        at = self._clock.now()
        drilled = self._drilled(check.id) if check.drill else review
        windows = self._elsewhere(check, at)  # before the lock, too
        of_run = (self._runs or unwatched)(check, at) if check.every else ()
        with self._lock:
            self._results |= {result.criterion.id: result for result in of_run}
            for criterion in check.criteria if criteria is None else criteria:
                if not of_run or criterion.source == ATTESTATION:  # nobody's word ends with a run
                    window = windows.get(criterion.id)
                    self._results[criterion.id] = self._judge(criterion, at, drilled, window)
            results = tuple(self._waived(self._results[c.id], at) for c in check.criteria)
            late = max(0.0, at - scheduled) if scheduled is not None else 0.0
            took = self._clock.boot() - began
            judged = (check.id, *(criterion.id for criterion in check.criteria))
            crashes = "; ".join(self._crashes[name] for name in judged if name in self._crashes)
            run = drilled.run if drilled else None
            report = Report(
                check, results, at, *self._identity, late, took, crashes, scheduled, run
            )
        self._store.keep(report, scheduled=scheduled)
        for sink in self._sinks:
            self._tell(sink, report)
        return report

    def _review(self, check: Check) -> Drilled | None:
        """What a review of *check* finds; one that crashes leaves its criteria UNKNOWN."""
        if all(criterion.source != REVIEW for criterion in check.criteria):
            return None
        try:
            return self._reviewed(check)
        except Exception:
            log.exception("review crashed", check=check.id)
            return None

    def _elsewhere(self, check: Check, at: float) -> Mapping[str, Window]:
        """What an engine has for *check*; if asking crashes, the store is asked as ever, and the
        report says so.
        """
        self._crashes.pop(check.id, None)
        try:
            return self._windows(check, at)
        except Exception as error:
            log.exception("asking for windows crashed", check=check.id)
            told = f"asking the engine of [history]: {error!r}; judged on the store"
            self._crashes[check.id] = told
            return {}

    def _judge(
        self, criterion: Criterion, at: float, drilled: Drilled | None, window: Window | None
    ) -> Result:
        excuse = next((m.reason for m in self._maintenance if m.covers(at)), None)
        if excuse is not None and JOB in criterion.requires and not criterion.inapplicable:
            reason = f"declared maintenance: {excuse}"
            return Result(criterion, Verdict.NOT_APPLICABLE, at, reason)
        try:
            result = self._held(criterion, at, drilled, window)
        except Exception as error:  # a criterion that crashes is UNKNOWN, alone
            log.exception("judging crashed", criterion=criterion.id)
            self._crashes[criterion.id] = f"{criterion.id}: {error!r}"
            return Result.unknown(criterion, at, f"judging it crashed: {error!r}; see the log")
        self._crashes.pop(criterion.id, None)
        return result

    def _held(
        self, criterion: Criterion, at: float, drilled: Drilled | None, window: Window | None
    ) -> Result:
        """*criterion* held against the drill's figures if it is one's, against what people state
        if it is about that, else against the store.
        """
        if drilled:
            criterion = criterion.among(drilled.run.processes)
        if criterion.source == ATTESTATION and self._attested:
            return self._attested(criterion, at)
        if criterion.source in OWN_FIGURES:
            samples = drilled.samples if drilled else ()
            none = OWN_FIGURES[criterion.source].format(criterion.check)
            trouble = drilled.trouble(criterion) if drilled else none
        else:
            samples = window.samples if window else self._store.samples(criterion, until=at)
            trouble = (window.trouble if window else "") or self._trouble(
                criterion.metric, criterion.where
            )
            if drilled and criterion.limit.metric:  # a limit that the review has found
                samples = [*samples, *drilled.samples]
                trouble = "; ".join(filter(None, (trouble, drilled.trouble(criterion))))
        hidden = self._hidden(criterion)
        result = judge(criterion, samples, at=at, trouble=trouble or hidden)
        if result.verdict is Verdict.PASS and hidden:
            reason = f"not all of {criterion.metric} could be told: {hidden}"
            reason = f"{reason}; what was: {result.reason}"
            result = replace(result, verdict=Verdict.UNKNOWN, reason=reason)
        if result.verdict is Verdict.FAIL and (
            said := self._words(criterion.metric, result.labels)
        ):
            result = replace(result, reason=f"{result.reason}; it says: {said}")
        if criterion.source == REVIEW and trouble:  # the job is there: nothing is over
            result = replace(result, absent=False)
        if window and window.note:
            result = replace(result, note="; ".join(filter(None, (result.note, window.note))))
        return drilled.spoken(result) if drilled else result

    def _hidden(self, criterion: Criterion) -> str:
        """Why there may be series of *criterion*, or of its limit, that nobody told."""
        why = self._unseen(criterion.metric, criterion.where)
        if not why and criterion.limit.metric:
            why = self._unseen(criterion.limit.metric, ())
        return why

    def _tell(self, sink: Sink, report: Report) -> None:
        try:
            sink.tell(report)
        except Exception:  # one sink's trouble is not the others'
            log.exception("sink failed", sink=type(sink).__name__, check=report.check.id)


def unwatched(check: Check, at: float, why: str = NO_RUN) -> tuple[Result, ...]:
    """Every criterion of a stability run that nobody made or watched, and *why*. What a node's
    probes saw outside a run is no part of one.
    """
    return tuple(judge(criterion, (), at=at, trouble=why) for criterion in check.criteria)
