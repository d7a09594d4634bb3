"""The report of a run: everything a stranger needs, the same bytes from the same rows, no lies."""

import json
import random
from dataclasses import replace

import pytest
from fakes_output import valid
from fakes_report import (
    ARMED,
    BEGAN,
    PHASE1,
    FakeRows,
    event,
    plan,
    report,
    rows,
    run,
    verdicts,
)

from dvfd.model import Result, Severity, Verdict
from dvfd.runs.report import as_text
from dvfd.runs.rows import What
from dvfd.runs.run import Stage
from dvfd.runs.verdicts import Judged, Outlook

HOUR = 3600.0


def series(document, name):
    return next(chart for chart in document["series"] if chart["id"] == name)


def of(verdict, *, so_far=None, severity=Severity.CRITICAL, **keys):
    """A criterion of the check, judged by hand."""
    criterion = replace(PHASE1.criteria[0], severity=severity)
    result = Result(criterion, verdict, ARMED, "243 samples/s, wanted at least 250", **keys)
    return Judged(result, so_far or verdict, Outlook())


@pytest.fixture(scope="module")
def good():
    return report()


@pytest.fixture(scope="module")
def nothing():
    """A run whose job never came."""
    never = run(
        Stage.ABORTED, began_t=None, warm_t=None, ended_t=600.0, reason="job gpt did not report"
    )
    return report(never, FakeRows())


def test_a_report_is_as_its_schema_says(good, nothing):
    valid(good, "run_report")
    valid(nothing, "run_report")
    with pytest.raises(Exception, match="verdict"):
        valid({**good, "verdict": "GREEN"}, "run_report")


def test_a_good_run_passes_and_counts(good):
    assert (good["verdict"], good["counts"], good["uncounted"]) == ("PASS", True, [])
    assert good["headline"] == "Of 21 criteria, 17 pass, 4 do not apply."


def test_the_golden_parts_of_a_good_run(good):
    assert good["times"] == {
        "armed": {"t": 0.0, "at": 1_790_000_000.0, "iso": "2026-09-21T14:13:20Z"},
        "began": {"t": 30.0, "at": 1_790_000_030.0, "iso": "2026-09-21T14:13:50Z"},
        "warm": {"t": 630.0, "at": 1_790_000_630.0, "iso": "2026-09-21T14:23:50Z"},
        "ended": {"t": 86_430.0, "at": 1_790_086_430.0, "iso": "2026-09-22T14:13:50Z"},
        "elapsed": 86_400.0,
        "duration": 86_400.0,
        "planned": 86_400.0,
    }
    assert good["checkpoints"] == {
        "begun": 345, "saved": 345, "failed": 0, "verified": 345, "damaged": 0, "unverified": 0,
        "save_seconds_mean": 3.5, "save_seconds_longest": 3.5,
    }  # fmt: skip
    assert good["observed"]["coverage"] == 1.0
    assert good["overrides"] == [
        "stability_phase1.throughput: limit 250 -> 200 (smaller batch until May)"
    ]
    throughput = good["results"][0]
    assert throughput["observed"] == pytest.approx(268.0, abs=0.1)
    assert (throughput["limit"], throughput["overridden"]) == (
        200, "limit 250 -> 200 (smaller batch until May)",
    )  # fmt: skip


@pytest.mark.slow
def test_the_same_rows_give_the_same_bytes(good):
    assert as_text(report()) == as_text(good)


@pytest.mark.slow
def test_the_order_of_the_rows_changes_no_byte(good):
    given = rows()
    shuffled = random.Random(7)
    shuffled.shuffle(given.of_minutes)
    shuffled.shuffle(given.of_events)

    assert as_text(report(run(), given)) == as_text(good)


def test_the_text_has_sorted_keys_and_no_value_that_is_no_number(good):
    text = as_text({"b": 1, "a": good["results"]})

    assert text.index('"a"') < text.index('"b"')
    assert json.loads(text, parse_constant=pytest.fail)["b"] == 1


def test_values_and_words_that_json_cannot_hold_do_not_cost_the_report():
    odd = rows(HOUR, event(100.0, What.NOTE, "half a letter: \udcff", value=float("nan")))

    document = report(run(lasted=HOUR), odd)

    noted = next(e for e in document["events"] if e["what"] == "note")
    assert (noted["value"], noted["text"]) == (None, "half a letter: ?")
    assert json.loads(as_text(document).encode())["node"] == "node4"


def test_a_shortened_run_says_first_why_it_does_not_count():
    short = report(run(lasted=1200.0, plan=plan(duration=1200.0)), rows(1200.0))

    assert short["uncounted"] == ["shortened: 20 min of 24 h"]
    assert (short["verdict"], short["counts"]) == ("UNKNOWN", False)
    assert short["headline"].endswith("Each would pass if the run counted.")


def test_a_discounted_run_names_what_was_accepted():
    found = report(run(plan=plan(discounts=("ranks 0 and 1 may both run on core 3",))))

    assert found["uncounted"] == ["ranks 0 and 1 may both run on core 3"]
    assert found["verdict"] == "UNKNOWN"


def test_a_shortened_run_can_fail_and_says_that_it_could_not_have_passed():
    failing = run(lasted=1200.0, plan=plan(duration=1200.0))
    found = report(failing, rows(1200.0), judged=[of(Verdict.FAIL)])

    assert found["verdict"] == "FAIL"
    assert found["headline"] == (
        "Of 1 criteria, 1 fails. A run that does not count can fail; it cannot pass."
    )


