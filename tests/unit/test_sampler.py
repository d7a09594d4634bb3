"""The sampler runs probes on a steady beat, and no probe can hurt another or lie by silence."""

from __future__ import annotations

import math
import threading
import time

import pytest
from fakes import FakeClock
from fakes_probes import FakeProbe

from dvfd.errors import NotApplicable, ProbeError
from dvfd.model import Sample, Unseen
from dvfd.sampler import Sampler, following


class Desk:
    """A sampler on a fake clock, and what it wrote."""

    def __init__(self, *probes: FakeProbe, interval: float | None = None) -> None:
        self.clock = FakeClock()
        self.written: list[Sample] = []
        self.sampler = Sampler(
            probes,
            write=self.written.extend,
            clock=self.clock,
            interval=interval,
        )

    def health(self, name: str = "fake"):
        return self.sampler.health()[name]


@pytest.fixture(autouse=True)
def quiet_log(monkeypatch):
    """Keep log lines for the tests that ask for them."""
    said: list[dict[str, object]] = []
    monkeypatch.setattr("dvfd.sampler.log", Log(said))
    return said


class Log:
    def __init__(self, said):
        self.said = said

    def warning(self, event, **keys):
        self.said.append({"event": event, **keys})


def wait_for(condition, seconds=5.0):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.002)
    assert condition()


def test_a_probe_is_not_up_before_its_first_pass():
    desk = Desk(FakeProbe(1))

    assert not desk.health().up
    assert desk.health().error == "has not run yet"
    assert desk.sampler.trouble("m") == "probe fake: has not run yet"


def test_a_pass_is_written():
    desk = Desk(FakeProbe(1))

    desk.sampler.tick()

    assert [s.value for s in desk.written] == [1.0]
    assert desk.health().up
    assert desk.health().last_success == desk.clock.now()
    assert desk.sampler.trouble("m") == ""


def test_a_pass_without_samples_is_no_trouble():
    desk = Desk(FakeProbe([]))

    desk.sampler.tick()

    assert desk.health().up
    assert desk.written == []


def test_probes_run_on_their_own_intervals():
    slow, quick = FakeProbe(1, name="slow", interval=10), FakeProbe(1, name="quick", interval=5)
    desk = Desk(slow, quick)

    for _ in range(4):
        desk.sampler.tick()
        desk.clock.advance(5)

    assert (len(slow.calls), len(quick.calls)) == (2, 4)


def test_the_beat_does_not_drift_when_a_pass_is_late():
    probe = FakeProbe(1)
    desk = Desk(probe)
    for late in (0, 5.4, 4.7, 5.1):
        desk.clock.advance(late)
        desk.sampler.tick()

    assert [round(at - probe.calls[0], 1) for at in probe.calls] == [0.0, 5.4, 10.1, 15.2]


def test_ticks_missed_in_suspend_are_left_out():
    probe = FakeProbe(1)
    desk = Desk(probe)
    desk.sampler.tick()
    desk.clock.advance(3601)

    desk.sampler.tick()
    desk.sampler.tick()

    assert len(probe.calls) == 2
    assert following(0, 5, 3601) == 3605


def test_a_step_of_the_wall_clock_moves_no_beat():
    probe = FakeProbe(1)
    desk = Desk(probe)
    desk.sampler.tick()
    desk.clock.step(-86400)
    desk.clock.advance(5)

    desk.sampler.tick()

    assert len(probe.calls) == 2


def test_the_interval_of_the_sampler_is_a_cap():
    quick, slow = FakeProbe(1, name="quick", interval=1), FakeProbe(1, name="slow", interval=60)
    desk = Desk(quick, slow, interval=5)
    for _ in range(6):
        desk.sampler.tick()
        desk.clock.advance(1)

    assert (len(quick.calls), len(slow.calls)) == (6, 2)


def test_samples_before_an_exception_are_kept():
    desk = Desk(FakeProbe([1, ProbeError("disk 2: gone")]))

    desk.sampler.tick()

    assert [s.value for s in desk.written] == [1.0]
    assert not desk.health().up
    assert desk.sampler.trouble("m") == "probe fake, 0 s ago: disk 2: gone"


def test_a_failed_pass_keeps_the_time_of_the_last_success():
    desk = Desk(FakeProbe(1, ProbeError("gone")))
    desk.sampler.tick()
    first = desk.clock.now()
    desk.clock.advance(5)

    desk.sampler.tick()

    assert desk.health().last_success == first
    assert desk.health().last_run == first + 5


def test_a_probe_that_breaks_does_not_stop_the_others():
    desk = Desk(FakeProbe(KeyError("x"), name="broken"), FakeProbe(2, name="sound"))

    desk.sampler.tick()

    assert [s.value for s in desk.written] == [2.0]
    assert desk.health("broken").error == "KeyError: 'x'"
    assert desk.health("sound").up


def test_what_does_not_apply_is_no_failure():
    desk = Desk(FakeProbe(NotApplicable("no GPU by profile")))

    desk.sampler.tick()

    assert desk.health().not_applicable
    assert desk.health().up
    assert desk.health().error == "no GPU by profile"
    assert "no GPU by profile" in desk.sampler.trouble("m")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_dropped_and_an_error(value):
    desk = Desk(FakeProbe([Sample("m", value, 0.0, (("rank", "3"),)), 1]))

    desk.sampler.tick()

    assert [s.value for s in desk.written] == [1.0]
    assert not desk.health().up
    assert "m{rank=3}" in desk.health().error
    assert desk.sampler.counts()["fake"].dropped == 1


