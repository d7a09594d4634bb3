"""Accepted runs: by name only, of runs that passed and count, each with what it measured."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock
from fakes_report import plan, rows, run, write
from fakes_runs import BEGAN, LENGTH, healthy
from hypothesis import given
from hypothesis import strategies as st

from dvfd.attestations import Attestations
from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.control import Peer
from dvfd.errors import DvfdError
from dvfd.runs.baselines import Accepted, Baselines, job_hash, measure, operations, thinned
from dvfd.runs.parts import context
from dvfd.runs.run import Run, Stage
from dvfd.runs.tally import Tally
from dvfd.runs.verdicts import judged
from dvfd.store.run_file import digest

HOUR = 3600.0
ROWS = rows(HOUR)


class Shelf:
    """Records as the store keeps them: JSON."""

    def __init__(self) -> None:
        self.records: dict[str, str] = {}

    def put(self, kind: str, key: str, document: Any) -> None:
        self.records[key] = json.dumps(document)

    def all(self, kind: str) -> dict[str, Any]:
        return {key: json.loads(text) for key, text in self.records.items()}


class Bench:
    """Runs that are over, with their files and reports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.shelf, self.clock = Shelf(), FakeClock()
        self.book = Baselines(directory, self.shelf, self.clock)

    def run(self, name: str = "a", *, verdict: str = "PASS", **more: Any) -> Run:
        made = run(lasted=HOUR, id=name, plan=more.pop("plan", self.plan()), **more)
        file = write(self.directory / f"{name}.db", made, ROWS)
        file.put_document(made.to_document() | {"context": {"single_process": 60.0}})
        report = {"verdict": verdict, "hashes": {"evidence": file.freeze(), "profile": "ab"}}
        path = self.directory / f"{name}.json"
        path.write_text(json.dumps(report))
        return replace(made, frozen=digest(path))

    @staticmethod
    def plan(**more: Any) -> Any:
        return replace(plan(), **{"planned": HOUR, "duration": HOUR, **more})

    def accept(self, of: Run, **more: Any) -> Accepted:
        return self.book.accept(of, {"name": "Ann Lee", **more}, "root")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_run_that_passed_and_counts_is_accepted_with_what_it_measured(bench):
    found = bench.accept(bench.run(), note="quiet night")

    assert (found.run, found.check, found.processes, found.by) == (
        "a", "stability_phase1", 4, "Ann Lee",
    )  # fmt: skip
    assert found.measured.low < found.measured.throughput < found.measured.high
    assert math.isclose(found.measured.efficiency, found.measured.throughput / 240)
    assert len(found.measured.curve) > 10
    assert (found.override, found.reasons, found.submitted) == ("", (), "root")
    assert bench.book.standing() == [found]


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [
        ({"verdict": "FAIL"}, "its verdict is FAIL"),
        ({"verdict": "UNKNOWN"}, "its verdict is UNKNOWN"),
        ({"stage": Stage.ABORTED, "reason": "the node burnt"}, "it is aborted: the node burnt"),
        ({"plan": Bench.plan(planned=86_400.0)}, "shortened: 60 min of 24 h"),
        ({"plan": Bench.plan(discounts=("ranks share cores",))}, "ranks share cores"),
    ],
)
def test_what_did_not_pass_or_does_not_count_is_refused(bench, spoilt, says):
    with pytest.raises(DvfdError, match=says):
        bench.accept(bench.run(**spoilt))
    assert not bench.shelf.records


def test_it_is_accepted_all_the_same_with_a_reason_and_every_reader_is_told(bench):
    found = bench.accept(bench.run(verdict="FAIL"), override="the network was moved")

    assert found.reasons == ("its verdict is FAIL",)
    assert found.words == (
        "against run a, accepted by Ann Lee, in spite of: its verdict is FAIL: "
        "the network was moved"
    )


def test_an_override_that_was_not_needed_is_none(bench):
    assert bench.accept(bench.run(), override="to be safe").override == ""


@pytest.mark.parametrize("name", ["", "  ", None, "A\nB", "x" * 101])
def test_without_a_proper_name_nobody_accepts(bench, name):
    with pytest.raises(DvfdError, match="name: "):
        bench.accept(bench.run(), name=name)


def test_a_run_without_a_report_is_refused(bench):
    with pytest.raises(DvfdError, match="has no report"):
        bench.accept(replace(bench.run(), frozen=""))


def test_a_report_that_was_changed_is_refused(bench):
    made = bench.run(verdict="FAIL")
    path = bench.directory / "a.json"
    path.write_text(path.read_text().replace("FAIL", "PASS"))

    with pytest.raises(DvfdError, match="it was changed"):
        bench.accept(made)


def test_a_file_that_is_not_the_one_of_the_report_is_refused(bench):
    made = bench.run()
    path = bench.directory / "a.db"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b"x")

    with pytest.raises(DvfdError, match="the report was made of"):
        bench.accept(made)


