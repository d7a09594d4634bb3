"""What a command finds around it: what trains on this node, and the job of Slurm that we are in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dvfd.answers import daemon
from dvfd.errors import DvfdError

if TYPE_CHECKING:
    from dvfd.config import Config


def training_here(*, inside: bool = False) -> str:
    """What trains here, in words: by the processes that we can see, and by the daemon's jobs."""
    from dvfd.drills.training import training, words

    if seen := words(training(launcher=os.getppid() if inside else None)):
        return seen
    status = daemon("status") or {}
    jobs = [job["job"] for job in status.get("jobs", ()) if job["state"] != "ended"]
    return f"job {', '.join(jobs)}" if jobs else ""


def must_be_alone(*, force: bool) -> None:
    """Raises DvfdError beside a training job, unless *force*."""
    if not force and (job := training_here()):
        raise DvfdError(
            f"a training job runs: {job}: each would slow the other; --force measures all the same"
        )


def around(settings: Config) -> tuple[Config, str]:
    """*settings* with the nodes of Slurm's job that we are in, and its id; else as they are."""
    from dvfd import doctor, slurm

    return slurm.configured(settings, os.environ, slurm.hostnames(doctor.run))
