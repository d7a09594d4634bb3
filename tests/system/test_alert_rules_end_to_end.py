"""A real dvfd, Prometheus with the delivered rules, and Alertmanager with the example's routes.

Generated copies, said so: waits of the rules in seconds instead of minutes, those of Alertmanager
as in the test of the example. The dvfd has no address of an Alertmanager: all comes by the rules.
"""

import re
from pathlib import Path

import pytest
from example_alertmanager import pages, shortened
from node import Node, running
from testbed import Webhook, alertmanager, eventually, prometheus, query

pytestmark = pytest.mark.slow

RULES = Path(__file__).resolve().parents[2] / "alert_rules"

EXTRA = """
[jobs]
expected = ["gpt"]
"""


def hurried(directory: Path) -> tuple[Path, ...]:
    """The rules with each minute of `for` and `keep_firing_for` as a second."""
    directory.mkdir()
    for path in RULES.glob("*.rules.yml"):
        text, changed = re.subn(r"(for: \d+)m\b", r"\1s", path.read_text())
        assert changed or "recording" in path.name
        (directory / path.name).write_text(text)
    return tuple(sorted(directory.glob("*.yml")))


def test_a_breach_and_then_the_death_of_dvfd_reach_the_one_on_call(tmp_path):
    node = Node(tmp_path / "node", [], EXTRA)
    with (
        Webhook() as hook,
        alertmanager(tmp_path, hook.url, text=shortened(hook.url)) as receiver,
        running(node),
        prometheus(
            tmp_path,
            node.address,
            rules=hurried(tmp_path / "rules"),
            alerts_to=f"127.0.0.1:{receiver.port}",
        ),
    ):
        # The job that is expected here is not there: told by the rule, as nobody else can.
        breach = hook.wait_for("firing", 60, criterion="live.job_present")
        eventually(lambda: pages(hook, "dead-mans-switch"), 60)

        node.kill()
        silent = hook.wait_for("firing", 60, alertname="DvfdNodeSilent")

    assert breach["labels"]["alertname"] == "DvfdRaisedCritical"
    assert breach["labels"]["severity"] == "critical"
    assert "wanted 0" in breach["annotations"]["description"]
    assert silent["annotations"]["runbook_url"] == "docs/runbooks/DvfdNodeSilent.md"
    assert "up is 0, wanted 1" in silent["annotations"]["description"]
    assert {"DvfdNodeSilent"} in pages(hook)


def test_a_dvfd_that_comes_back_ends_its_silence(tmp_path):
    node = Node(tmp_path / "node", [])
    with (
        Webhook() as hook,
        alertmanager(tmp_path, hook.url, text=shortened(hook.url)) as receiver,
        running(node),
        prometheus(
            tmp_path,
            node.address,
            rules=hurried(tmp_path / "rules"),
            alerts_to=f"127.0.0.1:{receiver.port}",
        ) as server,
    ):
        eventually(lambda: query(server, 'up{job="dvfd"} == 1'), 60)
        port = node.address.rpartition(":")[2]
        config = node.directory / "dvfd.toml"
        config.write_text(config.read_text().replace("port = 0", f"port = {port}"))
        node.kill()
        hook.wait_for("firing", 60, alertname="DvfdNodeSilent")

        node.start()
        hook.wait_for("resolved", 60, alertname="DvfdNodeSilent")
