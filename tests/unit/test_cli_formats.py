"""What programs read: every format says what the verdict says, and none hides what is not well."""

import json
from xml.etree import ElementTree as ET

import pytest
from fakes_incidents import HOUR, Place
from fakes_output import SCHEMAS, valid
from fakes_sinks import NOW, check, criterion, result, sources, state
from hypothesis import given
from hypothesis import strategies as st

from dvfd.cli.formats import STATES, exit_code, rendered, together
from dvfd.model import ProbeHealth, Report, Severity, Verdict
from dvfd.state import Loop, Raised
from dvfd.status import document
from dvfd.store import report_document


def described(thing: dict, schema: str) -> bool:
    return set(thing) == set(SCHEMAS[f"{schema}.schema.json"]["properties"])


def of(name: str, verdict: Verdict, severity: Severity = Severity.CRITICAL, reason: str = "why"):
    return result(verdict, criterion(name, severity=severity), reason=reason)


def report(*results) -> dict:
    return report_document(
        Report(check("daily", *(r.criterion for r in results)), results, NOW, "node4")
    )


def status(*results, running=True, **keys) -> dict:
    live = check("live", *(r.criterion for r in results), watch=True)
    made = state(live, check("hardware", criterion("hardware.cores")), of=sources(**keys))
    made.tell(Report(live, results, NOW))
    return json.loads(json.dumps(document(made.snapshot(), running=running)))


EVERY = (
    of("a.passes", Verdict.PASS),
    of("a.fails", Verdict.FAIL),
    of("a.warns", Verdict.FAIL, Severity.WARNING),
    of("a.blind", Verdict.UNKNOWN),
    of("a.foreign", Verdict.NOT_APPLICABLE),
    of("a.waived", Verdict.WAIVED),
)
LATE = {"loops": lambda: {"watch": Loop(99, 20)}}


def junit(found: dict) -> dict[str, str]:
    """Each test case and the element inside it; the counts are compared on the way."""
    root = ET.fromstring(rendered(found, "junit", str))
    (suite,) = root.findall("testsuite")
    cases = {c.get("name"): next((e.tag for e in c), "passed") for c in suite.iter("testcase")}
    for holder in (root, suite):
        assert holder.get("tests") == str(len(list(suite.iter("testcase"))))
        for tag, plural in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert holder.get(plural) == str(len(list(suite.iter(tag))))
    return cases


def nagios(found: dict) -> list[str]:
    return rendered(found, "nagios", str).split("\n")


def test_a_report_is_as_its_schema_says():
    found = json.loads(rendered(report(*EVERY), "json", str))

    valid(found, "report")
    assert described(found, "report")


def test_a_status_with_everything_in_it_is_as_its_schema_says(tmp_path):
    raised = Raised(
        key="live.x", name="DvfdCriterionFailed", severity="critical", since=NOW,
        summary="s", description="d", delivered=False,
    )  # fmt: skip
    line = {"log": "a", "at": NOW, "severity": "critical", "pattern": "p", "line": "x", "note": ""}
    found = status(
        *EVERY, raised=lambda: [raised], log_lines=lambda: [line], **LATE,
        probes=lambda: {"cpu": ProbeHealth("cpu", up=True, last_run=NOW)},
        failures=incident(tmp_path).incidents.failures,
    )  # fmt: skip

    valid(found, "status")
    assert described(found, "status")
    assert found["alerts"]
    assert found["incidents"][0]["needs"]
    assert found["log_lines"]


def incident(directory) -> Place:
    """One that is decided, delayed, and has everything else as well."""
    place = Place(directory)
    place.run()
    place.incidents.act(place.on["id"])
    place.say(cause="fixed", finding="a fan", delay=1)
    return place


def test_every_state_of_an_incident_is_as_the_schema_says(tmp_path):
    place = Place(tmp_path)
    place.run()
    for _ in range(4):
        valid(status(*EVERY, failures=place.incidents.failures), "status")
        place.pass_time(12 * HOUR)


@pytest.mark.parametrize("key", ["schema", "verdict", "results"])
def test_a_schema_refuses_a_report_that_lacks_something(key):
    with pytest.raises(Exception, match=f"'{key}' is a required property"):
        valid({k: v for k, v in report(*EVERY).items() if k != key}, "report")


@pytest.mark.parametrize("found", [report(*EVERY), status(*EVERY)], ids=["report", "status"])
def test_every_json_line_is_as_its_schema_says_and_every_result_has_one(found):
    told = [json.loads(line) for line in rendered(found, "jsonl", str).splitlines()]
    for line in told:
        valid(line, "line")

    assert told[0]["kind"] == "document"
    assert told[0]["verdict"] == found["verdict"]
    named = [line["criterion"] for line in told if line["kind"] == "result"]
    assert [n for n in named if n.startswith("a.")] == [r.criterion.id for r in EVERY]


