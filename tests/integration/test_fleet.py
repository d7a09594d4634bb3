"""Fifty simulated nodes under a real Prometheus: the measurement of the fleet in small."""

from __future__ import annotations

from pathlib import Path

import pytest
import testbed

from bench.fleet import figures, measure
from bench.player import fleet


@pytest.mark.slow
def test_fifty_nodes_are_scraped_and_every_mark_is_reached(tmp_path: Path) -> None:
    testbed.need(testbed.PROMETHEUS)
    nodes = fleet(50, 1)

    found = measure(tmp_path, nodes, seconds=90, interval=5, ill=1)

    assert found["silent"] == 1
    assert found["answered_silent"] == 0
    assert found["series_of_nodes"] > 49 * 350
    assert found["block_samples"] > 49 * 350 * 10
    missed = [figure.text for figure in figures(found) if figure.reached is False]
    assert missed == []
