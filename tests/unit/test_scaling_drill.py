"""Scaling as checks judge it: accepted runs against one process, and where a fit leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes_drills import judged, task, verdicts
from fakes_scaling import AT, Child, frozen, known, point, source, vague
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.drills.drill import Options
from dvfd.drills.findings import Findings, strange
from dvfd.drills.scaling import Efficiency, ToCome
from dvfd.drills.supervise import supervise
from dvfd.model import Result, Verdict
from dvfd.scaling import fits
from dvfd.scaling.floors import Known as Made
from dvfd.scaling.floors import binding, floors, told
from dvfd.scaling.points import DAY, How, Point
from dvfd.scaling.reading import Known

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN
ELSEWHERE = Verdict.NOT_APPLICABLE
CATALOGUE = load(Config())
CHECKS = CATALOGUE.checks


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "REFITS", 40)
    monkeypatch.setattr(fits, "DRAWS", 300)


def run(
    directory: Path, ledger: Known, part: Any = Efficiency, processes: int = 0
) -> tuple[Findings, Any]:
    name = {Efficiency: "scaling_efficiency", ToCome: "scaling_projection"}[part]
    chosen = task(name, directory, run=Child(), options=Options(processes=processes))
    return supervise(chosen, [part(lambda: ledger)]), chosen


def results(
    directory: Path,
    ledger: Known,
    part: Any = Efficiency,
    *,
    processes: int = 0,
    whole: bool = False,
) -> dict[str, Result]:
    """Of what applies to the process count that the run is about; *whole* of all."""
    findings, chosen = run(directory, ledger, part, processes)
    found = judged(chosen, findings)
    return {n: r for n, r in found.items() if whole or r.verdict is not ELSEWHERE}


def facts(directory: Path, ledger: Known, part: Any = Efficiency) -> dict[str, str]:
    return {fact.name: fact.text for fact in run(directory, ledger, part)[0].facts}


FORETOLD = frozen(source((1, 4)), [8])
"""A power law through the source's 1 and 4: 561.8 at 8."""


def healthy(**more: Any) -> list[Point]:
    """Phase 1 with its own baseline of that day, and phase 2a with its own."""
    early = {"began": AT - 20 * DAY, "ended": AT - 19 * DAY}
    return [
        point(1, 62.5, **early),
        point(4, 270.19, **early),
        point(1, 62.5),
        replace(point(8, 600.0), **more),
    ]


# --- Efficiency -----------------------------------------------------------------------------------


def test_the_sources_series_passes_every_criterion_of_efficiency(tmp_path: Path) -> None:
    found = results(tmp_path, known(healthy(), FORETOLD))
    assert set(verdicts(found).values()) == {PASS}, {k: r.reason for k, r in found.items()}
    assert found["efficiency"].observed == pytest.approx(1.2)
    assert "super-linear: verify the baseline" in found["efficiency"].note
    assert found["projection_floor"].observed == pytest.approx(600 / 561.78 - 1, abs=1e-4)


def test_the_report_says_which_floor_binds(tmp_path: Path) -> None:
    said = facts(tmp_path, known(healthy(), FORETOLD))["8 processes"]
    assert "600 (599.4 to 600.6) samples/s, run r8, accepted by Ann Lee" in said
    assert "120.00% of linear, 111.03% of 4 processes" in said
    assert "529.57 binds (scaling_efficiency.relative)" in said


def test_less_than_105_percent_fails_efficiency_alone(tmp_path: Path) -> None:
    slow = point(8, 520.0)
    found = verdicts(results(tmp_path, known([*healthy()[:3], slow], FORETOLD)))
    assert found["efficiency"] is found["relative"] is FAIL
    assert found["superlinear"] is found["projection_floor"] is PASS


def test_twelve_percent_above_what_was_foretold_is_wrong_too(tmp_path: Path) -> None:
    found = verdicts(results(tmp_path, known([*healthy()[:3], point(8, 630.0)], FORETOLD)))
    assert (found["projection_ceiling"], found["projection_floor"]) == (FAIL, PASS)


