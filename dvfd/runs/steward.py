"""See a run under torchrun through: arm it, tell how it stands, end the training with it, report.

`python -m dvfd.runs.steward PLACE ORDER` is a process of its own, so that neither the death of a
rank nor that of torchrun keeps it from its report. Where no daemon answers it starts one, for as
long as the run lasts. Exit code: the verdict's, 3 if there was no run.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvfd.asking import ask
from dvfd.cli import progress
from dvfd.cli.formats import exit_code
from dvfd.cli.stability_report import in_words
from dvfd.errors import DvfdError
from dvfd.places import control_path, state_dir
from dvfd.runs import ending, shelf
from dvfd.shell import LIBC, PR_SET_PDEATHSIG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

RUN, RANK, ENDED, VERDICT = "run.json", "rank.json", "ended.json", "verdict.json"
"""In the directory that the ranks share: what they are to do, who leads them, that they ended, and
what the run is worth."""

STARTING = 120.0
"""Seconds for a daemon to answer: one on a machine that trains with all its cores."""

LOOK = 1.0
"""Seconds between looks at the run."""

TELL = 600.0
"""Seconds after which its progress is told again though nothing has changed."""

CLOSING = 1200.0
"""Seconds for the last checkpoints to be verified: the daemon gives up after 900, and after 1000 on
nodes that do not deliver (runs.watched.CLOSING, runs.peers.LATEST)."""

WORD = 60.0
"""Seconds for the daemon to hear from the node that leads why torchrun is gone: it asks every two
seconds, and judges by itself after 20 (runs.advance.PATIENCE)."""

UNKNOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the first rank of a node asks for. `leads`: it is rank 0 of all, which ends them."""

    check: str
    argv: list[str]
    agent: int
    leads: bool
    duration: float | None
    on_failure: str
    note: str
    force: bool


class Steward:
    """Sees one run through, with a daemon that answers on *control*."""

    def __init__(self, order: Order, place: Path, control: Path, agent: int) -> None:
        """*agent* is a pidfd of torchrun."""
        self._order = order
        self._place = place
        self._control = control
        self._agent = agent
        self._run = ""
        self._told = ("", 0.0)

    def see_through(self) -> int:
        """Arm the run, wait for its end, print its report. Raises DvfdError if it is refused."""
        self._arm()
        found = self._until(lambda found: progress.over(found["run"]))
        if found is None and not self._order.leads:
            found = self._until(lambda found: progress.over(found["run"]), limit=WORD)
        if found is None:
            found = self._broken_off()
        elif self._order.leads:
            self._end_training()
        judged = self._until(progress.settled, limit=CLOSING) or found
        if judged is None:
            say(f"no daemon answers: dvfd stability status {self._run} will tell")
            return UNKNOWN
        report = shelf.report(state_dir() / "runs", self._run)
        words = in_words(report) if report else progress.text(judged)
        print(words, flush=True)  # noqa: T201  # the report is what this is for
        return exit_code(report or judged)

    def _arm(self) -> None:
        order = self._order
        run = self._ask(
            "stability_arm", check=order.check, job=order.check, duration=order.duration,
            argv=order.argv, directory=str(Path.cwd()), on_failure=order.on_failure,
            note=order.note, force=order.force,
        )  # fmt: skip
        self._run = run["id"]
        say(f"armed {self._run}")
        launched = {"unit": "", "pid": order.agent, "start": ending.started(order.agent)}
        self._ask("stability_launched", id=self._run, launched={**launched, "mark": ""})
        plan = run["plan"]
        told = {
            "agent": ending.started(order.agent),
            "socket": os.environ.get("DVFD_SOCKET") or str(self._control.parent / "ingest.sock"),
            "job": plan["job"],
            "duration": plan["duration"],
            "checkpoint_every": plan["checkpoint_every"],
            "directory": str(state_dir() / "runs" / f"{self._run}.checkpoints"),
        }
        write(self._place / RUN, told)

    def _ask(self, op: str, **arguments: Any) -> Any:
        """Raises DvfdError with a refusal, or if nobody answers."""
        answer = ask(self._control, op, **arguments)
        if answer is None:
            raise DvfdError(f"{self._control}: the daemon has gone")
        return answer

    # --- While it runs --------------------------------------------------------------------------

    def _until(
        self, what: Callable[[dict[str, Any]], bool], limit: float = float("inf")
    ) -> dict[str, Any] | None:
        """How the run stands once *what* holds; None if torchrun or the time is gone before.
        With a *limit* torchrun may be gone.
        """
        until = time.monotonic() + limit
        while time.monotonic() < until:
            found = self._look()
            if found is not None and what(found):
                return found
            if not self._wait() and limit == float("inf"):
                return None
        return None

    def _look(self) -> dict[str, Any] | None:
        """How the run stands; None while no daemon answers."""
        try:
            found = progress.document(self._ask("stability_status", id=self._run), running=True)
        except DvfdError as error:
            self._tell(str(error), str(error))
            return None
        self._tell(progress.line(found), found["run"]["stage"])
        return found

    def _tell(self, line: str, about: str) -> None:
        """Tell progress: at once where it is *about* something new, else now and then."""
        before, at = self._told
        if about != before or time.monotonic() - at > TELL:
            self._told = (about, time.monotonic())
            say(line)

    def _wait(self) -> bool:
        """Let a moment pass; whether torchrun still lives."""
        gone, _, _ = select.select([self._agent], [], [], LOOK)
        if gone:
            time.sleep(LOOK)
        return not gone

    # --- At its end -----------------------------------------------------------------------------

    def _broken_off(self) -> dict[str, Any] | None:
        """Torchrun is gone before the run was over: nobody trains for it any more."""
        with contextlib.suppress(DvfdError):
            reason = "torchrun ended before the run was over"
            self._ask("stability_stop", id=self._run, reason=reason)
        return self._look()

    def _end_training(self) -> None:
        """One rank that is asked to end takes all with it, after a last checkpoint; ranks that
        hang end with torchrun.
        """
        asked = (read(self._place / RANK) or {}).get("pid", 0)
        for pid in (asked, self._order.agent):
            if self._ended() or not pid:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            until = time.monotonic() + ending.GRACE
            while not self._ended() and time.monotonic() < until and self._wait():
                pass

    def _ended(self) -> bool:
        return read(self._place / ENDED) is not None


