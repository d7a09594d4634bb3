"""What a drill starts is gone when it ends, wherever it hid; and it sees no packages of ours."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest
from testbed import eventually

from dvfd.drills import bare, conduct, tree
from dvfd.errors import DvfdError, ToolTimeout
from dvfd.shell import run

ESCAPEE = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1), os.dup2(1, 2)
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(60)
    os._exit(0)
time.sleep(float(sys.argv[2]))
"""
"""Leaves a grandchild in a session of its own, as torchrun and mpirun do."""


def escapee(path: Path, seconds: float) -> list[str]:
    return [sys.executable, "-c", ESCAPEE, str(path), str(seconds)]


def alive(path: Path) -> bool:
    """Whether the process whose pid *path* holds still runs; one that nobody buried does not."""
    try:
        stat = Path(f"/proc/{path.read_text().strip()}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_child_in_a_session_of_its_own_ends_with_the_tool(tmp_path: Path) -> None:
    assert tree.run(escapee(tmp_path / "pid", 0.5), timeout=20).code == 0
    assert not alive(tmp_path / "pid")


def test_shell_alone_would_have_left_it(tmp_path: Path) -> None:
    run(escapee(tmp_path / "pid", 0.5), timeout=20)
    assert alive(tmp_path / "pid")
    os.kill(int((tmp_path / "pid").read_text()), 9)


def test_a_tool_that_hangs_is_ended_with_all_of_it(tmp_path: Path) -> None:
    with pytest.raises(ToolTimeout):
        tree.run(escapee(tmp_path / "pid", 60), timeout=1)
    assert not alive(tmp_path / "pid")


@pytest.mark.parametrize("ending", ["exit 0", "sleep 60"])
def test_what_hides_its_environment_and_leaves_its_parent_is_ended(
    tmp_path: Path, ending: str
) -> None:
    hidden = f"echo $$ > {tmp_path}/pid; exec sleep 60"
    tool = f"setsid env -i PATH=$PATH sh -c '{hidden}' > /dev/null 2>&1 & sleep 0.5; {ending}"
    with contextlib.suppress(ToolTimeout):
        tree.run(["sh", "-c", tool], timeout=2)
    assert (tmp_path / "pid").read_text()
    assert not alive(tmp_path / "pid")


def test_a_child_that_was_there_before_the_tool_is_left_alone() -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        tree.run(["true"], timeout=20)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_what_a_killed_command_left_behind_a_script_is_ended_by_the_next(tmp_path: Path) -> None:
    tool = f"sleep 60 & echo $! > {tmp_path}/pid; wait"
    code = f"from dvfd.drills import tree; tree.run(['sh', '-c', {tool!r}], timeout=60)"
    command = subprocess.Popen([sys.executable, "-c", code])
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), 60)
    assert not {int((tmp_path / "pid").read_text())} & set(tree.orphans())
    command.kill()
    command.wait()
    assert alive(tmp_path / "pid")
    with conduct.alone():
        assert not alive(tmp_path / "pid")


def test_the_training_of_a_stability_run_is_nobodys_orphan() -> None:
    held = {**os.environ, tree.MARK: f"{tree.HELD}phase1_x"}
    training = subprocess.Popen(["sleep", "60"], env=held)  # its supervisor is gone
    try:
        eventually(lambda: training.pid in tree.marked(held[tree.MARK]), 60)
        with conduct.alone():
            assert training.poll() is None
    finally:
        training.kill()
        training.wait()


