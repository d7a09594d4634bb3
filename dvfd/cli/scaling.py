"""`dvfd scaling`: throughput by process count: what is known, what was foretold, what will be."""

from __future__ import annotations

import dataclasses
import getpass
import os
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dvfd.answers import asked, daemon
from dvfd.cli.checks import Duration
from dvfd.cli.common import output_option, say_on_a_terminal, show
from dvfd.cli.text import wrapped
from dvfd.errors import DvfdError
from dvfd.words import NONE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dvfd.drills.drill import Task
    from dvfd.scaling.efficiency import Row
    from dvfd.scaling.points import Point
    from dvfd.scaling.reading import Known
    from dvfd.scaling.view import View

USUAL = (16, 32)
"""Processes that are asked about where nobody says: the last phase, and the monthly list's 32+."""

HASH = 12
"""Letters of a configuration that are shown: enough to name it."""


@click.group(
    invoke_without_command=True,
    short_help="Throughput by process count: the ledger, the fits, what is to come.",
)
@click.option(
    "--configuration", default="", metavar="HASH", help="This one; else the newest run's."
)
@output_option
@click.pass_context
def scaling(ctx: click.Context, configuration: str, output: str) -> None:
    """Throughput by process count: the ledger, its efficiencies, and what is still to come.

    Alone it lists what is known of one configuration, one line for each process count. Figures of
    unequal configurations are never compared. Accepted stability runs stand in it by themselves.

    Example: dvfd scaling
    """
    if ctx.invoked_subcommand is None:
        show(_listed(configuration), output, lambda document: "\n".join(_lines(document)))


@scaling.command("measure", short_help="Train for some minutes and keep the throughput.")
@click.argument("command", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
@click.option("--processes", type=click.IntRange(min=1), required=True, metavar="N")
@click.option(
    "--seconds",
    type=Duration(min=15, max=3600),
    default=180.0,
    show_default=True,
    metavar="SECONDS",
    help="After its start and warm-up.",
)
@click.option("--by", default="", metavar="NAME", help="Who; default your user's name.")
@click.option("--force", is_flag=True, help="Also beside a training job: the figure suffers.")
@output_option
def measure(
    command: tuple[str, ...], *, processes: int, seconds: float, by: str, force: bool, output: str
) -> None:
    """Run COMMAND, a training on N processes, hear its throughput, end it, and keep the figure.

    Without COMMAND it is the reference job on this node. The single process that a phase is held
    against is measured within a day of its run, with the same training. More than one process
    measured this way can fail; only an accepted stability run can pass.

    Example: dvfd scaling measure --processes 1 -- torchrun --nproc_per_node=1 train.py
    """
    from dvfd.cli.here import must_be_alone
    from dvfd.drills.conduct import alone
    from dvfd.scaling import measuring

    daemon("allowed")
    must_be_alone(force=force)
    name = by.strip() or os.environ.get("SUDO_USER") or getpass.getuser()
    with alone(), tempfile.TemporaryDirectory(prefix="dvfd-scaling-") as scratch:
        task = dataclasses.replace(_task(), scratch=Path(scratch))
        point = measuring.measure(task, command, processes=processes, seconds=seconds, by=name)
    _added("scaling_measured", {"point": point.to_document()}, output)


@scaling.command("record", short_help="Enter a figure that was measured elsewhere.")
@click.option("--processes", type=click.IntRange(min=1), required=True, metavar="N")
@click.option("--throughput", type=float, required=True, metavar="SAMPLES/S")
@click.option("--low", type=float, metavar="SAMPLES/S", help="Lower end of its 95 % interval.")
@click.option("--high", type=float, metavar="SAMPLES/S", help="Upper end.")
@click.option("--communication", type=float, metavar="SHARE", help="Exposed, over step time: 0.12.")
@click.option("--at", metavar="TIME", help="When it was measured; now without it.")
@click.option("--job", default="", metavar="NAME", help="The training that it is of,")
@click.option("--configuration", default="", metavar="HASH", help="or one of the ledger.")
@click.option("--name", required=True, metavar="NAME", help="Who enters it.")
@click.option("--note", required=True, metavar="TEXT", help="How it was measured.")
@output_option
def record(output: str, *, at: str | None, **given: Any) -> None:
    """Enter a throughput that dvfd did not measure: by name, with how it was measured.

    It is fitted and shown like the others, marked as entered. What rests on it can fail and cannot
    pass.

    Example: dvfd scaling record --processes 4 --throughput 271 --job a --name Ann --note "old log"
    """
    if bool(given["job"]) == bool(given["configuration"]):
        raise click.UsageError("give --job NAME or --configuration HASH")
    _added("scaling_record", {**given, "at": None if at is None else _moment(at)}, output)


@scaling.command("project", short_help="Fit what is known; where it leads, and how sure.")
@click.option(
    "--processes",
    type=click.IntRange(min=2),
    multiple=True,
    metavar="N",
    help="May be repeated.",
)
@click.option(
    "--configuration", default="", metavar="HASH", help="This one; else the newest run's."
)
@click.option("--below", type=click.IntRange(min=2), metavar="N", help="Fit smaller counts only.")
@click.option("--freeze", is_flag=True, help="Keep it: a later run is held against it.")
@click.option("--name", default="", metavar="NAME", help="Who freezes it.")
@click.option("--note", default="", metavar="TEXT", help="Words to keep with it.")
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a page with the plot, too.",
)
@output_option
def project(
    processes: tuple[int, ...],
    configuration: str,
    below: int | None,
    output: str,
    *,
    freeze: bool,
    name: str,
    note: str,
    page: Path | None,
) -> None:
    """Fit Amdahl, Gustafson, USL and a power law: what they foretell, and whether to believe it.

    The USL decides, bounded unless the data are super-linear. The interval spans the models that
    can be and refits of resampled windows. `--freeze` keeps it before a run: only what was frozen
    before a run began is held against it.

    Example: dvfd scaling project --processes 8 --freeze --name "Ann Lee"
    """
    if freeze != bool(name.strip()):
        raise click.UsageError("--freeze and --name NAME go together")
    if freeze and below:
        raise click.UsageError("--below is for looking back: what is frozen rests on all counts")
    targets = sorted(set(processes or USUAL))
    kept = (
        _frozen({"targets": targets, "name": name, "note": note, "configuration": configuration})
        if freeze
        else None
    )
    view = _view(configuration, targets, below)
    document = {**view.to_document(), "frozen": kept}
    show(document, output, lambda _document: "\n".join(_projected(view, kept)))
    if page is not None:
        from dvfd.scaling.page import html

        page.write_text(html(view, kept["sha256"] if kept else ""), encoding="utf-8")
        click.echo(f"{page} is written", err=True)


