"""Exposition: lint rules of our own, one series a criterion, what is not known is left out."""

import math
import re
from dataclasses import replace

import pytest
from fakes import FakeClock
from fakes_sinks import (
    FULL,
    NOW,
    RAISED,
    check,
    criterion,
    result,
    run_line,
    run_state,
    sample,
    samples,
    snapshot,
    sources,
    state,
    whole,
)
from prometheus_client.parser import text_string_to_metric_families

from dvfd.model import ProbeHealth, Report, Verdict
from dvfd.sinks.prometheus import Exposition
from dvfd.state import Delivery, Loop, Peer

MEASURED = samples(sample(), sample("log_errors_total", 3, log="train"))


@pytest.fixture(scope="module")
def real():
    """Everything that the real catalogue can export, with four ranks."""
    return whole(FakeClock()).snapshot()


def text(taken) -> str:
    return Exposition(lambda: taken).text().decode()


def lines(taken, start):
    return [line for line in text(taken).splitlines() if line.startswith(start)]


def test_names_follow_the_conventions_that_promtool_does_not_know(real):
    wrong = re.compile(r"percent|watts|gbps|mbps|_ms\b|_us\b|_kb|_mb|_gb|_created|celcius")
    for family in text_string_to_metric_families(text(real)):
        assert family.name.startswith("dvfd_")
        assert family.documentation
        assert not wrong.search(family.name)
        assert family.type in {"gauge", "counter"}


def test_counters_and_only_counters_end_in_total(real):
    for line in lines(real, "# TYPE"):
        _, _, name, kind = line.split()
        assert name.endswith("_total") == (kind == "counter"), name


def test_there_are_no_timestamps_and_no_nan(real):
    for line in text(real).splitlines():
        assert line.startswith("#") or re.fullmatch(r"\S+(\{.*\})? [-+0-9.e]+", line), line


def test_no_platform_and_python_collectors_but_our_own_memory_and_cpu():
    names = {f.name for f in text_string_to_metric_families(text(snapshot()))}

    assert {"dvfd_process_resident_memory_bytes", "dvfd_process_cpu_seconds"} <= names


def test_four_ranks_cost_at_most_500_series(real):
    series = [line for line in text(real).splitlines() if not line.startswith("#")]

    assert len(series) == len(set(series))
    assert len(series) <= 500


def test_every_criterion_but_what_a_run_notes_for_its_gate_is_one_series(real):
    noted = {"stability_phase1.communication", "stability_phase2a.synchronisation"}
    told = re.findall(r'criterion="([^"]+)"', "".join(lines(real, "dvfd_criterion_verdict")))
    assert sorted(told) == sorted(real.catalogue.criteria.keys() - noted)


def test_a_measurement_is_one_series_with_the_name_in_the_catalogue():
    assert lines(snapshot(of=MEASURED), "dvfd_rank_responding") == [
        'dvfd_rank_responding{rank="0",training_job="gpt"} 1.0'
    ]
    assert lines(snapshot(of=MEASURED), "dvfd_log_errors_total") == [
        'dvfd_log_errors_total{log="train"} 3.0'
    ]


def test_help_says_that_the_samples_come_on_timers_of_our_own():
    (line,) = lines(snapshot(of=MEASURED), "# HELP dvfd_rank_responding")

    assert line.endswith("Sampled on dvfd's own timers, left out when older than 15 s")


def test_a_value_that_is_not_finite_is_left_out():
    of = samples(sample(value=math.nan), sample(value=math.inf, job="b", rank=0))

    assert lines(snapshot(of=of), "dvfd_rank_responding") == []


def test_two_samples_of_one_series_give_the_newer_and_never_a_duplicate():
    of = samples(sample(value=0, at=NOW - 5), sample(value=1, at=NOW))

    assert lines(snapshot(of=of), "dvfd_rank_responding") == [
        'dvfd_rank_responding{rank="0",training_job="gpt"} 1.0'
    ]


def test_a_criterion_is_one_series_with_its_verdict_as_a_label():
    assert lines(snapshot(result(Verdict.FAIL)), "dvfd_criterion_verdict") == [
        'dvfd_criterion_verdict{check="live",criterion="live.responding",verdict="FAIL"} 1.0'
    ]


def test_a_criterion_that_was_never_judged_is_exported_as_unknown():
    assert 'verdict="UNKNOWN"' in lines(state().snapshot(), "dvfd_criterion_verdict")[0]


