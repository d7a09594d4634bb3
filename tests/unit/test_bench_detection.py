"""What is concluded from trials of detection: which alerts nobody caused, what was missed."""

from __future__ import annotations

import json

import pytest

from bench.detection import DVFD, FAST, SLOW, Trial, figures
from bench.faults import COOL, FAULTS, HOT, half_a_window, held, until_the_mean_is_hot
from bench.scraping import INTERVALS, Rule, groups
from bench.told import (
    DELIVERED,
    EXAMPLE,
    PROMPT,
    Ear,
    Note,
    Spell,
    alertmanager_config,
    group_waits,
    strays,
)
from dvfd.catalogue import load
from dvfd.config import Config

CRITERIA = load(Config()).criteria

LOSS = {"criterion": "live.loss_finite"}


def note(at, labels=LOSS, *, firing=True, route=PROMPT):
    return Note(route, firing, labels, at)


# --- What was told -----------------------------------------------------------------------------


def test_an_alert_in_the_time_of_its_fault_is_no_stray():
    assert strays([note(5)], [Spell(4, (LOSS,), 9)]) == []


@pytest.mark.parametrize("at", [3, 10])
def test_an_alert_before_or_after_its_fault_is_one(at):
    assert strays([note(at)], [Spell(4, (LOSS,), 9)]) == [note(at)]


def test_an_alert_of_another_class_is_one():
    other = note(5, {"criterion": "live.cpu"})
    assert strays([other], [Spell(4, (LOSS,), 9)]) == [other]


def test_what_is_over_or_was_told_before_by_the_prompt_route_is_counted_once():
    told = [note(1, firing=False), note(1, route=DELIVERED)]
    assert strays(told, []) == []


def test_the_first_word_after_the_fault_counts():
    ear = Ear([note(1), note(7), note(6), note(5, firing=False)])
    assert ear.first(PROMPT, LOSS, 2) == 6
    assert ear.first(DELIVERED, LOSS, 2) is None


def test_calm_is_when_the_last_word_on_each_alert_is_that_it_is_over():
    of_node, of_other = LOSS | {"node": "a"}, LOSS | {"node": "b"}
    ear = Ear([note(1, of_node), note(2, of_other), note(3, of_node, firing=False)])
    assert not ear.calm(LOSS)
    ear.notes.append(note(4, of_other, firing=False))
    assert ear.calm(LOSS)


# --- Both Alertmanager routes ------------------------------------------------------------------


def test_the_slow_route_waits_as_long_as_our_example_does():
    waits = group_waits(EXAMPLE.read_text())
    routes = json.loads(alertmanager_config("http://127.0.0.1:1/"))["route"]["routes"]
    assert [route["group_wait"] for route in routes] == ["0s", waits["critical"], waits["warning"]]
    assert waits == {"critical": "10s", "warning": "30s"}


def test_an_example_without_waits_is_refused():
    with pytest.raises(LookupError, match="no group_wait"):
        group_waits("route:\n  receiver: nobody\n")


# --- The table of faults -----------------------------------------------------------------------


def test_every_fault_names_a_criterion_of_the_continuous_watch():
    assert {fault.criterion.partition(".")[0] for fault in FAULTS} == {"live"}
    assert all(fault.criterion in CRITERIA for fault in FAULTS)


def test_a_rule_is_written_once_for_each_interval_on_its_own_scrape():
    found = json.loads(groups([Rule("disk", "free{} / size{} < 0.05", "warning", "60s")]))
    first = found["groups"][0]
    assert [group["interval"] for group in found["groups"]] == list(INTERVALS)
    assert first["rules"][0]["expr"] == 'free{job="15s"} / size{job="15s"} < 0.05'
    assert first["rules"][0]["labels"]["severity"] == "warning"


def test_waits_come_from_the_catalogue():
    gpu, disk = CRITERIA["live.gpu_temperature"], CRITERIA["live.disk_free"]
    stragglers = CRITERIA["live.stragglers"]
    share = (gpu.limit.value - COOL) / (HOT - COOL)
    assert until_the_mean_is_hot(gpu) == gpu.window * share + gpu.hold
    assert held(disk) == disk.hold > 0
    assert half_a_window(stragglers) == stragglers.window / 2 + stragglers.hold


# --- Figures -----------------------------------------------------------------------------------


def trial(fault, own, slow, *, wait=0.0, first=False):
    told = {DVFD: own, SLOW: slow, FAST: 2.0}
    late = {way: at if at is None else at + 10 for way, at in told.items()} if first else {}
    return Trial(fault, wait, told, late)


def told_of(*more, false=()):
    every = [trial(fault.name, 1.0, 14.0, first=True) for fault in FAULTS]
    return {figure.name: figure for figure in figures([*every, *more], false)}


def test_scraping_is_compared_with_dvfd_beyond_the_wait():
    found = told_of()
    assert found["ratio_15s"].value == 14
    assert found["ratio_15s"].reached
    assert told_of(*[trial("log", 2.0, 3.0)] * 40)["ratio_15s"].reached is False


def test_what_waits_by_itself_is_compared_apart():
    found = told_of(*[trial("disk", 62.0, 63.0, wait=60.0)] * 40)
    assert found["ratio_15s"].value == 14
    assert found["ratio_all_15s"].value == 1.5


def test_one_missed_fault_of_all_is_seen_in_both_places():
    found = told_of(trial("nan", None, 14.0))
    assert (found["missed"].value, found["missed"].reached) == (1, False)
    assert (found["nan_missed_dvfd"].value, found["kill_missed_dvfd"].value) == (1, 0)


def test_a_class_that_is_late_for_one_trial_of_ten_misses_its_mark():
    found = told_of(*[trial("log", 1.0, 14.0)] * 8, trial("log", 2.5, 14.0))
    assert (found["log_beyond"].value, found["log_beyond"].reached) == (2.5, False)


def test_false_alerts_are_told_apart_by_who_raised_them():
    scraped = {"fault": "nan", "scrape": SLOW}
    found = told_of(false=[LOSS, scraped])
    assert (found["false"].value, found["false_scraped"].value) == (1, 1)
    assert (found["nan_false"].value, found["kill_false"].value) == (1, 0)


def test_what_group_wait_adds_is_taken_from_first_trials():
    assert told_of()["group_wait_dvfd"].value == 10
