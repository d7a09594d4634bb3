"""Exercises for tests of the crew: what ranks on several nodes do, and how they fail.

`python fleet_exercises.py CHECK NAME...` is a node's command: it does them, and prints the answer.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any


def run(crew: Any, options: Any) -> Any:
    """One exercise; *options* say which, and where."""
    return globals()[options["what"]](crew, **options["more"])


def greet(crew: Any) -> Any:
    said = crew.gather("hello", f"{crew.me.name} says hello")
    heads = crew.gather("heads", crew.rank, heads=True) if crew.head else {}
    return {
        "said": list(said.values()),
        "heads": list(heads),
        "names": [n.name for n in crew.nodes],
    }


def stumble(crew: Any, rank: int) -> Any:
    if crew.rank == rank:
        raise ValueError("a stone lay there")
    crew.step("together")


def die(crew: Any, rank: int) -> Any:
    if crew.rank == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    crew.step("together")


def linger(crew: Any, place: str) -> Any:
    """Stay until somebody puts a file `go` at *place*, a minute and a half at most."""
    Path(place, crew.me.name).touch()
    until = time.monotonic() + 90
    while not Path(place, "go").exists() and time.monotonic() < until:
        time.sleep(0.1)
    crew.step("together")


def main(check: str, names: list[str]) -> None:
    from dvfd import drills, log
    from dvfd.catalogue import load as load_catalogue
    from dvfd.clock import SystemClock
    from dvfd.config import load
    from dvfd.drills import fleet
    from dvfd.drills.drill import Options, Task
    from dvfd.errors import DvfdError

    log.setup("error")
    config = load()
    todo = [json.loads(name) for name in names]

    class Part:
        name, metrics = "exercises", ()

        def exercises(self, task: Any) -> Any:
            return [
                fleet.Exercise(
                    name=f"{i} {each['what']}", module="fleet_exercises", seconds=60, options=each
                )
                for i, each in enumerate(todo)
            ]

    drills.build = lambda _check: (Part(),)
    with tempfile.TemporaryDirectory() as place:
        task = Task(
            check=load_catalogue(config).checks[check],
            config=config,
            clock=SystemClock(),
            scratch=Path(place),
            state=Path(place),
            options=Options(nodes=int(os.environ.get("NODES", "0"))),
            training=os.environ.get("TRAINING", ""),
            say=lambda line: print(line, file=sys.stderr),
        )
        try:
            print(json.dumps(asdict(fleet.answer(task))))
        except DvfdError as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
