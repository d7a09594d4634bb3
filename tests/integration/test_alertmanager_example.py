"""The example of an Alertmanager: who is told of what, what is held back, and what never is."""

import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
import testbed
import yaml
from example_alertmanager import EXAMPLE, pages, shortened

PLACE = Path(__file__).resolve().parents[2] / "alert_rules"


def amtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [testbed.need("amtool"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_amtool_accepts_the_example():
    checked = amtool("check-config", str(EXAMPLE))

    assert checked.returncode == 0, checked.stderr


def test_promtool_accepts_the_example_of_a_prometheus_and_finds_all_rules():
    checked = testbed.promtool("check", "config", str(PLACE / "prometheus.example.yml"))

    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count(b"rules found") == len(list(PLACE.glob("*.rules.yml")))


PHASE_TEST = "alertname=DvfdPhaseTestFailed severity=critical phase=phase1 source=dvfd"

ROUTES = [
    ("dead-mans-switch", "alertname=DvfdWatchdog severity=none source=rules"),
    ("team-lead", f"{PHASE_TEST} escalation=team_lead"),
    ("team-lead", "alertname=DvfdCriterionFailed severity=critical escalation=team_lead"),
    ("team-lead", "alertname=DvfdRaisedPhaseTest severity=critical escalation=team_lead"),
    ("team-channel", f"{PHASE_TEST} escalation=team"),
    ("infrastructure", f"{PHASE_TEST} escalation=infrastructure"),
    ("gate-authority", "alertname=DvfdPhaseDelayed severity=warning escalation=authority"),
    ("on-call", "alertname=DvfdCriterionFailed severity=critical node=n1 source=dvfd"),
    ("on-call", "alertname=DvfdBlind severity=critical node=n1 source=dvfd"),
    ("on-call", "alertname=DvfdStorm severity=critical node=n1 source=dvfd"),
    ("on-call", "alertname=DvfdNodeSilent severity=critical instance=n1:9109 source=rules"),
    ("on-call", "alertname=DvfdFleetSilent severity=critical source=rules"),
    ("team-channel", "alertname=DvfdCriterionFailed severity=warning node=n1 source=dvfd"),
    ("team-channel", "alertname=DvfdFleetUnknown severity=warning source=rules"),
    ("team-channel", "alertname=DvfdTest severity=info node=n1 source=dvfd"),
    ("team-channel", "alertname=SomethingElse"),
    ("nobody", "alertname=DvfdVersionsDiffer severity=info source=rules"),
]


@pytest.mark.parametrize(("receiver", "labels"), ROUTES)
def test_an_alert_goes_to(receiver, labels):
    config = f"--config.file={EXAMPLE}"
    found = amtool(
        "config", "routes", "test", config, f"--verify.receivers={receiver}", *labels.split()
    )

    assert found.returncode == 0, found.stdout + found.stderr


def test_every_receiver_is_reached_by_a_tested_route():
    names = {receiver["name"] for receiver in yaml.safe_load(EXAMPLE.read_text())["receivers"]}

    assert names == {receiver for receiver, _ in ROUTES}


def test_only_warnings_wait_for_working_hours():
    routes = yaml.safe_load(EXAMPLE.read_text())["route"]["routes"]
    muted = [r["matchers"] for r in routes if "mute_time_intervals" in r]

    assert muted == [['severity="warning"']]


# --- A real Alertmanager with the example -------------------------------------------------------


@pytest.fixture
def webhook():
    with testbed.Webhook() as receiver:
        yield receiver


@pytest.fixture
def running(tmp_path, webhook):
    text = shortened(webhook.url)
    with testbed.alertmanager(tmp_path, webhook.url, text=text) as server:
        yield server


def fire(server: testbed.Server, *alerts: dict[str, str]) -> None:
    now = datetime.now(UTC)
    times = {"startsAt": now.isoformat(), "endsAt": (now + timedelta(minutes=5)).isoformat()}
    body = [{"labels": labels, **times} for labels in alerts]
    requests.post(f"{server.url}/api/v2/alerts", json=body, timeout=5).raise_for_status()


def rule(name: str, severity: str = "critical", **labels: str) -> dict[str, str]:
    return {"alertname": name, "severity": severity, "source": "rules", **labels}


def silent(node: str) -> dict[str, str]:
    return rule("DvfdNodeSilent", instance=f"{node}:9109", node=node)


def pushed(name: str, node: str, severity: str = "critical", **labels: str) -> dict[str, str]:
    return {
        "alertname": name,
        "severity": severity,
        "node": node,
        "source": "dvfd",
        "phase": "production",
        **labels,
    }


def failed(node: str, criterion: str, severity: str = "critical") -> dict[str, str]:
    return pushed(
        "DvfdCriterionFailed", node, severity, check="live", criterion=f"live.{criterion}"
    )


def suppressed(server: testbed.Server) -> list[dict[str, str]]:
    """The labels of what is held back now."""
    found = requests.get(
        f"{server.url}/api/v2/alerts?active=false&inhibited=true", timeout=5
    ).json()
    return [alert["labels"] for alert in found if alert["status"]["inhibitedBy"]]


@pytest.mark.slow
def test_the_dead_mans_switch_keeps_arriving_whatever_else_fires(running, webhook):
    watchdog = rule("DvfdWatchdog", "none")
    fire(running, watchdog, rule("DvfdFleetSilent"), *(silent(f"n{i}") for i in range(20)))

    testbed.eventually(lambda: len(pages(webhook, "dead-mans-switch")) >= 4, 60)

    assert watchdog not in suppressed(running)


@pytest.mark.slow
def test_fifty_nodes_that_fall_silent_together_are_one_page(running, webhook):
    fire(running, *(silent(f"n{i}") for i in range(50)))
    testbed.eventually(lambda: pages(webhook), 60)
    time.sleep(4)  # two group intervals, in which a second page would come

    assert pages(webhook) == [{"DvfdNodeSilent"}]
    assert len(webhook.alerts) == 50


@pytest.mark.slow
def test_a_silent_fleet_is_one_page_and_its_nodes_are_held_back(running, webhook):
    other = silent("n1") | {"cluster": "another"}
    fire(running, rule("DvfdFleetSilent"))
    testbed.eventually(lambda: pages(webhook), 60)
    fire(running, *(silent(f"n{i}") for i in range(50)), other)
    testbed.eventually(lambda: len(suppressed(running)) == 50, 60)
    testbed.eventually(lambda: len(pages(webhook)) == 2, 60)

    assert pages(webhook) == [{"DvfdFleetSilent"}, {"DvfdNodeSilent"}]
    assert webhook.alerts[-1]["labels"]["cluster"] == "another"


@pytest.mark.slow
def test_a_storm_of_one_node_is_two_pages_and_a_later_cause_is_still_told(running, webhook):
    first = [failed("n1", f"c{i}") for i in range(10)]
    fire(running, *first, pushed("DvfdStorm", "n1"), failed("n1", "clock", "warning"))
    testbed.eventually(lambda: len(pages(webhook)) >= 2, 60)
    time.sleep(4)  # two group intervals, in which a further page would come
    told = pages(webhook)
    fire(running, failed("n1", "corruption"))
    webhook.wait_for("firing", 10, criterion="live.corruption")

    assert sorted(map(sorted, told)) == [["DvfdCriterionFailed"], ["DvfdStorm"]]
    assert suppressed(running) == [failed("n1", "clock", "warning")]


@pytest.mark.slow
def test_a_silent_node_holds_back_its_own_alerts_and_no_others(running):
    late = rule("DvfdLoopLate", instance="n1:9109", loop="watch")
    fleet = rule("DvfdFleetUnknown", "warning")
    pushes = [failed("n1", "progress"), failed("n2", "progress")]
    fire(running, silent("n1"), silent("n2") | {"node": ""}, late, fleet, *pushes)

    testbed.eventually(lambda: len(suppressed(running)) == 2, 60)

    assert late in suppressed(running)
    assert pushes[0] in suppressed(running)


@pytest.mark.slow
def test_what_dvfd_pushes_holds_back_the_rule_on_the_same_breach_only(running):
    same = rule("DvfdRaisedCritical", instance="n1:9109", node="n1", criterion="live.progress")
    blind = rule("DvfdRaisedBlind", instance="n1:9109", node="n1", probe="ranks")
    others = [
        same | {"criterion": "live.memory"},
        same | {"node": "n2", "instance": "n2:9109"},
        {k: v for k, v in same.items() if k != "node"},
        blind | {"probe": "cpu"},
    ]
    pushes = [failed("n1", "progress"), pushed("DvfdBlind", "n1", probe="ranks")]
    fire(running, *pushes, same, blind, *others)

    testbed.eventually(lambda: len(suppressed(running)) == 2, 60)

    assert same in suppressed(running)
    assert blind in suppressed(running)
