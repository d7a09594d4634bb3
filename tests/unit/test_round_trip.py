"""The test alert: what was measured is what is said, and silence is never an arrival."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import pytest
import testbed
from fakes import FakeClock
from fakes_drills import judged, task

from dvfd.config import Alerting
from dvfd.drills.drill import Options
from dvfd.drills.ear import MOST, Ear
from dvfd.drills.round_trip import RoundTrip
from dvfd.drills.supervise import supervise
from dvfd.errors import DvfdError, ProbeError
from dvfd.model import Result
from dvfd.remote import Answer
from dvfd.sinks.arrivals import seen

URL = "http://alertmanager:9093"
TRIAL = "00c0ffee00c0ffee"


def row(taken: int = 3, failed: int = 0, own: int | None = 3, **more: Any) -> dict[str, Any]:
    """What an Alertmanager says that has routed the alert and counts notifications, by receiver."""
    counts = {"taken": {"webhook": taken}, "failed": {"webhook": failed}}
    counts["taken_by"] = {} if own is None else {"on-call": own, "dead-mans-switch": 7}
    routed = {"url": URL, "receivers": ["on-call"], "state": "active", "by": [], "error": ""}
    return routed | counts | more


ABSENT = row(receivers=[], state="")


class Alertmanager:
    """The daemon's answers about one, in turn; the last one stays."""

    def __init__(self, *looks: dict[str, Any], accepted: bool = True) -> None:
        self.looks = list(looks)
        self.sent: list[bool] = []
        self.accepted = accepted

    def ask(self, op: str, *, trial: str, over: bool = False) -> Any:
        assert trial == TRIAL
        if op == "alerts_test":
            self.sent.append(over)
            return [{"url": URL, "accepted": self.accepted, "detail": "HTTP 503"}]
        if self.sent[-1:] == [True]:
            return [ABSENT]
        return [self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]]


def result(of: Alertmanager, directory: Path, ask: Any = None) -> Result:
    clock = FakeClock()
    part = RoundTrip(ask=ask or of.ask, sleep=clock.advance, trial=lambda: TRIAL)
    drill = task("monitoring", directory, clock=clock)
    return judged(drill, supervise(drill, [part]))["round_trip"]


def test_a_notification_that_its_receiver_took_is_timed(tmp_path: Path) -> None:
    server = Alertmanager(ABSENT, ABSENT, row(), row(4, own=4))

    found = result(server, tmp_path)

    assert (found.verdict, found.observed) == ("PASS", pytest.approx(0.4))
    assert found.note == "its receiver on-call took a notification"


def test_a_notification_that_may_be_another_alerts_passes_nothing(tmp_path: Path) -> None:
    absent = row(own=None, receivers=[], state="")
    found = result(Alertmanager(absent, absent, row(4, own=None)), tmp_path)
    assert found.verdict == "UNKNOWN"
    assert "routed to on-call, and a notification by webhook was taken since" in found.reason
    assert "--listen" in found.reason


def test_what_another_receiver_took_is_no_arrival(tmp_path: Path) -> None:
    other = row(4) | {"taken_by": {"on-call": 3, "dead-mans-switch": 8}}
    found = result(Alertmanager(ABSENT, other), tmp_path)
    assert found.verdict == "FAIL"


def test_it_is_ended_afterwards(tmp_path: Path) -> None:
    server = Alertmanager(ABSENT, row(4, own=4))
    result(server, tmp_path)
    assert server.sent == [False, True]


def test_routed_alone_is_no_arrival(tmp_path: Path) -> None:
    found = result(Alertmanager(ABSENT, row()), tmp_path)
    assert found.verdict == "FAIL"
    assert found.observed == pytest.approx(61.2, abs=0.3)
    assert "it was routed to on-call" in found.note


def test_a_notification_that_failed_is_no_arrival(tmp_path: Path) -> None:
    found = result(Alertmanager(ABSENT, row(failed=2, own=None)), tmp_path)
    assert found.verdict == "FAIL"
    assert "notifications by webhook failed" in found.note


def test_an_api_that_answers_no_more_leaves_it_unknown(tmp_path: Path) -> None:
    lost = {"url": URL, "receivers": [], "state": "", "by": [], "error": "Connection refused"}
    found = result(Alertmanager(ABSENT, lost), tmp_path)
    assert found.verdict == "UNKNOWN"
    assert "what became of it cannot be seen" in found.reason


def test_what_silences_it_is_named(tmp_path: Path) -> None:
    found = result(Alertmanager(ABSENT, row(state="suppressed", by=["a1b2"])), tmp_path)
    assert found.verdict == "FAIL"
    assert "suppressed by a1b2" in found.note


