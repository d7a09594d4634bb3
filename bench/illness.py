"""Hold the alerts that fired against the nodes that are ill. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.player import Condition, Node

DEMANDED = frozenset({Condition.SILENT, Condition.STALE})
"""Conditions of which only the rules can tell: such a node must be named by an alert. A failing or
blind one tells of itself, by its own push; one that is behind may be told of by the fleet's alert.
"""

MARGIN = 120.0
"""Seconds that a rule has beyond its `for`: a scrape, an evaluation, the fleet's start."""


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it. `unnoticed` nodes should have been named and were not, `slandered` ones are
    well; `ill` says what names each ill node, `fleet` which alerts name none.
    """

    well: int
    demanded: int
    unnoticed: tuple[str, ...]
    slandered: dict[str, list[str]]
    ill: dict[str, dict[str, list[str]]]
    fleet: tuple[str, ...]


def compare(
    nodes: Sequence[Node],
    now: Iterable[Mapping[str, str]],
    ever: Iterable[Mapping[str, str]],
    waits: Mapping[str, float],
    *,
    seconds: float,
) -> Found:
    """The labels of ALERTS *now* and *ever* against *nodes*, after a run of *seconds*.

    An alert whose `for` (*waits*) is longer than the run counts when it is pending.
    """
    raised, spoken = by_instance(now, waits, seconds), by_instance(ever, waits, seconds)
    well = [node for node in nodes if node.condition is Condition.WELL]
    demanded = [node for node in nodes if node.condition in DEMANDED]
    ill: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for node in nodes:
        if node.condition is not Condition.WELL:
            ill[node.condition][node.instance] = sorted(raised[node.instance])
    return Found(
        well=len(well),
        demanded=len(demanded),
        unnoticed=tuple(node.instance for node in demanded if not raised[node.instance]),
        slandered={n.instance: sorted(spoken[n.instance]) for n in well if spoken[n.instance]},
        ill=dict(ill),
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
