"""The ledger: what may stand in it, what belongs together, what was frozen and when."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock
from fakes_scaling import AT, CONFIGURATION, Child, frozen, point, source
from hypothesis import given
from hypothesis import strategies as st

from dvfd.control import Peer
from dvfd.errors import DvfdError
from dvfd.runs.baselines import Baselines
from dvfd.scaling import ledger as ledgers
from dvfd.scaling.frozen import Frozen, foretold
from dvfd.scaling.ledger import Ledger, operations
from dvfd.scaling.points import DAY, How, Point
from dvfd.scaling.reading import known
from dvfd.scaling.series import configuration, series, single


class Shelf:
    """Records as the store keeps them: JSON."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], str] = {}

    def put(self, kind: str, key: str, document: Any) -> None:
        self.records[kind, key] = json.dumps(document)

    def all(self, kind: str) -> dict[str, Any]:
        return {key: json.loads(text) for (of, key), text in self.records.items() if of == kind}


class Desk:
    """A ledger on a fake clock."""

    def __init__(self) -> None:
        self.shelf, self.clock = Shelf(), FakeClock(now=AT)
        self.book = Ledger(self.shelf, Baselines(Path(), self.shelf, self.clock), self.clock)

    def measured(self, given: Point, **more: Any) -> Point:
        return self.book.measured({"point": {**given.to_document(), **more}}, "root")

    def record(self, **more: Any) -> Point:
        request = {"processes": 4, "throughput": 270.19, "job": "gpt", "name": "Ann Lee",
                   "note": "old log", **more}  # fmt: skip
        return self.book.record(request, "root")

    def freeze(self, *targets: int, **more: Any) -> Frozen:
        request = {"targets": list(targets), "name": "Ann Lee", **more}
        return self.book.freeze(request, "root", run=Child())


@pytest.fixture
def desk() -> Desk:
    return Desk()


# --- What may stand in it -------------------------------------------------------------------------

ODD: list[Any] = [None, True, "1", math.nan, math.inf, -1, 0, [], 1e13]


@pytest.mark.parametrize("value", ODD, ids=repr)
@pytest.mark.parametrize("field", ["processes", "throughput"])
def test_what_is_no_count_or_throughput_is_refused(desk: Desk, field: str, value: Any) -> None:
    with pytest.raises(DvfdError, match="no measurement"):
        desk.measured(point(1, 62.5), **{field: value})
    assert desk.book.points() == []


@pytest.mark.parametrize(
    "bad",
    [
        {"low": 70.0, "high": 80.0}, {"low": None}, {"low": math.nan, "high": 70.0},
        {"windows": [1.0, math.nan]}, {"windows": [-1.0]}, {"windows": [1.0] * 501},
        {"windows": "12"}, {"communication": 1.2}, {"communication": math.nan},
        {"began": AT, "ended": AT - 1.0}, {"ended": math.nan}, {"configuration": ""},
        {"configuration": 7}, {"by": None}, {"job": "\x1b[2J"}, {"note": "x" * 2001},
        {"command": ["\n"]}, {"nodes": 0}, {"unheard": 1},
    ],
    ids=repr,
)  # fmt: skip
def test_what_contradicts_itself_is_refused(desk: Desk, bad: dict[str, Any]) -> None:
    with pytest.raises(DvfdError, match="no measurement"):
        desk.measured(point(1, 62.5), **bad)


def test_what_ends_in_the_future_is_refused(desk: Desk) -> None:
    with pytest.raises(DvfdError, match="60 s in the future"):
        desk.measured(point(1, 62.5), began=AT, ended=AT + 60.0)


@given(st.dictionaries(st.sampled_from(["point", "x"]), st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
)))  # fmt: skip
def test_no_nonsense_enters(request: dict[str, Any]) -> None:
    desk = Desk()
    with pytest.raises(DvfdError):
        desk.book.measured(request, "root")
    assert desk.book.points() == []


def test_nobody_hands_in_an_accepted_run(desk: Desk) -> None:
    assert desk.measured(point(8, 600.0), how="run", name="phase2a_x").how is How.MEASURED
    assert desk.book.points()[0].name == "1"


def test_a_typed_figure_says_who_typed_it_and_how_it_was_measured(desk: Desk) -> None:
    made = desk.record()
    assert (made.how, made.by, made.note, made.submitted) == (
        How.RECORDED, "Ann Lee", "old log", "root",
    )  # fmt: skip
    assert "not measured by dvfd" in made.words
    for lack in ("name", "note", "job"):
        with pytest.raises(DvfdError, match=f"{lack}: missing"):
            desk.record(**{lack: ""})


def test_a_damaged_record_is_told_and_the_others_are_read(desk: Desk) -> None:
    desk.record()
    desk.record(processes=8, throughput=600.0)
    desk.shelf.records["scaling point", "000001"] = '{"processes": 4}'
    found = known(desk.book.document())
    assert [p.processes for p in found.points] == [8]
    assert "measurement 000001" in found.damaged[0]


# --- What belongs together ------------------------------------------------------------------------


def test_a_run_stands_before_minutes_and_minutes_before_a_typed_figure() -> None:
    each = [point(8, float(n), how=how, ended=AT + n) for n, how in enumerate(How, 1)]
    assert [series(each[n:], CONFIGURATION).points[0].how for n in range(3)] == list(How)


