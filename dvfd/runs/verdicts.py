"""What the figures of a run are worth: now, so far, and at its end. Pure.

While a run is on it has passed nothing: a criterion is UNKNOWN with what it says so far, or FAIL
once nothing that may still come can mend it. A run that does not count never passes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from dvfd.judge import judge_readings
from dvfd.model import Combine, Comparison, Result, Verdict
from dvfd.reduce import GROWING, seconds
from dvfd.runs.run import Stage
from dvfd.store.documents import result_document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dvfd.model import Check, Criterion
    from dvfd.reduce import Reading
    from dvfd.runs.run import Run
    from dvfd.runs.tally import Tally

AVAILABILITY = "run_availability_ratio"

COUNTED = frozenset({
    "run_checkpoints_attempted", "run_checkpoints_saved", "run_checkpoints_verified",
})  # fmt: skip
"""Counts that must reach another count: what was missed is never made up."""

UPPER = frozenset({Comparison.AT_MOST, Comparison.LESS_THAN, Comparison.EQUAL})

EFFICIENCY = "scaling_efficiency_ratio"


@dataclass(frozen=True, slots=True)
class Outlook:
    """What may still go wrong. `budget` and `used` are in `unit`; `burn_rate` is the share of the
    budget that is used over the share of the time that is gone: above 1 it will not last.
    """

    budget: float | None = None
    used: float | None = None
    unit: str = ""
    burn_rate: float | None = None
    lost: bool = False
    words: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """One criterion of a run: its verdict, what it would be if the run ended now, what is left."""

    result: Result
    so_far: Verdict
    outlook: Outlook

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        document = result_document(self.result)
        return document | {"so_far": self.so_far.value, "outlook": asdict(self.outlook)}


def judged(check: Check, run: Run, tally: Tally, *, t: float, at: float) -> tuple[Judged, ...]:
    """Every criterion of *check* on *run* at run second *t*, Unix time *at*."""
    moment = run.ended_at if run.stage.over and run.ended_at is not None else at
    if run.leader:
        return tuple(_elsewhere(criterion, run, moment) for criterion in check.criteria)
    seen = max((criterion.coverage for criterion in check.criteria), default=0.0)
    found = ((c, _one(_whole(c, seen), run, tally, t, moment)) for c in check.criteria)
    return tuple(replace(j, result=replace(j.result, criterion=c)) for c, j in found)


def _elsewhere(criterion: Criterion, run: Run, at: float) -> Judged:
    """At a node that another one leads nothing is judged: it has its own rows alone."""
    of = run.of or "that it did not name yet"
    reason = f"judged at {run.leader}, which leads, as run {of}"
    return Judged(Result.unknown(criterion, at, reason), Verdict.UNKNOWN, Outlook())


def _whole(criterion: Criterion, seen: float) -> Criterion:
    """*criterion* with the share of a run that must have been seen: a figure of a run that is one
    number (a fall, an efficiency) is about all of it, though `latest` needs no window.
    """
    return replace(criterion, coverage=seen) if criterion.reduce == "latest" else criterion


def _one(criterion: Criterion, run: Run, tally: Tally, t: float, at: float) -> Judged:
    applies = _applied(criterion, tally)
    readings = tally.readings(applies, run, t)
    others = tally.others(applies, run, t, at)
    raw = judge_readings(applies, readings, others, at=at, trouble=_waits(run))
    silent = tally.silent if raw.verdict is Verdict.UNKNOWN else []
    unsaid = [words for words in silent if words not in raw.reason]
    words = (raw.reason, *unsaid, _beyond_linear(raw), tally.voucher(criterion))
    said = "; ".join(filter(None, words))
    # A reading's own times are run seconds.
    newest = None if raw.sampled_at is None else at
    raw = replace(raw, criterion=criterion, reason=said, sampled_at=newest)
    outlook = _outlook(criterion, run, readings, raw, t)
    return Judged(_worth(raw, run, outlook, t), raw.verdict, outlook)


def _beyond_linear(raw: Result) -> str:
    """What an efficiency above 100 % asks for: more than linear needs a cause (reading 14)."""
    above = raw.criterion.metric == EFFICIENCY and (raw.observed or 0.0) > 1.0
    return "super-linear: verify the baseline" if above else ""


def _applied(criterion: Criterion, tally: Tally) -> Criterion:
    """*criterion*, not applicable if it is about an injected fault and there was none."""
    if "injection" in criterion.requires and not criterion.inapplicable and not tally.disturbed:
        return replace(criterion, inapplicable="no fault was injected into this run")
    return criterion


def _waits(run: Run) -> str:
    if run.began_t is not None:
        return ""
    return run.reason or f"the run is {run.stage}: job {run.plan.job} has not made its first step"


def _worth(raw: Result, run: Run, outlook: Outlook, t: float) -> Result:
    """The verdict that counts."""
    if raw.verdict is Verdict.NOT_APPLICABLE:
        return raw
    if run.stage is Stage.COMPLETE:
        return _counted(raw, run)
    if outlook.lost:
        return raw
    gone = f"{seconds(run.elapsed(t))} of {seconds(run.plan.duration)}"
    ended = f"the run ended after {gone}: {run.reason}" if run.stage.over else f"after {gone}"
    said = {Verdict.PASS: "passes so far", Verdict.FAIL: "fails so far, and may still be met"}
    so_far = said.get(raw.verdict, "not known so far")
    if run.stage.over:
        so_far = so_far.removesuffix(", and may still be met")
    return replace(raw, verdict=Verdict.UNKNOWN, reason=f"{so_far}, {ended}; {raw.reason}")


def _counted(raw: Result, run: Run) -> Result:
    """A pass of a run that does not count is none."""
    why = run.plan.uncounted
    if raw.verdict is not Verdict.PASS or not why:
        return raw
    more = f" and {len(why) - 1} more" if len(why) > 1 else ""
    reason = f"passes, which does not count ({why[0]}{more}): {raw.reason}"
    return replace(raw, verdict=Verdict.UNKNOWN, reason=reason)


# --- What is left ------------------------------------------------------------------------------


def _outlook(
    criterion: Criterion, run: Run, readings: Sequence[Reading], raw: Result, t: float
) -> Outlook:
    if raw.verdict is Verdict.NOT_APPLICABLE or run.began_t is None:
        return Outlook()
    if criterion.metric == AVAILABILITY and readings:
        return _downtime(criterion, run, readings[0], t)
    final = run.stage is Stage.COMPLETE
    if criterion.reduce in GROWING and criterion.comparison in UPPER:
        return _events(criterion, raw, final=final)
    if criterion.metric in COUNTED:
        lost = raw.verdict is Verdict.FAIL
        return Outlook(lost=lost, words="what was missed cannot be made up" if lost else "")
    plain = criterion.reduce == "mean" and criterion.combine is Combine.WORST
    if plain and raw.observed is not None and raw.limit is not None:
        return _average(criterion, run, raw, t, final=final)
    return Outlook(lost=final and raw.verdict is Verdict.FAIL)


def _downtime(criterion: Criterion, run: Run, reading: Reading, t: float) -> Outlook:
    """Seconds that workers may still be down, of the run's whole length."""
    if criterion.limit.value is None:
        return Outlook()
    elapsed = run.elapsed(t)
    budget = (1.0 - criterion.limit.value) * run.plan.duration
    used = max(0.0, (1.0 - reading.value.high) * elapsed)  # what was surely down
    burn = used / budget / (elapsed / run.plan.duration) if budget > 0 and elapsed > 0 else None
    lost = used > budget
    words = f"{max(0.0, budget - used):.1f} of {budget:.1f} s left"
    return Outlook(budget, used, "seconds", burn, lost, words)


def _events(criterion: Criterion, raw: Result, *, final: bool) -> Outlook:
    """A count or a maximum only grows: beyond its limit it stays there."""
    lost = raw.verdict is Verdict.FAIL
    if criterion.reduce == "max" or raw.limit is None or raw.observed is None:
        return Outlook(lost=lost)
    budget = raw.limit
    words = f"{max(0.0, budget - raw.observed):g} {criterion.unit} left of {budget:g}"
    return Outlook(budget, raw.observed, criterion.unit, None, lost, "" if final else words)


def _average(criterion: Criterion, run: Run, raw: Result, t: float, *, final: bool) -> Outlook:
    """What the rest of the run must average."""
    failed = raw.verdict is Verdict.FAIL
    left, elapsed = run.left(t), run.elapsed(t)
    if final or left <= 0 or raw.observed is None or raw.limit is None:
        return Outlook(lost=final and failed)
    needed = (raw.limit * (elapsed + left) - raw.observed * elapsed) / left
    possible = criterion.possible
    lost = failed and possible is not None and not possible.low <= needed <= possible.high
    sign = "at most" if criterion.comparison in UPPER else "at least"
    words = f"the rest must average {sign} {needed:.4g}"
    return Outlook(words=words, lost=lost)
