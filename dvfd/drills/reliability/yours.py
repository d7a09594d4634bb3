"""A job of the user's own, named by them: one rank of it is harmed, and the daemon is our eyes.

The daemon is told before and after, so that its run counts what follows as planned. What a job does
not tell (which samples it took, its loss at each step) stays unknown: the reference job tells.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import psutil

from dvfd.asking import ask
from dvfd.drills import trail, training
from dvfd.drills.drill import Fact, Remark, Trouble
from dvfd.drills.lint import World, timeouts
from dvfd.drills.reliability import figures, fuse
from dvfd.drills.reliability.course import Timeline
from dvfd.drills.reliability.cut import cut, mixed
from dvfd.drills.reliability.harm import Harm, lit
from dvfd.drills.reliability.job import GROUP_TIMEOUT
from dvfd.drills.reliability.namespaces import missing
from dvfd.drills.reliability.recovery import RETURN
from dvfd.errors import DvfdError, ProbeError
from dvfd.model import labels
from dvfd.places import control_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dvfd.drills.drill import Task
    from dvfd.drills.reliability.figures import Figure

Ask = Callable[..., Any]
"""The daemon's answer to an operation, None where no daemon lives."""

UNTOLD = "a job of yours tells no sample ids and no loss at each step: leave out --job for these"

LATE = 1.5
"""Seconds by which a step may be told late: ranks report once a second, we look four times."""

LOOK = 0.25

MARGIN = 60.0
"""Seconds beyond the harm after which the daemon counts it as healed, though we be gone."""

LONGER = 4.0
"""Seconds by which a cut outlasts what a collective waits: else the job would only wait."""


@dataclass(frozen=True, slots=True)
class Rank:
    """One rank of it on this node, as the daemon sees it."""

    rank: int
    pid: int
    start: int  # of its process, clock ticks since boot; 0 where the daemon cannot see it
    ended: bool
    progress: float | None  # Unix seconds of its newest step

    def check(self, uid: int) -> None:
        """Raises ProbeError unless its pid is still its process's, and that is of user *uid*."""
        try:
            owner = psutil.Process(self.pid).uids().effective
        except psutil.Error as error:
            raise ProbeError(f"pid {self.pid} of rank {self.rank}: {error}") from None
        if trail.started(self.pid) != self.start:  # read after the owner: who owned it was it
            raise ProbeError(f"pid {self.pid} is no longer rank {self.rank}'s process")
        if owner != uid:
            raise ProbeError(f"pid {self.pid} is of user {owner}, the job of user {uid}")


class Yours:
    """The job of this name. Raises DvfdError unless the daemon knows it and it is ours to harm."""

    def __init__(self, task: Task, asked: Ask | None = None) -> None:
        self._task, self._name = task, task.options.job
        self._ask = asked or partial(ask, control_path())
        found = self._found()
        if found["uid"] != os.getuid() and os.geteuid() != 0:
            raise ProbeError(f"job {self._name} is of user {found['uid']}, you are {os.getuid()}")
        if found["state"] != "running":
            raise ProbeError(
                f"job {self._name} is not well before it is harmed: {found['summary']}"
            )
        self.world = int(found["world_size"])
        self.before = [rank for rank in _ranks(found) if rank.start and not rank.ended]
        if not self.before:
            raise ProbeError(f"no rank of job {self._name} has a process that is seen from here")
        for rank in self.before:
            rank.check(int(found["uid"]))
        self._strangers()

    @property
    def victim(self) -> Rank:
        """The last of its ranks here."""
        return max(self.before, key=lambda rank: rank.rank)

    def look(self) -> tuple[bool, list[Rank]]:
        """Whether it is well, and its ranks on this node. Raises ProbeError if it is gone."""
        found = self._found()
        return found["state"] == "running", _ranks(found)

    @contextmanager
    def marked(self, words: str, seconds: float) -> Iterator[Callable[[], None]]:
        """Have the daemon know that what follows is done on purpose; what to call once it is taken
        back. Raises DvfdError.
        """
        known = {"job": self._name, "what": words, "seconds": seconds + MARGIN}
        if self._ask("fault_injected", **known) is None:
            raise ProbeError("no daemon answers: nothing is harmed that nobody watches")

        def healed() -> None:
            with suppress(DvfdError):  # it counts as healed by itself a minute later
                self._ask("fault_healed", job=self._name)

        try:
            yield healed
        finally:
            healed()

    def _found(self) -> Mapping[str, Any]:
        status = self._ask("status")
        if status is None:
            raise ProbeError("no daemon answers: --job is of a job that dvfd watches")
        jobs = [job for job in status["jobs"] if job["job"] == self._name]
        if not jobs or jobs[0]["state"] == "ended":
            live = ", ".join(job["job"] for job in status["jobs"] if job["state"] != "ended")
            raise ProbeError(f"no job {self._name!r} trains here; these do: {live or 'none'}")
        found: Mapping[str, Any] = jobs[0]
        return found

    def _strangers(self) -> None:
        """Raises ProbeError where others train beside it."""
        ours = {rank.pid for rank in self.before}
        others = [rank for rank in training.training(self._task.proc) if rank.pid not in ours]
        if others and not self._task.options.force:
            raise ProbeError(f"another job trains here: {training.words(others)}; --force")


