"""What one run of a drill found: samples, and the words that go with them. Judges nothing.

It travels as JSON: from the command that ran the drill to the daemon that keeps and judges it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dvfd.drills.drill import OF, Fact, Remark, Trouble
from dvfd.errors import ProbeError
from dvfd.model import DRILL, Result, Run, Sample, Verdict, labels
from dvfd.reduce import seconds
from dvfd.words import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dvfd.model import Catalogue, Check, Criterion, Labels

MOST = 10_000
"""Samples and words of one kind that a run may leave: a drill of 64 ranks leaves hundreds."""

WORDS = 2000
"""Characters of one remark that are kept: a tool's last words, not its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Of one run: when it began and ended, Unix seconds, and how long it was to run."""

    check: str
    began: float
    ended: float
    planned: float = 0.0  # seconds of the check's own duration; 0 where it has none
    ran: float = 0.0  # seconds of it that were chosen
    samples: tuple[Sample, ...] = ()
    remarks: tuple[Remark, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    facts: tuple[Fact, ...] = ()
    by: str = ""
    processes: int = 0  # ranks of all nodes, or those that it is about; 0 for a test of none
    members: tuple[str, ...] = ()  # the nodes that took part
    elsewhere: str = ""  # the node that judges it, where it is not this one; it does not travel
    node: Mapping[str, str] = field(default_factory=dict)  # what this one was: dvfd.environment

    @property
    def shortened(self) -> str:
        """`60 s of 4 h` if the run was shorter than its check's duration, else nothing."""
        if self.ran >= self.planned:
            return ""
        ran = seconds(self.ran) if self.ran >= 1 else "nothing"
        return f"{ran} of {seconds(self.planned)}"

    @property
    def run(self) -> Run:
        """What a report tells of it."""
        return Run(
            began=self.began,
            ended=self.ended,
            shortened=self.shortened,
            by=self.by,
            facts=tuple((fact.name, fact.text) for fact in self.facts),
            processes=self.processes,
        )

    @property
    def of(self) -> dict[str, str]:
        """The stability run of each phase that they speak of."""
        named = (fact for fact in self.facts if fact.name.startswith(OF))
        return {fact.name.removeprefix(OF): fact.text for fact in named}

    def trouble(self, criterion: Criterion) -> str:
        """Why *criterion* has no figure, in the words of what was run."""
        return _words(self.troubles, criterion.metric, dict(criterion.where))

    def spoken(self, result: Result) -> Result:
        """*result* with the remarks on it; no pass where a part was not measured or cut short."""
        if result.verdict is Verdict.NOT_APPLICABLE:
            return result
        criterion = result.criterion
        remarks = _words(self.remarks, criterion.metric, dict(criterion.where))
        note = "; ".join(filter(None, (result.note, remarks)))
        if result.verdict is Verdict.PASS and (blind := self.trouble(criterion)):
            reason = f"not all of it was measured: {blind}; the rest passes: {result.reason}"
            return replace(result, verdict=Verdict.UNKNOWN, reason=reason, note=note)
        if result.verdict is Verdict.PASS and self.shortened:
            reason = f"shortened, {self.shortened}: passes so far, which does not count"
            return replace(
                result, verdict=Verdict.UNKNOWN, reason=f"{reason}; {result.reason}", note=note
            )
        return replace(result, note=note)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "check": self.check,
            "began": self.began,
            "ended": self.ended,
            "planned": self.planned,
            "ran": self.ran,
            "by": self.by,
            "samples": [_sample_row(s) for s in self.samples],
            "remarks": [[r.metric, r.text[:WORDS], dict(r.labels)] for r in self.remarks],
            "troubles": [[t.metric, t.text[:WORDS], dict(t.labels)] for t in self.troubles],
            "facts": [[f.name, f.text[:WORDS]] for f in self.facts],
            "processes": self.processes,
            "members": list(self.members),
            "node": dict(self.node),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Findings:
        """Of what `to_dict` made. Raises ProbeError if it is something else."""
        try:
            found = cls(
                check=str(document["check"]),
                began=_finite(document["began"]),
                ended=_finite(document["ended"]),
                planned=_finite(document["planned"]),
                ran=_finite(document["ran"]),
                by=str(document.get("by", "")),
                samples=tuple(_sample(row) for row in _all(document, "samples")),
                remarks=tuple(Remark(*_said(row)) for row in _all(document, "remarks")),
                troubles=tuple(Trouble(*_said(row)) for row in _all(document, "troubles")),
                facts=tuple(Fact(_text(n), _text(t)) for n, t in _all(document, "facts")),
                processes=int(_finite(document.get("processes", 0))),
                members=tuple(map(_text, document.get("members", ())))[:MOST],
                node={_text(n): _text(t) for n, t in document.get("node", {}).items()},
            )
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise ProbeError(f"findings of a drill: {error!r}: wanted what dvfd writes") from None
        return found


def strange(findings: Findings, check: Check, catalogue: Catalogue, *, at: float) -> list[str]:
    """What in *findings* cannot be of a drill of *check*: other metrics, labels or times."""
    judged = {c.metric for c in check.criteria} | {c.limit.metric for c in check.criteria}
    problems = []
    if check.counts and findings.processes not in {0, *check.counts}:
        told = ", ".join(map(str, check.counts))
        problems.append(f"it is about {findings.processes} processes, {check.id} judges {told}")
    if not findings.began <= findings.ended <= at + SKEW:
        problems.append(
            f"it ran from {findings.began:.0f} to {findings.ended:.0f}, now is {at:.0f}"
        )
    for sample in findings.samples:
        metric = catalogue.metrics.get(sample.metric)
        drilled = metric is not None and (metric.source == DRILL or metric.drilled)
        if metric is None or not drilled or sample.metric not in judged:
            problems.append(f"{sample.metric} is no figure of a drill of {check.id}")
        elif {name for name, _ in sample.labels} != set(metric.labels):
            problems.append(
                f"{sample.metric}: labels {dict(sample.labels)}, wanted {metric.labels}"
            )
        elif not findings.began - SKEW <= sample.at <= at + SKEW:
            problems.append(f"{sample.metric}: sampled at {sample.at:.0f}, outside the run")
    return list(dict.fromkeys(problems))


SKEW = 2.0
"""Seconds that a sample may lie outside its run: clocks are read one after the other."""


def _words(said: Iterable[Remark | Trouble], metric: str, where: Mapping[str, str]) -> str:
    """What was said of *metric*, where its labels do not contradict *where*; each once."""
    texts = [s.text for s in said if s.metric == metric and _agrees(s.labels, where)]
    return "; ".join(dict.fromkeys(texts))


def _agrees(given: Labels, where: Mapping[str, str]) -> bool:
    return all(where.get(name, value) == value for name, value in given)


def _all(document: Mapping[str, Any], kind: str) -> list[Any]:
    """Every row of *kind*. Too many are refused, not cut: the one left out may be the FAIL."""
    rows: list[Any] = document[kind]
    if len(rows) > MOST:
        raise ValueError(f"{len(rows)} {kind}, at most {MOST} are taken")
    return rows


def _sample_row(sample: Sample) -> list[Any]:
    bounds = [sample.low, sample.high] if sample.low is not None or sample.high is not None else []
    return [sample.metric, sample.value, sample.at, dict(sample.labels), *bounds]


def _sample(row: list[Any]) -> Sample:
    metric, value, at, where, *bounds = row
    low, high = [None if b is None else _finite(b) for b in bounds] or [None, None]
    if low is not None and high is not None and low > high:
        raise ValueError(f"{metric}: bounds {low} to {high}")
    return Sample(str(metric), _finite(value), _finite(at), _labels(where), low, high)


def _said(row: list[Any]) -> Iterator[Any]:
    metric, text, where = row
    return iter((str(metric), _text(text), _labels(where)))


def _text(said: object) -> str:
    """Words as far as they are kept: what a tool said, and whoever may hand in findings."""
    return printable(str(said)[:WORDS])


def _labels(where: Mapping[str, Any]) -> Labels:
    return labels(**{name: _text(value) for name, value in where.items()})


def _finite(value: object) -> float:
    most = sys.float_info.max  # a number of 400 digits is finite and fits into no float
    if isinstance(value, bool) or not isinstance(value, int | float) or not -most <= value <= most:
        raise ValueError(f"{value!r:.80} is no finite number")
    return float(value)
