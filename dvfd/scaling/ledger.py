"""The ledger: every throughput by process count that is known here, and the frozen projections.

Accepted stability runs stand in it by themselves; minutes of training, and figures that people
enter, are added by name. Nothing in it is ever changed or taken out.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from dvfd.control import Operation
from dvfd.errors import DvfdError
from dvfd.people.attestations import words
from dvfd.runs.baselines import VERDICT
from dvfd.runs.training import hash_of
from dvfd.scaling import asked
from dvfd.scaling.frozen import Frozen
from dvfd.scaling.points import How, Point, of
from dvfd.scaling.series import configuration, series

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dvfd.control import Peer
    from dvfd.drills.drill import Runner
    from dvfd.model import Clock
    from dvfd.runs.baselines import Accepted, Baselines

POINT, PROJECTION = "scaling point", "scaling projection"
"""Kinds of the records in the store; a key is the number of the record."""

WORDS, NOTE = 100, 1000
"""Letters of a name, and of a note, at most."""

TARGETS = 16
"""Process counts that one projection may be asked for."""

LARGEST = 1 << 17
"""Processes that a projection may be asked for: beyond any cluster."""

SKEW = 2.0
"""Seconds that a measurement may end in the future: clocks are read one after the other."""

log = structlog.get_logger()


class Kept(Protocol):
    """What is asked of the store."""

    def put(self, kind: str, key: str, document: Mapping[str, Any]) -> None:
        """Keep a record."""
        ...

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """The records of a kind by key."""
        ...


class Ledger:
    """All of it on this node. Any thread."""

    def __init__(self, store: Kept, baselines: Baselines, clock: Clock) -> None:
        self._store = store
        self._baselines = baselines
        self._clock = clock
        self._lock = threading.Lock()

    # --- What is in it --------------------------------------------------------------------------

    def points(self) -> list[Point]:
        """Every measurement that can be read, oldest first."""
        return self._read()[0]

    def frozen(self) -> list[Frozen]:
        """Every projection that is as it was frozen, oldest first."""
        return self._read()[1]

    def document(self) -> dict[str, Any]:
        """All of it as JSON; `damaged` says what cannot be read."""
        points, frozen, damaged = self._read()
        return {
            "at": self._clock.now(),
            "points": [point.to_document() for point in points],
            "projections": [each.to_document() for each in frozen],
            "damaged": damaged,
        }

    def _read(self) -> tuple[list[Point], list[Frozen], list[str]]:
        damaged: list[str] = []
        runs = [point_of(each) for each in self._baselines.standing()]
        points = [point for point in runs if point]
        frozen = []
        for key, document in sorted(self._store.all(POINT).items()):
            try:
                points.append(Point.from_document(document))
            except DvfdError as error:
                damaged.append(f"measurement {key}: {error}")
        for _, document in sorted(self._store.all(PROJECTION).items()):
            try:
                frozen.append(Frozen.from_document(document))
            except DvfdError as error:
                damaged.append(str(error))
        return sorted(points, key=lambda point: point.ended), frozen, damaged

    # --- What is added to it --------------------------------------------------------------------

    def measured(self, request: Mapping[str, Any], submitted: str) -> Point:
        """Keep the minutes of training in *request*. Raises DvfdError if they cannot be."""
        given = request.get("point")
        document = dict(given) if isinstance(given, dict) else {}
        point = Point.from_document(
            document | {"how": How.MEASURED, "submitted": submitted, "name": "", "check": ""}
        )
        return self._keep(point)

    def record(self, request: Mapping[str, Any], submitted: str) -> Point:
        """Keep the figure that a person enters: processes, throughput, name, note, and the
        configuration or the job that it is of. Raises DvfdError.
        """
        now = self._clock.now()
        figures = ("processes", "throughput", "low", "high", "communication")
        at = request.get("at")
        point = Point.from_document(
            {
                **{key: request.get(key) for key in figures},
                "how": How.RECORDED,
                "configuration": self._named(request),
                "job": words(request, "job", WORDS, empty=True),
                "began": now if at is None else at,
                "ended": now if at is None else at,
                "by": words(request, "name", WORDS),
                "note": words(request, "note", NOTE),
                "submitted": submitted,
            }
        )
        return self._keep(point)

    def freeze(
        self, request: Mapping[str, Any], submitted: str, *, run: Runner | None = None
    ) -> Frozen:
        """Fit what is known of a configuration and keep what that foretells of `targets`.

        Raises DvfdError if fewer than two counts are known, or the fits fail.
        """
        targets = counts(request.get("targets"))
        by = words(request, "name", WORDS)
        points = self.points()
        known = series(points, chosen(points, words(request, "configuration", WORDS, empty=True)))
        answer = asked.ask(known.points, fit=range(len(known.points)), targets=targets, run=run)
        if answer.projection is None:
            raise DvfdError(f"{_few(known.points)}: a projection needs two process counts")
        sure = zip(known.points, answer.intervals, strict=True)
        with self._lock:
            number = len(self._store.all(PROJECTION)) + 1
            made = Frozen(
                at=self._clock.now(),
                by=by,
                submitted=submitted,
                configuration=known.configuration,
                points=tuple(_bounded(point, ends) for point, ends in sure),
                said=asked.plain(answer.text)["projection"],
                note=words(request, "note", NOTE, empty=True),
                number=number,
            )
            document = made.to_document()
            self._store.put(PROJECTION, f"{number:06d}", document)
        log.info("projection frozen", number=number, name=by, by=submitted)
        return replace(made, sha256=document["sha256"])

    def _keep(self, point: Point) -> Point:
        now = self._clock.now()
        if point.ended > now + SKEW:
            raise DvfdError(f"it ended {point.ended - now:.0f} s in the future")
        with self._lock:
            number = len(self._store.all(POINT)) + 1
            kept = replace(point, name=f"{number}")
            self._store.put(POINT, f"{number:06d}", kept.to_document())
        log.info("throughput kept", processes=kept.processes, how=kept.how, name=kept.by)
        return kept

    def _named(self, request: Mapping[str, Any]) -> str:
        """The configuration that a typed figure is of: a known one, or that of a job's name."""
        if prefix := words(request, "configuration", WORDS, empty=True):
            return chosen(self.points(), prefix)
        return hash_of((), words(request, "job", WORDS))


