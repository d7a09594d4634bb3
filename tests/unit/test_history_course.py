"""What an engine has becomes courses whose every reset and gap is right, or no course at all."""

from __future__ import annotations

import pytest
from fakes_history import FakeEngine
from fakes_reviews import CATALOGUE

from dvfd.config import Config, History, parse
from dvfd.errors import HistoryError
from dvfd.history.answer import Line
from dvfd.history.course import Key, Period, Reading, covered
from dvfd.history.past import EnginePast, patterns, where
from dvfd.history.question import HOUR, MEAN, quoted
from dvfd.model import labels
from dvfd.reviews.uptime import grown

UP, PACE = "job_up_seconds_total", "job_throughput_samples_per_second"
N1 = {"instance": "n1:9109", "training_job": "gpt"}
GPT = labels(job="gpt")
DAY = 24 * HOUR


def every(step, since, until, value):
    return [(t, float(value(t))) for t in range(since, until + 1, step)]


def reading(*series, until=DAY, nodes=("n1(:[0-9]+)?",)):
    engine = FakeEngine(*series)
    asks = where(History(url="http://engine"), nodes)
    return Reading(engine, CATALOGUE.metrics, asks, Period(0.0, float(until)))  # type: ignore[arg-type]


def course(*series, **keys):
    [samples] = reading(*series, **keys).counter(UP).values()
    return samples


def test_a_counter_is_the_newest_value_of_each_hour_and_all_after_the_last():
    samples = course((UP, N1, every(60, 60, DAY + 600, lambda t: t)), until=DAY + 600)
    assert [s.at for s in samples[:24]] == [HOUR * n for n in range(1, 25)]
    assert [s.value for s in samples[:24]] == [float(HOUR * n) for n in range(1, 25)]
    assert [s.at for s in samples[24:]] == [DAY + 60.0 * n for n in range(1, 11)]
    assert samples[0].labels == GPT


def test_a_counter_that_began_again_within_an_hour_loses_nothing():
    again = 10 * HOUR + 1800
    points = every(60, 60, DAY, lambda t: t if t < again else t - again)
    samples = course((UP, N1, points))
    assert grown(samples, HOUR, DAY) == DAY - HOUR - 60  # nothing is known of the reset's minute


def test_one_that_grew_past_its_old_value_in_the_same_hour_loses_nothing_either():
    again = HOUR + 300
    points = every(60, 60, 2 * HOUR, lambda t: 100 + t / 100 if t < again else (t - again) / 10)
    samples = course((UP, N1, points), until=2 * HOUR)
    [last_of_the_first, last] = [s.value for s in samples if s.at % HOUR == 0]
    assert last > last_of_the_first  # the hours alone do not show it
    assert grown(samples, HOUR, 2 * HOUR) == pytest.approx(330 + 2.4, abs=3)


def test_one_that_began_again_in_a_gap_of_hours_loses_nothing():
    away = every(60, 60, 2 * HOUR, lambda t: 10)
    back = [(8 * HOUR + 60, 0.0), *every(60, 8 * HOUR + 120, DAY, lambda t: 20)]
    samples = course((UP, N1, [*away, *back]))
    assert grown(samples, HOUR, DAY) == 20.0  # from 10 to 20 by the hours alone


@pytest.mark.parametrize("again", [5 * HOUR, 5 * HOUR + 30, 7 * HOUR + 1800, 17 * HOUR + 1])
def test_a_reset_is_found_wherever_questions_are_cut(again):
    points = every(60, 60, DAY, lambda t: t / 1e4 if t < again else (t - again) / 1e2)
    read = reading((UP, N1, points))
    read._engine.longest = 6 * HOUR + 5.0
    [samples] = read.counter(UP).values()
    last = max(t for t, _ in points if t < again)
    whole = last / 1e4 - HOUR / 1e4 + points[-1][1]
    assert grown(samples, HOUR, DAY) == pytest.approx(whole)


def test_a_value_that_is_not_of_its_hour_s_end_is_bridged():
    away = every(60, 60, 5 * HOUR - 600, lambda t: t)
    back = every(60, 5 * HOUR + 1800, DAY, lambda t: t)
    samples = course((UP, N1, [*away, *back]))
    assert 5 * HOUR not in {s.at for s in samples}
    assert grown(samples, HOUR, DAY) == DAY - HOUR


def test_the_newest_of_a_series_has_its_own_time():
    samples = course((UP, N1, every(60, 60, DAY - 600, lambda t: t)), until=DAY + 60)
    assert (samples[-1].at, samples[-1].value) == (DAY - 600, DAY - 600)
    assert [s.at for s in samples] == sorted({s.at for s in samples})


def test_resets_that_cannot_be_found_are_no_figure():
    class Claiming(FakeEngine):
        def instant(self, question, *, at):
            return [Line(N1, ((at, 2.0),))]

    engine = Claiming((UP, N1, every(60, 60, DAY, lambda t: t)))
    asks = where(History(url="http://engine"), ["n1.*"])
    bad = Reading(engine, CATALOGUE.metrics, asks, Period(0.0, DAY))  # type: ignore[arg-type]
    with pytest.raises(HistoryError, match="began again 2 times, 0 of them are found"):
        bad.counter(UP)


