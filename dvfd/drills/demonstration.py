"""dvfd and the reference training job side by side, for a first look. Backs `scripts/start`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psutil

from dvfd.asking import ask
from dvfd.cli.formats import EXIT
from dvfd.config import state_dir
from dvfd.errors import DvfdError
from dvfd.places import control_path

START_TIMEOUT = 20.0
"""Seconds in which the daemon must answer: it takes about one, a cold disk several."""

STOP_TIMEOUT = 30.0
"""Seconds for a last checkpoint: the reference job's takes under one."""

LOOK = 1.0
"""Seconds between looks at the daemon: news is printed when there is any."""

DAEMON = [sys.executable, "-m", "dvfd", "run"]

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=4"]

UNKNOWN = EXIT["UNKNOWN"]

STARTING = """
starting a training job of 4 processes: its first step takes a few seconds. It is paced to leave
this machine usable, so after five minutes live.cpu fails, and rightly: wanted are busy processors.
"""

ENDING = """
UNKNOWN is the honest answer so soon: the daily list judges 24 hours and what this machine can
measure, and each reason above says what is missing. dvfd never calls green what it has not seen.
What next: scripts/start without --seconds and the page beside it, then README.md, "Watch your
own job"."""


def main() -> int:
    """Run until Ctrl-C or for --seconds; 0 if everything that was started also ran."""
    options = _options()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        return _demonstrate(options)
    except KeyboardInterrupt:
        _say("\nstopped: nothing runs any more")
        return 0
    except DvfdError as error:
        return _fail(str(error))


def _demonstrate(options: argparse.Namespace) -> int:
    logs = state_dir() / "demonstration"
    logs.mkdir(parents=True, exist_ok=True)
    if ask(control_path(), "ping", timeout=2.0) is not None:
        return _fail(f"a dvfd already runs here ({control_path()}): stop it first")
    if not options.no_job and importlib.util.find_spec("torch") is None:
        return _fail("torch is missing: pip install -c constraints.txt 'dvfd[torch]'")
    with _child("daemon", DAEMON, logs) as daemon:
        if not _answers(daemon):
            return _fail(f"the daemon did not start:\n{_tail(logs / 'daemon.log')}")
        _introduce(logs, options.seconds)
        if options.no_job:
            return _watch([daemon], options.seconds, logs)
        _say(STARTING)
        with _child("job", _job(logs / "checkpoints"), logs) as job:
            return _watch([daemon, job], options.seconds, logs)


def _introduce(logs: Path, seconds: float | None) -> None:
    address = ask(control_path(), "address")
    _say(f"page:     {address}")
    _say(f"metrics:  {address}metrics")
    _say(f"ask it:   {Path(sys.executable).with_name('dvfd')} status    (in another terminal)")
    _say(f"logs:     {logs}")
    _say(f"ends:     {f'in {seconds:g} s, or ' if seconds else ''}with Ctrl-C")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/start", description=__doc__)
    parser.add_argument("--seconds", type=_seconds, help="end by printing the daily checklist")
    parser.add_argument("--no-job", action="store_true", help="watch only jobs that come")
    return parser.parse_args()


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time to watch: wanted more than 0")
    return seconds


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
    """A child in its own session, with its log; it and all its descendants are gone afterwards."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        # Without it torchrun does not come back after a rank is killed (pytorch#135712).
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    with (logs / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment,
        )
    try:
        yield child
    except KeyboardInterrupt:
        _say(f"stopping the {name}")
        raise
    finally:
        _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask *child* to end, then make sure: torchrun's ranks are in sessions of their own."""
    family = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(child.pid).children(recursive=True)
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        child.wait(STOP_TIMEOUT)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # psutil knows a pid that was used again
            process.kill()
    child.kill()
    child.wait()


def _answers(daemon: subprocess.Popen[bytes]) -> bool:
    """Whether the daemon came up, its page too: the port may be somebody else's."""
    until = time.monotonic() + START_TIMEOUT
    while time.monotonic() < until and daemon.poll() is None:
        # It may break off while it is being asked: then it has ended, and its log says why.
        with contextlib.suppress(DvfdError):
            if _is_dvfd(ask(control_path(), "address", timeout=2.0)):
                return True
        time.sleep(0.1)
    return False


def _is_dvfd(address: str | None) -> bool:
    """Whether dvfd's own /healthz answers at *address*, in trouble or not."""
    if address is None:
        return False
    try:
        with urllib.request.urlopen(f"{address}healthz", timeout=2.0) as answer:  # noqa: S310  # ours
            return "loops" in json.load(answer)
    except urllib.error.HTTPError as trouble:
        return trouble.code == HTTPStatus.SERVICE_UNAVAILABLE
    except (OSError, ValueError):
        return False


def _watch(children: list[subprocess.Popen[bytes]], seconds: float | None, logs: Path) -> int:
    """Wait and tell the news, then show the checklist; 1 as soon as a child ends by itself."""
    until = time.monotonic() + seconds if seconds else float("inf")
    told = ""
    while time.monotonic() < until:
        for child, log in zip(children, ("daemon.log", "job.log"), strict=False):
            if child.poll() is not None:
                return _fail(f"ended by itself, see {logs / log}:\n{_tail(logs / log)}")
        news = _news()
        if news not in {"", told}:
            _say(f"{time.strftime('%H:%M:%S')} {news}")
            told = news
        time.sleep(LOOK)
    _show(["status"])
    if _show(["checklist", "daily"]) == UNKNOWN:
        _say(ENDING)
    return 0


def _news() -> str:
    """The node's verdict, and how its jobs are; empty while the daemon does not say."""
    status: dict[str, Any] | None = None
    with contextlib.suppress(DvfdError):
        status = ask(control_path(), "status", timeout=2.0)
    if status is None:
        return ""
    jobs = [f"job {j['job']} {j['state']} ({len(j['ranks'])} ranks)" for j in status["jobs"]]
    return f"{status['verdict']}; {', '.join(jobs) or 'no job reports yet'}"


def _show(command: list[str]) -> int:
    """Run and print a command as if it had been typed; its exit code."""
    width = shutil.get_terminal_size((100, 24)).columns
    done = subprocess.run(
        [sys.executable, "-m", "dvfd", *command],
        env={**os.environ, "COLUMNS": str(width)},
        capture_output=True,
        text=True,
        check=False,
    )
    _say(f"\n$ dvfd {' '.join(command)}\n{done.stdout}{done.stderr}(exit code {done.returncode})")
    return done.returncode


def _tail(log: Path) -> str:
    """The end of *log*: what was said in words, if anything was."""
    with contextlib.suppress(OSError):
        lines = log.read_text(errors="replace").splitlines()
        words = [line for line in lines if not line.startswith("{")]
        return "\n".join((words or lines)[-15:])
    return ""


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  # this file is a program


def _fail(text: str) -> int:
    print(f"scripts/start: {text}", file=sys.stderr)  # noqa: T201  # this file is a program
    return 1


if __name__ == "__main__":
    sys.exit(main())
