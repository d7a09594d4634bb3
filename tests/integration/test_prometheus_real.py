"""A real Prometheus scrapes the real listener; promtool finds nothing to complain about."""

import time

import pytest
import testbed
from fakes_sinks import result, whole

from dvfd.clock import SystemClock
from dvfd.config import Http
from dvfd.model import Verdict
from dvfd.sinks.server import HttpServer
from dvfd.sinks.site import Site


@pytest.fixture(scope="module")
def listener():
    held = whole(SystemClock())
    criterion = held.snapshot().catalogue.criteria["live.responding"]
    held.judged([result(Verdict.FAIL, criterion, at=time.time())])
    server = HttpServer(Site(held.snapshot), Http(port=0), clock=SystemClock())
    server.start()
    yield server
    server.stop()


def test_promtool_is_content_with_what_is_served(listener):
    text = testbed.fetch(f"http://127.0.0.1:{listener.port}/metrics")

    checked = testbed.promtool("check", "metrics", text=text)

    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


@pytest.mark.slow
def test_prometheus_reads_verdicts_and_measurements(listener, tmp_path):
    with testbed.prometheus(tmp_path, f"127.0.0.1:{listener.port}") as server:
        testbed.eventually(lambda: testbed.query(server, "up == 1"), 60)
        verdicts = testbed.eventually(
            lambda: testbed.query(server, 'dvfd_criterion_verdict{verdict="FAIL"}'), 5
        )
        ranks = testbed.query(server, "sum(dvfd_rank_responding)")
        errors = testbed.query(server, "dvfd_log_errors_total")
        seconds = testbed.query(server, "scrape_duration_seconds")

    assert [v["metric"]["criterion"] for v in verdicts] == ["live.responding"]
    assert ranks[0]["value"][1] == "4"
    assert {e["metric"]["log"] for e in errors} == {"0", "1"}
    assert float(seconds[0]["value"][1]) < 1
