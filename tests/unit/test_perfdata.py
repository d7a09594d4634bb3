"""What plugins print: the guidelines' examples, and what nobody should print."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvfd.perfdata import MOST, TOLD, Range, Unread, read


def values(output):
    return {(d.metric, d.label): d.value for d in read(output).data}


def test_words_and_values_are_told_apart():
    said = read("DISK OK - 3 GB free | /=2643MB;5948;5958;0;5968\n")

    assert said.text == "DISK OK - 3 GB free"
    (datum,) = said.data
    assert (datum.metric, datum.label, datum.value) == ("plugin_bytes", "/", 2643 * 2**20)
    assert datum.warning == Range(0, 5948)


@pytest.mark.parametrize(
    ("given", "metric", "value"),
    [
        ("t=3s", "plugin_seconds", 3),
        ("t=250ms", "plugin_seconds", 0.25),
        ("t=4us", "plugin_seconds", 4e-6),
        ("t=12%", "plugin_ratio", 0.12),
        ("t=1KB", "plugin_bytes", 1024),
        ("t=2MiB", "plugin_bytes", 2 * 2**20),
        ("t=7c", "plugin_count_total", 7),
        ("t=-0.5", "plugin_value", -0.5),
        ("t=1,5", "plugin_value", 1.5),
        ("t=1e3", "plugin_value", 1000),
        ("t=.5", "plugin_value", 0.5),
    ],
)
def test_every_unit_becomes_a_base_unit(given, metric, value):
    assert values(f"OK | {given}") == {(metric, "t"): pytest.approx(value)}


def test_a_label_in_quotes_may_hold_blanks_equals_and_quotes():
    assert values("OK | 'a b=c'=1 'it''s'=2") == {
        ("plugin_value", "a b=c"): 1,
        ("plugin_value", "it's"): 2,
    }


def test_values_of_later_lines_count_as_well():
    output = "OK | a=1\nmore words\nand more | b=2\nc=3 d=4\n"

    assert {label: v for (_, label), v in values(output).items()} == {
        "a": 1,
        "b": 2,
        "c": 3,
        "d": 4,
    }


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("10", Range(0, 10)),
        ("10:", Range(10, math.inf)),
        ("~:10", Range(-math.inf, 10)),
        ("10:20", Range(10, 20)),
        ("@10:20", Range(10, 20, True)),
        (":5", Range(0, 5)),
    ],
)
def test_ranges_are_read_as_the_guidelines_say(written, meant):
    (datum,) = read(f"OK | a=1;{written};{written}").data

    assert (datum.warning, datum.critical) == (meant, meant)


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("OK | t=41C", "unit 'C' is none of"),
        ("OK | t=abc", "wanted a number and its unit"),
        ("OK | t=nan", "wanted a number and its unit"),
        ("OK | t=1;20:10", "is empty"),
        ("OK | t=1;x", "wanted a range"),
        ("OK | t=120%;;;0;100", "is not from 0 to 100"),
        ("OK | t=1 t=2", "there twice"),
        ("OK | just words", "wanted 'label'=value"),
        ("OK | t=9e999", "beyond any number"),
        ("OK | 'half", "wanted 'label'=value"),
    ],
)
def test_what_cannot_be_meant_is_told_and_taken_for_nothing(output, why):
    said = read(output)

    assert why in " ".join(said.wrong)
    assert said.data == ()


def test_a_value_that_the_plugin_does_not_know_is_none_and_no_mistake():
    said = read("OK | t=U;1;2")

    assert (said.data, said.wrong) == ((), ())
    assert [(u.label, u.why) for u in said.unread] == [("t", "t: the plugin itself does not know")]


def test_a_flood_of_values_is_cut_off():
    said = read("OK | " + " ".join(f"v{n}=1" for n in range(10_000)))

    assert len(said.data) == MOST
    assert f"more than {MOST}" in said.wrong[0]


def test_a_flood_of_mistakes_is_cut_off():
    said = read("OK | " + "a=1 " * 10_000 + "b=1")

    assert (len(said.data), len(said.wrong)) == (0, TOLD)
    assert said.unread[-1] == Unread("", f"nothing is read behind {TOLD} mistakes", mistake=False)


def test_of_labels_that_begin_with_the_same_200_characters_neither_is_taken():
    said = read(f"OK | {'A' * 200}1=99 {'A' * 200}2=1")

    assert said.data == ()
    assert said.wrong[0].endswith("there twice")


@given(st.text())
def test_no_output_breaks_the_reader_or_brings_a_value_that_is_none(output):
    assert all(math.isfinite(datum.value) for datum in read(output).data)


@given(st.text(alphabet="ab'=;:@~|0123456789.,-+eE%msUKMGTBc \n"))
def test_no_mess_of_the_formats_own_signs_breaks_the_reader(output):
    said = read("OK | " + output)

    assert len({(d.metric, d.label) for d in said.data}) == len(said.data)
