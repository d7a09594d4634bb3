"""The nouns: frozen records and closed vocabularies that all rooms share. Imports nothing of ours.

Times (`at`, `since`, `until`) are Unix seconds, durations are seconds, values are in base units.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Labels = tuple[tuple[str, str], ...]
"""Label pairs in the order of their names: hashable, so a series is `(metric, labels)`."""


def labels(**pairs: object) -> Labels:
    """Build Labels from keywords, in canonical order: `labels(job="gpt", rank=3)`."""
    return tuple(sorted((name, str(value)) for name, value in pairs.items()))


class Verdict(StrEnum):
    """What is known of a criterion. UNKNOWN is the value before the first look."""

    PASS = "PASS"  # noqa: S105  # a verdict
    NOT_APPLICABLE = "NOT_APPLICABLE"
    WAIVED = "WAIVED"
    UNKNOWN = "UNKNOWN"
    FAIL = "FAIL"


WORST_FIRST = (
    Verdict.FAIL,
    Verdict.UNKNOWN,
    Verdict.WAIVED,
    Verdict.PASS,
    Verdict.NOT_APPLICABLE,
)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict that decides: nothing at all, or only NOT_APPLICABLE, is UNKNOWN."""
    found = set(verdicts)
    for verdict in WORST_FIRST[:-1]:
        if verdict in found:
            return verdict
    return Verdict.UNKNOWN


class Severity(StrEnum):
    """How loud a breach is. Only CRITICAL decides a report or a gate."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


class Scope(StrEnum):
    """Where a criterion is judged: on every node, or at the cluster's lead only."""

    NODE = "node"
    CLUSTER = "cluster"


class Kind(StrEnum):
    """What a metric's values mean over time."""

    GAUGE = "gauge"
    COUNTER = "counter"


class Comparison(StrEnum):
    """How the observed value is held against the limit."""

    AT_LEAST = ">="
    MORE_THAN = ">"
    AT_MOST = "<="
    LESS_THAN = "<"
    EQUAL = "=="

    def holds(self, observed: float, limit: float) -> bool:
        """Whether *observed* satisfies this comparison with *limit*; a NaN never does."""
        match self:
            case Comparison.AT_LEAST:
                return observed >= limit
            case Comparison.MORE_THAN:
                return observed > limit
            case Comparison.AT_MOST:
                return observed <= limit
            case Comparison.LESS_THAN:
                return observed < limit
            case Comparison.EQUAL:
                return observed == limit


class Combine(StrEnum):
    """How the series that differ only in the `across` label become one value."""

    WORST = "worst"
    SUM = "sum"
    MEAN = "mean"
    SPREAD = "spread"  # max |x - mean| / |mean|
    EQUAL = "equal"  # the number of distinct values, 1 when all agree


NONE_YET = "none yet"
"""The `source` of a metric that nothing measures so far: its criteria are UNKNOWN."""

DRILL = "drill"
"""The `source` of a metric that active tests measure, each for the criteria of its own check."""


RUN = "run"
"""The `source` of a metric that a stability run measures, for the criteria of its own check."""


REVIEW = "review"
"""The `source` of a metric that is made when a list of days is judged, for its criteria alone."""


PROCESSES = "processes"
"""The label of figures that each belong to one process count."""


ATTESTATION = "attestation"
"""The `source` of a metric that named people state."""


@dataclass(frozen=True, slots=True)
class Range:
    """A closed interval of values."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a site's metric comes from: a series of one input, and what makes base units of it."""

    source: str  # textfile or scrape
    input: str
    series: str
    where: Labels = ()
    times: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One measured quantity: one name in TOML, in the store and, behind `dvfd_`, on /metrics."""

    name: str
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    source: str = NONE_YET
    drilled: bool = False  # a drill tells it as well, for the criteria of its own check
    kind: Kind = Kind.GAUGE
    max_age: float = 15.0
    possible: Range | None = None
    only: str = ""  # the input of a site without which there is no such metric
    origin: Origin | None = None  # of a site's own


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one series.

    `low` and `high` bound the true value where there is an interval. `span` is how many seconds
    before `at` the value stands for: 0 for an instant, up to 60 or 3600 for a rollup.
    """

    metric: str
    value: float
    at: float
    labels: Labels = ()
    low: float | None = None
    high: float | None = None
    span: float = 0.0


