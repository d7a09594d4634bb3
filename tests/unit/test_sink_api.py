"""/api/v1: what programs are told, and what a wrong question is answered."""

import json
import math

import pytest
from fakes import FakeClock
from fakes_sinks import (
    NOW,
    RAISED,
    Health,
    check,
    criterion,
    result,
    sample,
    snapshot,
    sources,
    state,
    whole,
)

from dvfd import query
from dvfd.errors import DvfdError
from dvfd.model import Report, Sample, Verdict
from dvfd.runs.rows import Event, What
from dvfd.runs.run import Axis, Plan, Run
from dvfd.runs.told import Page, Told, table
from dvfd.sinks import api
from dvfd.sinks.http import Request
from dvfd.sinks.site import Site
from dvfd.state import NoPast
from dvfd.store import report_document
from dvfd.store.documents import stored


class Past(NoPast):
    """Remembers two ranks for an hour, a sample a minute, and three reports."""

    def __init__(self, count=60):
        self.count = count

    def latest(self, metric):
        names = (0, 1) if metric == "rank_responding" else ()
        return [sample(job="gpt", rank=rank) for rank in names]

    def series(self, metric, of, *, since, until):
        every = 3600 / self.count
        found = [Sample(metric, 1.0, NOW - n * every, of, span=60) for n in range(self.count)]
        return [s for s in reversed(found) if since <= s.at <= until]

    def reports(self, check_id, limit):
        if check_id != "live":
            return []
        made = [Report(check("live", criterion()), (result(),), NOW - n) for n in range(3)]
        return [stored(report, None) for report in made][:limit]


def site(*results, past=None, **keys):
    taken = snapshot(*results, **keys)
    return Site(lambda: taken, past or Past())


def ask(path, of=None):
    """Status and JSON of *path* below /api/v1."""
    target, _, query_text = path.partition("?")
    answer = (of or site())(Request("GET", f"/api/v1{target}", query_text))
    assert answer.content_type == "application/json"
    return answer.status, json.loads(answer.body)


def data(path, of=None):
    status, found = ask(path, of)
    assert (status, found["schema"]) == (200, 1)
    return found["data"]


def error(path, of=None):
    status, found = ask(path, of)
    assert (status, found["schema"]) == (found["error"]["status"], 1)
    return found["error"]


# --- Answers ------------------------------------------------------------------------------------


def test_the_status_is_the_document_of_dvfd_status():
    found = data("/status", site(result(Verdict.FAIL)))

    assert (found["schema"], found["running"], found["verdict"]) == (1, True, "FAIL")
    assert found["checks"][0]["results"][0]["reason"] == "rank 2 responds: 0, wanted 1"


def test_a_node_that_knows_nothing_is_unknown_here_too():
    nothing = Site(state().snapshot, Past())

    assert data("/status", nothing)["verdict"] == "UNKNOWN"
    assert data("/checks", nothing)[0]["counts"] == {"UNKNOWN": 1}


def test_checks_are_counted_and_one_check_has_its_results():
    of = site(result(Verdict.FAIL))

    [listed] = data("/checks", of)
    assert (listed["id"], listed["verdict"], listed["counts"]) == ("live", "FAIL", {"FAIL": 1})
    assert "results" not in listed
    assert data("/checks/live", of)["results"][0]["verdict"] == "FAIL"


def test_reports_come_newest_first_as_many_as_were_asked_for():
    found = data("/checks/live/reports?limit=2")

    assert [r["at"] for r in found["reports"]] == [NOW, NOW - 1]
    wanted = json.loads(
        json.dumps(report_document(Report(check("live", criterion()), (result(),), NOW)))
    )
    assert found["reports"][0]["report"] == wanted


def test_history_is_of_every_live_series_and_oldest_first():
    found = data("/history?metric=rank_responding&hours=0.5")

    assert len(found["rows"]) == 2 * 31
    assert found["rows"] == sorted(found["rows"], key=lambda row: row["at"])
    assert found["rows"][-1] == {
        "at": NOW, "value": 1.0, "labels": {"job": "gpt", "rank": "1"}, "span": 60
    }  # fmt: skip
    assert (found["since"], found["until"], found["truncated"]) == (NOW - 1800, NOW, False)


def test_a_label_picks_series():
    rows = data("/history?metric=rank_responding&label.rank=0&label.job=gpt")["rows"]

    assert {row["labels"]["rank"] for row in rows} == {"0"}
    assert data("/history?metric=rank_responding&label.rank=7")["rows"] == []


def test_a_long_history_is_cut_to_its_newest_rows_and_says_so():
    found = data("/history?metric=rank_responding", site(past=Past(count=3600)))

    assert (len(found["rows"]), found["truncated"]) == (query.ROWS, True)
    assert found["rows"][0]["at"] == NOW - query.ROWS / 2 + 1


