"""The audit of dependencies is green only where somebody who knows was asked about each."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/audited.py"

CLEAN = {"name": "click", "version": "8.1", "vulns": []}
HOLE = {"id": "PYSEC-1", "fix_versions": ["8.2"], "aliases": [], "description": ""}
UNASKED = {"name": "click", "skip_reason": "Dependency not found on PyPI"}


@pytest.fixture(scope="module")
def audited():
    spec = importlib.util.spec_from_file_location("audited", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.audited


def test_each_was_asked_about_and_none_is_vulnerable(audited):
    own = {"name": "dvfd", "skip_reason": "not on PyPI"}
    assert audited({"dependencies": [CLEAN, own]}) == (
        0,
        ["1 dependencies, no known vulnerability"],
    )


def test_one_that_is_vulnerable_is_named_with_what_mends_it(audited):
    code, lines = audited({"dependencies": [{**CLEAN, "vulns": [HOLE]}, {**UNASKED, "name": "x"}]})
    assert code == 2
    assert lines[0] == "click 8.1: PYSEC-1, mended in 8.2"
    assert lines[1:] == [
        "not known of 1 of 2: x", "pip-audit of the first: Dependency not found on PyPI",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "document",
    [None, {}, [], {"dependencies": []}, {"dependencies": [UNASKED]}, {"dependencies": "x"},
     {"dependencies": [CLEAN, {**UNASKED, "name": "y"}]}, {"dependencies": [{"name": "dvfd"}]}],
)  # fmt: skip
def test_where_nobody_could_be_asked_it_is_not_known_and_never_green(document, audited):
    assert audited(document)[0] == 3
