"""Mute every criterion of the catalogue in every way, in process, and read it in all four places.

The clock is made up, so that days pass in no time; judging, state, /metrics, page, status and API
are the daemon's own. What is muted was PASS in all four places before. The probes themselves are
muted on a real daemon in bench.mutes.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from bench import four_places
from bench.harness import testbed  # noqa: F401  # puts tests/ on the path
from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.drilled import Drilled
from dvfd.drills.drill import Trouble
from dvfd.drills.findings import Findings
from dvfd.judgements import Judgements
from dvfd.model import (
    ATTESTATION,
    DRILL,
    NONE_YET,
    REVIEW,
    Catalogue,
    Check,
    Criterion,
    Kind,
    Labels,
    Limit,
    Metric,
    Sample,
    Verdict,
    labels,
)
from dvfd.people.attestations import Attestations
from dvfd.sinks.http import Request
from dvfd.sinks.site import Site
from dvfd.state import State, standing
from dvfd.status import document

fakes = importlib.import_module("fakes")
fakes_sinks = importlib.import_module("fakes_sinks")

INTERVALS = 3
"""Of a source, within which its silence must be UNKNOWN."""

PIECES = 24
DAY = 86_400.0

Judge = Callable[[Criterion], object]


class Way(StrEnum):
    """How a source falls silent, or speaks what nobody can believe."""

    NEVER = "it never spoke"
    GONE = "it speaks no more"
    FROZEN = "it answers with the same value of the same moment"
    ONE_GONE = "one of its series speaks no more"
    NAN = "it says NaN"
    INFINITE = "it says infinity"
    NEGATIVE = "it says minus infinity"
    IMPLAUSIBLE = "it says what cannot be"
    FUTURE = "its samples lie in the future"
    TIMELESS = "the time of its sample is no number"
    HALF = "half of the window was not observed"
    UNSEEN = "it says that it could not tell all of its series"
    LIMIT_GONE = "what gives the limit speaks no more"
    CLOCK_FORWARD = "it stopped, and the clock was set forward an hour"
    CRASH = "reading what is known of it crashes"
    STUCK = "nobody judges any more"
    TROUBLE = "the test says that it could not measure this"
    SHORT = "the test was cut short"
    UNREADABLE = "what the test left cannot be read"
    EXPIRED = "the statement has expired"
    AHEAD = "the statement was made in the future"


SAMPLES_OF = frozenset({
    Way.NEVER, Way.GONE, Way.FROZEN, Way.ONE_GONE, Way.NAN, Way.INFINITE, Way.NEGATIVE,
    Way.IMPLAUSIBLE, Way.FUTURE, Way.TIMELESS, Way.HALF, Way.LIMIT_GONE, Way.CRASH,
})  # fmt: skip
"""Ways of whatever is judged on samples."""

SERIES = SAMPLES_OF | {Way.UNSEEN, Way.CLOCK_FORWARD}
TESTS = SAMPLES_OF - {Way.FROZEN, Way.CRASH} | {
    Way.TROUBLE, Way.SHORT, Way.UNREADABLE,
}  # fmt: skip


def ways(criterion: Criterion, check: Check, metric: Metric) -> dict[Way, str]:
    """Every way that there is, with why it cannot be of *criterion*; empty where it can."""
    if criterion.source == NONE_YET:
        return dict.fromkeys(Way, "nothing measures it: it is never PASS")
    if check.every and criterion.source != ATTESTATION:
        return dict.fromkeys(Way, "a stability run is judged on its file: bench.mutes runs those")
    if criterion.source == ATTESTATION:
        can = {Way.NEVER, Way.EXPIRED, Way.AHEAD}
        return {w: "" if w in can else "a statement is a record with an end" for w in Way}
    return _of_samples(criterion, check) | _of_shape(criterion, metric)


def _of_samples(criterion: Criterion, check: Check) -> dict[Way, str]:
    """The ways of what samples are from."""
    tested = criterion.source in {DRILL, REVIEW}
    can = TESTS if tested else SERIES
    found = {w: "" if w in can else f"not of a source like {criterion.source}" for w in Way}
    found[Way.STUCK] = _stands(check)
    if tested:
        found[Way.ONE_GONE] = "a test's figures are of one moment: a missing one is TROUBLE"
    if criterion.source == REVIEW or not check.duration:
        found[Way.SHORT] = "it has no length to choose"
    return found


def _of_shape(criterion: Criterion, metric: Metric) -> dict[Way, str]:
    """The ways that a criterion's own shape rules out."""
    found: dict[Way, str] = {}
    if not metric.labels:
        found[Way.ONE_GONE] = "it has one series: GONE says it"
    if criterion.possible is None:
        found[Way.IMPLAUSIBLE] = "no bounds are given: any number is possible"
    if not criterion.limit.metric:
        found[Way.LIMIT_GONE] = "its limit is a number"
    if criterion.reduce == "latest" or not criterion.coverage:
        found[Way.HALF] = "no share of a window is wanted: the newest sample, or a count, decides"
    return found


