"""Whatever is asked of /api/v1, the listener answers what its own description promises."""

import pytest
from fakes import FakeClock
from fakes_sinks import NOW, check, criterion, result, sample, whole
from hypothesis import HealthCheck, given, settings

from dvfd.clock import SystemClock
from dvfd.config import Http
from dvfd.model import Report, Sample
from dvfd.runs.told import KINDS, table
from dvfd.sinks.api import ROOT, ROUTES
from dvfd.sinks.server import HttpServer
from dvfd.sinks.site import Site
from dvfd.state import NoPast, NoRuns
from dvfd.store.documents import stored

schemathesis = pytest.importorskip("schemathesis")
checks = pytest.importorskip("schemathesis.checks")
specific = pytest.importorskip("schemathesis.specs.openapi.checks")

PROMISES = [
    checks.not_a_server_error,
    specific.status_code_conformance,
    specific.content_type_conformance,
    specific.response_schema_conformance,
    specific.negative_data_rejection,
    specific.unsupported_method,
]
"""No 5xx; statuses, types and shapes as described; what is wrong is refused; only GET."""

PATHS = [(route.path, "POSITIVE") for route in ROUTES] + [
    (route.path, "NEGATIVE") for route in ROUTES if route.parameters
]
"""Only what takes a parameter can be asked with a wrong one."""

ASKED = 40
"""Requests of each kind for each path."""


class Past(NoPast):
    """Two ranks and a report."""

    def latest(self, metric):
        return [sample(metric, job="gpt", rank=rank) for rank in (0, 1)]

    def series(self, metric, labels, *, since, until):
        return [Sample(metric, float("nan"), NOW - n, labels) for n in range(20)]

    def reports(self, check_id, limit):
        made = Report(check(check_id, criterion()), (result(),), NOW)
        return [stored(made, None)][:limit]


class Runs(NoRuns):
    """One run without rows."""

    def rows(self, run_id, since, limit):
        if len(run_id) > 3:
            return super().rows(run_id, since, limit)
        told = dict.fromkeys(("of", "check", "job", "node", "stage", "reason"), "") | {
            "id": run_id, "stopped_by": "", "duration": 1.0, "processes": 4, "discounts": [],
            "armed_at": NOW, "began_t": None, "ended_t": None, "looked_t": 0.0, "t": None,
            "at": NOW, "done": True,
        }  # fmt: skip
        rows = {kind: table(kind, ()) for kind in KINDS}
        return {"run": told, "since": since, "until": since, "newest": since, **rows}


@pytest.fixture(scope="module")
def served():
    taken = whole(FakeClock()).snapshot()
    server = HttpServer(
        Site(lambda: taken, Past(), None, Runs()), Http(port=0), clock=SystemClock()
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def description(served):
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{served.port}/api/v1/openapi.json")


@pytest.mark.slow
@pytest.mark.parametrize(("path", "mode"), PATHS)
def test_answers_keep_what_the_description_promises(path, mode, description, served):
    operation = description[ROOT + path]["GET"]
    kind = getattr(schemathesis.GenerationMode, mode)
    asked = []

    @settings(max_examples=ASKED, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=kind))
    def keeps(case):
        asked.append(case)
        case.call_and_validate(checks=PROMISES, timeout=5)

    keeps()
    assert asked
    assert served.counters().get("500", 0) == 0
