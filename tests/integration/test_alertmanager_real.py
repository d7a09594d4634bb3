"""A real Alertmanager: what is raised arrives, what is over resolves, nothing is lost."""

import time

import pytest
import requests
import testbed
from fakes_sinks import FakeOutbox, criterion, result

from dvfd.clock import SystemClock
from dvfd.config import Config
from dvfd.model import Verdict
from dvfd.sinks.alert import criterion_alert
from dvfd.sinks.alertmanager import Sender, open_session, push, send_test
from dvfd.sinks.pager import Pager
from dvfd.store import Store


@pytest.fixture
def webhook():
    with testbed.Webhook() as receiver:
        yield receiver


@pytest.fixture
def running(tmp_path, webhook):
    with testbed.alertmanager(tmp_path, webhook.url) as server:
        yield server


class Pushing:
    """A pager and a sender thread, as the daemon has them."""

    def __init__(self, url, store=None, connect=None):
        self.store = store or FakeOutbox()
        config = Config(node={"name": "node4"}, alerting={"urls": (url,), "resend": 2})
        self.pager = Pager(self.store, push=push(config))
        self.pager.load()
        self.sender = Sender(self.pager, config, clock=SystemClock(), connect=connect)

    def __enter__(self):
        self.sender.start()
        return self

    def __exit__(self, *_):
        self.sender.stop()

    def fail(self, name, **keys):
        broken = result(Verdict.FAIL, criterion(name, **keys))
        self.pager.raise_alert(criterion_alert(broken, time.time() - 1), {})

    def mend(self, name):
        self.pager.clear_alert(name, time.time(), {})


def test_a_breach_arrives_within_two_seconds_and_resolves(running, webhook):
    with Pushing(running.url) as pushing:
        pushing.fail("live.responding")
        said = webhook.wait_for("firing", 2, criterion="live.responding")
        pushing.mend("live.responding")
        webhook.wait_for("resolved", 5, criterion="live.responding")

    assert said["labels"]["alertname"] == "DvfdCriterionFailed"
    assert said["labels"]["source"] == "dvfd"
    assert said["annotations"]["description"] == "rank 2 responds: 0, wanted 1"
    assert pushing.sender.health().error == ""


def test_what_was_raised_while_alertmanager_was_down_arrives_when_it_is_up(tmp_path, webhook):
    port = testbed.free_port()
    with Pushing(f"http://127.0.0.1:{port}") as pushing:
        pushing.fail("live.responding")
        testbed.eventually(lambda: pushing.sender.health().error, 5)
        with testbed.alertmanager(tmp_path, webhook.url, port=port):
            webhook.wait_for("firing", 10, criterion="live.responding")
        assert pushing.sender.health().waiting == 0


def test_what_was_raised_and_over_while_alertmanager_was_down_is_still_told(tmp_path, webhook):
    port = testbed.free_port()
    with Pushing(f"http://127.0.0.1:{port}") as pushing:
        pushing.fail("live.brief")
        testbed.eventually(lambda: pushing.sender.health().error, 5)
        pushing.mend("live.brief")
        with testbed.alertmanager(tmp_path, webhook.url, port=port):
            webhook.wait_for("firing", 10, criterion="live.brief")


def a_store(path):
    store = Store(path, metrics={}, clock=SystemClock())
    store.start()
    return store


def test_a_restart_with_the_same_store_loses_nothing(tmp_path, webhook):
    port = testbed.free_port()
    url = f"http://127.0.0.1:{port}"
    store = a_store(tmp_path / "dvfd.db")
    with Pushing(url, store) as before:
        before.fail("live.responding")
        testbed.eventually(lambda: before.sender.health().error, 5)
    store.stop()

    store = a_store(tmp_path / "dvfd.db")
    with (
        testbed.alertmanager(tmp_path, webhook.url, port=port),
        Pushing(url, store) as after,
    ):
        webhook.wait_for("firing", 5, criterion="live.responding")
        after.mend("live.responding")
        webhook.wait_for("resolved", 5, criterion="live.responding")
    store.stop()


def test_one_bad_alert_does_not_stop_the_others(running, webhook):
    def spoil():
        post = open_session()
        return lambda url, *, data, **rest: post(
            url, data=data.replace('"live.bad"', '{"not": "a string"}'), **rest
        )

    with Pushing(running.url, connect=spoil) as pushing:
        for name in ("live.a", "live.bad", "live.b", "live.c"):
            pushing.fail(name)
        for name in ("live.a", "live.b", "live.c"):
            webhook.wait_for("firing", 5, criterion=name)
        testbed.eventually(lambda: pushing.sender.health().outcomes["refused"], 5)


def test_resends_are_no_new_notifications(running, webhook):
    with Pushing(running.url) as pushing:
        pushing.fail("live.responding")
        testbed.eventually(lambda: pushing.sender.health().outcomes["accepted"] >= 3, 60)

    assert len(webhook.matching("firing", criterion="live.responding")) == 1


def test_a_test_alert_arrives(running, webhook):
    config = Config(alerting={"urls": (running.url,)})

    assert send_test(config, time.time()) == [(running.url, True, "HTTP 200")]
    assert webhook.wait_for("firing", 3, alertname="DvfdTest")["labels"]["severity"] == "info"


def test_alertmanager_knows_the_links_and_the_start(running, webhook):
    with Pushing(running.url) as pushing:
        pushing.fail("live.responding")
        webhook.wait_for("firing", 3)
    (known,) = requests.get(f"{running.url}/api/v2/alerts", timeout=5).json()

    assert known["annotations"]["runbook_url"].endswith("DvfdCriterionFailed.md")
    assert known["startsAt"].endswith("Z")
