"""Pager and Sender: nothing lost, nothing told twice as news, one bad alert harms no other."""

from pathlib import Path

import pytest
from fakes import FakeClock
from fakes_sinks import NOW, Answer, FakeAlertmanager, FakeOutbox, criterion, result
from structlog.testing import capture_logs
from testbed import eventually

from dvfd.config import Config
from dvfd.model import Verdict
from dvfd.sinks import log
from dvfd.sinks.alert import criterion_alert, timestamp
from dvfd.sinks.alertmanager import Receiver, Sender, push, send_test
from dvfd.sinks.pager import Pager

URL = "http://am1:9093"
OTHER = "http://am2:9093"
DOWN = ConnectionRefusedError(111, "Connection refused")


def alert(name="live.responding", since=NOW - 5, **keys):
    return criterion_alert(result(Verdict.FAIL, criterion(name), **keys), since)


class Bench:
    """A pager, its sender and an Alertmanager, with time in hand."""

    def __init__(self, *, store=None, receiver=None, urls=(URL,), jitter=max, **alerting):
        self.clock = FakeClock()
        self.store = store or FakeOutbox()
        self.receiver = receiver or FakeAlertmanager()
        self.config = Config(alerting={"urls": urls, **alerting})
        self.pager = Pager(self.store, push=push(self.config))
        self.pager.load()
        self.sender = Sender(
            self.pager,
            self.config,
            clock=self.clock,
            connect=lambda: self.receiver,
            jitter=jitter,
        )

    def sent(self, after=0.0):
        """What a round sends *after* seconds."""
        self.clock.advance(after)
        self.receiver.posts.clear()
        self.sender.round()
        return self.receiver.alerts


def is_firing(body, now):
    return body["endsAt"] > timestamp(now)


def test_a_raised_alert_is_sent_in_the_next_round_and_stored_before():
    bench = Bench()
    bench.sent()

    bench.pager.raise_alert(alert(), {"state": "raised"})

    assert bench.store.alarms == {"live.responding": {"state": "raised"}}
    assert [a["labels"]["criterion"] for a in bench.sent(1)] == ["live.responding"]


def test_an_accepted_alert_is_not_sent_again_before_the_resend():
    bench = Bench()
    bench.pager.raise_alert(alert(), {})
    bench.sent()

    assert bench.sent(59) == []
    assert len(bench.sent(1)) == 1


def test_between_rounds_the_sender_sleeps_until_the_resend():
    bench = Bench()
    bench.pager.raise_alert(alert(), {})
    bench.sent()

    assert bench.sender.wait() == 60


def test_startsat_stays_the_start_of_the_breach_in_every_resend():
    bench = Bench()
    bench.pager.raise_alert(alert(since=NOW - 5), {})
    bench.sent()

    assert bench.sent(60)[0]["startsAt"] == timestamp(NOW - 5)


def test_a_cleared_alert_is_told_as_resolved_at_once_and_for_a_quarter_of_an_hour():
    bench = Bench()
    bench.pager.raise_alert(alert(), {})
    bench.sent()
    bench.pager.clear_alert("live.responding", NOW, {})

    assert bench.sent()[0]["endsAt"] == timestamp(NOW)
    assert len(bench.sent(840)) == 1
    assert bench.sent(90)
    assert bench.sent(60) == []
    assert bench.store.rows == {}


def test_while_nobody_answers_alerts_wait_and_are_tried_ever_slower_up_to_30_s():
    bench = Bench(receiver=FakeAlertmanager(answers={URL: DOWN}))
    bench.pager.raise_alert(alert(), {})

    waits = []
    for _ in range(8):
        bench.sent(bench.sender.wait())
        waits.append(bench.sender.wait())

    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    assert bench.sender.health().waiting == 1
    assert "Connection refused" in bench.sender.health().error


