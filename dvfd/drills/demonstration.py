"""dvfd and the reference training job side by side, for a first look. Backs `scripts/start`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dvfd.cli.common import control_path
from dvfd.config import state_dir
from dvfd.control import ask

START_TIMEOUT = 20.0
"""Seconds in which the daemon must answer: it takes about one, a cold disk several."""

STOP_TIMEOUT = 30.0
"""Seconds for a last checkpoint: the reference job's takes under one."""

DAEMON = [sys.executable, "-m", "dvfd", "run"]

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=4"]


def main() -> int:
    """Run until Ctrl-C or for --seconds; 0 if everything that was started also ran."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logs = state_dir() / "demonstration"
    logs.mkdir(parents=True, exist_ok=True)
    if ask(control_path(), "ping", timeout=2.0) is not None:
        return _fail(f"a dvfd already runs here ({control_path()}): stop it first")
    with _child("daemon", DAEMON, logs) as daemon:
        if not _answers(daemon):
            return _fail(f"the daemon did not start:\n{_tail(logs / 'daemon.log')}")
        _say(f"page:    {ask(control_path(), 'address')}")
        _say(f"metrics: {ask(control_path(), 'address')}metrics")
        _say(f"logs:    {logs}")
        if options.no_job:
            return _watch([daemon], options.seconds, logs)
        if importlib.util.find_spec("torch") is None:
            return _fail("torch is missing: pip install -c constraints.txt 'dvfd[torch]'")
        with _child("job", _job(logs / "checkpoints"), logs) as job:
            return _watch([daemon, job], options.seconds, logs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/start", description=__doc__)
    parser.add_argument("--seconds", type=float, help="end by printing the daily checklist")
    parser.add_argument("--no-job", action="store_true", help="watch only jobs that come")
    return parser.parse_args()


def _job(checkpoints: Path) -> list[str]:
    """The reference job at a pace that leaves a small machine usable."""
    return [
        *TORCHRUN,
        "--max-restarts=3",
        "-m",
        "dvfd.drills.reference_job",
        f"--checkpoint-dir={checkpoints}",
        "--checkpoint-every=100",
        "--step-time=0.25",
    ]


@contextlib.contextmanager
def _child(name: str, argv: list[str], logs: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child in its own session, with its log; its whole group is gone afterwards."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        # Without it torchrun does not come back after a rank is killed (pytorch#135712).
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    with (logs / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(
            argv, stdout=log, stderr=log, start_new_session=True, env=environment
        )
    try:
        yield child
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_TIMEOUT)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _answers(daemon: subprocess.Popen[bytes]) -> bool:
    until = time.monotonic() + START_TIMEOUT
    while time.monotonic() < until and daemon.poll() is None:
        if ask(control_path(), "ping", timeout=2.0) is not None:
            return True
        time.sleep(0.1)
    return False


def _watch(children: list[subprocess.Popen[bytes]], seconds: float | None, logs: Path) -> int:
    """Wait, then show the checklist; 1 as soon as a child ends by itself."""
    until = time.monotonic() + seconds if seconds else float("inf")
    try:
        while time.monotonic() < until:
            ended = [child.args for child in children if child.poll() is not None]
            if ended:
                return _fail(f"ended by itself: {ended}; see {logs}\n{_tail(logs / 'job.log')}")
            time.sleep(0.2)
    except KeyboardInterrupt:
        return 0
    for command in (["status"], ["checklist", "daily"]):
        _show(command)
    return 0


def _show(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", *command], capture_output=True, text=True, check=False
    )
    _say(f"\n$ dvfd {' '.join(command)}\n{done.stdout}{done.stderr}(exit code {done.returncode})")


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    return ""


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  # this file is a program


def _fail(text: str) -> int:
    print(f"scripts/start: {text}", file=sys.stderr)  # noqa: T201  # this file is a program
    return 1


if __name__ == "__main__":
    sys.exit(main())