def test_only_what_carries_the_mark_is_ended(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"], env={**os.environ, tree.MARK: "another"})
    try:
        tree.run(["true"], timeout=20)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_lines_are_told_as_they_come() -> None:
    told: list[tuple[str, float]] = []
    code = "import time; print('one', flush=True); time.sleep(1); print('two')"
    began = time.monotonic()
    tree.run([sys.executable, "-c", code], timeout=20,
             on_line=lambda line: told.append((line, time.monotonic() - began)))  # fmt: skip
    assert [line for line, _ in told] == ["one", "two"]
    assert told[1][1] - told[0][1] > 0.5


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that has neither dvfd nor anything else of ours."""
    place = tmp_path_factory.mktemp("foreign")
    venv.create(place, with_pip=False)
    return str(place / "bin/python")


def in_foreign(foreign: str, directory: Path, source: str) -> subprocess.CompletedProcess[str]:
    """Run *source* there as the module `worker`."""
    (directory / "worker.py").write_text(source)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [foreign, bare.__file__, "worker", "one", "two"], capture_output=True, text=True,
        env={**environment, "PYTHONPATH": str(directory)}, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("module", ["click", "pydantic", "torch", "order", "drill"])
def test_the_jobs_interpreter_sees_no_package_of_ours(
    foreign: str, tmp_path: Path, module: str
) -> None:
    done = in_foreign(foreign, tmp_path, f"import {module}")
    assert f"No module named '{module}'" in done.stderr


def test_the_jobs_interpreter_sees_dvfd_and_the_arguments(foreign: str, tmp_path: Path) -> None:
    code = "import sys, dvfd.model\nprint(dvfd.__version__, sys.argv[1:], __name__)"
    done = in_foreign(foreign, tmp_path, code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("['one', 'two'] __main__\n")


def test_a_worker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(
        "import os, sys, time\nopen(sys.argv[1], 'w').write(str(os.getpid()))\ntime.sleep(60)"
    )
    code = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"
    parent = subprocess.Popen(
        [sys.executable, "-c", code, bare.__file__, "worker", str(tmp_path / "pid")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), 60)
    parent.kill()
    parent.wait()
    eventually(lambda: not alive(tmp_path / "pid"), 5)


def test_two_drills_at_once_are_refused_and_the_first_is_named() -> None:
    named = pytest.raises(DvfdError, match=rf"pid {os.getpid()}")
    with conduct.alone(), named, conduct.alone():
        pass
    with conduct.alone():
        pass


def test_whoever_is_refused_is_told_the_pid_however_many_were_before() -> None:
    with conduct.alone():
        for _ in range(5):
            with pytest.raises(DvfdError, match=rf"pid {os.getpid()}"), conduct.alone():
                pass


def test_not_even_sigkill_of_the_command_leaves_a_tool_running(tmp_path: Path) -> None:
    tool = f"echo $$ > {tmp_path}/pid; exec sleep 60"
    code = f"from dvfd.drills import tree; tree.run(['sh', '-c', {tool!r}], timeout=60)"
    command = subprocess.Popen([sys.executable, "-c", code])
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), 60)
    assert alive(tmp_path / "pid")
    command.kill()
    command.wait()
    eventually(lambda: not alive(tmp_path / "pid"), 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_asked_to_end_a_drill_takes_its_tools_and_its_files_with_it(
    number: signal.Signals, tmp_path: Path
) -> None:
    code = (
        "import sys, tempfile\n"
        "from dvfd.drills import conduct, tree\n"
        "conduct.LOCK += sys.argv[1]\n"
        "with conduct.alone(), tempfile.TemporaryDirectory(dir=sys.argv[1]):\n"
        "    tree.run(['sh', '-c', f'echo $$ > {sys.argv[1]}/pid; exec sleep 60'], timeout=60)"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL
    )
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), 60)
    command.send_signal(number)
    assert command.wait(60) in {128 + number, -number}
    assert not alive(tmp_path / "pid")
    assert [path.name for path in tmp_path.iterdir()] == ["pid"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_impatient_second_signal_does_not_break_off_the_cleaning_up(
    number: signal.Signals, tmp_path: Path
) -> None:
    code = (
        "import sys, time\n"
        "from dvfd.drills import conduct\n"
        "conduct.LOCK += sys.argv[1]\n"
        "with conduct.alone():\n"
        "    try:\n"
        "        open(sys.argv[1] + '/runs', 'w').close()\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        open(sys.argv[1] + '/cleans', 'w').close()\n"
        "        time.sleep(1)\n"
        "        open(sys.argv[1] + '/clean', 'w').close()\n"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL
    )
    eventually((tmp_path / "runs").exists, 60)
    command.send_signal(number)
    eventually((tmp_path / "cleans").exists, 60)
    command.send_signal(number)
    assert command.wait(60) in {128 + number, -number}
    assert (tmp_path / "clean").exists()


def test_what_a_tool_leaves_among_temporary_files_lies_where_it_was_told(tmp_path: Path) -> None:
    tree.run(["mktemp"], timeout=20, temporary=str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_drill_that_was_told_to_ignore_a_hangup_goes_on() -> None:
    code = (
        "import os, signal, sys\nfrom dvfd.drills import conduct\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nconduct.LOCK += 'ignoring'\n"
        "with conduct.alone():\n    os.kill(os.getpid(), signal.SIGHUP)\n    print('went on')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "went on\n"
