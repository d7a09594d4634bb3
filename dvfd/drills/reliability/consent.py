"""Who may break what: asked for in so many words, by one at a time, on a job of one's own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import TYPE_CHECKING

from dvfd.errors import DvfdError, ProbeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dvfd.config import Config
    from dvfd.drills.drill import Task

FLAG = "--yes-break-it"

LEASE = "lease"


@contextlib.contextmanager
def lease(task: Task, what: str) -> Iterator[int]:
    """Be the only one who provokes in this cluster; the descriptor that holds it.

    Whoever inherits that holds the lease too: it lasts until the last fuse has healed. Raises
    DvfdError with the reason why it is refused.
    """
    if why := refused(task, what):
        raise ProbeError(why)
    path = task.state / LEASE
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DvfdError(f"{path}: {_holder(handle)} provokes, or its fuse burns yet") from None
        os.ftruncate(handle, 0)
        said = {"pid": os.getpid(), "at": task.clock.now(), "what": what}
        os.pwrite(handle, json.dumps(said).encode(), 0)
        yield handle
    finally:
        os.close(handle)


def refused(task: Task, what: str) -> str:
    """Why nothing is provoked, or nothing."""
    if not task.options.consent:
        return f"not asked for: {what}: {FLAG} says that it may be (docs/reliability.md)"
    if why := elsewhere(task.config):
        return why
    if task.training and not (task.options.force or task.options.job):
        return f"a training job runs here: {task.training}; --force provokes beside it all the same"
    return ""


def elsewhere(config: Config) -> str:
    """Where the lease of this cluster is, if that is not here."""
    lead = config.cluster.lead
    if not config.cluster.nodes or lead == config.node.name:
        return ""
    return f"the lease of this cluster is at its lead: run it on {lead}, this is {config.node.name}"


def _holder(handle: int) -> str:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return f"pid {json.loads(os.pread(handle, 4096, 0))['pid']}"
    return "another"
