"""The chart: draws what was observed and nothing else, on round axes, small whatever comes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvfd.model import Sample
from dvfd.sinks.chart import (
    POINTS,
    Chart,
    Point,
    bounds,
    draw,
    gaps,
    moments,
    stretches,
    thin,
    ticks,
)

UNTIL = 1_764_075_600.0
SINCE = UNTIL - 3600


def samples(*at_and_value: tuple[float, float], span: float = 0.0) -> list[Sample]:
    return [Sample("x", value, SINCE + at, span=span) for at, value in at_and_value]


def steady(start: int, end: int, value: float = 5.0, every: int = 5) -> list[Sample]:
    return samples(*((at, value) for at in range(start, end + 1, every)))


def chart(found: list[Sample], limit: float | None = None) -> Chart:
    return draw(found, since=SINCE, until=UNTIL, max_age=15, limit=limit)


def paths(drawn: Chart, kind: str) -> list[str]:
    return re.findall(rf'class="{kind}" d="([^"]*)"', drawn.plot)


def test_a_line_ends_where_observation_ended_and_begins_anew_after_it():
    drawn = chart(steady(0, 600) + steady(1200, 3600))

    assert len(paths(drawn, "line")) == 2
    assert drawn.unobserved == 600


def test_unobserved_time_is_shaded_from_the_last_sample_to_the_next():
    left = chart(steady(0, 900) + steady(1800, 3600))

    assert paths(left, "gap") == ["M250 0h250V1000h-250z"]


def test_a_series_that_went_silent_is_not_drawn_up_to_now():
    drawn = chart(steady(0, 1800))

    assert paths(drawn, "gap") == ["M500 0h500V1000h-500z"]
    assert max(float(x) for x in re.findall(r"[ML]([\d.]+) ", paths(drawn, "line")[0])) <= 500


def test_without_samples_all_of_it_is_a_gap():
    drawn = chart([])

    assert drawn.unobserved == 3600
    assert not paths(drawn, "line")
    assert all(row.point is None for row in drawn.rows)
    assert drawn.last is None


def test_a_wait_within_the_age_of_the_metric_is_no_gap():
    assert chart(steady(0, 3600, every=15)).unobserved == 0
    assert len(stretches(steady(0, 160, every=16), 15)) == 11


def test_a_minute_that_was_observed_in_part_leaves_a_gap_before_it():
    minutes = [*samples((60, 1), (120, 1), span=60), *samples((180, 1), span=30)]

    assert [len(part) for part in stretches(minutes, 15)] == [2, 1]
    assert gaps(stretches(minutes, 15), SINCE, SINCE + 180, 15) == [(SINCE + 120, SINCE + 150)]


def test_a_short_gap_is_wide_enough_to_be_seen():
    day = [Sample("x", 1.0, UNTIL - 86_400 + 5 * n) for n in range(17_281) if not 99 < n < 110]
    drawn = draw(day, since=UNTIL - 86_400, until=UNTIL, max_age=15)

    assert [re.findall(r"h([\d.]+)V", path) for path in paths(drawn, "gap")] == [["2"]]


def test_one_sample_alone_can_be_seen():
    assert re.fullmatch(r"M500 [\d.]+h1", paths(chart(samples((1800, 7))), "line")[0])


def test_a_dip_shorter_than_a_point_stays_visible_in_the_band():
    found = steady(0, 3600)
    found[300] = samples((1500, 0.0))[0]
    (point,) = (p for p in thin(found, SINCE, 20) if p.low == 0)

    assert point.high == 5
    assert 0 < point.mean < 5


def test_the_band_reaches_as_far_as_the_interval_of_a_sample():
    (point,) = thin([Sample("x", 5.0, SINCE, low=2.0, high=9.0)], SINCE, 20)

    assert (point.low, point.high) == (2, 9)


def test_a_day_of_samples_is_thinned_to_a_few_hundred_points():
    found = [Sample("x", float(n % 7), UNTIL - 86_400 + 5 * n) for n in range(17_281)]
    (line,) = paths(draw(found, since=UNTIL - 86_400, until=UNTIL, max_age=15), "line")

    assert POINTS <= line.count("L") + 1 <= POINTS + 1


def test_the_limit_is_on_the_chart_however_far_from_the_values():
    drawn = chart(steady(0, 3600), limit=100.0)

    (place,) = re.findall(r"M0 ([\d.]+)H1000", paths(drawn, "limit")[0])
    assert 0 < float(place) < 200
    assert not paths(chart(steady(0, 3600)), "limit")


def test_higher_values_are_higher_up():
    line = paths(chart(samples((0, 1), (10, 9)) + steady(20, 3600)), "line")[0]

    assert len(paths(chart(samples((0, 1), (60, 9))), "line")) == 2
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", line)]
    assert paths(chart(steady(0, 3600)), "line")[0].count("L") > 100
    assert 0 <= min(heights) <= max(heights) <= 1000


def test_a_steady_line_does_not_look_like_a_storm():
    low, high = bounds(thin(samples((0, 99.9), (40, 100.1)), SINCE, 20), None)

    assert high - low >= 10


def test_an_axis_of_what_is_never_negative_does_not_go_below_zero():
    assert bounds(thin(samples((0, 0.0), (40, 10.0)), SINCE, 20), None)[0] == 0


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (265, 275, [266, 268, 270, 272, 274]),
        (2, 3.7, [2, 2.5, 3, 3.5]),
    ],
)
def test_the_axis_has_round_values(low, high, wanted):
    assert ticks(low, high) == pytest.approx(wanted)


def test_labels_of_the_axis_tell_neighbours_apart():
    labels = re.findall(r">([^<]*)</text>", chart(samples((0, 100.0), (5, 100.4))).values)

    assert len(labels) == len(set(labels)) >= 3


def test_times_are_round_and_in_utc():
    assert re.findall(r">(\d\d:\d\d)<", chart([]).times) == [
        "12:10", "12:20", "12:30", "12:40", "12:50",
    ]  # fmt: skip
    assert len(moments(UNTIL - 86_400, UNTIL)) in {6, 7}


def test_the_table_tells_each_part_and_leaves_out_none():
    drawn = chart(steady(0, 299, 4.0) + steady(3300, 3600, 8.0))

    means = [row.point.mean if row.point else None for row in drawn.rows]
    assert means == [pytest.approx(4), *[None] * 10, pytest.approx(8)]
    assert [row.since for row in drawn.rows[:2]] == [SINCE, SINCE + 300]


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.lists(st.tuples(st.floats(0, 3600), numbers), max_size=40),
    st.none() | numbers,
)
def test_whatever_number_comes_the_picture_holds_finite_coordinates(found, limit):
    drawn = chart(samples(*sorted(found)), limit)

    assert not re.search(r"nan|inf", drawn.plot + drawn.values + drawn.times)
    heights = re.findall(r"[ML]-?[\d.]+ (-?[\d.]+)", "".join(paths(drawn, "line")))
    assert all(-0.1 <= float(height) <= 1000.1 for height in heights)


def test_a_line_of_nothing_but_zeros_has_an_axis_that_people_read():
    low, high = bounds([*steady_points(0.0)], None)

    assert (low, high) == (0.0, 1.0)


def steady_points(value: float) -> list[Point]:
    return [Point(at, value, value, value) for at in (0.0, 1.0)]
