"""Collectives between nodes: each criterion with a sad and a silent path, and the words beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes_between import Cluster, heard
from fakes_collectives import MS, spread
from fakes_drills import judged

from dvfd.drills import gloo_multi_node, sweep
from dvfd.drills.collectives import Measured, exercise, measured
from dvfd.model import Result

TREE = {("tree", "64KiB"): MS // 2}


def results(directory: Path, cluster: Cluster, toml: str = "") -> dict[str, Result]:
    return judged(*cluster.tried("gloo_multi_node", directory, toml))


def facts(directory: Path, cluster: Cluster) -> dict[str, str]:
    return {f.name: f.text for f in cluster.tried("gloo_multi_node", directory)[1].facts}


def test_a_cluster_that_does_all_of_it_passes_all_of_it(tmp_path: Path) -> None:
    found = results(tmp_path, Cluster(TREE))
    assert {r.verdict for r in found.values()} == {"PASS"}
    assert found["barrier_latency"].observed == pytest.approx(0.002, rel=1e-3)
    assert found["speedup"].observed == pytest.approx(8.08)


@pytest.mark.parametrize(
    ("operation", "algorithm", "criterion"),
    [
        ("all_reduce", "ring", "ring_correct"),
        ("all_reduce", "builtin", "ring_correct"),
        ("all_reduce", "half", "ring_correct"),
        ("all_reduce", "tree", "tree_correct"),
        ("all_gather", "builtin", "gather_correct"),
    ],
)
def test_one_wrong_result_fails_what_it_is_of_and_says_whose(
    tmp_path: Path, operation: str, algorithm: str, criterion: str
) -> None:
    wrong = {"wrong": 1, "example": "rank 5: 3 elements"}
    found = results(tmp_path, Cluster(TREE, rows={(operation, algorithm): wrong}))
    assert [name for name, r in found.items() if r.verdict == "FAIL"] == [criterion]
    assert "wrong; rank 5: 3 elements" in found[criterion].note


def test_bandwidth_is_what_a_link_carries_by_all_ranks_and_by_half_of_them(tmp_path: Path) -> None:
    times = {**TREE, ("builtin", "bucket"): 200 * MS, ("half", "bucket"): 100 * MS}
    found = results(tmp_path, Cluster(times))["busbw"]
    assert found.observed == pytest.approx((25 << 20) / 0.2 * 2 * 7 / 8)
    assert found.verdict == "FAIL"
    assert f"{(25 << 20) / 0.1 * 2 * 3 / 4 * 0.9:.6g}"[:4] in found.reason.replace("e+08", "")


def test_bandwidth_that_holds_as_the_ranks_double_passes(tmp_path: Path) -> None:
    times = {**TREE, ("builtin", "bucket"): 120 * MS, ("half", "bucket"): 100 * MS}
    assert results(tmp_path, Cluster(times))["busbw"].verdict == "PASS"


def test_one_rank_on_each_node_has_no_half_to_compare_with(tmp_path: Path) -> None:
    found = results(tmp_path, Cluster(TREE), "[profile]\nprocesses_per_node = 1\n")["busbw"]
    assert found.verdict == "UNKNOWN"
    assert "there is no half" in found.reason


def test_a_tree_that_is_slower_than_the_ring_fails(tmp_path: Path) -> None:
    found = results(tmp_path, Cluster({("tree", "64KiB"): 2 * MS}))["tree_faster"]
    assert (found.verdict, found.observed) == ("FAIL", pytest.approx(2.0))


def test_a_tree_that_may_be_either_is_unknown(tmp_path: Path) -> None:
    wide = {"slowest": [MS + 1000 * (n // 10 % 2 * 2 - 1) for n in range(100)]}
    found = judged(*Small(rows={("all_reduce", "tree"): wide}).tried("gloo_multi_node", tmp_path))[
        "tree_faster"
    ]
    assert found.verdict == "UNKNOWN"
    assert "straddles" in found.reason


class Small(Cluster):
    """Changed rows are of messages that are timed 100 times only."""

    def _row(self, asked: Any) -> dict[str, Any]:
        row = super()._row(asked)
        if len(row["slowest"]) != asked["iterations"]:
            row["slowest"] = spread(MS, asked["iterations"])
        return row


def test_a_share_that_is_lost_or_out_of_place_fails(tmp_path: Path) -> None:
    found = results(tmp_path, Cluster(TREE, whole=7))["gather_whole"]
    assert (found.verdict, found.observed) == ("FAIL", 7)


def test_slow_barriers_fail_if_more_than_one_in_a_hundred_is(tmp_path: Path) -> None:
    rest = {"early": 0, "slowest": []}
    slow = heard(rest | {"slowest": [MS] * 490 + [60 * MS] * 10}, rest)
    assert results(tmp_path, Cluster(heard={"barriers": slow}))["barrier_latency"].verdict == "FAIL"


def test_a_rank_that_left_a_barrier_early_fails_it_and_is_named(tmp_path: Path) -> None:
    early = heard({"early": 0, "slowest": [MS] * 500}, {"early": 0, "slowest": []})
    early.values[3] = {"early": 2, "slowest": []}  # type: ignore[index]  # a dict here
    found = results(tmp_path, Cluster(TREE, heard={"barriers": early}))["barrier_holds"]
    assert (found.verdict, found.observed) == ("FAIL", 2)
    assert "rank 3 left 2 of 30" in found.note


def test_a_training_that_gains_too_little_fails_and_says_both_speeds(tmp_path: Path) -> None:
    slow = heard({"together": [600.0] * 6, "alone": [100.0] * 6}, {})
    found = results(tmp_path, Cluster(TREE, heard={"speed-up": slow}))["speedup"]
    assert (found.verdict, found.observed) == ("FAIL", 6)
    assert "600 samples/s on 8 processes, 100 on one" in found.note


def test_a_speed_up_of_which_some_turns_say_yes_and_some_no_is_unknown(tmp_path: Path) -> None:
    both = heard({"together": [780.0, 820.0] * 3, "alone": [100.0] * 6}, {})
    found = results(tmp_path, Cluster(TREE, heard={"speed-up": both}))["speedup"]
    assert found.verdict == "UNKNOWN"


# --- What is not known is not green ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("exercise", "criteria"),
    [
        (
            "collectives",
            {"ring_correct", "busbw", "tree_correct", "tree_faster", "gather_correct",
             "gather_whole"},
        ),
        ("barriers", {"barrier_latency", "barrier_holds"}),
        ("speed-up", {"speedup"}),
    ],
)  # fmt: skip
def test_a_rank_that_failed_leaves_its_exercise_unknown_in_its_words_and_no_other(
    tmp_path: Path, exercise: str, criteria: set[str]
) -> None:
    lost = heard({}, {}, {5: "rank 5 (n2) gave no sign of life for 20 s"})
    found = results(tmp_path, Cluster(TREE, heard={exercise: lost}))
    assert {name for name, r in found.items() if r.verdict == "UNKNOWN"} == criteria
    assert all("rank 5 (n2) gave no sign" in found[name].reason for name in criteria)


@pytest.mark.parametrize(
    ("exercise", "first", "rest"),
    [
        ("collectives", {"world": 7}, {"world": 7}),
        ("collectives", [], []),
        ("collectives", {"world": 8, "exercises": [], "whole": {}, "graphs": []}, {"world": 8}),
        ("barriers", {"early": 0, "slowest": [MS] * 499}, {"early": 0}),
        ("barriers", {"early": 0, "slowest": [0] * 500}, {"early": 0}),
        ("barriers", {"early": 0, "slowest": [MS] * 500}, {"early": -1}),
        ("barriers", {"early": 0, "slowest": [MS] * 500}, {}),
        ("barriers", None, None),
        ("speed-up", {"together": [800.0] * 6, "alone": [0.0] * 6}, {}),
        ("speed-up", {"together": [800.0] * 5, "alone": [1.0] * 5}, {}),
        ("speed-up", {"together": "fast", "alone": [1.0] * 6}, {}),
    ],
)
def test_an_answer_that_is_not_what_was_asked_is_unknown(
    tmp_path: Path, exercise: str, first: Any, rest: Any
) -> None:
    _, findings = Cluster(heard={exercise: heard(first, rest)}).tried("gloo_multi_node", tmp_path)
    assert any("answer of the ranks" in t.text for t in findings.troubles)
    assert not any("crashed" in t.text for t in findings.troubles)


# --- What a reader is told ------------------------------------------------------------------------


def test_the_fastest_algorithm_of_each_size_is_told_and_where_tree_and_ring_cross(
    tmp_path: Path,
) -> None:
    times = {("tree", m): MS // 2 for m in ("256B", "64KiB")}
    times |= {("tree", m): 2 * MS for m in ("1MiB", "16MiB", "bucket")}
    found = facts(tmp_path, Cluster(times | {("hierarchical", "bucket"): MS // 4}))
    assert found["all-reduce of 64KiB"].startswith("fastest by tree: median 0.5 ms")
    assert found["all-reduce of bucket"].startswith("fastest by hierarchical")
    assert found["tree and ring"] == "tree and ring cross at about 256 KiB"
    assert found["node n2"] == "10.0.0.2 by eth0, 4 ranks"


@pytest.mark.parametrize(
    ("ratios", "crosses"),
    [
        ([0.5, 0.5, 2.0], 512 * 1024),
        ([0.5, 0.9, 0.95], None),
        ([2.0, 2.0, 2.0], None),
        ([0.5, 0.25, 2.0], 2 ** (18 + 4 / 3)),
    ],
)
def test_the_crossover_lies_where_the_ratio_is_one(
    ratios: list[float], crosses: float | None
) -> None:
    points = list(zip([1 << 16, 1 << 18, 1 << 20], ratios, strict=True))
    assert sweep.crossover(points) == (crosses and pytest.approx(crosses))


def test_where_nothing_crosses_the_faster_one_is_named() -> None:
    assert gloo_multi_node.crossing([(1, 0.5), (2, 0.6)]).startswith("tree is the faster")
    assert gloo_multi_node.crossing([(1, 1.5), (2, 1.6)]).startswith("ring is the faster")


def test_a_ratio_is_taken_turn_by_turn_so_that_what_slows_both_says_nothing() -> None:
    busy = [1, 1, 4, 4, 4, 1, 1, 2, 2, 1]
    one, other = (
        timed([scale * MS * each for each in busy for _ in range(10)]) for scale in (3, 2)
    )
    assert sweep.ratio(one, other) == pytest.approx((1.5, 1.5, 1.5))


def test_a_ratio_is_bounded_by_all_but_the_least_and_the_most_of_its_turns() -> None:
    one = timed([(turn + 1) * MS for turn in range(10) for _ in range(10)])
    assert sweep.ratio(one, timed([MS] * 100)) == pytest.approx((5.5, 2, 9))


def timed(slowest: list[int]) -> Measured:
    asked = exercise("64KiB")
    row = {**asked, "verified": 100, "wrong": 0, "example": "", "slowest": slowest}
    return measured(row, asked, "64KiB", 2)
