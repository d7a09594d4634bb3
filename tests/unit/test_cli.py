"""The words of the command line: what a person reads first, and nothing cut that matters."""

import re
from pathlib import Path

import pytest
from fakes_sinks import NOW, check, criterion, result, sources, state

from dvfd.catalogue import load as load_catalogue
from dvfd.cli import COMMANDS
from dvfd.cli.common import report_text
from dvfd.cli.formats import exit_code
from dvfd.cli.status import text
from dvfd.cli.text import causes, finding, wrapped
from dvfd.config import Config
from dvfd.model import ProbeHealth, Report, Severity, Verdict
from dvfd.state import Delivery, Loop, Peer, Raised
from dvfd.status import document
from dvfd.store import report_document
from dvfd.words import counted

ROOT = Path(__file__).parents[2]

LONG = "no sample of cpu_temperature_celsius; its source: probe temperature: " + "why " * 30


@pytest.fixture(autouse=True)
def pipe(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def status(*results, running=True, **keys) -> str:
    live = check("live", *(r.criterion for r in results or (result(),)), watch=True)
    made = state(live, check("hardware", criterion("hardware.cores")), of=sources(**keys))
    made.tell(Report(live, results or (result(),), NOW))
    return text(document(made.snapshot(), running=running))


def warning(name: str, verdict: Verdict = Verdict.FAIL):
    return result(verdict, criterion(name, severity=Severity.WARNING))


def report(*results) -> dict:
    return report_document(Report(check("daily", *(r.criterion for r in results)), results, NOW))


def test_a_pipe_gets_one_line_for_each_reason():
    assert finding("UNKNOWN", "live.cpu", LONG) == [f"UNKNOWN  live.cpu: {LONG}"]


def test_a_terminal_gets_a_long_reason_below_the_name_and_whole(narrow):
    first, *more = finding("UNKNOWN", "live.cpu", LONG)

    assert first == "UNKNOWN  live.cpu"
    assert " ".join(line.strip() for line in more) == LONG.strip()
    assert max(map(len, more)) <= 80


def test_a_short_reason_stays_beside_its_name(narrow):
    assert finding("FAIL", "a.b", "0, wanted 1") == ["FAIL     a.b: 0, wanted 1"]


def test_what_passes_takes_one_line_that_begins_with_the_value(narrow):
    (line,) = finding("PASS", "live.cpu", "rank_cpu_ratio{job=a,rank=1}: mean is 0.9 " + "x" * 80)

    assert line.startswith("PASS     live.cpu: mean is 0.9")
    assert len(line) == 80
    assert line.endswith("…")


def test_a_path_is_never_broken_so_that_it_can_be_copied(narrow):
    path = "/data/" + "x" * 100

    assert path in wrapped(f"no checkpoint at {path} any more", 9)[1]


def test_failures_come_first_and_critical_ones_before_warnings():
    rows = report(
        result(Verdict.PASS, criterion("a.a")), warning("a.b"),
        result(Verdict.UNKNOWN, criterion("a.c")), result(Verdict.FAIL, criterion("a.d")),
    )["results"]  # fmt: skip

    names = re.findall(r"a\.[a-d]", "\n".join(causes(rows)))

    assert names == ["a.d", "a.b", "a.c", "a.a"]


def test_criteria_with_one_reason_are_told_once():
    rows = report(*(result(Verdict.UNKNOWN, criterion(f"a.{n}")) for n in range(9)))["results"]

    assert len(causes(rows)) == 1


def test_a_report_counts_in_its_second_line():
    told = report_text(report(result(Verdict.FAIL), warning("live.b")))

    assert told.splitlines()[1] == "Of 2 criteria, 2 fail (1 as a warning)."


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([("FAIL", "warning")], "1 fails as a warning"),
        ([("FAIL", "warning")] * 2, "2 fail as warnings"),
        ([("UNKNOWN", "critical"), ("PASS", "critical")], "1 cannot be known, 1 passes"),
        ([], ""),
    ],
)
def test_verdicts_are_counted_in_words(found, said):
    assert counted(found) == said


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([result(Verdict.PASS)], 0),
        ([result(Verdict.PASS), warning("live.b")], 1),
        ([result(Verdict.FAIL)], 2),
        ([result(Verdict.UNKNOWN)], 3),
        ([result(Verdict.NOT_APPLICABLE)], 3),
        ([result(Verdict.FAIL), result(Verdict.UNKNOWN, criterion("live.b"))], 2),
    ],
)
def test_exit_codes_tell_pass_warning_fail_and_unknown_apart(results, code):
    assert exit_code(report(*results)) == code


def test_the_status_begins_with_node_verdict_and_count():
    head = status(result(Verdict.FAIL)).splitlines()

    assert head[0].startswith("node4: FAIL ")
    assert head[1] == "Of 1 live criteria, 1 fails."


