"""What an engine answers is believed whole or not at all, and the words say what to do."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvfd.errors import HistoryError
from dvfd.history.answer import Asked, Line, read

KEYS = st.sampled_from(["metric", "values", "value", "result", "resultType"])
HOURLY = Asked(3600.0, 10_800.0, 3600.0, 3)


def body(*rows, kind="matrix", **more):
    data = {"resultType": kind, "result": list(rows)}
    return json.dumps({"status": "success", "data": data, **more}).encode()


def row(*points, **labels):
    return {"metric": labels, "values": [[at, str(value)] for at, value in points]}


WHOLE = row((3600, 1), (7200, 2), (10_800, 3), instance="n1")


def test_a_sound_answer_is_its_lines():
    [line] = read(200, body(WHOLE), HOURLY)
    assert line == Line({"instance": "n1"}, ((3600.0, 1.0), (7200.0, 2.0), (10_800.0, 3.0)))


def test_no_series_is_no_line():
    assert read(200, body(), HOURLY) == []


def test_information_of_an_engine_is_no_warning():
    assert read(200, body(WHOLE, infos=["might not be a counter"]), HOURLY)


def refused(status, text, asked=HOURLY):
    with pytest.raises(HistoryError) as caught:
        read(status, text, asked)
    return str(caught.value)


ERROR = json.dumps({"status": "error", "errorType": "execution", "error": "too many samples"})


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [
        (200, body(WHOLE, warnings=["store x: timeout"]), "part only: store x: timeout"),
        (200, body(WHOLE, isPartial=True), "isPartial"),
        (200, body(WHOLE)[:-20], "JSON that breaks off"),
        (200, b"<html>login</html>", "no JSON"),
        (200, b"", "no JSON"),
        (200, b"[]", "like no engine"),
        (200, b'{"status": "success"}', "wanted data.result"),
        (200, ERROR.encode(), "too many samples"),
        (422, ERROR.encode(), "answers 422: too many samples; see its limits"),
        (503, b"upstream connect error", "answers 503: 'upstream connect error'; see it is"),
        (404, b"404 page not found", "[history] url needs the engine's path"),
        (401, b"no org id", "[history] username"),
        (302, b"", "no redirect is followed"),
    ],
)  # fmt: skip
def test_an_answer_that_is_not_whole_is_refused_and_says_what_to_look_at(status, text, words):
    assert words in refused(status, text)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([(0, 1)], "a point of 0.000, asked for 3600.000 to 10800.000"),
        ([(14_400, 1)], "its times cannot be believed"),
        ([(3660, 1)], "asked for every 3600 s"),
        ([(7200, 1), (3600, 2)], "run backwards"),
        ([(3600, 1), (3600, 1)], "run backwards"),
        ([(3600, 1), (7200, 2), (10_800, 3), (10_800, 4)], "4 points of one series"),
        ([(3600, "NaN")], "wanted a time and a finite number"),
        ([(3600, "+Inf")], "wanted a time and a finite number"),
        ([(3600, "many")], "wanted a time and a finite number"),
    ],
)  # fmt: skip
def test_an_engine_that_lies_about_time_or_values_is_refused(points, words):
    assert words in refused(200, body(row(*points)))


def test_the_same_series_twice_is_refused():
    assert "very same labels" in refused(200, body(WHOLE, WHOLE))


@pytest.mark.parametrize("values", [{}, {"values": [[3600, "1"]]}])
def test_histograms_are_no_figures_and_are_not_dropped_beside_figures(values):
    row = {"metric": {}, "histograms": [[7200, {"count": "1"}]], **values}
    assert "wanted floats" in refused(200, body(row))


@pytest.mark.parametrize("name", ["isPartial", "partialResponse"])
def test_what_lacks_a_part_says_so_wherever_it_stands(name):
    assert name in refused(200, body(WHOLE, **{name: True}))
    data = {"resultType": "matrix", "result": [], name: True}
    assert name in refused(200, json.dumps({"status": "success", "data": data}).encode())


def test_an_answer_of_strings_is_no_answer_without_series():
    assert "wanted one of matrix, vector, scalar" in refused(200, body(kind="string"))


@pytest.mark.parametrize("value", ["1_000", "\u0661", " 1", "", True, None, "0x1"])
def test_only_what_promql_writes_as_a_number_is_one(value):
    text = body({"metric": {}, "values": [[3600, value]]})
    assert "wanted a time and a finite number" in refused(200, text)


@pytest.mark.parametrize("pair", ["12", {"3600": 1, "1": 2}, ["3600", "1"], [True, "1"]])
def test_a_point_is_a_time_and_a_value_and_nothing_like_them(pair):
    text = body({"metric": {}, "values": [pair]})
    assert "wanted a time and a finite number" in refused(200, text, Asked(0.0, 10_000.0))


@pytest.mark.parametrize(
    ("text", "value"), [("1e-05", 1e-5), ("-1.5", -1.5), ("1.5e+300", 1.5e300), ("0", 0.0)]
)
def test_every_way_in_which_engines_write_a_number_is_read(text, value):
    [line] = read(200, body(row((3600, text))), HOURLY)
    assert line.points == ((3600.0, value),)


def test_the_secrets_in_an_engines_words_are_hidden_before_they_are_cut():
    said = f"{'x' * 190} Bearer s3cret-s3cret"
    text = json.dumps({"status": "error", "error": said}).encode()
    assert "s3c" not in refused(401, text)


def test_a_terminal_is_not_moved_by_what_an_engine_says():
    text = json.dumps({"status": "error", "error": "\x1b[2Jgone"}).encode()
    assert "\x1b" not in refused(400, text)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=4), inner),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries({"status": st.just("success"), "data": ANYTHING, "warnings": ANYTHING})
)
def test_whatever_comes_is_lines_or_a_refusal(document):
    with suppress(HistoryError):
        read(200, json.dumps(document).encode(), HOURLY)


@given(kind=st.sampled_from(["matrix", "vector", "scalar", "string"]), rows=st.lists(ANYTHING))
def test_whatever_rows_come_are_lines_or_a_refusal(kind, rows):
    with suppress(HistoryError):
        for line in read(200, body(*rows, kind=kind), HOURLY):
            assert all(3600 <= at <= 10_801 for at, _ in line.points)


def test_a_number_beyond_any_is_refused():
    assert "finite" in refused(200, body(row((3600, 1))).replace(b'"1"', b"1" + b"0" * 400))
