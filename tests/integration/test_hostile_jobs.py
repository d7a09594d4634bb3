"""Jobs that lie, die, fork, copy what they should not, and share a node with other users."""

from __future__ import annotations

import ast
import contextlib
import copy
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fakes_telemetry import FakeStore, without_launcher
from rank_processes import FOREVER, Daemon, process, until
from testbed import reachable

from dvfd.telemetry import reporter as vendored
from dvfd.telemetry.reporter import Reporter

pytestmark = pytest.mark.machine  # processes are seen as on a node without namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

ANOTHER = 65534
"""The uid of somebody else: nobody."""


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    without_launcher(monkeypatch)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path / "ingest.sock", FakeStore()) as found:
        yield found


def labels(daemon: Daemon) -> dict[str, str]:
    return {job["job"]: job["state"] for job in daemon.book.snapshot()}


# --- Workers of data loaders ----------------------------------------------------------------------

LOADER = """
import os, sys, time
import torch
from torch.utils.data import DataLoader, Dataset
from dvfd.telemetry.reporter import Reporter

reporter = Reporter("loaders", interval=0.05)  # in the script itself, which workers read again

class Numbers(Dataset):
    def __init__(self, reporter): self.reporter = reporter  # it goes into each worker
    def __len__(self): return 32
    def __getitem__(self, i): return torch.tensor([i])

def main():
    step = 0
    for how in ("fork", "spawn", "forkserver"):
        loader = DataLoader(Numbers(reporter), batch_size=8, num_workers=1,
                            multiprocessing_context=how)
        for batch in loader:
            step += 1
            reporter.step(step, samples=8, loss=float(batch.float().mean()))
    reporter.pause(60)  # an event goes at once, and what waits before it
    open(sys.argv[1], "w").write(str(step))
    input()

if __name__ == "__main__":
    main()
"""


@pytest.mark.torch
@pytest.mark.slow
def test_no_worker_of_a_data_loader_is_a_rank(daemon: Daemon, tmp_path: Path) -> None:
    script, done = tmp_path / "loader.py", tmp_path / "done"
    script.write_text(LOADER)
    environment = {**os.environ, "DVFD_SOCKET": daemon.path}
    with subprocess.Popen(
        [sys.executable, script, done], env=environment, stdin=subprocess.PIPE
    ) as job:
        until(lambda: done.exists() or job.poll() is not None, 120)
        assert done.read_text() == "12"
        until(lambda: daemon.book.jobs()[0].ranks[0].steps_total == 12)
        assert labels(daemon) == {"loaders": "running"}
        assert daemon.receiver.counters()["lines"] == 1
        job.kill()  # without a word
    until(lambda: labels(daemon) == {"loaders": "not responding"})


def test_a_copy_of_a_reporter_is_silent_until_it_reports(daemon: Daemon) -> None:
    first = daemon.reporter(rank=1, world_size=2, checkpoint_every=7)
    for second in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        second.end()
        assert not second.stats()["rows"]
    until(lambda: len(daemon.book.jobs()) == 1)
    assert daemon.receiver.counters()["lines"] == 1

    second.step(3)
    until(lambda: daemon.book.jobs()[0].ranks[1].step == 3)
    assert (daemon.book.jobs()[0].saves.every, daemon.book.jobs()[0].counters.restarts) == (7, 0)


def test_one_that_could_not_be_built_can_be_copied_too() -> None:
    broken = Reporter(capacity="x")  # type: ignore[arg-type]
    pickle.loads(pickle.dumps(broken)).step(1)


# --- Several users --------------------------------------------------------------------------------

