"""A real load on this machine: it is there, it says what it is, and nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest
from fakes_drills import judged, task
from fakes_probes import FIXTURES
from testbed import need

from dvfd.clock import SystemClock
from dvfd.drills import bare, gauges, load, tree
from dvfd.drills.heat import Stress
from dvfd.drills.processors import listed
from dvfd.drills.supervise import supervise
from dvfd.drills.workers import burn
from dvfd.errors import ToolError
from dvfd.model import Verdict

SENSORS = FIXTURES / "hwmon_coretemp/sys"

HERE = frozenset(os.sched_getaffinity(0))

pytestmark = pytest.mark.slow


def held(tmp_path, kind, seconds=3.0):
    """The share of these processors that a load got, and its words."""
    work = task("hardware", tmp_path, clock=SystemClock(), run=tree.run)
    meters = gauges.Gauges(work)
    readings = []
    load.hold(work, HERE, seconds, 1.0, lambda: readings.append(meters.read()), kind=kind)
    assert len(readings) == seconds + 1
    return gauges.Span(readings).loaded(HERE), load.words(work)


def burners():
    """Pids of every process whose command line speaks of a load."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes()
            if burn.__name__.encode() in line or b"stress-ng" in line:
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        pytest.param("torch", "float32 matrices", marks=pytest.mark.torch),
        ("stress-ng", "matrixprod"),
        ("python", "far below training's"),
    ],
)
def test_every_processor_is_busy_and_nothing_is_left(tmp_path, kind, words):
    if kind == "stress-ng":
        need("stress-ng")
    before = burners()

    share, said = held(tmp_path, kind)

    assert share > 0.9
    assert words in said
    assert set(burners()) <= set(before)


def test_a_short_stress_judges_sensors_while_the_load_is_real(tmp_path):
    """The sensors are a fixture: they stand still and draw nothing."""
    work = task("hardware", tmp_path, clock=SystemClock(), run=tree.run, sys=SENSORS)
    before = burners()

    found = supervise(work, [Stress(seconds=6, minute=2, every=0.2)])

    results = judged(work, found)
    assert results["temperature"].verdict is Verdict.PASS, results["temperature"]
    assert results["temperature"].observed == 68
    assert results["throttles"].verdict is Verdict.PASS
    assert "no package domain" in results["power_stress"].reason
    assert found.facts[0].text.startswith(f"processors {listed(HERE)} for 6 s: ")
    assert set(burners()) <= set(before)


def test_what_a_tick_raises_ends_the_load_at_once(tmp_path):
    work = task("hardware", tmp_path, clock=SystemClock(), run=tree.run)
    before = burners()
    began = time.monotonic()

    with pytest.raises(KeyboardInterrupt):
        load.hold(
            work, HERE, 60, 1.0, lambda: (_ for _ in ()).throw(KeyboardInterrupt), kind="python"
        )

    assert time.monotonic() - began < 10
    assert set(burners()) <= set(before)


def test_a_processor_that_is_not_there_is_named(tmp_path):
    work = task("hardware", tmp_path, clock=SystemClock(), run=tree.run)

    with pytest.raises(ToolError, match="processor 100000 cannot be loaded: Invalid argument"):
        load.hold(work, {100_000}, 1, 1.0, lambda: None, kind="python")


def test_a_load_that_loses_a_worker_says_which(tmp_path):
    work = task("hardware", tmp_path, clock=SystemClock(), run=tree.run)
    before = burners()

    def kill() -> None:
        newest = max(set(burners()) - set(before))  # the leader came first
        os.kill(newest, 9)

    with pytest.raises(ToolError, match=r"the load on processor \d+ ended early: SIGKILL"):
        load.hold(work, HERE, 30, 1.0, kill, kind="python")

    assert set(burners()) <= set(before)


def test_a_load_ends_with_the_one_who_asked_for_it(tmp_path):
    before = burners()
    argv = [work_python(tmp_path), bare.__file__, burn.__name__, str(tmp_path / "a"), "60", "1"]
    leader = os.posix_spawn(argv[0], [*argv, str(min(HERE)), "python"], os.environ)
    until = time.monotonic() + 10
    while len(set(burners()) - set(before)) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(set(burners()) - set(before)) >= 2

    os.kill(leader, 9)
    os.waitpid(leader, 0)

    while set(burners()) - set(before) and time.monotonic() < until:
        time.sleep(0.05)
    assert set(burners()) <= set(before)


def work_python(tmp_path):
    return task("hardware", tmp_path).python
