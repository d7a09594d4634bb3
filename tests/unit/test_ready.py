"""Whether a node may take a job: its own criteria decide, those of jobs never; silence is no."""

import json

import pytest
from fakes_output import valid
from fakes_sinks import NOW, check, criterion, result, sources, state

from dvfd.cli.formats import LEVELS, exit_code, rendered
from dvfd.cli.ready import _blind, text
from dvfd.errors import DvfdError
from dvfd.model import Report, Run, Severity, Verdict
from dvfd.ready import document
from dvfd.state import Loop

MEMORY = criterion("live.memory")
RANKS = criterion("live.responding", requires=("job",))
CLOCK = criterion("live.clock", severity=Severity.WARNING)
CORES = criterion("hardware.cores")


def ready(*results, checks=(), left_out=(), at=NOW, booted=NOW - 1000, run=None, **keys):
    """The document of a node that was judged so; its tests at *at*, in a *run* of a drill."""
    live = check("live", MEMORY, RANKS, CLOCK, watch=True)
    hardware = check("hardware", CORES)
    made = state(live, hardware, of=sources(**keys))
    found = {r.criterion.id: r for r in results}
    for each in (live, hardware):
        told = tuple(found[c.id] for c in each.criteria if c.id in found)
        tested = {"at": NOW} if each.watch else {"at": at, "run": run}
        made.tell(Report(each, told, **tested))
    found = document(made.snapshot(), checks, left_out, booted=booted)
    answer = json.loads(json.dumps(found))
    valid(answer, "ready")
    return answer


def of(verdict, of):
    return result(verdict, of, reason=f"{of.id} reads 0, wanted 1")


WELL = (of(Verdict.PASS, MEMORY), of(Verdict.PASS, CLOCK))


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.UNKNOWN])
def test_what_became_of_the_last_job_keeps_no_node_from_the_next(verdict):
    assert exit_code(ready(*WELL, of(verdict, RANKS))) == 0


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.FAIL, 2), (Verdict.UNKNOWN, 3)])
def test_a_node_that_fails_or_is_not_known_to_be_well_is_not_ready(verdict, code):
    assert exit_code(ready(of(verdict, MEMORY), WELL[1]), "unknown") == code


def test_a_node_that_was_never_judged_is_not_ready():
    assert exit_code(ready(), "unknown") == 3


def test_what_somebody_waived_keeps_no_job_away():
    assert exit_code(ready(of(Verdict.WAIVED, MEMORY), WELL[1])) == 0


def test_a_breached_warning_keeps_no_job_away_unless_asked_to():
    found = ready(WELL[0], of(Verdict.FAIL, CLOCK))

    assert [exit_code(found, level) for level in LEVELS] == [1, 0, 0]


def test_a_test_of_the_node_counts_once_it_is_named():
    found = (*WELL, of(Verdict.FAIL, CORES))

    assert exit_code(ready(*found)) == 0
    assert exit_code(ready(*found, checks=["hardware"])) == 2


def test_a_test_that_never_ran_is_no_pass():
    assert exit_code(ready(*WELL, checks=["hardware"]), "unknown") == 3


DAY = 86_400


def run(ended, shortened=""):
    return Run(began=ended - 60, ended=ended, shortened=shortened)


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ({"at": NOW - 15 * DAY, "booted": 0}, "the test is 15 d old, wanted at most 14 d"),
        ({"at": NOW - 2 * DAY, "booted": NOW - DAY}, "2 d old, and the node was started since"),
        ({"run": run(NOW - 2 * DAY), "booted": NOW - DAY}, "the node was started since"),
        ({"at": NOW + 3600}, "the test ended 60 min in the future: a clock was wrong"),
        ({"run": run(NOW, "60 s of 4 h")}, "the test was shortened: 60 s of 4 h"),
    ],
)
def test_a_pass_of_another_time_is_no_pass_of_now(test, reason):
    """After a repair above all: what was tested before it is another node."""
    found = ready(*WELL, of(Verdict.PASS, CORES), checks=["hardware"], **test)

    assert exit_code(found, "unknown") == 3
    assert reason in text(found)
    assert "run `dvfd check hardware`" in text(found)


def test_a_failure_of_another_time_stays_one():
    found = ready(*WELL, of(Verdict.FAIL, CORES), checks=["hardware"], at=NOW - 400 * DAY)

    assert exit_code(found, "unknown") == 2


def test_a_pass_says_how_old_its_test_is():
    found = ready(*WELL, of(Verdict.PASS, CORES), checks=["hardware"], at=NOW - 600)

    assert exit_code(found) == 0
    assert text(found).endswith("3 pass; hardware tested 10 min ago")


def test_what_is_left_out_does_not_count_and_is_said():
    found = ready(of(Verdict.FAIL, MEMORY), WELL[1], checks=["hardware"], left_out=["live.memory"])

    assert "live.memory" not in {row["criterion"] for row in found["results"]}
    assert "left out: live.memory" in text(found)


def test_with_nothing_left_to_judge_nothing_is_known():
    assert exit_code(ready(*WELL, left_out=["live.memory"]), "unknown") == 3


def test_a_name_that_nothing_has_is_refused():
    with pytest.raises(DvfdError, match=r"live.memry.*did you mean 'live.memory'"):
        ready(*WELL, left_out=["live.memry"])
    with pytest.raises(DvfdError, match="did you mean 'hardware'"):
        ready(*WELL, checks=["hardwre"])


def test_a_daemon_in_trouble_sees_nothing_well():
    found = ready(*WELL, loops=lambda: {"watch": Loop(99, 20)})

    assert exit_code(found, "unknown") == 3
    assert text(found).startswith("UNKNOWN: dvfd.itself: loop watch: no progress")


def test_nobody_who_answers_is_unknown_with_the_reason_first():
    found = _blind("no daemon answers on /run/x", {"checks": ["hardware"], "left_out": []})
    valid(found, "ready")

    assert text(found).splitlines()[0] == "UNKNOWN: dvfd.itself: no daemon answers on /run/x"
    assert [exit_code(found, level) for level in LEVELS] == [3, 3, 0]


def test_the_first_line_is_what_decides_and_how_much_more_does():
    found = ready(of(Verdict.UNKNOWN, MEMORY), of(Verdict.FAIL, CLOCK), of(Verdict.FAIL, CORES),
                  checks=["hardware"])  # fmt: skip

    assert text(found).splitlines()[0] == (
        "FAIL: hardware.cores: hardware.cores reads 0, wanted 1 (and 1 more)"
    )
    assert text(found).count("hardware.cores reads 0") == 1
    assert "live.memory reads 0" in text(found)
    assert text(ready(*WELL)).splitlines()[0] == "PASS: of 2 criteria of the node, 2 pass"


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_changes_the_exit_code_and_not_the_words(level):
    found = ready(of(Verdict.UNKNOWN, MEMORY), WELL[1])

    assert exit_code(found, level) == (0 if level == "fail" else 3)
    assert rendered(found, "nagios", str).startswith("DVFD UNKNOWN")
