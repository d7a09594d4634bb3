"""A job's report tells a run from its first rank to its last, whatever looks went on or missed."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
from fakes_output import valid
from fakes_reporting import Desk
from fakes_spent import AT, LOOK
from hypothesis import given, reject
from hypothesis import strategies as st

from dvfd.errors import DvfdError
from dvfd.model import Sample, labels
from dvfd.reporting.from_store import accounts
from dvfd.reporting.plain import markdown, text
from dvfd.reporting.ran import Ran
from dvfd.reporting.render import html
from dvfd.runs.goodput import Part

WHY = "RuntimeError: a sample that cannot be read"


def ran(**more: Any) -> Ran:
    """What was kept of a run of two ranks that failed after 103 s."""
    end = {"steps": 206.0, "step": 0.5, "compute": 0.4}
    plain: dict[str, Any] = {
        "job": "gpt", "began": AT - 3, "ended": AT + 103, "how": "failed", "why": WHY,
        "world": 2, "here": 2, "ranks": {"0": end, "1": end}, "samples": 6784.0, "loss": 1.42,
        "saved": 9, "failed": 0,
    }  # fmt: skip
    return Ran(**{**plain, **more})


def dead(looks: int = 720) -> Desk:
    """The job died after 103 s; for an hour it is looked at, and nothing moves."""
    desk = Desk(looks)
    for key in list(desk.series_):
        metric, own = key
        if metric.startswith("rank_"):
            desk.series_[key] = [s for s in desk.series_[key] if s.at <= AT + 100]
        if metric in {"job_up_seconds_total", "job_samples_total"}:
            desk.series_[key] = [
                Sample(metric, min(s.value, 6400.0 if "samples" in metric else 100.0), s.at, own)
                for s in desk.series_[key]
            ]
        if metric == "job_throughput_samples_per_second":
            desk.series_[key] = [
                Sample(metric, 64.0 if s.at <= AT + 100 else 0.0, s.at, own)
                for s in desk.series_[key]
            ]
    return desk


def spent(report: dict[str, Any]) -> dict[str, float]:
    return {p["part"]: round(p["seconds"], 3) for p in report["time"]["parts"] if p["seconds"]}


def test_a_job_that_failed_is_said_to_have_and_its_death_is_neither_billed_nor_recovery():
    report = dead().report(ran=[ran()])
    valid(report, "job_report")
    assert report["period"]["seconds"] == 106
    assert report["period"]["live"] is False
    assert report["cost"]["total"] == pytest.approx(1.06)
    assert spent(report) == {"productive": 103.0, "initialisation": 3.0}
    assert f"failed at 2027-01-15 08:01:43 UTC ({WHY})" in report["headline"]
    assert f"end: failed at 2027-01-15 08:01:43 UTC, {WHY}; 2 of 2 ranks here" in text(report)


def test_the_throughput_of_a_dead_job_is_what_it_had_while_it_lived():
    report = dead().report(ran=[ran()])
    (line,) = next(each["lines"] for each in report["series"] if each["id"] == "throughput")
    assert {value for value in line["mean"] if value is not None} == {64.0}


def test_head_and_tail_are_told_with_steps_samples_loss_and_saves_of_the_whole_run():
    work = (report := dead().report(ran=[ran()]))["work"]
    assert (work["steps"], work["samples"], work["loss"], work["ranks"]) == (206, 6784.0, 1.42, 2)
    assert report["checkpoints"]["saved"] == 9
    assert "9 saved" in text(report)
    assert report["coverage"]["observed"] == 1


def short(**more: Any) -> Ran:
    """A run of 49 steps by two ranks, whole between two looks."""
    end = {"steps": 49.0, "step": 0.1, "compute": None}
    return ran(began=AT + 201, ended=AT + 207, ranks={"0": end, "1": end}, samples=784.0, **more)


def test_a_run_between_two_looks_is_told_and_not_an_older_one():
    report = Desk().report(ran=[ran(how="ended", why=""), short()])
    assert (report["run"]["number"], len(report["run"]["runs"])) == (2, 2)
    assert (report["work"]["steps"], report["work"]["ranks"]) == (49, 2)
    assert spent(report) == {"productive": 4.9, "initialisation": 1.1}
    assert report["work"]["loss"] == 1.42
    assert any("whole between two looks" in note for note in report["time"]["notes"])


def test_a_job_that_no_look_ever_saw_has_a_report():
    report = Desk().report(job="quick", ran=[short(job="quick", how="ended", why="")])
    assert report["headline"].startswith("quick ran 6 s to its end, 81.7 % of it productive; 1.1 s")
    assert report["restarts"]["count"] == 0


def test_three_short_runs_in_a_row_are_three():
    row = [
        short(how="ended", why=""),
        ran(began=AT + 301, ended=AT + 304, ranks={"0": {"steps": 20.0, "step": 0.1}}),
        ran(began=AT + 401, ended=AT + 404, ranks={"0": {"steps": 20.0, "step": 0.1}}),
    ]
    found = [Desk().report(ran=row, number=n)["work"]["steps"] for n in (2, 3, 4)]
    assert found == [49, 20, 20]


def test_a_run_that_goes_on_is_told_from_its_first_rank_on():
    report = Desk().report(ran=[ran(ended=None, how="", why="", ranks={}, samples=None,
                                    loss=None, saved=None, failed=None)])  # fmt: skip
    assert report["period"]["live"] is True
    assert report["ending"] is None
    assert report["period"]["seconds"] == 103
    assert report["work"]["loss"] == pytest.approx(5.0 - 20 / 21)


def test_an_end_that_no_daemon_saw_is_put_at_the_last_look_and_said_to_be_unseen():
    report = Desk().report(ran=[ran(ended=AT + 5000, how="gone", blind=True)])
    assert report["period"]["until"] == AT + 100
    assert any("no daemon looked when it came" in line for line in report["unknown"])
    assert "ended without a word before 2027-01-15 09:23:20 UTC" in text(report)


def test_without_a_kept_end_head_and_tail_are_said_to_be_unknown():
    desk = Desk()
    report = desk.report(now=AT + LOOK * 21 + 3600)
    assert any(line.startswith("the beginning: what came before") for line in report["unknown"])
    assert any(line.startswith("the end: nobody told") for line in report["unknown"])


def test_steps_and_checkpoints_that_nobody_heard_of_are_unknown_and_not_none():
    desk = Desk()
    desk.without("rank_steps_total")
    report = desk.report()
    valid(report, "job_report")
    assert report["work"]["steps"] is None
    assert "steps not known" in text(report)
    assert "checkpoints: not known: none was seen by the looks" in text(report)
    assert "steps: no rank was heard" in text(report)
    assert "<dt>Steps</dt><dd>–" in html(report, "")  # noqa: RUF001  # an en dash is meant
    assert "steps not known" in markdown(report, "")


def test_where_the_time_of_each_run_went_is_told_run_by_run():
    found = accounts(
        Desk(), "gpt", known={"gpt"}, since=AT - 86400, until=AT + 400, now=AT + 400,  # type: ignore[arg-type]
        ran=[ran(how="ended", why=""), short()],
    )  # fmt: skip
    assert [(number, account.steps) for number, account in found] == [(1, 206), (2, 49)]
    for _, account in found:
        assert math.isclose(math.fsum(account.parts.values()), account.whole)
    assert round(found[1][1].parts[Part.PRODUCTIVE], 3) == 4.9


def test_a_dead_job_does_not_share_the_node_after_its_death():
    desk, other = Desk(), labels(job="gpt-large")
    looks = [Sample("job_observed_seconds_total", 1.0, AT + LOOK * n, other) for n in range(20)]
    desk.series_["job_observed_seconds_total", other] = looks
    died = ran(job="gpt-large", began=AT - 500, ended=AT - 100)
    assert not any("shared with" in line for line in desk.report(ran=[died])["unknown"])


def test_the_page_of_a_failed_job_is_not_green_and_tells_times_to_the_second():
    page = html(dead().report(ran=[ran()]), "")
    assert '<section class="told failed">' in page
    assert "from 2027-01-15 07:59:57 UTC to 2027-01-15 08:01:43 UTC" in page
    assert "2027-01-15 07:59:57</td>" in page  # of a chart's table


def test_samples_of_processes_that_are_gone_are_those_that_the_looks_saw_and_it_says_so():
    report = dead().report(ran=[ran(samples=None)])
    assert report["work"]["samples"] == 6400.0
    assert any(line.startswith("samples after the last look") for line in report["unknown"])


def test_a_report_with_an_end_is_json():
    json.dumps(dead().report(ran=[ran()]), allow_nan=False)


COUNT = st.none() | st.floats(0, 1e5)


@given(
    st.lists(st.tuples(st.floats(-50, 400), st.floats(0, 300)), min_size=1, max_size=5),
    st.lists(COUNT, min_size=4, max_size=4),
    st.sampled_from(["", "ended", "failed", "gone", "forgotten"]),
    st.booleans(),
)
def test_for_any_ends_every_second_is_in_one_part_of_one_run(spans, counts, how, blind):
    end = {"steps": counts[0], "step": counts[1], "compute": counts[2]}
    kept, at = [], AT - 50.0
    for pause, length in spans:
        at += abs(pause)
        open_ = not how and len(kept) + 1 == len(spans)
        kept.append(
            ran(began=at, ended=None if open_ else at + length, how="" if open_ else how or "ended",
                blind=blind and not open_, ranks={"0": end, "1": {"steps": counts[3]}})
        )  # fmt: skip
        at += length
    try:
        report = Desk().report(ran=kept)
    except DvfdError:  # two looks make a story
        reject()
    valid(report, "job_report")
    parts = report["time"]["parts"]
    assert all(p["seconds"] >= 0 for p in parts)
    assert math.isclose(sum(p["seconds"] for p in parts), report["period"]["seconds"], abs_tol=1e-6)
    runs = report["run"]["runs"]
    assert all(a["until"] <= b["since"] for a, b in pairwise(runs))
