"""Accepted runs: what later runs are compared with, by a named person's act and no other.

One run stands for each check. It is replaced only by who names the one that it takes the place of;
every acceptance is kept.
"""

from __future__ import annotations

import json
import math
import threading
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from dvfd.control import Operation
from dvfd.errors import DvfdError
from dvfd.model import Verdict
from dvfd.people.attestations import words
from dvfd.runs.freezing import CONTEXT
from dvfd.runs.intervals import Grid, smoothed
from dvfd.runs.run import Run, Stage
from dvfd.runs.tally import HALF_LIFE
from dvfd.runs.training import hash_of
from dvfd.store.run_reading import Reading, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from dvfd.control import Peer
    from dvfd.model import Clock
    from dvfd.runs.intervals import Interval
    from dvfd.runs.rows import Window

KIND = "accepted run"
"""Kind of the records in the store; a key is the check and the number of the acceptance."""

POINTS = 2000
"""Points kept of a loss curve: finer than a chart shows, 60 KB of JSON."""

BATCHES = 20
T_19 = 2.093
"""The 95 % interval of a mean from the means of 20 pieces in their order, with Student's t for 19
degrees of freedom: windows that follow each other are not independent, long pieces nearly are."""

WORDS, NOTE = 100, 1000
"""Letters of a name, and of a note or a reason, at most."""

VERDICT = "its verdict is"
"""How a reason against accepting a run begins that counts all the same."""

WINDOWS = 500
"""Throughputs kept of a run: means of neighbours, which still tell how they hang together."""

log = structlog.get_logger()


