"""A node's `dvfd` for tests of collectives between nodes: shorter sweeps, and one exercise more.

`python between_node.py check gloo_multi_node --nodes 2 ...`. The exercise times an all-reduce in
turns with a plain loop of the same definition; with ONLY_PLAIN=1 it is all that is done.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from typing import Any

PAIRS, COUNT, SIZE = 10, 10, (1 if os.environ.get("ONLY_PLAIN") else 4) << 20


def run(crew: Any, options: Any) -> list[tuple[float, float]]:
    """Pairs of medians in seconds, the worker's and the plain loop's; which is first alternates."""
    from bench.plain_allreduce import median_seconds
    from dvfd.drills.workers import fleet_group
    from dvfd.drills.workers.collective import Bench, Exercise

    place = fleet_group.join(crew, "gloo")
    bench = Bench(place, [Exercise("all_reduce", "builtin", SIZE, COUNT)], timeout=15)

    def ours() -> float:
        [(_, series)] = bench.run()
        return statistics.median(series.slowest[-COUNT:]) / 1e9

    def plain() -> float:
        return median_seconds(SIZE, COUNT)

    found = []
    for number in range(PAIRS):
        if number % 2:
            after = plain()
            found.append((ours(), after))
        else:
            found.append((ours(), plain()))
    return found


def main() -> None:
    from dvfd import cli, drills
    from dvfd.cli import checks
    from dvfd.drills import collectives, fleet, gloo_multi_node, sweep
    from dvfd.drills.drill import Fact

    class Plain:
        name, metrics = "a plain loop", ()

        def exercises(self, task: Any) -> Any:
            return [fleet.Exercise(name="plain", module="between_node", seconds=60)]

        def run(self, task: Any) -> Any:
            yield Fact("plain", json.dumps(fleet.answer(task).of("plain").values.get(0)))

    build = drills.build
    only = os.environ.get("ONLY_PLAIN") == "1"
    drills.build = lambda check: (*(() if only else build(check)), Plain())
    collectives.MANY, collectives.FEW, gloo_multi_node.OFTEN = 30, 10, 20
    collectives.BUCKET, sweep.TIMEOUT = 2 << 20, 6.0
    gloo_multi_node.MESSAGES = ("64KiB", "bucket")
    gloo_multi_node.Barriers.count = 100
    gloo_multi_node.Speedup.seconds = 0.5
    checks.say_on_a_terminal = lambda line: print(line, file=sys.stderr, flush=True)
    cli.main()


if __name__ == "__main__":
    main()
