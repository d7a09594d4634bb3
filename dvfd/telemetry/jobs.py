"""The jobs on this node and their ranks, as they report: bounded, in memory, told by one lock.

A job needs no configuration: it registers by reporting. What must survive a restart of the daemon
is kept as small documents; whoever was there before it is waited for, not forgotten.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dvfd.errors import WireError
from dvfd.model import Sample, labels
from dvfd.telemetry.chronicle import Chronicle
from dvfd.telemetry.job import Job
from dvfd.telemetry.placement import place
from dvfd.telemetry.processes import GONE, Processes
from dvfd.telemetry.rank import Link, Rank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dvfd.config import Jobs
    from dvfd.model import Clock
    from dvfd.telemetry.checkpoint_state import CheckpointState
    from dvfd.telemetry.chronicle import Documents
    from dvfd.telemetry.processes import Process
    from dvfd.telemetry.wire import Event, Hello, Row

COUNTERS = {
    "rank_restarts_total": "restarts",
    "job_nonfinite_total": "nonfinite",
    "job_loss_spikes_total": "spikes",
    "job_exceptions_total": "exceptions",
    "job_hash_comparisons_total": "comparisons",
    "job_hash_mismatches_total": "mismatches",
}
"""Metrics that are counters of a job, by the name of the field that holds them."""

EVIDENCE = {
    "job_nonfinite_total": "weighed",
    "job_loss_spikes_total": "losses",
    "job_hash_comparisons_total": "comparisons",
    "job_hash_mismatches_total": "comparisons",
}
"""Counters that are told only once there was something to count, and the field that says so: "no
mismatch" and "no NaN" would else be passes on nothing."""

KEEP_EVERY = 10.0
"""Seconds between two documents of a rank that only makes steps: what is newer is in the store's
cursor of its session."""

BEFORE = 0.001
"""Seconds by which a baseline is older than what follows it."""

DEAF = 5.0
"""Seconds in which the lines were not read that count as silence of the daemon and not of ranks:
five beats of the receiver, and half of the shortest silence that is a hang."""

LATE = 60.0
"""Seconds for which a job that had ended is told of once more, if it said something then: as long
as the window of the live criteria."""

BAD = frozenset({"job_exceptions_total", "job_nonfinite_total", "checkpoint_failures_total"})
"""What is told of a job although it has ended."""

ALIVE = ("rank_responding", "job_ranks_missing", "job_absent")

OF_THE_LIVING = frozenset({
    "rank_compute_seconds", "rank_cpu_ratio", "rank_step_seconds", "rank_steps_total",
    "rank_straggler_ratio", "job_allreduce_seconds", "job_communication_ratio",
    "job_gradient_norm", "job_loss", "job_loss_spikes_total", "job_nonfinite_total",
    "job_step_skew", "job_validation_loss",
})  # fmt: skip
"""Metrics that end with a rank. The others are told of a dead one too: their silence is ours."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as the kernel says; no process if it cannot be seen from here."""

    uid: int
    pid: int = 0
    process: Process | None = None


@dataclass(frozen=True, slots=True)
class Seat:
    """What a line speaks for. `rank` is void once another process has taken the seat."""

    job: Job
    rank: Rank


@dataclass(frozen=True, slots=True)
class News:
    """What must be known at once: samples to write first, then the metrics to wake."""

    samples: tuple[Sample, ...] = ()
    touched: frozenset[str] = field(default_factory=frozenset)
    documents: Mapping[tuple[str, str], dict[str, Any] | None] = field(default_factory=dict)


