"""Two runs held together: what differs, which way, by how much, and what speaks against it."""

from __future__ import annotations

import json

import pytest
from fakes_reporting import PRICE, Desk, came_back
from fakes_spent import AT

from dvfd.config import Cost
from dvfd.reporting import plain
from dvfd.reporting.compare import at, comparison, side_by_side, size
from dvfd.reporting.curves import draw
from dvfd.reporting.document import document
from dvfd.reporting.render import compared

SUMS = ("a" * 64, "b" * 64)


def held(a, b):
    return comparison(a, b, sums=SUMS)


def row(found, name):
    return next(r for r in found["rows"] if r["id"] == name)


def slower():
    """Half the samples a second, and a loss that falls less."""
    desk = Desk()
    desk.put("job_throughput_samples_per_second", [32.0] * 21)
    desk.put("job_samples_total", [160.0 * n for n in range(21)])
    desk.put("job_loss", [5.0 - n / 84 for n in range(21)])
    return desk


def test_a_slower_run_is_worse_by_so_much():
    found = held(Desk().report(), slower().report())
    assert (row(found, "throughput")["difference"], row(found, "throughput")["better"]) == (
        -32,
        "a",
    )
    assert size(row(found, "samples_per_second")) == "-50.0 %"
    assert "throughput over all of the time -50.0 %" in found["headline"]


def test_losses_that_one_did_not_tell_of_lately_are_held_together_before_that():
    one, other = Desk().report(), slower().report()
    one["by_step"]["loss"] = [p for p in one["by_step"]["loss"] if not 170 <= p[0] < 200]
    one["by_step"]["loss"][-1] = [210.0, 1.0]  # beyond what the other told
    found = row(held(one, other), "loss")
    assert "steps 150 to 200" in found["words"]
    assert found["a"] is not None


def test_the_other_way_round_it_is_better():
    found = held(slower().report(), Desk().report())
    assert row(found, "throughput")["better"] == "b"
    assert row(found, "per_million_samples")["better"] == "b"


def test_losses_are_held_together_at_the_same_step():
    long = Desk(41).report()
    short = slower().report()
    found = row(held(long, short), "loss")
    assert "180 to 200" in found["words"]
    assert found["a"] == pytest.approx(5.0 - 19 / 41)
    assert found["better"] == "a"


def test_a_longer_run_is_no_worse_one():
    found = held(Desk().report(), Desk(41).report())
    assert [row(found, name)["better"] for name in ("seconds", "steps", "cost")] == ["", "", ""]


def test_what_varies_more_than_it_differs_has_no_direction():
    one, other = Desk(), Desk()
    one.put("job_throughput_samples_per_second", [60.0 + n % 5 for n in range(21)])
    other.put("job_throughput_samples_per_second", [60.5 + n % 5 for n in range(21)])
    found = row(held(one.report(), other.report()), "throughput")
    assert found["difference"] == 0.5
    assert (found["better"], found["remark"]) == ("", "within how much it varies")


def test_what_nobody_saw_may_be_the_difference():
    desk = Desk()
    desk.put("job_observed_seconds_total", [min(50.0, 5.0 * n) for n in range(21)])
    for rank in (0, 1):
        desk.steps(rank, [min(100.0, 10.0 * n) for n in range(21)])
    found = held(came_back().report(), desk.report())
    assert row(found, "goodput")["better"] == ""
    assert any("B was watched 50 %" in line for line in found["against"])


def test_what_is_not_known_of_one_has_no_difference():
    desk = Desk()
    desk.without("cpu_package_energy_joules_total")
    found = row(held(Desk().report(), desk.report()), "joules_per_sample")
    assert (found["difference"], found["better"], size(found)) == (None, "", "not known")


def test_two_currencies_are_not_subtracted():
    dollars = Desk().report(Cost(per_hour=36.0, currency="USD"))
    found = row(held(Desk().report(), dollars), "cost")
    assert (found["difference"], found["remark"]) == (None, "in two currencies")


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda r: r["work"].update(processes=4), "other world sizes: 2 and 4 processes"),
        (lambda r: r.update(node="n1"), "other nodes: n0 and n1"),
        (lambda r: r["made"].update(hashes={"profile": "f"}), "whether the profile was the same"),
        (lambda r: r["work"].update(samples=1.0), "other batches: 32 and 0.005 samples a step"),
        (lambda r: r["by_step"].update(numbered=True), "numbers in one and counts in the other"),
    ],
)  # fmt: skip
def test_what_makes_two_runs_another_thing_is_said(change, wanted):
    other = Desk().report()
    change(other)
    assert any(wanted in line for line in held(Desk().report(), other)["against"])