def _ranks(found: Mapping[str, Any]) -> list[Rank]:
    """The ranks of a job's document, those that ended too."""
    return [
        Rank(
            rank=int(each["rank"]),
            pid=int(each["pid"] or 0),
            start=int(each["start"] or 0),
            ended=each["state"] == "ended",
            progress=each["progress_at"],
        )
        for each in found["ranks"]
    ]


def killed(task: Task, asked: Ask | None = None) -> Iterator[Figure]:
    """Kill its last rank here, and see it return. Raises DvfdError."""
    job = Yours(task, asked)
    victim = job.victim
    words = f"SIGKILL to rank {victim.rank} (pid {victim.pid}) of job {task.options.job}"
    with job.marked(words, MARGIN) as healed:
        harmed = fuse.boot()
        try:
            with fuse.held(victim.pid, victim.start) as handle:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        except OSError as error:
            raise ProbeError(f"{words}: {error}") from None
        healed()
        task.say(words)
        line = _returned(task, job, harmed, harmed)
    yield from _told("restart", line, words, task)


def parted(task: Task, lease: int, asked: Ask | None = None) -> Iterator[Figure]:
    """Cut this node off from the job's others, or stop a rank. Raises DvfdError."""
    job = Yours(task, asked)
    where = labels(scenario="partition")
    try:
        setting = timeouts(task, World())
        yield Fact("partition: timeouts", setting.words)
        if not setting.fine:
            yield Remark(figures.SECONDS, f"foretold too slow: {setting.words}", where)
    except DvfdError as error:
        yield Remark(figures.SECONDS, f"the timeouts are not known: {error}", where)
    job = Yours(task, asked)  # anew: the timeouts may have been measured, which takes a while
    harm = _harm(task, job)
    with job.marked(harm.words, harm.seconds) as told, lit(harm, keep=[lease]) as burning:
        task.say(f"{harm.words} for {harm.seconds:g} s")
        noticed = _noticed(job, lambda: burning.wait(LOOK), harm.seconds + MARGIN)
        healed = burning.heal()
        told()
        line = _returned(task, job, burning.harmed, healed, noticed)
    yield from _told("partition", line, harm.words, task)


def _harm(task: Task, job: Yours) -> Harm:
    """A cut between this node and those that its ranks speak with; a rank that is stopped without
    root, where all ranks are here, or where a cut cannot tell ranks from services.
    """
    group = task.config.profile.process_group_timeout or GROUP_TIMEOUT
    peers = sorted({peer for rank in job.before for peer in spoken_with(rank.pid)})
    if peers and not (lack := missing(("nft",)) or mixed(task.proc)):
        return cut(peers, group + LONGER, proc=task.proc)
    lack = lack if peers else "all its ranks are on this node"
    victim = job.victim
    return Harm(
        words=f"rank {victim.rank} stopped (SIGSTOP) in place of a partition: {lack}",
        seconds=group + LONGER,
        stop=((victim.pid, victim.start),),
    )


def spoken_with(pid: int) -> set[str]:
    """Addresses of other hosts to which process *pid* has TCP connections."""
    try:
        lines = psutil.Process(pid).net_connections("tcp")
    except psutil.Error as error:
        raise ProbeError(f"the connections of pid {pid} cannot be read: {error}") from None
    own = {each.address for all_of in psutil.net_if_addrs().values() for each in all_of}
    peers = {
        line.raddr.ip for line in lines if line.raddr and line.status == psutil.CONN_ESTABLISHED
    }
    plain = {peer.removeprefix("::ffff:") for peer in peers}
    return {peer for peer in plain - own if not ip_address(peer).is_loopback}


# --- Its return ---------------------------------------------------------------------------------


def _noticed(job: Yours, until: Callable[[], bool], seconds: float) -> float | None:
    """When the daemon first called the job unwell, while *until* does not hold."""
    found, end = None, time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        if found is None and not job.look()[0]:
            found = fuse.boot()
    return found


def _returned(
    task: Task, job: Yours, harmed: float, healed: float, noticed: float | None = None
) -> Timeline:
    """Wait until all its ranks here have made a step since. Raises ProbeError."""
    shift = task.clock.now() - fuse.boot()
    firsts: dict[int, float] = {}
    wanted = {rank.rank for rank in job.before}
    until = time.monotonic() + RETURN
    while len(firsts) < len(wanted) and time.monotonic() < until:
        well, ranks = job.look()
        if noticed is None and not well:
            noticed = fuse.boot()
        for rank in ranks:
            at = None if rank.progress is None else rank.progress - shift
            if rank.rank in wanted and at is not None and at > healed:
                firsts.setdefault(rank.rank, at)
        time.sleep(LOOK)
    if len(firsts) < len(wanted):
        raise ProbeError(f"{len(firsts)} of {len(wanted)} ranks made a step within {RETURN:g} s")
    return Timeline(
        harmed=harmed, noticed=None, seen=noticed, healed=healed, joined=None, loaded=None,
        first=max(firsts.values()),
    )  # fmt: skip


def _told(scenario: str, line: Timeline, words: str, task: Task) -> Iterator[Figure]:
    where = labels(scenario=scenario)
    yield from figures.timed(scenario, line, words, task.clock.now())
    yield Remark(figures.SECONDS, f"up to {LATE:g} s too long: ranks tell it once a second", where)
    for metric in (figures.LOST, figures.SAMPLES, figures.JUMP):
        yield Trouble(metric, UNTOLD, where)
