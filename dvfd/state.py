"""What is known now, as one frozen snapshot that sinks, status and page share. Judges nothing.

It does one thing to what it was told: a verdict that was not judged again in time lapses to
UNKNOWN, so that a stuck loop can never leave a green light behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import structlog

from dvfd import __version__
from dvfd.errors import DvfdError
from dvfd.masking import masked
from dvfd.model import Report, Result, Severity, Verdict, worst
from dvfd.model import Run as DrillRun

if TYPE_CHECKING:
    from dvfd.config import Config
    from dvfd.model import Catalogue, Check, Clock, Criterion, Labels, ProbeHealth, Sample

log = structlog.get_logger()

T = TypeVar("T")

LIVE_STANDS = 60.0
"""Seconds that a live verdict stands. Passes come every few seconds; none for a minute means that
the watch is stuck."""

DAY = 86_400.0

LATE = 7200.0
"""Seconds beyond interval and jitter before a checklist's verdict lapses: a run may itself take
an hour, and a catch-up after downtime starts within minutes."""


class StoreHealth(Protocol):
    """How the store is doing; dvfd.store has the record."""

    @property
    def ok(self) -> bool:
        """Whether what is written reaches the disk."""
        ...

    @property
    def reason(self) -> str:
        """What is wrong, or what was and nobody has acknowledged yet; empty if nothing is."""
        ...

    @property
    def queue(self) -> int:
        """Writes waiting for the disk."""
        ...

    @property
    def last_commit(self) -> float | None:
        """Unix seconds of the last commit."""
        ...

    @property
    def path(self) -> str:
        """Where it lies."""
        ...


class ReloadHealth(Protocol):
    """How the configuration was last taken; dvfd.reload has the record."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Why it was refused; empty if it is in force."""
        ...

    @property
    def succeeded_at(self) -> float | None:
        """Unix seconds at which one was last taken."""
        ...

    @property
    def notice(self) -> str:
        """What a person must read, or an empty string."""
        ...


class WebHealth(Protocol):
    """How the listener's TLS is doing; dvfd.sinks.web has it."""

    @property
    def expires_at(self) -> float | None:
        """Unix seconds at which the certificate ends; None without TLS."""
        ...

    @property
    def notice(self) -> str:
        """What a person must read, or an empty string."""
        ...


class Run(Protocol):
    """One kept run of a check; dvfd.store has the record."""

    @property
    def at(self) -> float:
        """Unix seconds."""
        ...

    @property
    def verdict(self) -> str:
        """The worst critical verdict."""
        ...

    @property
    def late(self) -> float:
        """Seconds after it was due."""
        ...

    @property
    def document(self) -> dict[str, Any]:
        """The whole report, as dvfd.store.documents writes it."""
        ...


class Past(Protocol):
    """What is remembered beyond now: charts, lists of runs, the interface for programs."""

    def latest(self, metric: str) -> Sequence[Sample]:
        """The newest sample of each live series of *metric*, however old."""
        ...

    def series(
        self, metric: str, labels: Labels, *, since: float, until: float
    ) -> Sequence[Sample]:
        """The course of one series over [since, until], oldest first; old ones as rollups."""
        ...

    def reports(self, check_id: str, limit: int) -> Sequence[Run]:
        """The newest kept runs of a check, newest first."""
        ...


