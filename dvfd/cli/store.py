"""`dvfd store`: look after the store: is it whole, copy it, put a copy back, read its notice."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dvfd.answers import daemon
from dvfd.cli.common import dry_run_option, must, output_option, said, show
from dvfd.errors import StoreError
from dvfd.places import state_dir

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dvfd.store.backup import Facts

DAMAGED = 2
"""Exit code: FAIL, as of a check."""


@click.group()
def store() -> None:
    """Look after the daemon's store."""


@store.command("acknowledge", short_help="Say that a store that was lost is known.")
@dry_run_option
@output_option
def acknowledge(*, dry_run: bool, output: str) -> None:
    """Say that you have read of a store that was lost: status and page mention it no more.

    What was in it stays lost: checklists judge what was observed since.

    Example: dvfd store acknowledge
    """
    if dry_run:
        notice = must(daemon("status"), "acknowledging")["store"]["reason"]
        nothing = "there is nothing to acknowledge"
        said(f"would acknowledge: {notice}" if notice else nothing, output)
    else:
        said(must(daemon("acknowledge"), "acknowledging"), output)


@store.command("check", short_help="Read it through: is it whole, how large?")
@output_option
def check(output: str) -> None:
    """Read the whole store: is it whole, how large, how many rows, how far back. Changes nothing.

    Exit code 2 if it is damaged. Works beside a daemon, for root and the store's owner.

    Example: dvfd store check
    """
    from dvfd.store.backup import check as read_through

    facts = read_through(_path())
    show(asdict(facts), output, _text)
    sys.exit(DAMAGED if facts.faults else 0)


@store.command("backup", short_help="Copy it to a file beside a running daemon.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def backup(file: Path) -> None:
    """Copy the store, as it is at this moment, to FILE, and read the copy through.

    A daemon may be writing meanwhile. FILE must not exist; it is for its owner only (0600) and
    appears once it is whole. For root and the store's owner.

    Example: dvfd store backup /var/backups/dvfd-2026-11-02.db
    """
    from dvfd.store.backup import backup as copy

    source = _path()
    _said(f"{source} copied to {file}", copy(source, file))


@store.command("restore", short_help="Put a backup in its place.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Check everything, replace nothing.")
def restore(file: Path, *, dry_run: bool) -> None:
    """Put FILE, a backup, in the place of the store. The daemon must be stopped.

    FILE is read through first; the store that it replaces is kept beside it, and named.

    Example: dvfd store restore /var/backups/dvfd-2026-11-02.db
    """
    from dvfd.store.backup import restore as put

    if daemon("ping") is not None:
        raise StoreError("a daemon runs here: stop it first, `systemctl stop dvfd`")
    target = state_dir() / "dvfd.db"
    facts, aside = put(file, target, at=time.time(), dry_run=dry_run)
    _said(f"{file} {'would be' if dry_run else 'is now'} {target}", facts)
    if aside:
        click.echo(f"the store before it {'would lie' if dry_run else 'lies'} in {aside}")


def _path() -> Path:
    """The store of the daemon that answers here, else the one that commands would open."""
    answer = daemon("status")
    return Path(answer["store"]["path"]) if answer else state_dir() / "dvfd.db"


def _said(what: str, facts: Facts) -> None:
    click.echo(f"{what}\n{_text(asdict(facts))}")


def _text(facts: Mapping[str, Any]) -> str:
    whole = "; ".join(facts["faults"]) or "whole"
    lines = [
        f"{facts['path']}: {whole}",
        f"schema {facts['schema']}, {facts['bytes']} bytes, {facts['wal_bytes']} in the WAL",
        f"samples from {_when(facts['oldest'])} to {_when(facts['newest'])}",
    ]
    return "\n".join([*lines, *(f"  {table:<12} {n}" for table, n in facts["rows"].items())])


def _when(at: float | None) -> str:
    return "never" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
