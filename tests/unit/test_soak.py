"""A soak is judged by what it noted: which alerts were false, which never came, what grew."""

from __future__ import annotations

import json
import random
from dataclasses import asdict

import pytest

from bench.soak import as_known, figures, key_of
from bench.soak_faults import FAULTS, drawn, lasts
from bench.soak_record import (
    Asked,
    Begun,
    Ended,
    Heard,
    Notes,
    Sampled,
    Tried,
    episodes,
    false_alarms,
    grown,
    outcomes,
    read,
    slope,
    stretches,
    to_end,
    unexplained,
)


def heard(at, status, key="live.responding", *, half="faults", source="dvfd"):
    return Heard(
        at=at, half=half, status=status, key=key, severity="critical", source=source, load=1.0,
        words="",
    )  # fmt: skip


def tried(at, healed, *told, also=()):
    return Tried(at=at, healed=healed, fault="rank killed", told=told, also=also)


def sampled(at, *, pss=50.0, threads=14, life=0, half="clean"):
    return Sampled(
        at=at, half=half, life=life, rss=60.0, pss=pss, descriptors=20, sockets=5, threads=threads,
        children=0, store=1.0, load=1.0, step=1,
    )  # fmt: skip


def test_an_alert_that_is_told_again_while_it_fires_is_one():
    told = [heard(1, "firing"), heard(5, "firing"), heard(9, "resolved"), heard(20, "firing")]

    assert [(e.first.at, e.resolved) for e in episodes(told)] == [(1, 9), (20, None)]


def test_every_alert_of_the_clean_half_is_false():
    notes = [heard(1, "firing", half="clean"), heard(99, "firing")]

    assert [e.first.at for e in false_alarms(notes)] == [1]


def test_a_fault_whose_alert_came_before_it_was_not_told():
    notes = [heard(1, "firing"), heard(5, "resolved"), tried(10, 20, "live.responding")]

    assert [(o.told, o.resolved) for o in outcomes(notes)] == [(None, None)]


def test_a_fault_that_was_told_and_resolved_says_after_how_long():
    notes = [heard(12, "firing"), heard(30, "resolved"), tried(10, 20, "live.responding")]

    assert [(o.told, o.resolved) for o in outcomes(notes)] == [(2, 30)]


def test_an_alert_that_came_again_and_stays_is_not_resolved():
    notes = [
        heard(12, "firing"), heard(30, "resolved"), heard(31, "firing"),
        tried(10, 20, "live.responding"),
    ]  # fmt: skip

    assert [o.resolved for o in outcomes(notes)] == [None]


@pytest.mark.parametrize(
    ("told", "explained"),
    [
        (heard(12, "firing"), True),
        (heard(12, "firing", "live.memory"), False),
        (heard(12, "firing", "DvfdStoreBroken", source="rules"), True),
        (heard(9, "firing"), False),
        (heard(20 + 121, "firing"), False),
        (heard(20 + 121, "firing", "DvfdStoreBroken", source="rules"), True),
    ],
)
def test_an_alert_is_explained_by_a_fault_of_its_time_that_may_raise_it(told, explained):
    notes = [told, tried(10, 20, "live.responding", also=("DvfdStore*",))]

    assert (unexplained(notes) == []) == explained


def test_notes_are_read_back_and_half_a_line_is_left_out(tmp_path):
    notes = Notes(tmp_path / "deep" / "soak.jsonl")
    notes.add(tried(1, 2, "live.responding"))
    notes.add(sampled(3))
    notes.close()
    text = notes.path.read_text() + json.dumps({"kind": "sampled", **asdict(sampled(4))})[:40]

    assert read(text) == [tried(1, 2, "live.responding"), sampled(3)]


def test_a_leak_has_its_slope_whatever_one_sample_in_flight_shows():
    samples = [sampled(10 * n, pss=50 + n / 360 + 30 * (n % 50 == 7)) for n in range(300)]
    (stretch,) = stretches(samples, warm_up=600, least=600)
    found = slope(stretch)

    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(1.0, abs=0.05)


