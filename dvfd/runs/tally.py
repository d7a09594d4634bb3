"""Every figure of a stability run, folded from the rows of its file. Pure: no clock, no I/O."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from dvfd.model import Sample, labels
from dvfd.reduce import ANYTHING, Reading
from dvfd.runs import figures
from dvfd.runs.answers import verdicts
from dvfd.runs.availability import stretches, total
from dvfd.runs.figures import Course, Span, bounded, one, values
from dvfd.runs.intervals import Grid, interpolated, smoothed
from dvfd.runs.rows import Event, Minute, What, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dvfd.model import Criterion, Labels
    from dvfd.runs.intervals import Interval
    from dvfd.runs.rows import Row
    from dvfd.runs.run import Plan, Run

METRICS = (
    "run_window_throughput_samples_per_second", "run_power_joules_per_second",
    "run_loss_fall_ratio", "run_loss_baseline_ratio", "run_gradient_norm_excursions_total",
    "run_gradient_norm_disagreements_total", "run_checkpoints_expected",
    "run_checkpoints_attempted", "run_checkpoints_saved", "run_checkpoints_verified",
    "run_unplanned_failures_total", "run_synchronisation_issues_total", "run_step_skew",
    "run_node_compute_seconds", "run_communication_ratio", "run_saturation_ratio",
    "run_allreduce_seconds", "run_gradient_agreement_ratio", "run_partition_recovery_seconds",
    "run_availability_ratio", "scaling_efficiency_ratio",
)  # fmt: skip
"""The metrics whose source is a run."""

ENERGY = "cpu_package_energy_joules_total"
COMPARED, DIFFERED = "job_hash_comparisons_total", "job_hash_mismatches_total"

HALF_LIFE = 0.01
WARM_UP = 0.05
"""Shares of a run's intervals: the half-life of the smoothed loss, and what is left out at the
start where two curves are compared (procedures, 6)."""

EDGE = 0.05
"""Share of the intervals at either end whose loss is the start's and the end's."""

FEWEST = 20
"""Intervals without which a loss has no course: less than one lies in either edge."""

SAVING = 600.0
"""Seconds in which a checkpoint that is due may still be begun, saved and verified; twice what a
large one takes to save, and the verifier's own limit."""

GRACE = 0.02
"""Share of the batches between two checkpoints in which a job may begin the one that is due."""