def test_another_profile_is_told_by_its_hash():
    one, other = Desk().report(), Desk().report()
    one["made"]["hashes"], other["made"]["hashes"] = {"profile": "e" * 64}, {"profile": "f" * 64}
    assert any("eeeeeeeeeeee in A and ffffffffffff in B" in s for s in held(one, other)["against"])


def test_runs_inside_of_a_warm_up_are_too_short():
    against = held(Desk().report(), Desk().report())["against"]
    assert [line.partition(":")[0] for line in against if "short" in line] == [
        "A is too short", "B is too short",
    ]  # fmt: skip


def test_a_value_between_two_points_is_on_the_line_and_beyond_them_there_is_none():
    points = [[10.0, 1.0], [20.0, 3.0]]
    assert [at(points, x) for x in (9, 10, 15, 20, 21)] == [None, 1.0, 2.0, 3.0, None]


def test_nothing_is_drawn_or_told_over_steps_that_nobody_saw():
    points = [[float(x), 2.0] for x in (*range(0, 100, 10), *range(300, 400, 10))]
    assert (at(points, 85.0), at(points, 200.0), at(points, 305.0)) == (2.0, None, 2.0)
    drawn = draw({"title": "t", "unit": "", "a": points, "b": []})
    assert drawn is not None
    assert drawn.plot.partition('class="line"')[2].count("M") == 2


def test_a_part_that_one_of_them_had_stands_beside_nothing():
    found = held(Desk().report(), came_back().report())
    assert ("recovery", "recovery", 0.0, 20.0) in side_by_side(found["time"])


def test_page_text_and_markdown_hold_hostile_names_as_letters():
    story = Desk().story()
    bad = document(story, PRICE, made_at=AT) | {"job": "<script>|*x*", "node": "<img>"}
    found = held(bad, bad)
    page = compared(found)
    assert "<script>" not in page
    assert "<img>" not in page
    assert "&lt;script&gt;" in page
    assert "\\<script\\>\\|\\*x\\*" in plain.compared_markdown(found)
    assert "<script>|*x*" in plain.compared(found)


def test_runs_without_a_loss_or_a_price_are_held_together_all_the_same():
    desk = Desk()
    for metric in ("job_loss", "job_throughput_samples_per_second", "job_samples_total"):
        desk.without(metric)
    bare = desk.report(Cost())
    found = held(bare, bare)
    json.dumps(found, allow_nan=False)
    assert compared(found)
    assert row(found, "loss")["difference"] is None


def test_jobs_of_two_names_and_a_run_beside_itself_are_said_to_be():
    one, other = Desk().report(), Desk().report()
    assert "A and B are one and the same run" in held(one, one)["against"]
    other["job"] = "gpt-large"
    assert any("other jobs: gpt and gpt-large" in line for line in held(one, other)["against"])


def test_a_run_that_failed_speaks_against_it():
    one, other = Desk().report(), Desk().report()
    other["ending"] = {
        "how": "failed", "why": "RuntimeError: no", "at": AT, "seen": True, "ranks": 2, "of": 2,
    }  # fmt: skip
    assert any(
        "B did not come to its end: it failed at 2027-01-15 08:00:00 UTC, RuntimeError: no" in line
        for line in held(one, other)["against"]
    )


def test_a_run_beside_itself_has_no_remark():
    desk = Desk()
    desk.put("job_observed_seconds_total", [min(50.0, 5.0 * n) for n in range(21)])
    found = row(held(desk.report(), desk.report()), "goodput")
    assert (size(found), found["remark"]) == ("the same", "")


def test_what_is_many_times_as_much_is_told_as_such():
    one, other = Desk().report(), Desk().report()
    one["cost"]["per_million_samples"], other["cost"]["per_million_samples"] = 2.0, 90.0
    assert size(row(held(one, other), "per_million_samples")) == "45 times A"
    assert size(row(held(other, one), "per_million_samples")) == "0.022 times A"


def test_ranks_that_are_not_at_one_step_at_a_look_make_no_other_batch():
    one, other = Desk().report(), Desk().report()
    other["work"]["samples"] *= 17.17 / 16
    other["ending"] = one["ending"] = {"how": "ended", "why": "", "at": AT, "seen": True}
    other["restarts"]["count"] = 1  # what the processes that are gone did is not all counted
    assert not any("other batches" in line for line in held(one, other)["against"])
