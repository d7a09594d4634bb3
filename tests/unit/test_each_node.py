"""A test of each node, made on several: what passes has passed on every one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock
from fakes_drills import judged, site, task, verdicts

from dvfd import drills
from dvfd.drills import each
from dvfd.drills.drill import Fact, Options, Task, Trouble
from dvfd.drills.findings import Findings
from dvfd.drills.fleet import Answer, Heard, Met
from dvfd.drills.version import encode
from dvfd.model import Result, Sample, Verdict, labels

AT = 1000.0
CHECK = site("")[1].checks["pytorch"]
NODES = tuple(Met(f"n{i + 1}", f"10.0.0.{i + 1}", "eth0", (i,)) for i in range(2))


def found(*, torch: str = "2.13.0", cores: float = 16, **change: Any) -> Findings:
    """What a node found whose torch is in order, unless it is said to be another."""
    samples = (
        Sample("software_version", encode(torch), AT, labels(package="torch")),
        Sample("backend_available", 1, AT, labels(backend="gloo")),
        Sample("torch_visible_cores", cores, AT),
        Sample("torch_threads_ratio", 1, AT, labels(rank=0)),
    )
    facts = (Fact("torch", "2.13.0"),)
    whole = Findings(
        check="pytorch", began=AT - 9, ended=AT, samples=samples, facts=facts, processes=4
    )
    return replace(whole, **change)


def begun(directory: Path, *, toml: str = "", **options: Any) -> Task:
    world = {"clock": FakeClock(AT), "options": Options(**options)}
    return task("pytorch", directory, toml=toml, **world)


def report(directory: Path, *nodes: Findings) -> dict[str, Result]:
    named = {f"n{i + 1}": node for i, node in enumerate(nodes)}
    return judged(begun(directory), each.together(CHECK, named, at=AT))


def test_what_passes_on_all_nodes_passes(tmp_path: Path) -> None:
    assert set(verdicts(report(tmp_path, found(), found())).values()) == {
        Verdict.PASS,
        Verdict.NOT_APPLICABLE,
    }


@pytest.mark.parametrize("ill", [0, 1])
def test_what_fails_on_one_node_fails_and_names_it(tmp_path: Path, ill: int) -> None:
    nodes = [found(cores=4 if i == ill else 16) for i in range(2)]
    cores = report(tmp_path, *nodes)["cores"]
    assert cores.verdict is Verdict.FAIL
    assert f"n{ill + 1} FAIL" in cores.note


def test_what_one_node_did_not_measure_is_unknown(tmp_path: Path) -> None:
    blind = found(samples=found().samples[:2], troubles=(Trouble("torch_visible_cores", "hung"),))
    cores = report(tmp_path, found(), blind)["cores"]
    assert cores.verdict is Verdict.UNKNOWN
    assert "n2: hung" in cores.reason


def test_a_failure_outweighs_what_was_not_measured(tmp_path: Path) -> None:
    failed, blind = found(torch="2.0.0"), found(samples=found().samples[1:])
    version = report(tmp_path, blind, failed)["version"]
    assert version.verdict is Verdict.FAIL
    assert "n1 UNKNOWN, n2 FAIL" in version.note


def test_a_failure_hides_no_blindness_of_another_node_in_the_same_metric(tmp_path: Path) -> None:
    """Two criteria look at backend_available; n1 fails in one, n2 says nothing of the other."""
    nccl = Sample("backend_available", 1, AT, labels(backend="nccl"))
    broken = Sample("backend_available", 0, AT, labels(backend="gloo"))
    nodes = {"n1": found(samples=(nccl, broken)), "n2": found()}
    chosen = begun(tmp_path, toml="profile.backend = 'nccl'")
    results = judged(chosen, each.together(chosen.check, nodes, at=AT))
    assert results["gloo"].verdict is Verdict.FAIL
    assert results["backend_nccl"].verdict is Verdict.UNKNOWN
    assert "n2: no sample of backend_available" in results["backend_nccl"].reason


def test_the_run_is_of_the_processes_of_all_nodes_and_as_long_as_the_shortest() -> None:
    whole = each.together(CHECK, {"n1": found(ran=5.0), "n2": found(ran=3.0)}, at=AT)
    assert (whole.processes, whole.ran) == (8, 3.0)
    assert [fact.text for fact in whole.facts] == ["n1: 2.13.0", "n2: 2.13.0"]


def test_where_the_others_are_not_heard_nothing_passes(tmp_path: Path) -> None:
    alone = begun(tmp_path, nodes=2)  # without [[cluster.nodes]]
    results = judged(alone, each.of_all(alone, found()))
    assert Verdict.PASS not in verdicts(results).values()
    assert "of 2 nodes this one alone is known" in results["cores"].reason


def test_what_a_node_tells_of_another_check_is_refused(tmp_path: Path) -> None:
    chosen = begun(tmp_path, nodes=2)
    said = {0: found().to_dict(), 1: found(check="hardware").to_dict()}
    answer = Answer(NODES, {each.TOLD: Heard(said, {})}, "2.13.0")
    chosen.memo.once(("fleet", "pytorch"), lambda: answer)
    results = judged(chosen, each.of_all(chosen, found()))
    assert "n2 tells of hardware, wanted pytorch" in results["cores"].reason


@pytest.mark.parametrize(
    ("check", "nodes", "is_one"),
    [("pytorch", 2, True), ("openmpi_gloo", 4, True), ("pytorch", 0, False),
     ("gradient_sync", 2, False), ("network", 2, False), ("monitoring", 2, False)],
)  # fmt: skip
def test_which_tests_are_of_each_node(tmp_path: Path, check: str, nodes: int, is_one: bool) -> None:
    chosen = task(check, tmp_path, options=Options(nodes=nodes))
    assert each.wanted(chosen, drills.build(check)) is is_one
