"""Seconds from a fault until a real Alertmanager has told a webhook of it.

Three faults, each in a job of its own of four simulated ranks (real processes with the real
Reporter, ten steps a second), at a random moment between two samples: SIGKILL of a rank, a NaN
loss, SIGSTOP of a rank. Then each once in the real reference job. Alertmanager waits for nothing
(`group_wait: 0s`); a site's own group_wait comes on top. A stop is silence, and P99 of the steps
is 0.1 s here, so its limit is the floor of 10 s. A fault counts from just before the signal is
sent; a NaN from just before the rank reports it, for which the job's own step time comes on top.

Alertmanager keeps the group of an alert that was resolved for up to 30 s, and what comes into a
group waits for the next beat of its `group_interval`, 1 s here. So most trials wait up to a second
for nothing that dvfd does; the shortest shows the way alone.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import build_node, chosen, finish, quantile, testbed
from bench.harness import node as tests_node
from bench.record import Figure, at_most, exactly
from bench.simulated import simulated
from bench.timed_job import timed_job

SAMPLING = 5.0
GIVE_UP = 40.0
"""Seconds after which a fault counts as missed: four times the longest limit."""

TRIALS = 12

NAN_STEP = 80
REFERENCE = ("--step-time=0.2", "--timeout=60")

Injection = Callable[[subprocess.Popen[str]], float]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to a rank, which criterion must page, and within how many seconds."""

    name: str
    text: str
    criterion: str
    limit: float
    inject: Injection


@dataclass(frozen=True, slots=True)
class Scene:
    """The daemon, and what hears of its alerts."""

    node: Any
    hook: Any

    def told(self, criterion: str, since: float) -> float | None:
        """Seconds from monotonic time *since* until *criterion* was told; None if it never was."""
        while time.monotonic() < since + GIVE_UP:
            if alerts := self.hook.matching("firing", criterion=criterion):
                return float(alerts[0]["received"]) - since
            time.sleep(0.01)
        return None

    def calm(self, criterion: str) -> None:
        """Wait until *criterion* does not fire, and forget what was told."""
        testbed.eventually(lambda: criterion not in self._firing(), 90, every=0.2)
        time.sleep(1.5)  # Alertmanager's group_interval: the last "resolved" arrives
        self.hook.alerts.clear()

    def _firing(self) -> list[str]:
        return [alert["key"] for alert in self.node.ask("status")["alerts"]]


def _signal(number: signal.Signals) -> Injection:
    def inject(rank: subprocess.Popen[str]) -> float:
        since = time.monotonic()
        rank.send_signal(number)
        return since

    return inject


def _poison(rank: subprocess.Popen[str]) -> float:
    rank.send_signal(signal.SIGUSR1)
    assert rank.stdout
    return float(rank.stdout.readline())


KILL = Fault("kill", "SIGKILL of a rank", "live.responding", 2, _signal(signal.SIGKILL))
NAN = Fault("nan", "NaN loss", "live.loss_finite", 2, _poison)
STOP = Fault("stop", "SIGSTOP of a rank", "live.responding", 10, _signal(signal.SIGSTOP))
FAULTS = (KILL, NAN, STOP)


def main() -> None:
    """Measure and keep."""
    options = chosen(__doc__)
    trials = 1 if options.short else TRIALS
    with tempfile.TemporaryDirectory() as place, testbed.Webhook() as hook:
        directory = Path(place)
        with testbed.alertmanager(directory, hook.url) as pager:
            node = build_node(directory / "node", [pager.url])
            with tests_node.running(node):
                scene = Scene(node, hook)
                found = {f.name: [_trial(scene, f, n) for n in range(trials)] for f in FAULTS}
                reference = _reference(scene, directory / "job")
    figures = [figure for fault in FAULTS for figure in _figures(fault, found[fault.name])]
    figures += [
        Figure(f"{fault.name}_reference", f"{fault.text} in the reference job, once", seconds, "s")
        for fault in FAULTS
        if (seconds := reference[fault.name]) is not None
    ]
    finish("detection", options, figures, {"simulated": found, "reference": reference})


def _trial(scene: Scene, fault: Fault, number: int) -> float | None:
    """One fault in one fresh job."""
    job = f"{fault.name}-{number}"
    with simulated(scene.node, job) as ranks:
        scene.calm(fault.criterion)
        time.sleep(random.uniform(0, SAMPLING))
        told = scene.told(fault.criterion, fault.inject(random.choice(ranks)))
    scene.node.ask("forget", job=job)
    return told


def _reference(scene: Scene, directory: Path) -> dict[str, float | None]:
    """Each fault once in the real job: NaN, then a stop, then a kill."""
    found: dict[str, float | None] = {}
    environment = scene.node.environment | {"DVFD_FAULT": f"nan@{NAN_STEP}"}
    with timed_job(directory, environment, *REFERENCE):
        mark = directory / "nan"
        testbed.eventually(mark.exists, 120)
        found["nan"] = scene.told(NAN.criterion, float(mark.read_text(encoding="utf-8")))
        for fault, number in ((STOP, signal.SIGSTOP), (KILL, signal.SIGKILL)):
            scene.calm(fault.criterion)
            pid = scene.node.pids("reference")[2]
            since = time.monotonic()
            os.kill(pid, number)
            found[fault.name] = scene.told(fault.criterion, since)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    return found


def _figures(fault: Fault, told: list[float | None]) -> list[Figure]:
    """All trials must be within the limit; quantiles are of those that were told at all."""
    name, text = fault.name, f"{fault.text} to the webhook"
    heard = [each for each in told if each is not None]
    missed = f"{fault.text}: of {len(told)} missed"
    figures = [exactly(f"{name}_missed", missed, len(told) - len(heard), "trials", 0)]
    if not heard:
        return figures
    return [
        Figure(f"{name}_shortest", f"{text}, shortest of {len(heard)}", min(heard), "s"),
        Figure(f"{name}_median", f"{text}, median", quantile(heard, 0.5), "s"),
        Figure(f"{name}_p95", f"{text}, p95", quantile(heard, 0.95), "s"),
        at_most(f"{name}_max", f"{text}, longest of {len(heard)}", max(heard), "s", fault.limit),
        *figures,
    ]


if __name__ == "__main__":
    main()