class Kept(Protocol):
    """What is asked of the store."""

    def put(self, kind: str, key: str, document: Mapping[str, Any]) -> None:
        """Keep a record."""
        ...

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """The records of a kind by key."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What of a run later runs are compared with; None where it was not told."""

    throughput: float | None = None  # samples/second of all ranks, after the warm-up
    low: float | None = None  # 95 % interval of it
    high: float | None = None
    efficiency: float | None = None
    communication: float | None = None
    curve: tuple[tuple[float, float], ...] = ()  # samples seen, smoothed loss
    windows: tuple[float, ...] = ()  # throughput after the warm-up, means of neighbours


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A run that somebody accepted, and what it measured. `override` is why it was accepted
    although it did not pass or does not count; `reasons` what speaks against it.
    """

    run: str
    check: str
    processes: int
    job: str
    job_hash: str
    report: str  # SHA-256
    hashes: dict[str, str]
    measured: Measured
    by: str
    submitted: str
    at: float
    note: str = ""
    override: str = ""
    reasons: tuple[str, ...] = ()
    replaces: str = ""
    began: float = 0.0  # Unix seconds: its first step, its end; 0 of one accepted long ago
    ended: float = 0.0
    nodes: int = 1
    processor: str = ""

    @property
    def words(self) -> str:
        """Which run, who accepted it, and whether that was in spite of something."""
        spite = (
            f", in spite of: {'; '.join(self.reasons)}: {self.override}" if self.override else ""
        )
        return f"against run {self.run}, accepted by {self.by}{spite}"

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Accepted:
        """Of what `to_document` made."""
        found = {f.name: document[f.name] for f in fields(cls) if f.name in document}
        measured = dict(found["measured"])
        curve = tuple((float(seen), float(loss)) for seen, loss in measured.pop("curve"))
        windows = tuple(map(float, measured.pop("windows", ())))
        found["measured"] = Measured(curve=curve, windows=windows, **measured)
        found["reasons"] = tuple(found["reasons"])
        return cls(**found)


class Baselines:
    """Every acceptance on this node. Any thread."""

    def __init__(self, directory: Path, store: Kept, clock: Clock) -> None:
        """*directory* is where the files of runs lie."""
        self._directory = directory
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()

    def accept(self, run: Run, request: Mapping[str, Any], submitted: str) -> Accepted:
        """Accept *run* as the one that later ones are compared with, as *request* says: name;
        note, override (a reason) and replaces (a run) if given.

        Raises DvfdError with what speaks against it, StoreError.
        """
        by = words(request, "name", WORDS)
        override = words(request, "override", NOTE, empty=True)
        report = self._report(run)
        self._whole(run.id, report["hashes"]["evidence"])
        reasons = against(run, report)
        if reasons and not override:
            raise DvfdError(
                f"run {run.id} cannot be accepted: {'; '.join(reasons)}; --override --reason TEXT "
                "accepts it all the same, and is told wherever it is compared with"
            )
        file = Reading(self._directory / f"{run.id}.db")
        single = (file.document().get(CONTEXT) or {}).get("single_process")
        measured = measure(run, file.windows(), single)
        with self._lock:
            replaces = self._replaced(run, words(request, "replaces", WORDS, empty=True))
            made = Accepted(
                run=run.id,
                check=run.plan.check,
                processes=run.plan.processes,
                job=run.plan.job,
                job_hash=job_hash(run),
                report=run.frozen,
                hashes={str(k): str(v) for k, v in report["hashes"].items()},
                measured=measured,
                by=by,
                submitted=submitted,
                at=self._clock.now(),
                note=words(request, "note", NOTE, empty=True),
                override=override if reasons else "",
                reasons=tuple(reasons),
                replaces=replaces,
                began=run.armed_at + (run.began_t or 0.0),
                ended=run.ended_at or 0.0,
                nodes=run.plan.nodes,
                processor=str(report.get("environment", {}).get("processor", "")),
            )
            key = f"{made.check}/{len(self.history(made.check)) + 1:06d}"
            self._store.put(KIND, key, made.to_document())
        log.info("run accepted", run=run.id, check=made.check, name=by, by=submitted)
        return made

    def history(self, check: str) -> list[Accepted]:
        """Every acceptance for *check*, oldest first."""
        found = self._store.all(KIND)
        keys = sorted(key for key in found if key.rpartition("/")[0] == check)
        return [Accepted.from_document(found[key]) for key in keys]

    def standing(self) -> list[Accepted]:
        """The run that stands for each check, by its process count."""
        checks = {key.rpartition("/")[0] for key in self._store.all(KIND)}
        found = [self.history(check)[-1] for check in checks]
        return sorted(found, key=lambda accepted: (accepted.processes, accepted.check))

    def document(self) -> dict[str, Any]:
        """What stands and every acceptance before it, as JSON; curves by their length alone."""
        stands = self.standing()
        return {
            "accepted": [_short(each) for each in stands],
            "history": [_short(e) for each in stands for e in self.history(each.check)],
        }

    def smaller(self, processes: int, of_job: str) -> Accepted | None:
        """The accepted run of the same training with the next smaller process count; the newest of
        several.
        """
        found = [
            each
            for each in self.standing()
            if each.processes < processes and each.job_hash == of_job
        ]
        return max(found, key=lambda each: (each.processes, each.at), default=None)

    def baseline(self, of_job: str) -> Accepted | None:
        """The newest accepted run of the same training that has a loss curve."""
        found = [e for e in self.standing() if e.job_hash == of_job and e.measured.curve]
        return max(found, key=lambda each: each.at, default=None)

    def baseline_curve(self, of_job: str) -> tuple[tuple[float, float], ...]:
        """Samples seen and smoothed loss of that run; empty if there is none."""
        found = self.baseline(of_job)
        return found.measured.curve if found else ()

    def _report(self, run: Run) -> dict[str, Any]:
        """The run's report, if it is the one that was frozen. Raises DvfdError."""
        path = self._directory / f"{run.id}.json"
        if not run.frozen:
            raise DvfdError(f"run {run.id} is {run.stage} and has no report: nothing to accept yet")
        try:
            found, text = digest(path), path.read_text(encoding="utf-8")
        except OSError as error:
            raise DvfdError(f"{path}: cannot be read: {error.strerror}") from None
        if found != run.frozen:
            raise DvfdError(
                f"{path}: its SHA-256 is {found}, it was frozen with {run.frozen}: it was changed"
            )
        report: dict[str, Any] = json.loads(text)
        return report

    def _whole(self, run_id: str, wanted: str) -> None:
        """Raises DvfdError unless the run's file is the one that its report was made of."""
        path = self._directory / f"{run_id}.db"
        try:
            found = digest(path)
        except OSError as error:
            raise DvfdError(f"{path}: cannot be read: {error.strerror}") from None
        if found != wanted:
            raise DvfdError(f"{path}: its SHA-256 is {found}, the report was made of {wanted}")

    def _replaced(self, run: Run, named: str) -> str:
        """The run whose place *run* takes. Raises DvfdError unless that is the one named."""
        stands = next(reversed(self.history(run.plan.check)), None)
        if stands is None and not named:
            return ""
        if stands is None:
            raise DvfdError(f"no run of {run.plan.check} is accepted: {named!r} has no place")
        if stands.run != named:
            raise DvfdError(
                f"{run.plan.check} has an accepted run: {stands.run}, by {stands.by}; "
                f"--replace {stands.run} puts {run.id} in its place"
            )
        return stands.run


