"""The reference job with its calls to the reporter timed in place, or with no reporter at all.

`torchrun -m bench.timed_job DIRECTORY real|none OPTIONS...` is one rank. When it ends it leaves
rank-N.json: when each step was reported (CLOCK_MONOTONIC), the seconds that the call took and the
processor time in it. It leaves a file `nan` with the time just before it reports a loss that is
not finite.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

from dvfd.telemetry.reporter import Reporter


def _nothing(*_values: Any, **_fields: Any) -> None:
    """What timing costs by itself, in the same place."""


class Timed:
    """Stands where the reporter stands, passes on to the real one if there is one."""

    def __init__(self, directory: Path, reporter: Reporter | None) -> None:
        self._directory = directory
        self._reporter = reporter
        self._report = reporter.step if reporter else _nothing
        self._ends: list[float] = []
        self._wall: list[float] = []
        self._cpu: list[float] = []

    def step(self, step: int, **fields: Any) -> None:
        """Pass on and note the time."""
        if not math.isfinite(fields["loss"]):
            (self._directory / "nan").write_text(repr(time.monotonic()), encoding="utf-8")
        began, spent = time.perf_counter(), time.thread_time()
        self._report(step, **fields)
        spent, ended = time.thread_time() - spent, time.perf_counter()
        self._ends.append(ended)
        self._wall.append(ended - began)
        self._cpu.append(spent)

    def end(self, reason: str) -> None:
        """Pass on, and leave what was noted."""
        if self._reporter is not None:
            self._reporter.end(reason)
        path = self._directory / f"rank-{os.environ['RANK']}.json"
        noted = {"ends": self._ends, "wall": self._wall, "cpu": self._cpu}
        path.write_text(json.dumps(noted), encoding="utf-8")

    def __getattr__(self, name: str) -> Any:
        """Whatever else the job tells a reporter."""
        return getattr(self._reporter, name) if self._reporter else _nothing

    def __enter__(self) -> Timed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._reporter is not None:
            self._reporter.__exit__(kind, error, trace)


@contextlib.contextmanager
def timed_job(
    directory: Path,
    environment: Mapping[str, str],
    *options: str,
    reporting: bool = True,
    ranks: int = 4,
) -> Iterator[subprocess.Popen[bytes]]:
    """The job under torchrun, its words in *directory*/job.log; ended if it has not ended."""
    directory.mkdir(parents=True, exist_ok=True)
    argv = [
        sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={ranks}",
        "--max-restarts=3", "-m", "bench.timed_job", str(directory),
        "real" if reporting else "none", *options,
    ]  # fmt: skip
    with (directory / "job.log").open("ab") as log:
        job = subprocess.Popen(
            argv, env=environment, stdout=log, stderr=log, start_new_session=True
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


def main() -> int:
    """Be one rank."""
    from dvfd.drills import reference_job

    directory, mode, *options = sys.argv[1:]

    def build(**given: Any) -> Timed:
        return Timed(Path(directory), Reporter(**given) if mode == "real" else None)

    with mock.patch.object(reference_job, "Reporter", build):
        return reference_job.main(options)


if __name__ == "__main__":
    sys.exit(main())
