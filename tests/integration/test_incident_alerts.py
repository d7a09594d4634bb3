"""Whom a real Alertmanager with our routes calls while an incident moves from state to state."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import testbed
from example_alertmanager import shortened
from fakes import FakeClock
from fakes_incidents import DAY, HOUR, Place

from dvfd.clock import SystemClock
from dvfd.config import Alerting, Config
from dvfd.sinks.alertmanager import Sender


def told(webhook: testbed.Webhook, receiver: str) -> list[tuple[str, str]]:
    """What *receiver* got: whether it fires, and whom it calls."""
    return [
        (alert["status"], alert["labels"]["escalation"])
        for path, document in webhook.notifications
        if path == f"/{receiver}"
        for alert in document["alerts"]
    ]


@pytest.mark.slow
def test_each_state_calls_its_own_and_the_on_call_never(tmp_path: Path) -> None:
    with (
        testbed.Webhook() as webhook,
        testbed.alertmanager(tmp_path, webhook.url, text=shortened(webhook.url)) as server,
    ):
        # It began three days ago: what has ended since lies in the past for Alertmanager as well.
        place = Place(tmp_path, clock=FakeClock(now=time.time() - 3 * DAY))
        config = Config(alerting=Alerting(urls=(server.url,)))
        sender = Sender(place.pager, config, clock=SystemClock())

        place.run()
        sender.round()
        testbed.eventually(lambda: told(webhook, "team-lead"), 60)
        assert told(webhook, "team-lead") == [("firing", "team_lead")]
        assert not told(webhook, "team-channel")

        place.pass_time(HOUR)
        sender.round()
        testbed.eventually(lambda: told(webhook, "team-channel"), 60)
        assert told(webhook, "team-channel") == [("firing", "team")]
        testbed.eventually(lambda: ("resolved", "team_lead") in told(webhook, "team-lead"), 60)

        place.run()
        place.pass_time(DAY)
        sender.round()
        testbed.eventually(lambda: told(webhook, "infrastructure"), 60)
        testbed.eventually(lambda: told(webhook, "gate-authority"), 60)
        assert told(webhook, "infrastructure") == [("firing", "infrastructure")]
        assert told(webhook, "gate-authority") == [("firing", "authority")]
        assert not told(webhook, "on-call")
