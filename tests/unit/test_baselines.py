"""Accepted runs: by name only, of runs that passed and count, each with what it measured."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock
from fakes_report import ARMED, plan, rows, run, write
from fakes_runs import BEGAN, LENGTH, healthy
from fakes_scaling import point
from hypothesis import given
from hypothesis import strategies as st

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.control import Peer
from dvfd.errors import DvfdError
from dvfd.people.attestations import Attestations
from dvfd.runs.baselines import (
    WINDOWS,
    Accepted,
    Baselines,
    job_hash,
    measure,
    operations,
    thinned,
)
from dvfd.runs.parts import context
from dvfd.runs.run import Run, Stage
from dvfd.runs.tally import Tally
from dvfd.runs.training import hash_of
from dvfd.runs.verdicts import judged
from dvfd.scaling.ledger import Ledger
from dvfd.scaling.points import DAY, Point
from dvfd.store.run_reading import digest

HOUR = 3600.0
ROWS = rows(HOUR)


class Shelf:
    """Records as the store keeps them: JSON."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], str] = {}

    def put(self, kind: str, key: str, document: Any) -> None:
        self.records[kind, key] = json.dumps(document)

    def all(self, kind: str) -> dict[str, Any]:
        return {key: json.loads(text) for (of, key), text in self.records.items() if of == kind}


class Bench:
    """Runs that are over, with their files and reports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.shelf, self.clock = Shelf(), FakeClock()
        self.book = Baselines(directory, self.shelf, self.clock)
        self.ledger = Ledger(self.shelf, self.book, self.clock)

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
        made = bench.run(name, plan=Bench.plan(check=check, processes=processes))
        bench.accept(made)

    smaller = {n: bench.book.smaller(n, job_hash(made)) for n in (4, 8, 12, 16)}
    assert {n: e.run if e else None for n, e in smaller.items()} == {
        4: None, 8: "a", 12: "b", 16: "c",
    }  # fmt: skip


def test_a_smaller_run_of_another_training_is_never_compared_with(bench):
    bench.accept(bench.run("a", plan=Bench.plan(check="p1", processes=4)))
    other = run(plan=Bench.plan(check="p2a", processes=8, argv=("torchrun", "y.py")))
    assert bench.book.smaller(8, job_hash(other)) is None


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

    found = context(Config(), people, bench.book, bench.ledger, later)
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


# --- One process, within a day --------------------------------------------------------------------


def held(bench: Bench, *singles: Point) -> Any:
    """What a run of 8 processes is held against where those were measured."""
    later = run(plan=Bench.plan(check="stability_phase2a", processes=8))
    for single in singles:
        made = replace(single, configuration=job_hash(later), processor="")
        bench.clock.step(max(0.0, made.ended - bench.clock.now()))
        bench.ledger.measured({"point": made.to_document()}, "root")
    people = Attestations(load(Config()), bench.shelf, bench.clock)
    return context(Config(), people, bench.book, bench.ledger, later)


def one(throughput: float, *, before: float) -> Point:
    at = ARMED - before
    return point(1, throughput, began=at - 180.0, ended=at)


def test_a_run_is_held_against_the_median_of_what_one_process_made_that_day(bench):
    found = held(bench, *(one(x, before=3600.0) for x in (60.0, 62.0, 70.0)))
    assert (found.single_process, found.unbased) == (62.0, "")
    assert "against 62 samples/s on one process, measured for 3 min" in "".join(
        found.accepted.values()
    )


def test_what_one_process_made_two_days_before_is_no_baseline(bench):
    found = held(bench, one(62.0, before=2 * DAY))
    assert found.single_process is None
    assert "dvfd scaling measure --processes 1" in found.unbased


def test_without_it_an_efficiency_is_unknown_whatever_the_profile_says(bench):
    later = run(plan=Bench.plan(check="stability_phase2a", processes=8))
    people = Attestations(load(Config()), bench.shelf, bench.clock)
    config = Config(profile={"single_process_throughput": 62.5})
    found = context(config, people, bench.book, bench.ledger, later)
    assert found.single_process is None


def test_an_accepted_run_stands_in_the_ledger_with_its_windows(bench):
    made = bench.run()
    found = bench.accept(made)
    (at,) = bench.ledger.points()
    assert (at.how, at.name, at.processes) == ("run", "a", 4)
    assert at.throughput == found.measured.throughput
    assert at.configuration == job_hash(made)
    assert 8 <= len(at.windows) <= WINDOWS
    assert math.fsum(at.windows) / len(at.windows) == pytest.approx(at.throughput, rel=1e-3)
    assert (at.began, at.ended) == (made.armed_at + made.began_t, made.ended_at)
    assert at.proves == ""


def test_a_run_that_was_replaced_stands_in_it_no_more(bench):
    bench.accept(bench.run("a"))
    bench.accept(bench.run("b"), replaces="a")
    assert [p.name for p in bench.ledger.points()] == ["b"]


def test_one_accepted_in_spite_of_something_says_so_in_the_ledger(bench):
    bench.accept(bench.run(verdict="FAIL"), override="first try")
    (at,) = bench.ledger.points()
    assert "in spite of: its verdict is FAIL; first try" in at.words


def test_a_shortened_run_that_was_accepted_all_the_same_passes_nothing(bench):
    short = Bench.plan(planned=2 * HOUR)
    bench.accept(bench.run(plan=short), override="first try")
    (at,) = bench.ledger.points()
    assert "does not count, shortened: 60 min of 120 min" in at.proves


# --- Which training -------------------------------------------------------------------------------

REFERENCE = "dvfd.drills.reference_job"


@pytest.mark.parametrize(
    "command",
    [
        f"python -m torch.distributed.run --nproc_per_node=4 -m {REFERENCE} --job=phase1",
        f"python -m torch.distributed.run --nproc_per_node=1 /a/b/bare.py {REFERENCE}",
        f"torchrun --nnodes=2 -m {REFERENCE} --backend=gloo --checkpoint-dir=/x",
        "tests/phase1_24hr_stability.py --backend=gloo --duration 60 --force",
        "/opt/tests/48hr_4node_stability.py",
    ],
)
def test_the_reference_job_is_one_training_however_it_is_started(command):
    assert hash_of(command.split(), "any") == hash_of(["-m", REFERENCE], "other")


@pytest.mark.parametrize(
    "command",
    [
        "x.py --batch 8",
        "x.py",
        "y.py --batch 4",
        "-m x --batch 4",
        f"-m {REFERENCE} --batch=8",
        "x",
    ],
)
def test_other_words_are_another_training(command):
    assert hash_of(command.split(), "gpt") != hash_of(["x.py", "--batch", "4"], "gpt")


def test_a_training_that_dvfd_did_not_start_goes_by_its_name():
    assert hash_of((), "a") != hash_of((), "b")
    assert hash_of(["srun", "thing"], "a") == hash_of((), "a")
