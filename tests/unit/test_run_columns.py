"""Intervals by columns: in order of time, cut, picked and covered as the intervals themselves."""

from hypothesis import given
from hypothesis import strategies as st

from dvfd.runs.intervals import Columns, Curve, Interval

TIMES = st.floats(0, 1000, allow_nan=False)
TOLD = st.none() | st.floats(0.1, 10)


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    began = draw(TIMES)
    return Interval(
        key=draw(st.integers(0, 9)), began=began, ended=began + draw(st.floats(0.1, 200)),
        samples=draw(TOLD), loss=draw(TOLD), norm=draw(TOLD), seen=draw(TOLD),
        communication=draw(TOLD), allreduce=draw(TOLD), rate=draw(TOLD), ahead=draw(TOLD),
        computed=draw(st.booleans()),
    )  # fmt: skip


MANY = st.lists(intervals(), max_size=20, unique_by=lambda each: (each.ended, each.key))


def by_time(found: list[Interval]) -> list[Interval]:
    return sorted(found, key=lambda each: (each.ended, each.key))


@given(MANY)
def test_they_come_out_in_order_of_time_whatever_order_they_came_in(found: list[Interval]) -> None:
    assert list(Columns(found)) == by_time(found)


@given(MANY, TIMES, TIMES)
def test_inside_are_those_that_began_and_ended_there(
    found: list[Interval], since: float, until: float
) -> None:
    inside = [each for each in by_time(found) if each.began >= since and each.ended <= until]
    assert list(Columns(found).inside(since, until)) == inside


@given(MANY)
def test_telling_are_those_that_tell(found: list[Interval]) -> None:
    columns = Columns(found)
    told = [each for each in by_time(found) if each.throughput is not None]
    assert list(columns.telling("throughput")) == told
    assert list(columns.telling("throughput")["throughput"]) == [i.throughput for i in told]
    assert list(columns.telling("computed")) == [each for each in by_time(found) if each.computed]


@given(MANY)
def test_of_one_that_was_made_again_the_last_counts(found: list[Interval]) -> None:
    last = {each.key: each for each in by_time(found)}
    assert list(Columns(found).once()) == [last[key] for key in sorted(last)]


def test_a_curve_is_read_between_its_points_and_nowhere_else() -> None:
    curve = Curve([(1.0, 10.0), (3.0, 30.0)])
    assert [curve.at(place) for place in (0.9, 1.0, 2.0, 3.0, 3.1)] == [
        None,
        10.0,
        20.0,
        30.0,
        None,
    ]
    assert Curve([]).at(1.0) is None
