"""A crew of a single rank: it does the exercises between nodes by itself, over a backend.

`torchrun --standalone --nproc_per_node=1 crew_of_one.py BACKEND FILE` leaves what they say in FILE.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from dvfd.drills import choice, gloo_multi_node
from dvfd.drills.workers import fleet_barriers, fleet_collectives, fleet_speedup
from dvfd.drills.workers.fleet import Node


class One:
    """What the exercises use of a crew."""

    rank = 0
    size = 1
    leads = True
    interface = ""
    me = Node("n1", "127.0.0.1", "lo", (0,))
    nodes = (me,)

    def gather(self, _key: str, value: Any = None, **_more: Any) -> dict[int, Any]:
        return {0: value}

    def step(self, _key: str, **_more: Any) -> None:
        pass

    def say(self, line: str) -> None:
        print(line)


def main(backend: str, path: str) -> None:
    names = dict.fromkeys([*gloo_multi_node.ALGORITHMS, *choice.TRIED])
    about = {"bytes": 1 << 16, "iterations": 20}
    rows = [{"operation": "all_reduce", "algorithm": name, **about} for name in names]
    rows.append({"operation": "all_gather", "algorithm": "builtin", **about})
    shared = {"backend": backend, "timeout": 15}
    found = {
        "collectives": fleet_collectives.run(One(), {**shared, "room": 600, "exercises": rows}),
        "barriers": fleet_barriers.run(One(), {**shared, "count": 50, "rounds": 3}),
        "speed-up": fleet_speedup.run(One(), {**shared, "batch": 4, "seconds": 0.5, "turns": 2}),
    }
    Path(path).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
