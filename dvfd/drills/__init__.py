"""Provoke: active tests, seconds to days, which yield the same samples as probes do.

`PARTS` is the registry: what is not named here does not run. The reference training job and the
orders of dvfd-drill@ live beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dvfd.drills.drill import Part

PARTS: Mapping[str, tuple[str, ...]] = {
    "hardware": (
        "dvfd.drills.cores:Cores",
        "dvfd.drills.cores:RankCores",
        "dvfd.drills.allocation:Allocation",
        "dvfd.drills.numa:Numa",
        "dvfd.drills.numa:RankNuma",
        "dvfd.drills.heat:Idle",
        "dvfd.drills.heat:Stress",
    ),
    "openmpi_gloo": (
        "dvfd.drills.openmpi:OpenMpi",
        "dvfd.drills.pytorch:TorchInside",
        "dvfd.drills.ring:Ring",
        "dvfd.drills.launchers:Mpirun",
        "dvfd.drills.launchers:Torchrun",
        "dvfd.drills.interface:GlooInterface",
        "dvfd.drills.lint:EnvironmentLint",
    ),
    "pytorch": (
        "dvfd.drills.pytorch:TorchInside",
        "dvfd.drills.pytorch:VisibleCores",
        "dvfd.drills.pytorch:Threads",
    ),
    "gradient_sync": (
        "dvfd.drills.gradient:Gradients",
        "dvfd.drills.known_answers:KnownAnswers",
    ),
    "loss_convergence": ("dvfd.drills.convergence:Convergence",),
    "scaling_efficiency": ("dvfd.drills.scaling:Efficiency",),
    "scaling_projection": ("dvfd.drills.scaling:ToCome",),
    "gloo_multi_node": (
        "dvfd.drills.gloo_multi_node:Collectives",
        "dvfd.drills.gloo_multi_node:Barriers",
        "dvfd.drills.gloo_multi_node:Speedup",
    ),
    "network": (
        "dvfd.drills.flows:Speed",
        "dvfd.drills.flows:Link",
        "dvfd.drills.latency:RoundTrips",
        "dvfd.drills.reach:Connected",
        "dvfd.drills.latency:Symmetry",
        "dvfd.drills.flows:Hour",
    ),
    "topology_3node": (
        "dvfd.drills.reach:Connected",
        "dvfd.drills.reach:ConnectedRanks",
        "dvfd.drills.latency:Spread",
        "dvfd.drills.flows:Aggregate",
        "dvfd.drills.routes:Routes",
        "dvfd.drills.choice:Choice",
    ),
    "topology_4node": (
        "dvfd.drills.flows:Bisection",
        "dvfd.drills.routes:Routes",
        "dvfd.drills.flows:Aggregate",
        "dvfd.drills.reach:ConnectedRanks",
        "dvfd.drills.flows:Speed",
        "dvfd.drills.latency:Symmetry",
        "dvfd.drills.choice:Choice",
    ),
    "reliability": (
        "dvfd.drills.reliability.partition:Partition",
        "dvfd.drills.reliability.restart:Restart",
        "dvfd.drills.reliability.checkpoints:Checkpoints",
        "dvfd.drills.reliability.growth:Growth",
        "dvfd.drills.reliability.long_term:LongTerm",
    ),
    "monitoring": (
        "dvfd.drills.monitoring:Scrape",
        "dvfd.drills.monitoring:Rules",
        "dvfd.drills.round_trip:RoundTrip",
        "dvfd.drills.unobserved:Unobserved",
    ),
}
"""The parts of each check's drill, in the order of the source's items, imported when asked for."""


def build(check: str) -> tuple[Part, ...]:
    """The parts of the drill of *check*, none if it has none; touches nothing."""
    return tuple(resolve_name(name)() for name in PARTS.get(check, ()))