@pytest.mark.parametrize("path", ["/history?metric=rank_responding", "/checks/live/reports"])
def test_what_a_broken_store_cannot_tell_is_not_shown_as_nothing(path):
    broken = site(past=NoPast(), of=sources(store=lambda: Health(ok=False, reason="disk full")))

    assert data(path, broken)["store"] == {"ok": False, "reason": "disk full"}


def test_alerts_come_with_their_delivery():
    found = data("/alerts", site(of=sources(raised=lambda: (RAISED,))))

    assert found["alerts"][0]["key"] == "blind:cpu"
    assert found["delivery"]["mode"] == "push"


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [("/probes", "probe", "ranks"), ("/metrics", "exported_as", "dvfd_rank_responding"),
     ("/metrics", "source", "ranks")],
)  # fmt: skip
def test_lists_name_what_there_is(path, key, value):
    assert value in {row[key] for row in data(path)}


def test_jobs_and_overrides_are_those_of_the_status():
    job = {"job": "gpt", "state": "running", "ranks": []}
    of = site(of=sources(jobs=lambda: [job]))

    assert data("/jobs", of) == [job]
    assert data("/overrides", of) == []


def test_the_version_names_what_results_compare_by():
    found = data("/version")

    assert found["catalogue"] == "c0ffee" * 10
    assert found["schemas"] == {"api": 1, "status": 1}


def test_a_node_tells_the_others_what_they_compare_and_the_jobs_that_run():
    jobs = [{"job": "gpt", "state": "running"}, {"job": "old", "state": "ended"}]
    taken = snapshot(of=sources(jobs=lambda: jobs))
    told = {"torch": "2.13.0", "python": "/usr/bin/python3"}
    found = data("/node", Site(lambda: taken, Past(), lambda: told))

    assert (found["node"], found["catalogue"], found["at"]) == ("node4", "c0ffee" * 10, NOW)
    assert found["jobs"] == ["gpt"]
    assert told.items() <= found.items()


def test_a_node_that_is_not_asked_for_its_identity_does_not_look_for_torch():
    def never():
        raise AssertionError("asked")

    assert data("/version", Site(snapshot, Past(), never))["node"] == "node4"


def test_numbers_that_json_has_no_word_for_are_words():
    class Odd(Past):
        def series(self, metric, of, *, since, until):
            return [Sample(metric, value, NOW, of) for value in (math.nan, math.inf, -math.inf)]

    rows = data("/history?metric=rank_responding&label.rank=0", site(past=Odd()))["rows"]

    assert [row["value"] for row in rows] == ["NaN", "+Inf", "-Inf"]


def test_text_in_no_encoding_is_still_utf_8():
    job = {"job": "gpt\udcff", "state": "running", "ranks": []}

    assert data("/jobs", site(of=sources(jobs=lambda: [job])))[0]["job"] == "gpt?"


def test_passwords_in_addresses_are_hidden_wherever_they_come_from():
    job = {"job": "http://u:geheim@h", "state": "running", "ranks": []}

    assert data("/jobs", site(of=sources(jobs=lambda: [job])))[0]["job"] == "http://***@h"
    assert "geheim" not in str(error("/checks/http:%2f%2fu:geheim@h"))


# --- Refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "message", "meant"),
    [
        ("/statsu", "no such path: '/api/v1/statsu'; did you mean '/api/v1/status'?",
         "/api/v1/status"),
        ("/checks/lvie", "no such check: 'lvie'; did you mean 'live'?", "live"),
        ("/checks/lvie/reports", "no such check: 'lvie'; did you mean 'live'?", "live"),
        ("/history?metric=rank_responds",
         "no such metric: 'rank_responds'; did you mean 'rank_responding'?", "rank_responding"),
        ("/checks/zzz", "no such check: 'zzz'", None),
        ("", "no such path: '/api/v1'; did you mean '/api/v1/runs'?", "/api/v1/runs"),
    ],
)  # fmt: skip
def test_what_there_is_not_is_404_with_what_was_meant(path, message, meant):
    found = error(path)

    assert (found["status"], found["message"], found["near"]) == (404, message, meant)
    assert found["wanted"]


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/v2/status", "/api/v1/", "/api/v1/status/"])
def test_other_paths_below_api_are_404_in_json(path):
    answer = site()(Request("GET", path))

    assert (answer.status, answer.content_type) == (404, "application/json")
    assert "/api/v1/status" in json.loads(answer.body)["error"]["wanted"]


