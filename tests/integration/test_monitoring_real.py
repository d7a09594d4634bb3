"""`dvfd check monitoring` with a real daemon, Prometheus and Alertmanager: well and ill."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import testbed
from fakes_drills import judged, task
from node import Node, running

from dvfd.clock import SystemClock
from dvfd.config import Config
from dvfd.drills.drill import Options
from dvfd.drills.monitoring import Rules, Scrape
from dvfd.drills.round_trip import RoundTrip
from dvfd.drills.supervise import supervise
from dvfd.model import Result
from dvfd.sinks.alertmanager import login, send_test
from dvfd.sinks.arrivals import seen

pytestmark = pytest.mark.slow

RULES = Path(__file__).resolve().parents[2] / "alert_rules"

BROKEN = 'label_replace(up, "a", "$1", "job", "(")'
"""PromQL that is loaded without complaint and fails whenever it is evaluated."""

PATIENT = '[override."monitoring.round_trip"]\nlimit = 3\nreason = "tests wait less long"\n'


def often(directory: Path, change: Callable[[str], str] = lambda text: text) -> Path:
    """dvfd's rules, evaluated every two seconds: a pattern for rule_files."""
    directory.mkdir()
    for file in RULES.glob("*.rules.yml"):
        text = re.sub(r"interval: \w+", "interval: 2s", file.read_text())
        (directory / file.name).write_text(change(text))
    return directory / "*.rules.yml"


class Site(NamedTuple):
    node: Node
    prometheus: testbed.Server
    webhook: testbed.Webhook
    listen: str  # where the Alertmanager delivers as well


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A node as it should be: scraped, its rules loaded, kept for long, alerts delivered."""
    base = tmp_path_factory.mktemp("site")
    port = testbed.free_port()
    with contextlib.ExitStack() as stack:
        webhook = stack.enter_context(testbed.Webhook())
        listen = f"127.0.0.1:{testbed.free_port()}"
        both = json.dumps([{"url": webhook.url}, {"url": f"http://{listen}/"}])
        text = (
            "route: {receiver: hook, group_by: ['...'], group_wait: 0s, group_interval: 1s}\n"
            f"receivers: [{{name: hook, webhook_configs: {both}}}]\n"
        )
        alerts = stack.enter_context(testbed.alertmanager(base, webhook.url, text=text))
        prometheus = stack.enter_context(
            testbed.prometheus(
                base, f"127.0.0.1:{port}", interval="2s", rules=(often(base / "rules"),),
                alerts_to=f"127.0.0.1:{alerts.port}",
                options=("--storage.tsdb.retention.time=35d",),
            )
        )  # fmt: skip
        extra = f'[history]\nurl = "{prometheus.url}"\n'
        node = stack.enter_context(running(Node(base / "node", [alerts.url], extra, port=port)))
        yield Site(node, prometheus, webhook, listen)


@pytest.fixture(scope="module")
def ill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes another node, keeps 15 days, tells nobody, and has a rule that
    breaks and lacks one file.
    """
    base = tmp_path_factory.mktemp("ill")
    rules = often(base / "rules", lambda text: text.replace("expr: dvfd_store_ok == 0",
                                                            f"expr: {BROKEN}"))  # fmt: skip
    (base / "rules" / "dvfd-trends.rules.yml").unlink()
    target = f"127.0.0.1:{testbed.free_port()}"
    with testbed.prometheus(base, target, interval="2s", rules=(rules,)) as server:
        yield server.url


def dvfd(site: Site, *arguments: str) -> dict[str, Any]:
    """`dvfd check monitoring`: each criterion's row by its short name."""
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", "check", "monitoring", "-o", "json", *arguments],
        env=site.node.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    rows = json.loads(done.stdout)["results"]
    return {row["criterion"].partition(".")[2]: row for row in rows}


def asked(part: Any, directory: Path, url: str) -> dict[str, Result]:
    """What *part* makes of the Prometheus at *url*."""
    toml = f'[history]\nurl = "{url}"\n'
    of = task("monitoring", directory, toml=toml, clock=SystemClock())
    return judged(of, supervise(of, [part]))