def test_after_an_outage_the_whole_firing_set_is_told():
    bench = Bench()
    bench.pager.raise_alert(alert("live.a"), {})
    bench.sent()
    bench.receiver.answers[URL] = DOWN
    bench.pager.raise_alert(alert("live.b"), {})
    bench.sent(60)
    bench.receiver.answers.clear()

    assert {a["labels"]["criterion"] for a in bench.sent(1)} == {"live.a", "live.b"}
    assert bench.sender.health().error == ""


def test_a_restart_loses_nothing():
    before = Bench(receiver=FakeAlertmanager(answers={URL: DOWN}))
    before.pager.raise_alert(alert(since=NOW - 5), {})
    before.sent()

    after = Bench(store=before.store)

    assert after.pager.firing() == {"live.responding"}
    assert after.sent()[0]["startsAt"] == timestamp(NOW - 5)


def test_an_alert_that_ended_unheard_is_told_as_firing_and_later_as_resolved():
    bench = Bench(receiver=FakeAlertmanager(answers={URL: DOWN}))
    bench.pager.raise_alert(alert(), {})
    bench.sent()
    bench.pager.clear_alert("live.responding", NOW, {})
    bench.receiver.answers.clear()

    assert is_firing(bench.sent(1)[0], bench.clock.now())
    assert bench.sent(29) == []
    assert bench.sender.wait() == 1
    assert not is_firing(bench.sent(1)[0], bench.clock.now())


def test_an_alert_that_ends_while_it_is_first_told_is_told_as_over_only_later():
    class Ending(FakeAlertmanager):
        def __call__(self, url, *, data, **options):
            bench.pager.clear_alert("live.responding", NOW, {})
            return super().__call__(url, data=data, **options)

    bench = Bench(receiver=Ending())
    bench.pager.raise_alert(alert(), {})

    assert is_firing(bench.sent()[0], bench.clock.now())
    assert bench.sent(29) == []
    assert not is_firing(bench.sent(1)[0], bench.clock.now())


def test_an_alert_that_ended_unheard_is_held_over_a_restart_too():
    before = Bench(receiver=FakeAlertmanager(answers={URL: DOWN}))
    before.pager.raise_alert(alert(), {})
    before.sent()
    before.pager.clear_alert("live.responding", NOW, {})
    before.receiver.answers.clear()
    assert is_firing(before.sent(1)[0], before.clock.now())

    after = Bench(store=before.store)

    assert after.sent() == []
    assert after.sender.wait() == 30
    assert after.sent(29) == []
    assert not is_firing(after.sent(1)[0], after.clock.now())


def test_an_alert_that_ended_after_it_was_heard_is_told_at_once_after_a_restart():
    before = Bench()
    before.pager.raise_alert(alert(), {})
    before.sent()
    before.pager.clear_alert("live.responding", NOW, {})

    after = Bench(store=before.store)

    assert not is_firing(after.sent()[0], after.clock.now())


class Slow(FakeOutbox):
    """A disk that notes what had been told when somebody waited for it, and may take nothing."""

    def __init__(self, receiver, *, well=True):
        super().__init__()
        self.receiver, self.well, self.waits = receiver, well, []

    def flush(self, timeout):
        self.waits.append((timeout, len(self.receiver.posts)))
        return self.well


@pytest.mark.parametrize("well", [True, False])
def test_an_end_is_told_after_it_is_kept_or_a_second_later_and_a_beginning_at_once(well):
    receiver = FakeAlertmanager()
    bench = Bench(store=Slow(receiver, well=well), receiver=receiver)
    bench.pager.raise_alert(alert(), {})
    bench.sent()
    assert bench.store.waits == []

    bench.pager.clear_alert("live.responding", NOW, {})
    (body,) = bench.sent(1)

    assert bench.store.waits == [(1.0, 0)]
    assert not is_firing(body, bench.clock.now())
    bench.sent(60)
    assert len(bench.store.waits) == 1, "an end that is known to be told waits no more"


