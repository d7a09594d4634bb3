"""What the catalogue that comes with dvfd holds: the source, whole, and nothing twice."""

from __future__ import annotations

import re
import time

import pytest

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.errors import ConfigError
from dvfd.model import ATTESTATION, DRILL, NONE_YET, REVIEW, RUN, Combine, Severity

PROBES = {
    "ranks",
    "checkpoints",
    "cpu",
    "memory",
    "temperature",
    "power",
    "gpu",
    "network",
    "logs",
    "node",
    "filesystems",
}

SOURCE = {  # items or acceptance lines, "passes if" lines, "pass criteria" lines
    "hardware": (4, 0, 1),
    "openmpi_gloo": (4, 0, 1),
    "pytorch": (4, 0, 1),
    "network": (4, 0, 1),
    "gloo_multi_node": (4, 0, 1),
    "topology_3node": (4, 0, 1),
    "topology_4node": (4, 0, 1),
    "stability_phase1": (10, 4, 1),
    "stability_phase2a": (12, 4, 1),
    "stability_phase2b": (7, 2, 1),
    "stability_phase2c": (10, 3, 1),
    "gradient_sync": (4, 3, 1),
    "loss_convergence": (5, 3, 1),
    "scaling_efficiency": (4, 2, 1),
    "scaling_projection": (4, 2, 1),
    "reliability": (5, 0, 1),
    "daily": (9, 0, 0),
    "weekly": (8, 0, 0),
    "monthly": (8, 0, 0),
}


@pytest.fixture(scope="module")
def catalogue():
    return load(Config())


def lines(check):
    """Every line of the source that the check answers, as (kind, number), its own clause only."""
    said = [i for c in check.criteria if c.clause == check.clause for i in (c.item, *c.also)]
    found = {i.rpartition(" ") for i in (*said, *check.whole) if i != "beyond the source"}
    return {("line" if kind in ("item", "acceptance") else kind, int(n)) for kind, _, n in found}


@pytest.mark.parametrize(("check", "counts"), SOURCE.items())
def test_a_check_answers_every_line_of_its_clause_and_no_other(catalogue, check, counts):
    kinds = ("line", "passes if", "pass criteria")
    wanted = {
        (kind, n + 1) for kind, count in zip(kinds, counts, strict=True) for n in range(count)
    }
    assert lines(catalogue.checks[check]) == wanted


def total(catalogue, *checks):
    return sum(len([k for k in lines(catalogue.checks[c]) if k[0] == "line"]) for c in checks)


def test_there_are_28_items_before_deployment(catalogue):
    ids = "hardware openmpi_gloo pytorch network gloo_multi_node topology_3node topology_4node"
    assert total(catalogue, *ids.split()) == 28


def test_there_are_39_stability_criteria(catalogue):
    ids = ["stability_phase1", "stability_phase2a", "stability_phase2b", "stability_phase2c"]
    assert [total(catalogue, id_) for id_ in ids] == [10, 12, 7, 10]


def test_there_are_9_correctness_8_scaling_and_5_reliability_lines(catalogue):
    assert total(catalogue, "gradient_sync", "loss_convergence") == 9
    assert total(catalogue, "scaling_efficiency", "scaling_projection") == 8
    assert total(catalogue, "reliability") == 5


def test_there_are_25_checklist_items(catalogue):
    assert [total(catalogue, c) for c in ("daily", "weekly", "monthly")] == [9, 8, 8]


def test_the_gates_have_30_go_and_12_no_go_lines(catalogue):
    assert [len(g.requires) for g in catalogue.gates.values()] == [9, 7, 5, 9]
    assert [len(g.vetoes) for g in catalogue.gates.values()] == [6, 6, 0, 0]


def test_the_no_go_lines_are_numbered_as_in_the_source(catalogue):
    for gate in catalogue.gates.values():
        assert [v.item for v in gate.vetoes] == [f"No-Go {n + 1}" for n in range(len(gate.vetoes))]


def test_every_gate_names_who_decides_and_when(catalogue):
    assert {g.id: (g.authority, g.due) for g in catalogue.gates.values()} == {
        "phase1": (("VP Engineering",), "Friday, week 2"),
        "phase2a": (("VP Engineering", "Infrastructure Lead"), "Friday, week 4"),
        "phase2b": (("VP Engineering", "CTO"), "Friday, week 6"),
        "phase2c": (("Chief Technology Officer",), "Friday, week 8"),
    }


def test_every_gate_needs_gradient_sync_and_loss_convergence(catalogue):
    for gate in catalogue.gates.values():
        assert {"gradient_sync", "loss_convergence"} <= set(gate.tests)