class JobBook:
    """Who reports here. Every method takes the lock; none blocks on anything else."""

    def __init__(
        self,
        config: Jobs,
        clock: Clock,
        *,
        processes: Processes | None = None,
        on_end: Callable[[Mapping[str, str]], None] = lambda _labels: None,
    ) -> None:
        """*on_end* is called with the labels of series that end: a job's, or one rank's."""
        self._config = config
        self._clock = clock
        self._processes = processes or Processes()
        self._on_end = on_end
        self._jobs: dict[str, Job] = {}
        self._chronicle = Chronicle()
        self._lock = threading.RLock()
        self._refused = 0
        self._conflicts = 0
        self._evicted: dict[tuple[str, str], None] = {}
        self._boot_id = self._processes.boot_id()
        self._listened: float | None = None
        self.listener: Callable[[Job, Rank, Event], None] | None = None
        """Hears every event once, under `lock`: a stability run's recorder."""

    # --- What the lines bring -------------------------------------------------------------------

    def hello(
        self, hello: Hello, peer: Peer, *, session: str, committed: int = 0, feed: str = "",
        steps_after: Callable[[int], int | None] = lambda _: None,
    ) -> tuple[Seat, News]:  # fmt: skip
        """Give a rank its seat. Raises WireError if there is none to give: bounds, or a conflict.

        *committed* is the last sequence of *session* that the store holds: what is sent again up
        to there is not counted twice. *steps_after* says how many steps the store holds of what
        lies beyond a sequence, None where it knows no more.
        """
        with self._lock:
            job = self._job(hello, peer)
            if hello.rank not in job.ranks and len(job.ranks) >= self._config.ranks_limit:
                self._refused += 1
                raise WireError(f"job {job.label}: more than {self._config.ranks_limit} ranks here")
            known = job.ranks.get(hello.rank)
            if known and known.session == session:
                rank = known
                rank.link, rank.pid, rank.process = Link.CONNECTED, peer.pid, peer.process
            else:
                rank = self._seat(job, known, Rank(
                    rank=hello.rank, process=peer.process, pid=peer.pid, session=session,
                    since=self._clock.boot(), feed=feed,
                ))  # fmt: skip
            fresh = known is None or known.link is Link.ENDED
            self._chronicle.joined(job, rank, self._clock.now(), fresh=fresh)
            if committed > rank.seen:
                # Committed after the rank's document was kept. Sequences are steps and events.
                steps = steps_after(rank.seen)
                rank.steps_total += committed - rank.seen if steps is None else steps
                rank.seen = committed
            return Seat(job, rank), self._news(job, rank, {*ALIVE, *COUNTERS})

    def steps(self, seat: Seat, rows: Iterable[Row], lost: int = 0) -> News:
        """Add the rows of a packet; those that were added before are left out."""
        with self._lock:
            if not self._holds(seat):
                return News()
            job, rank, now = seat.job, seat.rank, self._clock.boot()
            stalled = rank.step is not None and job.stalled(rank, now)
            touched: set[str] = set()
            untold = [metric for metric in EVIDENCE if told(job, metric) is None]
            for row in rows:
                if row.sequence > rank.seen:
                    rank.seen = row.sequence
                    touched |= job.take(rank, row, now)
            baseline = self._baseline(job, untold) if untold else ()
            rank.settle(now)
            job.counters.lost += lost
            self._late(job, touched)
            if stalled and not job.stalled(rank, now):
                touched |= {"rank_stall_ratio", "rank_responding"}
            return self._news(job, rank, touched, baseline)

    def event(self, seat: Seat, event: Event) -> News:
        """Take what happened to a rank, once."""
        with self._lock:
            job, rank = seat.job, seat.rank
            if not self._holds(seat) or event.stamp.first <= rank.seen:
                return News()
            rank.seen = event.stamp.first
            touched = job.hear(rank, event, self._clock.boot(), self._clock.now())
            if event.event == "end":
                self._end(job, rank)
            self._late(job, touched)
            if self.listener is not None:
                self.listener(job, rank, event)
            return self._news(job, rank, touched)

    def left(self, seat: Seat) -> News:
        """The line closed; without an end event the rank left without saying so."""
        with self._lock:
            if not self._holds(seat) or seat.rank.link is not Link.CONNECTED:
                return News()
            seat.rank.link = Link.LEFT
            if seat.rank.process:
                seat.rank.look(self._processes.state(seat.rank.process))
            return self._news(seat.job, seat.rank, set(ALIVE))

    def hung_up(self, seat: Seat) -> None:
        """The daemon closed the line: the rank will come again."""
        with self._lock:
            if self._holds(seat) and seat.rank.link is Link.CONNECTED:
                seat.rank.link = Link.AWAITED

    def unread(self, feed: str, seconds: float) -> None:
        """Lines of the file *feed* were lost: for so long, nobody says that its losses are fine."""
        with self._lock:
            until = self._clock.boot() + seconds
            for job in self._jobs.values():
                for rank in job.ranks.values():
                    if rank.feed == feed:
                        rank.unread = until

    def died(self, seat: Seat) -> News:
        """The process is gone: the kernel says so."""
        with self._lock:
            if not self._holds(seat) or seat.rank.dead:
                return News()
            seat.rank.dead = True
            return self._news(seat.job, seat.rank, set(ALIVE))

    def listened(self, now: float) -> None:
        """Every line was read up to boot time *now*: until then silence was the ranks' own."""
        self._listened = now

    # --- What the probes ask --------------------------------------------------------------------

    def deaf(self) -> float:
        """For how many seconds nobody has read the lines, where nothing can be said of the ranks'
        silence for that; else 0. A daemon that was stopped, or starved, hears late and not never.
        """
        since = 0.0 if self._listened is None else self._clock.boot() - self._listened
        return since if since > DEAF else 0.0

    def look(self) -> list[News]:
        """Look at every rank's process, close checkpoints that outlived their limit, and have done
        with jobs that had a last word.

        News of those that died, were stopped or go on again.
        """
        with self._lock:
            found: list[News] = []
            for job in self._jobs.values():
                found.extend(
                    self._news(job, rank, set(ALIVE))
                    for rank in job.ranks.values()
                    if rank.process and not rank.dead and self._look(rank, rank.process)
                )
                job.close_overdue(self._clock.boot())
                if job.late is not None and self._clock.boot() - job.late >= LATE:
                    job.late = None
                    self._on_end({"job": job.label})
            if kept := self._chronicle.news():
                found.append(News(documents=kept))
            return found

    def _look(self, rank: Rank, process: Process) -> bool:
        """Look at a rank's process; whether that is news.

        A line that is open tells a death by itself, after all that it still had to say: that it
        ended well, perhaps. Only one that has not by the next look is taken to be without word.
        """
        before, state = (rank.dead, rank.stopped), self._processes.state(process)
        known, rank.gone = rank.gone, state in GONE
        if rank.gone and not known and rank.link is Link.CONNECTED:
            return False
        rank.look(state)
        return before != (rank.dead, rank.stopped)

    def jobs(self) -> tuple[Job, ...]:
        """Every job that has not ended, or of which there is news. Hold `lock` while reading."""
        with self._lock:
            return tuple(job for job in self._jobs.values() if job.tells)

    def all(self) -> tuple[Job, ...]:
        """Every job that is known, ended ones too. Hold `lock` while reading them."""
        with self._lock:
            return tuple(self._jobs.values())

    @property
    def lock(self) -> threading.RLock:
        """What a reader of `jobs` holds for as long as it reads."""
        return self._lock

    def absent(self) -> dict[str, bool]:
        """Whether each job that is expected here has no live rank."""
        with self._lock:
            present = {job.name for job in self._jobs.values() if job.live}
            return {name: name not in present for name in self._config.expected}

    def processes(self) -> list[tuple[str, int, int, float]]:
        """(job, rank, pid, 0) of every rank whose process can be seen, for the cpu probe."""
        with self._lock:
            return [
                (job.label, rank.rank, rank.pid, 0.0)
                for job in self.jobs()
                for rank in job.ranks.values()
                if rank.process and not rank.dead and not rank.feed
            ]

    def named(self, name: str) -> list[str]:
        """The labels of the jobs of that name, ended or not: namesakes have one each."""
        with self._lock:
            return [job.label for job in self._jobs.values() if job.name == name]

    def registered(self, label: str) -> list[Process]:
        """The processes of a job's ranks, ended or not, as they were when they registered. Who
        only writes a log that is read did not: it may be anybody's `tee`.
        """
        with self._lock:
            job = self._jobs.get(label)
            ranks = job.ranks.values() if job else ()
            return [r.process for r in ranks if r.process and not r.feed]

    def mute(self, metric: str, of: Mapping[str, str]) -> bool:
        """Whether a series with the labels *of* is silent because a rank is known to be lost: its
        own, or, where it is the whole job's, any.
        """
        with self._lock:
            job = self._jobs.get(of.get("job", ""))
            if job is None or metric not in OF_THE_LIVING:
                return False
            lost = {str(rank.rank) for rank in job.ranks.values() if rank.lost}
            return of["rank"] in lost if "rank" in of else bool(lost)

    def said(self, metric: str, of: Mapping[str, str]) -> str:
        """The exception behind a breach of *metric* with the labels *of*, as its rank told it."""
        with self._lock:
            job = self._jobs.get(of.get("job", ""))
            if job is None or metric not in {"rank_responding", "job_exceptions_total"}:
                return ""
            failed = {str(r.rank) for r in job.ranks.values() if r.link is Link.FAILED}
            return job.exception if "rank" not in of or of["rank"] in failed else ""

    def unseen(self, label: str) -> int:
        """How many live ranks of a job have no process that can be seen from here."""
        with self._lock:
            job = self._jobs.get(label)
            ranks = job.ranks.values() if job else ()
            return sum(r.live and (not r.process or bool(r.feed)) for r in ranks)

    def checkpoints(self) -> list[CheckpointState]:
        """What every job that has not ended said of its checkpoints."""
        with self._lock:
            return [job.checkpoints() for job in self.jobs()]

    def next_deadline(self) -> float | None:
        """The soonest boot time at which a rank's silence becomes a hang; None if none can."""
        with self._lock:
            now = self._clock.boot()
            ends = [
                now - age + limit
                for job in self.jobs()
                for rank in job.ranks.values()
                if rank.live
                for age, limit, _ in [job.stall(rank, now)]
                if age < limit
            ]
            return min(ends, default=None)

    def counters(self) -> dict[str, int]:
        """What was refused, for /metrics."""
        with self._lock:
            lost = sum(job.counters.lost for job in self._jobs.values())
            return {"refused": self._refused, "conflicts": self._conflicts, "lost": lost}

    # --- What people ask ------------------------------------------------------------------------

    def why(self, label: str) -> str:
        """What is wrong with a job, in words; empty if nothing is known to be."""
        with self._lock:
            job = self._jobs.get(label)
            return "; ".join(_faults(job, self._clock.boot())) if job else f"no job {label}"

    def snapshot(self) -> list[dict[str, Any]]:
        """Every job for the page and for `dvfd status`, ended ones last; times in Unix seconds."""
        with self._lock:
            now, shift = self._clock.boot(), self._shift()
            jobs = sorted(self._jobs.values(), key=lambda job: job.ended is not None)
            return [_describe(job, now, shift) for job in jobs]

    def forget(self, label: str) -> News | None:
        """Stop expecting a job; None if there is none of this name."""
        with self._lock:
            job = self._jobs.pop(label, None)
            if job is None:
                return None
            self._on_end({"job": label})
            self._chronicle.forgotten(job, self._clock.now())
            return News(documents={**_keys(job), **self._chronicle.news()})

    # --- Over a restart -------------------------------------------------------------------------

    def restore(
        self,
        jobs: Mapping[str, dict[str, Any]],
        ranks: Mapping[str, dict[str, Any]],
        ran: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        """Bring back what was kept, *ran* of the chronicle. Ranks are awaited; those whose process
        is gone are dead.

        A document that is none of ours is left out: what is missing then registers again.
        """
        with self._lock:
            now = self._clock.boot()
            for document in jobs.values():
                with suppress(KeyError, TypeError, ValueError):
                    job = Job.from_document(document, now)
                    self._jobs[job.label] = job
            for key, document in ranks.items():
                job_of = self._jobs.get(key.rpartition("/")[0])
                if job_of and document.get("run") == job_of.run:
                    with suppress(KeyError, TypeError, ValueError):
                        self._revive(job_of, Rank.from_document(document, now), document)
            self._chronicle.restore(ran or {})
            for job in self._jobs.values():
                self._chronicle.look(job, self._clock.now(), blind=True)

    def _revive(self, job: Job, rank: Rank, document: dict[str, Any]) -> None:
        job.ranks[rank.rank] = rank
        if (at := document.get("progress_at")) is not None:
            rank.before = float(at) - self._shift()
        if document.get("boot") != self._boot_id:
            rank.dead = rank.process is not None  # the machine booted since
        elif rank.process:
            rank.look(self._processes.state(rank.process))

    # --- Inside ---------------------------------------------------------------------------------

    def _shift(self) -> float:
        """What makes Unix seconds of boot time."""
        return self._clock.now() - self._clock.boot()

    def _job(self, hello: Hello, peer: Peer) -> Job:
        """The job that takes this rank, made if need be. Raises WireError if it has no place."""
        self._look_again(hello.job)
        label = place(self._jobs, hello, peer.uid, peer.process)
        if label is None:
            self._conflicts += 1
            raise WireError(f"job {hello.job}: its seats and those of its namesakes are taken")
        job = self._jobs.get(label)
        if job is None:
            self._make_room(hello)
            self._conflicts += label != hello.job
            job = self._jobs[label] = Job(
                label, hello.job, hello.run, peer.uid, hello.world_size, hello.local_world_size
            )
        if job.run != hello.run:
            for rank in job.ranks:
                self._on_end({"job": label, "rank": str(rank)})
        job.adopt(hello)
        return job

    def _look_again(self, name: str) -> None:
        """See which ranks of that job are gone: the end of a line may be read after the hello of
        who comes in its place.
        """
        for job in self._jobs.values():
            for rank in job.ranks.values() if job.name == name else ():
                if rank.process and rank.live:
                    rank.look(self._processes.state(rank.process))

    def _make_room(self, hello: Hello) -> None:
        if len(self._jobs) < self._config.limit:
            return
        ended = [job for job in self._jobs.values() if job.ended is not None]
        if not ended:
            self._refused += 1
            raise WireError(f"job {hello.job}: {self._config.limit} jobs are here already")
        oldest = min(ended, key=lambda job: job.ended or 0.0)
        self._evicted |= _keys(oldest)
        del self._jobs[oldest.label]

    def _seat(self, job: Job, known: Rank | None, rank: Rank) -> Rank:
        """Put *rank* where *known* sat; a new process for one that did not end is a restart."""
        job.ranks[rank.rank] = rank
        if known:
            rank.steps_total = known.steps_total
            if known.link is not Link.ENDED and known.process != rank.process:
                job.counters.restarts += 1
                job.hashes.clear()
                job.norms.clear()
        return rank

    def _holds(self, seat: Seat) -> bool:
        """Whether the seat is still this line's."""
        known = self._jobs.get(seat.job.label)
        return known is seat.job and known.ranks.get(seat.rank.rank) is seat.rank

    def _end(self, job: Job, rank: Rank) -> None:
        if rank.link is Link.ENDED:
            self._on_end({"job": job.label, "rank": str(rank.rank)})
        job.ended = None  # it had, maybe, and its exit says that it failed
        if all(r.link is Link.ENDED for r in job.ranks.values()):
            job.ended = self._clock.boot()
            self._on_end({"job": job.label})

    def _late(self, job: Job, touched: set[str]) -> None:
        """What went wrong after a job's end is told all the same."""
        if job.ended is not None and touched & BAD:
            job.late = self._clock.boot()

    def _baseline(self, job: Job, untold: Iterable[str]) -> tuple[Sample, ...]:
        """What counters stood at that are told from now on: even the first count may be bad."""
        at, by_job = self._clock.now() - BEFORE, labels(job=job.label)
        began = [metric for metric in untold if told(job, metric) is not None]
        return tuple(Sample(metric, 0.0, at, by_job) for metric in began)

    def _news(
        self, job: Job, rank: Rank, touched: set[str], baseline: tuple[Sample, ...] = ()
    ) -> News:
        """The samples of what was touched, unless the job has ended, and what must be kept."""
        samples: tuple[Sample, ...] = ()
        if job.tells:
            samples = (*baseline, *self._samples(job, rank, touched))
        extra = {"run": job.run, "boot": self._boot_id}
        evicted, self._evicted = self._evicted, {}
        if not touched.isdisjoint(ALIVE):
            self._chronicle.look(job, self._clock.now())
        kept = job.to_document()
        changed = {} if kept == job.kept else {("job", job.label): kept}
        job.kept = kept
        documents: Documents = {**evicted, **changed, **self._chronicle.news()}
        now = self._clock.boot()
        if touched or now - rank.kept_at >= KEEP_EVERY:
            rank.kept_at = now
            at = None if rank.progressed is None else rank.progressed + self._shift()
            kept_rank = {**rank.to_document(), **extra, "progress_at": at}
            documents["rank", f"{job.label}/{rank.rank}"] = kept_rank
        return News(samples, frozenset(touched), documents)

    def _samples(self, job: Job, rank: Rank, touched: set[str]) -> Iterable[Sample]:
        at, now = self._clock.now(), self._clock.boot()
        by_job, by_rank = labels(job=job.label), labels(job=job.label, rank=rank.rank)
        for metric in touched & COUNTERS.keys():
            if (count := told(job, metric)) is not None:
                yield Sample(metric, count, at, by_job)
        if "rank_responding" in touched:
            alive, _ = job.responding(rank, now)
            if alive is not None:
                yield Sample("rank_responding", float(alive), at, by_rank)
        if "rank_stall_ratio" in touched:
            age, limit, _ = job.stall(rank, now)
            yield Sample("rank_stall_ratio", max(0.0, age) / limit, at, by_rank)
        if "job_ranks_missing" in touched:
            yield Sample("job_ranks_missing", job.missing, at, by_job)
        if "checkpoint_failures_total" in touched:
            yield Sample("checkpoint_failures_total", job.counters.failed, at, by_job)
        if "job_absent" in touched and job.name in self._config.expected:
            absent = float(self.absent()[job.name])
            yield Sample("job_absent", absent, at, labels(job=job.name))


def told(job: Job, metric: str) -> float | None:
    """The value of a job's counter; None while nothing was seen that it could count."""
    field_name = EVIDENCE.get(metric)
    if field_name is not None and not getattr(job.counters, field_name):
        return None
    return float(getattr(job.counters, COUNTERS[metric]))


def _keys(job: Job) -> dict[tuple[str, str], None]:
    """A job's documents, to be deleted."""
    ranks = {("rank", f"{job.label}/{rank}"): None for rank in job.ranks}
    return {("job", job.label): None, **ranks}


def _faults(job: Job, now: float) -> list[str]:
    """One line for each rank that does not respond as it should."""
    faults = []
    for number, rank in sorted(job.ranks.items()):
        alive, why = job.responding(rank, now)
        if why and not (alive is None and rank.link is Link.ENDED):
            faults.append(f"rank {number}: {why}")
    if job.missing and job.ended is None and len(job.ranks) < job.local_world_size:
        faults.append(f"{job.missing} of {job.local_world_size} ranks here are missing")
    return faults


def _describe(job: Job, now: float, shift: float) -> dict[str, Any]:
    faults, state = _faults(job, now), _state(job, now)
    step = max((r.step or 0 for r in job.ranks.values()), default=0)
    return {
        "job": job.label,
        "run": job.run,
        "uid": job.uid,
        "state": state,
        "summary": f"{state}, {job.present} of {job.local_world_size} ranks here at step {step}"
        + (f": {'; '.join(faults)}" if faults else ""),
        "why": "; ".join(faults),
        "world_size": job.world_size,
        "local_world_size": job.local_world_size,
        "present": job.present,
        "restarts": job.counters.restarts,
        "exception": job.exception,
        "ranks": [_describe_rank(job, rank, now, shift) for _, rank in sorted(job.ranks.items())],
    }


def _state(job: Job, now: float) -> str:
    if job.ended is not None:
        return "ended"
    if any(job.responding(rank, now)[0] is False for rank in job.ranks.values()):
        return "not responding"
    return "incomplete" if job.missing else "running"


def _describe_rank(job: Job, rank: Rank, now: float, shift: float) -> dict[str, Any]:
    alive, why = job.responding(rank, now)
    stalled, at = alive and why, None if rank.step is None else rank.progressed
    state = {True: "responding", False: "not responding", None: rank.link.value}[alive]
    return {
        "rank": rank.rank,
        "state": "stalled" if stalled else state,
        "why": why,
        "lost": rank.lost,
        "step": rank.step,
        "steps_total": rank.steps_total,
        "progress_at": None if at is None else at + shift,
        "step_seconds": rank.pace.median(),
        "pid": rank.pid or None,
        "start": rank.process.start if rank.process else None,
        "restarts": job.counters.restarts,
    }
