"""`dvfd check` and `dvfd checklist`: run tests, then judge now, by the daemon or on its store."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dvfd.answers import daemon
from dvfd.cli.common import fail_on_option, judged_option, report_text, say_on_a_terminal, show
from dvfd.cli.completion import names
from dvfd.cli.formats import exit_code, together
from dvfd.errors import DvfdError

if TYPE_CHECKING:
    from dvfd.drills.drill import Options
    from dvfd.drills.findings import Findings
    from dvfd.model import Check

LISTING = 900.0
"""Seconds in which a list is judged: for the weekly one a checkpoint is restored, whose own limit
is ten minutes as delivered.
"""

YEAR = 31_536_000.0
"""Seconds: a longer run is a slip of the hand."""


class Duration(click.FloatRange):
    """Seconds within a range; NaN lies within any to click, as it is neither below nor above."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """*value* as a number of the range. Fails with words otherwise."""
        number: float = super().convert(value, param, ctx)
        return (
            number if not math.isnan(number) else self.fail(f"{value!r} is no number", param, ctx)
        )


@click.command(short_help="Run and judge checks of the framework now.")
@click.argument(
    "names_", metavar="NAME...", nargs=-1, required=True, shell_complete=names("checks")
)
@click.option("--no-soak", is_flag=True, help="Leave out what takes minutes: it stays UNKNOWN.")
@click.option("--force", is_flag=True, help="Also what disturbs a training job that runs here.")
@click.option(
    "--duration",
    type=Duration(min=1, max=YEAR),
    metavar="SECONDS",
    help="Of checks that have one. A shorter run can fail; it cannot pass.",
)
@click.option(
    "--nodes",
    type=click.IntRange(min=2, max=4096),
    metavar="N",
    help="How many nodes take part. Give the same command on each.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Of scaling_efficiency: the phase's count, 8 without it, 12 or 16.",
)
@click.option(
    "--listen",
    default="",
    metavar="HOST:PORT",
    help="Of monitoring: see the test alert arrive here, by a webhook of Alertmanager's.",
)
@click.option("--fresh", is_flag=True, help="Start over instead of going on where one stopped.")
@click.option(
    "--yes-break-it", is_flag=True, help="Of reliability: kill, cut off and let join, on purpose."
)
@click.option(
    "--job",
    metavar="NAME",
    shell_complete=names("jobs"),
    help="Of reliability: harm this job of yours, not the reference job.",
)
@click.option("--halfway", is_flag=True, help="Of reliability: grow by way of half as many more.")
@click.option("--no-run", is_flag=True, help="Run nothing: judge what the last run found.")
@click.option(
    "--findings",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Run nothing: judge what a test found and could not hand in.",
)
@click.option("--inside", is_flag=True, hidden=True)  # this is rank 0: dvfd.drills.script
@judged_option
@fail_on_option
def check(
    names_: tuple[str, ...],
    output: str,
    *,
    fail_on: str,
    no_soak: bool,
    force: bool,
    duration: float | None,
    nodes: int | None,
    processes: int | None,
    listen: str,
    fresh: bool,
    yes_break_it: bool,
    job: str | None,
    halfway: bool,
    no_run: bool,
    file: Path | None,
    inside: bool,
) -> None:
    """Judge each check NAME now, keep the report, and print it.

    A check that has a test of its own (hardware, gradient_sync, ...) is run first, on this node and
    with your rights: nothing is left running afterwards, and nothing that could disturb a training
    job is done beside one.

    Exit code: 0 pass, 1 a warning is breached, 2 fail, 3 unknown. `dvfd status` names the checks.

    Example: dvfd check hardware openmpi_gloo pytorch --no-soak
    """
    from dvfd.drills.drill import Options

    options = Options(
        soak=not no_soak,
        force=force,
        duration=duration,
        fresh=fresh,
        inside=inside,
        nodes=nodes or 0,
        processes=processes or 0,
        consent=yes_break_it,
        job=job or "",
        halfway=halfway,
        listen=listen,
    )
    if processes and (no_run or file):
        raise click.UsageError("--processes is of a run: leave out --no-run and --findings")
    given = None if file is None else _read(file, names_)
    judged(names_, output, None if no_run or given else options, given, fail_on=fail_on)


def _read(file: Path, names_: Sequence[str]) -> Findings:
    """What a test left in *file*. Raises DvfdError, click.UsageError."""
    from dvfd.drills.findings import Findings

    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DvfdError(f"{file}: cannot be read: {error}") from None
    found = Findings.from_dict(document if isinstance(document, dict) else {})
    if list(names_) != [found.check]:
        raise click.UsageError(f"{file} is of {found.check}: dvfd check {found.check} --findings")
    return found


@click.command(short_help="Judge the daily, weekly or monthly list now.")
@click.argument("name", type=click.Choice(["daily", "weekly", "monthly"]))
@judged_option
@fail_on_option
def checklist(name: str, output: str, fail_on: str) -> None:
    """Judge a checklist now, keep the report, and print it.

    It judges its whole period (24 hours for daily): what was not observed in most of it is
    UNKNOWN. For the weekly list the newest checkpoint of each job is restored in a scratch process,
    which may take minutes. Exit code: 0 pass, 1 a warning is breached, 2 fail, 3 unknown.

    Example: dvfd checklist daily
    """
    judged([name], output, None, fail_on=fail_on)


def judged(
    names_: Sequence[str],
    output: str,
    options: Options | None,
    given: Findings | None = None,
    *,
    fail_on: str = "warning",
) -> None:
    """Judge the checks *names_*, print what came of it and exit; with *options* tests run first.

    *given* is what a test found before, of the one check that is named then.
    """
    reports: list[Any] = []
    where = broken = ""
    tests = _tests(names_, options) if options else {}
    with _node_to_ourselves() if tests else contextlib.nullcontext():
        for name in dict.fromkeys(names_):
            try:
                findings = tests[name]() if name in tests else given
                if findings and findings.elsewhere:
                    click.echo(f"{name}: took part; {findings.elsewhere} judges it", err=True)
                    continue
                answer, where = _judge(name, findings)
            except DvfdError as error:
                if not reports:
                    raise
                broken = f"dvfd: {name}: {error}"  # what was judged before it is told all the same
                break
            reports.append(answer)
    if not reports and not broken:
        return  # another node judges all that was asked for
    document = reports[0] if len(reports) == 1 and not broken else together(reports, broken=broken)
    show(document, output, report_text)
    click.echo(f"judged on {where}", err=True)
    if broken:
        click.echo(broken, err=True)
    sys.exit(exit_code(document, fail_on))


def _node_to_ourselves() -> contextlib.AbstractContextManager[None]:
    from dvfd.drills.conduct import alone

    return alone()


def _tests(names_: Sequence[str], options: Options) -> dict[str, Callable[[], Findings]]:
    """What runs the test of each of the checks *names_* that has one.

    Everything that could be refused is asked here: a refusal must not come after hours. Raises
    DvfdError.
    """
    from dvfd import log
    from dvfd.catalogue import load as load_catalogue
    from dvfd.cli.here import around, training_here
    from dvfd.config import load as load_config
    from dvfd.drills.conduct import conduct, kept, timed
    from dvfd.drills.memo import Memo
    from dvfd.query import known

    log.setup("error")
    config = load_config()
    if options.nodes:
        config, _ = around(config)
    checks = load_catalogue(config).checks
    chosen = [checks[known({"check": name}, "check", checks)] for name in names_]
    tests = [check for check in chosen if check.drill]
    for check in tests:
        kept(check.id)
        _countable(check, options.processes)
    if tests:
        daemon("allowed")
    memo = Memo()

    def run(check: Check) -> Findings:
        seen = training_here(inside=options.inside)  # anew: hours may lie before this one
        return conduct(
            check, config, timed(options, check), training=seen, memo=memo, say=say_on_a_terminal
        )

    return {check.id: partial(run, check) for check in tests}


def _countable(check: Check, processes: int) -> None:
    """Raises DvfdError if *check* cannot be about *processes*; 0 is its own number."""
    if not processes or processes in (told := check.counts if len(check.counts) > 1 else ()):
        return
    judges = " or ".join(map(str, told)) if told else "no process counts apart"
    raise DvfdError(f"{check.id}: --processes {processes}: it judges {judges}")


def _judge(name: str, findings: Findings | None) -> tuple[Any, str]:
    """The report, and the store that it was judged on."""
    try:
        if findings is None:
            answer = daemon("check", check=name, timeout=LISTING)
        else:
            answer = daemon("drilled", findings=findings.to_dict())
        if answer is not None:
            return answer, "the daemon's store"
        from dvfd.alone import judge_alone

        return judge_alone(name, findings)
    except DvfdError as error:
        if findings is None:
            raise
        raise DvfdError(f"{error}; {_rescued(findings)}") from None


def _rescued(findings: Findings) -> str:
    """Where *findings* that could not be kept lie now; told on stderr if the disks are full."""
    from dvfd.drills.conduct import kept

    text = json.dumps(findings.to_dict())
    for directory in (kept, _elsewhere):
        with contextlib.suppress(DvfdError, OSError):
            place = directory(findings.check) / "findings.json"
            place.write_text(text + "\n", encoding="utf-8")
            return f"hand it in again: dvfd check {findings.check} --findings {place}"
    click.echo(text, err=True)
    return "what the test found can be written nowhere and stands above"


def _elsewhere(check: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"dvfd-{check}-"))