def _stands(check: Check) -> str:
    if check.watch or check.schedule:
        return ""
    return "it stands until it is run again; what opens a gate, or takes a job, looks at its age"


def everything(config: Config | None = None) -> Catalogue:
    """The catalogue as on a node to which all of it applies, with a number for every limit."""
    found = load(config or Config())
    checks = {
        check.id: replace(check, criteria=tuple(map(_applied, check.criteria)))
        for check in found.checks.values()
    }
    criteria = {c.id: c for check in checks.values() for c in check.criteria}
    return replace(found, checks=checks, criteria=criteria)


def _applied(criterion: Criterion) -> Criterion:
    limit = criterion.limit
    if limit.value is None and not limit.metric:
        limit = Limit(value=100.0 * limit.times + limit.plus)
    return replace(criterion, inapplicable="", limit=limit)


def passing(criterion: Criterion) -> float:
    """A plausible value that satisfies *criterion*, inside its limit where it can be."""
    limit = 1.0 if criterion.limit.value is None else criterion.limit.value
    step = abs(limit) / 100 or 1.0
    tried = (limit + step, limit - step, limit)
    return next(
        v for v in tried if _possible(criterion, v) and criterion.comparison.holds(v, limit)
    )


def _possible(criterion: Criterion, value: float) -> bool:
    return criterion.possible is None or value in criterion.possible


