"""Gradients and loss over several nodes: of which size, who judges, what speaks against it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fakes_drills import judged, site, task, verdicts
from fakes_training import FakeWorker

from dvfd.drills import convergence, fleet, gradient, inside, known_answers, pairs
from dvfd.drills.convergence import Convergence
from dvfd.drills.curve import Configuration
from dvfd.drills.drill import Fact, Options, Task
from dvfd.drills.findings import Findings
from dvfd.drills.fleet import Answer, Heard, Met
from dvfd.drills.gradient import Gradients
from dvfd.drills.known_answers import KnownAnswers
from dvfd.drills.pairs import NODES, Plan, Run, Shelf
from dvfd.drills.supervise import supervise
from dvfd.errors import ProbeError
from dvfd.gates.decide import again
from dvfd.gates.proof import Size
from dvfd.model import Verdict
from dvfd.shell import Output

FIXTURES = Path(__file__).parents[1] / "fixtures" / "gradient"
MET = (Met("n1", "127.0.0.1", "lo", (0, 1)), Met("n2", "127.0.0.2", "lo", (2, 3)))


def toml(me: str = "n1") -> str:
    nodes = "".join(f"[[cluster.nodes]]\nname = '{m.name}'\naddress = '{m.address}'\n" for m in MET)
    return f"node.name = '{me}'\nprofile.processes_per_node = 2\n[cluster]\nlead = 'n1'\n{nodes}"


def between(check: str, directory: Path, me: str = "n1", **world: Any) -> Task:
    """A task of two nodes with two ranks each."""
    chosen = {"options": Options(nodes=2)} | world
    return task(check, directory, toml=toml(me), **chosen)


def heard(chosen: Task, exercise: str, values: dict[int, Any], **failures: str) -> None:
    """Have the ranks say *values*."""
    told = {int(rank[1:]): why for rank, why in failures.items()}
    seen = Answer(MET, {exercise: Heard(values, told)}, "2.13.0")
    chosen.memo.once(("fleet", chosen.check.id), lambda: seen)


# --- Sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [Gradients(), KnownAnswers(), Convergence()])
def test_on_one_node_nothing_is_done_between_nodes(part: fleet.Between, tmp_path: Path) -> None:
    assert not part.exercises(task("gradient_sync", tmp_path))


@pytest.mark.parametrize(("nodes", "batch"), [(2, 32), (3, 48), (4, 64)])
def test_the_batch_grows_with_the_ranks_of_all_nodes(
    tmp_path: Path, nodes: int, batch: int
) -> None:
    chosen = task("loss_convergence", tmp_path, options=Options(nodes=nodes))
    (exercise,) = Convergence().exercises(chosen)
    model = exercise.options["model"]
    assert (model["batch"], model["warm_up"]) == (batch, 50 * batch)


def test_all_nodes_are_asked_the_same_whatever_each_has(tmp_path: Path) -> None:
    """They compare what is to be done: a different line would end the test."""
    one, other = (
        between("gradient_sync", tmp_path / me, me, training=job)
        for me, job in (("n1", ""), ("n2", "gpt"))
    )
    assert fleet.asked(one) == fleet.asked(other) != []


def test_a_torchrun_of_another_size_is_told_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "6")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    chosen = between("gradient_sync", tmp_path, options=Options(nodes=2, inside=True))
    wanted = "torchrun started 6 ranks, wanted 4: give --nnodes=2 --nproc_per_node=2"
    with pytest.raises(ProbeError, match=wanted):
        list(Gradients().run(chosen))


@pytest.mark.parametrize(("told", "nodes"), [({}, 1), ({"GROUP_WORLD_SIZE": "3"}, 3)])
def test_the_launcher_says_how_many_nodes_there_are(told: dict[str, str], nodes: int) -> None:
    assert inside.nodes(told) == nodes


def test_who_did_not_come_is_named(tmp_path: Path) -> None:
    def alone(argv: Any, **how: Any) -> Output:
        return Output(1, "", "RendezvousTimeoutError: no", 0.1)

    with pytest.raises(fleet.NotMet, match="n2 did not come to n1"):
        fleet.answer(between("gradient_sync", tmp_path, run=alone))


# --- Gradients ------------------------------------------------------------------------------------


@pytest.fixture
def answer() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / "answer.json").read_text())
    return found | {"seconds": 14400.0}


def gradients(chosen: Task, values: dict[int, Any], **failures: str) -> Findings:
    heard(chosen, gradient.BETWEEN, values, **failures)
    return supervise(chosen, [Gradients()])


def test_one_world_of_both_nodes_is_judged_and_tells_who_came(
    answer: dict[str, Any], tmp_path: Path
) -> None:
    chosen = between("gradient_sync", tmp_path)
    found = gradients(chosen, {0: {"answer": answer}, 1: {}, 2: {"answer": answer}, 3: {}})
    assert verdicts(judged(chosen, found))["agreement"] is Verdict.PASS
    assert {"node n1", "node n2"} <= {fact.name for fact in found.facts}


def test_a_collective_that_failed_on_another_node_fails_here(
    answer: dict[str, Any], tmp_path: Path
) -> None:
    chosen = between("gradient_sync", tmp_path)
    cut, note = answer | {"done": False}, {"time": 1.0, "rank": "2 (n2)", "at": "float32, step 9"}
    said = {0: {"answer": cut}, 1: {}, 2: {"note": note | {"error": "closed"}, "answer": cut}}
    found = judged(chosen, gradients(chosen, said, r3="rank 3 (n2) gave no sign of life for 20 s"))
    assert found["failures"].verdict is Verdict.FAIL
    assert "rank 2 (n2), float32, step 9: closed" in found["failures"].note
    assert "rank 3 (n2) gave no sign of life" in found["failures"].note


def test_ranks_that_all_fell_leave_everything_unknown(tmp_path: Path) -> None:
    chosen = between("gradient_sync", tmp_path)
    found = judged(chosen, gradients(chosen, {}, r0="ValueError: the text differs"))
    assert found["agreement"].verdict is Verdict.UNKNOWN
    assert "the text differs" in found["agreement"].reason


def test_a_training_job_is_told_to_the_others_and_not_refused_behind_their_backs(
    answer: dict[str, Any], tmp_path: Path
) -> None:
    chosen = between("gradient_sync", tmp_path, training="gpt, 4 ranks")
    found = gradients(chosen, {0: {"answer": answer}})
    assert not found.troubles  # the ranks themselves were asked


# --- Known answers --------------------------------------------------------------------------------


def core(cpu: int, result: str) -> dict[str, Any]:
    return {"cpu": cpu, "seconds": 1.0, "bytes": 8, "results": {"sum": [result]}, "raised": {}}


def node_said(*results: str) -> dict[str, Any]:
    cores = [core(cpu, result) for cpu, result in enumerate(results)]
    document = {"software": "torch", "operations": ["sum"], "cores": cores}
    return {"processors": list(range(len(cores))), "document": document}


def known(chosen: Task, one: Any, other: Any) -> Findings:
    heard(chosen, known_answers.BETWEEN, {0: one, 1: {}, 2: other, 3: {}})
    return supervise(chosen, [KnownAnswers()])


@pytest.mark.parametrize("ill", [0, 1])
def test_a_wrong_processor_of_any_node_fails_and_is_named(tmp_path: Path, ill: int) -> None:
    chosen = between("gradient_sync", tmp_path)
    said = [node_said("a", "a", "b") if i == ill else node_said("a", "a") for i in range(2)]
    found = judged(chosen, known(chosen, *said))
    assert found["known_answers"].verdict is Verdict.FAIL
    assert f"n{ill + 1}: processor 2: sum gave other bits" in found["known_answers"].note


def test_a_node_without_known_answers_leaves_them_unknown(tmp_path: Path) -> None:
    chosen = between("gradient_sync", tmp_path)
    found = judged(chosen, known(chosen, node_said("a", "a"), {}))
    assert found["known_answers"].verdict is Verdict.UNKNOWN
    assert "n2: no sound known answers" in found["known_answers"].reason


# --- Loss -----------------------------------------------------------------------------------------


def plan() -> Plan:
    asked = Configuration(batch=16, warm_up=800, torch="2.13.0", text="abc", samples=16000)
    return Plan(asked, 57600.0)


def trained(chosen: Task, worker: FakeWorker, **change: Any) -> Findings:
    """The drill once both nodes have trained seed 1 of the plan and the lead keeps its curve."""
    state = pairs.among(chosen.state, ["n1", "n2"])
    run = Run(Shelf(state, 57600.0, 4).home(plan()), 1, 4)
    told = chosen.scratch / "told.json"
    told.write_text(json.dumps(asdict(plan().configuration)))
    if chosen.config.node.name == "n1":
        worker.train({"--plan": str(told), "--seed": "1"}, 4, run.file)
    said = {"plan": asdict(plan()), "seed": 1, "speed": 100.0, "refused": ""} | change
    heard(chosen, convergence.BETWEEN, {0: said, 1: {}, 2: {}, 3: {}})
    return supervise(chosen, [Convergence()])


@pytest.fixture
def worker() -> FakeWorker:
    found = FakeWorker()
    found.speeds = {1: 0.4, 4: 1.0}
    found.gaps = {1: 0.1, 4: 0.1}
    return found


def test_the_lead_trains_one_process_alone_and_compares(tmp_path: Path, worker: FakeWorker) -> None:
    chosen = between("loss_convergence", tmp_path, run=worker)
    found = trained(chosen, worker)
    assert worker.trained == [(1, 4), (1, 1)]
    assert verdicts(judged(chosen, found))["curve"] is Verdict.PASS
    assert any(isinstance(f, Fact) and "1 pair of 4 processes and 1" in f.text for f in found.facts)


def test_another_node_only_took_part(tmp_path: Path, worker: FakeWorker) -> None:
    found = trained(between("loss_convergence", tmp_path, "n2", run=worker), worker)
    assert found.elsewhere == "n1"
    assert not found.samples
    assert not worker.trained


def test_training_that_failed_is_unknown_on_every_node_in_its_words(tmp_path: Path) -> None:
    for me in ("n1", "n2"):
        chosen = between("loss_convergence", tmp_path / me, me)
        heard(chosen, convergence.BETWEEN, {0: {}}, r2="rank 2 (n2) gave no sign of life")
        rows = list(supervise(chosen, [Convergence()]).troubles)
        assert {row.text for row in rows} == {"training failed: rank 2 (n2) gave no sign of life"}


def test_a_curve_that_the_lead_does_not_have_is_not_compared(
    tmp_path: Path, worker: FakeWorker
) -> None:
    found = trained(between("loss_convergence", tmp_path, run=worker), worker, seed=2)
    assert not found.samples
    assert worker.trained == [(1, 4)]


@pytest.mark.parametrize("change", [{"plan": 3}, {"seed": None}, {"speed": "fast"}])
def test_an_answer_that_the_worker_does_not_write_is_refused(
    tmp_path: Path, worker: FakeWorker, change: dict[str, Any]
) -> None:
    found = trained(between("loss_convergence", tmp_path, run=worker), worker, **change)
    assert all("wanted what they write" in trouble.text for trouble in found.troubles)
    assert found.troubles


def test_curves_of_other_nodes_are_never_compared(tmp_path: Path) -> None:
    assert pairs.among(tmp_path, ["n1", "n2"]) == pairs.among(tmp_path, ["n2", "n1"])
    assert pairs.among(tmp_path, ["n1", "n3"]) != pairs.among(tmp_path, ["n1", "n2"])


def test_beginning_anew_on_one_node_leaves_those_of_several(tmp_path: Path) -> None:
    of_several, of_one = pairs.among(tmp_path, ["n1", "n2"]), tmp_path / "abc"
    for place in (of_several, of_one):
        place.mkdir()
    pairs.put_aside(tmp_path, 7)
    assert of_several.exists()
    assert of_several.name.startswith(NODES)
    assert (tmp_path / "aside-7/abc").exists()


# --- Gates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", ["gradient_sync", "loss_convergence", "pytorch", "network"])
def test_what_a_gate_says_to_type_is_of_the_phases_nodes(check: str) -> None:
    said = again(site("")[1].checks[check], Size(processes=8, nodes=2))
    assert said == f"dvfd check {check} --nodes 2, on each node"


def test_what_has_no_ranks_is_typed_as_it_is() -> None:
    checks = site("")[1].checks
    assert again(checks["monitoring"], Size(processes=8, nodes=2)) == "dvfd check monitoring"