def point_of(accepted: Accepted) -> Point | None:
    """An accepted run as a measurement; None if its throughput or its time is not known."""
    measured = accepted.measured
    if measured.throughput is None or not accepted.ended:
        return None
    spite = "; ".join((*accepted.reasons, accepted.override)) if accepted.override else ""
    uncounted = [r for r in accepted.reasons if not r.startswith(VERDICT)]
    return Point(
        processes=accepted.processes,
        throughput=measured.throughput,
        how=How.RUN,
        configuration=accepted.job_hash,
        began=accepted.began,
        ended=accepted.ended,
        by=accepted.by,
        low=measured.low if measured.high is not None else None,
        high=measured.high if measured.low is not None else None,
        windows=measured.windows,
        communication=measured.communication,
        nodes=accepted.nodes,
        job=accepted.job,
        processor=accepted.processor,
        name=accepted.run,
        check=accepted.check,
        submitted=accepted.submitted,
        note=accepted.note,
        spite=spite,
        uncounted="; ".join(uncounted),
    )


def chosen(points: Sequence[Point], prefix: str) -> str:
    """The one configuration that begins with *prefix*, the usual one if that is empty. Raises
    DvfdError if there is none, or more than one.
    """
    if not prefix:
        if found := configuration(points):
            return found
        raise DvfdError("nothing is in the ledger: dvfd scaling measure, dvfd stability accept")
    known = sorted({p.configuration for p in points if p.configuration.startswith(prefix)})
    if len(known) == 1:
        return known[0]
    has = ", ".join(sorted({p.configuration[:12] for p in points})) or "none"
    which = "more than one configuration begins" if known else "no configuration begins"
    raise DvfdError(f"{which} with {prefix!r}; the ledger has {has}")


def counts(value: object) -> list[int]:
    """Process counts to be foretold. Raises DvfdError if *value* is no list of such."""
    found = value if isinstance(value, list) else []
    good = all(isinstance(n, int) and not isinstance(n, bool) and 1 < n <= LARGEST for n in found)
    if not found or len(found) > TARGETS or not good:
        raise DvfdError(f"processes {value!r:.60}: wanted 1 to {TARGETS} counts of 2 to {LARGEST}")
    return sorted(set(found))


def _few(points: Sequence[Point]) -> str:
    have = ", ".join(of(point.processes) for point in points) or "nothing"
    return f"known of this configuration: {have}"


def _bounded(point: Point, ends: asked.Ends) -> Point:
    """*point* with the interval of its windows, which are not kept twice."""
    if ends is None:
        return replace(point, windows=())
    low, high = min(ends[0], point.throughput), max(ends[1], point.throughput)
    return replace(point, windows=(), low=low, high=high)


def operations(ledger: Ledger) -> dict[str, Operation]:
    """What can be asked of a daemon."""

    def changing(answer: Callable[[Mapping[str, Any], str], Any]) -> Operation:
        def answered(request: Mapping[str, Any], peer: Peer) -> Any:
            return answer(request, peer.name).to_document()

        return Operation(answered, changes=True)

    return {
        "scaling": Operation(lambda request, peer: ledger.document()),
        "scaling_measured": changing(ledger.measured),
        "scaling_record": changing(ledger.record),
        "scaling_freeze": changing(ledger.freeze),
    }