def test_what_was_taken_before_the_first_answer_is_no_arrival(tmp_path: Path) -> None:
    late = {"url": URL, "receivers": [], "state": "", "by": [], "error": "timed out"}
    found = result(Alertmanager(late, row(500, own=500)), tmp_path)
    assert found.verdict == "UNKNOWN"
    assert f"cannot be seen ({URL}: timed out)" in found.reason


def test_each_alertmanager_is_counted_by_itself(tmp_path: Path) -> None:
    other = "http://second:9093"
    late = {"url": other, "receivers": [], "state": "", "by": [], "error": "timed out"}

    def two(first: dict[str, Any], second: dict[str, Any]) -> Any:
        server, looks = Alertmanager(ABSENT), [[ABSENT, late], [first, second]]

        def ask(op: str, *, trial: str, over: bool = False) -> Any:
            if op == "alerts_test" or over or server.sent[-1:] == [True]:
                return server.ask(op, trial=trial, over=over)
            return looks.pop(0) if len(looks) > 1 else looks[0]

        return result(server, tmp_path, ask)

    assert two(row(4, own=4), row(500, own=500, url=other)).verdict == "PASS"
    unseen = two(row(), row(500, own=500, url=other))
    assert unseen.verdict == "UNKNOWN"
    assert "what became of it cannot be seen: timed out" in unseen.reason.replace(f"{other}: ", "")


def test_what_its_receiver_takes_while_it_is_held_is_another_alert(tmp_path: Path) -> None:
    held = {"state": "suppressed", "by": ["silence-1"]}
    never = result(Alertmanager(ABSENT, row(4, own=4, **held)), tmp_path)
    then = result(Alertmanager(ABSENT, row(4, own=4, **held), row(4, own=4)), tmp_path)
    came = result(Alertmanager(ABSENT, row(4, own=4, **held), row(5, own=5)), tmp_path)
    assert [found.verdict for found in (never, then, came)] == ["FAIL", "FAIL", "PASS"]


def test_an_alertmanager_that_counts_nothing_leaves_it_unknown(tmp_path: Path) -> None:
    blind = {k: v for k, v in row().items() if k not in {"taken", "failed", "taken_by"}}
    error = f"{URL}/metrics answers 404, wanted 200"
    found = result(Alertmanager(blind | {"error": error}), tmp_path)
    assert found.verdict == "UNKNOWN"
    assert error in found.reason
    assert "--listen" in found.reason


def test_an_alert_that_nothing_takes_is_unknown(tmp_path: Path) -> None:
    found = result(Alertmanager(ABSENT, accepted=False), tmp_path)
    assert found.verdict == "UNKNOWN"
    assert f"{URL}: HTTP 503" in found.reason


@pytest.mark.parametrize(("answer", "says"), [(None, "no daemon answers"), ([], "[alerting] urls")])
def test_without_daemon_or_alertmanager_it_is_unknown(
    tmp_path: Path, answer: Any, says: str
) -> None:
    found = result(Alertmanager(ABSENT), tmp_path, lambda op, **_: answer)
    assert found.verdict == "UNKNOWN"
    assert says in found.reason


def test_an_end_that_is_not_taken_is_said(tmp_path: Path) -> None:
    server = Alertmanager(ABSENT, row(4, own=4))

    def ask(op: str, *, trial: str, over: bool = False) -> Any:
        if over:
            raise DvfdError("the daemon went away")
        return server.ask(op, trial=trial)

    found = result(server, tmp_path, ask)
    assert found.verdict == "PASS"
    assert "its end was not told: the daemon went away" in found.note


# --- Listening ----------------------------------------------------------------------------------


def posted(port: int, body: bytes, length: int | None = None) -> int:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    line.request(
        "POST", "/", body, {"Content-Length": str(len(body) if length is None else length)}
    )
    status = line.getresponse().status
    line.close()
    return status


def notification(*alerts: tuple[str, str]) -> bytes:
    found = [{"status": status, "labels": {"trial": trial}} for status, trial in alerts]
    return json.dumps({"alerts": found}).encode()


def test_only_the_test_alert_itself_has_arrived() -> None:
    ear = Ear("", TRIAL, FakeClock(boot=7.0))
    for body in (
        b"", b"nonsense", b"[]", b'{"alerts": [1]}', b'{"alerts": [{"status": "firing"}]}',
        notification(("firing", "0000000000000000")), notification(("resolved", TRIAL)),
    ):  # fmt: skip
        ear.hear(body)
        assert ear.arrived is None

    ear.hear(notification(("firing", "0000000000000000"), ("firing", TRIAL)))

    assert ear.arrived == 7.0


