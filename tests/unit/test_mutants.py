"""The check of the tests: what is a mutant, which are killed, and which survivor is a failure."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from bench.mutant_tests import Outcome
from bench.mutants import (
    MODULES,
    ROOT,
    Tried,
    explanations,
    figures,
    kept,
    stale,
    survivors,
)
from bench.mutation import STATEMENT, mutants

SOURCE = '''
"""A module."""

import structlog

log = structlog.get_logger()
LIMIT = 5


class Thing:
    """One."""

    def __init__(self, size):
        self.size = size

    @property
    def big(self):
        """Whether it is."""
        log.info("asked", size=1)
        return self.size > LIMIT


def words(count):
    """Tell."""
    while count > 100:
        count -= 7
    return "so many of them", "x"
'''

TESTS = """
from thing import Thing, words

def test_more_than_the_limit_is_big():
    assert Thing(6).big and not Thing(4).big

def test_words_are_told():
    assert words(101)[1] == "x"
"""

SCRIPT = """
import json, sys
from pathlib import Path
import pytest
from bench.mutant_tests import Mutants
from bench.mutation import mutants
root = Path.cwd()
found = mutants(root, "thing.py")
tests = {"thing.py": frozenset({"test_thing.py"})}
plugin = Mutants(root, found, tests, jobs=2, tell=lambda said: None)
pytest.main(["-q", "-p", "no:cacheprovider", "--capture=no", str(root)], plugins=[plugin])
outcomes = {f"{m.was} -> {m.now}": o for m, o in zip(found, plugin.outcomes, strict=True)}
Path("result").write_text(json.dumps([outcomes, plugin.broken]))
"""


@pytest.fixture
def room(tmp_path):
    (tmp_path / "thing.py").write_text(SOURCE)
    (tmp_path / "test_thing.py").write_text(TESTS)
    return tmp_path


def test_comparisons_numbers_and_constants_are_changed_in_properties_too(room):
    found = {(m.function, m.now) for m in mutants(room, "thing.py")}

    assert ("Thing.big", "return self.size >= LIMIT") in found
    assert (STATEMENT, "LIMIT = 6") in found
    assert ("words", "count += 7") in found


def test_texts_for_people_and_what_is_logged_are_left_alone(room):
    found = mutants(room, "thing.py")

    assert all('"so many of them"' in m.text for m in found if m.function == "words")
    assert all('log.info("asked", size=1)' in m.text for m in found if m.function == "Thing.big")


def test_a_sample_is_the_same_for_the_same_seed(room):
    drawn = [mutants(room, "thing.py", sample=3, seed=seed) for seed in (1, 1, 2)]

    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 3


def test_a_statement_that_sets_several_names_is_known_by_all_of_them(room):
    (room / "thing.py").write_text('ONE, TWO = "a", "b"\nTHREE: int = 3\n')

    found = {tuple(mutant.names) for mutant in mutants(room, "thing.py")}
    assert found == {("ONE", "TWO"), ("THREE",)}


@pytest.mark.slow
def test_what_a_test_sees_is_killed_and_what_none_sees_survives(room):
    command = [sys.executable, "-c", SCRIPT]
    subprocess.run(command, cwd=room, check=True, capture_output=True, timeout=240)
    outcomes, broken = json.loads((room / "result").read_text())

    assert not broken
    assert outcomes["self.size = size -> self.size = None"] == "killed"
    assert outcomes["LIMIT = 5 -> LIMIT = 6"] == "killed"
    assert outcomes["return self.size > LIMIT -> return self.size >= LIMIT"] == "survived"
    assert outcomes["count -= 7 -> count += 7"] == "timed out"


def test_a_survivor_that_nobody_explained_is_a_failure(room):
    one, other, *_ = mutants(room, "thing.py")
    found = [(one, Outcome.SURVIVED), (other, Outcome.KILLED)]

    assert survivors(found, {}) == [one]
    assert survivors(found, {one.key: "it changes nothing"}) == []


def test_an_explanation_of_what_is_no_mutant_any_more_is_told(room):
    one, *rest = mutants(room, "thing.py")
    gone = replace(one, was="what once stood there")

    assert stale([one, *rest], {one.key: "why", gone.key: "why"}) == [gone.key]


def test_every_explanation_is_of_a_module_under_check_and_gives_a_reason():
    explained = explanations((ROOT / "bench" / "mutants_explained.toml").read_text())

    assert {module for module, *_ in explained} <= set(MODULES)
    assert all(explained.values())


def test_what_is_kept_of_other_modules_stays(tmp_path):
    path = tmp_path / "mutants.json"
    before = Tried(mutants=10, killed=8, timed_out=1, explained=1, unexplained=0)
    path.write_text(json.dumps({"raw": {"modules": {"dvfd/judge.py": asdict(before), "gone": {}}}}))

    assert kept(tmp_path / "none.json") == {}
    assert kept(path) == {"dvfd/judge.py": before}
    assert before.score == 90


def test_a_survivor_that_nobody_explained_misses_the_figure():
    well = Tried(mutants=10, killed=9, timed_out=0, explained=1, unexplained=0)
    ill = Tried(mutants=10, killed=9, timed_out=0, explained=0, unexplained=1)

    assert [figures({"dvfd/judge.py": each})[-1].reached for each in (well, ill)] == [True, False]
