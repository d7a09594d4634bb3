"""Every criterion of the four runs, rehearsed: its fault enters where faults do and fails it, and
besides it only what follows; and without its data it is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rehearsal import NODES, Rehearsal, Several

from dvfd.model import Verdict

pytestmark = pytest.mark.slow

FAIL, UNKNOWN = Verdict.FAIL, Verdict.UNKNOWN

Do = Callable[[Rehearsal], None]
Rows = Callable[[Rehearsal, int, int], Mapping[str, Any]]


@dataclass(frozen=True)
class Item:
    """What happens at which second, what every row says besides, and what comes of it."""

    name: str
    at: Mapping[int, Do] = field(default_factory=dict)
    rows: Rows = lambda _run, _rank, _step: {}
    failed: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()


def fails(name: str, *also: str, unknown: tuple[str, ...] = (), **how: Any) -> Item:
    """A fault of *name*, which fails *also* what follows from it."""
    return Item(name, failed=frozenset({name, *also}), unknown=frozenset(unknown), **how)


def blinds(name: str, *also: str, failed: tuple[str, ...] = (), **how: Any) -> Item:
    """What takes the data of *name* away, and of *also* what shares them."""
    return Item(name, unknown=frozenset({name, *also}), failed=frozenset(failed), **how)


# --- What happens -----------------------------------------------------------------------------


def put(**values: Any) -> Do:
    """Set what the machine shows."""
    return lambda run: [setattr(run.machine, name, each) for name, each in values.items()] and None


def turn(**values: Any) -> Do:
    """Set what the rehearsal does."""
    return lambda run: [setattr(run, name, each) for name, each in values.items()] and None


def silence(*metrics: str) -> Mapping[int, Do]:
    return {0: turn(silenced=set(metrics))}


def always(**values: Any) -> Rows:
    return lambda _run, _rank, _step: values


def once(step: int, rank: int, **values: Any) -> Rows:
    """One row of one rank."""
    return lambda _run, r, s: values if (r, s) == (rank, step) else {}


def at_step(step: int, **values: Any) -> Rows:
    """One row of every rank: which one's losses are watched is the daemon's to say."""
    return lambda _run, _rank, s: values if s == step else {}


def scaled(factor: float) -> Rows:
    return lambda run, _rank, _step: {"samples": run.samples() * factor}


def uneven(spread: float) -> Rows:
    """Every other collection interval carries that many samples a second more."""

    def rows(run: Rehearsal, _rank: int, step: int) -> Mapping[str, Any]:
        each = spread / (run.rate * run.check.processes)
        odd = (step - 1) // run.check.every % 2
        return {"samples": run.samples() + (each if odd else -each)}

    return rows


def slow(factor: float) -> Rows:
    """Rank 0 computes for longer, and the others wait."""
    return lambda run, rank, _step: {} if rank else {"compute": factor * 0.8 / run.rate}


def came_back(run: Rehearsal) -> None:
    """As torchrun does it: all ranks end and are started again."""
    for rank in list(run.ranks):
        run.die(rank)
        run.join(rank)


def failing_save(run: Rehearsal) -> None:
    run.ranks[0].checkpoint_begin("/full/disk", run.step)
    run.ranks[0].checkpoint_failed("/full/disk", run.step, "No space left on device")


SKIP_ONE = {92: turn(saving=False), 108: turn(saving=True)}
STALLED = {150: turn(stepping=False), 170: turn(stepping=True)}
THROUGHPUT = ("throughput", "throughput_sigma")
CHECKPOINTS = (
    "checkpoints_expected", "checkpoints_attempted", "checkpoints_saved", "checkpoints_verified",
)  # fmt: skip

PHASE1 = [
    fails("throughput", rows=scaled(0.8)),
    blinds(*THROUGHPUT, rows=always(samples=None)),
    fails("throughput_sigma", rows=uneven(30)),
    fails("cpu", at={0: put(cpu=0.5)}),
    blinds("cpu", at=silence("rank_cpu_ratio")),
    fails("memory", at={100: put(memory=0.9), 110: put(memory=0.5)}),
    blinds("memory", at=silence("node_memory_used_ratio")),
    fails("power", at={60: put(watts=300.0)}),
    blinds("power", at=silence("cpu_package_energy_joules_total")),
    fails("loss_finite", rows=once(1500, 1, loss=math.nan)),
    blinds("loss_finite", "loss_spikes", "loss_convergent", "gradient_norm_agreement",
           "gradient_norm_stable", rows=always(loss=None, grad_norm=None)),
    fails("loss_spikes", rows=at_step(1500, loss=50.0)),
    fails("loss_convergent", rows=lambda _run, _rank, step: {"loss": 2.0 + step * 1e-4}),
    blinds("loss_convergent", "loss_spikes", rows=always(loss=None)),
    fails("gradient_norm_agreement", rows=once(1500, 1, grad_norm=1.1)),
    fails("gradient_norm_stable",
          rows=lambda _run, _rank, step: {"grad_norm": 5.0 if 1500 < step < 1600 else 1.0}),
    blinds("gradient_norm_stable", "gradient_norm_agreement", rows=always(grad_norm=None)),
    fails("checkpoints_attempted", at=SKIP_ONE),
    fails("checkpoints_saved", at={**SKIP_ONE, 101: failing_save}),
    fails("checkpoints_verified", at={92: turn(word="broken"), 108: turn(word="whole")}),
    fails("restarts", "unplanned_failures", at={150: came_back}),
    fails("unplanned_failures", at={240: lambda run: run.die(1)}),
]  # fmt: skip

SATURATION = ("saturation", "saturation_headroom")

PHASE2A = [
    fails("throughput", "efficiency", rows=scaled(0.85)),
    blinds("throughput", "throughput_band", "efficiency", rows=always(samples=None)),
    fails("throughput_band", rows=uneven(12)),
    fails("balance", rows=slow(1.6)),
    blinds("balance", rows=always(compute=None)),
    fails("cpu", at={0: put(cpu=0.5)}),
    blinds("cpu", at=silence("rank_cpu_ratio")),
    fails("saturation", rows=always(allreduce=0.006)),
    fails("saturation_headroom", rows=always(allreduce=0.0040)),
    fails("allreduce", "saturation", rows=always(allreduce=0.06)),
    blinds("allreduce", *SATURATION, rows=always(allreduce=None)),
    fails("loss_finite", rows=once(700, 1, loss=math.nan)),
    fails("loss_spikes", rows=at_step(700, loss=50.0)),
    blinds("loss_finite", "loss_spikes", rows=always(loss=None, grad_norm=None)),
    fails("corruption", "agreement", "synchronisation", rows=once(700, 1, grad_hash=12345)),
    blinds(
        *("corruption", "agreement", "synchronisation"),
        rows=always(grad_hash=None, param_hash=None),
    ),
    fails("checkpoints_attempted", at=SKIP_ONE),
    fails("checkpoints_saved", at={**SKIP_ONE, 101: failing_save}),
    fails("checkpoints_verified", at={92: turn(word="broken"), 108: turn(word="whole")}),
    fails("restarts", "unplanned_failures", at={150: came_back}),
    fails("uptime", "throughput_band", at=STALLED),
    fails("communication", rows=always(communication=0.04)),
    blinds("communication", rows=always(communication=None)),
    fails("efficiency", rows=scaled(0.93)),
]  # fmt: skip

PHASE2B = [
    fails("throughput", "efficiency", "no_degradation", rows=scaled(0.85)),
    blinds("throughput", "efficiency", "no_degradation", rows=always(samples=None)),
    fails("efficiency", rows=scaled(0.963)),
    fails("allreduce", at={0: turn(probing=0.006)}),
    blinds("allreduce", at={0: turn(probing=0.0)}),
    fails("saturation", rows=always(allreduce=0.006)),
    blinds(*SATURATION, rows=always(allreduce=None)),
    fails("uptime", at=STALLED),
]  # fmt: skip

PHASE2C = [
    fails("throughput", "efficiency", rows=scaled(0.85)),
    blinds("throughput", "efficiency", "loss_baseline", rows=always(samples=None)),
    fails("efficiency", rows=scaled(0.97)),
    fails("allreduce", at={0: turn(probing=0.007)}),
    blinds("allreduce", at={0: turn(probing=0.0)}),
    fails("parameters", rows=once(700, 1, param_hash=12345)),
    blinds("parameters", rows=always(grad_hash=None, param_hash=None)),
    fails("saturation", rows=always(allreduce=0.006)),
    fails("loss_baseline", rows=lambda run, _rank, step: {"loss": run.loss(step) * 1.03}),
    fails("loss_finite", rows=once(700, 1, loss=math.nan)),
    blinds("loss_finite", "loss_baseline", rows=always(loss=None, grad_norm=None)),
    fails("checkpoints_attempted", at=SKIP_ONE),
    fails("checkpoints_verified", at={92: turn(word="broken"), 108: turn(word="whole")}),
    fails("uptime", "efficiency", at=STALLED),
]  # fmt: skip

ITEMS = {"phase1": PHASE1, "phase2a": PHASE2A, "phase2b": PHASE2B, "phase2c": PHASE2C}
EACH = [(phase, item) for phase, items in ITEMS.items() for item in items]
LONG = {"phase2b", "phase2c"}
"""Their criteria are those of phase 2a, over more ranks."""


def _of(phase: str) -> Any:
    """A phase as a parameter."""
    return pytest.param(phase, marks=pytest.mark.long) if phase in LONG else phase


def _tried(number: int) -> Any:
    """A fault as a parameter: long where a run of fewer ranks was tried with it."""
    phase, item = EACH[number]
    before = [each for each in EACH[:number] if each[0] != phase]
    again = any((i.name, i.name in i.failed) == (item.name, item.name in item.failed)
                for _, i in before)  # fmt: skip
    return pytest.param(phase, item, marks=pytest.mark.long if phase in LONG or again else ())


ONE_NODE = {"phase2b": {"balance"}, "phase2c": {"balance"}}
"""What one node cannot show: balance between nodes."""


@pytest.mark.parametrize("phase", [_of(phase) for phase in NODES])
def test_a_healthy_run_passes(phase: str, tmp_path: Path) -> None:
    run = Rehearsal(tmp_path, phase)
    run.run({})
    bad = {n for n, v in run.verdicts.items() if v in {FAIL, UNKNOWN}}
    assert bad == ONE_NODE.get(phase, set()), run.reasons


@pytest.mark.parametrize(
    ("phase", "item"),
    [_tried(number) for number in range(len(EACH))],
    ids=[f"{p}-{i.name}-{'fails' if i.name in i.failed else 'blind'}-{n}"
         for n, (p, i) in enumerate(EACH)],
)  # fmt: skip
def test_what_goes_wrong_has_its_consequences_and_no_others(
    phase: str, item: Item, tmp_path: Path
) -> None:
    run = Rehearsal(tmp_path, phase)
    run.of_rank = lambda rank, step: item.rows(run, rank, step)
    run.run(item.at)
    found = {
        verdict: {name for name, each in run.verdicts.items() if each is verdict}
        for verdict in (FAIL, UNKNOWN)
    }
    unknown = item.unknown | ONE_NODE.get(phase, set())
    assert found == {FAIL: set(item.failed), UNKNOWN: unknown}, run.reasons


# --- Over its nodes, with real HTTP between them --------------------------------------------------

SEVERAL = ["phase2a", "phase2b", "phase2c"]


def bad(run: Several) -> dict[Verdict, set[str]]:
    """What is not well at the leader."""
    verdicts = run.lead.verdicts.items()
    return {each: {name for name, v in verdicts if v is each} for each in (FAIL, UNKNOWN)}


@pytest.mark.parametrize("phase", [_of(phase) for phase in SEVERAL])
def test_a_healthy_run_over_its_nodes_passes_at_the_one_that_leads(
    phase: str, tmp_path: Path
) -> None:
    run = Several(tmp_path, phase)
    run.run({})
    assert bad(run) == {FAIL: set(), UNKNOWN: set()}, run.lead.reasons
    assert len(run.lead.conductor.run(run.lead.conductor.runs()[-1].id).peers) == NODES[phase] - 1


def test_a_node_that_falls_silent_leaves_nothing_known_and_fails_nothing(tmp_path: Path) -> None:
    run = Several(tmp_path, "phase2c")
    run.run({150: lambda run: run.cut(2)})
    found = bad(run)
    assert found[FAIL] == set(), run.lead.reasons
    attested = {"confidence", "readiness"}
    assert {n for n, v in run.lead.verdicts.items() if v is Verdict.PASS} == attested
    assert all("n2 has been silent for" in run.lead.reasons[name] for name in found[UNKNOWN])


def test_a_node_that_computes_longer_than_the_others_fails_their_balance(tmp_path: Path) -> None:
    run = Several(tmp_path, "phase2b")
    run.nodes[2].of_rank = lambda _rank, _step: {"compute": 1.2 * 0.8 / run.lead.rate}
    run.run({})
    assert bad(run) == {FAIL: {"balance"}, UNKNOWN: set()}, run.lead.reasons


def test_a_node_that_is_wrong_and_agrees_with_itself_is_found(tmp_path: Path) -> None:
    run = Several(tmp_path, "phase2a")
    run.nodes[1].of_rank = lambda _rank, step: {"grad_hash": 1} if step == 700 else {}
    run.run({})
    assert bad(run)[FAIL] == {"corruption", "agreement", "synchronisation"}, run.lead.reasons
