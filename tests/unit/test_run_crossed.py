"""What only the nodes together show: hashes of a step, and whether it is the same one."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from fakes_runs import BEGAN, RATE, Story, hashed, healthy

from dvfd.model import Criterion, Verdict
from dvfd.runs.crossed import TOGETHER, Crossed
from dvfd.runs.rows import Event, What

A, B, C = "n0", "n1", "n2"


def event(node: str, value: str, *, t: float = 10.0, step: int = 7, kind: str = "grad") -> Event:
    return Event(node=node, t=t, at=0.0, what=What.HASHED, step=step, text=f"{kind} {value}")


def counted(*events: Event, nodes: int = 2) -> tuple[int, int]:
    crossed = Crossed(nodes)
    for each in events:
        crossed.add(each)
    return crossed.count(0.0, 100.0)


def test_equal_hashes_are_one_comparison() -> None:
    assert counted(event(A, "1"), event(B, "1")) == (1, 0)


@pytest.mark.parametrize("order", list(itertools.permutations([(A, "1"), (B, "2"), (C, "2")])))
def test_the_odd_one_is_counted_once_in_whatever_order(order: tuple[tuple[str, str]]) -> None:
    assert counted(*(event(*each) for each in order), nodes=3) == (2, 1)


def test_gradients_are_not_compared_with_parameters_nor_steps_with_other_steps() -> None:
    assert counted(event(A, "1"), event(B, "2", kind="param")) == (0, 0)
    assert counted(event(A, "1"), event(B, "2", step=8)) == (0, 0)


def test_a_step_that_is_made_again_is_compared_with_its_like() -> None:
    again = 10.0 + 2 * TOGETHER
    events = [event(A, "1"), event(B, "2", t=again), event(B, "1"), event(A, "2", t=again)]
    assert counted(*events) == (2, 0)


def test_two_nodes_that_differ_are_told_though_the_third_is_silent() -> None:
    assert counted(event(A, "1"), event(B, "2"), nodes=3) == (0, 1)


def test_what_lies_outside_is_not_counted() -> None:
    assert counted(event(A, "1", t=200.0), event(B, "2", t=200.0)) == (0, 0)


@pytest.mark.parametrize("criterion", ["corruption", "agreement"])
def test_a_node_that_agrees_with_itself_and_not_with_the_other_fails(criterion: str) -> None:
    story = healthy("stability_phase2a")
    assert story.judged()[criterion].so_far is Verdict.PASS
    story.events += hashed(story.check, BEGAN + 30.0, 999, "n1")
    assert story.judged()["corruption"].so_far is Verdict.FAIL


@pytest.mark.parametrize("criterion", ["corruption", "agreement"])
def test_nodes_whose_hashes_nobody_compares_are_unknown(criterion: str) -> None:
    story = healthy("stability_phase2a")
    story.drop(What.HASHED)
    found = story.judged()[criterion]
    assert found.so_far is Verdict.UNKNOWN
    assert "no hashes of the same steps came from all nodes" in found.result.reason


def skews(story: Story) -> Criterion:
    """Issues of every kind, as the gate of phase 2a counts them."""
    hashes = next(c for c in story.check.criteria if c.id.endswith(".parameters"))
    return replace(hashes, where=())


@pytest.mark.parametrize(
    ("steps", "verdict", "skew"),
    [(0.5, Verdict.PASS, 0.0), (1.0, Verdict.PASS, 1.0), (5.0, Verdict.FAIL, 5.0)],
)
def test_a_node_that_runs_ahead_of_the_others_is_no_longer_synchronised(
    steps: float, verdict: Verdict, skew: float
) -> None:
    story = healthy("stability_phase2c")
    story.change(
        lambda w: w.node == "n1",
        began=lambda w: w.began - steps / RATE, ended=lambda w: w.ended - steps / RATE,
    )  # fmt: skip
    found = story.judged()["step_skew"]
    assert (found.so_far, found.result.observed) == (verdict, skew)
    issues = story.tally().readings(skews(story), story.run(), BEGAN + story.length)
    assert (next(r for r in issues if dict(r.labels) == {"kind": "skew"}).value.value > 0) == (
        verdict is Verdict.FAIL
    )


def test_a_rank_that_tells_a_step_late_because_it_saves_is_not_behind() -> None:
    """The others wait for it before they make the next one."""
    story = healthy("stability_phase2c")
    late = [w for w in story.windows if w.window == 40 and w.rank == 0]
    story.change(lambda w: w in late, ended=lambda w: w.ended + 10.0)
    story.change(lambda w: w.window == 41, began=lambda w: w.began + 10.0)
    assert story.judged()["step_skew"].so_far is Verdict.PASS


def test_of_ranks_whose_windows_do_not_come_nobody_knows_whether_they_are_synchronised() -> None:
    story = healthy("stability_phase2c")
    story.windows = [w for w in story.windows if w.node != "n1"]
    assert story.judged()["step_skew"].so_far is Verdict.UNKNOWN