# --- Asking -----------------------------------------------------------------------------------


def _task() -> Task:
    """What measuring is given. No check is run: it borrows one whose parts it shares."""
    from dvfd import log
    from dvfd.catalogue import load as load_catalogue
    from dvfd.clock import SystemClock
    from dvfd.config import load as load_config
    from dvfd.drills.drill import Task

    log.setup("error")
    config = load_config()
    return Task(
        check=load_catalogue(config).checks["scaling_efficiency"],
        config=config,
        clock=SystemClock(),
        scratch=Path(),
        state=Path(),
        say=say_on_a_terminal,
    )


def _kept(op: str, request: Mapping[str, Any]) -> Any:
    return asked(op, **request)


def _added(op: str, request: Mapping[str, Any], output: str) -> None:
    from dvfd.scaling.points import Point

    def told(document: Mapping[str, Any]) -> str:
        point = Point.from_document(document)
        return "\n".join(_point(point))

    show(_kept(op, request), output, told)


def _frozen(request: Mapping[str, Any]) -> Mapping[str, Any]:
    answer: Mapping[str, Any] = _kept("scaling_freeze", request)
    return answer


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise DvfdError(f"--at {text!r}: a time like 2027-01-31T12:00 wanted") from None


def _known(configuration: str) -> tuple[Known, str]:
    from dvfd.scaling.ledger import chosen
    from dvfd.scaling.reading import known

    found = known(asked("scaling"))
    return found, chosen(found.points, configuration)


def _view(configuration: str, targets: Sequence[int], below: int | None) -> View:
    from dvfd.catalogue import load as load_catalogue
    from dvfd.config import load as load_config
    from dvfd.scaling.view import view

    known, name = _known(configuration)
    return view(known, name, targets, load_catalogue(load_config()), below=below)


# --- The list -----------------------------------------------------------------------------------


def _listed(configuration: str) -> dict[str, Any]:
    """The points of one configuration, with their efficiencies, as JSON."""
    from dvfd.scaling.efficiency import rows
    from dvfd.scaling.ledger import chosen
    from dvfd.scaling.reading import known
    from dvfd.scaling.series import series

    ledger = known(asked("scaling"))
    if not ledger.points and not configuration:
        return {"configuration": "", "points": [], "rows": [], "others": [], "left_out": [],
                "projections": [], "damaged": list(ledger.damaged)}  # fmt: skip
    mine = series(ledger.points, chosen(ledger.points, configuration))
    found = rows(mine, ledger.points, ledger.frozen)
    frozen = [f for f in ledger.frozen if f.configuration == mine.configuration]
    return {
        "configuration": mine.configuration,
        "points": [{**p.to_document(), "words": p.words, "windows": len(p.windows)}
                   for p in mine.points],
        "rows": [_row(row) for row in found],
        "others": sorted({p.configuration for p in ledger.points} - {mine.configuration}),
        "left_out": list(mine.left_out),
        "projections": [{"number": f.number, "words": f.words, "sha256": f.sha256,
                         "targets": [t.processes for t in f.projection.targets]} for f in frozen],
        "damaged": list(ledger.damaged),
    }  # fmt: skip


