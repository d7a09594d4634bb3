"""How a run moves on: from what is seen of its job to its next stage, with the reason. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dvfd.reduce import seconds
from dvfd.runs.run import WARM_UP_BATCHES, Stage

if TYPE_CHECKING:
    from dvfd.runs.run import Run

ARMING = 600.0
"""Seconds from arming to the first step of all ranks: twice what a rank may take to start
(telemetry.rank.START_LIMIT), for the nodes of a cluster do not start together."""

MEND = (
    "bind each rank to cores of its own on one NUMA node (numactl, taskset, srun --cpu-bind), "
    "or --force makes a run of it that does not count"
)

GONE = 600.0
"""Seconds without any living rank after which a run whose training command is not ours to see is
over: torchrun's own start-up and rendezvous limits lie below."""


LEFT_ALONE = 600.0
"""Seconds beyond its own end after which a node ends a run whose leader has been silent."""

SPOKEN = 30.0
"""Seconds without a word after which a leader is silent (company.QUIET)."""

PATIENCE = 20.0
"""Seconds for the leader to say that the run is over, where the training here ended: it is asked
every two, and its own looks are a second apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Led:
    """What the leader of a run says of it, at a node that it leads. `stage` is None before it named
    one; `ended_t` is a run second of this node; `silent` the seconds since it said anything.
    """

    node: str
    stage: Stage | None = None
    ended_t: float | None = None
    reason: str = ""
    stopped_by: str = ""
    silent: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The job of a run at run second `t`, as the daemon of this node sees it.

    `steps` are batches made by the slowest rank since the run was armed, `stride` the most batches
    between two reports of a rank. `exited` says how the training command ended, once it did;
    `wrong` why ranks are not placed as they should be; `lost` which criterion can no longer be met.
    Of a run over several nodes `waits` says who has not come, `fallen` whose run was broken off,
    `led` what the leader says; `broken` how long something here has spoken for an end.
    """

    t: float
    ranks: int = 0  # of this node, that made a step since the run was armed
    expected: int = 0
    world_size: int | None = None  # None: nobody has reported
    checkpoint_every: int | None = None
    stride: int = 1
    steps: int = 0
    ended: bool = False  # the job said that it ended
    living: bool = True
    gone: float = 0.0  # seconds without a living rank
    exited: str = ""
    wrong: tuple[str, ...] = ()
    lost: str = ""
    waits: str = ""
    fallen: str = ""
    led: Led | None = None
    broken: float = 0.0


def advance(run: Run, seen: Seen, *, at: float) -> Run:
    """*run* in the stage that *seen* leads to; the same object if nothing changes. One step only:
    call it again until it is the same.
    """
    if run.stage.over:
        return run
    after = _lead(run, seen, at) if seen.led is None else _follow(run, seen, seen.led, at)
    if after is not run:
        return after
    if reason := broken(run, seen):
        waits = seen.led is not None and seen.broken < PATIENCE
        return run if waits else _aborted(run, seen.t, at, reason)
    if run.stage is Stage.ARMED:
        return _armed(run, seen, at)
    if run.stage is Stage.WARM_UP and _warm(run, seen):
        return run.moved(Stage.RUNNING, warm_t=seen.t)
    return run


def _lead(run: Run, seen: Seen, at: float) -> Run:
    """Complete once it ran for as long as it was to, whatever else is seen then."""
    if run.began_t is None or run.elapsed(seen.t) < run.plan.duration:
        return run
    return _complete(run, seen.t, at, run.began_t + run.plan.duration)


def _complete(run: Run, t: float, at: float, end: float) -> Run:
    return run.moved(Stage.COMPLETE, ended_t=end, ended_at=at - (t - end))


