"""A job in a container: of the host it sees the socket's directory, of dvfd it has one file."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from node import Node, running
from testbed import eventually

from dvfd.telemetry import reporter

pytestmark = [pytest.mark.long, pytest.mark.machine, pytest.mark.slow, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples/container"
COMMAND = ["/bin/python", "-S", "-E", "/job/job.py"]
FOREIGNER = """
import os, sys
from dvfd.errors import ProbeError
from dvfd.probes.places import locate
os.setgid(65534); os.setuid(65534)
try:
    print(locate(sys.argv[1], int(sys.argv[2])))
except ProbeError as error:
    print("unknown:", error)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is in the container."""
    found = tmp_path_factory.mktemp("container") / "root"
    argv = ["sh", EXAMPLE / "root.sh", sys.executable, reporter.__file__, found]
    subprocess.run(argv, check=True, timeout=60)
    return found


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(Node(tmp_path_factory.mktemp("node"), [])) as started:
        yield started


@pytest.fixture(scope="module")
def storage() -> Iterator[Path]:
    """Where podman keeps images: it takes no path longer than 50 characters."""
    with tempfile.TemporaryDirectory(prefix="dvfd") as directory:
        yield Path(directory)


def namespaces(root: Path, node: Node, _storage: Path) -> list[str]:
    """The command before the job's, which makes namespaces."""
    enter = ["sh", str(EXAMPLE / "enter.sh"), str(root), str(node.directory)]
    tried = subprocess.run([*enter, "/bin/python", "-c", ""], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"no namespaces here: {tried.stderr.decode()[-200:]}")
    return enter


def podman(root: Path, node: Node, storage: Path) -> list[str]:
    """The command before the job's, which runs a container of podman, from an image of *root*."""
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed")
    engine = ["podman", f"--root={storage}", f"--runroot={storage}/run", "--storage-driver=vfs"]
    if shutil.which("runc"):
        engine.append("--runtime=runc")
    with subprocess.Popen(["tar", "-C", root, "-cf", "-", "."], stdout=subprocess.PIPE) as files:
        subprocess.run(
            [*engine, "import", "-", "dvfd-job"], stdin=files.stdout, check=True,
            capture_output=True, timeout=100,
        )  # fmt: skip
    enter = [
        *engine, "run", "--rm", "--network=none", "--ulimit=nofile=1024:1024",
        "--ulimit=nproc=1000:1000", f"--volume={node.directory}:/run/dvfd", "dvfd-job",
    ]  # fmt: skip
    tried = subprocess.run([*enter, "/bin/python", "-c", ""], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"podman runs nothing here: {tried.stderr.decode()[-200:]}")
    return enter


@contextlib.contextmanager
def job(enter: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen([*enter, *COMMAND], stderr=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(10)
        started.kill()
        started.wait()


def seen(node: Node) -> dict[str, Any]:
    jobs = [each for each in (node.ask("status") or {"jobs": []})["jobs"] if each["job"] == "boxed"]
    return jobs[0]["ranks"][0] if jobs else {}


@pytest.mark.parametrize("engine", [namespaces, podman])
def test_it_is_seen_with_its_process_its_steps_and_its_checkpoint(
    engine: Callable[[Path, Node, Path], list[str]], root: Path, node: Node, storage: Path
) -> None:
    with job(engine(root, node, storage)):
        eventually(lambda: (seen(node).get("step") or 0) > 20, 60, every=0.2)
        pid = seen(node)["pid"]
        inside, outside = Path(f"/proc/{pid}/ns/mnt"), Path("/proc/self/ns/mnt")
        assert inside.readlink() != outside.readlink()
        assert not Path("/checkpoints/step-20.safetensors").exists()
        eventually(lambda: node.verdict("live.checkpoint_loadable") == "PASS", 60, every=0.5)

        # Who may not look where the process looks says so, and does not call it broken.
        argv = [sys.executable, "-c", FOREIGNER, "/checkpoints/step-20.safetensors", str(pid)]
        if os.geteuid() == 0:
            said = subprocess.run(
                argv, capture_output=True, text=True, check=True, timeout=60
            ).stdout
            assert said.startswith("unknown: ")
            assert "with CAP_SYS_PTRACE" in said

        os.kill(pid, signal.SIGKILL)
        eventually(lambda: seen(node)["why"] == f"process {pid} is gone", 60)
    node.ask("forget", job="boxed")


def test_a_restart_of_the_daemon_reaches_it_through_the_mounted_directory(
    root: Path, node: Node, storage: Path
) -> None:
    with job(namespaces(root, node, storage)):
        eventually(lambda: (seen(node).get("step") or 0) > 20, 60, every=0.2)
        node.kill()
        node.start()
        eventually(lambda: seen(node).get("state") == "responding", 60, every=0.2)
        rank = eventually(lambda: (r := seen(node)) and (r["step"] or 0) > 100 and r, 60, every=0.2)
        assert rank["steps_total"] == rank["step"]
    node.ask("forget", job="boxed")