def test_what_arrives_over_http_is_heard_and_what_is_too_large_is_refused() -> None:
    port = testbed.free_port()
    with Ear(f"127.0.0.1:{port}", TRIAL, FakeClock(boot=7.0)) as ear:
        assert posted(port, b"{}", MOST + 1) == 413
        assert posted(port, notification(("firing", TRIAL))) == 200
    assert ear.arrived == 7.0
    with pytest.raises(ConnectionRefusedError):
        posted(port, b"{}")


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:none", "127.0.0.1:99999", "192.0.2.1:0"])
def test_an_address_that_cannot_be_had_is_named(address: str) -> None:
    with (
        pytest.raises(ProbeError, match="wanted a free HOST:PORT"),
        Ear(address, TRIAL, FakeClock()),
    ):
        pass


def test_without_an_arrival_the_listener_ends_with_the_drill(tmp_path: Path) -> None:
    port, clock = testbed.free_port(), FakeClock()
    options = Options(listen=f"127.0.0.1:{port}")
    part = RoundTrip(
        ask=Alertmanager(ABSENT, row(9, own=9)).ask, sleep=clock.advance, trial=lambda: TRIAL
    )
    drill = task("monitoring", tmp_path, clock=clock, options=options)

    found = judged(drill, supervise(drill, [part]))["round_trip"]

    assert found.verdict == "FAIL"
    assert "it did not arrive at --listen" in found.note
    with pytest.raises(ConnectionRefusedError):
        posted(port, b"{}")


# --- What an Alertmanager says ------------------------------------------------------------------

ALERT = {
    "receivers": [{"name": "on-call"}],
    "status": {"state": "suppressed", "silencedBy": ["a1"], "inhibitedBy": ["b2"]},
}
METRICS = b"""\
alertmanager_notification_requests_total{integration="webhook",receiver_name="a"} 2
alertmanager_notification_requests_total{integration="webhook",receiver_name="b"} 3
alertmanager_notification_requests_failed_total{integration="webhook",receiver_name="a"} 1
"""
BARE = b'alertmanager_notification_requests_total{integration="email"} 2\n'


def say(alerts: bytes, metrics: bytes, status: int = 200) -> Any:
    def get(url: str, access: Any, *, within: float) -> Answer:
        assert access.login == "dvfd:secret"
        return Answer(status, metrics if url.endswith("/metrics") else alerts, 0, 0)

    return get


def looked(alerts: bytes, metrics: bytes = METRICS, status: int = 200) -> dict[str, Any]:
    settings = Alerting(urls=("http://bob:pw@alertmanager:9093",))
    get = say(alerts, metrics, status)
    [found] = seen(settings, TRIAL, lambda _: ("dvfd", "secret"), get)
    return found


def test_routes_and_counts_of_one_alertmanager() -> None:
    found = looked(json.dumps([ALERT]).encode())

    assert (found["receivers"], found["state"]) == (["on-call"], "suppressed")
    assert found["by"] == ["a1", "b2"]
    assert (found["taken"], found["failed"]) == ({"webhook": 4}, {"webhook": 1})
    assert found["taken_by"] == {"a": 1, "b": 3}


def test_receivers_that_are_not_told_apart_are_not_made_up() -> None:
    assert (looked(b"[]", BARE)["taken"], looked(b"[]", BARE)["taken_by"]) == ({"email": 2}, {})


def test_an_alert_that_is_not_there_has_no_route() -> None:
    assert looked(b"[]")["receivers"] == []


@pytest.mark.parametrize("body", [b"", b"[1]", b"\xff", b'[{"status": {}}]', b"null"])
def test_an_answer_that_is_none_is_an_error_without_the_password(body: bytes) -> None:
    found = looked(body)
    assert found["error"]
    assert "taken" not in found
    assert "pw" not in json.dumps(found)


def test_an_alertmanager_that_refuses_says_its_status_and_no_password() -> None:
    found = looked(b"[]", status=401)
    assert "answers 401, wanted 200" in found["error"]
    assert "pw" not in json.dumps(found)


def test_counters_that_are_not_there_are_an_error() -> None:
    assert "wanted Alertmanager 0.22 or newer" in looked(b"[]", b"other 1\n")["error"]


@pytest.mark.parametrize("trial", ["", "x", 'a"} or {a="', "A" * 16, "a" * 65])
def test_only_the_name_of_a_test_alert_is_asked_for(trial: str) -> None:
    with pytest.raises(DvfdError, match="names no test alert"):
        seen(Alerting(), trial, lambda _: None)
