"""Collectives between nodes, one rank of a crew: every algorithm timed, every result looked at.

Options: `backend`, `timeout` (seconds of a collective), `room` (seconds of them all) and
`exercises`, those of `dvfd.drills.workers.collective`. The team "half" is the first half of the
ranks of each node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dvfd.drills.workers import fleet_group, nccl_graph
from dvfd.drills.workers.collective import Bench, CollectiveFailed, Exercise, addresses, rows
from dvfd.drills.workers.fleet import Crew

HALF = "half"


def run(crew: Crew, options: Mapping[str, Any]) -> dict[str, Any]:
    """What rank 0 gathered of the times and results, and what each rank says of itself.

    Raises CollectiveFailed, naming the ranks that are missing where that can be told.
    """
    exercises = [Exercise(**each) for each in options["exercises"]]
    place = fleet_group.join(crew, options["backend"])
    group = fleet_group.witness()
    nodes = [node.ranks for node in crew.nodes]
    teams = {HALF: half(nodes)} if any(each.team == HALF for each in exercises) else {}
    timeout = float(options["timeout"])
    room = float(options["room"])
    bench = Bench(place, exercises, timeout=timeout, nodes=nodes, teams=teams, room=room)
    try:
        found = bench.run()
    except CollectiveFailed as error:
        why = fleet_group.broke(crew, group, error, bench.at, patience=timeout)
        raise CollectiveFailed(why) from error
    return {
        "world": place.size,
        "addresses": addresses(),
        "whole": bench.whole(),
        "exercises": rows(found) if place.leads else [],
        "graphs": nccl_graph.found() if place.leads and options["backend"] == "nccl" else [],
    }


def half(nodes: Sequence[Sequence[int]]) -> list[int]:
    """The first half of the ranks of each node."""
    return sorted(rank for node in nodes for rank in node[: len(node) // 2])
