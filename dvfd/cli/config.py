"""`dvfd config`: check, show and describe the configuration."""

from __future__ import annotations

import json
from pathlib import Path

import click

path_option = click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    help="The file; default $DVFD_CONFIG, else /etc/dvfd/dvfd.toml, else embedded defaults.",
)


@click.group()
def config() -> None:
    """Check, show and describe the configuration."""


@config.command("check", short_help="Load and lint everything, report every mistake.")
@path_option
def check(path: Path | None) -> None:
    """Load and lint the configuration and the whole catalogue; exit 78 on any mistake.

    Example: dvfd config check -c /etc/dvfd/dvfd.toml
    """
    from dvfd.catalogue import load as load_catalogue
    from dvfd.config import load
    from dvfd.daemon import Daemon

    settings = load(path)
    found = load_catalogue(settings)
    Daemon(settings)  # schedules, pattern sets, addresses: what only the parts can refuse
    lines = len(found.gates) and sum(len(g.requires) + len(g.vetoes) for g in found.gates.values())
    click.echo(
        f"ok: {len(found.checks)} checks, {len(found.criteria)} criteria, "
        f"{len(found.gates)} gates with {lines} lines, {len(found.metrics)} metrics, "
        f"{len(found.overrides)} overrides; catalogue {found.hash[:12]}"
    )
    for override in found.overrides:
        click.echo(f"override: {override}")


@config.command("show")
@path_option
def show(path: Path | None) -> None:
    """Print the configuration in force, defaults included, as JSON. Passwords read ***.

    Example: dvfd config show
    """
    from dvfd import config
    from dvfd.masking import masked

    settings = config.load(path).model_dump(mode="json")
    click.echo(json.dumps(masked(settings), indent=2, ensure_ascii=False))


@config.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration file.

    Example: dvfd config schema > dvfd.schema.json
    """
    from dvfd.config import Config

    click.echo(json.dumps(Config.model_json_schema(), indent=2))
