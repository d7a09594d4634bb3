"""Hold the alerts that fired against the nodes that are ill. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.player import Condition, Node

EXPECTED: Mapping[Condition, frozenset[str]] = {
    Condition.WELL: frozenset(),
}
"""The alerts that must name a node in this condition."""

MARGIN = 120.0
"""Seconds that a rule has beyond its `for`: a scrape, an evaluation, the fleet's start."""


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it. `fleet` are alerts that name no node."""

    well: int
    ill: int
    unnoticed: dict[str, list[str]]
    slandered: dict[str, list[str]]
    misnamed: dict[str, list[str]]
    fleet: tuple[str, ...]


def compare(
    nodes: Sequence[Node],
    now: Iterable[Mapping[str, str]],
    ever: Iterable[Mapping[str, str]],
    waits: Mapping[str, float],
    *,
    seconds: float,
    expected: Mapping[Condition, frozenset[str]] = EXPECTED,
) -> Found:
    """The labels of ALERTS *now* and *ever* against *nodes*, after a run of *seconds*.

    An alert whose `for` (*waits*) is longer than the run counts when it is pending. Raises KeyError
    for a condition of which nobody said what should tell of it.
    """
    raised, spoken = by_instance(now, waits, seconds), by_instance(ever, waits, seconds)
    well = [node for node in nodes if node.condition is Condition.WELL]
    ill = [node for node in nodes if node.condition is not Condition.WELL]
    wanted = {node: expected[node.condition] for node in ill}
    return Found(
        well=len(well),
        ill=len(ill),
        unnoticed=_lists({n.instance: want - raised[n.instance] for n, want in wanted.items()}),
        slandered=_lists({n.instance: spoken[n.instance] for n in well}),
        misnamed=_lists({n.instance: spoken[n.instance] - want for n, want in wanted.items()}),
        fleet=tuple(sorted(spoken[""])),
    )


def by_instance(
    alerts: Iterable[Mapping[str, str]], waits: Mapping[str, float], seconds: float
) -> dict[str, set[str]]:
    """The names of what fires, by the node that it names."""
    found: dict[str, set[str]] = defaultdict(set)
    for labels in alerts:
        too_long = waits.get(labels["alertname"], 0.0) + MARGIN > seconds
        if labels["alertstate"] == "firing" or too_long:
            found[labels.get("instance", "")].add(labels["alertname"])
    return found


def _lists(named: Mapping[str, set[str] | frozenset[str]]) -> dict[str, list[str]]:
    return {instance: sorted(names) for instance, names in named.items() if names}
