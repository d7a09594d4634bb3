"""`dvfd stability`: runs of 24 and 48 hours: start, follow, stop, list them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from dvfd.answers import daemon
from dvfd.cli import INTERRUPTED, progress
from dvfd.cli.checks import YEAR, Duration
from dvfd.cli.common import judged_option, must, output_option, say_on_a_terminal, show
from dvfd.cli.formats import exit_code
from dvfd.cli.stability_accept import accept, accepted
from dvfd.cli.stability_report import judge, report
from dvfd.cli.text import columns, shortened
from dvfd.errors import DvfdError
from dvfd.places import control_path
from dvfd.words import printable

PHASES = ("phase1", "phase2a", "phase2b", "phase2c")

GRACE = 60.0
"""Seconds for a last checkpoint, unless told."""

BEGINNING = 30.0
"""Seconds in which a supervisor tells the daemon of itself: a busy machine loads it in two."""

BREATH = 0.1
"""Seconds between looks for a supervisor."""

LOOK = 1.0
"""Seconds between looks of somebody who follows a run."""

LEFT = 2
"""Exit code where something of the training cannot be ended: FAIL, as of a check."""


@click.group()
def stability() -> None:
    """Runs of 24 and 48 hours of training: start, follow, stop, list."""


@stability.command("start", short_help="Arm a run and start its training.")
@click.argument("phase", type=click.Choice(PHASES))
@click.argument("command", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
@click.option("--reference", is_flag=True, help="Train the reference job, on this node alone.")
@click.option("--job", metavar="NAME", help="Name under which the ranks report.  [default: PHASE]")
@click.option(
    "--duration",
    type=Duration(min=1, max=YEAR),
    metavar="SECONDS",
    help="A shorter run can fail; it cannot pass.",
)
@click.option(
    "--on-failure",
    type=click.Choice(["continue", "stop"]),
    default="continue",
    show_default=True,
    metavar="WHAT",
    help="What follows when a criterion can no longer be met: continue or stop.",
)
@click.option("--note", default="", metavar="TEXT", help="Words to keep with the run.")
@click.option("--force", is_flag=True, help="Also with ranks that share cores: it never counts.")
@click.option(
    "--grace",
    type=Duration(min=0, max=600),
    default=GRACE,
    metavar="SECONDS",
    show_default=True,
    help="For a last checkpoint.",
)
@click.option("--follow/--no-follow", default=None, help="Show progress.  [default: on a terminal]")
def start(
    phase: str,
    command: tuple[str, ...],
    *,
    reference: bool,
    job: str | None,
    duration: float | None,
    on_failure: str,
    note: str,
    force: bool,
    grace: float,
    follow: bool | None,
) -> None:
    """Arm a run of PHASE and start its training: COMMAND, or the reference job.

    COMMAND is any line of torchrun or srun whose ranks report to dvfd as job NAME; a Reporter that
    names no job reports as that by itself. It runs under a supervisor of its own: a unit of
    systemd's if root asks where dvfd is a service, else a process that outlives the terminal.
    When the run is over COMMAND is asked to end, with 60 s for a last checkpoint, then made to.

    Ctrl-C ends the following and not the run. Exit code: of the run as `dvfd stability status`
    has it if it was followed to its end, else 0 started, 3 refused or no daemon, 130 interrupted.

    Example: dvfd stability start phase1 --reference --duration 1200
    """
    if reference == bool(command):
        raise click.UsageError("give COMMAND after `--`, or --reference: one of the two")
    must(daemon("ping"), "a stability run")
    check = f"stability_{phase}"
    job = job or ("reference" if reference else phase)
    argv = _reference(check, job) if reference else command
    if shutil.which(argv[0]) is None:
        raise DvfdError(f"{argv[0]}: no such program here: wanted one in PATH, or its whole path")
    run = must(
        daemon(
            "stability_arm", check=check, job=job, duration=duration, on_failure=on_failure,
            argv=list(argv), directory=str(Path.cwd()), note=note, force=force,
        ),
        "a stability run",
    )  # fmt: skip
    click.echo(f"armed {run['id']}: {check}, job {job}")
    with _else_disarmed(run["id"]):
        where = _launch(run["id"], argv, job=job, grace=grace, only=reference)
    click.echo(f"training started; what it says is in {where}")
    if follow or (follow is None and sys.stdout.isatty()):
        _follow(run["id"])


def _reference(check_id: str, job: str) -> tuple[str, ...]:
    """The reference job under torchrun, as *check_id* wants it. Raises DvfdError, ConfigError."""
    from dvfd.catalogue import load as load_catalogue
    from dvfd.config import load as load_config
    from dvfd.drills.order import reference_job

    config = load_config()
    check = load_catalogue(config).checks[check_id]
    if check.nodes != 1:
        raise DvfdError(
            f"{check_id} wants {check.processes} processes on {check.nodes} nodes, --reference "
            "trains on one: give COMMAND, with torchrun started on every node"
        )
    made = _runs() / f"{job}_{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.checkpoints"
    options = (
        f"--job={job}",
        f"--checkpoint-dir={made}",
        f"--checkpoint-every={check.checkpoint_every}",
    )
    python = str(config.drills.interpreter)
    return reference_job(python, user="", processes=check.processes, options=options).argv


def _runs() -> Path:
    """Where the files of runs lie, and what this user's training leaves beside them."""
    from dvfd.places import state_dir

    return state_dir() / "runs"