def test_a_metric_that_was_not_declared_is_dropped_and_an_error():
    desk = Desk(FakeProbe([Sample("other", 1.0, 0.0)]))

    desk.sampler.tick()

    assert desk.written == []
    assert desk.health().error == "dropped: other is not declared"


def test_a_bad_bound_of_an_interval_is_dropped():
    desk = Desk(FakeProbe([Sample("m", 1.0, 0.0, low=math.nan, high=2.0)]))

    desk.sampler.tick()

    assert desk.written == []


def test_a_gap_is_named_while_the_probe_is_well():
    probe = FakeProbe(1, metrics=("m", "n"))
    probe.gaps = {"n": "not supported"}
    desk = Desk(probe)

    desk.sampler.tick()

    assert desk.health().up
    assert desk.health().error == "no n: not supported"
    assert desk.sampler.trouble("n") == "probe fake: not supported"
    assert desk.sampler.trouble("m") == ""


def test_a_series_that_a_probe_could_not_tell_is_missed_where_it_may_be_meant():
    probe = FakeProbe(1)
    probe.unseen = (Unseen("m", "b.prom: broken", (("gpu", "1"),)),)
    told = Desk(probe).sampler.unseen

    assert told("m") == told("m", (("gpu", "1"),)) == "probe fake: b.prom: broken"
    assert told("m", (("gpu", "0"),)) == told("n") == ""


def test_a_metric_that_nobody_measures_is_trouble():
    assert Desk(FakeProbe(1)).sampler.trouble("x") == "no probe here measures x"


def test_a_probe_that_stopped_being_run_is_trouble():
    desk = Desk(FakeProbe(1))
    desk.sampler.tick()

    desk.clock.advance(60)

    assert desk.sampler.trouble("m") == "probe fake last ran 60 s ago, wanted every 5 s"


def test_the_same_message_is_logged_once_an_hour(quiet_log):
    desk = Desk(FakeProbe(RuntimeError("again")), interval=600)
    for _ in range(3):
        desk.sampler.tick()
        desk.clock.advance(5)
    assert len(quiet_log) == 1

    desk.clock.advance(3600)
    desk.sampler.tick()

    assert len(quiet_log) == 2


def test_messages_that_never_repeat_do_not_flood_the_log(quiet_log):
    desk = Desk(FakeProbe(*(RuntimeError(str(n)) for n in range(100))))
    for _ in range(100):
        desk.sampler.tick()
        desk.clock.advance(5)

    assert len(quiet_log) == 20


def test_two_probes_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two probes of one name"):
        Desk(FakeProbe(1), FakeProbe(1))


def test_the_loop_shows_that_it_lives():
    desk = Desk(FakeProbe(1, interval=60))
    desk.sampler.tick()
    desk.clock.advance(2)

    wait = desk.sampler.tick()

    assert desk.sampler.beat() == desk.clock.boot()
    assert wait <= 2


def test_a_call_that_hangs_is_overdue_and_alone():
    free = threading.Event()
    stuck = FakeProbe(free.wait, name="stuck", deadline=5.0, metrics=("s",))
    desk = Desk(stuck, FakeProbe(1, name="sound"))
    desk.sampler.start()
    wait_for(lambda: stuck.calls and desk.written)

    desk.clock.advance(6)

    assert desk.health("stuck").overdue
    assert not desk.health("stuck").up
    assert desk.health("sound").up
    assert "still running after 6 s, deadline 5 s" in desk.sampler.trouble("s")
    free.set()
    desk.sampler.stop()


def test_a_call_that_hangs_never_gets_a_second_beside_it():
    free = threading.Event()
    stuck = FakeProbe(free.wait, interval=0.01, deadline=5.0)
    desk = Desk(stuck)
    desk.sampler.start()
    wait_for(lambda: stuck.calls)

    desk.clock.advance(600)
    time.sleep(0.05)

    assert len(stuck.calls) == 1
    free.set()
    desk.sampler.stop()


def test_what_comes_after_the_deadline_is_thrown_away():
    probe = FakeProbe([lambda: desk.clock.advance(6), 1], 2, deadline=5.0)
    desk = Desk(probe)

    desk.sampler.once("fake")
    assert desk.written == []
    assert desk.health().error == "took 6.0 s, deadline 5 s: 1 samples thrown away"
    assert desk.sampler.counts()["fake"].overdue == 1

    desk.sampler.once("fake")
    assert [s.value for s in desk.written] == [2.0]
    assert desk.health().up


def test_a_stuck_call_does_not_hold_up_the_end():
    free = threading.Event()
    stuck = FakeProbe(free.wait, deadline=5.0)
    desk = Desk(stuck)
    desk.sampler.start()
    wait_for(lambda: stuck.calls)
    desk.clock.advance(6)

    began = time.monotonic()
    desk.sampler.stop()

    assert time.monotonic() - began < 30  # the call is stuck for good
    free.set()


def test_a_probe_whose_thread_died_is_not_up(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    probe = FakeProbe(1, deadline=5.0)
    desk = Desk(probe)
    desk.sampler._write = lambda _: 1 / 0
    desk.sampler.start()
    wait_for(lambda: "thread has ended" in desk.health().error)

    assert not desk.health().up
    desk.sampler.stop()