class Runs(Protocol):
    """The stability runs of this node; dvfd.runs.served has them."""

    def told(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """Where the newest stand, the newest first."""
        ...

    def rows(self, run_id: str, since: int, limit: int) -> Mapping[str, Any]:
        """What the file of one holds after mark *since*. Raises DvfdError."""
        ...


class NoRuns:
    """There was none."""

    def told(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """Nothing."""
        return ()

    def rows(self, run_id: str, since: int, limit: int) -> Mapping[str, Any]:
        """Nothing. Raises DvfdError."""
        raise DvfdError(f"no run {run_id!r} is known here")


class NoPast:
    """Nothing is remembered."""

    def latest(self, metric: str) -> Sequence[Sample]:
        """Nothing."""
        return ()

    def series(
        self, metric: str, labels: Labels, *, since: float, until: float
    ) -> Sequence[Sample]:
        """Nothing."""
        return ()

    def reports(self, check_id: str, limit: int) -> Sequence[Run]:
        """Nothing."""
        return ()


@dataclass(frozen=True, slots=True)
class Loop:
    """How one of the daemon's loops is doing: seconds since its last progress, and its bound."""

    age: float
    limit: float

    @property
    def late(self) -> bool:
        """Whether it made no progress for longer than it may."""
        return self.age > self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """An alert that is firing now."""

    key: str
    name: str
    severity: str
    since: float
    summary: str
    description: str
    delivered: bool
    escalation: str = ""  # whom it calls, if its severity does not say that

    @property
    def subject(self) -> str:
        """What it is about, as the key says it: a criterion, a source, a check, or "storm"."""
        if self.key.startswith("incident:"):
            return self.key.split(":")[1]
        return self.key.removeprefix("blind:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One Alertmanager: when it last accepted alerts, and what went wrong since."""

    url: str
    last_success: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How alerts get out. `waiting` ones were not accepted by any Alertmanager yet."""

    peers: tuple[Peer, ...] = ()
    mode: str = "push"
    waiting: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)

    @property
    def error(self) -> str:
        """What is wrong with delivery, empty while some Alertmanager accepts."""
        errors = [f"{peer.url}: {peer.error}" for peer in self.peers if peer.error]
        return "; ".join(errors) if len(errors) == len(self.peers) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """The incidents that are not over, in short, and why they do not move on if they do not."""

    on: Sequence[Mapping[str, Any]] = ()
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """One criterion of the stability run that is on: what it says so far, what it has left."""

    criterion: str
    text: str
    verdict: Verdict  # that counts: UNKNOWN while it may still come either way
    so_far: Verdict
    reason: str
    margin: float | None = None
    unit: str = ""
    left: str = ""  # in words: of its budget, or what the rest must average
    burn_rate: float | None = None  # above 1 the budget will not last
    lost: bool = False  # it can no longer be met
    severity: str = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """The stability run that is on; seconds, and Unix seconds in `ends_at`."""

    id: str
    check: str
    title: str
    job: str
    stage: str
    elapsed: float
    duration: float
    ends_at: float | None = None  # None before its first step
    uncounted: tuple[str, ...] = ()  # why a pass of it will not count
    trouble: str = ""  # of watching it
    lines: tuple[RunLine, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """FAIL once a critical criterion can no longer be met; else nothing is decided yet."""
        lost = any(line.lost and line.severity == Severity.CRITICAL for line in self.lines)
        return Verdict.FAIL if lost else Verdict.UNKNOWN

    @property
    def worst(self) -> tuple[RunLine, ...]:
        """The lines that need a look, worst first: lost, failing so far, burning, not known."""
        ranks = [(_need(line), line) for line in self.lines]
        return tuple(line for rank, line in sorted(ranks, key=lambda pair: pair[0]) if rank < 4)


def _need(line: RunLine) -> int:
    """How much a line of a run needs a look: 0 the most, 4 none."""
    if line.lost:
        return 0
    if line.so_far is Verdict.FAIL:
        return 1
    if line.burn_rate is not None and line.burn_rate > 1:
        return 2
    return 3 if line.so_far is Verdict.UNKNOWN else 4


@dataclass(frozen=True, slots=True)
class Memory:
    """The health of a store that keeps nothing, for a daemon that is only starting."""

    ok: bool = False
    reason: str = "not opened yet"
    queue: int = 0
    last_commit: float | None = None
    path: str = ""


@dataclass(frozen=True, slots=True)
class NoReload:
    """No configuration was taken yet."""

    problems: tuple[str, ...] = ()
    succeeded_at: float | None = None
    notice: str = ""


@dataclass(frozen=True, slots=True)
class NoWeb:
    """A listener in plain text."""

    expires_at: float | None = None
    notice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Whom a snapshot asks, each time it is taken."""

    latest: Callable[[str], Sequence[Sample]] = lambda _metric: ()
    probes: Callable[[], Mapping[str, ProbeHealth]] = dict
    loops: Callable[[], Mapping[str, Loop]] = dict
    store: Callable[[], StoreHealth] = Memory
    jobs: Callable[[], Sequence[Mapping[str, Any]]] = tuple
    log_lines: Callable[[], Sequence[Mapping[str, Any]]] = tuple
    raised: Callable[[], Sequence[Raised]] = tuple
    delivery: Callable[[], Delivery] = Delivery
    ingest: Callable[[], Mapping[str, int]] = dict
    http: Callable[[], Mapping[str, int]] = dict
    scraped: Callable[[], float | None] = lambda: None
    reload: Callable[[], ReloadHealth] = NoReload
    web: Callable[[], WebHealth] = NoWeb
    run: Callable[[], RunState | None] = lambda: None
    failures: Callable[[], Failures] = Failures
    gates: Callable[[], Mapping[str, Any]] = dict
    evidence: Callable[[], Sequence[str]] = tuple  # what a person should know of the ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckState:
    """One check now: its results, worst first decides, and how its runs went."""

    check: Check
    results: tuple[Result, ...]
    last_run: float | None = None
    last_pass: float | None = None
    duration: float | None = None
    error: str = ""
    drill: DrillRun | None = None  # the run of the check's own test that was judged

    @property
    def verdict(self) -> Verdict:
        """The worst critical verdict that still stands."""
        return Report(self.check, self.results, 0.0).verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything a sink may tell, at one moment."""

    at: float
    started_at: float
    version: str
    config: Config
    catalogue: Catalogue
    checks: Mapping[str, CheckState]
    probes: Mapping[str, ProbeHealth]
    loops: Mapping[str, Loop]
    store: StoreHealth
    samples: Mapping[str, tuple[Sample, ...]]
    jobs: Sequence[Mapping[str, Any]]
    log_lines: Sequence[Mapping[str, Any]]
    raised: tuple[Raised, ...]
    delivery: Delivery
    ingest: Mapping[str, int]
    http: Mapping[str, int]
    scraped_at: float | None = None  # when somebody last read /metrics
    reload: ReloadHealth = NoReload()
    web: WebHealth = NoWeb()
    run: RunState | None = None  # the stability run that is on
    failures: Failures = Failures()
    gates: Mapping[str, Any] = field(default_factory=dict)  # as dvfd.gates.gatehouse tells them
    evidence: tuple[str, ...] = ()

    @property
    def results(self) -> dict[str, Result]:
        """The result of every criterion by its id."""
        return {r.criterion.id: r for c in self.checks.values() for r in c.results}

    @property
    def live(self) -> tuple[CheckState, ...]:
        """The checks that are judged all the time."""
        return tuple(state for state in self.checks.values() if state.check.watch)

    @property
    def verdict(self) -> Verdict:
        """The node's verdict: the worst of its live checks; UNKNOWN if it has none."""
        return worst(state.verdict for state in self.live)

    @property
    def troubles(self) -> tuple[str, ...]:
        """What is wrong with dvfd itself, one line each; empty while it is well."""
        late = [
            f"loop {name}: no progress for {loop.age:.0f} s, wanted every {loop.limit:g} s"
            for name, loop in self.loops.items()
            if loop.late
        ]
        broken = [] if self.store.ok else [f"store: {self.store.reason or 'not ok'}"]
        return (*late, *broken)

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person must read although dvfd is well: a store lost, ranks turned away, a
        baseline of another node, a ledger that somebody touched, a gate signed in spite of it.
        """
        lost = [f"store: {self.store.reason}"] if self.store.ok and self.store.reason else []
        count = self.ingest.get("refused", 0)
        away = f"{count} times a rank found no room and is not watched: see [jobs] limit"
        refused = [notice for notice in (self.reload.notice, self.web.notice) if notice]
        baseline = (*self.config.calibrated.notices, *self.catalogue.notices)
        trouble = self.failures.trouble
        stuck = [f"incidents do not move on: {trouble}"] if trouble else []
        told = (*refused, *lost, *self.evidence, *self._in_spite(), *baseline)
        return (*told, *([away] if count else []), *stuck)

    def _in_spite(self) -> list[str]:
        """Gates that somebody signed although dvfd did not recommend it."""
        return [
            f"{gate['gate']} was signed in spite of {signed['outcome']} by {signed['by']}: "
            f"{signed['override']}"
            for gate in self.gates.get("gates", ())
            for signed in gate["signatures"]
            if signed["override"]
        ]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A result and the boot time at which it was judged."""

    result: Result
    boot: float


@dataclass(frozen=True, slots=True)
class _Run:
    at: float | None = None
    passed: float | None = None
    duration: float | None = None
    error: str = ""
    drill: DrillRun | None = None


def standing(check: Check, jitter: float = 0.0) -> float | None:
    """Seconds that a verdict of *check* stands, or None: until it is run again."""
    if check.watch:
        return LIVE_STANDS
    return interval(check.schedule) + jitter + LATE if check.schedule else None


def interval(cron: str) -> float:
    """The longest time in seconds between two runs of five-field *cron* that is plausible."""
    _, _, day, month, weekday = cron.split()
    if month != "*":
        return 366 * DAY
    if day != "*":
        return 31 * DAY
    return DAY if weekday == "*" else 7 * DAY


def lapse(result: Result, age: float, limit: float | None) -> Result:
    """*result*, or UNKNOWN once it is older than *limit* seconds."""
    if limit is None or age <= limit:
        return result
    reason = f"not judged for {age:.0f} s, wanted every {limit:g} s; was {result.verdict}"
    return replace(result, verdict=Verdict.UNKNOWN, reason=f"{reason}: {result.reason}")


class State:
    """The one place that verdicts are read from. A Sink: it takes note of reports. Thread-safe."""

    def __init__(
        self, config: Config, catalogue: Catalogue, sources: Sources, *, clock: Clock
    ) -> None:
        self._config = config
        self._catalogue = catalogue
        self._sources = sources
        self._clock = clock
        self._started_at = clock.now()
        self._kept: dict[str, _Kept] = {}
        self._runs: dict[str, _Run] = {}
        self._lock = threading.Lock()

    def tell(self, report: Report) -> None:
        """Take note of a whole run of a check, also of one that the store remembers."""
        passed = report.at if report.verdict is Verdict.PASS else None
        with self._lock:
            self._note(report.results)
            run = self._runs.get(report.check.id, _Run())
            self._runs[report.check.id] = replace(
                run,
                at=report.at,
                passed=passed or run.passed,
                duration=report.duration,
                error=report.error,
                drill=report.run,
            )

    def judged(self, results: Iterable[Result]) -> None:
        """Take note of some criteria judged again between two runs."""
        with self._lock:
            self._note(results)

    def lapsed(self) -> set[str]:
        """The checks that rest on a waiver which has ended."""
        now = self._clock.now()
        with self._lock:
            kept = [each.result for each in self._kept.values()]
        return {r.criterion.check for r in kept if r.waived and now >= r.waived.expires}

    def snapshot(self) -> Snapshot:
        """Everything as it stands now. Costs one question to every source."""
        ask = self._sources
        at = self._clock.now()
        gates, unknown = _told("the gates", ask.gates)
        noted, unread = _told("the ledger of evidence", ask.evidence)
        return Snapshot(
            at=at,
            started_at=self._started_at,
            version=__version__,
            config=self._config,
            catalogue=self._catalogue,
            checks=self._checks(),
            probes=dict(ask.probes()),
            loops=dict(ask.loops()),
            store=ask.store(),
            samples=self._fresh(at),
            jobs=masked(tuple(ask.jobs())),
            log_lines=masked(tuple(ask.log_lines())),
            raised=tuple(ask.raised()),
            delivery=ask.delivery(),
            ingest=dict(ask.ingest()),
            http=dict(ask.http()),
            scraped_at=ask.scraped(),
            reload=ask.reload(),
            web=ask.web(),
            run=ask.run(),
            failures=ask.failures(),
            gates=gates or {},
            evidence=(*(noted or ()), *unread, *unknown),
        )

    def _note(self, results: Iterable[Result]) -> None:
        now, boot = self._clock.now(), self._clock.boot()
        for result in results:
            known = self._kept.get(result.criterion.id)
            if known is not None and known.result is result:
                continue  # told again in a report that judged other criteria
            # Ages run on the boot clock from here: a step of the wall clock renews nothing.
            judged = boot - max(0.0, now - result.at)
            self._kept[result.criterion.id] = _Kept(result, judged)

    def _checks(self) -> dict[str, CheckState]:
        with self._lock:
            kept, runs = dict(self._kept), dict(self._runs)
        return {
            check.id: self._check(check, kept, runs.get(check.id, _Run()))
            for check in self._catalogue.checks.values()
        }

    def _check(self, check: Check, kept: Mapping[str, _Kept], run: _Run) -> CheckState:
        limit = standing(check, self._config.schedule.jitter)
        return CheckState(
            check=check,
            results=tuple(self._now(c, kept.get(c.id), limit) for c in check.criteria),
            last_run=run.at,
            last_pass=run.passed,
            duration=run.duration,
            error=run.error,
            drill=run.drill,
        )

    def _now(self, criterion: Criterion, kept: _Kept | None, limit: float | None) -> Result:
        if kept is None:
            return Result.unknown(criterion, self._clock.now(), "not judged yet")
        result, waived = kept.result, kept.result.waived
        if waived and self._clock.now() >= waived.expires:
            result = result.bare()
        return lapse(result, self._clock.boot() - kept.boot, limit)

    def _fresh(self, at: float) -> dict[str, tuple[Sample, ...]]:
        """The newest sample of every live series, silent ones left out."""
        fresh = {}
        for metric in self._catalogue.metrics.values():
            # A sample from the future is as untrue as an old one: the clock was stepped.
            samples = self._sources.latest(metric.name)
            fresh[metric.name] = tuple(s for s in samples if abs(at - s.at) <= metric.max_age)
        return {name: samples for name, samples in fresh.items() if samples}


def _told(what: str, ask: Callable[[], T]) -> tuple[T | None, list[str]]:
    """The answer, and what is to be said if asking crashed: everything else is still told."""
    try:
        return ask(), []
    except Exception as error:
        log.exception("cannot be told", what=what)
        return None, [f"{what}: cannot be told, this is a fault of dvfd: {error!r:.200}"]


def breaches(results: Iterable[Result]) -> list[Result]:
    """What needs a look, worst first: critical failures, other failures, then UNKNOWN."""
    return sorted(
        (r for r in results if r.verdict in {Verdict.FAIL, Verdict.UNKNOWN}),
        key=lambda r: (
            r.verdict is not Verdict.FAIL,
            list(Severity).index(r.criterion.severity),
            r.criterion.id,
        ),
    )