def test_without_a_baseline_of_its_day_nothing_is_known_of_efficiency(tmp_path: Path) -> None:
    old = [p for p in healthy() if p.processes > 1 or p.ended < AT - 10 * DAY]
    found = results(tmp_path, known(old, FORETOLD))
    assert verdicts(found)["efficiency"] is UNKNOWN
    assert "one process was not measured within a day of 8 processes" in found["efficiency"].reason
    assert verdicts(found)["projection_floor"] is PASS


def test_a_projection_frozen_after_the_run_began_foretells_nothing(tmp_path: Path) -> None:
    late = frozen(source((1, 4)), [8], at=AT - 2 * DAY)
    found = results(tmp_path, known(healthy(), late))
    assert {found[n].verdict for n in ("projection_floor", "projection_ceiling")} == {UNKNOWN}
    assert "after it began: that foretells nothing" in found["projection_floor"].reason


def test_of_two_that_were_frozen_before_the_newest_counts(tmp_path: Path) -> None:
    first = frozen(source((1, 4)), [8], at=AT - 9 * DAY)
    other = frozen([point(1, 62.5), point(4, 330.0)], [8], number=2)
    found = results(tmp_path, known(healthy(), first, other))
    assert found["projection_floor"].verdict is FAIL
    assert "projection 2, frozen by Ann Lee" in found["projection_floor"].note


def test_a_projection_that_was_shown_the_count_foretells_nothing(tmp_path: Path) -> None:
    shown = frozen(source((1, 4, 8)), [8])
    assert verdicts(results(tmp_path, known(healthy(), shown)))["projection_floor"] is UNKNOWN


@pytest.mark.parametrize("how", [How.MEASURED, How.RECORDED])
def test_what_is_no_accepted_run_can_fail_and_cannot_pass(tmp_path: Path, how: How) -> None:
    good = results(tmp_path, known(healthy(how=how), FORETOLD))
    assert {r.verdict for r in good.values()} == {UNKNOWN}
    bad = results(tmp_path, known(healthy(how=how, throughput=400.0, low=399, high=401), FORETOLD))
    assert verdicts(bad)["efficiency"] is verdicts(bad)["projection_floor"] is FAIL


def test_a_baseline_that_a_person_typed_passes_nothing(tmp_path: Path) -> None:
    typed = [replace(p, how=How.RECORDED) if p.processes == 1 else p for p in healthy()]
    found = results(tmp_path, known(typed, FORETOLD))
    assert found["efficiency"].verdict is UNKNOWN
    assert "entered by a person, not measured by dvfd: 1 processes" in found["efficiency"].reason


def test_an_interval_that_straddles_is_not_known(tmp_path: Path) -> None:
    unsure = point(8, 530.0, low=500.0, high=560.0)
    found = results(tmp_path, known([*healthy()[:3], unsure], FORETOLD))
    assert found["efficiency"].verdict is UNKNOWN
    assert "straddles the limit" in found["efficiency"].reason


def test_communication_may_grow_by_two_points(tmp_path: Path) -> None:
    more = verdicts(results(tmp_path, known(healthy(communication=0.12), FORETOLD)))
    assert (more["communication"], more["communication_growth"]) == (PASS, FAIL)


def test_silence_about_communication_is_unknown(tmp_path: Path) -> None:
    found = verdicts(results(tmp_path, known(healthy(communication=None), FORETOLD)))
    assert found["communication"] is found["communication_growth"] is UNKNOWN


def test_an_empty_ledger_says_what_to_type(tmp_path: Path) -> None:
    found = results(tmp_path, Known())
    assert {r.verdict for r in found.values()} == {UNKNOWN}
    assert "dvfd stability accept RUN" in found["efficiency"].reason


