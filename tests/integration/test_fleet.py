"""Fifty simulated nodes under a real Prometheus: the measurement of the fleet in small."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import testbed

from bench.fleet import RULES, figures, measure
from bench.player import fleet

OWN = """
groups:
- name: of-this-test
  rules:
  - alert: NoAnswer
    expr: up{job="dvfd"} == 0
  - alert: OldAnswer
    expr: time() - max by (instance) (dvfd_probe_last_success_timestamp_seconds) > 600
"""
"""Beside the delivered ones: what the measurement finds must not hang on their names."""


@pytest.mark.long
@pytest.mark.slow
def test_fifty_nodes_are_scraped_the_ill_ones_named_and_every_mark_reached(tmp_path: Path) -> None:
    testbed.need(testbed.PROMETHEUS)
    rules = tmp_path / "rules"
    shutil.copytree(RULES, rules)
    (rules / "own.rules.yml").write_text(OWN)

    found = measure(tmp_path, fleet(50, 1), seconds=120, interval=5, ill=1, source=rules)

    assert (found["silent"], found["answered_silent"]) == (1, 0)
    assert found["series_of_nodes"] > 49 * 350
    assert found["block_samples"] > 49 * 350 * 10
    assert found["illness"]["demanded"] == 2
    assert all("NoAnswer" in named for named in found["illness"]["ill"]["silent"].values())
    assert all("OldAnswer" in named for named in found["illness"]["ill"]["stale"].values())
    missed = {figure.name: figure.text for figure in figures(found) if figure.reached is False}
    missed.pop("query_worst", None)  # one query of hundreds: a busy moment makes it slow
    assert missed == {}
