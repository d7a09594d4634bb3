"""A fleet does not act at once: where the checklists of 10,000 nodes fall within the jitter.

The names are fixed, so nothing here is left to chance: a test fails when the hash is changed for
a worse one. The bounds are those that a fair spread exceeds once in ten thousand tries.
"""

from __future__ import annotations

import math
import random
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from statistics import NormalDist
from zoneinfo import ZoneInfo

import pytest
from fakes import FakeClock
from fakes_sinks import FakeAlertmanager, FakeOutbox

from dvfd.config import Config
from dvfd.schedule import Schedule, offset
from dvfd.sinks.alertmanager import Sender
from dvfd.sinks.pager import Pager

JITTER = 300.0
"""Seconds: the jitter as delivered."""

FLEET = 10_000
RARE = 1e-4
CHECKS = ("daily", "weekly", "monthly")

SHAPES: dict[str, list[str]] = {
    "counted": [f"node-{n:04}" for n in range(1, FLEET + 1)],
    "racked": [f"gpu-a{n // 50}-b{n % 50}" for n in range(FLEET)],
    "domains": [f"n{n:05}.rack{n // 40}.dc2.example.org" for n in range(FLEET)],
    "addresses": [f"10.{n // 65536}.{n // 256 % 256}.{n % 256}" for n in range(FLEET)],
    "uuids": [str(uuid.uuid5(uuid.NAMESPACE_DNS, str(n))) for n in range(FLEET)],
}

by_shape = pytest.mark.parametrize("shape", SHAPES)
by_check = pytest.mark.parametrize("check", CHECKS)


def offsets(shape: str, check: str = "daily") -> list[float]:
    return [offset(name, check, JITTER) for name in SHAPES[shape]]


def in_seconds(delays: Iterable[float]) -> list[int]:
    """How many fall into each second of the jitter."""
    counts = Counter(int(delay) for delay in delays)
    return [counts[second] for second in range(int(JITTER))]


def chi_square(counts: Sequence[int]) -> float:
    """Distance of *counts* from all alike."""
    mean = sum(counts) / len(counts)
    return sum((count - mean) ** 2 for count in counts) / mean


def chi_square_limit(bins: int) -> float:
    """What a fair spread over *bins* exceeds once in 1/RARE (Wilson and Hilferty, 1931)."""
    freedom, z = bins - 1, NormalDist().inv_cdf(1 - RARE)
    return freedom * (1 - 2 / (9 * freedom) + z * math.sqrt(2 / (9 * freedom))) ** 3


def farthest(delays: Iterable[float]) -> float:
    """The Kolmogorov-Smirnov distance from uniform over [0, JITTER)."""
    shares = [delay / JITTER for delay in sorted(delays)]
    count = len(shares)
    return max(max(s - i / count, (i + 1) / count - s) for i, s in enumerate(shares))


def farthest_limit(count: int) -> float:
    """Exceeded once in 1/RARE: the two-sided tail is 2 exp(-2 n d^2) (Smirnov, 1948)."""
    return math.sqrt(math.log(2 / RARE) / (2 * count))


def most_in_a_second(nodes: int) -> float:
    """Poisson's mean and five deviations of it: 1e-6 a second, 2e-4 for all 300."""
    mean = nodes / JITTER
    return mean + 5 * math.sqrt(mean)


@by_check
@by_shape
def test_every_second_of_the_jitter_is_as_likely_as_another(shape: str, check: str) -> None:
    counts = in_seconds(offsets(shape, check))

    assert sum(counts) == FLEET
    assert chi_square(counts) < chi_square_limit(len(counts))


@by_check
@by_shape
def test_offsets_stray_nowhere_from_uniform(shape: str, check: str) -> None:
    assert farthest(offsets(shape, check)) < farthest_limit(FLEET)


@by_check
@by_shape
def test_no_second_gets_much_more_than_its_share(shape: str, check: str) -> None:
    assert max(in_seconds(offsets(shape, check))) <= most_in_a_second(FLEET)


