"""The command line: thin. Data on stdout, trouble on stderr, exit codes that a script can trust."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib import import_module
from shutil import get_terminal_size
from typing import Any

import click

from dvfd import __version__
from dvfd.cli.streams import reader_may_go, settle
from dvfd.errors import ConfigError, DvfdError

CONFIG_ERROR = 78
"""EX_CONFIG of sysexits.h: systemd does not restart on it."""

USAGE_ERROR = 3
"""UNKNOWN to Nagios; click's own 2 would read as CRITICAL."""

INTERRUPTED = 130
"""128 and the number of SIGINT, as shells have it."""

COMMANDS = {
    "alerts": "dvfd.cli.alerts",
    "assets": "dvfd.cli.assets",
    "attest": "dvfd.cli.attest",
    "attestations": "dvfd.cli.attest",
    "calibrate": "dvfd.cli.calibrate",
    "check": "dvfd.cli.checks",
    "checklist": "dvfd.cli.checks",
    "checkpoint": "dvfd.cli.checkpoint",
    "cluster": "dvfd.cli.cluster",
    "completion": "dvfd.cli.completion",
    "config": "dvfd.cli.config",
    "doctor": "dvfd.cli.doctor",
    "evidence": "dvfd.cli.evidence",
    "fleet": "dvfd.cli.fleet",
    "gate": "dvfd.cli.gate",
    "goodput": "dvfd.cli.goodput",
    "history": "dvfd.cli.history",
    "incident": "dvfd.cli.incident",
    "job": "dvfd.cli.job",
    "ready": "dvfd.cli.ready",
    "report": "dvfd.cli.report",
    "run": "dvfd.cli.run",
    "scaling": "dvfd.cli.scaling",
    "sign": "dvfd.cli.gate",
    "signoff": "dvfd.cli.signoff",
    "site": "dvfd.cli.site",
    "stability": "dvfd.cli.stability",
    "status": "dvfd.cli.status",
    "store": "dvfd.cli.store",
    "summary": "dvfd.cli.gate",
    "version": "dvfd.cli.version",
    "waive": "dvfd.cli.waive",
    "waivers": "dvfd.cli.waive",
}
"""Each command and the module that holds it, imported only when it is called."""


SECTIONS = {
    "Watch": {
        "run": "Watch this node and the jobs on it until told to stop.",
        "status": "Verdict, reasons, alerts, jobs, sources: what is known now.",
        "ready": "Whether this node may take a job, for a scheduler's prolog.",
        "fleet": "The verdicts of all nodes of the cluster as one.",
        "history": "The last values of a metric, or reports of a check.",
        "goodput": "Where the time of a job or a run went.",
        "report": "A job's hours, energy and cost, for its owner.",
    },
    "Judge": {
        "check": "Run and judge checks of the framework now.",
        "checklist": "Judge the daily, weekly or monthly list now.",
        "checkpoint": "Whether a checkpoint is whole and loads.",
        "stability": "Runs of 24 and 48 hours of training: start, follow, stop, list.",
        "scaling": "Throughput by process count: the ledger, the fits, what is to come.",
        "incident": "Failed phase tests: what is known, what is to be done, by when.",
        "attest": "State what nothing can measure, by name, until a day.",
        "attestations": "What people stated, and what nobody has yet.",
        "waive": "Let a breach pass, by name and with a reason, until a day.",
        "waivers": "What was waived, by whom, and whether it still counts.",
        "evidence": "The ledger of what was run, said and decided.",
    },
    "Decide": {
        "gate": "What stands between here and GO, on one screen.",
        "sign": "Record what the authority of a gate decided.",
        "summary": "The framework's table: ten tests, four phases.",
        "signoff": "Sign the validation as a whole, or see who has.",
    },
    "Look after": {
        "doctor": "What works here, what does not, the line to type.",
        "alerts": "What goes out, and whether it arrives.",
        "job": "The jobs that this node watches.",
        "site": "The series that this site's own checks expect.",
        "store": "Look after the daemon's store.",
    },
    "Set up": {
        "config": "Begin, check, show and describe the configuration.",
        "cluster": "The nodes that train together.",
        "calibrate": "Measure this node, write its baseline for review.",
        "assets": "Units, alert rules, dashboards, an example configuration, files for a job.",
        "completion": "What TAB needs: commands, options, names.",
        "version": "Print the versions of dvfd and of Python.",
    },
}
"""How `dvfd --help` groups the commands, each section in the order of use.

The summaries are those of the commands, which need not be loaded to be listed.
"""

NARROWEST, WIDEST = 40, 80
"""Columns of a help text: no layout is worth less, and longer lines read badly."""


class Commands(click.Group):
    """The commands, loaded when asked for: `dvfd --help` imports none of the daemon."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command in *args*; a near miss is named, which click does only for loaded ones."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(name, COMMANDS, 1)
            ctx.fail(f"No such command {name!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """A context as wide as the terminal: click alone goes no narrower than 50 columns."""
        width = max(NARROWEST, min(WIDEST, get_terminal_size().columns))
        extra.setdefault("terminal_width", width - 2)
        with reader_may_go():  # `--help` prints from here
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command."""
        with reader_may_go():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by what one wants to do; one that no section names comes last."""
        grouped = {name for section in SECTIONS.values() for name in section}
        further = {n: self._summary(ctx, n) for n in self.list_commands(ctx) if n not in grouped}
        widest = max(map(len, COMMANDS))
        for title, section in {**SECTIONS, "Further": further}.items():
            if section:
                with formatter.section(title):
                    formatter.write_dl(
                        [(name.ljust(widest), said) for name, said in section.items()]
                    )

    def _summary(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        return command.get_short_help_str(WIDEST) if command else ""


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dvfd")
def dvfd() -> None:
    """Decide on evidence whether a training deployment may advance, then watch its nodes.

    Where to begin: `dvfd run` is the daemon, `dvfd status` says what it knows and what to do.

    Exit codes: 0 pass, 1 a warning is breached, 2 fail, 3 unknown or wrong usage,
    78 a mistake in the configuration, 130 interrupted.

    Example: dvfd status
    """


def main() -> None:
    """Entry point; turns every expected error into words and an exit code."""
    settle()
    try:
        sys.exit(dvfd.main(prog_name="dvfd", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE_ERROR)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        sys.exit(CONFIG_ERROR)
    except DvfdError as error:
        click.echo(f"dvfd: {error}", err=True)
        sys.exit(USAGE_ERROR)
    except OSError as error:
        click.echo(f"dvfd: {error}", err=True)  # nowhere to write to, or a file that went away
        sys.stdout.close()
        sys.exit(USAGE_ERROR)
    except Exception:  # noqa: BLE001  # told whole; only the exit code is chosen
        sys.excepthook(*sys.exc_info())
        sys.exit(USAGE_ERROR)  # Python's own 1 would read as a breached warning