def test_the_status_says_why_before_anything_else():
    told = status(result(Verdict.FAIL))

    assert told.index("rank 2 responds: 0, wanted 1") < told.index("no alert is firing")


def test_what_cannot_be_known_waits_behind_the_jobs_while_something_is_broken():
    blind = result(Verdict.UNKNOWN, criterion("live.cpu"), reason="no sample")
    broken, unclear = status(result(Verdict.FAIL), blind), status(blind)

    assert broken.index("no job has reported") < broken.index("no sample")
    assert unclear.index("no sample") < unclear.index("no job has reported")


def test_a_status_on_80_columns_has_no_wider_line(narrow):
    probes = {"temperature": ProbeHealth("temperature", last_run=NOW, error=LONG)}
    told = status(result(Verdict.UNKNOWN, reason=LONG), probes=lambda: probes)

    assert max(map(len, told.splitlines())) <= 80


def test_on_40_columns_the_tables_become_lines_and_none_is_wider(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    probes = {"temperature": ProbeHealth("temperature", last_run=NOW, error=LONG)}
    told = status(result(Verdict.UNKNOWN, reason=LONG), probes=lambda: probes).splitlines()

    assert max(map(len, told)) <= 40
    assert "UNKNOWN  live" in told
    assert "temperature DOWN, last success never" in told


def test_checks_that_never_ran_are_named_as_unknown():
    assert "never run, so UNKNOWN: hardware" in status()


def test_sources_that_are_down_come_first():
    probes = {
        "cpu": ProbeHealth("cpu", up=True, last_run=NOW, last_success=NOW),
        "logs": ProbeHealth("logs", up=True, last_run=NOW, last_success=NOW, error="no log"),
        "power": ProbeHealth("power", last_run=NOW, error="permission denied"),
    }
    told = status(probes=lambda: probes)

    assert re.findall(r"^(power +DOWN|logs +partly|cpu +up)", told, re.MULTILINE)[0][:5] == "power"
    assert told.index("logs ") < told.index("cpu ")


def test_an_alert_that_did_not_get_out_says_so():
    raised = Raised(
        key="live.responding", name="DvfdCriterionFailed", severity="critical", since=NOW - 65,
        summary="", description="", delivered=False,
    )  # fmt: skip
    told = status(raised=lambda: [raised], delivery=lambda: Delivery(peers=(Peer(url="http://a"),)))

    assert "alert critical: live.responding, for 65 s (not delivered yet)" in told


def test_the_last_log_lines_that_counted_are_shown_newest_first():
    def line(number: int) -> dict:
        return {
            "log": "train", "at": NOW, "severity": "critical", "pattern": "cuda",
            "line": f"error {number}", "note": "",
        }  # fmt: skip

    told = status(log_lines=lambda: [line(n) for n in range(9)])

    assert told.index("error 8") < told.index("error 4")
    assert "error 3" not in told


A_LOST_JOB = {
    "job": "gpt", "state": "not responding", "summary": "not responding",
    "ranks": [{"rank": 0, "lost": False}, {"rank": 1, "lost": True}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("told", "hint"),
    [
        (lambda: status(running=False), "next: start the daemon"),
        (lambda: status(loops=lambda: {"watch": Loop(99, 20)}), "next: dvfd itself is in trouble"),
        (lambda: status(result(Verdict.FAIL)), "next: dvfd history rank_responding shows how"),
        (
            lambda: status(result(Verdict.FAIL), jobs=lambda: [A_LOST_JOB]),
            "next: the log of job gpt says why; over for good: dvfd job forget gpt",
        ),
        (lambda: status(result(Verdict.UNKNOWN)), "next: no job runs here"),
        (status, "next: no job runs here"),
    ],
)
def test_the_status_ends_with_what_to_do_next(told, hint):
    assert told().splitlines()[-1].startswith(hint)


@pytest.mark.parametrize(
    "path",
    ["README.md", *(f"docs/runbooks/{p.name}" for p in (ROOT / "docs/runbooks").glob("*.md"))],
)
def test_documents_name_only_commands_that_exist(path):
    called = re.findall(r"(?:`|/|\n)dvfd ([a-z]+)(?=[^\n]*[#`])", (ROOT / path).read_text())

    assert set(called) <= set(COMMANDS)


def test_runbooks_name_only_criteria_that_exist():
    known = load_catalogue(Config()).criteria
    books = [path.read_text() for path in (ROOT / "docs/runbooks").glob("*.md")]
    named = [name for book in books for name in re.findall(r"`(live\.[a-z_]+)(\*?)`", book)]
    assert named
    for name in named:
        assert any(c.startswith(name[0]) if name[1] else c == name[0] for c in known), name