def test_a_life_that_was_too_short_says_nothing_of_growth():
    samples = [sampled(10 * n, life=n // 60) for n in range(120)]

    assert stretches(samples, warm_up=300, least=600) == []


def test_the_warm_up_of_a_life_does_not_count():
    samples = [sampled(10 * n, pss=float(n < 60), life=3) for n in range(200)]
    (stretch,) = stretches(samples, warm_up=600, least=600)

    assert {sample.pss for sample in stretch.samples} == {0.0}


def test_threads_that_stay_have_grown_and_one_that_passes_has_not():
    stays = [sampled(10 * n, threads=14 + (n > 150)) for n in range(200)]
    passes = [sampled(10 * n, threads=14 + (n % 30 == 0)) for n in range(200)]
    found = [stretches(s, warm_up=0, least=600)[0] for s in (stays, passes)]

    assert [grown(stretch, "threads") for stretch in found] == [1, 0]


def names(seed, seconds):
    """The faults of a soak that is told so many seconds are left, less what each lasts."""
    left = [float(seconds)]
    found = []
    for fault in drawn(FAULTS, random.Random(seed), lambda: left[0]):
        left[0] -= lasts(fault)
        found.append(fault.name)
    return found


def test_the_same_seed_breaks_the_same_things_in_the_same_order():
    assert names(9, 9000) == names(9, 9000) != names(10, 9000)


def test_every_kind_comes_before_one_comes_again():
    found = names(9, 9000)

    assert len(found) > len(FAULTS)
    assert set(found[: len(FAULTS)]) == {fault.name for fault in FAULTS}


def test_the_daemon_is_restarted_once_of_each_kind_however_long_it_lasts():
    restarts = [name for name in names(9, 90_000) if name.startswith(("daemon k", "config"))]

    assert len(restarts) == 2


def test_nothing_is_broken_that_cannot_settle_before_the_end():
    assert names(9, 50) == []


def soaked(*more, firing=()):
    """The notes of a soak of two hours, and the figures that are not reached."""
    begun = Begun(at=0, clean=3600, faults=3600, seed=9, warm_up=900)
    samples = [sampled(10 * n, half="clean" if n < 360 else "faults") for n in range(720)]
    asked = Asked(at=1, half="clean", what="/", seconds=0.01)
    ended = Ended(at=7200, why="ended", firing=firing, scrapes_failed=0)
    notes = [begun, *samples, asked, *more, ended]
    return {f.name for f in figures(as_known(notes)) if f.reached is False}


def test_a_soak_in_which_nothing_went_wrong_reaches_all():
    assert soaked() == set()


@pytest.mark.parametrize(
    ("more", "missed"),
    [
        ([heard(5, "firing", half="clean")], {"false_alarms"}),
        ([heard(4000, "firing")], {"unexplained"}),
        ([tried(4000, 4010, "live.responding")], {"untold"}),
        ([tried(4000, 4010, "live.responding"), heard(4001, "firing")], {"unresolved"}),
        ([Asked(at=9, half="clean", what="/", seconds=1, why="OSError")], {"unanswered"}),
        ([sampled(7190, half="faults", threads=14, life=0, pss=90.0)], set()),
    ],
)
def test_each_thing_that_went_wrong_misses_its_own_figure(more, missed):
    assert soaked(*more) == missed


def test_what_fires_at_the_end_is_told_but_for_rules_that_look_back_an_hour():
    assert soaked(firing=("live.memory", "DvfdUptimeBurningFast")) == {"firing"}
    assert soaked(firing=("DvfdUptimeBurningFast",)) == set()
    assert to_end(["live.memory", "DvfdRestarting"]) == ["live.memory"]


def test_an_alert_is_called_by_its_criterion_or_by_what_it_is_about():
    failed = {"alertname": "DvfdCriterionFailed", "criterion": "live.memory", "node": "n"}
    blind = {"alertname": "DvfdBlind", "probe": "ranks"}

    assert [key_of(failed), key_of(blind), key_of({"alertname": "DvfdAbsent"})] == [
        "live.memory", "DvfdBlind:ranks", "DvfdAbsent"
    ]  # fmt: skip


def test_a_soak_in_which_nothing_had_to_be_told_does_not_know_whether_it_is():
    begun = Begun(at=0, clean=60, faults=60, seed=9, warm_up=9)
    notes = [begun, *(sampled(n) for n in range(100)), tried(70, 80)]
    reached = {f.name: f.reached for f in figures(notes)}

    assert (reached["untold"], reached["unresolved"], reached["scrapes"]) == (None, None, None)