def _row(row: Row) -> dict[str, Any]:
    return {
        "processes": row.processes,
        "efficiency": row.efficiency,
        "interval": row.ends,
        "single": row.single.throughput if row.single else None,
        "lack": row.lack,
        "doubt": row.doubt,
        "projection_error": row.error,
        "against": row.foretold[0].words if row.foretold else "",
    }


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    if not document["points"]:
        yield from wrapped(
            "nothing is in the ledger: dvfd scaling measure --processes 1, dvfd stability accept"
        )
        yield from (f"damaged: {words}" for words in document["damaged"])
        return
    by_count = {row["processes"]: row for row in document["rows"]}
    yield f"configuration {document['configuration'][:HASH]}"
    yield f"{'PROCESSES':>9}  {'SAMPLES/S':>10}  {'95 % INTERVAL':<19}  {'EFFICIENCY':<21}  COMM"
    for point in document["points"]:
        row = by_count.get(point["processes"], {})
        yield _line(point, row)
        yield from wrapped(point["words"], 11)
        for words in (row.get("lack"), row.get("doubt")):
            yield from wrapped(f"> {words}", 11) if words else ()
        if (row.get("efficiency") or 0) > 1:
            yield from wrapped("> super-linear: verify the baseline", 11)
        if row.get("projection_error") is not None:
            error = f"{row['projection_error']:+.1%} of {row['against']}"
            yield from wrapped(f"> {error}", 11)
    for each in document["projections"]:
        counts = ", ".join(map(str, each["targets"]))
        yield from wrapped(f"{each['words']}, for {counts}: {each['sha256'][:HASH]}")
    for name in ("left_out", "damaged"):
        for words in document[name]:
            yield from wrapped(f"{name.replace('_', ' ')}: {words}")
    if document["others"]:
        names = ", ".join(name[:HASH] for name in document["others"])
        yield from wrapped(f"other configurations, never compared with this one: {names}")


def _line(point: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    ends = NONE
    if point["low"] is not None:
        ends = f"{point['low']:.5g} to {point['high']:.5g}"
    efficiency = NONE if row.get("efficiency") is None else f"{row['efficiency']:.1%}"
    if found := row.get("interval"):
        efficiency += f" ({100 * found[0]:.1f} to {100 * found[1]:.1f})"
    share = NONE if point["communication"] is None else f"{point['communication']:.1%}"
    figure = f"{point['processes']:>9}  {point['throughput']:>10.5g}  {ends:<19}"
    return f"{figure}  {efficiency:<21}  {share}"


def _point(point: Point) -> Iterator[str]:
    ends = "" if point.low is None else f" ({point.low:.5g} to {point.high:.5g})"
    yield f"{point.processes:>3}  {point.throughput:.5g}{ends} samples/s"
    yield from wrapped(f"{point.words}; configuration {point.configuration[:HASH]}", 5)


# --- The projection -------------------------------------------------------------------------------


def _projected(view: View, kept: Mapping[str, Any] | None) -> Iterator[str]:
    yield f"configuration {view.configuration[:HASH]}"
    for point in view.points:
        yield from _point(point)
    yield ""
    counts = [target.processes for target in view.targets]
    yield (
        f"{'MODEL':<12}  {'ERROR':>6}  "
        + "  ".join(f"{f'AT {n}':>9}" for n in counts)
        + "  PARAMETERS"
    )
    for line in view.models:
        mark = "*" if line.decides else " "
        values = "  ".join(f"{NONE if v is None else f'{v:.5g}':>9}" for v in line.values)
        odd = "" if line.physical else "; not physical"
        yield f"{mark}{line.name:<11}  {line.error:>6.1%}  {values}  {line.parameters}{odd}"
    yield ""
    for target in view.targets:
        yield from wrapped(target.words)
        for words in target.against:
            yield from wrapped(f"> {words}", 2)
        yield from wrapped(target.floors, 2) if target.floors else ()
    for words in view.notes:
        yield from wrapped(words)
    if kept is not None:
        yield from wrapped(f"frozen as projection {kept['number']}: sha256 {kept['sha256']}")
