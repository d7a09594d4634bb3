"""Alerts: identity in labels, values in annotations, always valid for Alertmanager."""

from dataclasses import replace

import pytest
from fakes_sinks import NOW, criterion, result

from dvfd.config import Config
from dvfd.model import Severity, Verdict
from dvfd.sinks.alert import (
    blind_alert,
    criterion_alert,
    document,
    storm_alert,
    timestamp,
    trial_alert,
)

CONFIG = Config(node={"name": "node4", "phase": "phase1"})


def failing(**keys):
    return criterion_alert(result(Verdict.FAIL, **keys), NOW - 5)


def test_labels_are_identity_only():
    assert document(failing(), CONFIG, now=NOW)["labels"] == {
        "alertname": "DvfdCriterionFailed",
        "node": "node4",
        "phase": "phase1",
        "check": "live",
        "criterion": "live.responding",
        "severity": "critical",
        "source": "dvfd",
    }


def test_two_values_of_one_breach_have_one_identity():
    one = document(failing(observed=1.0, reason="saw 1"), CONFIG, now=NOW)
    two = document(failing(observed=2.0, reason="saw 2"), CONFIG, now=NOW)

    assert one["labels"] == two["labels"]
    assert one["annotations"] != two["annotations"]


def test_annotations_show_both_sides_as_strings():
    said = document(failing(labels=(("rank", "2"),), samples=3, sampled_at=NOW), CONFIG, now=NOW)[
        "annotations"
    ]

    assert said["description"] == "rank 2 responds: 0, wanted 1"
    assert (said["value"], said["limit"], said["unit"]) == ("0", "1", "bool")
    assert said["evidence"] == "rank=2; 3 samples, newest 2027-01-15T08:00:00.000Z"
    assert said["runbook_url"] == "docs/runbooks/DvfdCriterionFailed.md"
    assert all(isinstance(text, str) for text in said.values())


def test_it_starts_when_the_breach_began_and_ends_four_resends_ahead():
    body = document(failing(), CONFIG, now=NOW)

    assert body["startsAt"] == timestamp(NOW - 5)
    assert body["endsAt"] == timestamp(NOW + 4 * CONFIG.alerting.resend)


def test_a_resolved_alert_ends_when_it_ended():
    assert document(failing(), CONFIG, now=NOW, resolved_at=NOW - 1)["endsAt"] == timestamp(NOW - 1)


@pytest.mark.parametrize("step", [-3600, -6])
def test_a_clock_that_stepped_back_never_makes_an_end_before_the_start(step):
    alert = failing()

    body = document(alert, CONFIG, now=NOW + step, resolved_at=NOW + step)

    assert body["startsAt"] <= body["endsAt"]


def test_times_are_utc_with_a_z():
    assert timestamp(0.25) == "1970-01-01T00:00:00.250Z"


@pytest.mark.parametrize(
    ("given", "kept"),
    [("http://node4:9109/", True), ("node4:9109", False), ("http://a b/", False), ("", False)],
)
def test_a_generator_url_is_valid_or_left_out(given, kept):
    config = Config(alerting={"external_url": given})

    assert ("generatorURL" in document(failing(), config, now=NOW)) is kept


def test_label_names_are_made_valid_and_values_utf8():
    alert = replace(failing(), labels={"2-näme": "a\udcff"})

    assert document(alert, CONFIG, now=NOW)["labels"]["_2_n_me"] == "a?"


def test_an_absurdly_long_text_is_cut():
    assert (
        len(document(failing(reason="x" * 9000), CONFIG, now=NOW)["annotations"]["description"])
        == 2000
    )


def test_an_alert_without_a_phase_has_no_phase_label():
    assert "phase" not in document(failing(), Config(), now=NOW)["labels"]


def test_a_warning_says_so():
    alert = criterion_alert(result(of=criterion(severity=Severity.WARNING)), NOW)

    assert document(alert, CONFIG, now=NOW)["labels"]["severity"] == "warning"


def test_blindness_names_the_source():
    body = document(blind_alert("ranks", NOW, "no sample for 40 s"), CONFIG, now=NOW)

    assert body["labels"]["alertname"] == "DvfdBlind"
    assert body["labels"]["probe"] == "ranks"
    assert body["annotations"]["description"] == "no sample for 40 s"


def test_a_storm_is_one_alert_that_names_all():
    body = document(storm_alert(["live.a", "live.b"], NOW, 60), CONFIG, now=NOW)

    assert body["annotations"]["summary"] == "2 criteria broke within 60 s"
    assert body["annotations"]["description"] == "broken: live.a, live.b"


def test_a_trial_says_that_nothing_is_wrong():
    assert "nothing is wrong" in trial_alert(NOW).summary