def test_an_alert_that_is_raised_again_fires_again():
    bench = Bench()
    bench.pager.raise_alert(alert(), {})
    bench.sent()
    bench.pager.clear_alert("live.responding", NOW, {})
    bench.sent()
    bench.pager.raise_alert(alert(since=NOW + 1), {})

    assert is_firing(bench.sent(2)[0], bench.clock.now())


def test_what_changes_while_a_round_is_under_way_stays_news():
    bench = Bench()
    bench.sent()
    bench.pager.raise_alert(alert(), {})
    (before,) = bench.pager.entries()
    bench.pager.clear_alert("live.responding", NOW, {})
    bench.pager.told([before])

    assert bench.sender.health().waiting == 1
    assert not is_firing(bench.sent()[0], NOW)


def test_one_bad_alert_is_isolated_counted_and_not_tried_again():
    bench = Bench(receiver=FakeAlertmanager(bad="live.3"))
    for number in range(7):
        bench.pager.raise_alert(alert(f"live.{number}"), {})

    with capture_logs() as logs:
        bench.sent()

    assert sum(entry.told == "firing" for entry in bench.pager.entries()) == 6
    assert bench.sender.health().outcomes["refused"] == 1
    assert [line["alert"] for line in logs if line["event"] == "alert refused"] == ["live.3"]
    assert "live.3" not in str(bench.sent(60))


def test_a_refused_alert_does_not_make_the_sender_spin():
    bench = Bench(receiver=FakeAlertmanager(bad="live"))
    bench.pager.raise_alert(alert(), {})
    bench.sent()

    assert bench.sender.wait() == 60


def test_a_refused_alert_is_forgotten_when_it_is_over():
    bench = Bench(receiver=FakeAlertmanager(bad="live"))
    bench.pager.raise_alert(alert(), {})
    bench.sent()
    bench.pager.clear_alert("live.responding", NOW, {})
    bench.sent()

    assert bench.pager.entries() == ()


def test_a_refused_alert_is_tried_again_when_it_ends():
    bench = Bench(receiver=FakeAlertmanager(bad="live"))
    bench.pager.raise_alert(alert(), {})
    bench.sent()
    bench.receiver.bad = ""
    bench.pager.clear_alert("live.responding", NOW, {})

    assert len(bench.sent(1)) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_answer_that_blames_the_alert_refuses_it(status):
    bench = Bench(receiver=FakeAlertmanager(answers={URL: Answer(status, "no")}))
    bench.pager.raise_alert(alert(), {})
    bench.sent()

    assert bench.sender.health().outcomes == {"accepted": 0, "failed": 0, "refused": 1}


@pytest.mark.parametrize("bad", ["live.0", "live.1"])
def test_what_was_accepted_is_counted_with_its_time(bad):
    bench = Bench(receiver=FakeAlertmanager(bad=bad))
    for number in range(2):
        bench.pager.raise_alert(alert(f"live.{number}"), {})
    bench.sent(5)

    assert bench.sender.health().outcomes == {"accepted": 1, "failed": 0, "refused": 1}
    assert bench.sender.health().peers[0].last_success == bench.clock.now()


def test_a_receiver_counts_its_failures_in_a_row_and_a_refusal_ends_them():
    answers = {f"{URL}/api/v2/alerts": DOWN}
    bench = Bench()
    bench.pager.raise_alert(alert(), {})
    made = Receiver(URL, bench.config.alerting)
    batch = [(entry, {}) for entry in bench.pager.entries()]
    assert (made.failures, made.error) == (0, "")

    def post(url, **_):
        if isinstance(answers[url], OSError):
            raise answers[url]
        return answers[url]

    made.send(post, batch, NOW)
    made.send(post, batch, NOW)
    assert made.failures == 2
    answers[made.url] = Answer(400, "bad")
    made.send(post, batch, NOW)
    assert made.failures == 0