def operations(baselines: Baselines, run: Callable[[str], Run]) -> dict[str, Operation]:
    """What can be asked of a daemon; *run* finds one by its id."""

    def accept(request: Mapping[str, Any], peer: Peer) -> Any:
        found = run(words(request, "id", WORDS))
        return baselines.accept(found, request, peer.name).to_document()

    return {
        "stability_accept": Operation(accept, changes=True),
        "stability_accepted": Operation(lambda request, peer: baselines.document()),
    }


def _short(accepted: Accepted) -> dict[str, Any]:
    found = accepted.to_document()
    found["measured"]["curve"] = len(accepted.measured.curve)
    found["measured"]["windows"] = len(accepted.measured.windows)
    return found


def against(run: Run, report: Mapping[str, Any]) -> list[str]:
    """What speaks against accepting *run*; nothing if it passed and counts."""
    found = list(run.plan.uncounted)
    if run.stage is not Stage.COMPLETE:
        found.append(f"it is {run.stage}" + (f": {run.reason}" if run.reason else ""))
    if report["verdict"] != Verdict.PASS:
        found.append(f"{VERDICT} {report['verdict']}")
    return found


def job_hash(run: Run) -> str:
    """What tells one training from another: `hash_of` its command."""
    return hash_of(run.plan.argv, run.plan.job)


# --- What it measured ---------------------------------------------------------------------------


def measure(run: Run, windows: Iterable[Window], single_process: float | None) -> Measured:
    """What the windows of *run* come to; in any order, but each rank's by its steps."""
    grid = Grid(every=run.plan.every, ranks=run.plan.processes)
    for window in windows:
        grid.add(window)
    every = sorted(grid.intervals, key=lambda interval: (interval.key, interval.began))
    warm = math.inf if run.warm_t is None else run.warm_t
    told = [i.throughput for i in every if i.began >= warm and i.throughput is not None]
    mean, half = _interval(told)
    efficiency = None
    if mean is not None and single_process:
        efficiency = mean / (run.plan.processes * single_process)
    exchange = [i.communication for i in every if i.communication is not None]
    return Measured(
        throughput=mean,
        low=None if mean is None or half is None else mean - half,
        high=None if mean is None or half is None else mean + half,
        efficiency=efficiency,
        communication=math.fsum(exchange) / len(exchange) if exchange else None,
        curve=_curve(every, run.began_t or 0.0),
        windows=blocks(told),
    )


def blocks(values: Sequence[float], most: int = WINDOWS) -> tuple[float, ...]:
    """At most *most* means of neighbours among *values*, as even in size as they can be."""
    if len(values) <= most:
        return tuple(values)
    edges = [round(n * len(values) / most) for n in range(most + 1)]
    return tuple(math.fsum(values[a:b]) / (b - a) for a, b in pairwise(edges))


def _interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """The mean, and half the width of its 95 % interval; None for too few."""
    if not values:
        return None, None
    mean = math.fsum(values) / len(values)
    if len(values) < 2 * BATCHES:
        return mean, None
    edges = [round(n * len(values) / BATCHES) for n in range(BATCHES + 1)]
    means = [math.fsum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    centre = math.fsum(means) / BATCHES
    variance = math.fsum((each - centre) ** 2 for each in means) / (BATCHES - 1)
    return mean, T_19 * math.sqrt(variance / BATCHES)


def _curve(every: Sequence[Interval], since: float) -> tuple[tuple[float, float], ...]:
    """Samples seen and the loss, smoothed as a run's own is before it is compared."""
    losses = [
        (i.seen, i.loss)
        for i in every
        if i.began >= since and i.loss is not None and i.seen is not None
    ]
    reach = losses[-1][0] if losses else 0.0
    return thinned(smoothed(losses, HALF_LIFE * reach))


def thinned(
    points: Sequence[tuple[float, float]], most: int = POINTS
) -> tuple[tuple[float, float], ...]:
    """At most *most* of *points*, evenly by their number, the first and the last among them."""
    if len(points) <= most:
        return tuple(points)
    last = len(points) - 1
    return tuple(points[round(n * last / (most - 1))] for n in range(most))