ROBBER = """
r.end("taken over"); r.end()
for rank in (0, 1, 0):
    thief = Reporter(job="gpt", run="r", rank=rank, world_size=2, socket={path!r}, interval=0.0)
    thief._session = {session}
    thief._socket = None
    thief.step(999, loss=float("nan")); thief.exception("mine"); thief.end("mine")
for name in ("gpt~{uid}", "gpt~2"):
    Reporter(job=name, run="r", socket={path!r}, interval=0.0).step(999)
open({done!r}, "w").close()
time.sleep(60)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_nobody_ends_renames_or_claims_the_job_of_another(daemon: Daemon, tmp_path: Path) -> None:
    place = tmp_path / "robber"
    place.mkdir()
    shutil.copy(vendored.__file__, place / "reporter.py")
    reachable(tmp_path)
    for folder in (place, tmp_path):
        folder.chmod(0o777)
    victim = daemon.reporter(run="r", rank=0, world_size=2)
    victim.step(1, loss=1.0)
    until(lambda: daemon.book.jobs() and daemon.book.jobs()[0].ranks[0].step == 1)
    session = daemon.book.jobs()[0].ranks[0].session
    done = tmp_path / "robber/done"
    words = {"path": daemon.path, "uid": os.getuid(), "done": str(done)}
    code = f"import os, sys, time\nos.setgid({ANOTHER}); os.setuid({ANOTHER})\n" + textwrap.dedent(
        f"""
        sys.path.insert(0, {str(place)!r})
        from reporter import Reporter
        r = Reporter(job="gpt", run="r", rank=0, world_size=2, socket={daemon.path!r}, interval=0.0)
        """
    )
    nonce = int(session.rpartition("-")[2], 16)  # suppose that it was guessed
    code += ROBBER.format(session=nonce, **words)
    with subprocess.Popen(
        [shutil.which("python3", path="/usr/bin:/bin") or sys.executable, "-S", "-c", code]
    ) as robber:
        until(lambda: done.exists() or robber.poll() is not None)
        assert done.exists()
        victim.step(2, loss=1.0)
        until(lambda: daemon.book.jobs()[0].ranks[0].step == 2)
        until(lambda: len(daemon.book.all()) > 1)
        robber.kill()
    mine, *others = daemon.book.all()
    assert (mine.label, mine.uid, mine.ended, list(mine.ranks)) == ("gpt", os.getuid(), None, [0])
    assert (mine.ranks[0].session, mine.ranks[0].steps_total) == (session, 2)
    assert (mine.counters.nonfinite, mine.counters.exceptions, mine.counters.restarts) == (0, 0, 0)
    assert {job.uid for job in others} == {ANOTHER}
    assert all(job.label.startswith(f"gpt~{ANOTHER}") for job in others)


# --- Ranks that lie -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lie",
    [
        {"world_size": 10**9}, {"rank": 7, "world_size": 2}, {"rank": -1}, {"world_size": 0},
        {"job": math.nan}, {"job": "a\x00b"}, {"run": "r" * 1000}, {"local_world_size": 9},
        {"local_rank": -3}, {"checkpoint_every": -1}, {"world_size": 2**70},
    ],
    ids=str,
)  # fmt: skip
def test_a_rank_that_lies_of_itself_is_refused_and_the_others_go_on(
    daemon: Daemon, lie: dict
) -> None:
    honest = daemon.reporter(rank=0, world_size=2)
    liar = Reporter(**{"job": "liar", "socket": daemon.path, "interval": 0.0, **lie})
    liar.step(1, loss=math.nan)
    until(lambda: daemon.receiver.counters()["malformed"] >= 1)
    honest.step(1, loss=1.0)
    until(lambda: daemon.book.jobs() and daemon.book.jobs()[0].ranks[0].step == 1)
    assert labels(daemon) == {"gpt": "incomplete"}


def test_steps_that_no_job_makes_are_left_out_and_counted(daemon: Daemon) -> None:
    reporter = daemon.reporter()
    for step in (5, -1, -(2**63), 2**63 - 1, 6):
        reporter.step(step, samples=-5, compute=1e9, loss=1.0)
    until(lambda: daemon.book.jobs() and daemon.book.jobs()[0].ranks[0].step == 6)
    rank = daemon.book.jobs()[0].ranks[0]
    assert (rank.steps_total, rank.totals.samples, rank.totals.compute) == (2, 0.0, 0.0)
    assert daemon.receiver.counters()["implausible"] == 3 + 2 * 2


def test_a_clock_of_the_job_that_leaps_moves_no_step(daemon: Daemon) -> None:
    body = """
    for i in range(1, 41):
        time.time = lambda: 1e9 * (i % 3)
        r.step(i, samples=1, loss=1.0); time.sleep(0.02)
    r.checkpoint_saved("/c", 40); time.sleep(60)
    """
    with process(daemon, textwrap.dedent(body)):
        until(lambda: daemon.book.jobs() and daemon.book.jobs()[0].saves.saved)
    (job,) = daemon.book.all()
    assert job.ranks[0].steps_total == 40
    assert 0.015 < job.ranks[0].pace.median() < 2
    assert abs(job.saves.saved_at - daemon.book._clock.now()) < 60


# --- Runs that come and go ------------------------------------------------------------------------


def test_two_runs_of_one_name_are_two_jobs_and_the_next_takes_the_first_ones_place(
    daemon: Daemon,
) -> None:
    with process(daemon, FOREVER) as first:
        until(lambda: labels(daemon) == {"gpt": "running"})
        with process(daemon, FOREVER.replace("while", "r._who['run'] = 's'\nwhile")):
            until(lambda: labels(daemon) == {"gpt": "running", "gpt~2": "running"})
        first.send_signal(signal.SIGKILL)
        until(lambda: set(labels(daemon).values()) == {"not responding"})
        with process(daemon, FOREVER):
            until(lambda: labels(daemon).get("gpt") == "running")
            assert len(daemon.book.all()) == 2


def test_thousands_of_short_jobs_leave_a_bounded_book_with_room_for_the_next(
    daemon: Daemon,
) -> None:
    for number in range(2000):
        with daemon.reporter(job=f"short{number}", capacity=2, batch=1) as reporter:
            reporter.step(1, loss=1.0)
    until(lambda: not daemon.receiver._lines)
    assert len(daemon.book.all()) <= 16
    assert len(daemon.store.documents["job"]) <= 16
    assert len(daemon.store.documents["rank"]) <= 16
    daemon.reporter(job="next").step(1)
    until(lambda: labels(daemon).get("next") == "running")


# --- Every Python ---------------------------------------------------------------------------------


def pythons() -> list[str]:
    """Each Python from 3.8 on that is here."""
    kept = Path.home() / ".pyenv/versions"
    found = [*map(str, kept.glob("3.*/bin/python")), *filter(None, map(shutil.which, NAMES))]
    minors = {}
    for python in found:
        with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
            asked = [python, "-c", "import sys; print(sys.version_info[1])"]
            minors[
                int(subprocess.run(asked, capture_output=True, timeout=30, check=False).stdout)
            ] = python
    return [minors[minor] for minor in sorted(minors) if minor >= 8]


NAMES = [f"python3.{minor}" for minor in range(8, 15)]


def test_the_reporter_runs_on_every_python_here(daemon: Daemon) -> None:
    body = """
    import copy, pickle
    pickle.loads(pickle.dumps(r)).end(); copy.deepcopy(r).end()
    for i in range(1, 31): r.step(i, loss=2.0, lr=1e-3, samples=4)
    if os.fork() == 0: os._exit(0)
    os.wait()
    r.checkpoint_begin("/c", 30); r.checkpoint_saved("/c", 30); r.exception(ValueError("x"))
    r.pause(5, "validation"); r.end()
    """
    for number, python in enumerate(pythons(), 1):
        with process(daemon, textwrap.dedent(body), python) as child:
            assert child.wait() == 0
            until(lambda number=number: daemon.receiver.counters()["events"] == 5 * number)
    assert {job["state"] for job in daemon.book.snapshot()} == {"ended"}
    assert daemon.receiver.counters()["malformed"] == 0


ALLOWED = {"atexit", "collections", "functools", "itertools", "json", "os", "select", "socket",
           "struct", "sys", "threading", "time", "types", "typing", "weakref"}  # fmt: skip


def test_the_reporter_speaks_python_3_8_and_imports_what_that_has() -> None:
    tree = ast.parse(Path(vendored.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert imported - {"__future__"} <= ALLOWED | {"collections.abc"}
    # What 3.8 lacks in spite of its grammar: generics of built-in types outside annotations.
    defaults = [n for n in ast.walk(tree) if isinstance(n, ast.Subscript)]
    builtin = {"dict", "list", "tuple", "set", "type"}
    evaluated = [
        n for n in defaults
        if isinstance(n.value, ast.Name) and n.value.id in builtin and not _annotates(tree, n)
    ]  # fmt: skip
    assert not evaluated


def _annotates(tree: ast.AST, wanted: ast.AST) -> bool:
    """Whether *wanted* lies in an annotation, which `from __future__ import annotations` defers."""
    notes = [getattr(n, name, None) for n in ast.walk(tree) for name in ("annotation", "returns")]
    return any(wanted is part for note in notes if note is not None for part in ast.walk(note))