def test_vetoes_are_no_criteria_of_a_check(catalogue):
    vetoes = {v.id for g in catalogue.gates.values() for v in g.vetoes}
    assert not vetoes & catalogue.criteria.keys()


def test_every_reading_that_touches_a_criterion_is_in_a_note(catalogue):
    gates = catalogue.gates.values()
    noted = [*catalogue.criteria.values(), *gates]
    noted += [x for g in gates for x in (*g.vetoes, *g.requires)]
    named = {int(n) for x in noted for n in re.findall(r"Reading (\d+):", x.note)}
    # 30 and 35 are about what follows a failure, 34 about the source's own validity.
    assert named == set(range(1, 53)) - {30, 34, 35}


def test_every_metric_is_measured_by_a_probe_or_a_drill_or_says_that_nothing_does(catalogue):
    others = {DRILL, REVIEW, RUN, ATTESTATION, NONE_YET}
    assert {m.source for m in catalogue.metrics.values()} <= PROBES | others


def test_every_metric_that_nothing_measures_is_in_some_criterion(catalogue):
    every = [*catalogue.criteria.values(), *(v for g in catalogue.gates.values() for v in g.vetoes)]
    used = {c.metric for c in every} | {c.limit.metric for c in every}
    waiting = {m.name for m in catalogue.metrics.values() if m.source == NONE_YET}
    assert waiting <= used


def test_criteria_know_the_source_of_their_metric(catalogue):
    for criterion in catalogue.criteria.values():
        metric, check = catalogue.metrics[criterion.metric], catalogue.checks[criterion.check]
        source = DRILL if metric.drilled and check.drill else metric.source
        owned = {DRILL: check.drill, RUN: check.every > 0}.get(source, True)
        assert criterion.source == (source if owned else NONE_YET)


def test_the_live_watch_takes_its_limits_from_the_daily_list(catalogue):
    daily = {c.id.partition(".")[2]: c for c in catalogue.checks["daily"].criteria}
    shared = [c for c in catalogue.checks["live"].criteria if c.id.partition(".")[2] in daily]
    assert len(shared) == len(daily)
    for live in shared:
        like = daily[live.id.partition(".")[2]]
        assert (
            live.metric,
            live.comparison,
            live.limit,
            live.item,
            live.clause,
            live.requires,
        ) == ((like.metric, like.comparison, like.limit, like.item, like.clause, like.requires))


def test_the_live_watch_looks_back_ten_minutes_at_most(catalogue):
    assert max(c.window for c in catalogue.checks["live"].criteria) <= 600


def test_death_nan_and_corruption_alert_at_once(catalogue):
    for name in ("responding", "progress", "loss_finite", "corruption", "checkpoint_intact"):
        criterion = catalogue.criteria[f"live.{name}"]
        assert (criterion.hold, criterion.streak) == (0, 1)
        assert criterion.severity is Severity.CRITICAL


def test_windows_of_checklists_and_runs_must_be_observed(catalogue):
    averages = ("mean", "median", "stdev", "fraction_within")
    for check in catalogue.checks.values():
        if check.schedule or check.id.startswith("stability"):
            blind = [c.id for c in check.criteria if c.reduce in averages and c.coverage < 0.95]
            assert blind == []


def test_the_five_hardest_read_as_meant(catalogue):
    c = catalogue.criteria
    assert c["gradient_sync.agreement"].limit.value == 0.9999
    assert (c["loss_convergence.curve"].reduce, c["loss_convergence.curve"].limit.value) == (
        "p95",
        0.01,
    )
    assert c["scaling_efficiency.efficiency"].where == (("processes", "8"),)
    assert (
        c["stability_phase2a.throughput_band"].band,
        c["stability_phase2a.balance"].combine,
    ) == (
        10,
        Combine.SPREAD,
    )
    chain = [c[f"stability_phase1.checkpoints_{n}"] for n in ("attempted", "saved", "verified")]
    assert [x.limit.metric.rpartition("_")[2] for x in chain] == ["expected", "attempted", "saved"]


def test_with_readings_off_the_three_numbers_for_one_link_are_caught():
    with pytest.raises(ConfigError) as caught:
        load(Config(readings=False))
    said = "\n".join(caught.value.problems)
    assert "no_go_network.limit: vetoes at < 3.75e+10" in said
    assert "network.speed passes at > 1.25e+10" in said
    assert "speed_verified.limit: empty range: > 5e+10" in said


def test_the_hash_is_of_what_is_said_and_stays(catalogue):
    assert load(Config()).hash == catalogue.hash
    assert len(catalogue.hash) == 64


def test_loading_takes_a_moment_only():
    best = min(_timed_load() for _ in range(3))
    assert best < 0.5  # of processor time; 35 ms where it was measured


def _timed_load():
    begin = time.process_time()
    load(Config())
    return time.process_time() - begin
