"""A figure that is not reached has its reason, and no reason stands for one that is."""

from __future__ import annotations

import pytest

from bench.front import FIRST, table
from bench.front import problems as front_problems
from bench.reasons import Reason, load, problems, under


def figure(name, reached, wanted="<= 1 s"):
    return {
        "name": name, "text": f"how {name}", "value": 2.0, "unit": "s", "wanted": wanted,
        "reached": reached, "low": None, "high": None,
    }  # fmt: skip


def found(*figures, bench="probe"):
    return {"bench": bench, "figures": list(figures)}


REASON = Reason("probe", "slow", "It waits.", "patience.")


@pytest.mark.parametrize("reached", [False, None])
def test_what_is_outside_or_not_known_needs_a_reason(reached):
    documents = [found(figure("slow", reached))]

    (problem,) = problems(documents, [])

    assert "probe.slow (how slow)" in problem
    assert list(problems(documents, [REASON])) == []


def test_what_is_reached_or_wants_nothing_needs_none():
    assert list(problems([found(figure("fast", True), figure("free", None, ""))], [])) == []


@pytest.mark.parametrize(
    "documents", [[], [found(figure("slow", True))], [found(figure("slow", False), bench="other")]]
)
def test_a_reason_for_what_is_reached_or_not_there_is_taken_out(documents):
    assert any("take the reason out" in problem for problem in problems(documents, [REASON]))


def test_two_reasons_of_one_figure_are_told():
    told = list(problems([found(figure("slow", False))], [REASON, REASON]))

    assert told == ["bench/reasons.toml: probe.slow has two reasons"]


def test_the_reason_stands_under_the_table_of_its_own_measurement():
    document = found(figure("slow", False), figure("fast", True))
    other = Reason("other", "slow", "Not it.", "nothing.")

    assert under(document, [REASON, other]) == (
        "\nNot reached: how slow. It waits. It would take: patience.\n"
    )
    assert under(found(figure("slow", None)), [REASON]).startswith("\nNot known: how slow.")


def test_a_reason_says_both_why_and_what_it_would_take():
    with pytest.raises(TypeError):
        load('[[reason]]\nbench = "probe"\nfigure = "slow"\nwhy = "It waits."')


def test_the_front_page_counts_what_is_outside_and_says_where_it_stands():
    told = table([found(figure("slow", False), figure("dim", None), figure("fast", True))])

    assert "Of 3 figures that have a limit 1 are within it, 1 are **outside**, and of 1" in told
    assert "[probe](bench/RESULTS.md#probe) (2)" in told


def test_a_first_figure_that_was_not_measured_is_no_empty_row():
    bench, name = FIRST[0]

    assert f"| {bench}.{name} | **not measured** | | |" in table([])
    assert len(list(front_problems([]))) == len(FIRST)
    assert f"bench/front.py: {bench}.{name} is in no file of bench/results" in front_problems([])


def test_a_first_figure_outside_of_its_limit_is_marked():
    bench, name = FIRST[0]
    told = table([found(figure(name, False), bench=bench)])

    assert f"| how {name} | 2 s | <= 1 s | **outside** |" in told