@dataclass
class World:
    """Everything between a source and the four places, with a criterion's source muted in a way."""

    catalogue: Catalogue
    clock: Any = field(default_factory=fakes.FakeClock)
    way: Way | None = None
    asked: Criterion | None = None
    statements: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.began = self.spoke_at = self.clock.now()
        self.state = State(Config(), self.catalogue, fakes_sinks.sources(), clock=self.clock)
        self.site = Site(self.state.snapshot)
        self.judgements = Judgements(
            self.catalogue,
            store=self,
            clock=self.clock,
            sinks=(self.state,),
            unseen=self._unseen,
            drilled=self._found,
            reviewed=lambda check: self._found(check.id),
            attested=self._attested,
        )

    # --- What is asked of it -------------------------------------------------------------------

    def judge(self, criteria: Sequence[Criterion]) -> None:
        """Judge each, as its own check does."""
        for criterion in criteria:
            self.asked = criterion
            self.spoke_at = self.clock.now() if self.way is None else self.spoke_at
            check = self.catalogue.checks[criterion.check]
            people = [c for c in check.criteria if c.source == ATTESTATION]
            told = people if criterion.source == ATTESTATION else [criterion]
            self.judgements.run_check(check, told)

    def mute(self, way: Way) -> None:
        """From now on: what was said when it was last judged is its last word."""
        self.way = way
        if way is Way.CLOCK_FORWARD:
            self.clock.step(3600.0)

    def read(self) -> dict[str, four_places.Verdicts]:
        """The verdicts by place."""
        status = document(self.state.snapshot(), running=True)
        return four_places.read(self._get, json.loads(json.dumps(status)))

    def _get(self, address: str) -> bytes:
        path, _, query = address.partition("?")
        return self.site(Request("GET", path, query)).body

    # --- What the judging asks -----------------------------------------------------------------

    def samples(self, criterion: Criterion, *, until: float) -> Sequence[Sample]:
        """The store's part: what the series of *criterion* have come to."""
        if self.way is Way.CRASH:
            raise OSError("the disk is gone")
        return self._spoilt(criterion, until)

    def keep(self, report: object, *, scheduled: float | None = None) -> None:
        """Nothing is kept."""

    def _unseen(self, metric: str, where: Labels) -> str:
        return "the third of them: denied" if self.way is Way.UNSEEN else ""

    def _found(self, check: str) -> Findings | None:
        """The part of the newest test, or of the review of the days."""
        criterion, way = self.asked, self.way
        assert criterion is not None
        of = self.catalogue.checks[check]
        if way is Way.NEVER and criterion.source in {DRILL, REVIEW}:
            return None
        own = criterion.source in {DRILL, REVIEW}
        found = Findings(
            check=check,
            began=self.began - 60.0,
            ended=self.spoke_at,
            planned=of.duration,
            ran=0.5 * of.duration if way is Way.SHORT else of.duration,
            samples=tuple(self._spoilt(criterion, self.clock.now()) if own else ()),
            troubles=(Trouble(criterion.metric, "it broke"),) if way is Way.TROUBLE else (),
        )
        if way is not Way.UNREADABLE:
            return found
        document_ = found.to_dict()
        document_["samples"] = [[*row[:1], "high", *row[2:]] for row in document_["samples"]]
        return _read_back(document_)

    def _attested(self, criterion: Criterion, at: float) -> Any:
        item = dict(criterion.where).get("item", "")
        expires, said = self.began + 90 * DAY, self.began
        if self.way is Way.EXPIRED:
            expires = self.clock.now()
        if self.way is Way.AHEAD:
            said, expires = self.clock.now() + DAY, self.clock.now() + 90 * DAY
        record = {
            "item": item, "value": True, "by": "Ann Lee", "role": "CTO", "at": said,
            "expires": expires, "note": "", "submitted": "ann",
        }  # fmt: skip
        kept = {} if self.way is Way.NEVER else {f"{item}/000001": record}
        return Attestations(self.catalogue, _Shelf(kept), self.clock).judged(criterion, at)

    # --- Samples ---------------------------------------------------------------------------------

    def _spoilt(self, criterion: Criterion, now: float) -> list[Sample]:
        """What there is to judge *criterion* on, with what the way of muting makes of it."""
        way, muted = self.way, self.spoke_at
        if way is Way.NEVER:
            return []
        samples = self._healthy(criterion, now)
        if way in {Way.GONE, Way.CLOCK_FORWARD, Way.FROZEN}:
            last = self._healthy(criterion, muted)
            return [*last, last[-1]] if way is Way.FROZEN else last
        if way is Way.ONE_GONE:
            return [*samples, *_renamed(self._healthy(criterion, muted))]
        if way is Way.LIMIT_GONE:
            return [s for s in samples if s.metric == criterion.metric]
        if way is Way.HALF:
            return [s for s in samples if s.at > now - criterion.window / 3]
        return _with_newest(criterion, samples, _SAYS[way]) if way in _SAYS else samples

    def _healthy(self, criterion: Criterion, until: float) -> list[Sample]:
        """A whole window up to *until* on which *criterion* passes, and its limit."""
        limit = criterion.limit
        found = [s for one in self._names(criterion) for s in self._series(criterion, one, until)]
        if limit.metric:
            names = dict.fromkeys(self.catalogue.metrics[limit.metric].labels, "0")
            names |= {k: v for k, v in criterion.where if k in names}
            value = (1.0 - limit.plus) / limit.times
            found.append(Sample(limit.metric, value, until, labels(**names)))
        return found

    def _names(self, criterion: Criterion) -> Iterator[Labels]:
        names = dict.fromkeys(self.catalogue.metrics[criterion.metric].labels, "0")
        names |= dict(criterion.where)
        yield labels(**names)
        if criterion.across:
            yield labels(**names | {criterion.across: "1"})

    def _series(self, criterion: Criterion, names: Labels, until: float) -> Iterator[Sample]:
        grows = self.catalogue.metrics[criterion.metric].kind is Kind.COUNTER
        grows = grows and criterion.reduce in {"increase", "rate"}
        rise = passing(criterion) if grows else 0.0
        base = 0.0 if grows else passing(criterion)
        window = criterion.window
        if criterion.reduce == "rate":
            rise *= window
        if not window:
            yield Sample(criterion.metric, base, until, names)
            return
        for n in range(PIECES + 1):
            at = until - window * (1 - n / PIECES)
            yield Sample(
                criterion.metric, base + rise * n / PIECES, at, names, span=window / PIECES
            )


_SAYS: dict[Way, dict[str, float]] = {
    Way.NAN: {"value": math.nan},
    Way.INFINITE: {"value": math.inf},
    Way.NEGATIVE: {"value": -math.inf},
    Way.IMPLAUSIBLE: {},
    Way.FUTURE: {"ahead": 3600.0},
    Way.TIMELESS: {"ahead": math.nan},
}


