"""Scenario 5: the productive hours of one training over all its runs, and whether its loss held.

Reads what stability runs and the store kept; provokes nothing. Runs count by the hash of what they
train, never by a name that was used again. Production counts where its command is known to be that
training: its ranks live, or no run of it had a command.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from dvfd.catalogue import load
from dvfd.drills import trail
from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.errors import DvfdError, ProbeError
from dvfd.model import Sample, labels
from dvfd.places import state_dir
from dvfd.runs import shelf
from dvfd.runs.goodput import Part
from dvfd.runs.rows import What
from dvfd.runs.run import Run
from dvfd.runs.training import hash_of
from dvfd.spent import OBSERVED, of_job, of_run
from dvfd.store import Store
from dvfd.store.run_reading import Reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
    from pathlib import Path

    from dvfd.drills.drill import Task
    from dvfd.model import Labels
    from dvfd.runs.rows import Rows
    from dvfd.state import Past

SECONDS, SPIKES = "productive_seconds", "productive_loss_spikes"

SPIKED, NONFINITE = "job_loss_spikes_total", "job_nonfinite_total"

MASKED = 0.01
"""Of a run's length, behind each resumption: loss and optimizer settle (procedures, 10)."""

TOLD = 0.95
"""Of the time with steps, in which losses must have been told and watched: whether there was a
spike in the rest is not known."""

HOUR, MINUTE = 3600.0, 60.0

FIRST_LOOK = 1.0
"""Unix second from which the store is read: all that it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """One run, or a time of production: productive seconds at least and at most, and what was
    wrong with its loss.
    """

    name: str
    seconds: float
    most: float
    spikes: float
    masked: float = 0.0
    nonfinite: float = 0.0
    told: bool = True  # its losses, and that somebody watched them


@dataclass(slots=True)
class Sum:
    """All stretches of one training."""

    job: str
    hash: str
    stretches: list[Stretch] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, name: str) -> float:
        """The sum of one of their figures."""
        return math.fsum(getattr(stretch, name) for stretch in self.stretches)


class LongTerm:
    """Add it all up."""

    name = "two hundred hours"
    metrics = (SECONDS, SPIKES)

    def run(self, task: Task) -> Iterator[Sample | Remark | Trouble | Fact]:
        """Read runs and store. Raises DvfdError."""
        found = gather(task, state_dir())
        at = task.clock.now()
        low, limit = found.add("seconds"), task.limit("long_term")
        words = _words(found, low, found.add("most"))
        if limit is not None and low < limit:  # what may still come can mend it
            for metric in self.metrics:
                yield Trouble(metric, f"{words}: {_hours(limit - low)} are still to come")
        else:
            yield Sample(SECONDS, low, at)
            yield Remark(SECONDS, words)
        yield Sample(SPIKES, found.add("spikes") + found.add("nonfinite"), at)
        masked = found.add("masked")
        yield Remark(
            SPIKES,
            f"{found.add('spikes'):g} spikes, {found.add('nonfinite'):g} losses not finite; "
            f"{masked:g} spikes behind a resumption masked",
        )
        for stretch in found.stretches:
            if not stretch.told:
                yield Trouble(
                    SPIKES, f"{stretch.name}: of less than {TOLD:.0%} of it losses are known"
                )
        yield from (Fact("productive", f"{s.name}: {_hours(s.seconds)}") for s in found.stretches)
        yield from (Fact("productive: left out", words) for words in found.left_out)


def gather(task: Task, state: Path) -> Sum:
    """Every stretch of the training that is asked about: that of the job named, else of the newest
    run. Raises ProbeError if there is none.
    """
    runs = [Run.from_document(each) for each in shelf.documents(state / "runs")]
    runs = [run for run in runs if not run.of and run.began_t is not None]
    wanted = [run for run in runs if task.options.job in {"", run.plan.job}]
    if not wanted:
        raise ProbeError(
            f"no stability run of {task.options.job or 'any job'} is in {state / 'runs'}"
        )
    newest = wanted[-1].plan
    found = Sum(newest.job, hash_of(newest.argv, newest.job))
    for run in runs:
        _add_run(found, run, Reading(state / "runs" / f"{run.id}.db"))
    try:
        _add_production(found, runs, task, state / "dvfd.db")
    except DvfdError as error:
        found.left_out.append(f"production: {error}")
    return found


# --- Runs ---------------------------------------------------------------------------------------


def _add_run(found: Sum, run: Run, rows: Rows) -> None:
    if hash_of(run.plan.argv, run.plan.job) != found.hash:
        if run.plan.job == found.job:
            found.left_out.append(f"run {run.id}: the same name and another training")
        return
    try:
        found.stretches.append(of_stretch(run, rows))
    except DvfdError as error:
        found.left_out.append(f"run {run.id}: {error}")


def of_stretch(run: Run, rows: Rows) -> Stretch:
    """What a run's file tells of its time and its loss."""
    parts = of_run(run, rows).parts
    length = (run.ended_t or run.seen_t) - (run.began_t or 0.0)
    spans = _resumptions(rows, MASKED * length)
    watched = [m for m in rows.minutes() if m.metric == SPIKED]
    grown = [m for m in watched if m.grown > 0]
    masked = math.fsum(m.grown for m in grown if _within(MINUTE * m.minute, spans))
    told = math.fsum(m.grown for m in rows.minutes() if m.metric == NONFINITE)
    counted = sum(window.nonfinite for window in rows.windows())
    return Stretch(
        name=f"run {run.id}",
        seconds=parts[Part.PRODUCTIVE],
        most=parts[Part.PRODUCTIVE] + parts[Part.UNOBSERVED],
        spikes=math.fsum(m.grown for m in grown) - masked,
        masked=masked,
        nonfinite=max(told, float(counted)),
        told=_told(rows, {m.minute for m in watched}) >= TOLD,
    )


