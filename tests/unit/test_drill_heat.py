"""Heat and power: what is over, rising or throttled fails; what could not be seen is unknown."""

from __future__ import annotations

import pytest
from fakes_drills import FakeRunner, judged, task
from fakes_heat import FakeLoad, FakeNode, sleeping

from dvfd.drills import gauges
from dvfd.drills.drill import Options
from dvfd.drills.heat import Idle, Stress
from dvfd.drills.supervise import supervise
from dvfd.model import Verdict

PASS, FAIL, UNKNOWN, NONE = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN, Verdict.NOT_APPLICABLE
FOUR = '[profile]\nprocesses_per_node = 1\nrank_cores = ["0-3"]\n'
STRESSED = ("power_stress", "temperature", "temperature_level", "throttles")


def drill(part, node, tmp_path, *, run=None, toml=FOUR, **world):
    """Each criterion's result after one part has run on the node."""
    world |= {"clock": node.clock, "sys": node.sys, "proc": node.proc, "run": run or FakeRunner()}
    work = task("hardware", tmp_path, toml=toml, **world)
    return judged(work, supervise(work, [part]))


def idle(node, tmp_path, during=lambda _node, _seconds: None, **world):
    return drill(Idle(sleep=sleeping(node, during)), node, tmp_path, **world)["power_idle"]


def stress(node, tmp_path, during=lambda _node, _seconds: None, **world):
    run = world.pop("run", None) or FakeLoad(node, during)
    results = drill(Stress(), node, tmp_path, run=run, **world)
    return {name: results[name] for name in STRESSED}


def verdicts(results):
    return tuple(results[name].verdict for name in STRESSED)


# --- Idle ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("watts", "verdict"), [(30, PASS), (50, FAIL), (62, FAIL)])
def test_idle_power_is_judged_minute_by_minute(tmp_path, watts, verdict):
    node = FakeNode(tmp_path)
    node.watts["1"] = watts

    result = idle(node, tmp_path)

    assert result.verdict is verdict
    assert result.observed == pytest.approx(watts, rel=0.01)
    assert result.note == "3 of 3 minutes were idle"


def test_a_minute_that_was_not_idle_is_left_out(tmp_path):
    def working(node, seconds):
        busy = 60 <= seconds < 120
        node.busy, node.watts["0"] = (0.5, 200.0) if busy else (0.01, 30.0)

    result = idle(FakeNode(tmp_path), tmp_path, working)

    assert result.verdict is PASS
    assert result.note == "3 of 4 minutes were idle"


def test_a_node_that_never_rests_is_unknown_and_says_how_busy_it_is(tmp_path):
    node = FakeNode(tmp_path)
    node.busy = 0.37

    result = idle(node, tmp_path)

    assert result.verdict is UNKNOWN
    assert "not idle: 37% busy in the quietest of 10 minutes, wanted under 5%" in result.reason


def test_time_that_the_host_took_is_not_idle(tmp_path):
    node = FakeNode(tmp_path)
    node.stolen = 0.2

    assert "not idle: 21% busy" in idle(node, tmp_path).reason


def test_a_counter_that_wraps_loses_nothing(tmp_path):
    node = FakeNode(tmp_path, "rapl_amd", "hwmon_k10temp")  # its first wrap is 0.6 J away
    node.watts["0"] = 45.0

    assert idle(node, tmp_path).observed == pytest.approx(45, rel=0.01)


def test_a_meter_that_cannot_be_read_is_named_and_the_other_package_does_not_pass(tmp_path):
    node = FakeNode(tmp_path)
    (node.sys / "class/powercap/intel-rapl:1/energy_uj").unlink()

    result = idle(node, tmp_path)

    assert result.verdict is UNKNOWN
    assert "intel-rapl:1/energy_uj: no such file" in result.reason


def test_a_meter_that_disappears_makes_its_package_unknown(tmp_path):
    def unplug(node, seconds):
        if seconds > 100:
            (node.sys / "class/powercap/intel-rapl:1/energy_uj").unlink(missing_ok=True)

    result = idle(FakeNode(tmp_path), tmp_path, unplug)

    assert result.verdict is UNKNOWN
    assert "package 1: a minute is missing" in result.reason


def test_a_package_without_a_meter_is_missed(tmp_path):
    result = idle(FakeNode(tmp_path, "rapl_amd", "hwmon_coretemp"), tmp_path)

    assert result.verdict is UNKNOWN
    assert "power meters of 1 packages only, and this node has 2" in result.reason


# --- Stress -------------------------------------------------------------------------------------


def test_a_cool_and_level_node_passes(tmp_path):
    results = stress(FakeNode(tmp_path), tmp_path)

    assert verdicts(results) == (PASS, PASS, PASS, PASS)
    assert results["power_stress"].samples == 10
    assert results["temperature"].samples == 61


