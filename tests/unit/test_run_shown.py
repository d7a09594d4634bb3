"""The run that is on, from its conductor's answer to page and /metrics."""

import pytest
from fakes_report import CATALOGUE, event, plan, rows, run, verdicts

from dvfd.model import Verdict
from dvfd.runs.rows import What
from dvfd.runs.run import Stage
from dvfd.runs.shown import shown

HOUR = 3600.0


def answer(of, given):
    """What `Conductor.status` says of a run an hour after its first step."""
    return {
        "run": of.to_document(),
        "t": of.seen_t,
        "elapsed": HOUR,
        "left": 23 * HOUR,
        "ends_at": of.armed_at + 24 * HOUR,
        "judged": [judged.to_document() for judged in verdicts(of, given)],
        "trouble": "",
    }


def going(stage=Stage.RUNNING, **keys):
    return run(stage, lasted=HOUR, **{"ended_t": None, "ended_at": None, **keys})


def test_a_run_that_goes_well_shows_how_far_it_is_and_that_nothing_has_passed():
    found = shown(answer(going(), rows(HOUR)), CATALOGUE.checks)

    assert (found.title, found.stage) == ("24-hour stability, 4 processes on 1 node", "running")
    assert (found.elapsed, found.duration) == (HOUR, 24 * HOUR)
    assert found.verdict is Verdict.UNKNOWN
    assert Verdict.PASS not in {line.verdict for line in found.lines}


def test_a_restart_can_no_longer_be_mended_and_comes_first():
    spoilt = rows(HOUR, event(1000.0, What.RESTART, "rank 2 came back", rank=2))

    found = shown(answer(going(), spoilt), CATALOGUE.checks)

    assert found.verdict is Verdict.FAIL
    assert found.worst[0].criterion == "stability_phase1.restarts"
    assert found.worst[0].lost


def test_a_shortened_run_says_that_a_pass_of_it_will_not_count():
    found = shown(answer(going(plan=plan(duration=2 * HOUR)), rows(HOUR)), CATALOGUE.checks)

    assert found.uncounted == ("shortened: 120 min of 24 h",)


@pytest.mark.parametrize("stage", [Stage.COMPLETE, Stage.ABORTED])
def test_a_run_that_is_over_is_not_shown(stage):
    assert shown(answer(run(stage, lasted=HOUR), rows(HOUR)), CATALOGUE.checks) is None