OPEN = 3.0
"""Intervals that may be under way at the end of what was seen, before it counts as unseen."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a run is held against and does not measure itself; None where nobody said."""

    single_process: float | None = None  # samples/second of one process
    link: float | None = None  # bytes/second of a port
    smaller_efficiency: float | None = None
    baseline: Sequence[tuple[float, float]] = ()  # samples seen, loss: of the accepted run
    attested: Mapping[str, float] = field(default_factory=dict)  # item: 1 or 0, while it stands
    unattested: Mapping[str, str] = field(default_factory=dict)  # item: why there is no value
    vouchers: Mapping[str, str] = field(default_factory=dict)  # item: who stated it, until when
    accepted: Mapping[str, str] = field(default_factory=dict)  # metric: which run, who accepted it

    def to_document(self) -> dict[str, Any]:
        """As JSON, as it stands at this moment."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Context:
        """Of what `to_document` made; JSON has no tuples. What is missing is not known."""
        known = {each.name: document[each.name] for each in fields(cls) if each.name in document}
        baseline = tuple((float(seen), float(loss)) for seen, loss in known.pop("baseline", ()))
        return cls(**known, baseline=baseline)


class Tally:
    """The figures of one run so far. Rows are added as they come, or all at once from the file."""

    def __init__(self, plan: Plan, context: Context = Context()) -> None:
        self._plan = plan
        self._context = context
        self._grid = Grid(every=plan.every, ranks=plan.processes)
        self._courses: dict[str, dict[tuple[str, Labels], Course]] = {}
        self._events: list[Event] = []
        self._nodes: set[str] = set()
        self._makers: dict[str, Callable[[Criterion, Span, Run], list[Reading]]] = {
            "run_window_throughput_samples_per_second": self._throughput,
            "run_power_joules_per_second": self._power,
            "run_loss_fall_ratio": self._loss_fall,
            "run_loss_baseline_ratio": self._loss_baseline,
            "run_checkpoints_expected": self._checkpoints,
            "run_checkpoints_attempted": self._checkpoints,
            "run_checkpoints_saved": self._checkpoints,
            "run_checkpoints_verified": self._checkpoints,
            "run_unplanned_failures_total": self._failures,
            "rank_restarts_total": self._restarts,
            "run_synchronisation_issues_total": self._issues,
            "rank_compute_seconds": self._rank_sections,
            "run_node_compute_seconds": self._node_sections,
            "run_communication_ratio": self._communication,
            "run_saturation_ratio": self._saturation,
            "run_allreduce_seconds": self._allreduce,
            "run_gradient_agreement_ratio": self._agreement,
            "run_partition_recovery_seconds": self._recovery,
            "run_availability_ratio": self._availability,
            "scaling_efficiency_ratio": self._efficiency,
            "attestation_value": self._attested,
        }

    def add(self, row: Row) -> None:
        """Take one row; a window that grew comes again whole."""
        self._nodes.add(row.node)
        match row:
            case Window():
                self._grid.add(row)
            case Minute():
                courses = self._courses.setdefault(row.metric, {})
                courses.setdefault((row.node, row.labels), Course()).add(row)
            case Event():
                self._events.append(row)

    @property
    def disturbed(self) -> bool:
        """Whether a fault was injected on purpose."""
        return any(event.what is What.INJECTED for event in self._events)

    def voucher(self, criterion: Criterion) -> str:
        """Who stated what *criterion* is about, or who accepted the run that it compares with."""
        if criterion.metric == "attestation_value":
            return self._context.vouchers.get(dict(criterion.where).get("item", ""), "")
        named = (criterion.metric, criterion.limit.metric)
        return "; ".join(filter(None, (self._context.accepted.get(name) for name in named)))

    def readings(self, criterion: Criterion, run: Run, t: float) -> list[Reading]:
        """What is known of *criterion* at run second *t*, by series."""
        if run.began_t is None:
            return []
        until = min(t, run.ended_t) if run.ended_t is not None else t
        span = Span(run.began_t, max(until, run.began_t), run.stage.over)
        maker = self._makers.get(criterion.metric, self._course)
        found = maker(criterion, span, run)
        wanted = set(criterion.where)
        return [r for r in found if wanted <= set(r.labels)] + self._silent_nodes()

    def others(self, criterion: Criterion, run: Run, t: float, at: float) -> list[Sample]:
        """Samples of the metric that the criterion's limit is a multiple of."""
        metric = criterion.limit.metric
        if not metric:
            return []
        if metric == "scaling_smaller_efficiency_ratio":
            value = self._context.smaller_efficiency
            return [] if value is None else [Sample(metric, value, at)]
        found = self._makers[metric](
            replace(criterion, metric=metric, where=(), reduce="latest"), self._span(run, t), run
        )
        return [
            Sample(metric, r.value.value, at, r.labels, r.value.low, r.value.high)
            for r in found
            if not math.isnan(r.value.value)
        ]

    def _span(self, run: Run, t: float) -> Span:
        began = run.began_t or 0.0
        until = min(t, run.ended_t) if run.ended_t is not None else t
        return Span(began, max(until, began), run.stage.over)

    def _silent_nodes(self) -> list[Reading]:
        """A node of the run of which nothing came: nothing can pass without it."""
        silent = self._plan.nodes - len(self._nodes)
        if silent <= 0:
            return []
        words = f"nothing came from {silent} of {self._plan.nodes} nodes"
        return [Reading((), blind=words)]

    # --- Probes, minute by minute ---------------------------------------------------------------

    def _course(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """A probe's own series: each node's, each label's."""
        make = figures.increase if criterion.reduce == "increase" else figures.gauge
        courses = self._courses.get(criterion.metric, {})
        several = self._plan.nodes > 1
        found = [
            make(criterion, _placed(node, own, several), course, span)
            for (node, own), course in sorted(courses.items())
        ]
        return found + self._without(criterion, courses)

    def _without(
        self, criterion: Criterion, courses: Mapping[tuple[str, Labels], Course]
    ) -> list[Reading]:
        """Ranks that made steps and have no series where others have one."""
        having = {dict(own).get("rank") for _, own in courses}
        if having <= {None}:
            return []
        lacking = [rank for rank in self._grid.ranks if str(rank) not in having]
        return [
            Reading(labels(job=self._plan.job, rank=rank), blind="no sample of it in this run")
            for rank in lacking
        ]

    def _power(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """Watts of each package, the largest mean over a minute."""
        found = []
        several = self._plan.nodes > 1
        for (node, own), course in sorted(self._courses.get(ENERGY, {}).items()):
            whole = [p for p in course.inside(span.since, span.until) if p[0] >= 0.9 * 60.0]
            watts = [piece[4] / piece[0] for piece in whole]
            covered = math.fsum(piece[0] for piece in course.inside(span.since, span.until))
            where = _placed(node, own, several)
            found.append(values(criterion, where, watts, covered, span))
        return found

    # --- Windows of batches ---------------------------------------------------------------------

    def _intervals(self, since: float, until: float) -> list[Interval]:
        """What all ranks began and finished between two run seconds, in order."""
        found = [i for i in self._grid.intervals if i.began >= since and i.ended <= until]
        return sorted(found, key=lambda interval: (interval.key, interval.began))

    def _covered(self, found: Sequence[Interval], span: Span) -> float:
        """Seconds that intervals stand for; what is under way at the end counts as seen."""
        if not found:
            return 0.0
        lengths = sorted(interval.length for interval in found)
        last = max(interval.ended for interval in found)
        rest = span.until - last
        allowed = OPEN * lengths[len(lengths) // 2]
        return math.fsum(lengths) + (rest if 0 < rest <= allowed else 0.0)

    def _throughput(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """Of all ranks together, after the warm-up."""
        if run.warm_t is None:
            return [Reading((), blind="the warm-up is not over")]
        found = self._intervals(run.warm_t, span.until)
        told = [i.throughput for i in found if i.throughput is not None]
        if len(told) < len(found):
            return [Reading((), blind="some ranks tell no samples: Reporter.step(samples=...)")]
        if not found:
            return [Reading((), blind=self._few())]
        after = Span(found[0].began, max(span.until, found[-1].ended), span.over)
        return [values(criterion, (), told, self._covered(found, after), after)]

    def _few(self) -> str:
        ranks = len(self._grid.ranks)
        if ranks < self._plan.processes:
            return f"steps of {ranks} of {self._plan.processes} ranks came"
        return "no collection interval after the warm-up is whole yet"

    def _losses(self, span: Span) -> list[tuple[float | None, float]]:
        """(samples seen, mean loss) of each interval that has a loss."""
        found = self._intervals(span.since, span.until)
        return [(i.seen, i.loss) for i in found if i.loss is not None]

    def _loss_fall(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """(loss at the start - loss at the end) / loss at the start."""
        losses = [loss for _, loss in self._losses(span)]
        if len(losses) < FEWEST:
            words = f"{len(losses)} intervals with a loss, wanted at least {FEWEST}"
            return [Reading((), blind=words)]
        edge = max(1, round(EDGE * len(losses)))
        start = math.fsum(losses[:edge]) / edge
        end = math.fsum(losses[-edge:]) / edge
        fall = (start - end) / abs(start) if start else None
        return [one((), fall, "the loss began at 0", count=len(losses))]

    def _loss_baseline(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """|smoothed loss / the accepted run's - 1| at the same samples seen."""
        baseline = list(self._context.baseline)
        if not baseline:
            words = "no run was accepted as the baseline: dvfd stability accept RUN"
            return [Reading((), blind=words)]
        losses = [(seen, loss) for seen, loss in self._losses(span) if seen is not None]
        if len(losses) < FEWEST:
            words = f"{len(losses)} intervals with loss and samples, wanted at least {FEWEST}"
            return [Reading((), blind=words)]
        reach = losses[-1][0]
        course = smoothed(losses, HALF_LIFE * reach)
        compared = [(interpolated(baseline, at), loss) for at, loss in course
                    if at > WARM_UP * reach]  # fmt: skip
        known = [abs(loss / base - 1) for base, loss in compared if base]
        if not known:
            return [Reading((), blind="the accepted run saw none of the same samples")]
        whole = span.length * len(known) / max(1, len(compared))
        return [values(criterion, (), known, whole, span)]

    def _rank_sections(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """Mean compute section of each rank, collectives excluded."""
        found = self._grid.sections()
        here = {rank for _, rank in found}
        lacking = [rank for rank in self._grid.ranks if rank not in here]
        known = [
            one(labels(job=self._plan.job, rank=rank), value, "", count=count)
            for (_, rank), (value, count) in sorted(found.items())
        ]
        return known + [
            Reading(labels(job=self._plan.job, rank=rank), blind="tells no compute section")
            for rank in lacking
        ]

    def _node_sections(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """Mean over the ranks of each node."""
        by_node: dict[str, list[tuple[float, int]]] = {}
        for (node, _), each in self._grid.sections().items():
            by_node.setdefault(node, []).append(each)
        return [
            one(
                labels(node=node),
                math.fsum(value for value, _ in each) / len(each),
                "",
                count=sum(count for _, count in each),
            )
            for node, each in sorted(by_node.items())
        ]

    def _of_intervals(
        self, criterion: Criterion, where: Labels, span: Span, found: Sequence[float | None],
        lack: str,
    ) -> list[Reading]:  # fmt: skip
        told = [value for value in found if value is not None]
        if not told:
            return [Reading(where, blind=lack)]
        covered = span.length * len(told) / len(found)
        return [values(criterion, where, told, covered, span)]

    def _communication(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """Exposed communication over the time of the steps that told it."""
        where = labels(processes=self._plan.processes)
        found = [i.communication for i in self._intervals(span.since, span.until)]
        lack = "no rank tells its communication: Reporter.step(communication=...)"
        return self._of_intervals(criterion, where, span, found, lack)

    def _allreduce(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """Of a gradient bucket as ranks told it, the slowest rank's; of 64 KiB as it was probed."""
        found = [i.allreduce for i in self._intervals(span.since, span.until)]
        lack = "no rank tells its all-reduce: Reporter.step(allreduce=...)"
        bucket = self._of_intervals(criterion, labels(message="bucket"), span, found, lack)
        probed = [
            e.value
            for e in self._events
            if e.what is What.PROBED and e.text == "64KiB" and e.value is not None
        ]
        where = labels(message="64KiB")
        lack = "no all-reduce of 64 KiB was probed: the reference job's --probe-every does it"
        small = self._of_intervals(criterion, where, span, list(probed), lack)
        return bucket + small

    def _saturation(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """Bus bandwidth while communicating over the link's: 2 (n - 1) / n x bytes / time."""
        link = self._context.link
        if not link:
            return [Reading((), blind="profile.link_gbps is not set")]
        n, every = self._plan.processes, self._plan.every
        found = [
            2 * (n - 1) / n * i.moved / every / i.allreduce / link if i.allreduce else None
            for i in self._intervals(span.since, span.until)
        ]
        lack = "no rank tells bytes and time of its all-reduce"
        return self._of_intervals(criterion, (), span, found, lack)

    # --- Events ---------------------------------------------------------------------------------

    def _counted(self, what: What) -> list[Event]:
        return [event for event in self._events if event.what is what]

    def _watched(self, criterion: Criterion, count: int, span: Span, where: Labels) -> Reading:
        """A count of events: what happened while nobody looked is not in it."""
        seen = stretches(self._events, nodes=self._plan.nodes, since=span.since, until=span.until)
        covered = span.length - total(seen, What.UNSEEN)
        value = float(count)
        return figures.closed(
            criterion, where, value, count, covered=covered, span=span, extremes=(value, value)
        )

    def _failures(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        events = [e for e in self._counted(What.FAILURE) if e.t >= span.since]
        return [self._watched(criterion, len(events), span, ())]

    def _restarts(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        events = [e for e in self._counted(What.RESTART) if e.t >= span.since]
        return [self._watched(criterion, len(events), span, labels(job=self._plan.job))]

    def _issues(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """By kind: hash comparisons that differed, skew, collectives that timed out."""
        kinds = Counter(e.text.partition(" ")[0] for e in self._counted(What.ISSUE))
        differed = self._grown(DIFFERED, span)
        compared = self._grown(COMPARED, span)
        found = [
            self._watched(criterion, kinds[kind], span, labels(kind=kind))
            for kind in ("skew", "timeout")
        ]
        where = labels(kind="hash")
        if not compared:
            words = "no hashes were compared: Reporter.step(grad_hash=...) or watch_gradients"
            return [*found, Reading(where, blind=words)]
        return [*found, self._watched(criterion, round(differed), span, where)]

    def _grown(self, metric: str, span: Span) -> float:
        courses = self._courses.get(metric, {})
        pieces = [p for course in courses.values() for p in course.inside(span.since, span.until)]
        return math.fsum(piece[4] for piece in pieces)

    def _agreement(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """1 - differed / compared."""
        compared, differed = self._grown(COMPARED, span), self._grown(DIFFERED, span)
        words = "no hashes were compared: Reporter.step(grad_hash=...) or watch_gradients"
        value = 1.0 - differed / compared if compared else None
        return [one((), value, words, count=round(compared))]

    def _recovery(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        found = [e.value for e in self._counted(What.RECOVERED) if e.value is not None]
        if len(found) < len(self._counted(What.HEALED)):
            return [Reading((), blind="a fault was healed and no step has followed yet")]
        return [one((), max(found, default=None), "no fault was injected", count=len(found))]

    def _availability(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """Share of the time in which all workers lived and made progress, between two bounds."""
        found = stretches(self._events, nodes=self._plan.nodes, since=span.since, until=span.until)
        if not found:
            return [Reading((), blind="no time has passed")]
        up, unseen = total(found, What.UP), total(found, What.UNSEEN)
        known = span.length - unseen
        value = up / known if known > 0 else 0.0
        low, high = up / span.length, min(1.0, (up + unseen) / span.length)
        return [bounded((), min(max(value, low), high), low, high, count=len(found))]

    def _checkpoints(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """How many were due, begun, saved, verified; one that is under way leaves a doubt."""
        saved = {e.step for e in self._counted(What.SAVED)}
        begun = {e.step for e in self._counted(What.BEGUN)} | saved
        answers = verdicts(sorted(self._events, key=lambda event: event.t))
        verified = {step for step, what in answers.items() if what is What.VERIFIED}
        answered = verified | {step for step, what in answers.items() if what is What.DAMAGED}
        due = self._due(len(begun))
        failed = {e.step for e in self._counted(What.FAILED)}
        recent = {e.step for e in self._counted(What.BEGUN) if span.until - e.t < SAVING} - failed
        waiting = {
            "run_checkpoints_expected": 0,
            "run_checkpoints_attempted": 0,
            "run_checkpoints_saved": len((begun - saved) & recent),
            "run_checkpoints_verified": len(saved - answered),
        }
        counts = {
            "run_checkpoints_expected": due,
            "run_checkpoints_attempted": len(begun),
            "run_checkpoints_saved": len(saved),
            "run_checkpoints_verified": len(verified),
        }
        count, doubt = counts[criterion.metric], waiting[criterion.metric]
        if not self._grid.ranks:
            return [Reading((), ANYTHING, blind="no step came")]
        return [bounded((), float(count), float(count), float(count + doubt), count=count)]

    def _due(self, begun: int) -> int:
        """Checkpoints that the steps call for, since the first step seen. The newest is not due
        yet while it was not begun and hardly a step has followed.
        """
        every, steps = self._plan.checkpoint_every, self._grid.steps
        told = [e.step for e in self._counted(What.BEGUN) if e.step is not None]
        reached = max([min(steps.values(), default=0), *told])  # steps come a second later
        due = max(0, reached // every - (self._grid.first - 1) // every)
        early = begun < due and reached % every <= max(2, GRACE * every)
        return due - 1 if early else due

    # --- Against what others measured or said -----------------------------------------------------

    def _efficiency(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """X_n / (n X_1), never clamped."""
        where = labels(processes=self._plan.processes)
        single = self._context.single_process
        if not single:
            words = "profile.single_process_throughput is not set: dvfd calibrate measures it"
            return [Reading(where, blind=words)]
        if run.warm_t is None:
            return [Reading(where, blind="the warm-up is not over")]
        found = self._intervals(run.warm_t, span.until)
        told = [i.throughput for i in found if i.throughput is not None]
        if not told:
            return [Reading(where, blind=self._few())]
        value = math.fsum(told) / len(told) / (self._plan.processes * single)
        return [one(where, value, "", count=len(told))]

    def _attested(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        item = dict(criterion.where).get("item", "")
        where = labels(item=item)
        value = self._context.attested.get(item)
        why = self._context.unattested.get(item, f"nobody attested it: dvfd attest {item}")
        return [one(where, value, why)]


def _placed(node: str, own: Labels, several: bool) -> Labels:
    """A series' labels, with its node where there are several."""
    return labels(**dict(own), node=node) if several else own