def test_a_cool_amd_node_passes_but_for_what_it_does_not_count(tmp_path):
    node = FakeNode(tmp_path, "rapl_amd", "hwmon_k10temp")
    node.watts["0"] = 250.0

    results = stress(node, tmp_path)

    assert verdicts(results) == (PASS, PASS, PASS, UNKNOWN)
    assert results["power_stress"].observed == pytest.approx(250, rel=0.01)
    assert "only Intel processors count throttling" in results["throttles"].reason


def test_power_over_the_limit_in_one_minute_fails(tmp_path):
    def peak(node, seconds):
        node.watts["1"] = 320.0 if 120 <= seconds < 185 else 200.0

    results = stress(FakeNode(tmp_path), tmp_path, peak)

    assert verdicts(results) == (FAIL, PASS, PASS, PASS)


def test_a_package_that_settles_too_hot_fails(tmp_path):
    node = FakeNode(tmp_path)
    node.celsius["1"] = 80.0

    assert verdicts(stress(node, tmp_path)) == (PASS, FAIL, PASS, PASS)


@pytest.mark.slow
def test_heat_before_the_last_half_does_not_count(tmp_path):
    def early(node, seconds):
        node.celsius["0"] = 80.0 if seconds < 290 else 60.0

    assert verdicts(stress(FakeNode(tmp_path), tmp_path, early)) == (PASS, PASS, PASS, PASS)


def test_a_temperature_that_still_rises_fails(tmp_path):
    def rising(node, seconds):
        node.celsius["0"] = 40 + seconds / 60

    assert verdicts(stress(FakeNode(tmp_path), tmp_path, rising)) == (PASS, PASS, FAIL, PASS)


def test_a_rise_at_the_limit_is_unknown_and_shows_its_interval(tmp_path):
    def rising(node, seconds):
        node.celsius["0"] = 40 + seconds / 120

    result = stress(FakeNode(tmp_path), tmp_path, rising)["temperature_level"]

    assert result.verdict is UNKNOWN
    assert "straddles the limit" in result.reason


def test_throttling_under_load_fails_and_earlier_throttling_does_not(tmp_path):
    def throttled(node, seconds):
        if seconds == 200:
            node.throttle("1", 2)

    node = FakeNode(tmp_path)
    node.throttle("0", 7)

    results = stress(node, tmp_path, throttled)

    assert verdicts(results) == (PASS, PASS, PASS, FAIL)
    assert results["throttles"].observed == 2


def test_a_load_that_reached_part_of_the_processors_says_nothing(tmp_path):
    def held_back(node, seconds):
        node.busy = 0.61 if 240 <= seconds < 300 else 1.0

    results = stress(FakeNode(tmp_path), tmp_path, held_back)

    assert verdicts(results) == (UNKNOWN,) * 4
    assert all(
        "the load reached 61% of the processors only, in minute 5" in r.reason
        for r in results.values()
    )


def test_time_that_the_host_took_was_no_load(tmp_path):
    node = FakeNode(tmp_path)
    node.stolen = 0.3

    assert verdicts(stress(node, tmp_path)) == (UNKNOWN,) * 4


def test_the_stress_stops_before_the_critical_temperature(tmp_path):
    def burning(node, seconds):
        node.celsius["1"] = 60 + seconds / 2

    node = FakeNode(tmp_path)
    run = FakeLoad(node, burning)

    results = stress(node, tmp_path, run=run)

    assert run.ticks == 20  # 60 + 95 / 2 is 107, critical is 110
    assert verdicts(results) == (UNKNOWN, FAIL, UNKNOWN, UNKNOWN)
    assert "stopped after 95 of 600 s: package 1 reached 108 C" in results["temperature"].note


def test_a_sensor_that_disappears_makes_its_package_unknown(tmp_path):
    def unplug(node, seconds):
        if seconds > 400:
            node.inputs["1"].unlink(missing_ok=True)

    results = stress(FakeNode(tmp_path), tmp_path, unplug)

    assert verdicts(results) == (PASS, UNKNOWN, UNKNOWN, PASS)
    assert "package 1: 21 of 61 readings" in results["temperature"].reason


def test_a_sensor_that_disappears_does_not_hide_that_it_was_too_hot(tmp_path):
    def unplug(node, seconds):
        node.celsius["1"] = 90.0
        if seconds > 400:
            node.inputs["1"].unlink(missing_ok=True)

    assert stress(FakeNode(tmp_path), tmp_path, unplug)["temperature"].verdict is FAIL