def test_a_run_that_does_not_count_passes_nothing_though_it_was_accepted(tmp_path: Path) -> None:
    found = results(tmp_path, known(healthy(uncounted="shortened: 60 s of 48 h"), FORETOLD))
    assert {r.verdict for r in found.values()} == {UNKNOWN}
    assert "does not count, shortened: 60 s of 48 h: 8 processes" in found["efficiency"].reason


def test_a_run_accepted_in_spite_of_something_says_so(tmp_path: Path) -> None:
    said = facts(tmp_path, known(healthy(spite="shortened: try-out"), FORETOLD))
    assert "in spite of: shortened: try-out" in said["8 processes"]


# --- Twelve and sixteen processes: the same test in later phases ----------------------------------

GROWN = [*source(), point(16, 1160.0, communication=0.11)]
"""The source's series, and a phase 2c of 116 %."""

LATER = {12: frozen(source((1, 4)), [12]), 16: frozen(source(), [16])}
"""The power law through 1 and 4 foretells 862 at 12, the USL through all four 1088 at 16."""


@pytest.mark.parametrize(("processes", "limit"), [(12, 1.08), (16, 1.10)])
def test_the_later_phases_pass_what_is_asked_of_them(
    tmp_path: Path, processes: int, limit: float
) -> None:
    ledger = known([p for p in GROWN if p.processes <= processes], LATER[processes])
    found = results(tmp_path, ledger, processes=processes)
    assert set(verdicts(found).values()) == {PASS}, {k: r.reason for k, r in found.items()}
    assert found["efficiency"].limit == limit
    assert dict(found["efficiency"].labels) == {"processes": str(processes)}


@pytest.mark.parametrize(
    ("processes", "slow", "fails"),
    [
        (12, 801.0, {"efficiency", "relative"}),
        (12, 870.0, {"relative"}),  # 116 % of linear: less than 98 % of what eight had
        (12, 770.0, {"efficiency", "relative", "projection_floor"}),
        (16, 1095.0, {"efficiency"}),
    ],
)
def test_each_phase_is_held_against_its_own_floors(
    tmp_path: Path, processes: int, slow: float, fails: set[str]
) -> None:
    below = [p for p in source() if p.processes < processes]
    ledger = known([*below, point(processes, slow, communication=0.1)], LATER[processes])
    found = verdicts(results(tmp_path, ledger, processes=processes))
    assert {name for name, verdict in found.items() if verdict is FAIL} == fails


def test_of_sixteen_nothing_is_asked_relative_to_twelve(tmp_path: Path) -> None:
    found = results(tmp_path, known(GROWN, LATER[16]), whole=True, processes=16)
    assert found["relative"].verdict is ELSEWHERE
    assert found["relative"].reason == ("this run is about 16 processes, the criterion about 8, 12")
    assert ELSEWHERE not in {r.verdict for n, r in found.items() if n != "relative"}


def test_overhead_may_grow_by_two_points_from_phase_to_phase(tmp_path: Path) -> None:
    points = [*source((1, 4, 8)), point(12, 900.0, communication=0.115)]
    found = verdicts(results(tmp_path, known(points, LATER[12]), processes=12))
    assert (found["communication"], found["communication_growth"]) == (PASS, FAIL)


def test_what_eight_processes_passed_twelve_have_not(tmp_path: Path) -> None:
    found = results(tmp_path, known(healthy(), FORETOLD), processes=12)
    assert {r.verdict for r in found.values()} == {UNKNOWN}
    assert "no throughput of 12 processes is in the ledger" in found["efficiency"].reason


def test_the_record_of_a_run_says_for_how_many_processes_it_was(tmp_path: Path) -> None:
    findings, _ = run(tmp_path, known(healthy(), FORETOLD), processes=12)
    assert Findings.from_dict(findings.to_dict()).run.processes == 12
    assert run(tmp_path, known(healthy(), FORETOLD))[0].processes == 8
    assert run(tmp_path, Known())[0].processes == 8


