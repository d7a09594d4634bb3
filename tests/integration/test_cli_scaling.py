"""`dvfd scaling` and the scripts by the source's names, with a daemon and without."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from getpass import getuser
from pathlib import Path

import pytest
from fakes_scaling import SOURCE
from node import Node, running

from dvfd.drills import trial as trials
from dvfd.scaling.measuring import measure

HERE = Path(__file__).parents[1]
JOB = HERE / "reporting_job.py"


def call(node: Node, *argv: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *argv],
        env=node.environment, text=True, capture_output=True, timeout=100, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done


def scaling(node: Node, *words: str) -> subprocess.CompletedProcess[str]:
    return call(node, "-m", "dvfd", "scaling", *words)


def enter(node: Node, processes: int, throughput: float) -> subprocess.CompletedProcess[str]:
    return scaling(
        node, "record", f"--processes={processes}", f"--throughput={throughput}", "--job=source",
        "--name=The source", "--note=its own series",
    )  # fmt: skip


@pytest.fixture
def alone(tmp_path: Path) -> Node:
    return Node(tmp_path, [])


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Node]:
    with running(Node(tmp_path, [])) as node:
        yield node


def test_without_a_store_the_ledger_is_empty_and_says_what_to_type(alone: Node) -> None:
    done = scaling(alone)
    assert (done.returncode, "dvfd scaling measure --processes 1" in done.stdout) == (0, True)
    assert scaling(alone, "project").returncode == 3
    assert not (alone.directory / "state").exists()


@pytest.mark.long
def test_the_sources_series_from_end_to_end(alone: Node) -> None:
    """Entered, listed, projected, frozen, judged: the figures are those of the source."""
    for processes in (1, 4):
        assert enter(alone, processes, SOURCE[processes]).returncode == 0
    frozen = scaling(alone, "project", "--processes=8", "--freeze", "--name=Ann", "-o", "json")
    assert json.loads(frozen.stdout)["frozen"]["submitted"] == getuser()
    for processes in (8, 12):
        enter(alone, processes, SOURCE[processes])

    listed = json.loads(scaling(alone, "-o", "json").stdout)
    assert [row["efficiency"] for row in listed["rows"]] == pytest.approx([1.08076, 1.2, 1.2])
    assert listed["rows"][1]["projection_error"] == pytest.approx(600 / 561.777 - 1, abs=1e-4)
    assert "super-linear: verify the baseline" in scaling(alone).stdout

    page = alone.directory / "p.html"
    said = scaling(alone, "project", "--processes=16", f"--html={page}").stdout
    assert "16 processes: 1088 samples/s (1088 to 1236.2), 108.8% of linear" in said
    assert "12 processes left out, the fit misses them by +11.1%" in said
    assert "1088" in page.read_text()

    done = call(alone, str(HERE / "4node_scaling_projection.py"), "-o", "json")
    rows = {r["criterion"].partition(".")[2]: r for r in json.loads(done.stdout)["results"]}
    assert done.returncode == 2
    assert rows["left_out"]["verdict"] == "FAIL"
    assert rows["throughput"]["verdict"] == "UNKNOWN"
    assert "entered by a person, not measured by dvfd" in rows["throughput"]["reason"]


def test_a_daemon_keeps_what_is_entered_and_judges_by_it(watched: Node) -> None:
    for processes in (1, 8):
        enter(watched, processes, 60.0 * processes)
    frozen = scaling(watched, "project", "--processes=16", "--freeze", "--name=Ann")
    assert "frozen as projection 1: sha256" in frozen.stdout
    done = call(watched, str(HERE / "scaling_efficiency_validation.py"), "-o", "json")
    rows = {r["criterion"].partition(".")[2]: r for r in json.loads(done.stdout)["results"]}
    assert done.returncode == 2
    assert rows["efficiency"]["verdict"] == rows["superlinear"]["verdict"] == "FAIL"
    assert rows["projection_floor"]["verdict"] == "UNKNOWN"
    assert [p["processes"] for p in watched.ask("scaling")["points"]] == [1, 8]

    later = str(HERE / "scaling_efficiency_validation.py")
    report = json.loads(call(watched, later, "--processes=12", "-o", "json").stdout)
    rows = {r["criterion"].partition(".")[2]: r for r in report["results"]}
    assert (report["drill"]["processes"], report["verdict"]) == (12, "UNKNOWN")
    assert "no throughput of 12 processes" in rows["efficiency"]["reason"]  # eight had failed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("scaling_efficiency", "--processes=10"), "--processes 10: it judges 8 or 12 or 16"),
        (("gradient_sync", "--processes=8"), "it judges no process counts apart"),
        (("scaling_efficiency", "--processes=8", "--no-run"), "--processes is of a run"),
    ],
)
def test_a_count_that_no_phase_has_is_refused(
    alone: Node, words: tuple[str, ...], says: str
) -> None:
    done = call(alone, "-m", "dvfd", "check", *words)
    assert done.returncode == 3
    assert says in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("record", "--processes=4", "--throughput=nan", "--job=a", "--name=A", "--note=n"),
         "a throughput of nan samples/s"),
        (("record", "--processes=4", "--throughput=-1", "--job=a", "--name=A", "--note=n"),
         "a throughput of -1.0 samples/s"),
        (("record", "--processes=0", "--throughput=1", "--job=a", "--name=A", "--note=n"), "x>=1"),
        (("record", "--processes=4", "--throughput=1", "--name=A", "--note=n"), "give --job NAME"),
        (("record", "--processes=4", "--throughput=1", "--job=a", "--name=A", "--note=n",
          "--at=soon"), "a time like"),
        (("project", "--freeze"), "go together"),
        (("project", "--name=A", "--freeze", "--below=8"), "what is frozen rests on all counts"),
        (("project", "--processes=1"), "x>=2"),
        (("measure", "--processes=1", "--seconds=1"), "Invalid value for '--seconds'"),
        (("--configuration=zz",), "no configuration begins with 'zz'"),
    ],
)  # fmt: skip
def test_wrong_words_are_refused_in_words(alone: Node, words: tuple[str, ...], says: str) -> None:
    done = scaling(alone, *words)
    assert done.returncode == 3
    assert says in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_training_is_heard_and_its_windows_make_an_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fakes_drills import task

    from dvfd.clock import SystemClock
    from dvfd.drills import tree

    monkeypatch.setattr(trials, "WINDOW", 0.3)
    monkeypatch.setattr(trials, "WARM_UP", 0.3)
    chosen = task("scaling_efficiency", tmp_path, clock=SystemClock(), run=tree.run)
    command = [sys.executable, str(JOB), "2", "8", "0.05"]
    point = measure(chosen, command, processes=2, seconds=4.0, by="Ann")
    assert 100 < point.throughput < 330  # 2 x 8 / 0.05 = 320, less what sleeping costs
    assert point.low is not None
    assert point.high is not None
    assert point.low <= point.throughput <= point.high
    assert len(point.windows) >= 6
    assert 3.0 < point.ended - point.began < 10.0
    assert point.wrong() == ""
