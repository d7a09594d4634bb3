"""Every figure of a stability run, folded from the rows of its file. Pure: no clock, no I/O."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from dvfd.model import Sample, labels
from dvfd.reduce import ANYTHING, Interval, Reading, exactly, seconds, widened
from dvfd.runs import figures
from dvfd.runs.availability import STATES, stretches, total
from dvfd.runs.crossed import Crossed
from dvfd.runs.figures import MINUTE, Course, Span, bounded, closed, one, values
from dvfd.runs.intervals import SKEWED, Curve, Grid, smoothed, stood
from dvfd.runs.owed import Owed, owed
from dvfd.runs.rows import Event, Minute, What, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dvfd.model import Criterion, Labels
    from dvfd.runs.availability import Stretch
    from dvfd.runs.intervals import Columns
    from dvfd.runs.rows import Row, Rows
    from dvfd.runs.run import Plan, Run

T = TypeVar("T")

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
"""Intervals without which a loss has no course: less than one lies in either edge. Probes, too."""

SILENCE = 180.0
"""Seconds after which a node of which no row came is unseen, whatever it said last: it writes
minutes."""

BLAMED = 120.0
"""Seconds for which what other nodes lose is laid to a fault that was injected into one and ended:
four times what a recovery may take."""

HEARING = frozenset({What.SILENT, What.HEARD})

COUNTS = {
    "run_checkpoints_expected": "expected", "run_checkpoints_attempted": "attempted",
    "run_checkpoints_saved": "saved", "run_checkpoints_verified": "verified",
}  # fmt: skip

NO_HASHES = "no hashes were compared: Reporter.step(grad_hash=...) or watch_gradients"


@dataclass(frozen=True, slots=True)
class Context:
    """What a run is held against and does not measure itself; None where nobody said."""

    single_process: float | None = None  # samples/second of one process
    unbased: str = ""  # why that is not known
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
        self._baseline = Curve(context.baseline)
        self._grid = Grid(every=plan.every, ranks=plan.processes)
        self._courses: dict[str, dict[tuple[str, Labels], Course]]
        self._courses = defaultdict(lambda: defaultdict(Course))
        self._events: dict[What, list[Event]] = {}
        self._newest: dict[str, float] = {}  # by node: run second of its newest row
        self._crossed = Crossed(plan.nodes)
        self._hearing: dict[str, Event] = {}  # by node: the newest word on whether it is heard
        self._known: dict[tuple[object, ...], Any] = {}  # what several criteria ask
        self._makers: dict[str, Callable[[Criterion, Span, Run], list[Reading]]] = {
            "run_window_throughput_samples_per_second": self._throughput,
            "run_power_joules_per_second": self._power,
            "run_loss_fall_ratio": self._loss_fall,
            "run_loss_baseline_ratio": self._loss_baseline,
            "run_checkpoints_expected": self._checkpoints,
            "run_checkpoints_attempted": self._checkpoints,
            "run_checkpoints_saved": self._checkpoints,
            "run_checkpoints_verified": self._checkpoints,
            "job_nonfinite_total": self._nonfinite,
            "run_unplanned_failures_total": self._failures,
            "rank_restarts_total": self._restarts,
            "run_synchronisation_issues_total": self._issues,
            "rank_compute_seconds": self._rank_sections,
            "run_node_compute_seconds": self._node_sections,
            "run_communication_ratio": self._communication,
            "run_saturation_ratio": self._saturation,
            "run_allreduce_seconds": self._allreduce,
            "run_step_skew": self._skew,
            "run_gradient_agreement_ratio": self._agreement,
            "run_partition_recovery_seconds": self._recovery,
            "run_availability_ratio": self._availability,
            "scaling_efficiency_ratio": self._efficiency,
            "attestation_value": self._attested,
        }

    def read(self, rows: Rows, since: int = 0, until: int | None = None) -> None:
        """Take what a file got after mark *since* and not after mark *until*."""
        for window in rows.windows(since, until):
            self._window(window)
        for minute in rows.minutes(since, until):
            self._minute(minute)
        for event in rows.events(since, until):
            self._event(event)
        self._known.clear()

    def add(self, row: Row) -> None:
        """Take one row; a window that grew comes again whole."""
        match row:
            case Window():
                self._window(row)
            case Minute():
                self._minute(row)
            case Event():
                self._event(row)
        self._known.clear()

    def _window(self, row: Window) -> None:
        self._grid.add(row)
        self._heard(row.node, row.ended)

    def _minute(self, row: Minute) -> None:
        self._courses[row.metric][row.node, row.labels].add(row)
        self._heard(row.node, MINUTE * (row.minute + 1))

    def _event(self, row: Event) -> None:
        if row.what in HEARING:  # of the leader, about a node
            self._hear(row)
            return
        self._heard(row.node, row.t)
        if row.what is What.HASHED:
            self._crossed.add(row)
        else:
            self._events.setdefault(row.what, []).append(row)

    def _hear(self, event: Event) -> None:
        newest = self._hearing.get(event.node)
        if newest is None or newest.t <= event.t:
            self._hearing[event.node] = event

    def _heard(self, node: str, t: float) -> None:
        if t > self._newest.get(node, -math.inf):
            self._newest[node] = t

    @property
    def silent(self) -> list[str]:
        """Of each node that is silent, since when and why."""
        found = [event for event in self._hearing.values() if event.what is What.SILENT]
        return [event.text for event in sorted(found, key=lambda event: event.node)]

    @property
    def disturbed(self) -> bool:
        """Whether a fault was injected on purpose."""
        return What.INJECTED in self._events

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
        maker = self._makers.get(criterion.metric, self._course)
        found = maker(criterion, self._span(run, t), run)
        wanted = set(criterion.where)
        missing = [] if criterion.metric == "attestation_value" else self._silent_nodes()
        return missing + [r for r in found if wanted <= set(r.labels)]

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

    def _once(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        """What *make* gives, made once until another row comes."""
        if key not in self._known:
            self._known[key] = make()
        found: T = self._known[key]
        return found

    def _span(self, run: Run, t: float) -> Span:
        began = run.began_t or 0.0
        until = min(t, run.ended_t) if run.ended_t is not None else t
        return Span(began, max(until, began), run.stage.over)

    def _silent_nodes(self) -> list[Reading]:
        """A node that is silent, or of which nothing came: nothing can pass without it."""
        found = [
            Reading(labels(node=node), blind=event.text)
            for node, event in sorted(self._hearing.items())
            if event.what is What.SILENT
        ]
        silent = self._plan.nodes - len(self._newest)
        if silent > 0:
            words = f"nothing came from {silent} of {self._plan.nodes} nodes"
            found.append(Reading((), blind=words))
        return found

    # --- Probes, minute by minute ---------------------------------------------------------------

    def _course(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """A probe's own series: each node's, each label's."""
        make = figures.increase if criterion.reduce == "increase" else figures.gauge
        courses = self._courses.get(criterion.metric, {})
        found = [
            make(criterion, self._placed(node, own), course, span)
            for (node, own), course in sorted(courses.items())
        ]
        return found + self._without(courses)

    def _placed(self, node: str, own: Labels) -> Labels:
        """A series' labels, with its node where there are several."""
        return labels(**dict(own), node=node) if self._plan.nodes > 1 else own

    def _without(self, courses: Mapping[tuple[str, Labels], Course]) -> list[Reading]:
        """Ranks that have no series where others have one, and nodes likewise."""
        if not courses:
            return []
        having = {dict(own).get("rank") for _, own in courses}
        nodes = {node for node, _ in courses}
        lacking = [labels(node=node) for node in sorted(self._newest.keys() - nodes)]
        if having != {None}:
            lacking = [
                labels(job=self._plan.job, rank=rank)
                for rank in range(self._plan.processes)
                if str(rank) not in having
            ]
        return [Reading(where, blind="no sample of it in this run") for where in lacking]

    def _nonfinite(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """As the jobs counted them, and no fewer than ranks told, on which no kill has a hold."""
        courses = self._courses.get(criterion.metric, {})
        if not courses and self._grid.nonfinite:
            told = Interval(float(self._grid.nonfinite), float(self._grid.nonfinite), math.inf)
            return [Reading(labels(job=self._plan.job), told, blind="told by ranks alone")]
        alone = float(self._grid.nonfinite) if len(courses) == 1 else 0.0
        found = [
            figures.increase(criterion, self._placed(node, own), course, span, least=alone)
            for (node, own), course in sorted(courses.items())
        ]
        return found + self._without(courses)

    def _power(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """Watts of each package, the largest mean over a minute."""
        courses = self._courses.get(ENERGY, {})
        found = []
        for (node, own), course in sorted(courses.items()):
            part = course.inside(span.since, span.until)
            watts = [
                joules / covered
                for joules, covered in zip(part.grown, part.covered, strict=True)
                if covered >= 0.9 * MINUTE
            ]
            seen = math.fsum(part.covered)
            found.append(values(criterion, self._placed(node, own), watts, seen, span))
        return found + self._without(courses)

    # --- Windows of batches ---------------------------------------------------------------------

    def _intervals(self, span: Span) -> Columns:
        """What all ranks began and finished in *span*, in order of time."""
        made = self._grid.intervals
        return self._once(("intervals", span), lambda: made.inside(span.since, span.until))

    def _telling(self, name: str, span: Span) -> Columns:
        """Those of them that tell a figure."""
        return self._once((name, span), lambda: self._intervals(span).telling(name))

    def _covered(self, name: str, span: Span) -> float:
        """Seconds that the intervals stand for which tell a figure."""
        told = self._telling(name, span)
        whole = "intervals" if told is self._intervals(span) else name
        return self._once((whole, "covered", span), lambda: told.covered(span.since, span.until))

    def _of_intervals(
        self, criterion: Criterion, where: Labels, span: Span, name: str, lack: str,
        *, times: float = 1.0, over: float = 1.0,
    ) -> list[Reading]:  # fmt: skip
        """A figure of each interval that tells it, by *times* over *over*; the time of the others
        was not seen.
        """
        told = self._telling(name, span)[name]
        if not told:
            return [Reading(where, blind=lack)]
        found = told if times == over == 1.0 else [times * value / over for value in told]
        return [values(criterion, where, found, self._covered(name, span), span)]

    def _throughput(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """Of all ranks together, after the warm-up."""
        return self._warm(criterion, (), span, run, 1.0)

    def _warm(
        self, criterion: Criterion, where: Labels, span: Span, run: Run, unit: float
    ) -> list[Reading]:
        """Throughput after the warm-up in units of so many samples a second."""
        if run.warm_t is None:
            return [Reading(where, blind="the warm-up is not over")]
        after = Span(run.warm_t, max(span.until, run.warm_t), span.over)
        if len(self._telling("throughput", after)) < len(self._intervals(after)):
            words = "some ranks tell no samples: Reporter.step(samples=...)"
            return [Reading(where, blind=words)]
        return self._of_intervals(criterion, where, after, "throughput", self._few(), over=unit)

    def _few(self) -> str:
        ranks = len(self._grid.ranks)
        if ranks < self._plan.processes:
            return f"steps of {ranks} of {self._plan.processes} ranks came"
        return "no collection interval after the warm-up is whole yet"

    def _losses(self, span: Span) -> Columns:
        """Intervals that have a loss, by number; of one that was made again the last."""
        return self._once(("losses", span), lambda: self._telling("loss", span).once())

    def _loss_fall(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """(loss at the start - loss at the end) / loss at the start."""
        losses = self._losses(span)["loss"]
        if len(losses) < FEWEST:
            words = f"{len(losses)} intervals with a loss, wanted at least {FEWEST}"
            return [Reading((), blind=words)]
        edge = max(1, round(EDGE * len(losses)))
        start = math.fsum(losses[:edge]) / edge
        end = math.fsum(losses[-edge:]) / edge
        if not start:
            return [Reading((), blind="the loss began at 0")]
        fall = (start - end) / abs(start)
        return [
            closed(
                criterion, (), fall, len(losses), covered=self._covered("loss", span), span=span,
                extremes=(fall, fall),
            )
        ]  # fmt: skip

    def _loss_baseline(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """|smoothed loss / the accepted run's - 1| at the same samples seen."""
        if not self._baseline.places:
            words = "no run was accepted as the baseline: dvfd stability accept RUN"
            return [Reading((), blind=words)]
        told = self._losses(span).telling("seen")
        losses = list(zip(told["seen"], told["loss"], strict=True))
        if len(losses) < FEWEST:
            words = f"{len(losses)} intervals with loss and samples, wanted at least {FEWEST}"
            return [Reading((), blind=words)]
        reach = losses[-1][0]
        course = smoothed(losses, HALF_LIFE * reach)
        compared = [(self._baseline.at(place), loss) for place, loss in course
                    if place > WARM_UP * reach]  # fmt: skip
        known = [abs(loss / base - 1) for base, loss in compared if base]
        if not known:
            return [Reading((), blind="the accepted run saw none of the same samples")]
        seen = self._covered("loss", span) * len(known) / len(compared)
        return [values(criterion, (), known, seen, span)]

    def _rank_sections(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """Mean compute section of each rank, collectives excluded."""
        found = self._sections()
        here = {rank for _, rank in found}
        known = [
            self._section(criterion, labels(job=self._plan.job, rank=rank), [each], span)
            for (_, rank), each in sorted(found.items())
        ]
        return known + [
            Reading(labels(job=self._plan.job, rank=rank), blind="tells no compute section")
            for rank in range(self._plan.processes)
            if rank not in here
        ]

    def _node_sections(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """Mean over the ranks of each node."""
        by_node: dict[str, list[tuple[float, int]]] = {}
        sections = self._sections()
        for (node, _), each in sections.items():
            by_node.setdefault(node, []).append(each)
        known = [
            self._section(criterion, labels(node=node), each, span)
            for node, each in sorted(by_node.items())
        ]
        here = {rank for _, rank in sections}
        lacking = [str(rank) for rank in range(self._plan.processes) if rank not in here]
        if not lacking:
            return known
        words = f"ranks {', '.join(lacking)} tell no compute section"
        return [*known, Reading((), blind=words)]

    def _sections(self) -> dict[tuple[str, int], tuple[float, int]]:
        return self._once(("sections",), self._grid.sections)

    def _section(
        self, criterion: Criterion, where: Labels, each: Sequence[tuple[float, int]], span: Span
    ) -> Reading:
        """The mean over one rank or more, seen where all ranks told it."""
        value = math.fsum(mean for mean, _ in each) / len(each)
        seen = self._covered("computed", span)
        count = sum(number for _, number in each)
        return closed(
            criterion, where, value, count, covered=seen, span=span, extremes=(value, value)
        )

    def _communication(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """Exposed communication over the time of the steps that told it."""
        where = labels(processes=self._plan.processes)
        lack = "no rank tells its communication: Reporter.step(communication=...)"
        return self._of_intervals(criterion, where, span, "communication", lack)

    def _allreduce(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """Of a gradient bucket as ranks told it, the slowest rank's; of 64 KiB as it was probed."""
        lack = "no rank tells its all-reduce: Reporter.step(allreduce=...)"
        bucket = self._of_intervals(criterion, labels(message="bucket"), span, "allreduce", lack)
        return [*bucket, self._small(criterion, span)]

    def _small(self, criterion: Criterion, span: Span) -> Reading:
        """Of 64 KiB: every probe stands for the time since the one before it."""
        probed = [
            (e.t, e.value)
            for e in self._events.get(What.PROBED, ())
            if e.text == "64KiB" and e.value is not None and span.since <= e.t <= span.until
        ]
        where = labels(message="64KiB")
        if not probed:
            lack = "no all-reduce of 64 KiB was probed: the reference job's --probe-every does it"
            return Reading(where, blind=lack)
        seen = stood((t for t, _ in probed), span.since, span.until)
        return values(criterion, where, [v for _, v in probed], seen, span, fewest=FEWEST)

    def _skew(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """Of the ranks of each node as its daemon saw them all the time; of ranks of several nodes
        at the end of each interval, as their windows show.
        """
        found = self._course(criterion, span, run)
        if self._plan.nodes == 1 or not found:
            return found
        lack = "no collection interval of all ranks is whole yet"
        return found + self._of_intervals(
            criterion, labels(job=self._plan.job), span, "ahead", lack
        )

    def _saturation(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """Bus bandwidth while communicating over the link's: 2 (n - 1) / n x bytes / time."""
        link = self._context.link
        if not link:
            return [Reading((), blind="profile.link_gbps is not set")]
        n = self._plan.processes
        lack = "no rank tells bytes and time of its all-reduce"
        return self._of_intervals(
            criterion, (), span, "rate", lack, times=2 * (n - 1) / n, over=link
        )

    # --- Events ---------------------------------------------------------------------------------

    def _counted(self, what: What, span: Span) -> list[Event]:
        return [e for e in self._events.get(what, ()) if span.since <= e.t <= span.until]

    def _stretches(self, span: Span) -> list[Stretch]:
        """Up, down, unseen. A node that fell silent is unseen from its last row on."""
        return self._once(("stretches", span), lambda: self._moves(span))

    def _moves(self, span: Span) -> list[Stretch]:
        silent = [
            Event(node=node, t=t, at=0.0, what=What.UNSEEN, text=f"{node} fell silent")
            for node, t in self._newest.items()
            if span.until - t > SILENCE
        ]
        moves = [e for what in STATES for e in self._events.get(what, ())]
        return stretches(moves + silent, nodes=self._plan.nodes, since=span.since, until=span.until)

    def _watched(self, criterion: Criterion, count: int, span: Span, where: Labels) -> Reading:
        """A count of events: what happened while nobody looked is not in it."""
        seen = span.length - total(self._stretches(span), What.UNSEEN)
        value = float(count)
        return closed(
            criterion, where, value, count, covered=seen, span=span, extremes=(value, value)
        )

    def _failures(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """As they were seen; a process that another one replaced unseen was lost, too. A node to
        which nobody said that a fault is injected elsewhere tells what follows as a failure.
        """
        planned = self._disturbances()
        seen = [
            e
            for e in self._counted(What.FAILURE, span)
            if not any(node != e.node and since <= e.t <= until for node, since, until in planned)
        ]
        count = len(seen)
        if not seen and not self._counted(What.PLANNED, span) and not self.disturbed:
            count = self._grid.returned(span.since)
        return [self._watched(criterion, count, span, ())]

    def _disturbances(self) -> list[tuple[str, float, float]]:
        """On which node a fault was injected, from when to when it is to blame: until that node
        trained again, and no longer than BLAMED.
        """
        back = sorted((e.t, e.node) for e in self._events.get(What.RECOVERED, ()))
        found = []
        for event in self._events.get(What.INJECTED, ()):
            latest = event.t + (event.value or 0.0) + BLAMED
            ends = (t for t, node in back if node == event.node and t >= event.t)
            found.append((event.node, event.t, min(latest, next(ends, latest))))
        return found

    def _restarts(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """As they were seen, and no fewer than the processes that told of steps show."""
        seen = len(self._counted(What.RESTART, span))
        count = max(seen, self._grid.returned(span.since))
        return [self._watched(criterion, count, span, labels(job=self._plan.job))]

    def _issues(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """By kind: hash comparisons that differed, skew, collectives that timed out."""
        events = self._counted(What.ISSUE, span)
        kinds = Counter(e.text.partition(" ")[0].rstrip(":") for e in events)
        if self._plan.nodes > 1:
            kinds["skew"] += sum(ahead > SKEWED for ahead in self._telling("ahead", span)["ahead"])
        found = [
            self._watched(criterion, kinds[kind], span, labels(kind=kind))
            for kind in ("skew", "timeout")
        ]
        where = labels(kind="hash")
        here, between = round(self._grown(DIFFERED, span)), self._between(span)
        differed = max(here, kinds["hash"]) + between[1]
        if blind := self._uncompared(span):
            known = widened(criterion, exactly(float(differed))) if differed else ANYTHING
            return [*found, Reading(where, known, differed, blind=blind)]
        value = float(differed)
        hashes = closed(
            criterion, where, value, differed, covered=self._compared(span), span=span,
            extremes=(value, value),
        )  # fmt: skip
        return [*found, hashes]

    def _uncompared(self, span: Span) -> str:
        """Why no comparison of hashes can be spoken of, or nothing."""
        if not self._grown(COMPARED, span):
            return NO_HASHES
        for metric in (COMPARED, DIFFERED):
            nodes = {node for node, _ in self._courses.get(metric, {})}
            if lacking := sorted(self._newest.keys() - nodes):
                return f"no {metric} from {', '.join(lacking)}"
        if self._plan.nodes > 1 and not self._between(span)[0]:
            return "no hashes of the same steps came from all nodes: nothing compares them"
        return ""

    def _between(self, span: Span) -> tuple[int, int]:
        """Hashes of one node compared with those of another, and how many differed."""
        return self._crossed.count(span.since, span.until)

    def _compared(self, span: Span) -> float:
        """Seconds in which hashes were compared, on the node that did so least."""
        return self._once(("compared", span), lambda: self._comparing(span))

    def _comparing(self, span: Span) -> float:
        times: dict[str, list[float]] = {}
        for (node, _), course in self._courses.get(COMPARED, {}).items():
            moments = times.setdefault(node, [])
            moments += [(n + 0.5) * MINUTE for n, grown in enumerate(course.grown) if grown > 0]
        compared = [stood(moments, span.since, span.until) for moments in times.values()]
        watched = [
            math.fsum(course.inside(span.since, span.until).covered)
            for course in self._courses.get(DIFFERED, {}).values()
        ]
        if self._plan.nodes > 1:
            compared.append(stood(self._crossed.moments, span.since, span.until))
        return min([*compared, *watched], default=0.0)

    def _grown(self, metric: str, span: Span) -> float:
        courses = self._courses.get(metric, {}).values()
        return math.fsum(g for c in courses for g in c.inside(span.since, span.until).grown)

    def _agreement(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """1 - differed / compared."""
        if blind := self._uncompared(span):
            return [Reading((), blind=blind)]
        between = self._between(span)
        compared = self._grown(COMPARED, span) + between[0]
        differed = self._grown(DIFFERED, span) + between[1]
        value = 1.0 - differed / compared
        return [
            closed(
                criterion, (), value, round(compared), covered=self._compared(span), span=span,
                extremes=(value, value),
            )
        ]  # fmt: skip

    def _recovery(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        found = [e.value for e in self._events.get(What.RECOVERED, ()) if e.value is not None]
        healed = sorted(e.t for e in self._events.get(What.HEALED, ()))
        if len(found) < len(healed):
            waits = max(0.0, span.until - healed[len(found)])
            words = "a fault was healed and no step has followed yet"
            return [Reading((), Interval(waits, waits, math.inf), len(healed), blind=words)]
        why = "the fault was not healed" if self.disturbed else "no fault was injected"
        return [one((), max(found, default=None), why, count=len(found))]

    def _availability(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """Share of the time in which all workers lived and made progress, between two bounds."""
        found = self._stretches(span)
        if not found:
            return [Reading((), blind="no time has passed")]
        up, unseen = total(found, What.UP), total(found, What.UNSEEN)
        known = span.length - unseen
        value = up / known if known > 0 else 0.0
        low, high = up / span.length, min(1.0, (up + unseen) / span.length)
        return [bounded((), min(max(value, low), high), low, high, count=len(found))]

    def _checkpoints(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """How many were due, begun, saved, verified; one that is under way leaves a doubt. Where no
        rank tells of steps any more, nobody knows how many more were due.
        """
        steps = self._grid.steps
        if not steps:
            return [Reading((), ANYTHING, blind="no step came")]
        found = self._owed(min(steps.values()), span)
        name = COUNTS[criterion.metric]
        count = getattr(found, name)
        doubt = {"saved": found.saving, "verified": found.verifying}.get(name, 0)
        reading = bounded((), float(count), float(count), float(count + doubt), count=count)
        return [replace(reading, blind=self._untold(criterion, span))]

    def _untold(self, criterion: Criterion, span: Span) -> str:
        """Why steps may have been made that nobody told, or an empty string."""
        begun = sorted(e.t for e in self._events.get(What.BEGUN, ()) if e.t <= span.until)
        silent = span.until - max([self._grid.told, *begun])
        if silent <= max(SILENCE, (1.0 - criterion.coverage) * span.length):
            return ""
        # Saves tell as well: none was ever due sooner after the one before than the shortest time.
        if len(begun) > 2 and span.until - begun[-1] <= min(b - a for a, b in pairwise(begun)):
            return ""
        return f"no step was told in the last {seconds(silent)} of {seconds(span.length)}"

    def _owed(self, made: int, span: Span) -> Owed:
        """Checkpoints where all ranks made *made* steps, which come a second later than events."""
        begun = [e.step for e in self._events.get(What.BEGUN, ()) if e.step is not None]
        return self._once(
            ("owed", span),
            lambda: owed(
                self._events,
                every=self._plan.checkpoint_every,
                first=self._grid.first,
                reached=max([made, *begun]),
                until=span.until,
            ),
        )

    # --- Against what others measured or said -----------------------------------------------------

    def _efficiency(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        """X_n / (n X_1), never clamped."""
        where = labels(processes=self._plan.processes)
        single = self._context.single_process
        if not single:
            words = self._context.unbased or "what one process makes was not measured"
            return [Reading(where, blind=words)]
        mean = replace(criterion, reduce="mean")
        return self._warm(mean, where, span, run, self._plan.processes * single)

    def _attested(self, criterion: Criterion, span: Span, run: Run) -> list[Reading]:
        item = dict(criterion.where).get("item", "")
        where = labels(item=item)
        value = self._context.attested.get(item)
        why = self._context.unattested.get(item, f"nobody attested it: dvfd attest {item}")
        return [one(where, value, why)]
