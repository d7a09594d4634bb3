"""A plugin's exit code: what counts as a finding, and what only as not knowing."""

import pytest
from fakes import FakeClock
from fakes_probes import measure
from fakes_site import FakeRun, ended

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.config import Plugin as Settings
from dvfd.errors import ToolError, ToolTimeout
from dvfd.model import labels
from dvfd.probes.exec_plugin import ExecPlugin
from dvfd.probes.inputs import Allowance
from dvfd.sampler import Sampler

NTP = Settings(name="ntp", command=("/usr/lib/nagios/plugins/check_ntp_time", "-H", "ntp"))


def plugin(*answers, most=100):
    return ExecPlugin(NTP, Allowance(most), run=FakeRun(*answers))


def status(*answers):
    samples, error = measure(plugin(*answers), at=7.0)
    return [s.value for s in samples if s.metric == "plugin_status"], error


@pytest.mark.parametrize(("code", "value"), [(0, 0), (1, 1), (2, 2)])
def test_ok_warning_and_critical_are_findings(code, value):
    assert status(ended(code)) == ([value], "")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (ended(3, "cannot reach ntp"), "ended with 3 (UNKNOWN): cannot reach ntp"),
        (ended(4), "ended with 4, wanted 0 to 3: all is well"),
        (ended(3, "no login: password=hunter2"), "ended with 3 (UNKNOWN): no login: password=***"),
        (ended(127, "", stderr="not found"), "ended with 127, wanted 0 to 3: not found"),
        (ended(-9, ""), "was killed by signal 9 (Killed): it said nothing"),
        (ended(-40, ""), "was killed by signal 40"),
        (ended(0, " \n"), "ended with 0 and said nothing: wanted a line of output"),
        ({"error": "/x: cannot be started: No such file"}, "/x: cannot be started: No such file"),
        (ToolTimeout("python: still running after 25 s; killed"), "python: still running"),
        (ToolError("cannot be ended: pid 7"), "cannot be ended: pid 7"),
        ("Traceback", "what runs it ended with 0: no words"),
    ],
)
def test_whatever_could_not_tell_brings_no_sample_and_says_why(answer, why):
    values, error = status(answer)

    assert values == []
    assert error.startswith(why)


def test_values_carry_the_plugins_name_and_their_own():
    samples, _ = measure(plugin(ended(0, "OK | offset=-3ms;1;2")))

    (value,) = [s for s in samples if s.metric == "plugin_seconds"]
    assert (value.value, dict(value.labels)) == (-0.003, {"plugin": "ntp", "label": "offset"})


def test_of_an_output_that_was_cut_off_only_the_verdict_counts():
    probe = plugin(ended(1, "WARN | a=1 b=12", cut=True))
    samples, error = measure(probe)

    assert ([s.metric for s in samples], error) == (["plugin_status"], "")
    assert probe.gaps == {"performance data": "its output was cut off"}


def test_what_could_not_be_read_of_the_values_is_told_until_it_can():
    probe = plugin(ended(0, "OK | t=4furlong"), ended(0, "OK | t=4"))
    measure(probe)
    assert "furlong" in probe.gaps["performance data"]

    measure(probe)
    assert probe.gaps == {}


@pytest.mark.parametrize(
    ("values", "missed"),
    [("'a''b'=1e400 x=1", "a'b"), ("a=41C x=1", "a"), ("a=1 a=2 x=1", "a"), ("a=U x=1", "a")],
)
def test_a_value_that_could_not_be_read_is_missed_where_it_may_be_meant(values, missed):
    probe = plugin(ended(0, f"OK | {values}"))
    measure(probe)

    def asked(metric, **where):
        wanted = labels(plugin="ntp", **where)
        return [u.why for u in probe.unseen if u.concerns(metric, wanted)]

    assert asked("plugin_value")[0].startswith(f"{missed}: ")
    assert asked("plugin_value", label=missed) == asked("plugin_value")
    assert asked("plugin_value", label="x") == []
    assert asked("plugin_status") == []


@pytest.mark.parametrize("values", ["x=1 and so on", "x=1" + " y=1" * 99])
def test_any_value_may_stand_behind_what_is_not_read(values):
    probe = plugin(ended(0, f"OK | {values}"))
    measure(probe)

    assert any(u.concerns("plugin_value", labels(label="any")) for u in probe.unseen)


def test_a_value_that_is_read_again_is_missed_no_more():
    probe = plugin(ended(0, "OK | t=4furlong"), ended(0, "OK | t=4"))
    measure(probe)
    assert probe.unseen != ()

    measure(probe)
    assert probe.unseen == ()


def test_more_series_than_the_site_allows_are_refused_and_the_known_ones_go_on():
    probe = plugin(ended(0, "OK | a=1 b=2"), ended(0, "OK | b=2 a=1"), most=2)
    first, error = measure(probe)
    assert [s.metric for s in first] == ["plugin_status", "plugin_value"]
    assert "1 series beyond the 2 of [site] series" in error
    assert [dict(u.labels)["label"] for u in probe.unseen] == ["b"]

    again, _ = measure(probe)
    assert {s.labels for s in again} == {s.labels for s in first}


def test_a_criterion_hears_only_of_the_plugin_that_it_is_about():
    other = ExecPlugin(NTP.model_copy(update={"name": "disk"}), Allowance(9), run=FakeRun(ended(3)))
    sampler = Sampler([plugin(ended(3)), other], write=lambda _: None, clock=FakeClock())
    sampler.once("plugin.ntp")
    sampler.once("plugin.disk")

    told = sampler.trouble("plugin_status", labels(plugin="ntp"))
    assert "plugin.ntp" in told
    assert "plugin.disk" not in told


def test_a_criterion_that_fails_repeats_what_the_plugin_says():
    clock = FakeClock()
    probe = plugin(ended(2, "CRITICAL: 3 % left | free=3%"), ended(3, "no idea"))
    sampler = Sampler([probe], write=lambda _: None, clock=clock)
    sampler.once("plugin.ntp")

    assert sampler.words("plugin_status", labels(plugin="ntp")) == "CRITICAL: 3 % left"
    assert sampler.words("plugin_status", labels(plugin="other")) == ""
    sampler.once("plugin.ntp")
    assert sampler.words("plugin_status", labels(plugin="ntp")) == "CRITICAL: 3 % left"


def test_what_a_plugin_says_is_repeated_without_the_secrets_in_it():
    probe = plugin(ended(2, "CRITICAL: cannot log in: password=hunter2"))
    list(probe.sample(7.0))

    assert probe.words == "CRITICAL: cannot log in: password=***"


def test_the_command_is_handed_on_as_a_list_and_with_its_time():
    run = FakeRun(ended(0))
    measure(ExecPlugin(NTP, Allowance(9), run=run))

    assert run.orders == [{"argv": list(NTP.command), "timeout": 10.0, "user": ""}]


def test_every_metric_of_plugins_is_declared_and_only_where_there_are_plugins():
    declared = {n for n, m in load(Config(plugin=(NTP,))).metrics.items() if m.source == "plugin"}

    assert declared == set(ExecPlugin.metrics)
    assert not declared & load(Config()).metrics.keys()


def test_steering_characters_of_a_plugin_reach_no_terminal():
    _, error = status(ended(3, "\x1b[2Jgone"))

    assert "\x1b" not in error
