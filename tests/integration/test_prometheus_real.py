"""A real Prometheus scrapes the real listener; promtool finds nothing to complain about."""

import time

import pytest
import testbed
from fakes import FakeClock
from fakes_sinks import Health, check, criterion, result, sample, sources, state

from dvfd.clock import SystemClock
from dvfd.config import Http
from dvfd.model import ProbeHealth, Verdict
from dvfd.sinks.server import HttpServer
from dvfd.sinks.site import Site
from dvfd.state import Delivery, Loop, Peer


@pytest.fixture(scope="module")
def listener():
    live = check(
        "live", criterion(), criterion("live.errors", metric="log_errors_total"), watch=True
    )
    now = time.time()
    held = state(
        live,
        clock=FakeClock(now=now),
        of=sources(
            latest=lambda name: {
                "rank_responding": [sample(at=now, job="gpt", rank=n) for n in range(4)],
                "log_errors_total": [sample("log_errors_total", 3, now, log="train")],
            }.get(name, []),
            loops=lambda: {"sampler": Loop(age=1, limit=20)},
            probes=lambda: {"ranks": ProbeHealth("ranks", True, now, now, 0.01)},
            store=lambda: Health(last_commit=now),
            delivery=lambda: Delivery(peers=(Peer(url="x", last_success=now),), outcomes={"a": 1}),
            ingest=lambda: {"packets": 5},
            http=lambda: {"200": 5},
        ),
    )
    held.judged([result(Verdict.FAIL, live.criteria[0], at=now)])
    server = HttpServer(Site(held.snapshot), Http(port=0), clock=SystemClock())
    server.start()
    yield server
    server.stop()


def test_promtool_is_content_with_what_is_served(listener):
    text = testbed.fetch(f"http://127.0.0.1:{listener.port}/metrics")

    checked = testbed.promtool("check", "metrics", text=text)

    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_prometheus_reads_verdicts_and_measurements(listener, tmp_path):
    with testbed.prometheus(tmp_path, f"127.0.0.1:{listener.port}") as server:
        testbed.eventually(lambda: testbed.query(server, "up == 1"), 10)
        verdicts = testbed.eventually(
            lambda: testbed.query(server, 'dvfd_criterion_verdict{verdict="FAIL"}'), 5
        )
        ranks = testbed.query(server, "sum(dvfd_rank_responding)")
        errors = testbed.query(server, "dvfd_log_errors_total")

    assert [v["metric"]["criterion"] for v in verdicts] == ["live.responding"]
    assert ranks[0]["value"][1] == "4"
    assert errors[0]["metric"]["log"] == "train"
