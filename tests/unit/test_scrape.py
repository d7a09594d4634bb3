"""An exporter on this node: what it says counts, and its silence is no value."""

import contextlib

import pytest
from fakes_probes import measure
from fakes_site import FakeExporter, metric
from hypothesis import given
from hypothesis import strategies as st

from dvfd import exposition
from dvfd.config import Config, Scrape, parse
from dvfd.config import Scrape as Settings
from dvfd.errors import ConfigError, ProbeError
from dvfd.model import labels
from dvfd.probes import scrape
from dvfd.probes.inputs import Allowance

NODE = Settings(name="node", url="http://127.0.0.1:9100/metrics")
LOAD = metric("site_load", labels=(), series="node_load1", unit="load")


def found(exporter, *metrics, at=100.0):
    probe = scrape.Scrape(NODE, metrics or (LOAD,), Allowance(50), get=exporter)
    samples, error = measure(probe, at)
    return [(s.metric, s.value, s.at) for s in samples], error, probe.gaps


def test_a_series_is_taken_as_of_now():
    assert found(FakeExporter("node_load1 0.25\nother 3\n")) == (
        [("site_load", 0.25, 100.0)],
        "",
        {},
    )


def test_a_timestamp_of_the_exporters_own_counts():
    assert found(FakeExporter("node_load1 1 95000\n"))[0] == [("site_load", 1.0, 95.0)]


def test_a_counter_without_total_keeps_its_name():
    energy = metric(
        "site_energy", labels=(), series="DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", times=1e-3
    )
    body = (
        "# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter\n"
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION 5000\n"
    )

    assert found(FakeExporter(body), energy)[0] == [("site_energy", 5.0, 100.0)]


@pytest.mark.parametrize(
    ("exporter", "why"),
    [
        (FakeExporter(error="http://127.0.0.1:9100/metrics: Connection refused"), "refused"),
        (FakeExporter(status=503), "http://127.0.0.1:9100/metrics: answers 503, wanted 200"),
        (FakeExporter("node_load1 x\n"), "metrics line 1: read 'node_load1 x'"),
        (FakeExporter("node_load1 1"), "metrics line 1: cut off"),
        (FakeExporter("node_load1 NaN\n"), "line 1: node_load1: is nan"),
        (FakeExporter("node_load1 1\nnode_load1 2\n"), "line 2: node_load1: also in"),
        (FakeExporter("node_load1 1 160000\n"), "node_load1 is 60 s ahead of us"),
    ],
)
def test_whatever_is_no_answer_brings_no_sample_and_says_why(exporter, why):
    samples, error, _ = found(exporter)

    assert samples == []
    assert why in error


def test_a_series_that_says_nothing_is_missed_beside_those_that_do():
    heat = metric("site_heat", labels=("core",), series="heat")
    exporter = FakeExporter('heat{core="0"} 40\nheat{core="1"} NaN\n')
    probe = scrape.Scrape(NODE, (heat,), Allowance(50), get=exporter)
    samples, error = measure(probe, 100.0)

    assert len(samples) == 1
    assert [(u.metric, u.why, u.labels) for u in probe.unseen] == [
        ("site_heat", error, labels(core="1"))
    ]


def test_a_series_beyond_the_allowance_is_missed():
    heat = metric("site_heat", labels=("core",), series="heat")
    exporter = FakeExporter('heat{core="0"} 40\nheat{core="1"} 90\n')
    probe = scrape.Scrape(NODE, (heat,), Allowance(1), get=exporter)
    measure(probe, 100.0)

    assert [u.labels for u in probe.unseen] == [labels(core="1")]


def test_a_series_that_is_not_there_is_a_gap():
    assert found(FakeExporter("<html>\n")) == (
        [], "", {"site_load": "no series node_load1 at http://127.0.0.1:9100/metrics"}
    )  # fmt: skip


def test_lines_that_nobody_asked_for_are_not_looked_at():
    assert found(FakeExporter("what is this\nnode_load1 1\n"))[1] == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "[::1]"])
def test_an_exporter_on_this_node_needs_no_word_more(host):
    assert Scrape(name="a", url=f"http://{host}:1/metrics")


@pytest.mark.parametrize("host", ["10.0.0.1", "node7", "127.0.0.1.example.org", "0.0.0.0"])
def test_an_exporter_elsewhere_must_be_meant(host):
    text = f'[[scrape]]\nname = "a"\nurl = "http://{host}/metrics"\n'
    with pytest.raises(ConfigError, match="is not this node"):
        parse(text)

    assert isinstance(parse(text + "elsewhere = true\n"), Config)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader_but_with_words(body):
    with contextlib.suppress(ProbeError):
        assert all(found.name for found in exposition.samples(body + b"\n"))


@given(st.text(alphabet='ab_{}="\\, \t0123456789.eE+-NaIinf#\n'))
def test_no_mess_of_the_formats_own_signs_breaks_the_reader_but_with_words(body):
    with contextlib.suppress(ProbeError):
        assert all(found.line > 0 for found in exposition.samples(f"{body}\n".encode()))


def test_a_line_that_would_take_half_a_minute_is_refused():
    labels = ",".join(f'a{n}=""' for n in range(100_000))
    with pytest.raises(ProbeError, match="line 1: 988894 bytes long, wanted at most 16384"):
        list(exposition.samples(f"x{{{labels}}} 1\n".encode()))


def test_a_mistake_is_told_with_its_line():
    with pytest.raises(ProbeError, match="line 3: read 'b'"):
        list(exposition.samples(b"# TYPE a gauge\na 1\nb \n"))