def test_a_check_says_its_verdict_and_when_it_ran():
    daily = check("daily", criterion("daily.a"), schedule="0 6 * * *")
    held = state(daily)
    held.tell(Report(daily, (result(of=daily.criteria[0]),), NOW))

    shown = text(held.snapshot())

    assert 'dvfd_check_verdict{check="daily",verdict="PASS"} 1.0' in shown
    assert f'dvfd_check_last_run_timestamp_seconds{{check="daily"}} {NOW / 1e9:g}e+09' in shown
    assert 'dvfd_check_last_success_timestamp_seconds{check="daily"}' in shown


def test_a_probe_that_does_not_apply_is_neither_up_nor_down():
    of = sources(
        probes=lambda: {
            "gpu": ProbeHealth("gpu", not_applicable=True),
            "logs": ProbeHealth("logs", up=True, overdue=True, last_success=NOW, duration=0.2),
        }
    )

    assert lines(snapshot(of=of), "dvfd_probe_up") == ['dvfd_probe_up{probe="logs"} 0.0']


def test_loops_store_and_alerts_are_told():
    of = sources(loops=lambda: {"sampler": Loop(age=31, limit=20)}, delivery=FULL.delivery)
    shown = text(snapshot(of=of))

    for line in (
        'dvfd_loop_late{loop="sampler"} 1.0',
        "dvfd_store_ok 1.0",
        "dvfd_alerts_firing 0.0",
        "dvfd_alerts_outbox 1.0",
        'dvfd_alert_deliveries_total{outcome="accepted"} 2.0',
    ):
        assert line in shown


def test_the_profile_tells_what_measurements_are_held_against():
    profile = {"expected_throughput": 270, "single_process_throughput": 70}
    shown = text(snapshot(profile=profile, cost={"per_hour": 12.5, "currency": "EUR"}))

    for line in (
        "dvfd_profile_expected_throughput_samples_per_second 270.0",
        "dvfd_profile_single_process_throughput_samples_per_second 70.0",
        'dvfd_profile_cost_per_hour{currency="EUR"} 12.5',
    ):
        assert line in shown


def test_a_profile_that_says_nothing_has_no_series():
    assert "dvfd_profile_" not in text(snapshot())


def test_a_label_value_is_escaped():
    of = samples(sample(job='a"b\nc\\', rank=0))

    assert lines(snapshot(of=of), "dvfd_rank_responding") == [
        r'dvfd_rank_responding{rank="0",training_job="a\"b\nc\\"} 1.0'
    ]


def test_what_nothing_measures_yet_has_no_family():
    assert "dvfd_link_goodput" not in text(snapshot())


def test_no_label_is_one_that_a_scrape_gives_its_target(real):
    families = text_string_to_metric_families(text(real))
    assert not [
        f.name for f in families for s in f.samples if {"job", "instance"} & s.labels.keys()
    ]


@pytest.mark.parametrize(
    ("delivered", "error", "told"),
    [(True, "", "yes"), (False, "", "no"), (True, "no answer", "no")],
)
def test_an_alert_is_one_series_that_says_whether_an_alertmanager_has_it(delivered, error, told):
    raised = replace(RAISED, delivered=delivered)
    delivery = Delivery(peers=(Peer(url="http://am", error=error),))
    of = sources(raised=lambda: (raised,), delivery=lambda: delivery)

    who = 'alert="DvfdBlind",escalation="",severity="critical",subject="cpu"'
    (line,) = lines(snapshot(of=of), "dvfd_alert_raised")
    assert line == f'dvfd_alert_raised{{{who},told="{told}"}} 1.0'


def test_without_an_alert_there_is_no_such_series():
    assert lines(snapshot(), "dvfd_alert_raised") == []


def test_a_run_that_is_on_is_three_series_and_none_after_it():
    on = snapshot(of=sources(run=run_state))

    assert lines(on, "dvfd_run_") == [
        (
            'dvfd_run_info{check="stability_phase1",run="phase1_20261125T120000Z_c0fe",'
            'stage="running",verdict="UNKNOWN"} 1.0'
        ),
        'dvfd_run_elapsed_seconds{run="phase1_20261125T120000Z_c0fe"} 22320.0',
        'dvfd_run_duration_seconds{run="phase1_20261125T120000Z_c0fe"} 86400.0',
    ]
    assert not lines(snapshot(), "dvfd_run_")


def test_a_run_fails_on_metrics_once_a_critical_criterion_can_no_longer_be_met():
    lost = run_state(run_line(lost=True, so_far=Verdict.FAIL))
    warned = run_state(run_line(lost=True, so_far=Verdict.FAIL, severity="warning"))

    assert 'verdict="FAIL"' in lines(snapshot(of=sources(run=lambda: lost)), "dvfd_run_info")[0]
    assert 'verdict="UNKNOWN"' in lines(snapshot(of=sources(run=lambda: warned)), "dvfd_run_i")[0]
