"""No probe and no source without a row of how it is muted, or of why it cannot be."""

from __future__ import annotations

import pytest

from bench.mute_table import SOURCES, Way
from bench.silences import everything, ways
from dvfd import probes
from dvfd.model import ATTESTATION, DRILL, NONE_YET, REVIEW, RUN
from dvfd.probes.exec_plugin import ExecPlugin
from dvfd.probes.scrape import Scrape
from dvfd.probes.textfile import TextFile

KINDS = {"plugin": ExecPlugin, "textfile": TextFile, "scrape": Scrape}
EVERYTHING = everything()
RECORDS = {DRILL, REVIEW, RUN, ATTESTATION, NONE_YET}
"""Sources that are no series: bench.silences and bench.run_silences mute what rests on them."""


def test_every_probe_has_a_row() -> None:
    named = {probe.name for probe in probes.CLASSES}
    assert named | set(KINDS) == {source.partition(".")[0] for source in SOURCES}


def test_every_source_of_the_catalogue_has_a_row() -> None:
    named = {m.source for m in EVERYTHING.metrics.values()} - RECORDS
    assert named <= {source.partition(".")[0] for source in SOURCES}


@pytest.mark.parametrize("source", SOURCES)
def test_every_way_is_taken_or_refused_with_a_reason(source: str) -> None:
    row = SOURCES[source]
    assert row.ways.keys() | row.cannot.keys() == set(Way)
    assert not row.ways.keys() & row.cannot.keys()
    assert all([*row.ways.values(), *row.cannot.values()])


def test_every_criterion_is_muted_or_says_why_not() -> None:
    for check in EVERYTHING.checks.values():
        for criterion in check.criteria:
            found = ways(criterion, check, EVERYTHING.metrics[criterion.metric])
            told = set(found.values())
            assert "" in told or criterion.source in {RUN, NONE_YET} or check.every, criterion.id
