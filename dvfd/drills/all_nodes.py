"""Does the monitoring see every node of the cluster: asked at the lead, of the engine of [history],
else of the nodes themselves.

A node that is not seen now, or judges by another catalogue, leaves that unknown; one that says of
itself that it may be blind is a measured no.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from dvfd import remote
from dvfd.drills.drill import Fact
from dvfd.errors import ProbeError
from dvfd.fleet import counted, counts, mixed
from dvfd.history.engine import Engine
from dvfd.model import WORST_FIRST, Verdict
from dvfd.sighted import by_engine
from dvfd.sighting import by_nodes

if TYPE_CHECKING:
    from dvfd.config import Config
    from dvfd.fleet import Seen
    from dvfd.model import Catalogue

LISTS = ("live", "daily", "weekly", "monthly")
"""Checks whose verdict over all nodes stands in the report, for whoever signs a gate."""


def leads(config: Config) -> bool:
    """Whether this node answers for others."""
    return len(config.cluster.nodes) > 1 and config.cluster.lead == config.node.name


def look(config: Config, catalogue: Catalogue, at: float) -> list[Seen]:
    """Every node as it is now."""
    if not config.engine.url:
        access = remote.Access.of(config.cluster)
        return by_nodes(config.cluster.nodes, partial(remote.get, access=access))
    checks = [check.id for check in catalogue.checks.values() if mixed(check)]
    return by_engine(Engine(config.engine), config, checks, at=at)


def well(nodes: Sequence[Seen], catalogue: str) -> str:
    """Which of *nodes* may be blind, or nothing. Raises ProbeError where one is not known."""
    here = [node for node in nodes if not node.why]
    ill = [f"{node.node}: {'; '.join(node.troubles)}" for node in here if node.troubles]
    if ill:
        return f"{'; '.join(ill)}: dvfd doctor there"
    told = {node.node: counts(Verdict.PASS, node, catalogue)[1] for node in nodes}
    unknown = [f"{name}: {why}" for name, why in told.items() if why]
    if unknown:
        few = f"{len(nodes) - len(unknown)} of {len(nodes)} nodes are seen now, wanted all"
        raise ProbeError(f"{few}; {'; '.join(unknown)}")
    return ""


def lists(nodes: Sequence[Seen], catalogue: Catalogue, lead: str) -> Iterator[Fact]:
    """What each list comes to over all nodes."""
    for name in LISTS:
        found = counted(catalogue.checks[name], nodes, lead=lead, catalogue=catalogue.hash)
        parts = []
        for verdict in WORST_FIRST:
            who = [node for node, said in found.nodes.items() if said is verdict]
            named = verdict in {Verdict.FAIL, Verdict.UNKNOWN}
            parts += [f"{verdict} {', '.join(who) if named else len(who)}"] if who else []
        yield Fact(f"{name} of all nodes", "; ".join(parts))
