"""`dvfd calibrate`: measure this node and write what was measured for a person to review."""

from __future__ import annotations

import dataclasses
import getpass
import os
import platform
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dvfd.cli.common import dry_run_option, say_on_a_terminal
from dvfd.cli.config import path_option

if TYPE_CHECKING:
    from datetime import datetime

    from dvfd.drills.calibrate import Found, Step
    from dvfd.drills.drill import Task
    from dvfd.drills.trial import Throughput

ILL = 2
"""Exit code: FAIL, as of a check. The node computes or sums wrongly."""


@click.command(short_help="Measure this node, write its baseline for review.")
@path_option
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The file to write.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=15, max=3600),
    default=30.0,
    show_default=True,
    help="Of each training, after its start.",
)
@click.option("--single", default="", metavar="COMMAND", help="The same training, one process.")
@click.option("--replace", is_flag=True, help="Take the place of FILE, which is kept beside it.")
@click.option("--by", default="", metavar="NAME", help="Who; default your user's name.")
@click.option("--reason", default="", metavar="TEXT", help="Why it is replaced.")
@click.option("--force", is_flag=True, help="Also beside a training job: its figures suffer too.")
@dry_run_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def calibrate(
    path: Path | None,
    file: Path,
    command: tuple[str, ...],
    *,
    seconds: float,
    single: str,
    by: str,
    reason: str,
    replace: bool,
    force: bool,
    dry_run: bool,
) -> None:
    """Measure what this node can do, and write it to FILE: the throughput of a training with all
    processes and with one, all-reduce by size, memory bandwidth, each core's time for fixed work.

    COMMAND is your own training, which must report its samples; without one it is the reference
    job. It reports to this command, not to the daemon, and is ended when it was heard for long
    enough. Review FILE, then name it: [profile] calibration = "FILE", and reload.

    Exit code: 0 written, 2 the node is ill (nothing written), 3 refused or not measured.

    Example: dvfd calibrate -o calibration.toml -- torchrun --nproc_per_node=4 train.py
    """
    from dvfd.cli.here import must_be_alone
    from dvfd.drills import calibrate as measuring
    from dvfd.drills.conduct import alone

    task = _task(path)
    _may(file, replace=replace, by=by, reason=reason)
    wish = measuring.Wish(command=command, single=tuple(shlex.split(single)), seconds=seconds)
    planned = measuring.steps(task, wish)
    if dry_run:
        click.echo(_plan(planned, file))
    must_be_alone(force=force)
    if dry_run:
        return
    say_on_a_terminal(_plan(planned, file))
    with alone(), tempfile.TemporaryDirectory(prefix="dvfd-calibrate-") as scratch:
        found = measuring.measure(dataclasses.replace(task, scratch=Path(scratch)), wish)
    if found.ill:
        _say("nothing written: this node is ill, and would be its own baseline")
        for line in found.ill:
            _say(line)
        sys.exit(ILL)
    _write(task, found, file, wish.seconds, by=by, reason=reason)


# --- Before ---------------------------------------------------------------------------------------


def _task(path: Path | None) -> Task:
    """What measuring is given. No check is run: it borrows one whose parts it shares."""
    from dvfd import log
    from dvfd.catalogue import load as load_catalogue
    from dvfd.clock import SystemClock
    from dvfd.config import load as load_config
    from dvfd.drills.drill import Task

    log.setup("error")
    config = load_config(path)
    return Task(
        check=load_catalogue(config).checks["openmpi_gloo"],
        config=config,
        clock=SystemClock(),
        scratch=Path(),
        state=Path(),
        say=say_on_a_terminal,
    )


def _may(file: Path, *, replace: bool, by: str, reason: str) -> None:
    """Everything about FILE that would be refused after minutes of work. Raises DvfdError."""
    from dvfd.calibration import may_write

    if replace and not (by.strip() and reason.strip()):
        raise click.UsageError(
            "--replace needs --by NAME and --reason TEXT: the new file says both"
        )
    if reason and not replace:
        raise click.UsageError("--reason belongs to --replace")
    may_write(file, replace=replace)


def _plan(planned: list[Step], file: Path) -> str:
    from dvfd.drills.calibrate import duration
    from dvfd.reduce import seconds

    widest = max(len(step.name) for step in planned)
    lines = [f"{step.name.ljust(widest)}  {step.text}" for step in planned]
    return "\n".join([*lines, f"about {seconds(duration(planned))}, then {file} is written"])


def _say(line: str) -> None:
    click.echo(line, err=True)


# --- After ----------------------------------------------------------------------------------------


def _write(task: Task, found: Found, file: Path, seconds: float, *, by: str, reason: str) -> None:
    """Write what was *found*, and say what to do with it."""
    from datetime import UTC, datetime

    from dvfd import calibration

    now = datetime.now(UTC)
    told = _told(task, found, seconds, by, now)
    document = _short({"profile": found.profile, "calibration": told})
    kept = calibration.write(file, document, _head(file, found), reason=reason.strip(), now=now)
    for name, each in found.trainings.items():
        bounds = f"95 % confidence: {each.low:.4g} to {each.high:.4g}"
        click.echo(f"{name} = {each.median:.6g} samples/s ({bounds}, {each.windows} windows)")
    for line in found.left_out:
        _say(f"left out: {line}")
    if kept is not None:
        _say(f"what was there is kept as {kept}")
    _say(f'{file} is written: review it, then [profile] calibration = "{file.absolute()}"')


def _told(task: Task, found: Found, seconds: float, by: str, now: datetime) -> dict[str, Any]:
    """Where the values come from."""
    from dvfd import calibration

    assert found.throughput
    torch = calibration.torch_of(task.config.drills.interpreter)
    here = calibration.conditions(task.config, torch)
    return {
        "schema": calibration.SCHEMA,
        "configuration": here.hash,
        "at": now.replace(microsecond=0),
        "by": by.strip() or os.environ.get("SUDO_USER") or getpass.getuser(),
        "host": platform.node(),
        "job": found.throughput.job,
        "seconds": seconds,
        "left_out": list(found.left_out),
        "conditions": dataclasses.asdict(here),
        "besides": calibration.besides(),
        **{name: _training(each) for name, each in found.trainings.items()},
        **found.figures,
    }


def _training(measured: Throughput) -> dict[str, Any]:
    told = dataclasses.asdict(measured)
    for more in ("rates", "communication"):  # a calibration is read by people
        told.pop(more)
    return {**told, "command": list(measured.command)}


def _short(value: Any) -> Any:
    """*value* with its floats to six digits: more were not measured."""
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_short(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _head(file: Path, found: Found) -> str:
    left = "".join(f"\nLeft out: {line}" for line in found.left_out)
    return f"""\
Measured by `dvfd calibrate`. Review it; it changes nothing before dvfd.toml names it:
    [profile]
    calibration = "{file.absolute()}"
[profile] is what criteria are held against, samples per second; what dvfd.toml says itself stands.
Figures below: seconds, bytes per second, samples per second; low and high bound the median with
95 % confidence. Under another configuration (calibration.conditions) the values are not used.
An edit by hand is allowed, and told.{left}"""
