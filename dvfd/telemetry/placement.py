"""Which job a hello belongs to: told apart by uid, run and live processes, never by words alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dvfd.telemetry.job import Job
    from dvfd.telemetry.processes import Process
    from dvfd.telemetry.wire import Hello

NAMESAKES = 9
"""Jobs of one name and one user that may run at once: a loop must not fill the book."""


def place(jobs: Mapping[str, Job], hello: Hello, uid: int, process: Process | None) -> str | None:
    """The label of the job that takes this rank, known or new; None if there is no room.

    A second live process on an occupied seat is another job: `name~2`, or `name~uid` for another
    user's. The words of a hello never take over what another live process holds.
    """
    for label in _labels(jobs, hello.job, uid):
        job = jobs.get(label)
        if job is None or (job.uid == uid and _vacant(job, hello, process)):
            return label
    return None


def _labels(jobs: Mapping[str, Job], name: str, uid: int) -> Iterator[str]:
    owner = jobs.get(name)
    stem = name if owner is None or owner.uid == uid else f"{name}~{uid}"
    yield stem
    for number in range(2, NAMESAKES + 1):
        yield f"{stem}~{number}"


def _vacant(job: Job, hello: Hello, process: Process | None) -> bool:
    """Whether the seat is free: never taken, left, or this process's own."""
    if job.run != hello.run:
        return not any(rank.holding for rank in job.ranks.values())
    rank = job.ranks.get(hello.rank)
    if rank is None or not rank.holding:
        return True
    return process is not None and rank.process == process