@dataclass(frozen=True, slots=True)
class Unseen:
    """Series that a source has and could not tell: any of the metric that agree with `labels`.

    One that was never told goes stale nowhere, so only this shows that it is missing.
    """

    metric: str
    why: str
    labels: Labels = ()

    def concerns(self, metric: str, where: Labels) -> bool:
        """Whether it may be one of the series of *metric* with the labels *where*."""
        known = dict(self.labels)
        return metric == self.metric and all(known.get(n, v) == v for n, v in where)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A number, or `times` a profile key or another metric, plus `plus`.

    `of` is empty (then `value` is the limit), `profile.KEY` (the catalogue resolves it into
    `value`; None if the profile does not say) or `metric.NAME` (the judge resolves it from
    samples of that metric).
    """

    value: float | None = None
    of: str = ""
    times: float = 1.0
    plus: float = 0.0
    missing: str = ""  # why the profile does not say, where that is known

    @property
    def metric(self) -> str:
        """The name of the metric that this limit refers to, or an empty string."""
        return self.of.removeprefix("metric.") if self.of.startswith("metric.") else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """One acceptance rule: how a metric becomes one value, and what that value must be."""

    id: str
    item: str
    clause: str
    text: str
    metric: str
    unit: str
    comparison: Comparison
    limit: Limit
    reduce: str = "latest"  # latest mean median min max sum stdev pNN rate increase count
    #                         fraction_within
    window: float = 0.0
    band: float | None = None  # fraction_within: half width of the band around the mean
    across: str = ""
    combine: Combine = Combine.WORST
    where: Labels = ()
    counts: tuple[int, ...] = ()  # processes that a run may be about; none: it tells none apart
    limits: tuple[tuple[int, Limit], ...] = ()  # for the counts whose limit is another
    possible: Range | None = None
    expected: Range | None = None
    max_age: float = 15.0
    coverage: float = 0.0
    hold: float = 0.0  # `for` in TOML: seconds of breach before an alarm is raised
    streak: int = 1
    recovery: float = 0.0
    clear: float = 1.0
    latch: bool = False
    severity: Severity = Severity.CRITICAL
    scope: Scope = Scope.NODE
    requires: tuple[str, ...] = ()
    inapplicable: str = ""
    source: str = NONE_YET  # of its metric
    note: str = ""
    overridden: str = ""
    also: tuple[str, ...] = ()  # further lines of the source that this criterion answers
    like: str = ""  # the criterion that it takes after: a veto is held against that one's figures

    @property
    def check(self) -> str:
        """The id of the check that this criterion belongs to."""
        return self.id.partition(".")[0]

    def among(self, processes: int) -> Criterion:
        """As it stands for a run about *processes*: that count's series, held against its limit.
        The same where it tells no counts apart, or the run (0) says none.
        """
        if not self.counts or not processes:
            return self
        if processes not in self.counts:
            judged = ", ".join(map(str, self.counts))
            why = f"this run is about {processes} processes, the criterion about {judged}"
            return replace(self, inapplicable=self.inapplicable or why)
        limit = dict(self.limits).get(processes, self.limit)
        where = labels(**dict(self.where) | {PROCESSES: processes})
        return replace(self, where=where, limit=limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Criteria judged together: a checklist, a validation, a stability run, or the live watch."""

    id: str
    title: str
    clause: str
    criteria: tuple[Criterion, ...]
    phase: str = ""
    schedule: str = ""
    watch: bool = False
    duration: float = 0.0
    nodes: int = 1
    processes: int = 0
    run: str = ""
    drill: bool = False  # there is an active test that measures it
    ledger: bool = False  # it reckons with what runs measured: on which node says nothing
    own_size: bool = False  # its scenarios have sizes of their own, whatever the phase's
    every: int = 0  # batches in a collection interval of a stability run; 0: it is none
    checkpoint_every: int = 0  # batches from one checkpoint of that run to the next
    whole: tuple[str, ...] = ()  # lines of the source that the verdict of the whole check answers

    @property
    def counts(self) -> tuple[int, ...]:
        """The process counts that a run of it may be about, smallest first."""
        return tuple(sorted({count for c in self.criteria for count in c.counts}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Waived:
    """Why a breach counts for nothing until `expires`, and what was found: verdict and reason."""

    verdict: Verdict
    found: str
    by: str
    role: str
    reason: str
    expires: float
    record: int  # its number in the ledger of evidence


@dataclass(frozen=True, slots=True)
class Result:
    """A criterion's verdict at one moment, with the evidence in words and numbers."""

    criterion: Criterion
    verdict: Verdict
    at: float
    reason: str
    observed: float | None = None
    limit: float | None = None
    margin: float | None = None
    coverage: float | None = None
    labels: Labels = ()
    note: str = ""
    samples: int = 0  # how many samples the verdict rests on
    sampled_at: float | None = None  # the newest of them
    absent: bool = False  # there is no live series: none came yet, or all have ended
    waived: Waived | None = None  # only with the verdict WAIVED
    unseen: tuple[Labels, ...] = ()  # the series that are unknown, where the verdict is UNKNOWN
    began: tuple[Labels, ...] = ()  # those of them that are too new to be known

    @classmethod
    def unknown(
        cls, criterion: Criterion, at: float, reason: str, *, at_labels: Labels = ()
    ) -> Result:
        """An UNKNOWN with the reason why nothing can be said."""
        return cls(criterion, Verdict.UNKNOWN, at, reason, labels=at_labels)

    def bare(self) -> Result:
        """As it was found, whoever waived it."""
        if self.waived is None:
            return self
        return replace(self, verdict=self.waived.verdict, reason=self.waived.found, waived=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a drill, as a report tells of it. `facts` are names and texts, judged by nobody.

    `shortened` says how much of the check's duration was run if it was less, like `60 s of 4 h`.
    `processes` is how many took part, or how many it is about; 0 for a test of none.
    """

    began: float
    ended: float
    shortened: str = ""
    by: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    processes: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """The results of one check, judged together."""

    check: Check
    results: tuple[Result, ...]
    at: float
    node: str = ""
    catalogue_hash: str = ""
    profile_hash: str = ""
    environment_hash: str = ""
    late: float = 0.0  # seconds after the scheduled time, for a run caught up
    duration: float = 0.0  # seconds that judging took
    error: str = ""  # of criteria whose judging crashed
    scheduled: float | None = None  # when it was due; None if a person asked, or it is live
    run: Run | None = None  # of the drill whose figures were judged

    @property
    def verdict(self) -> Verdict:
        """The worst critical verdict; a warning never decides. Nothing judged is UNKNOWN."""
        return worst(r.verdict for r in self.results if r.criterion.severity is Severity.CRITICAL)

    @property
    def warnings(self) -> tuple[Result, ...]:
        """Breaches that do not decide but must be seen."""
        return tuple(
            r
            for r in self.results
            if r.verdict is Verdict.FAIL and r.criterion.severity is not Severity.CRITICAL
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLine:
    """A GO line of a gate: the checks, criteria and attested items that it stands on."""

    id: str
    text: str
    checks: tuple[str, ...] = ()
    criteria: tuple[str, ...] = ()
    attestations: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a phase needs before the next: GO lines, No-Go lines (vetoes), and who decides."""

    id: str
    title: str
    clause: str
    requires: tuple[GateLine, ...]
    vetoes: tuple[Criterion, ...]
    tests: tuple[str, ...]
    authority: tuple[str, ...]
    due: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRow:
    """A row of the source's summary table: the tests that it ticks, or the gate whose signature."""

    title: str
    tests: tuple[str, ...] = ()
    gate: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOff:
    """A role that signs the validation as a whole, and what it signs."""

    role: str
    text: str
    clause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """What a named person vouches for or denies, until it expires.

    `by` and `role` are what was typed, `submitted` is the user who typed it, as the kernel says.
    """

    item: str
    value: bool
    by: str
    role: str
    at: float
    expires: float
    note: str = ""
    submitted: str = ""


@dataclass(frozen=True, slots=True)
class ProbeHealth:
    """How a source is doing, apart from what it measured."""

    probe: str
    up: bool = False
    last_run: float | None = None
    last_success: float | None = None
    duration: float | None = None
    error: str = ""
    not_applicable: bool = False
    overdue: bool = False


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> float:
        """Unix seconds."""
        ...

    def boot(self) -> float:
        """CLOCK_BOOTTIME seconds: for durations; unaffected by steps of the wall clock."""
        ...


class Probe(Protocol):
    """A passive source. Measures, never judges; building one touches nothing."""

    @property
    def name(self) -> str:
        """The probe's name, as in the `source` of its metrics."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that it yields."""
        ...

    @property
    def interval(self) -> float:
        """Seconds between samples."""
        ...

    @property
    def deadline(self) -> float:
        """Seconds that `sample` may take. Above 0 it may block, and gets a thread of its own."""
        ...

    def sample(self, at: float) -> Iterable[Sample]:
        """Measure now. Raises NotApplicable (this machine has none) or ProbeError (it broke)."""
        ...


class Sink(Protocol):
    """Somewhere reports are told. Never recomputes a verdict."""

    def tell(self, report: Report) -> None:
        """Take note of *report*; must not block on the network."""
        ...


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The framework as data, bound to one profile and one site's overrides."""

    metrics: Mapping[str, Metric]
    checks: Mapping[str, Check]
    gates: Mapping[str, Gate]
    hash: str
    overrides: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()  # of what a site set up and nothing judges
    criteria: Mapping[str, Criterion] = field(default_factory=dict)
    signoffs: tuple[SignOff, ...] = ()
    summary: tuple[SummaryRow, ...] = ()
