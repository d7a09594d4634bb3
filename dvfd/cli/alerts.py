"""`dvfd alerts`: what goes out, and whether it arrives."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from dvfd.cli.common import daemon, must, output_option, show


@click.group()
def alerts() -> None:
    """What goes out, and whether it arrives."""


@alerts.command("test", short_help="Send a test alert; say who took it.")
@output_option
def test(output: str) -> None:
    """Send a test alert to every Alertmanager and say what each answered.

    Exit code: 0 if one took it, 2 if none did.

    Example: dvfd alerts test
    """
    answers = must(daemon("alerts_test"), "a test alert")
    show({"answers": answers}, output, _text)
    sys.exit(0 if any(a["accepted"] for a in answers) else 2)


def _text(document: Mapping[str, Any]) -> str:
    answers = document["answers"]
    if not answers:
        return "no Alertmanager is configured: breaches go to the log only ([alerting] urls)"
    return "\n".join(
        f"{a['url']}: {'accepted' if a['accepted'] else 'NOT accepted'} {a['detail']}".rstrip()
        for a in answers
    )
