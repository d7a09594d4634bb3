"""Whatever came between: the uptime of a period lies between its two bounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dvfd.model import Sample
from dvfd.reviews.review import agreed
from dvfd.reviews.uptime import HOUR, JITTER, Uptime, counted, merged, uptime

BEGAN = 1_800_000_000.0
LOOK = 60.0
UP, DOWN, BLIND_UP, BLIND_DOWN, AWAY_UP, AWAY_DOWN, STEP, ANEW = range(8)
"""Blind: the daemon did not look. Away: it did, and nobody kept it. A clock steps; counters begin
anew."""


def less(
    windows: list[tuple[float, float]], others: list[tuple[float, float]]
) -> Iterator[tuple[float, float]]:
    """What of *windows* is in none of *others*; both in order and apart."""
    for begin, end in windows:
        at = begin
        for a, b in others:
            if a < end and b > at:
                if a > at:
                    yield at, a
                at = b
        if at < end:
            yield at, end


@dataclass
class Node:
    """A daemon that counts, and a truth that it need not know. Its clock may be set."""

    clock: float = BEGAN
    up: float = 5e5
    observed: float = 6e5
    downs: list[tuple[float, float]] = field(default_factory=list)
    unseen: list[tuple[float, float]] = field(default_factory=list)
    looked: list[tuple[float, float]] = field(default_factory=list)
    kept: dict[float, tuple[float, float]] = field(default_factory=dict)
    steps: int = 0

    def live(self, kind: int, length: float) -> None:
        if kind == STEP:
            self.keep()
            self.steps += 1
            self.clock += (
                length - 2 * HOUR + self.steps
            )  # or looks would replace those of the same moment
            self.live(UP, LOOK)
        elif kind == ANEW:
            self.up = self.observed = 0.0
        else:
            while length > 0.0:
                self.pass_(kind, min(LOOK, length))
                length -= LOOK

    def pass_(self, kind: int, length: float) -> None:
        span = self.clock, self.clock + length
        if kind in {DOWN, AWAY_DOWN}:
            self.downs.append(span)
        if kind == BLIND_DOWN:
            self.unseen.append(span)
        elif kind != BLIND_UP:
            self.looked.append(span)
        self.clock += length
        if kind not in {BLIND_UP, BLIND_DOWN}:
            self.observed += length
            self.up += length if kind in {UP, AWAY_UP} else 0.0
        if kind in {UP, DOWN}:
            self.keep()

    def keep(self) -> None:
        self.kept[self.clock] = (self.up, self.observed)

    def truth(self, since: float, until: float) -> float:
        """A moment that came twice was seen if it was seen once."""
        blind = less(merged(self.unseen), merged(self.looked))
        down = sum(max(0.0, min(b, until) - max(a, since)) for a, b in [*self.downs, *blind])
        return max(0.0, 1.0 - down / (until - since))

    def told(self, since: float, until: float, *, every: float = 0.0) -> Uptime:
        """By the samples that are in order of time, or by the newest of so many seconds."""
        rows = {at: both for at, both in self.kept.items() if since - 24 * HOUR <= at <= until}
        if every:
            rows = {-(-at // every) * every: rows[at] for at in sorted(rows)}
        courses = [
            [Sample("m", rows[at][place], at, span=every) for at in sorted(rows)]
            for place in (0, 1)
        ]
        found = uptime(courses[0], courses[1], since=since, until=until)
        assert found is not None
        return found


def lived(*days: tuple[int, float]) -> Node:
    node = Node()
    node.keep()
    for kind, length in days:
        node.live(kind, length)
    node.keep()
    return node


H = HOUR
COURSES = st.lists(
    st.tuples(st.integers(0, 7), st.integers(1, 3 * 60).map(lambda minutes: minutes * 60.0)),
    min_size=1,
    max_size=8,
)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(COURSES, st.integers(0, 20))
@example([(UP, 24 * H), (AWAY_UP, 23 * H), (AWAY_DOWN, H), (UP, 40 * H), (DOWN, 8 * H)], 52)
@example([(UP, 20 * H), (STEP, H), (UP, 2 * H), (DOWN, H), (UP, 9 * H)], 5)
@example([(UP, 20 * H), (DOWN, 2 * H), (STEP, 1.9 * H), (UP, 9 * H)], 26)
@example([(UP, 9 * H), (BLIND_DOWN, 2 * H), (UP, 9 * H), (STEP, H), (UP, 9 * H)], 8)
@example([(UP, 9 * H), (DOWN, 60.0), (ANEW, 0.0), (BLIND_DOWN, 60.0), (UP, 9 * H)], 8)
@example([(DOWN, 9 * H), (ANEW, 0.0), (UP, 9 * H)], 8)
def test_the_truth_is_between_the_bounds(days: list[tuple[int, float]], hours: int) -> None:
    node = lived((UP, 25 * H), *days)
    since = BEGAN + (20 + hours) * HOUR
    until = max(node.kept)
    if until <= since:
        return
    found, truth = node.told(since, until), node.truth(since, until)
    slack = (JITTER * node.steps + 1e-3) / (until - since)
    assert found.low <= truth + slack
    assert truth - slack <= found.high


@pytest.mark.parametrize("back", [90.0, 300.0, HOUR, 3.3 * HOUR])
@pytest.mark.parametrize("every", [0.0, HOUR])
def test_a_clock_that_was_set_back_hides_no_downtime(back: float, every: float) -> None:
    node = lived((UP, 90 * H), (DOWN, 3 * H), (UP, 40 * H), (STEP, 2 * H - back), (UP, 60 * H))
    found = node.told(BEGAN + 20 * H, BEGAN + 188 * H, every=every)
    assert 168 * H - found.most == pytest.approx(3 * H, abs=1.0)
    assert found.low <= 165 / 168


def test_a_clock_that_was_set_back_hides_nothing_that_nobody_saw() -> None:
    node = lived((UP, 90 * H), (BLIND_UP, 2 * H), (UP, 40 * H), (STEP, 0.0), (UP, 60 * H))
    found = node.told(BEGAN + 20 * H, BEGAN + 188 * H)
    assert (found.low, found.high) == (pytest.approx(166 / 168, abs=2e-4), 1.0)


def test_what_grew_before_the_period_is_not_of_it() -> None:
    node = lived((UP, 24 * H), (AWAY_UP, 24 * H), (UP, 100 * H), (DOWN, 8 * H), (UP, 59 * H))
    found = node.told(BEGAN + 47 * H, BEGAN + 215 * H)
    assert (found.low, found.high) == (160 / 168, 160 / 168)


def test_growth_that_may_all_be_of_before_is_neither_up_nor_down() -> None:
    node = lived((UP, 24 * H), (AWAY_UP, 20 * H), (BLIND_DOWN, 4 * H), (UP, 167 * H))
    found = node.told(BEGAN + 47 * H, BEGAN + 215 * H)
    assert (found.low, found.high, found.coverage) == pytest.approx(
        (167 / 168, 1.0, 167 / 168), abs=2e-4
    )


def test_a_daemon_that_was_killed_and_counts_a_little_less_hides_no_downtime() -> None:
    node = lived((UP, 90 * H), (DOWN, 3 * H), (UP, 40 * H))
    node.up, node.observed = node.up - 5.0, node.observed - 5.0
    node.live(UP, 59 * H)
    found = node.told(BEGAN + 20 * H, BEGAN + 188 * H)
    assert found.high == 165 / 168
    assert 0.0 <= found.high - found.low <= 120.0 / (168 * H)


def test_one_that_began_anew_counts_from_there() -> None:
    node = lived((UP, 90 * H), (ANEW, 0.0), (UP, 30 * H), (DOWN, 3 * H), (UP, 60 * H))
    found = node.told(BEGAN + 10 * H, BEGAN + 178 * H)
    assert (found.low, found.high) == (pytest.approx(165 / 168), pytest.approx(165 / 168))


def events(*values: float) -> list[Sample]:
    return [Sample("m", value, BEGAN + n * HOUR) for n, value in enumerate(values)]


def test_comparisons_of_before_dilute_none_that_differed() -> None:
    around = counted(events(0, 9000, 10000), BEGAN + 1800, BEGAN + 2 * HOUR)
    assert around == (1000, 10000)
    low, high = agreed(around, counted(events(0, 2, 12), BEGAN + 1800, BEGAN + 2 * HOUR))
    assert (low, high) == (pytest.approx(1 - 12 / 1002), pytest.approx(1 - 10 / 10000))


def test_events_that_fell_may_have_been_all_or_none() -> None:
    assert counted(events(5, 7, 3, 4), BEGAN, BEGAN + 3 * HOUR) == (3, 6)
