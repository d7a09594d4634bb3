"""`dvfd completion`: the line of shell that makes TAB know commands, options and names."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from dvfd.answers import daemon
from dvfd.errors import DvfdError

PATIENCE = 1.0
"""Seconds that TAB waits for the daemon; somebody holds the key."""

Completer = Callable[[click.Context, click.Parameter, str], list[str]]


@click.command(short_help="What TAB needs: commands, options, names.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the code that makes SHELL complete commands, options and names.

    Names of checks, metrics and jobs come from the daemon; without one they do not complete.
    bash: a line `eval "$(dvfd completion bash)"` in ~/.bashrc. zsh: the same with zsh in ~/.zshrc.
    fish: its output in ~/.config/fish/completions/dvfd.fish.

    Example: dvfd completion bash
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(ctx.find_root().command, {}, "dvfd", "_DVFD_COMPLETE").source())


def names(*kinds: str) -> Completer:
    """A completer for the daemon's `checks`, `metrics`, `jobs`, `items`, `incidents`: *kinds*."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        return [name for name in _known(kinds) if name.startswith(incomplete)]

    return complete


def _known(kinds: Iterable[str]) -> list[str]:
    """The names that the daemon knows; none, and no complaint, where it does not answer."""
    try:
        found = daemon("names", timeout=PATIENCE) or {}
    except (DvfdError, OSError):
        return []
    return sorted({str(name) for kind in kinds for name in found.get(kind, ())})
