"""What watching costs a job, by turns: with dvfd, with prometheus_client, and with neither.

One run of the reference job, four ranks, unthrottled; every 25 steps its reporter is another
(bench.turns): none, none once more, dvfd's, prometheus_client in multiprocess mode with the same
values. Rounds of four are compared with themselves, so what the machine does for seconds disturbs
all four alike. With dvfd over without is what dvfd costs (B/A); without over without is what the
machine's noise makes of nothing (A/A). Intervals are the bootstrap's over rounds, 95 %.

The daemon is part of what is measured: in turns that are not dvfd's it is stopped (SIGSTOP), and
what it would have done then it does when it goes on. So each of its turns, some two seconds, has at
least one pass over all probes, which comes every five seconds otherwise: dvfd is shown dearer than
it is. In the turns of prometheus_client its endpoint in rank 0 is scraped once.

The calls to the reporter are timed where they are, after a step of training, when caches hold
something else: processor time is what a call takes, system calls included. Elapsed time also counts
what others do when they are given the core meanwhile; with four ranks on fewer cores those are the
other ranks, for whom that time is no loss. An empty call timed in the same place is taken off.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import statistics
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench.harness import build_node, chosen, finish, testbed
from bench.harness import node as tests_node
from bench.record import Figure, at_most
from bench.timed_job import PORT
from bench.turns import ARMS, BLOCK, Step, call, ratio, rounds

SECONDS, SHORT = 600.0, 90.0
"""How long the job trains; it also takes some 10 s to start."""

WARM_UP = 5.0
"""Seconds of a job, from its first step, that do not count: memory and caches fill."""

TIMEOUT = 60.0
"""Seconds of a collective: where the machine is busy with other things, 10 are not enough."""

LIMIT = 1.01
"""Step time with dvfd over without that is asked for at most, where it can be told from A/A."""


def main() -> None:
    """Measure and keep."""
    options = chosen(__doc__, seconds=SECONDS)
    seconds = SHORT if options.short else options.seconds
    with tempfile.TemporaryDirectory() as place:
        ranks = measure(Path(place), seconds)
    found = rounds(ranks[0], WARM_UP)
    if len(found) < 2:
        raise SystemExit(f"{len(found)} rounds in {seconds:g} s: too few, --seconds says how long")
    finish("overhead", options, figures(ranks, found), {"rounds": found})


def measure(place: Path, seconds: float) -> list[list[Step]]:
    """Every step of every rank."""
    node = build_node(place)
    port = testbed.free_port()
    options = (f"--seconds={seconds}", f"--timeout={TIMEOUT}", f"--hash-every={BLOCK}")
    job = place / "job"
    (job / "values").mkdir(parents=True)
    more = {PORT: str(port), "PROMETHEUS_MULTIPROC_DIR": str(job / "values")}
    with (
        tests_node.running(node),
        taking_turns(job / "turn", node.daemon.pid, port),
        tests_node.torchrun(
            "bench.timed_job", str(job), *options,
            environment={**node.environment, **more}, log=job / "job.log",
        ) as training,
    ):  # fmt: skip
        training.wait(seconds + 120)
    files = sorted(job.glob("rank-*.json"))
    if not files:
        words = (job / "job.log").read_text(encoding="utf-8", errors="replace")
        raise SystemExit(f"the job left nothing; its last words:\n{words[-2000:]}")
    return [[Step(*row) for row in json.loads(file.read_text())] for file in files]


@contextlib.contextmanager
def taking_turns(path: Path, daemon: int, port: int) -> Iterator[None]:
    """Let *daemon* run in its own turns only, and scrape *port* once in each of the others': rank 0
    says on the socket at *path* whose comes. In the end the daemon runs.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(path))
        thread = threading.Thread(target=_obey, args=(channel, daemon, port))
        thread.start()
        try:
            yield
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(b"", str(path))
            thread.join()
            os.kill(daemon, signal.SIGCONT)


def _obey(channel: socket.socket, daemon: int, port: int) -> None:
    while arm := channel.recv(64).decode():
        os.kill(daemon, signal.SIGCONT if arm == "dvfd" else signal.SIGSTOP)
        if arm == "prometheus":
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read()


# --- Figures -----------------------------------------------------------------------------------


def figures(ranks: Sequence[Sequence[Step]], found: Sequence[dict[str, float]]) -> list[Figure]:
    """Ratios of step times, then what the calls took."""
    noise = ratio(found, "again", "without")
    cost = ratio(found, "dvfd", "without")
    steps = [round_["without"] for round_ in found]
    return [
        _judged(cost, noise, len(found)),
        _ratio("without", "Step time without over without (A/A)", noise),
        _ratio("prometheus", "Step time with prometheus_client, multiprocess, over without",
               ratio(found, "prometheus", "without")),
        _ratio("against", "Step time with dvfd over with prometheus_client",
               ratio(found, "dvfd", "prometheus")),
        Figure("step", "Step of the reference job, 4 ranks unthrottled, median of rounds",
               1e3 * statistics.median(steps), "ms"),
        *(figure for arm in ARMS[2:] for figure in _calls(ranks, arm, statistics.mean(steps))),
    ]  # fmt: skip


def _judged(
    cost: tuple[float, float, float], noise: tuple[float, float, float], count: int
) -> Figure:
    """What is wanted of B/A: as good as A/A, or at most one per cent."""
    text = f"Step time with dvfd over without (B/A), {count} rounds"
    apart = cost[1] > noise[2]  # not one interval in common, on the wrong side
    within = not apart or cost[2] <= LIMIT
    return replace(_ratio("with", text, cost), wanted=f"as A/A, or <= {LIMIT:g}", reached=within)


def _ratio(name: str, text: str, value: tuple[float, float, float]) -> Figure:
    return Figure(name, text, value[0], "", low=value[1], high=value[2])


def _calls(ranks: Sequence[Sequence[Step]], arm: str, step: float) -> list[Figure]:
    """What a call takes in place, less what an empty one does: of all ranks, medians and means."""
    taken = {
        what: (
            [t for rank in ranks for t in call(rank, arm, what)],
            [t for rank in ranks for empty in ARMS[:2] for t in call(rank, empty, what)],
        )
        for what in ("cpu", "wall")
    }
    mean, median = (
        {what: 1e6 * (of(own) - of(empty)) for what, (own, empty) in taken.items()}
        for of in (statistics.mean, statistics.median)
    )
    share = mean["cpu"] / 1e6 / step
    words = {"dvfd": "Reporter", "prometheus": "prometheus_client"}[arm]
    shared = f"{words} in the reference job: processor time, of a step"
    return [
        at_most(f"{arm}_share", shared, 100 * share, "%", 0.1)
        if arm == "dvfd"
        else Figure(f"{arm}_share", shared, 100 * share, "%"),
        Figure(f"{arm}_cpu", f"{words} between real steps: processor time of a call, median",
               median["cpu"], "us"),
        Figure(f"{arm}_cpu_mean", "The same, mean: with the call that sends", mean["cpu"], "us"),
        Figure(f"{arm}_wall", f"{words} between real steps: elapsed time of a call, median",
               median["wall"], "us"),
        Figure(f"{arm}_wall_mean", "The same, mean: with what others did meanwhile",
               mean["wall"], "us"),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