def test_what_else_the_ledger_has_is_told_with_the_line_to_type(tmp_path: Path) -> None:
    said = facts(tmp_path, known(source(), FORETOLD))
    assert said["not judged here"] == "12 processes: dvfd check scaling_efficiency --processes 12"


def test_findings_about_a_count_that_nothing_judges_are_refused(tmp_path: Path) -> None:
    findings, chosen = run(tmp_path, known(healthy(), FORETOLD))
    odd = replace(findings, processes=10)
    said = strange(odd, chosen.check, CATALOGUE, at=chosen.clock.now())
    assert said == ["it is about 10 processes, scaling_efficiency judges 8, 12, 16"]


# --- Nothing passes on what cannot be -------------------------------------------------------------

BAD: Sequence[dict[str, Any]] = (
    {"configuration": "other"},
    {"processor": "another"},
    {"how": How.RECORDED},
    {"ended": AT - 200 * DAY, "began": AT - 203 * DAY},
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    places=st.sets(st.integers(0, 3), min_size=1, max_size=3),
    bad=st.sampled_from([*BAD, None]),
    twice=st.booleans(),
)
def test_no_missing_foreign_or_repeated_point_makes_efficiency_pass(
    tmp_path: Path, places: set[int], bad: Any, twice: bool
) -> None:
    """At least one of the four points that `relative` rests on is spoilt or missing."""
    points = [replace(p, processor="Example 9000") for p in healthy()]
    if bad and "ended" in bad:
        places = {min(places)}  # a run and its baseline may lie long ago together
    spoilt = [replace(points[n], **bad) for n in places] if bad else []
    whole = [p for n, p in enumerate(points) if n not in places]
    ledger = [*whole, *spoilt, *(spoilt if twice else [])]
    assert verdicts(results(tmp_path, known(ledger, FORETOLD)))["relative"] is not PASS


# --- Floors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("processes", "made", "wanted", "binds"),
    [
        (8, Made(62.5, 270.19 / 250, 600.0), [500, 525, 529.5724, 540], "projection_floor"),
        (12, Made(62.5, 600 / 500), [750, 810, 882], "no_degradation"),
        (16, Made(62.5, 900 / 750), [1000, 1100], "efficiency"),
        (4, Made(62.5), [250], "throughput"),
        (8, Made(), [500], "throughput"),
    ],
)
def test_every_number_of_the_source_is_a_floor_and_the_highest_binds(
    processes: int, made: Made, wanted: list[float], binds: str
) -> None:
    found = floors(CHECKS, processes, made)
    assert [floor.value for floor in found] == pytest.approx(wanted)
    assert binding(found).criterion.endswith(f".{binds}")  # type: ignore[union-attr]
    assert f"{wanted[-1]:.5g} binds" in told(found)


def test_where_no_check_is_about_a_count_no_floor_is_known() -> None:
    assert told(floors(CHECKS, 7, Made(62.5))) == "no floor is known"


# --- Where it leads -------------------------------------------------------------------------------


def ideal(counts: Sequence[int] = (1, 4, 8, 12), share: float = 1.2) -> list[Point]:
    """Super-linear in a way that a USL can be: every fit foretells about the same."""
    made = {n: 62.5 * n**1.08 if share > 1 else 62.5 * n * share for n in counts}
    return [point(n, x, low=x * 0.9999, high=x * 1.0001) for n, x in made.items()]


def test_the_sources_own_four_points_do_not_support_what_they_foretell(tmp_path: Path) -> None:
    found = results(tmp_path, known(source()), ToCome)
    said = verdicts(found)
    assert (said["left_out"], found["left_out"].observed) == (FAIL, pytest.approx(0.1108, abs=1e-4))
    assert said["efficiency"] is UNKNOWN  # 108 to 124 %: 110 lies between
    assert "straddles the limit" in found["efficiency"].reason
    assert said["throughput"] is said["reach"] is said["superlinear"] is PASS
    assert said["finite"] is said["monotone"] is said["extrapolation"] is PASS
    assert "super-linear: verify the baseline; USL 1088" in found["throughput"].note