def test_of_equal_strength_the_newest_stands() -> None:
    old, new = point(8, 600.0), point(8, 590.0, ended=AT)
    assert series([new, old], CONFIGURATION).points == (new,)


def test_one_process_is_the_median_of_its_day_and_not_the_one_that_pleases() -> None:
    made = [point(1, x) for x in (60.0, 75.0, 62.5)]
    assert series(made, CONFIGURATION).points[0].throughput == 62.5
    assert series(made[:2], CONFIGURATION).points[0].throughput == 75.0


def test_another_configuration_or_processor_is_never_among_them() -> None:
    mine = [replace(p, processor="A") for p in source()]
    other = [point(16, 9e3, configuration="x"), point(16, 9e3, processor="B", ended=AT - 9 * DAY)]
    found = series([*mine, *other], CONFIGURATION)
    assert [p.processes for p in found.points] == [1, 4, 8, 12]
    assert "on B, not on A" in found.left_out[0]


def test_the_newest_run_says_which_configuration_is_asked_about() -> None:
    old = point(8, 600.0, configuration="old", ended=AT - 9 * DAY)
    minutes = point(2, 100.0, configuration="minutes", how=How.MEASURED, ended=AT)
    newer = point(12, 900.0, configuration="newer", ended=AT - 1)
    assert configuration([old, newer, minutes]) == "newer"
    assert configuration([old, newer, minutes], 8) == "old"
    assert configuration([minutes]) == "minutes"
    assert configuration([]) == ""


@pytest.mark.parametrize(("hours", "there"), [(-25, False), (-23, True), (60, True), (80, False)])
def test_the_baseline_of_a_run_is_of_its_day(hours: float, there: bool) -> None:
    at = AT + 3600.0 * hours
    one = point(1, 62.5, began=at - 60.0, ended=at)
    found = single([one], CONFIGURATION, began=AT, ended=AT + 2 * DAY)
    assert (found is not None) is there


# --- What was frozen ------------------------------------------------------------------------------


def fill(desk: Desk) -> None:
    for n, x in ((1, 62.5), (4, 270.19)):
        desk.measured(point(n, x, began=AT - 200.0, ended=AT - 20.0))


def test_a_frozen_projection_keeps_what_it_was_made_of_and_what_it_foretold(desk: Desk) -> None:
    fill(desk)
    made = desk.freeze(8, 16, note="before phase 2a")
    (kept,) = desk.book.frozen()
    assert kept == made
    assert [p.processes for p in kept.points] == [1, 4]
    assert kept.projection.of(8).value == pytest.approx(561.78, abs=0.01)  # type: ignore[union-attr]
    assert "frozen by Ann Lee" in kept.words


def test_one_that_was_changed_afterwards_is_none(desk: Desk) -> None:
    fill(desk)
    desk.freeze(8)
    text = desk.shelf.records["scaling projection", "000001"]
    desk.shelf.records["scaling projection", "000001"] = text.replace("561.7", "599.7")
    assert desk.book.frozen() == []
    assert "not the one it was frozen with" in desk.book.document()["damaged"][0]


@pytest.mark.parametrize("targets", [(), (1,), (0,), (True,), ("8",), (8.0,), tuple(range(2, 30))])
def test_what_is_no_count_is_not_foretold(desk: Desk, targets: Any) -> None:
    fill(desk)
    with pytest.raises(DvfdError, match="wanted 1 to 16 counts"):
        desk.freeze(*targets)


def test_one_count_foretells_nothing(desk: Desk) -> None:
    desk.record()
    with pytest.raises(DvfdError, match="needs two process counts"):
        desk.freeze(8)
    with pytest.raises(DvfdError, match="no configuration begins with 'zz'"):
        desk.freeze(8, configuration="zz")


def test_of_an_empty_ledger_nothing_can_be_frozen(desk: Desk) -> None:
    with pytest.raises(DvfdError, match="nothing is in the ledger"):
        desk.freeze(8)


def test_only_what_was_frozen_before_a_run_began_foretells_it() -> None:
    run = point(8, 600.0)
    early = frozen(source((1, 4)), [8], at=run.began)
    late = frozen(source((1, 4)), [8], at=run.began + 1.0, number=2)
    assert foretold([early, late], run)[0] is early
    with pytest.raises(DvfdError, match="after it began"):
        foretold([late], run)
    with pytest.raises(DvfdError, match="no projection of 8 processes was frozen before"):
        foretold([frozen(source((1, 4)), [12])], run)


def test_who_may_change_the_ledger_is_asked_and_reading_is_free(desk: Desk) -> None:
    found = operations(desk.book)
    assert {name for name, each in found.items() if each.changes} == {
        "scaling_measured", "scaling_record", "scaling_freeze",
    }  # fmt: skip
    fill(desk)
    here = Peer(1, 0, 0)
    answer = found["scaling"].answer({}, here)
    assert [p["processes"] for p in json.loads(json.dumps(answer))["points"]] == [1, 4]
    entered = found["scaling_record"].answer(
        {"processes": 8, "throughput": 600, "job": "a", "name": "Ann", "note": "n"}, here
    )
    assert entered["submitted"] == here.name
    assert ledgers.POINT == "scaling point"
