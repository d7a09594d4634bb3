"""The story of a job from the series that the store has. Pure: a past in, a story out."""

from __future__ import annotations

import math
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from dvfd.errors import DvfdError
from dvfd.model import labels
from dvfd.query import near
from dvfd.reporting.courses import Columns
from dvfd.reporting.ran import Ends, Ran
from dvfd.reporting.reading import Fine
from dvfd.reporting.story import Checkpoints, Meter, Restart, Story
from dvfd.reporting.stragglers import Watcher
from dvfd.reporting.strides import Rank, began_again, by_time, strides
from dvfd.reviews.uptime import grown
from dvfd.spent import COMPUTE, OBSERVED, PROCESSES, RESTARTS, STEP, STEPS, of_job
from dvfd.words import minute

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from dvfd.model import Sample
    from dvfd.reporting.story import Line, Span, Stragglers
    from dvfd.reporting.strides import Stride
    from dvfd.runs.goodput import Goodput
    from dvfd.state import Past

THROUGHPUT, LOSS, SAMPLES = (
    "job_throughput_samples_per_second",
    "job_loss",
    "job_samples_total",
)
AGE, FAILURES = "checkpoint_age_seconds", "checkpoint_failures_total"
NODE = "node_cpu_ratio"
"""A series of the node itself: where it goes on while nobody looks at the job, that had ended."""

METERS = {
    "cpu_package_energy_joules_total": ("processor package", "package"),
    "gpu_energy_joules_total": ("GPU", "gpu"),
}
"""Energy counters that are not parts of each other, and the label that names each of them."""

STANDS = 15.0
"""Seconds before it that a sample stands for at most: the greatest age of what is drawn here."""

PAUSE, USUAL = 30.0, 3.0
"""A job was away if nobody looked for that long, and for so many times the usual."""

FRESH = 60.0
"""Seconds after the last look at which a job still counts as running."""

AGREE = 2.0
"""Seconds by which two looks may differ in when a checkpoint was saved."""

REPORTS = 400
"""Newest reports of the live watch in which a run's configuration is looked for: two weeks of one
an hour, at 30 KB each.
"""

ACCOUNTS = 10
"""Runs of a job whose time is told together at most: the newest."""

PAIR = 2
"""Looks that make a story."""


def story(
    past: Past,
    job: str,
    *,
    known: Collection[str],
    node: str,
    since: float,
    until: float,
    now: float,
    ran: Sequence[Ran] = (),
    number: int | None = None,
) -> Story:
    """Run *number* of *job* in [since, until], Unix seconds; the newest if None.

    *known* are the names of jobs that the store knows, *ran* the runs whose ends were kept. Raises
    DvfdError if there is nothing to tell.
    """
    book = Book(past, job, known=known, since=since, until=until, now=now, ran=ran)
    place, chosen, closer = book.chosen(number)
    newest = past.latest(OBSERVED)
    lives = any(s.labels == labels(job=job) and s.at >= now - FRESH for s in newest)
    spans = book.spans
    return closer.told(
        chosen,
        node=node,
        number=place,
        spans=tuple(spans),
        asked=(since, until),
        live=lives and place == len(spans) and until >= now - FRESH,
        beside=tuple(_beside(past, sorted(set(known) - {job}), chosen, ran)),
    )


def accounts(
    past: Past,
    job: str,
    *,
    known: Collection[str],
    since: float,
    until: float,
    now: float,
    ran: Sequence[Ran] = (),
) -> list[tuple[int, Goodput]]:
    """Where the time of the newest runs of *job* went, oldest first, with their numbers. Raises
    DvfdError if there is none.
    """
    book = Book(past, job, known=known, since=since, until=until, now=now, ran=ran)
    first = max(1, len(book.spans) - ACCOUNTS + 1)
    found = [book.chosen(number) for number in range(first, len(book.spans) + 1)]
    return [(place, closer.account(span)) for place, span, closer in found]


