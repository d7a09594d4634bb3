"""The reference job, whose reporter changes by turns, and whose calls to it are timed in place.

`torchrun -m bench.timed_job DIRECTORY OPTIONS...` is one rank. When it ends it leaves rank-N.json:
of each step its number, when it was reported (CLOCK_MONOTONIC), the seconds that the call took and
the processor time in it. Rank 0 says on the datagram socket DIRECTORY/turn whose turn comes, and
serves what prometheus_client has at the port $DVFD_BENCH_PORT.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

from bench.multiprocess import Multiprocess, serve
from bench.turns import BLOCK, Step, arm_of
from dvfd.telemetry.reporter import Reporter

PORT = "DVFD_BENCH_PORT"


def _nothing(*_values: Any, **_fields: Any) -> None:
    """What timing costs by itself, in the same place."""


class Turns:
    """Stands where the reporter stands, and passes on to whoever's turn it is."""

    def __init__(self, directory: Path, reporter: Reporter) -> None:
        self._directory = directory
        self._reporter = reporter
        self._reports: dict[str, Callable[..., None]] = {
            "without": _nothing, "again": _nothing, "dvfd": reporter.step,
            "prometheus": Multiprocess().step,
        }  # fmt: skip
        self._steps: list[Step] = []
        self._arm = ""
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        if os.environ["RANK"] == "0":
            serve(int(os.environ[PORT]))

    def step(self, step: int, **fields: Any) -> None:
        """Pass on and note the time; after the last step of a turn, say whose is next."""
        self._arm = arm_of(step)
        report = self._reports[self._arm]
        began, spent = time.perf_counter(), time.thread_time()
        report(step, **fields)
        spent, ended = time.thread_time() - spent, time.perf_counter()
        self._steps.append(Step(step, ended, ended - began, spent))
        if (step + 1) % BLOCK == 0 and os.environ["RANK"] == "0":
            self._channel.sendto(arm_of(step + 1).encode(), str(self._directory / "turn"))

    def end(self, reason: str) -> None:
        """Pass on, and leave what was noted."""
        self._reporter.end(reason)
        path = self._directory / f"rank-{os.environ['RANK']}.json"
        path.write_text(json.dumps([astuple(step) for step in self._steps]), encoding="utf-8")

    def __getattr__(self, name: str) -> Any:
        """Whatever else the job tells a reporter."""
        return getattr(self._reporter, name) if self._arm == "dvfd" else _nothing

    def __enter__(self) -> Turns:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reporter.__exit__(kind, error, trace)


def main() -> int:
    """Be one rank."""
    from dvfd.drills import reference_job

    directory, *options = sys.argv[1:]

    def build(**given: Any) -> Turns:
        return Turns(Path(directory), Reporter(**given))

    with mock.patch.object(reference_job, "Reporter", build):
        return reference_job.main(options)


if __name__ == "__main__":
    sys.exit(main())
