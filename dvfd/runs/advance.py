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


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The job of a run at run second `t`, as the daemon of this node sees it.

    `steps` are batches made by the slowest rank since the run was armed, `stride` the most batches
    between two reports of a rank. `exited` says how the training command ended, once it did;
    `wrong` why ranks are not placed as they should be; `lost` which criterion can no longer be met.
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


def advance(run: Run, seen: Seen, *, at: float) -> Run:
    """*run* in the stage that *seen* leads to; the same object if nothing changes. One step only:
    call it again until it is the same.
    """
    if run.stage.over:
        return run
    if run.began_t is not None and run.elapsed(seen.t) >= run.plan.duration:
        end = run.began_t + run.plan.duration
        return run.moved(Stage.COMPLETE, ended_t=end, ended_at=at - (seen.t - end))
    if reason := _broken(run, seen):
        return _aborted(run, seen.t, at, reason)
    if run.stage is Stage.ARMED:
        return _armed(run, seen, at)
    if run.stage is Stage.WARM_UP and _warm(run, seen):
        return run.moved(Stage.RUNNING, warm_t=seen.t)
    return run


def _aborted(run: Run, t: float, at: float, reason: str) -> Run:
    return run.moved(Stage.ABORTED, ended_t=t, ended_at=at, reason=reason)


def _broken(run: Run, seen: Seen) -> str:
    """What ends the run before its time, in words, or nothing."""
    plan = run.plan
    if seen.world_size is not None and seen.world_size != plan.processes:
        now = "" if run.stage is Stage.ARMED else " now"
        world = f"a world of {seen.world_size} processes{now}"
        return f"job {plan.job} has {world}, wanted {plan.processes}"
    if seen.exited:
        return f"the training command {seen.exited}{_where(run, seen)}"
    return "" if run.stage is Stage.ARMED else _gone(run, seen)


def _gone(run: Run, seen: Seen) -> str:
    """What ends a run that has begun."""
    job = run.plan.job
    if seen.ended:
        return f"job {job} ended by itself{_where(run, seen)}"
    if not seen.living and seen.gone >= GONE:
        return f"no rank of job {job} has lived for {seconds(seen.gone)}"
    if seen.lost and run.plan.on_failure == "stop":
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
    plan = run.plan
    if seen.world_size is None:
        if seen.t < ARMING:
            return run
        reason = f"job {plan.job} did not report within {seconds(ARMING)}: does it call a Reporter?"
        return _aborted(run, seen.t, at, reason)
    if seen.ranks < seen.expected:
        if seen.t < ARMING:
            return run
        reason = f"{seen.ranks} of {seen.expected} ranks here made a step within {seconds(ARMING)}"
        return _aborted(run, seen.t, at, reason)
    if wrong := _misfits(run, seen):
        return _aborted(run, seen.t, at, "; ".join(wrong))
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
