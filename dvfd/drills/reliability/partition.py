"""Scenario 1: half of a job is cut off from the other half for a while, and it comes back.

As root between two network namespaces of this machine, else by stopping a rank (SIGSTOP): to the
others that looks the same, but no packet is lost. The report says which it was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dvfd.drills.drill import Fact, Remark
from dvfd.drills.reliability import consent, figures, yours
from dvfd.drills.reliability.cut import cut
from dvfd.drills.reliability.harm import Harm, lit
from dvfd.drills.reliability.job import GROUP_TIMEOUT, LOOK, PER_PROCESS, Agent, alone, started
from dvfd.drills.reliability.namespaces import DEVICE, Host, missing, pair
from dvfd.drills.reliability.recovery import STEPS_BEFORE, STEPS_BETWEEN, Eyes
from dvfd.model import labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dvfd.drills.drill import Task
    from dvfd.drills.reliability.course import Team
    from dvfd.drills.reliability.figures import Figure
    from dvfd.drills.reliability.job import Job

NAME = "partition"

CUT = GROUP_TIMEOUT + 4.0
"""Seconds that it lasts: longer than a collective waits, so that the job has to come back and not
only to wait."""

PORT = 29400
"""Of the rendezvous, torchrun's own default: below those that are handed out to programs."""


class Partition:
    """Cut a job in two, and see it return."""

    name = "partition and heal"
    metrics = (figures.SECONDS, figures.LOST, figures.SAMPLES, figures.JUMP)

    def run(self, task: Task) -> Iterator[Figure]:
        """Start the reference job and cut it in two. Raises DvfdError."""
        with consent.lease(task, "half of a job is cut off") as lease:
            if task.options.job:
                yield from yours.parted(task, lease)
                return
            ranks = max(2, task.processes)
            if (lack := missing()) or ranks % 2:
                lack = lack or f"{ranks} processes do not halve"
                with started(task, alone(ranks), batch=ranks * PER_PROCESS) as job:
                    yield from stopped(job, ranks, lack, lease)
                return
            with pair() as hosts:
                agents = [_agent(host, ranks // 2, hosts[0]) for host in hosts]
                with started(task, *agents, batch=ranks * PER_PROCESS) as job:
                    yield from halved(job, ranks, hosts, lease)


def _agent(host: Host, ranks: int, lead: Host) -> Agent:
    """A torchrun on *host*, the other end of its rendezvous on *lead*."""
    conf = f"is_host={int(host == lead)},join_timeout=120"
    options = (
        "--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint={lead.address}:{PORT}",
        f"--rdzv-id={NAME}", f"--rdzv-conf={conf}", f"--local-addr={host.address}",
    )  # fmt: skip
    return Agent(ranks, options, host.within, (f"GLOO_SOCKET_IFNAME={DEVICE}",))


def halved(job: Job, ranks: int, hosts: tuple[Host, Host], lease: int) -> Iterator[Figure]:
    """Drop what goes between *hosts*. Raises DvfdError."""
    lead, target = hosts
    harm = cut([lead.address], CUT, within=target.within)
    after = tuple(("ip", "netns", "delete", host.namespace) for host in hosts)
    harm = replace(harm, words=f"{harm.words} on {target.namespace}", after=after)
    yield from provoke(job, ranks, harm, lease)


def stopped(job: Job, ranks: int, lack: str, lease: int) -> Iterator[Figure]:
    """Stop one rank: what can be done without *lack*. Raises DvfdError."""
    team = job.trains(ranks, STEPS_BEFORE)
    victim = team.processes[-1]
    words = f"rank {victim.rank} stopped (SIGSTOP) in place of a partition: {lack}"
    harm = Harm(words=words, seconds=CUT, stop=((victim.pid, victim.start),))
    yield Remark(figures.SECONDS, f"{words}; no packet was lost", labels(scenario=NAME))
    yield from provoke(job, ranks, harm, lease)


def provoke(job: Job, ranks: int, harm: Harm, lease: int) -> Iterator[Figure]:
    """Do *harm* to the *ranks* that train, and tell what came of it. Raises DvfdError."""
    team = job.trains(ranks, max(STEPS_BEFORE, job.newest() + STEPS_BETWEEN))
    yield from _foretold(job, team)
    verified = job.verified()
    job.task.say(f"{harm.words} for {harm.seconds:g} s")
    with lit(harm, keep=[lease]) as burning:
        eyes = Eyes(job, team, burning.harmed)
        eyes.watch(lambda: burning.wait(LOOK), harm.seconds + GROUP_TIMEOUT)
        healed = burning.heal()
    job.task.say("healed")
    line = eyes.returned(healed)
    at = job.task.clock.now()
    yield from figures.timed(NAME, line, harm.words, at)
    yield Fact(f"{NAME}: from the cut", f"{line.first - line.harmed:.1f} s to the first new step")
    if line.joined is None:
        yield Fact(f"{NAME}: ranks", "none ended: they waited until it was healed, and went on")
    if trained := eyes.after():
        known = [verified] * len(trained)
        yield from figures.continued(NAME, eyes.before(), trained, known, at)


def _foretold(job: Job, team: Team) -> Iterator[Figure]:
    """Whether the timeouts leave room for a recovery in time, looked at beforehand."""
    start = (team.first or team.joined) - job.began
    worst, limit = GROUP_TIMEOUT + start, job.task.limit("partition")
    words = f"process group {GROUP_TIMEOUT:g} s + start to first step {start:.1f} s = {worst:.1f} s"
    yield Fact(f"{NAME}: timeouts", f"{words}, allowed are {limit} s")
    if limit is not None and worst >= limit:
        yield Remark(figures.SECONDS, f"foretold too slow: {words}", labels(scenario=NAME))