def test_a_warning_never_decides():
    found = report(judged=[of(Verdict.PASS), of(Verdict.FAIL, severity=Severity.WARNING)])

    assert found["verdict"] == "PASS"


def test_no_criterion_at_all_is_unknown():
    assert report(judged=[])["verdict"] == "UNKNOWN"


def test_an_aborted_run_says_why_and_cannot_count():
    reason = "the training command ended with exit code 1 after 1 h of 24 h"
    found = report(run(Stage.ABORTED, lasted=HOUR, reason=reason), rows(HOUR))

    assert found["uncounted"][0] == f"aborted: {reason}"
    assert (found["counts"], found["verdict"]) == (False, "UNKNOWN")
    assert found["times"]["elapsed"] == HOUR


def test_a_run_of_which_nothing_came_is_unknown_all_over(nothing):
    applying = [r for r in nothing["results"] if r["verdict"] != "NOT_APPLICABLE"]

    assert {r["verdict"] for r in applying} == {"UNKNOWN"}
    assert nothing["times"]["began"] is None
    assert all(chart["lines"] == [] for chart in nothing["series"])


def test_a_gap_has_no_points_and_is_listed_with_its_length():
    away = (40_000.0, 47_200.0)
    found = report(run(), rows(away=(away,)))

    line = series(found, "throughput")["lines"][0]["mean"]
    step = series(found, "throughput")["step"]
    inside = line[int((away[0] - BEGAN) / step) + 1 : int((away[1] - BEGAN) / step) - 1]
    assert inside
    assert set(inside) == {None}
    assert found["observed"]["unseen"] == 7200.0
    assert found["observed"]["stretches"] == [
        {"what": "unseen", "since": away[0], "until": away[1], "text": "the daemon was not running"}
    ]


def test_a_course_has_a_few_hundred_points_whatever_the_run_lasted(good):
    assert {len(line["mean"]) for c in good["series"] for line in c["lines"]} == {240}


def test_the_mean_of_the_drawn_throughput_is_the_one_that_was_judged(good):
    drawn = series(good, "throughput")["lines"][0]["mean"]

    assert sum(drawn) / len(drawn) == pytest.approx(good["results"][0]["observed"], rel=1e-3)


def test_power_is_drawn_as_watts_beside_its_limit(good):
    power = series(good, "power")

    assert [line["name"] for line in power["lines"]] == ["package 0", "package 1"]
    assert 200 < power["lines"][0]["mean"][5] < 230
    assert (power["limit"], power["criterion"]) == (250, "stability_phase1.power")


def test_a_chart_is_held_to_the_limit_of_its_mean_and_not_of_its_sigma(good):
    throughput = series(good, "throughput")

    assert (throughput["limit"], throughput["comparison"]) == (200, ">=")
    assert throughput["expected"] == [250, 300]


def test_that_holds_whichever_of_the_two_criteria_comes_first(good):
    given = rows(HOUR)
    backwards = verdicts(run(lasted=HOUR), given)[::-1]

    found = report(run(lasted=HOUR), given, judged=backwards)

    assert series(found, "throughput")["criterion"] == "stability_phase1.throughput"


def test_a_point_is_a_mean_between_the_least_and_the_greatest(good):
    line = series(good, "cpu")["lines"][0]

    assert len(line["mean"]) > 100
    for low, mean, high in zip(line["low"], line["mean"], line["high"], strict=True):
        assert low < mean < high


def test_rank_two_stands_before_rank_ten():
    found = report(run(lasted=HOUR), rows(HOUR, ranks=12))

    names = [line["name"] for line in series(found, "cpu")["lines"]]
    assert names == [f"rank {n}" for n in range(12)]


def test_routine_events_are_counted_and_what_went_wrong_is_listed(good):
    assert {e["what"] for e in good["events"]} == {"stage"}
    saved = next(mark for mark in good["marks"] if mark["lane"] == "checkpoints saved")
    assert saved["count"] == 345
    assert sum(count for _, count in saved["places"]) == 345


def test_of_too_many_events_the_first_and_the_last_are_kept():
    many = [event(100.0 + n, What.ISSUE, f"skew {n}") for n in range(1000)]
    found = report(run(lasted=HOUR), rows(HOUR, *many))

    issues = [e["text"] for e in found["events"] if e["what"] == "synchronisation issue"]
    assert (issues[0], issues[-1]) == ("skew 0", "skew 999")
    assert (len(found["events"]), found["events_left_out"]) == (400, 601)


def test_no_event_is_endless():
    long = rows(HOUR, event(100.0, What.NOTE, "W" * 10_000))

    assert len(report(run(lasted=HOUR), long)["events"][-1]["text"]) < 600


@pytest.mark.parametrize(
    "words", [("--token", "hush"), ("--api-key=hush",), ("WANDB_API_KEY=hush",)], ids=str
)
def test_a_secret_in_the_training_command_is_not_in_the_report(words):
    found = report(run(lasted=HOUR, plan=plan(argv=("train", *words, "--steps=5"))), rows(HOUR))

    assert "hush" not in as_text(found)
    assert found["run"]["plan"]["argv"][-1] == "--steps=5"