HOURS = "wanted a number above 0 and at most 9600"
LIMIT = "wanted a whole number of at least 1 and at most 50"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/status?x=1", "no such parameter: 'x'"),
        ("/history?metrc=job_loss", "no such parameter: 'metrc'; did you mean 'metric'?"),
        ("/history", "metric is missing"),
        ("/history?metric=rank_responding&hours=0", f"hours is '0', {HOURS}"),
        ("/history?metric=rank_responding&hours=nan", f"hours is 'nan', {HOURS}"),
        ("/history?metric=rank_responding&hours=1e9", f"hours is '1e9', {HOURS}"),
        ("/history?metric=rank_responding&hours=1_0", f"hours is '1_0', {HOURS}"),
        ("/history?metric=rank_responding&hours=", f"hours is '', {HOURS}"),
        ("/history?metric=rank_responding&label.gpu=0", "rank_responding has no label 'gpu'"),
        ("/history?metric=a&metric=b", "metric is given 2 times"),
        ("/checks/live/reports?limit=0", f"limit is '0', {LIMIT}"),
        ("/checks/live/reports?limit=51", f"limit is '51', {LIMIT}"),
        ("/checks/live/reports?limit=1.5", f"limit is '1.5', {LIMIT}"),
        ("/checks/live/reports?limit=%D9%A3", f"limit is '٣', {LIMIT}"),
        ("/checks/live/reports?check=live", "no such parameter: 'check'"),
        ("/status?%ff=1", "the query is not UTF-8"),
        ("/checks/%ff", "the path is not UTF-8"),
        ("/status?" + "&".join(f"p{n}=1" for n in range(40)), "too many parameters"),
    ],
)
def test_what_cannot_be_read_is_400_with_what_was_wanted(path, message):
    found = error(path)

    assert (found["status"], found["message"]) == (400, message)


# --- Runs ---------------------------------------------------------------------------------------


class Runs:
    """One run with a window and an event."""

    TOLD = Told.of_run(
        Run(
            id="r1", plan=Plan.of(whole(FakeClock()).snapshot().checks["stability_phase1"].check,
                                  job="gpt"),
            node="n1", armed_at=NOW, axis=Axis(boot_id="b", offset=0.0),
        ),
        t=1.0, at=NOW, done=False,
    ).to_document()  # fmt: skip

    def told(self, limit):
        return [self.TOLD][:limit]

    def rows(self, run_id, since, limit):
        if run_id != "r1":
            raise DvfdError(f"no run {run_id!r} is known here")
        event = Event(node="n1", t=1.0, at=NOW, what=What.SAVED, value=math.inf, text="/c")
        rows = {"windows": (), "minutes": (), "events": [event][since:][:limit]}
        tables = {kind: table(kind, of) for kind, of in rows.items()}
        return {"run": self.TOLD, "since": since, "until": 1, "newest": 1, **tables}


def served():
    taken = snapshot()
    return Site(lambda: taken, Past(), None, Runs())


def test_a_run_is_told_with_what_another_node_must_know_and_without_its_command():
    [found] = data("/runs", served())
    assert (found["id"], found["stage"], found["t"]) == ("r1", "armed", 1.0)
    assert "argv" not in found
    assert data("/runs") == []


def test_rows_of_a_run_come_after_a_mark_and_can_be_read_back():
    page = Page.from_document(data("/runs/r1/rows?since=0", served()), "n1")
    [event] = page.rows
    assert (event.what, event.value, event.node) == (What.SAVED, math.inf, "n1")
    assert Page.from_document(data("/runs/r1/rows?since=1", served()), "n1").rows == ()


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/runs/r2/rows", 404, "no run 'r2' is known here"),
        ("/runs/%2e%2e%2fdvfd/rows", 400, "run is '../dvfd'"),
        ("/runs/r1/rows?since=-1", 400, "since is '-1'"),
        ("/runs/r1/rows?limit=1000000", 400, "at most 2000"),
    ],
)
def test_rows_of_no_run_of_ours_are_refused(path, status, words):
    found = error(path, served())
    assert found["status"] == status
    assert words in found["message"]


# --- The description ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full():
    """A node with the whole catalogue and four ranks."""
    taken = whole(FakeClock()).snapshot()
    return Site(lambda: taken, Past(), None, Runs())


@pytest.fixture(scope="module")
def description(full):
    return ask("/openapi.json", full)[1]


def test_the_description_is_valid_openapi(description):
    validator = pytest.importorskip("openapi_spec_validator")

    assert description["openapi"] == "3.1.0"
    validator.validate(description)


def test_every_route_is_described_and_every_answer_has_the_described_shape(full, description):
    jsonschema = pytest.importorskip("jsonschema")
    seen = set()
    for path, methods in description["paths"].items():
        target = path.removeprefix("/api/v1").replace("{check}", "live").replace("{run}", "r1")
        asked = f"{target}?metric=rank_responding" if target == "/history" else target
        status, found = ask(asked, full)
        content = methods["get"]["responses"]["200"]["content"]["application/json"]
        jsonschema.validate(found, content["schema"])
        seen.add(path)
        assert status == 200
    assert seen == {f"/api/v1{route.path}" for route in api.ROUTES}


def test_the_description_knows_this_nodes_metrics_and_labels(description):
    get = description["paths"]["/api/v1/history"]["get"]
    parameters = {p["name"]: p for p in get["parameters"]}

    assert "job_loss" in parameters["metric"]["schema"]["enum"]
    assert {"label.rank", "label.job", "hours"} <= set(parameters)
    assert parameters["hours"]["schema"]["maximum"] == api.HOURS