def test_what_is_sent_is_json_on_a_connection_of_its_own():
    bench = Bench()
    bench.pager.raise_alert(alert(), {})
    bench.sent()

    assert bench.receiver.options[0]["headers"] == {
        "Content-Type": "application/json",
        "Connection": "close",
    }


def test_the_resend_is_up_to_a_fifth_early():
    bench = Bench(jitter=lambda low, high: low)
    bench.pager.raise_alert(alert(), {})
    bench.sent()

    assert bench.sender.wait() == 48


@pytest.mark.slow
def test_a_sender_that_has_nothing_to_tell_shows_that_it_lives():
    bench = Bench()
    bench.sender.start()
    try:
        bench.clock.advance(10)
        assert eventually(lambda: bench.sender.beat() == bench.clock.boot(), 60)
    finally:
        bench.sender.stop()


def test_a_started_sender_tells_at_once_what_is_raised():
    bench = Bench()
    bench.sender.start()
    try:
        bench.pager.raise_alert(alert("live.a"), {})
        assert eventually(lambda: "live.a" in str(bench.receiver.alerts), 60)
        bench.pager.raise_alert(alert("live.b"), {})
        assert eventually(lambda: "live.b" in str(bench.receiver.alerts), 60)
    finally:
        bench.sender.stop()


@pytest.mark.parametrize("status", [300, 301, 401, 404, 429, 500, 503])
def test_an_answer_that_does_not_blame_the_alert_keeps_it(status):
    bench = Bench(receiver=FakeAlertmanager(answers={URL: Answer(status, "no")}))
    bench.pager.raise_alert(alert(), {})
    bench.sent()

    assert bench.sender.health().waiting == 1
    assert bench.sender.health().error == f"{URL}: HTTP {status}: no"
    assert bench.sender.wait() == 1


def test_every_alertmanager_is_told_and_one_that_accepts_is_enough():
    bench = Bench(urls=(URL, OTHER), receiver=FakeAlertmanager(answers={URL: DOWN}))
    bench.pager.raise_alert(alert(), {})
    bench.sent()

    assert [url for url, _ in bench.receiver.posts] == [
        f"{URL}/api/v2/alerts",
        f"{OTHER}/api/v2/alerts",
    ]
    assert bench.sender.health().waiting == 0
    assert bench.sender.health().error == ""
    assert [peer.error == "" for peer in bench.sender.health().peers] == [False, True]


def test_the_one_that_answered_last_time_is_told_first():
    bench = Bench(urls=(URL, OTHER), receiver=FakeAlertmanager(answers={URL: DOWN}))
    bench.pager.raise_alert(alert("live.a"), {})
    bench.sent()
    bench.pager.raise_alert(alert("live.b"), {})
    bench.sent(1)

    assert bench.receiver.posts[0][0].startswith(OTHER)


def test_redirects_are_not_followed_and_every_call_has_a_timeout():
    bench = Bench(timeout=3)
    bench.pager.raise_alert(alert(), {})
    bench.sent()

    assert bench.receiver.options[0]["allow_redirects"] is False
    assert bench.receiver.options[0]["timeout"] == 3


def test_the_password_is_read_for_each_request(tmp_path: Path):
    secret = tmp_path / "password"
    secret.write_text("one\n")
    bench = Bench(username="dvfd", password_file=secret)
    bench.pager.raise_alert(alert(), {})
    bench.sent()
    secret.write_text("two\n")
    bench.sent(60)

    assert [o["auth"] for o in bench.receiver.options] == [("dvfd", "one"), ("dvfd", "two")]


def test_a_password_that_cannot_be_read_is_an_error_and_loses_nothing(tmp_path: Path):
    bench = Bench(username="dvfd", password_file=tmp_path / "absent")
    bench.pager.raise_alert(alert(), {})
    bench.sent()

    assert "absent" in bench.sender.health().error
    assert bench.sender.health().waiting == 1


