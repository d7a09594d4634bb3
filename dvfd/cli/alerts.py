"""`dvfd alerts`: what goes out, and whether it arrives."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from dvfd.answers import daemon
from dvfd.cli.common import dry_run_option, must, output_option, show


@click.group()
def alerts() -> None:
    """What goes out, and whether it arrives."""


@alerts.command("test", short_help="Send a test alert; say who took it.")
@dry_run_option
@output_option
def test(*, dry_run: bool, output: str) -> None:
    """Send a test alert to every Alertmanager and say what each answered.

    The alert is named DvfdTest and resolves by itself. Whether it reaches a person is for
    Alertmanager's routes: ask whoever should have been called.

    Exit code: 0 if one took it, 2 if none did.

    Example: dvfd alerts test
    """
    if dry_run:
        peers = must(daemon("status"), "a test alert")["delivery"]["peers"]
        show({"would_ask": [peer["url"] for peer in peers]}, output, _would_ask)
        sys.exit(0 if peers else 2)
    answers = must(daemon("alerts_test"), "a test alert")
    show({"answers": answers}, output, _text)
    sys.exit(0 if any(a["accepted"] for a in answers) else 2)


NOBODY = "no Alertmanager is configured: breaches go to the log only ([alerting] urls)"


def _would_ask(document: Mapping[str, Any]) -> str:
    urls = document["would_ask"]
    return "\n".join(f"would send a test alert to {url}" for url in urls) or NOBODY


def _text(document: Mapping[str, Any]) -> str:
    answers = document["answers"]
    if not answers:
        return NOBODY
    return "\n".join(
        f"{a['url']}: {'accepted' if a['accepted'] else 'NOT accepted'} {a['detail']}".rstrip()
        for a in answers
    )
