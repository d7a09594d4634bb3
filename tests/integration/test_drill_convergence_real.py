"""Real training on two ranks and on one: mistakes that matter are found, rounding is none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes_drills import judged, task, verdicts
from fakes_training import WRONG, mistaken

from dvfd.clock import SystemClock
from dvfd.drills import convergence, tree
from dvfd.drills.convergence import Convergence
from dvfd.drills.curve import Configuration, read
from dvfd.drills.drill import Options, Task
from dvfd.drills.findings import Findings
from dvfd.drills.supervise import supervise
from dvfd.model import Verdict

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.long, pytest.mark.torch, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
TWO = "[profile]\nprocesses_per_node = 2\n"
SMALL = Configuration(width=32, layers=1, context=32)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learn from the same 625 steps wherever this runs: a loss that still falls at the end of a
    longer run is rightly unknown. How fast it went is measured, and not believed."""
    monkeypatch.setattr(convergence, "MEASURING", (0.3, 0.3))
    monkeypatch.setattr(Convergence, "_speeds", unheeded(Convergence._speeds))


def unheeded(measured: Callable[..., Any]) -> Callable[..., dict[int, float]]:
    """Speeds that give 625 steps in ten seconds, once others were *measured*."""
    return lambda self, task: measured(self, task) and {2: 1500.0, 1: 3000.0}


def real(directory: Path, *, toml: str = TWO, run: Any = tree.run, duration: float = 10.0) -> Task:
    options = Options(duration=duration)
    clock = SystemClock()
    return task(
        "loss_convergence", directory, toml=toml, run=run, clock=clock, options=options, say=print
    )


def drilled(given: Task) -> Findings:
    """Findings, as if nobody had shortened the run: what they would be judged as."""
    return replace(supervise(given, [Convergence(model=SMALL)]), planned=0.0)


def test_equal_training_passes_and_so_does_another_order_of_the_sum(tmp_path: Path) -> None:
    plain, ordered = real(tmp_path / "plain"), real(tmp_path / "order", run=mistaken("order"))

    found = [judged(given, drilled(given)) for given in (plain, ordered)]

    for each in found:
        assert set(verdicts(each).values()) == {Verdict.PASS}
    assert left_running() == []


def test_a_wrong_learning_rate_fails(tmp_path: Path) -> None:
    given = real(tmp_path, run=mistaken("rate"))

    found = judged(given, drilled(given))

    assert found["curve"].verdict is Verdict.FAIL, found["curve"].reason
    assert left_running() == []


def test_a_rank_that_dies_is_unknown_and_the_next_run_goes_on_from_there(tmp_path: Path) -> None:
    given = real(tmp_path, run=mistaken("dies"))

    died = judged(given, drilled(given))
    assert left_running() == []
    resumed = judged(given, drilled(given))

    assert set(verdicts(died).values()) == {Verdict.UNKNOWN}
    assert "rank 1 ended first, exit code -9" in died["curve"].reason
    assert set(verdicts(resumed).values()) == {Verdict.PASS}, reasons(resumed)


def reasons(found: dict[str, Any]) -> dict[str, str]:
    return {name: result.reason for name, result in found.items()}


def test_an_interpreter_without_torch_is_unknown_in_words(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    python.chmod(0o755)
    given = real(tmp_path, toml=f'{TWO}[drills]\npython = "{python}"\n')

    found = judged(given, drilled(given))

    assert set(verdicts(found).values()) == {Verdict.UNKNOWN}
    assert "No module named 'torch'" in found["curve"].reason


INSIDE = """
import os, sys
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
from dvfd.drills import convergence
convergence.MEASURING = (0.3, 0.3)
if os.environ["RANK"] != "0":
    convergence.follow("gloo")
import test_drill_convergence_real as here
from fakes_drills import judged, verdicts
from dvfd.drills.supervise import supervise
convergence.Convergence._speeds = here.unheeded(convergence.Convergence._speeds)
given = here.real(Path({place!r}))
part = convergence.Convergence(convergence.Ranks("gloo"), here.SMALL)
found = here.replace(supervise(given, [part]), planned=0.0)
print("VERDICTS", *sorted(set(verdicts(judged(given, found)).values())), flush=True)
print([t.text for t in found.troubles])
"""


def inside(directory: Path, ranks: int) -> subprocess.CompletedProcess[str]:
    """The drill in a script that torchrun started."""
    tests = str(ROOT / "tests" / "integration") + os.pathsep + str(ROOT / "tests")
    script = directory / "script.py"
    text = INSIDE.format(root=str(ROOT), tests=tests, place=str(directory / "inside"))
    script.write_text(text.replace(f"{tests!r}", ", ".join(map(repr, tests.split(os.pathsep)))))
    argv = [
        sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={ranks}",
        "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", str(script),
    ]  # fmt: skip
    return subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)


def test_inside_torchrun_its_own_ranks_train_the_distributed_side(tmp_path: Path) -> None:
    done = inside(tmp_path, 2)

    assert done.returncode == 0, done.stderr
    assert "VERDICTS PASS\n" in done.stdout
    (curve,) = (tmp_path / "inside" / "state").glob("*/seed-1-processes-2.json")
    assert read(curve).processes == 2
    assert left_running() == []


def test_inside_a_torchrun_of_the_wrong_size_it_is_unknown_and_says_which(tmp_path: Path) -> None:
    done = inside(tmp_path, 3)

    assert "VERDICTS UNKNOWN\n" in done.stdout, done.stderr
    assert "give --nproc_per_node=2" in done.stdout


def left_running() -> list[str]:
    """Workers of ours that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_text().replace("\0", " ")
            mine = tree.MARK.encode() in (entry / "environ").read_bytes()
        except OSError:
            continue
        if mine and ("workers.convergence" in words or WRONG.name in words):
            found.append(words)
    return found