class Book:
    """The runs of one job in a period, each to be read as finely as it still may be. Raises
    DvfdError if there is none.
    """

    def __init__(
        self,
        past: Past,
        job: str,
        *,
        known: Collection[str],
        since: float,
        until: float,
        now: float,
        ran: Sequence[Ran],
    ) -> None:
        self._past, self._job, self._now = Ends(past, job, ran), job, now
        self._asked = since, until
        reader = Teller(self._fine(since, until), job, self._past.ran)
        looks = reader.looks(since, until)
        if not looks:
            raise DvfdError(_nobody(job, known, since, until))
        self._reader = self._closer(reader, (looks[0].at, looks[-1].at))
        looks = self._reader.looks(since, until)
        if len(looks) < PAIR:
            raise DvfdError(
                f"job {job!r} was looked at once in that time, at {minute(looks[0].at)}: where its "
                "time went takes two looks"
            )
        self.spans = self._reader.runs(looks)

    def chosen(self, number: int | None) -> tuple[int, Span, Teller]:
        """Number, ends and reader of run *number*, of the newest if None. Raises DvfdError."""
        count = len(self.spans)
        if number is not None and not 1 <= number <= count:
            raise DvfdError(f"run {number} of job {self._job!r}: there are {count} in that time")
        place = count if number is None else number
        chosen = self.spans[place - 1]
        closer = self._closer(self._reader, chosen)
        if closer is not self._reader:
            found = closer.runs(closer.looks(*self._asked))
            chosen = self.spans[place - 1] = max(found, key=lambda each: _shared(each, chosen))
        return place, chosen, closer

    def _fine(self, since: float, until: float) -> Fine:
        begins = [ran.first for ran in self._past.ran]
        return Fine(self._past, since=since, until=until, now=self._now, begins=begins)

    def _closer(self, reader: Teller, span: Span) -> Teller:
        """A reader of *span* alone, if that may be read finer than *reader* does."""
        margin = reader.grain
        fine = self._fine(span[0] - margin, min(self._now, span[1] + margin))
        if fine.grain >= margin or not fine.whole(OBSERVED, labels(job=self._job)):
            return reader
        return Teller(fine, self._job, self._past.ran)


def _shared(one: Span, other: Span) -> float:
    """Seconds that two spans have in common."""
    return min(one[1], other[1]) - max(one[0], other[0])


def _nobody(job: str, known: Collection[str], since: float, until: float) -> str:
    """Why there is nothing of *job*, and which one was meant."""
    when = f"from {minute(since)} to {minute(until)}"
    if job in known:
        return f"job {job!r} is known, but nobody looked at it {when}: --since and --hours ask more"
    meant = near(job, known)
    hint = f"; did you mean {meant!r}?" if meant else ""
    if not meant and known:
        hint = f"; there are {', '.join(map(repr, sorted(known)[:10]))}"
    return f"no job {job!r} was looked at here{hint}"


def _beside(past: Past, others: Iterable[str], span: Span, ran: Sequence[Ran]) -> Iterator[str]:
    """Other jobs that ran while this one did."""
    for name in others:
        its = Ends(past, name, ran)
        if its.series(OBSERVED, labels(job=name), since=span[0], until=span[1]):
            yield name