@contextlib.contextmanager
def _else_disarmed(run: str) -> Iterator[None]:
    """Take a run back whose training could not be started, with what of it was."""
    from dvfd.runs import ending

    try:
        yield
    except (DvfdError, OSError, KeyboardInterrupt) as error:
        why = f"its training could not be started: {str(error) or 'interrupted'}"
        with contextlib.suppress(DvfdError):
            daemon("stability_stop", id=run, reason=" ".join(why.split()))
        with contextlib.suppress(DvfdError):
            ending.end(run, grace=0.0)
        raise


def _launch(run: str, argv: tuple[str, ...], *, job: str, grace: float, only: bool) -> str:
    """Start the training's supervisor and wait until it has told of itself; where its words go.

    Raises DvfdError if it has not.
    """
    from dvfd.runs import start as starting

    order = starting.Start(
        run=run,
        argv=argv,
        control=control_path().resolve(),
        directory=str(Path.cwd()),
        environment={**os.environ, "DVFD_JOB": job},
        grace=grace,
        only=only,
    )
    if starting.by_systemd():
        starting.start_unit(order)
        _wait_until_launched(run, None, "its journal")
        starting.forget(run)
        return f"journalctl -u {starting.unit(run)}"
    log = _runs() / f"{run}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    _wait_until_launched(run, starting.start_session(order, log), str(log))
    return str(log)


def _wait_until_launched(run: str, holder: subprocess.Popen[bytes] | None, words: str) -> None:
    """Raises DvfdError if the training ends, or nobody tells of it."""
    until = time.monotonic() + BEGINNING
    while time.monotonic() < until:
        known = (_seen(run) or {"run": {}})["run"]
        if known.get("stage") in progress.OVER:
            raise DvfdError(f"run {run} ended: {known['reason']}; see {words}")
        if known.get("launched"):
            return
        if holder is not None and (code := holder.poll()) is not None:
            raise DvfdError(f"its supervisor ended with exit code {code}; see {words}")
        time.sleep(BREATH)
    raise DvfdError(f"its supervisor told nothing of itself in {BEGINNING:.0f} s; see {words}")


# --- Looking at it -----------------------------------------------------------------------------


@stability.command("status", short_help="How a run stands: its times, every criterion.")
@click.argument("run", required=False)
@judged_option
def status(run: str | None, output: str) -> None:
    """Show how RUN stands, the newest one if none is named.

    While a run is on it has passed nothing: a criterion is unknown with what it says so far, or
    fails once it can no longer be met. Without a daemon what the run's own files say is shown.

    Exit code: 0 pass, 1 a warning is breached, 2 fail, 3 unknown.

    Example: dvfd stability status
    """
    found = _found(run)
    show(found, output, progress.text)
    sys.exit(exit_code(found))