def test_it_is_replaced_only_by_who_names_it_and_stays_on_record(bench):
    bench.accept(bench.run("a"))
    second = bench.run("b")
    with pytest.raises(DvfdError, match="--replace a puts b in its place"):
        bench.accept(second)
    with pytest.raises(DvfdError, match="--replace a"):
        bench.accept(second, replaces="c")

    assert bench.accept(second, replaces="a").replaces == "a"
    assert [e.run for e in bench.book.history("stability_phase1")] == ["a", "b"]
    assert [e.run for e in bench.book.standing()] == ["b"]


def test_a_place_that_is_empty_cannot_be_replaced(bench):
    with pytest.raises(DvfdError, match="no run of stability_phase1 is accepted"):
        bench.accept(bench.run(), replaces="z")


def test_the_next_smaller_process_count_is_found(bench):
    for name, check, processes in (("a", "p1", 4), ("b", "p2a", 8), ("c", "p2b", 12)):
        bench.accept(bench.run(name, plan=Bench.plan(check=check, processes=processes)))

    smaller = {n: bench.book.smaller(n) for n in (4, 8, 12, 16)}
    assert {n: e.run if e else None for n, e in smaller.items()} == {
        4: None, 8: "a", 12: "b", 16: "c",
    }  # fmt: skip


def test_the_curve_is_that_of_the_same_training(bench):
    made = bench.run()
    bench.accept(made)

    assert bench.book.baseline_curve(job_hash(made)) == bench.book.standing()[0].measured.curve
    assert bench.book.baseline_curve("another") == ()


def argv(*words: str) -> Run:
    return run(plan=plan(argv=words))


def test_a_training_is_the_same_wherever_it_runs_and_keeps_its_checkpoints():
    one = argv("torchrun", "--nproc-per-node=4", "t.py", "--lr", "1", "--job=a")
    other = argv("torchrun", "--nnodes=2", "t.py", "--lr", "1", "--checkpoint-dir", "/x")
    third = argv("torchrun", "--nnodes=2", "t.py", "--lr", "2")

    assert job_hash(one) == job_hash(other) != job_hash(third)


def test_a_training_that_dvfd_did_not_start_goes_by_the_name_of_its_job():
    assert job_hash(run(plan=plan(argv=(), job="a"))) != job_hash(run(plan=plan(argv=(), job="b")))


def test_a_record_comes_back_whole_from_the_store(bench):
    made = bench.accept(bench.run())
    assert bench.book.history(made.check) == [made]


@given(st.integers(0, 9000))
def test_thinning_keeps_both_ends_the_order_and_at_most_2000_points(count):
    points = [(float(n), 1.0 / (n + 1)) for n in range(count)]
    kept = thinned(points)

    assert len(kept) == min(count, 2000)
    assert list(kept) == sorted(set(kept))
    assert thinned(points) == kept
    assert not points or (kept[0], kept[-1]) == (points[0], points[-1])


def test_a_healthy_run_measures_what_it_was_made_of():
    story = healthy()
    found = measure(story.run(), story.windows, 62.5)

    assert math.isclose(found.throughput, 280, rel_tol=1e-6)
    assert math.isclose(found.efficiency, 1.12, rel_tol=1e-6)
    assert math.isclose(found.communication, 0.1, rel_tol=1e-6)
    assert found.curve[0][1] > found.curve[-1][1]


def test_the_same_run_again_agrees_with_its_own_curve(bench):
    """What is kept is what the tally compares with."""
    story = healthy("stability_phase2c")
    kept = measure(story.run(), story.windows, 62.5).curve
    story.context = replace(
        story.context, baseline=kept, accepted={"run_loss_baseline_ratio": "against run x"}
    )
    tally = Tally(story.run().plan, story.context)
    for row in story.rows():
        tally.add(row)
    found = judged(story.check, story.run(), tally, t=BEGAN + LENGTH, at=0.0)

    result = next(j.result for j in found if j.result.criterion.id.endswith("loss_baseline"))
    assert result.verdict == "PASS", result.reason
    assert result.reason.endswith("against run x")


def test_a_later_run_is_held_against_what_was_accepted(bench):
    first = bench.accept(bench.run("a", plan=Bench.plan(check="p1", processes=4)))
    later = run(plan=Bench.plan(check="stability_phase2a", processes=8))
    people = Attestations(load(Config()), bench.shelf, bench.clock)

    found = context(Config(), people, bench.book, later)
    assert found.smaller_efficiency == first.measured.efficiency
    assert found.baseline == first.measured.curve
    assert set(found.accepted.values()) == {first.words}


def test_the_operation_says_who_submitted_and_curves_by_their_length(bench):
    made = bench.run()
    found = operations(bench.book, lambda _id: made)
    answer = found["stability_accept"].answer({"id": "a", "name": "Ann"}, Peer(1, 0, 0))
    listed = found["stability_accepted"].answer({}, Peer(1, 0, 0))

    assert answer["submitted"] == "root"
    assert found["stability_accept"].changes
    assert isinstance(listed["accepted"][0]["measured"]["curve"], int)