@by_shape
def test_one_rack_of_neighbours_is_spread_too(shape: str) -> None:
    """Names that follow each other must not follow each other in time: 40 share a switch."""
    delays = [offset(name, "daily", JITTER) for name in SHAPES[shape]]

    for first in range(0, FLEET, 40):
        rack = in_seconds(delays[first : first + 40])
        assert max(rack) <= 5  # Poisson of 40/300: six or more in one of 300 s of 250 racks, 4e-4


def test_the_lists_of_one_node_do_not_come_together() -> None:
    """When the first of a month is a Monday all three are due: no node runs them at one time."""
    together = sum(
        abs(offset(name, "daily", JITTER) - offset(name, "weekly", JITTER)) < 1
        for name in SHAPES["counted"]
    )
    assert together <= most_in_a_second(2 * FLEET)  # two seconds in 300, were they independent


def test_an_offset_is_the_same_after_a_restart_and_on_every_machine() -> None:
    """Written down once: a salted hash, as Python's own, would move at each start."""
    assert offset("node-0001", "daily", JITTER) == pytest.approx(206.690390, abs=1e-6)
    assert offset("node-0001", "weekly", JITTER) == pytest.approx(234.159362, abs=1e-6)


def test_the_calendar_keeps_the_offset() -> None:
    names = SHAPES["counted"][:200]
    clock = FakeClock(now=datetime(2026, 11, 25, 5, tzinfo=UTC).timestamp())
    six = datetime(2026, 11, 25, 6, tzinfo=UTC).timestamp()

    for name in names:
        due = schedule(name, clock).next_runs()["daily"] - six
        assert due == pytest.approx(offset(name, "daily", JITTER), abs=1e-5)


def schedule(name: str, clock: FakeClock) -> Schedule:
    return Schedule(
        {"daily": "0 6 * * *"},
        zone=ZoneInfo("UTC"),
        node=name,
        jitter=JITTER,
        run=lambda *_: None,
        clock=clock,
    )


def last_digits(name: str) -> float:
    return int("".join(filter(str.isdigit, name))[-2:] or 0) / 100


def sum_of_letters(name: str) -> float:
    return sum(name.encode()) % 300 / 300


def adler(name: str) -> float:
    return zlib.adler32(name.encode()) / 2**32


@pytest.mark.parametrize("poor", [last_digits, sum_of_letters, adler])
def test_a_poor_hash_would_be_found(poor: Callable[[str], float]) -> None:
    delays = [poor(name) * JITTER for name in SHAPES["counted"]]

    assert chi_square(in_seconds(delays)) > chi_square_limit(int(JITTER))
    assert max(in_seconds(delays)) > most_in_a_second(FLEET)


def resends(node: int, count: int) -> list[float]:
    """When a node tells again of a breach that the whole fleet had at 0."""
    clock, chance = FakeClock(), random.Random(node)
    config = Config.model_validate({"alerting": {"urls": ["http://am"]}})
    pager = Pager(FakeOutbox(), push=True)
    sender = Sender(pager, config, clock=clock, connect=FakeAlertmanager, jitter=chance.uniform)
    began, times = clock.boot(), []
    for _ in range(count):
        sender.round()
        clock.advance(sender.wait())
        times.append(clock.boot() - began)
    return times


def test_a_breach_of_the_whole_fleet_is_not_told_again_in_step() -> None:
    """The first resends spread over twelve seconds (48 to 60), the twentieth over a minute."""
    told = [resends(node, 20) for node in range(500)]
    first, last = (Counter(int(times[n]) for times in told) for n in (0, 19))

    mean = 500 / 12
    assert max(first.values()) <= mean + 5 * math.sqrt(mean)
    assert 47 <= min(first) <= 48
    assert 59 <= max(first) <= 60
    assert max(last.values()) < max(first.values())
    assert max(last) - min(last) > 45
