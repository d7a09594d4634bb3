"""One node for system tests and measurements: a real daemon, and a real training job beside it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from testbed import eventually

from dvfd.asking import ask
from dvfd.errors import DvfdError

CONFIG = """
[node]
name = "{name}"
[http]
port = {port}
host = "{host}"
[alerting]
urls = {urls}
[checkpoints]
verify_every = 3
[[logs]]
name = "training"
path = "{directory}/job.log"
[override."live.log_errors"]
window = 6
reason = "tests wait less long for the recovery"
[override."live.loss_finite"]
window = 6
reason = "tests wait less long for the recovery"
[override."live.cpu"]
limit = 0.01
reason = "the job under test is paced: five minutes of it would page for idle processors"
[override."live.exceptions"]
window = 6
reason = "tests wait less long for the recovery"
"""


class Node:
    """A daemon with its own directories under *directory*."""

    program: tuple[str, ...] = ("-m", "dvfd", "run")

    def __init__(
        self, directory: Path, urls: list[str], extra: str = "", *, name: str = "node-under-test",
        port: int = 0, host: str = "127.0.0.1", within: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.directory = directory
        self.within = within  # what starts the daemon elsewhere, as `ip netns exec NAME`
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "job.log").touch()
        (directory / "dvfd.toml").write_text(
            CONFIG.format(
                urls=json.dumps(urls), directory=directory, name=name, port=port, host=host
            )
            + extra
        )
        self.environment = {
            **os.environ,
            "DVFD_CONFIG": str(directory / "dvfd.toml"),
            "DVFD_STATE_DIR": str(directory / "state"),
            "RUNTIME_DIRECTORY": str(directory),
            "DVFD_SOCKET": str(directory / "ingest.sock"),
            "OMP_NUM_THREADS": "1",
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        }
        self.daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start the daemon; the seconds until it answered."""
        began = time.monotonic()
        with (self.directory / "daemon.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                [*self.within, sys.executable, *self.program],
                env=self.environment, stdout=log, stderr=log,
            )  # fmt: skip
        eventually(lambda: self.ask("ping"), 60)
        return time.monotonic() - began

    def ask(self, op: str, **arguments: Any) -> Any:
        """Ask the daemon; None while it does not answer."""
        try:
            return ask(self.directory / "control.sock", op, **arguments)
        except DvfdError:
            return None

    def kill(self) -> None:
        """SIGKILL: nothing is written, nobody is told."""
        assert self.daemon
        self.daemon.kill()
        self.daemon.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.daemon
        self.daemon.terminate()
        return self.daemon.wait(60)

    @property
    def address(self) -> str:
        """host:port of the listener, as soon as the daemon says it."""
        said = eventually(lambda: self.ask("address"), 60)
        return str(said).removeprefix("http://").rstrip("/")

    def results(self) -> dict[str, dict[str, Any]]:
        """Every criterion's result by id."""
        status = self.ask("status")
        return {r["criterion"]: r for check in status["checks"] for r in check["results"]}

    def verdict(self, criterion: str) -> str:
        return str(self.results()[criterion]["verdict"])

    def pids(self, job: str) -> dict[int, int]:
        """The job's ranks and their pids, as the daemon knows them."""
        found = [j for j in self.ask("status")["jobs"] if j["job"] == job]
        return {r["rank"]: r["pid"] for r in found[0]["ranks"]} if found else {}

    def said(self) -> str:
        """What the daemon logged."""
        return (self.directory / "daemon.log").read_text(errors="replace")


@contextlib.contextmanager
def running(node: Node) -> Iterator[Node]:
    """*node* with its daemon up; stopped afterwards whatever happened."""
    node.start()
    try:
        yield node
    finally:
        if node.daemon and node.daemon.poll() is None:
            node.stop()


def training(
    node: Node, *options: str, ranks: int = 4, fault: str = ""
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """The reference job under torchrun; ended with its last checkpoint afterwards."""
    return torchrun(
        "dvfd.drills.reference_job", f"--checkpoint-dir={node.directory / 'checkpoints'}", *options,
        environment={**node.environment, **({"DVFD_FAULT": fault} if fault else {})},
        log=node.directory / "job.log", ranks=ranks, restarts=3,
    )  # fmt: skip


@contextlib.contextmanager
def torchrun(
    module: str, *arguments: str, environment: Mapping[str, str], log: Path, ranks: int = 4,
    restarts: int = 0,
) -> Iterator[subprocess.Popen[bytes]]:  # fmt: skip
    """*module* with *arguments* in each rank, their words in *log*; what has not ended in the end
    is ended, killed after 30 s.
    """
    argv = [
        sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={ranks}",
        f"--max-restarts={restarts}", "-m", module, *arguments,
    ]  # fmt: skip
    with log.open("ab") as words:
        job = subprocess.Popen(
            argv, env=environment, stdout=words, stderr=words, start_new_session=True
        )
    try:
        yield job
    finally:
        job.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()