def test_its_report_tells_all_models_the_floors_and_32(tmp_path: Path) -> None:
    said = facts(tmp_path, known(source()), ToCome)
    assert said["power law"].startswith("1236.2 samples/s; lambda 62.07, exponent 1.079")
    assert "which nothing physical has" in said["Amdahl"]
    assert "1100 binds (scaling_projection.efficiency)" in said["fit"]
    assert said["32 processes"].startswith("extrapolation, 2.67 times the largest count: 939.98")
    assert said["32 processes"].endswith("beyond the fit's own peak")


def test_points_that_agree_pass_all_of_it(tmp_path: Path) -> None:
    """A power law of 1.08 is no USL, and still less than 10 % off where one is left out."""
    counts = (1, 2, 4, 8, 12, 14)
    told = [replace(p, communication=0.10) for p in ideal(counts)]
    found = results(tmp_path, known(told), ToCome)
    assert set(verdicts(found).values()) == {PASS}, {k: r.reason for k, r in found.items()}


def test_linear_at_best_fails_what_wants_more(tmp_path: Path) -> None:
    made = [point(n, 62.5 * n / (1 + 0.03 * (n - 1))) for n in (1, 4, 8, 12)]
    found = verdicts(results(tmp_path, known(made), ToCome))
    assert found["superlinear"] is found["efficiency"] is found["throughput"] is FAIL
    assert found["left_out"] is found["finite"] is found["monotone"] is PASS


def test_three_counts_cannot_say_how_wrong_they_are(tmp_path: Path) -> None:
    found = results(tmp_path, known(source((1, 4, 8))), ToCome)
    assert found["left_out"].verdict is UNKNOWN
    assert "3 process counts, of which none can be left out" in found["left_out"].reason


def test_two_counts_pass_nothing(tmp_path: Path) -> None:
    found = verdicts(results(tmp_path, known(source((1, 4))), ToCome))
    assert PASS not in found.values()


def test_one_count_is_no_projection(tmp_path: Path) -> None:
    found = results(tmp_path, known(source((1,))), ToCome)
    assert {r.verdict for r in found.values()} == {UNKNOWN}
    assert "two at least" in found["throughput"].reason


def test_sixteen_themselves_are_not_shown_to_the_fit_of_sixteen(tmp_path: Path) -> None:
    with_it = results(tmp_path, known([*source(), point(16, 2000.0)]), ToCome)
    assert with_it["throughput"].observed == pytest.approx(1088.03, abs=0.01)


def test_more_than_twice_the_largest_count_is_too_far(tmp_path: Path) -> None:
    found = verdicts(results(tmp_path, known(ideal((1, 2, 4, 6))), ToCome))
    assert found["extrapolation"] is FAIL


def test_measurements_too_unsure_to_determine_a_fit_pass_nothing_on_it(tmp_path: Path) -> None:
    found = results(tmp_path, known(vague()), ToCome)
    rests = ("throughput", "efficiency", "superlinear", "reach")
    assert {found[name].verdict for name in rests} == {UNKNOWN}
    assert "too unsure to determine it" in found["throughput"].reason


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sets(st.integers(0, 3), min_size=1, max_size=4), st.sampled_from(BAD[:3]))
def test_no_typed_or_foreign_point_makes_a_projection_pass(
    tmp_path: Path, places: set[int], bad: dict[str, Any]
) -> None:
    points = [replace(p, processor="Example 9000") for p in source()]
    spoilt = [replace(p, **bad) if n in places else p for n, p in enumerate(points)]
    found = verdicts(results(tmp_path, known(spoilt), ToCome))
    assert set(found.values()) != {PASS}
    if bad.get("how") is How.RECORDED:
        assert PASS not in found.values()


def test_the_same_ledger_gives_the_same_figures_to_the_byte(tmp_path: Path) -> None:
    one, other = (run(tmp_path, known(source()), ToCome)[0] for _ in range(2))
    assert one.to_dict() == other.to_dict()
