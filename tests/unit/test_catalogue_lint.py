"""Every mistake in a catalogue is named with file, key and reason, and all of them at once."""

from __future__ import annotations

import pytest
from fakes_catalogue import GATE, HEAD, HEAT, METRICS, criterion, problems, write

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.errors import ConfigError


def test_a_sound_catalogue_loads(tmp_path):
    assert list(load(Config(), write(tmp_path, gates=GATE)).criteria) == ["day.heat"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"windoww": 3}, "heat.windoww: no such key; did you mean 'window'?"),
        ({"metric": '"heatt"'}, "heat.metric: no metric 'heatt'; did you mean 'heat'?"),
        ({"unit": '"watts"'}, "heat.unit: 'watts', but latest of heat is in 'celsius'"),
        ({"reduce": '"meen"'}, "heat.reduce: no reduction 'meen'; did you mean 'mean'?"),
        ({"comparison": '"=>"'}, "heat.comparison: no comparison '=>'; did you mean '>'?"),
        ({"requires": '["gpus"]'}, "heat.requires: no feature 'gpus'; did you mean 'gpu'?"),
        ({"severity": '"fatal"'}, "heat.severity: no severity 'fatal'"),
        ({"where": '{ packag = "0" }'}, "no label 'packag'; did you mean 'package'?"),
        ({"across": '"rank"'}, "heat.across: heat has no label 'rank'"),
        ({"combine": '"sum"'}, "heat.combine: sum of what?"),
        ({"reduce": '"mean"'}, "heat.window: missing: mean is taken over seconds"),
        ({"window": 60}, "heat.window: the latest value has none"),
        ({"band": 3}, "heat.band: goes with reduce = 'fraction_within'"),
        ({"reduce": '"increase"', "window": 9}, "heat.reduce: 'increase' of a gauge"),
        ({"metric": '"energy_total"', "unit": '"joules"'}, "heat.reduce: 'latest' of a counter"),
        ({"limit": -30}, "heat.limit: empty range: < -30 celsius, but possible is -20 to 130"),
        ({"limit": 131}, "heat.limit: nothing possible fails < 131 celsius: -20 to 130"),
        ({"expected": [80, 90]}, "heat.limit: empty range: < 75 celsius, but expected is 80 to 90"),
        ({"expected": [70, 20]}, "heat.expected: empty: 70 is above 20"),
        ({"limit": '{ of = "profile.nods" }'}, "nothing is called 'profile.nods'; did you mean"),
        ({"limit": '{ of = "metric.het" }'}, "'metric.het'; did you mean 'metric.heat'?"),
        ({"limit": '{ of = "profile.nodes" }'}, "profile.nodes is in 'nodes', the criterion in"),
        ({"limit": '{ of = "site.x" }'}, "is neither 'profile.KEY' nor 'metric.NAME'"),
        ({"limit": '{ of = "profile.nodes", time = 2 }'}, "no such key 'time'; did you"),
        ({"limit": "nan"}, "heat.limit: nan is not a finite number"),
        ({"limit": "true"}, "heat.limit: True is not a finite number"),
        ({"item": '"line 3"'}, "heat.item: 'line 3' is no line of the source"),
        ({"text": None}, "heat.text: missing"),
        ({"coverage": 2}, "heat.coverage: 2 is not between 0 and 1"),
        ({"streak": 0}, "heat.streak: 0 is not a whole number from 1"),
        ({"latch": 1}, "heat.latch: 1 is neither true nor false"),
        ({"like": '"day.het"'}, "heat.like: no criterion 'day.het'; did you mean 'day.heat'?"),
        ({"like": '"day.heat"'}, "heat.like: 'day.heat' leads back here"),
        ({"written": "{ limt = 3 }"}, "heat.written.limt: no such key; did you mean 'limit'?"),
        ({"id": None}, "id: missing"),
        ({"counts": "[8, 12]"}, "counts: heat has no label 'processes'"),
        ({"counts": "[0]"}, "counts: 0 is not a whole number from 1"),
        ({"limits": "{ many = 3 }"}, "limits: 'many' is no process count"),
        ({"limits": "{ 012 = 3 }"}, "limits: '012' is no process count"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_criterion_is_named(tmp_path, changes, said):
    found = problems(write(tmp_path, criterion(**changes)))
    assert any(line.startswith("day.toml: ") and said in line for line in found), found


@pytest.mark.parametrize(
    ("counts", "limits", "said"),
    [
        ("[8, 12]", "{ 16 = 60 }", "limits: 16 is none of the other counts, [8, 12]"),
        ("[8, 12]", "{ 8 = 60 }", "limits: 8 is none of the other counts"),
        ("[12, 16]", "{ 16 = 60 }", "counts: where has processes = '8', which is none of [12, 16]"),
        ("[8, 12]", "{ 12 = 131 }", "limit: nothing possible fails < 131 celsius"),
        ("[8, 12]", '{ 12 = { of = "profile.nodes" } }', "limits: profile.nodes is in 'nodes'"),
    ],
)
def test_a_mistake_in_what_other_counts_are_held_against_is_named(tmp_path, counts, limits, said):
    day = criterion(where='{ processes = "8" }', counts=counts, limits=limits)
    labelled = METRICS.replace('"load"]', '"load", "processes"]')
    found = problems(write(tmp_path, day, metrics=labelled))
    assert any(said in line for line in found), found


def test_all_mistakes_come_at_once(tmp_path):
    day = (
        criterion(unit='"watts"')
        + criterion(id='"b"', metric='"cold"')
        + criterion(id='"c"', text=None)
    )
    assert len(problems(write(tmp_path, day))) == 3


def test_a_criterion_is_there_once(tmp_path):
    assert "day.toml: heat.id: 'day.heat' is there twice" in problems(write(tmp_path, HEAT + HEAT))


def test_two_that_lead_to_each_other_end(tmp_path):
    day = criterion(like='"day.later"') + criterion(id='"later"', like='"day.heat"')
    assert any("leads back here" in line for line in problems(write(tmp_path, day)))


def test_two_criteria_that_no_value_satisfies_contradict(tmp_path):
    found = problems(write(tmp_path, HEAT + criterion(id='"later"', comparison='">="', limit=75)))
    assert found == ("day.toml: later.limit: >= 75 celsius contradicts day.heat: < 75 celsius",)


def test_criteria_of_different_labels_do_not_contradict(tmp_path):
    other = criterion(id='"later"', comparison='">"', limit=80, where='{ load = "stress" }')
    assert len(load(Config(), write(tmp_path, HEAT + other)).criteria) == 2


def test_two_that_touch_in_one_value_do_not_contradict(tmp_path):
    day = criterion(comparison='"<="') + criterion(id='"later"', comparison='">="')
    assert len(load(Config(), write(tmp_path, day)).criteria) == 2


def veto(limit):
    keys = 'id = "no_go_heat"\nlike = "day.heat"\nitem = "No-Go 1"\ncomparison = ">"'
    return f"\n[[gate.no_go]]\n{keys}\nlimit = {limit}\n"


def test_a_veto_that_holds_where_the_gate_passes_contradicts(tmp_path):
    found = problems(write(tmp_path, gates=GATE + veto(70)))
    assert found[0].startswith(
        "gates.toml: no_go_heat.limit: vetoes at > 70 celsius, where day.heat"
    )


def test_a_veto_beyond_what_the_gate_needs_is_sound(tmp_path):
    gate = load(Config(), write(tmp_path, gates=GATE + veto(90))).gates["phase1"]
    assert [v.id for v in gate.vetoes] == ["phase1.no_go_heat"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('tests = ["day"]', 'tests = ["dai"]', "phase1.tests: no check 'dai'; did you mean 'day'?"),
        ('checks = ["day"]', 'checks = ["dy"]', "phase1.day.checks: no check 'dy'"),
        ('checks = ["day"]', 'criteria = ["day.hea"]', "'day.hea'; did you mean 'day.heat'?"),
        ('checks = ["day"]', "", "phase1.day.checks: stands on nothing"),
        ('due = "Friday, week 2"', "", "phase1.due: missing"),
        ('text = "The day was good"', "", "phase1.day.text: missing"),
        ('title = "Phase 1"', 'titel = "Phase 1"', "titel: no such key; did you mean 'title'?"),
        ('id = "phase1"', 'id = "day"', "id: a gate is called 'day' too"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_gate_is_named(tmp_path, old, new, said):
    found = problems(write(tmp_path, gates=GATE.replace(old, new)))
    assert any(said in line for line in found), found


def test_a_go_line_is_there_once(tmp_path):
    line = '\n[[gate.go]]\nid = "day"\ntext = "Again"\nchecks = ["day"]\n'
    assert problems(write(tmp_path, gates=GATE + line)) == (
        "gates.toml: phase1.day: there 2 times",
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('unit = "celsius"', "", "metrics.toml: heat.unit: missing"),
        ('source = "temperature"', "sauce = 3", "metrics.toml: heat.sauce: no such key"),
        ("[-20, 130]", "[130, -20]", "metrics.toml: heat.possible: not [low, high] in numbers"),
        ("[-20, 130]", "[1]", "metrics.toml: heat.possible: [1] is not [low, high]"),
        ('kind = "counter"', 'kind = "countr"', "did you mean 'counter'?"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_metric_is_named(tmp_path, old, new, said):
    found = problems(write(tmp_path, metrics=METRICS.replace(old, new)))
    assert any(said in line for line in found), found


def test_a_check_lives_in_a_file_of_its_name(tmp_path):
    write(tmp_path)
    (tmp_path / "night.toml").write_text(HEAD + HEAT)
    assert "night.toml: id: 'day' lives in day.toml" in problems(tmp_path)


def test_a_file_that_is_no_toml_does_not_hide_the_mistakes_of_others(tmp_path):
    write(tmp_path, criterion(unit='"watts"'))
    (tmp_path / "night.toml").write_text("id = ")
    assert [line.partition(":")[0] for line in problems(tmp_path)] == ["night.toml", "day.toml"]


def test_an_unknown_schedule_is_named(tmp_path):
    found = problems(write(tmp_path, 'schedule = "dayly"\n' + HEAT))
    assert found[0].startswith("day.toml: schedule: no schedule 'dayly'; did you mean 'daily'?")


def test_an_empty_directory_is_no_catalogue(tmp_path):
    with pytest.raises(ConfigError, match="no catalogue"):
        load(Config(), tmp_path)
