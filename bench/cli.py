"""What a person waits for a command: the time of whole processes, from the start to the exit.

`dvfd --help`, `dvfd version`, `dvfd status` in text and as Nagios reads it, and `dvfd ready`, which
Slurm's prolog waits for, asked of a daemon as delivered that runs beside. The commands take turns,
so that whatever else the machine does meets all of them; the first turn, which fills the file
cache, is not counted. The bare interpreter beside them says how much of it is Python's own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from bench.harness import build_node, chosen, finish, node, quantile
from bench.record import Figure, at_most

DVFD = (sys.executable, "-m", "dvfd")

COMMANDS = {
    "help": (*DVFD, "--help"),
    "version": (*DVFD, "version"),
    "status": (*DVFD, "status"),
    "nagios": (*DVFD, "status", "-o", "nagios"),
    "ready": (*DVFD, "ready"),
    "python": (sys.executable, "-c", "pass"),
}

WANTED = {"help": 150.0, "version": 150.0, "status": 300.0, "nagios": 300.0, "ready": 1000.0}
"""Milliseconds."""


def main() -> None:
    """Measure and keep."""
    options = chosen(__doc__)
    turns = 5 if options.short else 50
    with tempfile.TemporaryDirectory() as place, node.running(build_node(Path(place))) as watched:
        found = _turns(turns, watched.environment)
    finish("cli", options, [*map(_figure, found.items())], found)


def _turns(turns: int, environment: Mapping[str, str]) -> dict[str, list[float]]:
    """Milliseconds of every process, by command; the first turn is thrown away."""
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(turns + 1):
        for name, command in COMMANDS.items():
            found[name].append(_timed(command, environment))
    return {name: taken[1:] for name, taken in found.items()}


def _timed(command: Sequence[str], environment: Mapping[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
    )
    taken = 1000 * (time.perf_counter() - began)
    if done.stderr or done.returncode not in range(4):
        raise RuntimeError(f"{command}: exit {done.returncode}: {done.stderr!r}")
    return taken


def _figure(found: tuple[str, list[float]]) -> Figure:
    name, taken = found
    told = " ".join(("dvfd", *COMMANDS[name][len(DVFD) :]))
    text = f"`{told}`" if name in WANTED else "the bare interpreter"
    interval = (min(taken), quantile(taken, 0.95))
    text += f", median of {len(taken)} processes (least, P95)"
    if name not in WANTED:
        return Figure(f"cli_{name}", text, median(taken), "ms", low=interval[0], high=interval[1])
    return at_most(f"cli_{name}", text, median(taken), "ms", WANTED[name], interval=interval)


if __name__ == "__main__":
    main()
