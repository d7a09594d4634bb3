"""A list of days over all nodes of a cluster, on what an engine has of them: the worst decides.

Figures that an engine has the series for are made anew and judged here, by this catalogue. What
only a node can know, as a restored checkpoint or people's words, is that node's own word as the
engine has it. A node that is not seen now, or of another catalogue, passes nothing; what fails,
fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.drills.findings import Findings
from dvfd.fleet import SCHEMA, counts
from dvfd.judge import judge
from dvfd.model import WORST_FIRST, Result, Sample, Scope, Severity, Verdict, worst
from dvfd.reviews.gather import MADE, made
from dvfd.reviews.period import Period
from dvfd.reviews.review import (
    SYNC,
    TREND,
    Wanted,
    agreement,
    availability,
    stability,
    trends,
)
from dvfd.reviews.uptime import uptime

if TYPE_CHECKING:
    from dvfd.drills.drill import Runner
    from dvfd.model import Catalogue, Check, Criterion
    from dvfd.reviews.gather import Node
    from dvfd.reviews.period import Job
    from dvfd.reviews.review import Found
    from dvfd.reviews.trend import Trend


@dataclass(frozen=True, slots=True)
class Told:
    """What one node is worth on one criterion, with the figure where there is one."""

    verdict: Verdict
    reason: str
    result: Result | None = None

    @property
    def margin(self) -> float:
        """How far it is inside its limit; endless where no figure says."""
        known = self.result.margin if self.result else None
        return float("inf") if known is None else known


class Judging:
    """Holds what was gathered of all nodes against the criteria of one list."""

    def __init__(
        self, check: Check, catalogue: Catalogue, *, lead: str, at: float,
        excused: Sequence[tuple[float, float]] = (), run: Runner | None = None,
    ) -> None:  # fmt: skip
        self._check = check
        self._catalogue = catalogue
        self._lead = lead
        self._at = at
        self._excused = excused
        self._run = run
        self._wanted = Wanted(made(check))

    def document(self, nodes: Sequence[Node], *, source: str) -> dict[str, Any]:
        """The list as plain JSON values."""
        findings = self._findings(nodes)
        rows = [
            _row(criterion, self._told(criterion, nodes, findings))
            for criterion in self._check.criteria
        ]
        deciding = [row for row in rows if row["severity"] == Severity.CRITICAL]
        return {
            "schema": SCHEMA,
            "check": self._check.id,
            "at": self._at,
            "source": source,
            "lead": self._lead,
            "catalogue": self._catalogue.hash,
            "verdict": str(worst(Verdict(row["verdict"]) for row in deciding)),
            "periods": {
                name: [Period.ending(name, self._at).since, self._at]
                for name in self._wanted.periods
            },
            "nodes": [self._node(node, deciding) for node in nodes],
            "results": rows,
        }

    def _findings(self, nodes: Sequence[Node]) -> dict[str, Findings]:
        """By node: figures and words. One child reckons the trends of all."""
        found: dict[str, list[Found]] = {node.name: [] for node in nodes}
        for name in self._wanted.periods:
            period = Period.ending(name, self._at)
            every = [(node, job) for node in nodes for job in node.jobs.get(name, ())]
            slopes = trends([job for _, job in every], run=self._run)
            for (node, job), slope in zip(every, slopes, strict=True):
                found[node.name] += self._of_job(node, job, period, slope)
        return {name: _findings(self._check, self._at, all_) for name, all_ in found.items()}

    def _of_job(self, node: Node, job: Job, period: Period, slope: Trend | str) -> Iterator[Found]:
        coverage = self._wanted.coverage
        yield from availability(job, period, self._excused)
        yield from stability(job, period, slope, coverage(TREND))
        if node.past and any(c.metric == SYNC for c in self._wanted.criteria):
            yield from agreement(node.past, job, period, coverage(SYNC))

    def _told(
        self, criterion: Criterion, nodes: Sequence[Node], findings: Mapping[str, Findings]
    ) -> dict[str, Told]:
        asked = [n for n in nodes if criterion.scope is Scope.NODE or n.name == self._lead]
        return {node.name: self._of(criterion, node, findings[node.name]) for node in asked}

    def _of(self, criterion: Criterion, node: Node, found: Findings) -> Told:
        result = None
        if criterion.metric in MADE and not criterion.inapplicable:
            result = _judged(criterion, found, node.why, self._at)
            said, reason = result.verdict, result.reason
        else:
            said = node.seen.criteria.get(criterion.id, Verdict.UNKNOWN)
            reason = "its own word" if criterion.id in node.seen.criteria else "it says nothing"
        verdict, blind = counts(said, node.seen, self._catalogue.hash)
        if said is Verdict.FAIL and result:  # of days that were: whatever can be seen now
            verdict, blind = said, ""
        return Told(verdict or Verdict.UNKNOWN, blind or reason, result)

    def _node(self, node: Node, deciding: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        verdicts = [r["nodes"][node.name]["verdict"] for r in deciding if node.name in r["nodes"]]
        seen = node.seen
        return {
            "node": node.name,
            "verdict": str(worst(Verdict(verdict) for verdict in verdicts)),
            "reason": node.why or counts(Verdict.PASS, seen, self._catalogue.hash)[1],
            "seen": not seen.why,
            "age": seen.age,
            "version": seen.version,
            "catalogue": seen.catalogue,
            "jobs": sorted({job.name for jobs in node.jobs.values() for job in jobs}),
            "coverage": {
                name: _coverage(node.jobs.get(name, ()), Period.ending(name, self._at))
                for name in self._wanted.periods
            },
        }


def _findings(check: Check, at: float, found: Sequence[Found]) -> Findings:
    return Findings(
        check=check.id,
        began=at,
        ended=at,
        samples=tuple(replace(f, at=at) for f in found if isinstance(f, Sample)),
        remarks=tuple(f for f in found if isinstance(f, Remark)),
        troubles=tuple(f for f in found if isinstance(f, Trouble)),
        facts=tuple(f for f in found if isinstance(f, Fact)),
    )


def _judged(criterion: Criterion, found: Findings, why: str, at: float) -> Result:
    trouble = why or found.trouble(criterion)
    return found.spoken(judge(criterion, found.samples, at=at, trouble=trouble))


def _coverage(jobs: Iterable[Job], period: Period) -> float | None:
    """The least share of the period that was observed of a job; None without one."""
    seen = [uptime(j.up, j.observed, since=period.since, until=period.until) for j in jobs]
    return min((each.coverage for each in seen if each), default=None)


def _row(criterion: Criterion, told: Mapping[str, Told]) -> dict[str, Any]:
    """One criterion over all nodes that are asked, with the node that is worst."""
    furthest = min(
        told, key=lambda name: (WORST_FIRST.index(told[name].verdict), told[name].margin, name)
    )
    return {
        "criterion": criterion.id,
        "item": criterion.item,
        "text": criterion.text,
        "severity": str(criterion.severity),
        "verdict": str(worst(each.verdict for each in told.values())),
        "from": "engine" if criterion.metric in MADE else "nodes",
        "worst": furthest,
        "reason": told[furthest].reason,
        "nodes": {name: _cell(each) for name, each in told.items()},
    }


def _cell(told: Told) -> dict[str, Any]:
    result = told.result
    return {
        "verdict": str(told.verdict),
        "reason": told.reason,
        "observed": result.observed if result else None,
        "limit": result.limit if result else None,
        "margin": result.margin if result else None,
    }