def _told(rows: Rows, watched: Set[int]) -> float:
    """Of the minutes with steps, the share in which they told losses and somebody *watched*."""
    trained, told = set[int](), set[int]()
    for window in rows.windows():
        minutes = range(int(window.began // MINUTE), int(window.ended // MINUTE) + 1)
        trained.update(minutes)
        told.update(minutes if window.losses else ())
    return len(told & watched) / len(trained) if trained else 0.0


def _resumptions(rows: Rows, length: float) -> list[tuple[float, float]]:
    """Spans behind each coming back, run seconds: a minute at least, as spikes are kept by it."""
    back = {What.RESTORED, What.RESTART}
    return [(e.t, e.t + max(length, MINUTE)) for e in rows.events() if e.what in back]


def _within(began: float, spans: Iterable[tuple[float, float]]) -> bool:
    """Whether the minute from *began* on touches one of *spans*."""
    return any(since < began + MINUTE and began < until for since, until in spans)


# --- Production ---------------------------------------------------------------------------------


class Documents(Protocol):
    """What is asked of the store beside its series."""

    def all(self, kind: str) -> Mapping[str, Mapping[str, Any]]:
        """The documents of a kind by key."""
        ...


def _add_production(found: Sum, runs: Sequence[Run], task: Task, path: Path) -> None:
    """What the store knows of the same job outside its runs. Raises DvfdError."""
    if not path.exists():
        return
    store = Store.read_only(path, load(task.config).metrics, task.clock)
    try:
        since = known_since(found, store, task)
        if since is None:
            found.left_out.append(
                f"production of {found.job}: its command is not known to be this training; it is "
                "where its ranks live on this node"
            )
            return
        taken = sorted(
            (run.armed_at, run.ended_at or run.seen_at) for run in runs if run.plan.job == found.job
        )
        for began, ended in free(since, task.clock.now(), taken):
            add_time(found, store, began, ended)
    finally:
        store.stop()


def known_since(found: Sum, store: Documents, task: Task) -> float | None:
    """From which Unix second on the job of this name is known to be the same training."""
    if found.hash == hash_of((), found.job):
        return FIRST_LOOK
    for key, rank in store.all("rank").items():
        pid, start = int(rank.get("pid") or 0), rank.get("start")
        if key.rpartition("/")[0] != found.job or not pid or trail.started(pid) != start:
            continue
        words = (task.proc / str(pid) / "cmdline").read_bytes().decode(errors="replace")
        if hash_of(words.rstrip("\0").split("\0"), found.job) == found.hash:
            return task.clock.now() - task.clock.boot() + int(start) / TICKS
    return None


TICKS = 100.0
"""A second in the kernel's clock ticks, USER_HZ: the same on every Linux of these processors."""


def free(
    since: float, until: float, taken: Iterable[tuple[float, float]]
) -> Iterator[tuple[float, float]]:
    """What *taken*, sorted, leaves of the time."""
    for began, ended in taken:
        if since < min(began, until):
            yield since, min(began, until)
        since = max(since, ended)
    if since < until:
        yield since, until


def add_time(found: Sum, past: Past, since: float, until: float) -> None:
    """Add what the store knows of the job in that time."""
    try:
        spent = of_job(past, found.job, since=since, until=until)
    except DvfdError:  # nobody looked at it in that time
        return
    where = labels(job=found.job)
    spikes, nonfinite = (
        past.series(metric, where, since=since, until=until) for metric in (SPIKED, NONFINITE)
    )
    productive = spent.parts[Part.PRODUCTIVE]
    found.stretches.append(
        Stretch(
            name=f"production of {found.job}, {_hours(spent.whole)}",
            seconds=productive,
            most=productive + spent.parts[Part.UNOBSERVED],
            spikes=grown(spikes),
            nonfinite=grown(nonfinite),
            told=_looked(past, where, (spikes, nonfinite), since, until) >= TOLD * productive,
        )
    )


def _looked(
    past: Past,
    where: Labels,
    courses: Iterable[Sequence[Sample]],
    since: float,
    until: float,
) -> float:
    """Seconds in which the job was observed between looks that all of *courses* have."""
    looks = past.series(OBSERVED, where, since=since, until=until)
    times = [[sample.at for sample in course] for course in courses]
    return math.fsum(
        grown((before, after))
        for before, after in pairwise(looks)
        if all(bisect_right(at, before.at) < bisect_right(at, after.at) for at in times)
    )


def grown(samples: Sequence[Sample]) -> float:
    """How much a counter grew; one that began anew grew by what it is."""
    steps = ((before.value, after.value) for before, after in pairwise(samples))
    return math.fsum(new - old if new >= old else new for old, new in steps)


# --- Words --------------------------------------------------------------------------------------


def _words(found: Sum, low: float, most: float) -> str:
    unseen = f", {_hours(most - low)} more that nobody saw" if most - low >= 1 else ""
    count = f"{len(found.stretches)} stretches of job {found.job}, training {found.hash[:12]}"
    return f"{_hours(low)} in {count}{unseen}"


def _hours(seconds: float) -> str:
    return f"{seconds / HOUR:.2f} h"
