"""`dvfd config`: check, show and describe the configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dvfd.cli.common import output_option, show
from dvfd.errors import DvfdError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dvfd.model import Catalogue

KINDS = ("laptop", "cpu-node", "gpu-node")
"""Ready profiles, systemd/profiles."""

path_option = click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    help="The file; default $DVFD_CONFIG, else /etc/dvfd/dvfd.toml, else embedded defaults.",
)


@click.group()
def config() -> None:
    """Begin, check, show and describe the configuration."""


@config.command("new", short_help="Begin one from a ready profile.")
@click.argument("kind", type=click.Choice(KINDS))
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write; default the standard output.",
)
def new(kind: str, file: Path | None) -> None:
    """Print a ready configuration for a laptop, a CPU node or a GPU node, to be made your own.

    It says what the node should be, and looks at nothing here: what is missing here must be seen
    as missing. `dvfd doctor` says where the two differ. A file that is there is never written over.

    Example: dvfd config new gpu-node -o dvfd.toml
    """
    from dvfd.config import data_dir

    text = (data_dir("systemd") / "profiles" / f"{kind}.toml").read_text(encoding="utf-8")
    if file is None:
        click.echo(text, nl=False)
        return
    try:
        with file.open("x", encoding="utf-8") as written:
            written.write(text)
    except FileExistsError:
        raise DvfdError(f"{file}: is there already: move it away, or write to another") from None
    except OSError as error:
        raise DvfdError(f"{file}: {(error.strerror or str(error)).lower()}") from None
    click.echo(f"wrote {file}; read it, then: dvfd doctor -c {file}", err=True)


@config.command("check", short_help="Load and lint everything, report every mistake.")
@path_option
@output_option
def check(path: Path | None, output: str) -> None:
    """Load and lint the configuration and the whole catalogue: what `dvfd run` would refuse.

    A calibration that does not hold on this node is a notice: dvfd would start without its values.
    So is a key that has another place now.

    Exit code: 0 it would start, 78 there are mistakes, each on a line of stderr.

    Example: dvfd config check -c /etc/dvfd/dvfd.toml
    """
    from dvfd.catalogue import load as load_catalogue
    from dvfd.config import load
    from dvfd.daemon import Daemon

    settings = load(path)
    found = load_catalogue(settings)
    Daemon(settings)  # schedules, pattern sets, addresses: what only the parts can refuse
    notices = [*settings.calibrated.notices, *settings.outdated, *found.notices]
    contents = _contents(found) | {"notices": notices}
    show(contents, output, _ok)


def _contents(found: Catalogue) -> dict[str, Any]:
    """How much of what was loaded."""
    return {
        "checks": len(found.checks),
        "criteria": len(found.criteria),
        "gates": len(found.gates),
        "gate_lines": sum(len(gate.requires) + len(gate.vetoes) for gate in found.gates.values()),
        "metrics": len(found.metrics),
        "overrides": list(found.overrides),
        "catalogue": found.hash,
    }


def _ok(found: Mapping[str, Any]) -> str:
    loaded = (
        f"ok: {found['checks']} checks, {found['criteria']} criteria, "
        f"{found['gates']} gates with {found['gate_lines']} lines, "
        f"{found['metrics']} metrics, {len(found['overrides'])} overrides; "
        f"catalogue {found['catalogue'][:12]}"
    )
    overrides = (f"override: {override}" for override in found["overrides"])
    return "\n".join([loaded, *overrides, *(f"notice: {n}" for n in found["notices"])])


@config.command("show", short_help="Print the configuration in force, as JSON.")
@path_option
def show_config(path: Path | None) -> None:
    """Print the configuration in force, defaults included, as JSON. Passwords read ***.

    Without -c it is the one that a daemon with this environment would read.

    Example: dvfd config show
    """
    from dvfd import config

    click.echo(json.dumps(config.load(path).shown(), indent=2, ensure_ascii=False))


@config.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration file.

    Editors that know it complete keys and underline mistakes while you type.

    Example: dvfd config schema > dvfd.schema.json
    """
    from dvfd.config import Config

    click.echo(json.dumps(Config.model_json_schema(), indent=2))