def around(directory: Path, url: str, listen: str = "") -> Result:
    """The round trip by the Alertmanager at *url*, sent and asked as the daemon does it."""
    config = Config(alerting={"urls": (url,)})
    clock = SystemClock()

    def daemon(op: str, *, trial: str, over: bool = False) -> Any:
        if op == "alerts_seen":
            return seen(config.alerting, trial, login)
        return [
            {"url": name, "accepted": accepted, "detail": detail}
            for name, accepted, detail in send_test(config, clock.now(), trial, over=over)
        ]

    options = Options(listen=listen)
    of = task("monitoring", directory, toml=PATIENT, clock=clock, options=options)
    return judged(of, supervise(of, [RoundTrip(ask=daemon)]))["round_trip"]


def test_a_site_that_is_well_passes_by_the_command(site: Site) -> None:
    def rows() -> dict[str, Any] | None:
        found = dvfd(site, "--listen", site.listen)
        print({name: row["reason"] for name, row in found.items()})
        ready = all(found[name]["verdict"] == "PASS" for name in ("scrape", "rules"))
        return found if ready else None

    found = testbed.eventually(rows, 60)

    assert found["round_trip"]["verdict"] == "PASS"
    assert 0 < found["round_trip"]["observed"] <= 60
    assert found["round_trip"]["note"].startswith(f"it arrived at {site.listen}")
    assert found["unobserved"]["verdict"] == "UNKNOWN"
    assert "no run of any phase has ended" in found["unobserved"]["reason"]
    trial = site.webhook.wait_for("firing", 5, alertname="DvfdTest")["labels"]["trial"]
    site.webhook.wait_for("resolved", 10, trial=trial)


def test_a_notification_that_was_only_counted_passes_nothing(site: Site, tmp_path: Path) -> None:
    with testbed.alertmanager(tmp_path, site.webhook.url) as server:
        result = around(tmp_path, server.url)

    assert result.verdict == "UNKNOWN"
    assert "routed to hook, and a notification by webhook was taken since" in result.reason


def test_an_alert_that_does_not_come_to_where_it_is_listened_for_fails(
    site: Site, tmp_path: Path
) -> None:
    with testbed.alertmanager(tmp_path, site.webhook.url) as server:
        result = around(tmp_path, server.url, f"127.0.0.1:{testbed.free_port()}")

    assert result.verdict == "FAIL"
    assert "it did not arrive at --listen in this time; it was routed to hook" in result.note


def test_a_receiver_that_refuses_is_a_measured_no(tmp_path: Path) -> None:
    refuses = f"http://127.0.0.1:{testbed.free_port()}/"
    with testbed.alertmanager(tmp_path, refuses) as server:
        result = around(tmp_path, server.url)

    assert result.verdict == "FAIL"
    assert "routed to hook; notifications by webhook failed" in result.note


def test_an_alertmanager_that_is_down_is_unknown_and_named(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{testbed.free_port()}"

    result = around(tmp_path, url)

    assert result.verdict == "UNKNOWN"
    assert f"no Alertmanager took the test alert, wanted one to: {url}" in result.reason


def test_a_prometheus_that_is_down_is_unknown_and_named(site: Site, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{testbed.free_port()}"

    scrape = asked(Scrape(ask=site.node.ask), tmp_path, url)["scrape"]
    rules = asked(Rules(), tmp_path, url)["rules"]

    assert (scrape.verdict, rules.verdict) == ("UNKNOWN", "UNKNOWN")
    for result in (scrape, rules):
        assert f"Prometheus at {url} does not answer: Connection refused" in result.reason


def test_a_prometheus_that_scrapes_another_node_and_forgets_soon_fails(
    site: Site, ill: str, tmp_path: Path
) -> None:
    def scrape() -> Result | None:
        found = asked(Scrape(ask=site.node.ask), tmp_path, ill)["scrape"]
        return found if "connection refused" in found.note else None

    found = testbed.eventually(scrape, 60)

    assert found.verdict == "FAIL"
    assert "of no daemon that is this one" in found.note
    assert "keeps 15d, wanted 30 d, as far as the monthly list looks back" in found.note


def test_rules_that_are_missing_or_break_fail_and_are_named(ill: str, tmp_path: Path) -> None:
    def rules() -> Result | None:
        found = asked(Rules(), tmp_path, ill)["rules"]
        return found if "DvfdStoreBroken" in found.note else None

    found = testbed.eventually(rules, 60)

    assert found.verdict == "FAIL"
    assert "not DvfdCheckpointAgeing" in found.note
    assert "DvfdStoreBroken: invalid regular expression" in found.note
    assert "sends alerts to nobody" in found.note
