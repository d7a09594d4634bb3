"""The table of all measurements is never green where one of them did not see anything."""

from __future__ import annotations

import json

import pytest

from bench import record
from bench.all import BUDGET, MEASUREMENTS, Measurement, Outcome, code, measure, table
from bench.record import RUN, Figure, at_most, document, leave


def left(value=1.0, limit=2.0):
    return json.loads(json.dumps(document("probe", [at_most("n", "how long", value, "s", limit)])))


def module(monkeypatch, tmp_path, text):
    """A module that can be measured."""
    (tmp_path / "measured_here.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    return Measurement("probe", "measured_here", ("--short",), (), "does it?", 20)


LEAVES = """
import sys
from bench.record import document, leave, at_most
leave(document("probe", [at_most("n", sys.argv[1], 1.0, "s", 2.0)]))
"""


def test_the_short_forms_fit_the_budget_and_are_named_once():
    names = [measurement.name for measurement in MEASUREMENTS]

    assert sum(measurement.budget for measurement in MEASUREMENTS) <= BUDGET
    assert len(set(names)) == len(names)


def test_what_is_measured_is_read_from_the_file_that_it_leaves(monkeypatch, tmp_path):
    found = measure(module(monkeypatch, tmp_path, LEAVES), tmp_path / "run", long=False)

    assert [f["text"] for d in found.documents for f in d["figures"]] == ["--short"]
    assert (found.why, code([found])) == ("", 0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("print('all is well')", "it left no figure"),
        (LEAVES + "raise SystemExit(1)", "exit code 1"),
        ("import nothing_of_the_kind", "exit code 1"),
    ],
)
def test_a_measurement_that_broke_is_not_measured(monkeypatch, tmp_path, text, why):
    found = measure(module(monkeypatch, tmp_path, text), tmp_path / "run", long=False)

    assert found.why.startswith(why)
    assert code([found]) == 3
    assert "**not measured**" in table([found])
    assert "NOT MEASURED: probe" in table([found])


def test_a_measurement_that_takes_too_long_is_ended_and_not_measured(monkeypatch, tmp_path):
    slow = module(monkeypatch, tmp_path, "import time; time.sleep(600)")
    monkeypatch.setattr("bench.all.PATIENCE", (0.01, 0.0))
    found = measure(slow, tmp_path / "run", long=False)

    assert found.why.startswith("not done after 0 s")
    assert found.seconds < 300


def test_a_module_that_is_not_there_is_not_measured(tmp_path):
    nothing = Measurement("probe", "bench.nothing_of_the_kind", (), (), "", 1)

    assert measure(nothing, tmp_path, long=False).why == "there is no bench.nothing_of_the_kind"


def test_a_figure_outside_its_limit_is_told_by_the_exit_code():
    within = Outcome("one", (left(1.0),), 1.0)
    outside = Outcome("two", (left(3.0),), 1.0)

    assert [code([within]), code([within, outside]), code([])] == [0, 1, 3]
    assert "of 2 figures with a limit 1 within, 1 outside, 0 not known" in table([within, outside])


def test_a_short_run_leaves_its_figures_where_it_is_told_to_and_nowhere_else(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    found = document("probe", [Figure("n", "how many", 1, "things")])
    monkeypatch.delenv(RUN, raising=False)
    leave(found)
    monkeypatch.setenv(RUN, str(tmp_path / "run"))
    leave(found)

    assert [p.name for p in tmp_path.rglob("*.json")] == ["probe.json"]
    assert json.loads((tmp_path / "run" / "probe.json").read_text())["figures"][0]["value"] == 1
