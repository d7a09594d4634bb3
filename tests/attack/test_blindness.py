"""The one rule: what was muted is UNKNOWN, and nothing passes on it, wherever one reads it.

The long form, with every way for every source, is `python -m bench.mutes`.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import structlog

from bench import mutes, run_silences, silences
from dvfd.gates.decision import Outcome

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def everything() -> silences.Catalogue:
    return silences.everything()


@pytest.mark.parametrize("way", silences.Way)
def test_every_criterion_that_is_muted_is_unknown_in_all_four_places(
    everything: silences.Catalogue, way: silences.Way, quiet: None
) -> None:
    found = silences.muted(everything, way)
    assert found
    assert [each for each in found if not each.shows] == []
    assert [each for each in found if not each.seen] == []


@pytest.mark.parametrize("check", ["stability_phase1", "stability_phase2a"])
def test_what_half_of_a_run_did_not_tell_passes_nowhere(check: str) -> None:
    found = list(run_silences.runs([check]))
    assert {each.before for each in found} == {"PASS"}
    assert [each for each in found if not each.seen] == []


def test_no_gate_opens_on_what_was_not_measured() -> None:
    found = list(run_silences.gates())
    assert {each.before for each in found} == {Outcome.GO}
    assert sum(each.decides for each in found) > 200
    assert [each for each in found if not each.seen] == []


@pytest.mark.timeout(900)  # as long as a machine that is busy with much else takes
def test_every_source_of_a_real_daemon_that_is_muted_is_unknown() -> None:
    found, blind = mutes.on_a_node(short=True)
    assert len(found) > 150
    assert [each for each in found if each.seconds is None or each.after != "UNKNOWN"] == []
    assert {each.ready for each in found} <= {"UNKNOWN", "FAIL"}
    assert {each.gates for each in found} == {"HOLD"}
    assert [source for source, told in blind.items() if not told] == []


@pytest.fixture
def quiet() -> None:
    """Thousands of crashes on purpose say nothing in the log; conftest sets it back."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def test_the_table_for_people_is_the_one_that_is_carried_out() -> None:
    text = (Path(__file__).parents[2] / "docs/blindness.md").read_text(encoding="utf-8")
    assert all(f"`{source.partition('.')[0]}`" in text for source in mutes.SOURCES)
