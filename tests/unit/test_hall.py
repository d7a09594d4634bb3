"""The made-up hall of nodes: the same each time, and one truth for whoever looks how often."""

from __future__ import annotations

import io
import re
from itertools import pairwise

import pytest

from bench.hall import DAY, HOUR, Hall
from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.derive import counter_increase

HALL = Hall(1_800_000_000, days=7, count=8)
OBSERVED, UP = "job_observed_seconds_total", "job_up_seconds_total"


def scraped(node, metric, every=60.0):
    out = io.StringIO()
    HALL.write(out, every, nodes=[node])
    rows = re.findall(rf"^dvfd_{metric}{{[^}}]*}} (\S+) (\d+)$", out.getvalue(), re.MULTILINE)
    return [(int(at), float(value)) for value, at in rows]


def kept(node, metric, every=30.0):
    return [(s.at, s.value) for s in HALL.samples(node, every) if s.metric == metric]


def test_it_is_the_same_each_time_and_another_by_another_seed():
    again, other = (Hall(HALL.end, days=7, count=8, seed=seed) for seed in (8, 9))

    assert again.nodes == HALL.nodes
    assert scraped(again.nodes[5], UP) == scraped(HALL.nodes[5], UP)
    assert other.nodes != HALL.nodes


def test_every_metric_of_it_is_one_that_daemons_expose():
    exposed = load(Config()).metrics
    node = HALL.nodes[0]

    assert {name for name, _ in HALL.values(node, 5.0)} <= set(exposed)


@pytest.mark.parametrize("number", [1, 3, 4])
def test_what_a_store_and_an_engine_saw_differs_by_less_than_a_scrape(number):
    node = HALL.nodes[number]
    grown = [
        counter_increase([value for _, value in course])
        for course in (kept(node, UP), scraped(node, UP))
    ]

    assert grown[0] == pytest.approx(grown[1], abs=2 * 60 + 30)


def test_each_fate_is_seen_where_it_is_told():
    _, unscraped, silent, down, anew, drifting, differing, _ = HALL.nodes

    for node, longest in ((unscraped, 7200.0), (silent, 5 * HOUR)):
        times = [at for at, _ in scraped(node, OBSERVED)]
        gap = max(b - a for a, b in pairwise(times))
        assert gap == pytest.approx(longest, abs=120)
    lost = [node.observed(8 * DAY) - node.up(8 * DAY) for node in (unscraped, down)]
    assert lost == [0.0, 2400.0]
    values = [value for _, value in kept(anew, OBSERVED)]
    assert sum(b < a for a, b in pairwise(values)) == 1
    paces = [value for _, value in kept(drifting, "job_throughput_samples_per_second", 3600.0)]
    assert sum(paces[-24:]) < 0.99 * sum(paces[:24])
    assert kept(differing, "job_hash_mismatches_total")[-1][1] == 3.0