@pytest.mark.parametrize("key", ["schema", "kind"])
def test_nothing_in_a_document_takes_the_place_of_schema_or_kind(key):
    told = rendered({"schema": 1, "jobs": [{key: "theirs"}]}, "jsonl", str).splitlines()[1]

    assert json.loads(told)[key] == {"schema": 1, "kind": "job"}[key]


def test_history_without_a_schema_gets_one():
    rows = [{"at": NOW, "value": 1.0, "labels": {}}]
    found = json.loads(rendered({"name": "job_loss", "rows": rows}, "json", str))

    valid(found, "history")
    assert found["schema"] == 1


def test_junit_tells_every_verdict_apart_and_counts_it():
    assert junit(report(*EVERY)) == {
        "a.passes": "passed", "a.fails": "failure", "a.warns": "failure", "a.blind": "error",
        "a.foreign": "skipped", "a.waived": "skipped",
    }  # fmt: skip


def test_a_breached_warning_is_a_failure_of_its_own_type():
    text = rendered(report(of("a.b", Verdict.FAIL, Severity.WARNING)), "junit", str)

    assert '<failure type="warning"' in text


def test_a_verdict_that_nobody_knows_is_an_error():
    found = report(of("a.b", Verdict.PASS))
    found["results"][0]["verdict"] = "SPLENDID"

    assert junit(found)["a.b"] == "error"


@pytest.mark.parametrize(
    ("found", "case"),
    [
        (report(), "dvfd.verdict"),
        (status(of("a.b", Verdict.PASS), running=False), "dvfd.daemon"),
        (status(of("a.b", Verdict.PASS), **LATE), "dvfd.itself"),
    ],
    ids=["nothing was judged", "no daemon", "a late loop"],
)
def test_what_is_no_criterion_and_yet_not_well_is_an_error_everywhere(found, case):
    assert junit(found)[case] == "error"
    assert nagios(found)[0].startswith("DVFD UNKNOWN")
    assert exit_code(found) == 3


@given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)))
def test_junit_is_valid_xml_in_ascii_for_any_string(name, reason):
    text = rendered(report(of(f"a.{name}", Verdict.FAIL, reason=reason)), "junit", str)
    (failure,) = ET.fromstring(text.encode("ascii")).iter("failure")

    assert len(failure.get("message")) == len(reason)


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([of("a.b", Verdict.PASS)], 0),
        ([of("a.b", Verdict.PASS), of("a.c", Verdict.FAIL, Severity.WARNING)], 1),
        ([of("a.b", Verdict.FAIL), of("a.c", Verdict.UNKNOWN)], 2),
        ([of("a.b", Verdict.UNKNOWN), of("a.c", Verdict.FAIL, Severity.WARNING)], 3),
        ([], 3),
    ],
)
def test_nagios_says_in_words_what_the_exit_code_says(results, code):
    found = report(*results)

    assert exit_code(found) == code
    assert nagios(found)[0].startswith(f"DVFD {STATES[code]} - daily of node4: ")


def test_nagios_counts_and_names_what_is_amiss_the_worst_first():
    head, *rest = nagios(report(*reversed(EVERY)))

    assert (
        "a.fails: why (and 2 more) | fail=1;;;0;6 warnings=1;;;0;6 unknown=1;;;0;6 pass=1" in head
    )
    assert [line.split()[2] for line in rest] == ["a.fails:", "a.blind:", "a.warns:"]


@given(st.text(st.characters(codec=None)))
def test_no_string_breaks_the_lines_of_nagios_or_begins_performance_data(reason):
    found = nagios(report(of("a.b", Verdict.FAIL, reason=reason)))

    assert len(found) == 2
    assert [line.count("|") for line in found] == [1, 0]
    assert all(line.isprintable() for line in found)


def test_nagios_names_what_was_waived():
    told = rendered(
        report(of("a.passes", Verdict.PASS), of("a.waived", Verdict.WAIVED)), "nagios", str
    )

    assert "passes, waived: a.waived" in told
    assert "all is well" not in told


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.PASS, 3), (Verdict.FAIL, 2)])
def test_a_check_that_broke_off_keeps_those_before_it_from_passing(verdict, code):
    found = together([report(of("a.one", verdict))], broken="hardware: no room")

    assert exit_code(found) == code
    assert junit(found)["dvfd.itself"] == "error"
    assert "hardware: no room" in rendered(found, "nagios", str)
    assert "hardware: no room" in rendered(found, "jsonl", str)
