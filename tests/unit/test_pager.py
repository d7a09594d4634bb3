"""Pager: what it reads back after a restart, what it forgets, and what page and status see."""

import pytest
from fakes_sinks import NOW, FakeOutbox, criterion, result

from dvfd.model import Severity, Verdict
from dvfd.sinks.alert import criterion_alert
from dvfd.sinks.pager import Pager, Told
from dvfd.state import Raised

KEY = "live.responding"


def alert(since=NOW - 5, escalation=""):
    rule = criterion(KEY, severity=Severity.CRITICAL)
    return criterion_alert(result(Verdict.FAIL, rule, reason="0, wanted 1"), since, escalation)


def pager(store=None):
    made = Pager(store or FakeOutbox(), push=True)
    made.load()
    return made


def raised_and_heard(store):
    """A pager whose one alert was accepted as firing."""
    made = pager(store)
    made.raise_alert(alert(), {})
    made.told(made.entries())
    return made


def test_what_was_accepted_before_a_restart_is_no_news_after_it():
    store = FakeOutbox()
    before = raised_and_heard(store)

    assert pager(store).entries() == before.entries()
    assert [entry.told for entry in before.entries()] == [Told.FIRING]


def test_what_ended_before_a_restart_has_ended_after_it():
    store = FakeOutbox()
    before = raised_and_heard(store)
    before.clear_alert(KEY, NOW, {})

    (entry,) = pager(store).entries()
    assert (entry.resolved_at, entry.told, entry.revision) == (NOW, Told.FIRING, 1)
    assert entry == before.entries()[0]


def test_the_outbox_alone_says_what_was_accepted_of_an_alert_that_ended():
    store = FakeOutbox()
    raised_and_heard(store).clear_alert(KEY, NOW, {})
    store.records.clear()

    assert [entry.wanted for entry in pager(store).entries()] == [Told.RESOLVED]


def test_what_was_heard_of_an_earlier_breach_is_not_taken_for_this_one():
    store = FakeOutbox()
    before = raised_and_heard(store)
    before.clear_alert(KEY, NOW, {})
    before.raise_alert(alert(since=NOW + 60), {})

    assert [entry.told for entry in pager(store).entries()] == [Told.NOTHING]


def test_an_alert_that_everybody_knows_of_leaves_nothing_behind():
    store = FakeOutbox()
    made = raised_and_heard(store)
    made.clear_alert(KEY, NOW, {})
    made.forget(made.entries()[0])

    assert (made.entries(), store.rows, store.records) == ((), {}, {})


def test_an_alert_that_fires_again_is_not_forgotten_with_the_one_before_it():
    made = raised_and_heard(FakeOutbox())
    made.clear_alert(KEY, NOW, {})
    (ended,) = made.entries()
    made.raise_alert(alert(since=NOW + 60), {})
    made.forget(ended)

    assert made.firing() == {KEY}


def test_forgetting_what_is_gone_does_nothing():
    made = raised_and_heard(FakeOutbox())
    made.clear_alert(KEY, NOW, {})
    (ended,) = made.entries()
    made.forget(ended)
    made.forget(ended)

    assert made.entries() == ()


def test_page_and_status_see_what_fires_in_words_oldest_first():
    made = raised_and_heard(FakeOutbox())
    other = criterion_alert(result(Verdict.FAIL, criterion("live.other")), NOW - 60, "team_lead")
    made.raise_alert(other, {})

    first, second = made.raised()
    assert (first.key, first.escalation, first.delivered) == ("live.other", "team_lead", False)
    assert second == Raised(
        key=KEY,
        name="DvfdCriterionFailed",
        severity="critical",
        since=NOW - 5,
        summary=f"{KEY}: text of {KEY}",
        description="0, wanted 1",
        delivered=True,
        escalation="",
    )


def test_what_was_accepted_is_kept_under_a_name_that_later_daemons_know():
    store = FakeOutbox()
    raised_and_heard(store)

    assert list(store.records) == [("told", KEY)]


def story(made, steps):
    """Raise and clear so often by turns; the entry after each."""
    entries = []
    for step in range(steps):
        if step % 2:
            made.clear_alert(KEY, NOW + step, {})
        else:
            made.raise_alert(alert(since=NOW + step), {})
        entries += made.entries()
    return entries


def test_every_beginning_and_end_is_a_revision_of_its_own():
    assert [entry.revision for entry in story(pager(), 4)] == [0, 1, 2, 3]


@pytest.mark.parametrize(("sent", "now"), [(0, 2), (0, 3), (1, 2), (1, 3)])
def test_what_was_accepted_of_one_breach_says_nothing_of_the_next(sent, now):
    made = pager()
    entries = story(made, now + 1)
    made.told([entries[sent]])

    assert made.entries() == (entries[now],)


def test_what_was_accepted_of_an_alert_that_is_gone_does_nothing():
    made = raised_and_heard(FakeOutbox())
    made.clear_alert(KEY, NOW, {})
    (ended,) = made.entries()
    made.forget(ended)
    made.told([ended])

    assert made.entries() == ()