class Teller:
    """Tells what the store has of one job in one period."""

    def __init__(self, fine: Fine, job: str, ran: Sequence[Ran] = ()) -> None:
        self._fine = fine
        self._ran = ran
        self.job = job
        self.grain = fine.grain
        self._own = labels(job=job)
        processes = fine.whole(PROCESSES, self._own)
        self._world = int(max((sample.value for sample in processes), default=0))
        every = [self._rank(rank) for rank in range(self._world)]
        self._ranks = [rank for rank in every if rank.steps]

    def runs(self, looks: Sequence[Sample]) -> list[Span]:
        """First and last look of each run: one ends where the job had ended, or where all ranks
        count from the start and none came back.
        """
        restarts = self._fine.whole(RESTARTS, self._own)
        again = {
            place
            for place in began_again(self._ranks, looks)
            if grown(restarts, looks[place - 1].at, looks[place].at) <= 0
        }
        again |= set(self._away(looks))
        cuts = sorted({n for n in again if not self._within(looks[n].at)} | set(self._ends(looks)))
        edges = [0, *cuts, len(looks)]
        parts = [looks[a:b] for a, b in pairwise(edges)]
        return [
            (part[0].at, part[-1].at)
            if len(part) >= PAIR
            else (part[0].at - self.grain, part[0].at)
            for part in parts
            if len(part) >= PAIR or self.grain > FRESH / 2
        ] or [(looks[0].at, looks[-1].at)]

    def _within(self, at: float) -> bool:
        """Whether a run whose ends are known was under way at *at*."""
        return any(ran.began is not None and ran.first < at <= ran.last for ran in self._ran)

    def _ends(self, looks: Sequence[Sample]) -> Iterator[int]:
        """The places of looks before which a run ended, or at which one began."""
        for place in range(1, len(looks)):
            before, at = looks[place - 1].at, looks[place].at
            if any(before < ran.first <= at or before <= ran.last < at for ran in self._ran):
                yield place

    def _of(self, span: Span) -> Ran | None:
        """What was kept of the run that is told."""
        inside = [r for r in self._ran if r.first < span[1] and span[0] < r.last]
        return max(inside, key=lambda r: _shared((r.first, r.last), span), default=None)

    def account(self, span: Span) -> Goodput:
        """Where the time of one run went."""
        return of_job(self._fine, self.job, since=span[0], until=span[1])

    def _away(self, looks: Sequence[Sample]) -> Iterator[int]:
        """The places of looks before which the node was watched for long, and the job was not."""
        lengths = sorted(b.at - a.at for a, b in pairwise(looks))
        least = max(PAUSE, USUAL * lengths[len(lengths) // 2])
        gaps = [n for n in range(1, len(looks)) if looks[n].at - looks[n - 1].at > least]
        node = [sample.at for sample in self._fine.whole(NODE, ())] if gaps else []
        for place in gaps:
            since, until = looks[place - 1].at, looks[place].at
            usual = lengths[len(lengths) // 2]
            inside = sum(since + usual < at < until for at in node)
            if inside * usual > (until - since - usual) / 2:
                yield place

    def told(
        self,
        span: Span,
        *,
        node: str,
        number: int,
        spans: tuple[Span, ...],
        asked: Span,
        live: bool,
        beside: tuple[str, ...],
    ) -> Story:
        """All of one run."""
        since, until = span
        goodput, ran = self.account(span), self._of(span)
        heard = [rank for rank in self._ranks if _heard(rank.steps, span)]
        ways = list(strides(self.looks(since, until), heard))
        columns = Columns(until - since)
        seen = math.fsum(stride.observed for stride in ways)
        return Story(
            job=self.job,
            node=node,
            source="store",
            since=since,
            until=until,
            goodput=goodput,
            live=live and not (ran and ran.how),
            ran=ran,
            number=number,
            spans=spans,
            asked=asked,
            grain=max((stride.whole for stride in ways if stride.observed > 0), default=0.0),
            world=self._world_in(span),
            ranks=len(heard),
            observed=min(1.0, seen / (until - since)) if until > since else None,
            samples=self._samples(ran, span),
            lines=self._lines(columns, span),
            by_step=self._by_step(span),
            restarts=tuple(self._restarts(ways, since)),
            checkpoints=self._checkpoints(ran, span),
            gaps=tuple(_gaps(ways, since)),
            stragglers=self._stragglers(ways, heard, node),
            meters=tuple(self._meters(node, span)),
            beside=beside,
            hashes=_hashes(self._fine, since, until),
            notes=(*self._notes(goodput.notes, span), *_unseen(ways, ran)),
        )

    def _world_in(self, span: Span) -> int:
        """The size of the world in one run: another of that name may have had another."""
        told = self._fine.series(PROCESSES, self._own, since=span[0], until=span[1])
        return int(max((sample.value for sample in told), default=self._world))

    # --- Parts --------------------------------------------------------------------------------

    def looks(self, since: float, until: float) -> Sequence[Sample]:
        """The looks at the job in that time."""
        return self._fine.series(OBSERVED, self._own, since=since, until=until)

    def _rank(self, rank: int) -> Rank:
        own = labels(job=self.job, rank=rank)
        return Rank(
            rank,
            self._fine.whole(STEPS, own),
            by_time(self._fine.whole(STEP, own)),
            by_time(self._fine.whole(COMPUTE, own)),
        )

    def _samples(self, ran: Ran | None, span: Span) -> float | None:
        """All of the run's, if it was heard from its beginning to its end."""
        if ran is not None and ran.samples is not None and (ran.began, ran.ended) == span:
            return ran.samples
        return self._grown(SAMPLES, span)

    def _grown(self, metric: str, span: Span) -> float | None:
        course = self._fine.whole(metric, self._own)
        return grown(course, *span) if course else None

    def _lines(self, columns: Columns, span: Span) -> tuple[Line, ...]:
        asked = (
            ("throughput", "Throughput of all ranks", "samples/s", THROUGHPUT),
            ("loss", "Training loss", "", LOSS),
        )
        found = []
        for name, title, unit, metric in asked:
            course = self._fine.series(metric, self._own, since=span[0], until=span[1])
            found.append(columns.line(name, title, unit, _stretches(course, span[0])))
        return tuple(found)

    def _by_step(self, span: Span) -> dict[str, tuple[tuple[float, float], ...]]:
        """Loss and throughput by how many steps the foremost rank had reported."""
        counted: dict[float, float] = {}
        for rank in self._ranks:
            for sample in rank.steps:
                if span[0] <= sample.at <= span[1]:
                    counted[sample.at] = max(counted.get(sample.at, 0.0), sample.value)
        found = {}
        for name, metric in (("loss", LOSS), ("throughput", THROUGHPUT)):
            course = self._fine.series(metric, self._own, since=span[0], until=span[1])
            found[name] = tuple((counted[s.at], s.value) for s in course if s.at in counted)
        return found

    def _restarts(self, ways: Sequence[Stride], since: float) -> Iterator[Restart]:
        """Each time that ranks came back, with the time without steps around it: no stride is
        around two.
        """
        course = self._fine.whole(RESTARTS, self._own)
        back = [grown(course, way.since, way.until) for way in ways]
        place = taken = 0
        while place < len(ways):
            if not back[place]:
                place += 1
                continue
            first = last = place
            while first > taken and not ways[first - 1].steps:
                first -= 1
            while last + 1 < len(ways) and (not ways[last].steps or back[last + 1]):
                last += 1
            coarse = max(way.whole for way in ways[first : last + 1]) > PAUSE
            end = last + 1 + coarse  # an hour's end may cut through it
            around = ways[max(taken, first - 1) : end]
            resumed = ways[last].steps > 0
            yield Restart(
                t=ways[place].until - since,
                ranks=round(math.fsum(back[place : last + 1])),
                lost=math.fsum(w.whole - w.stepping for w in around) if resumed else None,
                most=coarse,
            )
            place, taken = last + 1, end

    def _checkpoints(self, ran: Ran | None, span: Span) -> Checkpoints:
        """When checkpoints were saved, as far as looks at their age agree on it."""
        ages = self._fine.series(AGE, self._own, since=span[0], until=span[1])
        marks = [s.at - s.value - s.span / 2 for s in ages if s.span < FRESH * 2]
        sure = [
            (a + b) / 2 - span[0]
            for a, b in pairwise(marks)
            if abs(a - b) <= AGREE and span[0] <= a <= span[1]
        ]
        failed = ran.failed if ran and ran.failed is not None else self._grown(FAILURES, span)
        apart = [[sure[0]]] if sure else []
        for t in sure[1:]:
            apart.append([t]) if t - apart[-1][-1] > AGREE else apart[-1].append(t)
        return Checkpoints(
            times=tuple(part[0] for part in apart),
            saved=ran.saved if ran and ran.first >= span[0] else None,
            failed=None if failed is None else round(failed),
        )

    @staticmethod
    def _stragglers(ways: Sequence[Stride], heard: Sequence[Rank], node: str) -> Stragglers:
        watcher = Watcher()
        for way in ways:
            told = {
                (rank.rank, node): rank.compute[way.until]
                for rank in heard
                if way.until in rank.compute
            }
            if told:
                watcher.add(told, way.steps, way.stepping)
        return watcher.found(len(heard))

    def _meters(self, node: str, span: Span) -> Iterator[Meter]:
        whole = span[1] - span[0]
        for metric, (source, label) in METERS.items():
            for newest in self._fine.latest(metric):
                course = self._fine.whole(metric, newest.labels)
                covered = math.fsum(b - a for a, b, _ in _stretches(course, 0.0, span))
                if covered > 0 and whole > 0:
                    yield Meter(
                        source=source,
                        name=dict(newest.labels).get(label, ""),
                        node=node,
                        joules=grown(course, *span),
                        covered=min(1.0, covered / whole),
                    )

    def _notes(self, told: Iterable[str], span: Span) -> Iterator[str]:
        yield from told
        pieces = self._fine.pieces
        old = [p for p in pieces if p.grain > FRESH and p.since < span[1] and p.until > span[0]]
        if old:
            until = min(max(p.until for p in old), span[1])
            yield (
                f"until {minute(until)} the store has hours only: there, the beginning and the end "
                "are known to the hour, and short pauses are not"
            )
        if twice := self._fine.set_back(OBSERVED):
            yield f"the clock was set back: {twice} looks of the time that came twice are left out"


def _unseen(ways: Sequence[Stride], ran: Ran | None) -> Iterator[str]:
    """What nobody can tell apart, for no look fell between the ends of the run."""
    if ran is not None and ran.how and len(ways) == 1:
        yield (
            "the run is whole between two looks: all of its time without steps is called "
            "initialisation, whatever pauses and checkpoints are in it"
        )


def _heard(course: Sequence[Sample], span: Span) -> bool:
    return any(span[0] <= sample.at <= span[1] for sample in course)


def _stretches(
    course: Sequence[Sample], since: float, inside: Span | None = None
) -> list[tuple[float, float, float]]:
    """What each sample stands for: from and until, seconds after *since*, and its value."""
    found = []
    last = -math.inf
    for sample in course:
        length = sample.span or min(STANDS, sample.at - last, 5.0 if last == -math.inf else STANDS)
        began, ended = sample.at - length, sample.at
        last = sample.at
        if inside is not None:
            began, ended = max(began, inside[0]), min(ended, inside[1])
        if ended > began:
            found.append((began - since, ended - since, sample.value))
    return found


def _gaps(ways: Sequence[Stride], since: float) -> Iterator[Span]:
    """Where nobody looked for longer than a sample stands."""
    blind = [w.observed < w.whole / 2 for w in ways]
    for unseen, group in groupby(zip(blind, ways, strict=True), lambda pair: pair[0]):
        found = [way for _, way in group]
        if unseen and found[-1].until - found[0].since > STANDS:
            yield found[0].since - since, found[-1].until - since


def _hashes(past: Past, since: float, until: float) -> dict[str, str]:
    """The configuration in force, by what checks kept while the job ran, the newest."""
    for report in past.reports("live", REPORTS):
        if since <= report.at <= until:
            found = report.document.get("hashes", {})
            return {str(name): str(value) for name, value in found.items() if value}
    return {}