@contextlib.contextmanager
def daemon(place: Path) -> Iterator[Path]:
    """The control socket of the daemon that answers here, or of one that lives as long as this.

    Raises DvfdError with its last words if none can be started.
    """
    control = control_path()
    if ask(control, "ping") is not None:
        yield control
        return
    control = place / "control.sock"
    os.environ["DVFD_SOCKET"] = str(place / "ingest.sock")
    process = _start_daemon(place)
    try:
        _wait_for(control, process, place)
        say(
            f"no daemon answers here: started one until the run is over, pid {process.pid}; "
            f"RUNTIME_DIRECTORY={place} dvfd stability status asks it"
        )
        yield control
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ending.GRACE)
        process.kill()
        process.wait()


def _start_daemon(place: Path) -> subprocess.Popen[bytes]:
    """It ends with this process, however that ends."""
    with (place / "daemon.log").open("ab") as log:
        return subprocess.Popen(
            (sys.executable, "-m", "dvfd", "run"),
            env={**os.environ, "RUNTIME_DIRECTORY": str(place)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),  # noqa: PLW1509
        )


def _wait_for(control: Path, process: subprocess.Popen[bytes], place: Path) -> None:
    until = time.monotonic() + STARTING
    while ask(control, "ping") is None:
        if process.poll() is not None or time.monotonic() > until:
            words = (place / "daemon.log").read_text(errors="replace").strip().splitlines()
            raise DvfdError(
                f"no daemon can be started: {words[-1] if words else 'it says nothing'}"
            )
        time.sleep(0.1)


def read(path: Path) -> Mapping[str, Any] | None:
    """What somebody left at *path*; None before that."""
    try:
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Leave *document* at *path*, whole or not at all."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(document), encoding="utf-8")
    beside.replace(path)


def say(line: str) -> None:
    """A line for the person who started torchrun."""
    print(f"dvfd: {line}", file=sys.stderr, flush=True)  # noqa: T201  # its console is this


def main(place: Path, order: Order) -> int:
    """See the run through; the exit code."""
    refused = ""
    try:
        agent = os.pidfd_open(order.agent)
        with daemon(place) as control:
            code = Steward(order, place, control, agent).see_through()
    except (DvfdError, OSError) as error:
        say(str(error))
        code, refused = UNKNOWN, str(error)
    with contextlib.suppress(OSError):  # the ranks are gone, and their directory
        if refused:
            write(place / RUN, {"refused": refused, "agent": ending.started(order.agent)})
        write(place / VERDICT, {"code": code})
    if not ending.started(order.agent):  # no rank is left that would tidy up
        shutil.rmtree(place, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Order(**json.loads(sys.argv[2]))))