def test_a_counter_that_disappears_is_unknown(tmp_path):
    def unplug(node, seconds):
        for counter in node.sys.glob("devices/system/cpu/*/thermal_throttle/package_*"):
            if seconds > 400:
                counter.unlink()

    result = stress(FakeNode(tmp_path), tmp_path, unplug)["throttles"]

    assert result.verdict is UNKNOWN
    assert "its counter is lost" in result.reason


def test_without_meters_temperature_is_judged_all_the_same(tmp_path):
    results = stress(FakeNode(tmp_path, ""), tmp_path)

    assert verdicts(results) == (UNKNOWN, PASS, PASS, PASS)
    assert "load intel_rapl_msr, or set power_meters = false" in results["power_stress"].reason


def test_a_load_that_cannot_be_held_is_unknown_in_its_own_words(tmp_path):
    node = FakeNode(tmp_path)
    run = FakeLoad(node, fails="the load on processor 3 ended early: SIGKILL")

    results = stress(node, tmp_path, run=run)

    assert verdicts(results) == (UNKNOWN,) * 4
    assert "load: the load on processor 3 ended early: SIGKILL" in results["temperature"].reason


def test_each_minute_is_told_to_a_person(tmp_path):
    said = []

    stress(FakeNode(tmp_path), tmp_path, say=said.append)

    assert said[1:3] == [
        f"stress: minute {n}: 100% loaded, package 0 30 W 60 C, package 1 30 W 60 C" for n in (1, 2)
    ]
    assert len(said) == 11


# --- Where there is nothing to see, or nothing to be disturbed ----------------------------------


def bare(tmp_path, part, **world):
    """A node with neither sensors nor meters; whether anything was run there."""
    node = FakeNode(tmp_path, "", "")
    run = FakeRunner()
    return drill(part, node, tmp_path, run=run, **world), run.ran


def test_without_any_sensor_nothing_is_loaded_and_each_says_what_to_do(tmp_path):
    results, ran = bare(tmp_path, Stress())

    assert verdicts(results) == (UNKNOWN,) * 4
    assert "no package domain under" in results["power_stress"].reason
    for name in STRESSED[1:]:
        assert "wanted coretemp or k10temp" in results[name].reason
    assert ran == []


def test_without_any_meter_nobody_waits_for_a_quiet_minute(tmp_path):
    def sleep(_seconds):
        raise AssertionError("it waits")

    results, _ = bare(tmp_path, Idle(sleep=sleep))

    assert results["power_idle"].verdict is UNKNOWN
    assert "set power_meters = false" in results["power_idle"].reason


def test_a_node_that_has_none_by_its_profile_is_not_applicable_at_once(tmp_path):
    toml = "[profile]\npower_meters = false\ntemperature_sensors = false\n"

    results, ran = bare(tmp_path, Stress(), toml=toml)

    assert verdicts(results) == (NONE,) * 4
    assert results["power_idle"].verdict is NONE
    assert ran == []


@pytest.mark.parametrize(
    ("world", "why"),
    [
        ({"options": Options(soak=False)}, "left out: --no-soak"),
        ({"training": "train.py: rank 0 (pid 812)"}, "a training job runs: train.py: rank 0"),
    ],
)
def test_it_stays_out_of_the_way(tmp_path, world, why):
    node = FakeNode(tmp_path)
    results = stress(node, tmp_path, **world)
    results |= {"power_idle": idle(node, tmp_path, **world)}

    assert {r.verdict for r in results.values()} == {UNKNOWN}
    assert all(why in r.reason for r in results.values())


def test_force_heats_beside_a_training_job(tmp_path):
    results = stress(FakeNode(tmp_path), tmp_path, training="train.py", options=Options(force=True))

    assert verdicts(results) == (PASS,) * 4


def test_a_processor_that_went_offline_was_not_loaded(tmp_path):
    node = FakeNode(tmp_path)
    work = task("hardware", tmp_path, clock=node.clock, sys=node.sys, proc=node.proc)
    meters = gauges.Gauges(work)
    node.busy = 1.0
    first = meters.read()
    node.cpus = 3
    node.advance(60)

    assert gauges.Span([first, meters.read()]).loaded(range(4)) == pytest.approx(0.75)


def test_a_minute_with_a_gap_has_no_power_for_the_counter_may_have_begun_anew(tmp_path):
    node = FakeNode(tmp_path, "rapl_amd", "")
    work = task("hardware", tmp_path, clock=node.clock, sys=node.sys, proc=node.proc)
    meters = gauges.Gauges(work)
    readings = [meters.read()]
    for seconds in (70, 5):  # its range of 65 kJ may wrap in 65 s
        node.advance(seconds)
        readings.append(meters.read())

    assert readings[2].joules
    assert gauges.Span(readings).watts("0") is None