def test_a_password_comes_from_systemd_by_the_name_of_its_credential(tmp_path: Path, monkeypatch):
    (tmp_path / "am").write_text("from systemd\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    bench = Bench(username="dvfd", password_credential="am")
    bench.pager.raise_alert(alert(), {})
    bench.sent()

    assert bench.receiver.options[0]["auth"] == ("dvfd", "from systemd")


def test_a_credential_that_was_not_passed_is_an_error_that_names_the_directive(monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    bench = Bench(username="dvfd", password_credential="am")
    bench.pager.raise_alert(alert(), {})
    bench.sent()

    assert "LoadCredential=am:" in bench.sender.health().error
    assert bench.sender.health().waiting == 1


def test_credentials_in_an_address_are_never_shown():
    bench = Bench(urls=("http://user:secret@am1:9093",))

    assert "secret" not in str(bench.sender.health())


def test_mode_rules_pushes_nothing_and_keeps_nothing_that_is_over():
    bench = Bench(mode="rules")
    bench.pager.raise_alert(alert(), {})
    assert bench.sent() == []
    assert [r.key for r in bench.pager.raised()] == ["live.responding"]

    bench.pager.clear_alert("live.responding", NOW, {})
    assert bench.store.rows == {}


def test_new_words_for_a_firing_alert_are_no_news_but_go_with_the_resend():
    bench = Bench()
    bench.pager.raise_alert(alert(), {})
    bench.sent()
    bench.pager.raise_alert(alert(reason="worse now"), {})

    assert bench.sent(1) == []
    assert bench.sent(59)[0]["annotations"]["description"] == "worse now"


def test_clearing_what_does_not_fire_does_nothing():
    bench = Bench()
    bench.pager.clear_alert("live.responding", NOW, {})

    assert bench.pager.entries() == ()


def test_a_day_old_resolution_that_nobody_took_is_dropped():
    bench = Bench(receiver=FakeAlertmanager(answers={URL: DOWN}))
    bench.pager.raise_alert(alert(), {})
    bench.pager.clear_alert("live.responding", NOW, {})
    bench.sent(86_400)
    assert bench.store.rows
    bench.sent(1)
    assert bench.store.rows == {}


def test_the_log_tells_raised_and_cleared_once_with_both_sides():
    pager = Pager(FakeOutbox(), push=False)
    pager.listen(log.tell)
    with capture_logs() as lines:
        pager.raise_alert(alert(), {})
        pager.raise_alert(alert(), {})
        pager.clear_alert("live.responding", NOW, {})

    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("alert raised", "warning"),
        ("alert cleared", "warning"),
    ]
    assert lines[0]["description"] == "rank 2 responds: 0, wanted 1"


def test_a_test_alert_reports_for_each_address():
    config = Config(alerting={"urls": (URL, OTHER)})
    receiver = FakeAlertmanager(answers={OTHER: DOWN})

    outcomes = send_test(config, NOW, connect=lambda: receiver)

    assert outcomes[0] == (URL, True, "HTTP 200")
    assert outcomes[1][:2] == (OTHER, False)
    assert "Connection refused" in outcomes[1][2]


def test_a_test_alert_says_which_trial_it_is_of_and_whether_that_is_over():
    receiver = FakeAlertmanager()
    config = Config(alerting={"urls": (URL,), "resend": 60})

    send_test(config, NOW, connect=lambda: receiver)
    send_test(config, NOW, "t1", over=True, connect=lambda: receiver)

    begun, over = receiver.alerts
    assert (begun["labels"].get("trial"), begun["endsAt"]) == (None, timestamp(NOW + 240))
    assert (over["labels"]["trial"], over["endsAt"]) == ("t1", timestamp(NOW))


def test_a_test_alert_that_is_redirected_was_not_accepted():
    receiver = FakeAlertmanager(answers={URL: Answer(300, "elsewhere")})

    outcomes = send_test(Config(alerting={"urls": (URL,)}), NOW, connect=lambda: receiver)

    assert outcomes == [(URL, False, "HTTP 300: elsewhere")]