def _with_newest(
    criterion: Criterion, samples: list[Sample], says: Mapping[str, float]
) -> list[Sample]:
    """*samples*, and beside them one of now that is as the source says."""
    own = [s for s in samples if s.metric == criterion.metric]
    last = own[-1]
    value = says.get("value", last.value)
    if not says:
        assert criterion.possible is not None
        value = math.nextafter(criterion.possible.high, math.inf)
    bad = replace(last, value=value, at=last.at + says.get("ahead", 0.0), span=0.0)
    return [*(s for s in samples if s is not last), bad]


def _renamed(samples: Sequence[Sample]) -> Iterator[Sample]:
    """The series of somebody else."""
    for s in samples:
        names = dict(s.labels)
        if names:
            first = next(iter(names))
            yield replace(s, labels=labels(**names | {first: "other"}))


def _read_back(document_: dict[str, Any]) -> Findings | None:
    """As the daemon reads what a test left."""
    check = document_["check"]
    catalogue = fakes_sinks.catalogue(fakes_sinks.check(check))
    return Drilled(catalogue, _Shelf({check: document_})).newest(check)


@dataclass
class _Shelf:
    """The documents that a store holds."""

    kept: dict[str, dict[str, Any]]

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        return self.kept

    def put(self, kind: str, key: str, document: Mapping[str, Any] | None) -> None:
        """Nothing more is kept."""

    def write(self, samples: object) -> None:
        """Nor figures."""

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        return self.kept.get(key)


# --- The matrix -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """One criterion muted in one way: what the places said before, and since when UNKNOWN."""

    criterion: str
    source: str
    way: Way
    before: str
    after: str
    intervals: float | None

    @property
    def shows(self) -> bool:
        """Whether there was anything to lose: it passed everywhere."""
        return self.before == "PASS"

    @property
    def seen(self) -> bool:
        """Whether it was UNKNOWN in all places within three intervals."""
        return self.intervals is not None and self.after == Verdict.UNKNOWN


def matrix(catalogue: Catalogue | None = None) -> list[Seen]:
    """Every criterion in every way that can be of it."""
    known = catalogue or everything()
    return [found for way in Way for found in muted(known, way)]


def muted(catalogue: Catalogue, way: Way) -> list[Seen]:
    """All criteria that can be muted in that *way*: at once, each by itself."""
    chosen = [
        c
        for check in catalogue.checks.values()
        for c in check.criteria
        if not ways(c, check, catalogue.metrics[c.metric])[way]
    ]
    by_interval: dict[float, list[Criterion]] = {}
    for criterion in chosen:
        by_interval.setdefault(_interval(catalogue, way, criterion), []).append(criterion)
    return [found for some in by_interval.values() for found in _muted(catalogue, way, some)]


def _muted(catalogue: Catalogue, way: Way, criteria: Sequence[Criterion]) -> list[Seen]:
    """Criteria of one interval. The source falls silent a tenth of it after it spoke last."""
    world, interval = World(catalogue), _interval(catalogue, way, criteria[0])
    world.judge(criteria)
    before = world.read()
    world.clock.advance(interval / 10)
    world.mute(way)
    since: dict[str, float] = {}
    for n in range(1, INTERVALS + 1):
        world.clock.advance(interval)
        if way is not Way.STUCK:
            world.judge(criteria)
        for name, result in world.state.snapshot().results.items():
            if result.verdict is Verdict.UNKNOWN:
                since.setdefault(name, float(n))
            else:
                since.pop(name, None)  # it must stay so
    after = world.read()
    return [
        Seen(
            criterion=c.id,
            source=c.source,
            way=way,
            before=_words(before, c),
            after=_words(after, c),
            intervals=since.get(c.id),
        )
        for c in criteria
    ]


def _interval(catalogue: Catalogue, way: Way, criterion: Criterion) -> float:
    """A third of what may pass in silence: of a sample's greatest age, of how long a verdict that
    nobody makes anew still stands.
    """
    if way is Way.STUCK:
        stands = standing(catalogue.checks[criterion.check], Config().schedule.jitter)
        assert stands is not None
        return stands / INTERVALS
    return criterion.max_age / INTERVALS


def _words(places: Mapping[str, four_places.Verdicts], criterion: Criterion) -> str:
    return " and ".join(sorted(four_places.told(places, criterion.id)))