def _found(run: str | None) -> dict[str, Any]:
    """What is known of *run*, or of the newest. Raises DvfdError if nothing is."""
    answer = daemon("stability_status", id=run or "")
    if answer is not None:
        return progress.document(answer, running=True)
    from dvfd.runs.shelf import answer as on_the_shelf

    return progress.document(on_the_shelf(_runs(), run), running=False)


@stability.command("list", short_help="Every run of this node, the newest last.")
@output_option
def list_(output: str) -> None:
    """List every run of this node: its name, its stage, how long it is to be, why it ended.

    Without a daemon the files of runs are read, as far as this user may.

    Example: dvfd stability list
    """
    runs = daemon("stability_list")
    if runs is None:
        from dvfd.runs.shelf import documents

        runs = documents(_runs())
    show({"runs": runs}, output, progress.listed)


def _follow(run: str) -> None:
    """Show how *run* stands until it is over; then exit by its verdict."""
    told = ""
    try:
        while True:
            found = _seen(run)
            line = "no daemon answers: the training goes on" if not found else progress.line(found)
            _tell(line, told)
            told = line
            if found and progress.settled(found):
                click.echo("")
                show(found, "text", progress.text)
                sys.exit(exit_code(found))
            time.sleep(LOOK)
    except KeyboardInterrupt:
        click.echo(
            f"\nthe run goes on: dvfd stability status {run} shows it, "
            f"dvfd stability stop {run} ends it"
        )
        sys.exit(INTERRUPTED)


def _seen(run: str) -> dict[str, Any] | None:
    """How *run* stands; None where no daemon answers."""
    try:
        answer = daemon("stability_status", id=run)
    except DvfdError:  # it is going, or coming
        return None
    return None if answer is None else progress.document(answer, running=True)


def _tell(line: str, before: str) -> None:
    """*line* in the place of *before* on a terminal; below it, if it says more, elsewhere."""
    if sys.stdout.isatty():
        click.echo(f"\r\x1b[K{shortened(printable(line), columns() - 1)}", nl=False)
    elif line.partition(",")[0] != before.partition(",")[0]:  # the stage
        click.echo(printable(line))


stability.add_command(report)
stability.add_command(judge)
stability.add_command(accept)
stability.add_command(accepted)


# --- Ending it ---------------------------------------------------------------------------------


@stability.command("stop", short_help="End a run and its training, and see it gone.")
@click.argument("run", required=False)
@click.option("--reason", default="", metavar="TEXT", help="Words to keep with the run.")
@output_option
def stop(run: str | None, reason: str, output: str) -> None:
    """End RUN, the newest one if none is named: it is aborted, and its training ends.

    The training is asked to end, with the time for a last checkpoint, then made to; every process
    of it is seen gone. Of a run that is over already only what is left of its training ends.

    Exit code: 0 it is gone, 2 something of it cannot be ended by this user, 3 no such run, or no
    daemon that could be told.

    Example: dvfd stability stop --reason "the node is needed"
    """
    from dvfd.errors import ToolError
    from dvfd.runs import ending

    found = _found(run)
    known, told = found["run"], found["running"]
    if not progress.over(known) and told:
        known = must(daemon("stability_stop", id=known["id"], reason=reason), "stopping a run")
    say_on_a_terminal(f"ending the training of {known['id']}: it may write a last checkpoint")
    try:
        count = ending.stop(known["id"], known["launched"] or {})
    except ToolError as error:
        click.echo(f"dvfd: {error}", err=True)
        sys.exit(LEFT)
    many = f"{count} process{'es' if count > 1 else ''}"
    gone = f"its training is gone: {many}" if count else "none of its training was left"
    show(
        {"run": known, "processes": count, "told": told}, output,
        lambda _: f"{known['id']}: {known['reason'] or known['stage']}; {gone}",
    )  # fmt: skip
    if not told:
        raise DvfdError(f"no daemon was told: it ends {known['id']} when it looks for its job")
