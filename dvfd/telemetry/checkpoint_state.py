"""What a job has said of its checkpoints: handed from the registry of jobs to the probe."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointState:
    """One live job's checkpoints, as reported. Times are Unix seconds, absent until there is one.

    `due` counts the checkpoints that the declared interval asked for since the job was first
    seen, before its newest step; `saved` those reported saved in that time; a job that declared
    none has `every` 0.
    `failed` counts saves reported failed and saves that outlived their limit; it never falls.
    `path`, `step` and `saved_at` are of the newest one saved; `pid` is of the rank that saved it.
    `shared` says that the job has ranks on other nodes, whose daemons may read the same file.
    """

    job: str
    every: int = 0
    due: int = 0
    saved: int = 0
    failed: int = 0
    path: str = ""
    step: int = 0
    saved_at: float | None = None
    began_at: float | None = None
    pid: int | None = None
    shared: bool = False

    @property
    def missing(self) -> int:
        """Those that were due and are neither saved nor being saved."""
        return max(0, self.due - self.saved - (self.began_at is not None))