def test_one_that_begins_again_all_the_time_is_two_that_share_a_name():
    points = every(600, 600, 100 * HOUR, lambda t: t if t % 1200 else 5)
    with pytest.raises(HistoryError, match="do two jobs or two targets share its name"):
        course((UP, N1, points), until=100 * HOUR)


def test_a_pair_of_engines_that_nobody_joins_is_no_figure():
    pair = [{**N1, "replica": name} for name in ("a", "b")]
    with pytest.raises(HistoryError) as caught:
        course(*((UP, own, every(60, 60, DAY, lambda t: t)) for own in pair))
    assert "is there 2 times at once, with replica=a and b: wanted one" in str(caught.value)


def test_a_target_that_was_labelled_anew_is_one_series():
    old, new = {**N1, "rack": "7"}, {**N1, "rack": "8"}
    seam = 10 * HOUR + 1200
    before, after = every(60, 60, seam, lambda t: t), every(60, seam + 60, DAY, lambda t: t)
    samples = course((UP, old, before), (UP, new, after))
    assert [s.at for s in samples] == [HOUR * n for n in range(1, 25)]
    assert grown(samples, HOUR, DAY) == 23 * HOUR


def test_a_series_without_the_label_that_names_the_node_says_which_it_has():
    asks = where(History(url="http://engine", node_label="node"), [".*"])
    engine = FakeEngine((UP, N1, every(60, 60, DAY, lambda t: t)))
    bad = Reading(engine, CATALOGUE.metrics, asks, Period(0.0, DAY))  # type: ignore[arg-type]
    with pytest.raises(HistoryError, match="no label node, its labels are instance, training_job"):
        bad.counter(UP)


def test_an_hour_counts_for_the_minutes_that_hold_a_sample():
    points = [p for p in every(60, 60, DAY, lambda t: 240) if not 3600 < p[0] <= 3600 + 2400]
    [samples] = reading((PACE, N1, points)).gauge(PACE, MEAN).values()
    spans = {s.at: s.span for s in samples}
    assert spans[HOUR] == HOUR
    assert spans[2 * HOUR] == (20 - 2) * 60  # both ends of a gap may be half minutes
    assert covered(61) == HOUR


def test_no_series_at_all_is_no_course():
    assert reading().counter(UP) == {}


def past(*series, nodes=("n1(:[0-9]+)?",), **keys):
    return EnginePast(reading(*series, nodes=nodes, **keys), CATALOGUE.metrics, "n1", nodes)


def test_two_targets_that_are_one_node_are_no_figure():
    other = {**N1, "instance": "n1:9110"}
    double = past(*((UP, own, every(60, 60, DAY, lambda t: t)) for own in (N1, other)))
    with pytest.raises(HistoryError, match=r"2 targets are n1 \(n1:9109, n1:9110\), wanted 1"):
        double.series(UP, GPT, since=0.0, until=DAY)


def test_another_node_of_the_same_reading_is_left_alone():
    both = ("n1(:[0-9]+)?", "n2(:[0-9]+)?")
    read = reading(
        (UP, N1, every(60, 60, DAY, lambda t: t)),
        (UP, {**N1, "instance": "n2:9109"}, every(60, 60, DAY, lambda t: t / 2)),
        nodes=both,
    )
    second = EnginePast(read, CATALOGUE.metrics, "n2", both[1:])
    assert [s.value for s in second.latest(UP)] == [DAY / 2]
    assert set(read.counter(UP)) == {Key("n1:9109", GPT), Key("n2:9109", GPT)}


def test_a_series_that_ended_long_before_the_period_did_is_not_the_latest():
    assert past((UP, N1, every(60, 60, 20 * HOUR, lambda t: t))).latest(UP) == []


def test_what_was_not_read_is_not_answered():
    with pytest.raises(HistoryError, match="was asked for"):
        past((UP, N1, [(60.0, 1.0)])).series(UP, GPT, since=-1.0, until=DAY)


CLUSTER = """
[node]
name = "n1"
[cluster]
lead = "n1"
[[cluster.nodes]]
name = "n1"
address = "10.0.0.1"
url = "https://n1.train:9443"
"""


def test_a_node_is_known_by_its_place_its_name_or_its_address():
    assert patterns(parse(CLUSTER)) == (
        r"n1\.train\:9443", r"n1(:[0-9]+)?", r"10\.0\.0\.1(:[0-9]+)?",
    )  # fmt: skip


def test_a_node_is_known_by_what_the_site_says():
    told = parse('[history]\nurl = "http://engine"\nnode_label = "host"\nnode = "rack7/n1"\n')
    assert patterns(told) == (r"rack7\/n1",)
    assert where(told.history, patterns(told)).matchers == 'host=~"rack7\\\\/n1"'


def test_a_cluster_is_selected_exactly_whatever_its_name():
    settings = History(url="http://engine", matchers={"cluster": 'a"b\\c'})
    assert where(settings, ["n1"]).matchers == 'cluster="a\\"b\\\\c",instance=~"n1"'
    assert quoted("a\nb") == '"a\\nb"'
    assert Config().history.url == ""