def _follow(run: Run, seen: Seen, led: Led, at: float) -> Run:
    """The end that the leader says; the node's own, long after, where that says nothing."""
    if led.stage is Stage.COMPLETE and run.began_t is not None:
        end = seen.t if led.ended_t is None else min(max(led.ended_t, run.began_t), seen.t)
        return _complete(run, seen.t, at, end)
    if led.stage is not None and led.stage.over:
        said = led.reason or f"the run was {led.stage} before the ranks here made a step"
        by = led.stopped_by and f"{led.stopped_by} at {led.node}"
        after = _aborted(run, seen.t, at, f"at {led.node}, which leads: {said}")
        return replace(after, stopped_by=by)
    if led.silent > SPOKEN and run.elapsed(seen.t) >= run.plan.duration + LEFT_ALONE:
        reason = f"{led.node}, which leads, did not say that the run is over: it has been silent"
        return _aborted(run, seen.t, at, f"{reason} for {seconds(led.silent)}")
    return run


def _aborted(run: Run, t: float, at: float, reason: str) -> Run:
    return run.moved(Stage.ABORTED, ended_t=t, ended_at=at, reason=reason)


def broken(run: Run, seen: Seen) -> str:
    """What ends the run before its time, in words, or nothing."""
    plan = run.plan
    if seen.world_size is not None and seen.world_size != plan.processes:
        now = "" if run.stage is Stage.ARMED else " now"
        world = f"a world of {seen.world_size} processes{now}"
        return f"job {plan.job} has {world}, wanted {plan.processes}"
    if seen.exited:
        return f"the training command {seen.exited}{_where(run, seen)}"
    if seen.fallen:
        return f"on {seen.fallen}"
    return "" if run.stage is Stage.ARMED else _gone(run, seen)


def _gone(run: Run, seen: Seen) -> str:
    """What ends a run that has begun."""
    job = run.plan.job
    if seen.ended:
        return f"job {job} ended by itself{_where(run, seen)}"
    if not seen.living and seen.gone >= GONE:
        return f"no rank of job {job} has lived for {seconds(seen.gone)}"
    if seen.lost and not run.leader and run.plan.on_failure == "stop":
        return f"{seen.lost} can no longer be met, and the run was ordered to stop then"
    return ""


def _where(run: Run, seen: Seen) -> str:
    """When that was, as a person counts it."""
    if run.began_t is None:
        return " before its ranks made their first step"
    stage = " in its warm-up" if run.stage is Stage.WARM_UP else ""
    return f"{stage} after {seconds(run.elapsed(seen.t))} of {seconds(run.plan.duration)}"


def _armed(run: Run, seen: Seen, at: float) -> Run:
    """Begin once every rank here has made a step, and all is as the check asks."""
    plan, waited = run.plan, seen.t - run.armed_t
    limit = seconds(ARMING)
    here = seen.world_size is not None and seen.ranks >= seen.expected
    if here and (wrong := _misfits(run, seen)):
        return _aborted(run, seen.t, at, "; ".join(wrong))
    if seen.world_size is None:
        lacks = f"job {plan.job} did not report within {limit}: does it call a Reporter?"
    elif not here:
        lacks = f"{seen.ranks} of {seen.expected} ranks here made a step within {limit}"
    else:
        lacks = seen.waits and f"{seen.waits}, within {limit}"
    if lacks:
        return run if waited < ARMING else _aborted(run, seen.t, at, lacks)
    return run.moved(Stage.WARM_UP, began_t=seen.t)


def _misfits(run: Run, seen: Seen) -> list[str]:
    """What of the job is not as the check asks. How ranks are placed may have been accepted."""
    plan, found = run.plan, []
    if seen.checkpoint_every != plan.checkpoint_every:
        told = f"every {seen.checkpoint_every} batches" if seen.checkpoint_every else "no interval"
        found.append(
            f"job {plan.job} tells {told} for its checkpoints, wanted {plan.checkpoint_every}: "
            "Reporter(checkpoint_every=...)"
        )
    if seen.stride > plan.every:
        found.append(
            f"job {plan.job} reports each {seen.stride} batches, wanted at least each {plan.every}"
        )
    if seen.wrong and not plan.discounts:
        found.extend((*seen.wrong, MEND))
    return found


def _warm(run: Run, seen: Seen) -> bool:
    return run.elapsed(seen.t) >= run.plan.warm_up or seen.steps >= WARM_UP_BATCHES


def discounted(run: Run, wrong: tuple[str, ...]) -> Run:
    """*run* with misplaced ranks accepted by who ordered it: it goes on, and never counts."""
    return replace(run, plan=replace(run.plan, discounts=wrong))
