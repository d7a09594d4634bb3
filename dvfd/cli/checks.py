"""`dvfd check` and `dvfd checklist`: run tests, then judge now, by the daemon or on its store."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from dvfd.cli.common import daemon, judged_option, report_text, show
from dvfd.cli.completion import names
from dvfd.cli.formats import exit_code, together
from dvfd.errors import DvfdError

if TYPE_CHECKING:
    from pathlib import Path

    from dvfd.drills.drill import Options
    from dvfd.drills.findings import Findings


@click.command(short_help="Run and judge checks of the framework now.")
@click.argument(
    "names_", metavar="NAME...", nargs=-1, required=True, shell_complete=names("checks")
)
@click.option("--no-soak", is_flag=True, help="Leave out what takes minutes: it stays UNKNOWN.")
@click.option("--force", is_flag=True, help="Also what disturbs a training job that runs here.")
@click.option(
    "--duration",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="Of checks that have one. A shorter run can fail; it cannot pass.",
)
@click.option("--fresh", is_flag=True, help="Start over instead of going on where one stopped.")
@click.option("--no-run", is_flag=True, help="Run nothing: judge what the last run found.")
@click.option("--inside", is_flag=True, hidden=True)  # this is rank 0: dvfd.drills.script
@judged_option
def check(
    names_: tuple[str, ...],
    output: str,
    *,
    no_soak: bool,
    force: bool,
    duration: float | None,
    fresh: bool,
    no_run: bool,
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

    options = Options(soak=not no_soak, force=force, duration=duration, fresh=fresh, inside=inside)
    judged(names_, output, None if no_run else options)


@click.command(short_help="Judge the daily, weekly or monthly list now.")
@click.argument("name", type=click.Choice(["daily", "weekly", "monthly"]))
@judged_option
def checklist(name: str, output: str) -> None:
    """Judge a checklist now, keep the report, and print it.

    It judges its whole period (24 hours for daily): what was not observed in most of it is
    UNKNOWN. Exit code: 0 pass, 1 a warning is breached, 2 fail, 3 unknown.

    Example: dvfd checklist daily
    """
    judged([name], output, None)


def judged(names_: Sequence[str], output: str, options: Options | None) -> None:
    """Judge the checks *names_*, print what came of it and exit; with *options* tests run first."""
    reports, where = [], ""
    tests = _tests(names_, options) if options else {}
    for name in names_:
        findings = tests[name]() if name in tests else None
        answer, where = _judge(name, findings)
        reports.append(answer)
    document = reports[0] if len(reports) == 1 else together(reports)
    show(document, output, report_text)
    click.echo(f"judged on {where}", err=True)
    sys.exit(exit_code(document))


def _tests(names_: Sequence[str], options: Options) -> dict[str, Callable[[], Findings]]:
    """What runs the test of each of the checks *names_* that has one.

    Everything that could be refused is asked here: a refusal must not come after hours. Raises
    DvfdError.
    """
    from dvfd import log
    from dvfd.catalogue import load as load_catalogue
    from dvfd.config import load as load_config
    from dvfd.drills.conduct import conduct, timed
    from dvfd.drills.memo import Memo
    from dvfd.query import known

    log.setup("error")
    config = load_config()
    checks = load_catalogue(config).checks
    chosen = [checks[known({"check": name}, "check", checks)] for name in names_]
    tests = [check for check in chosen if check.drill]
    if tests:
        daemon("allowed")
    run = partial(
        conduct, training=training_here(inside=options.inside), memo=Memo(), say=_say_on_a_terminal
    )
    return {c.id: partial(run, c, config, timed(options, c)) for c in tests}


def training_here(*, inside: bool = False) -> str:
    """What trains here, in words: by the processes that we can see, and by the daemon's jobs."""
    from dvfd.drills.training import training, words

    if seen := words(training(launcher=os.getppid() if inside else None)):
        return seen
    status = daemon("status") or {}
    jobs = [job["job"] for job in status.get("jobs", ()) if job["state"] != "ended"]
    return f"job {', '.join(jobs)}" if jobs else ""


def _say_on_a_terminal(line: str) -> None:
    if sys.stderr.isatty():
        click.echo(line, err=True)


def _judge(name: str, findings: Findings | None) -> tuple[Any, str]:
    """The report, and the store that it was judged on."""
    try:
        if findings is None:
            answer = daemon("check", check=name)
        else:
            answer = daemon("drilled", findings=findings.to_dict())
        if answer is not None:
            return answer, "the daemon's store"
        from dvfd.alone import judge_alone

        return judge_alone(name, findings)
    except DvfdError as error:
        if findings is None:
            raise
        raise DvfdError(f"{error}; what the test found lies in {_rescued(findings)}") from None


def _rescued(findings: Findings) -> Path:
    """Where *findings* that could not be kept lie now."""
    from dvfd.drills.conduct import kept

    place = kept(findings.check) / "findings.json"
    place.write_text(json.dumps(findings.to_dict()) + "\n", encoding="utf-8")
    return place
