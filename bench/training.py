"""A training under torchrun, on this node: started, and ended with all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

RANKS = 4


@contextlib.contextmanager
def training(
    module: str, *arguments: str, environment: Mapping[str, str], log: Path, restarts: int = 0
) -> Iterator[subprocess.Popen[bytes]]:
    """*module* with *arguments* in each of four ranks, their words in *log*; what has not ended in
    the end is ended, killed after 30 s.
    """
    argv = [
        sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={RANKS}",
        f"--max-restarts={restarts}", "-m", module, *arguments,
    ]  # fmt: skip
    with log.open("ab") as words:
        job = subprocess.Popen(
            argv, env=environment, stdout=words, stderr=words, start_new_session=True
        )
    try:
        yield job
    finally:
        job.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()
