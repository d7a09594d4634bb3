"""Documents say what is so: links lead somewhere, commands and settings are understood."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from dvfd import catalogue, config
from dvfd.cli import dvfd

ROOT = Path(__file__).parents[2]
LISTED = subprocess.run(
    ["git", "ls-files", "-co", "--exclude-standard", "*.md"],
    cwd=ROOT, capture_output=True, text=True, check=False,
).stdout.split()  # fmt: skip
DOCUMENTS = sorted(LISTED) or sorted(
    str(p.relative_to(ROOT)) for d in ("docs", ".") for p in (ROOT / d).glob("*.md")
)
"""Every document; outside a checkout those that lie where documents lie."""


def text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str, *languages: str) -> list[str]:
    """The fenced blocks in one of *languages*."""
    fence = r"(?ms)^ *```([a-z]*)[^\n]*\n(.*?)^ *```"
    found = re.findall(fence, text(document))
    return [body for language, body in found if language in languages]


def settings(document: str) -> list[str]:
    """Configurations in it."""
    found = blocks(document, "toml")
    others = ("[[criterion]]", "[tool.", "checks.d/metrics.toml\n")
    return [each for each in found if not any(mark in each for mark in others)]


def prose(document: str) -> str:
    """The text without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```", "", text(document), flags=re.MULTILINE | re.DOTALL)


def anchors(document: str) -> set[str]:
    """What GitHub makes of each heading, the second of a name with -1."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.+?) *#*$", prose(document), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        kept = "".join(ch for ch in plain.lower() if ch.isalnum() or ch in " -_")
        name = kept.replace(" ", "-")
        found[name] = found.get(name, -1) + 1
    return {f"{name}-{n}" if n else name for name, last in found.items() for n in range(last + 1)}


def links(document: str) -> list[str]:
    """Targets inside the repository."""
    found = re.findall(r"\]\(([^)\s]+)\)|(?:src|href|srcset)=\"([^\"]+)\"", prose(document))
    targets = [markdown or html for markdown, html in found]
    return [t for t in targets if not re.match(r"[a-z]+:", t)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(document: str) -> None:
    for target in links(document):
        path, _, anchor = target.partition("#")
        place = (ROOT / document).parent / path if path else ROOT / document
        assert place.exists(), target
        if anchor and place.suffix == ".md":
            assert anchor in anchors(str(place.resolve().relative_to(ROOT))), target


COMMAND = re.compile(
    r"(?:^|[|;&(] *|sudo |\$ )(?:[A-Z_]+=\S+ +)*(?:[\w.~-]*/)*dvfd (?P<rest>[^|;&>)#\n]*)",
    re.MULTILINE,
)


def commands(document: str) -> list[list[str]]:
    """The arguments of each `dvfd` in blocks of shell."""
    shell = "\n".join(blocks(document, "sh", "bash", "console", ""))
    shell = re.sub(r" [12]?>", " >", re.sub(r"\\\n *", "", shell))  # `2>` is the shell's
    return [shlex.split(match["rest"]) for match in COMMAND.finditer(shell)]


def parses(command: click.Command, arguments: list[str], parent: click.Context | None) -> None:
    """Read *arguments* as the command line would, and run nothing. Raises click.UsageError."""
    try:
        context = command.make_context(command.name, list(arguments), parent=parent)
    except click.exceptions.Exit:  # --help, --version
        return
    except click.BadParameter as error:
        if "does not exist" not in str(error):  # a placeholder for the reader's own path
            raise
        return
    if isinstance(command, click.Group):
        rest = [*getattr(context, "_protected_args", []), *context.args]
        if command.invoke_without_command and not rest:
            return
        _, found, left = command.resolve_command(context, rest)
        assert found
        parses(found, left, context)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_is_one_that_dvfd_understands(document: str) -> None:
    for arguments in commands(document):
        try:
            parses(dvfd, arguments, None)
        except click.UsageError as error:
            pytest.fail(f"dvfd {shlex.join(arguments)}: {error.format_message()}")


@pytest.mark.parametrize(
    "wrong", [["statsu"], ["store", "backup"], ["history", "x", "--hour", "1"]]
)
def test_a_command_that_does_not_exist_would_be_found(wrong: list[str]) -> None:
    with pytest.raises(click.UsageError):
        parses(dvfd, wrong, None)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_setting_shown_is_one_that_dvfd_takes(document: str) -> None:
    for block in settings(document):
        shown = config.parse(block, document)
        here = shown.model_copy(update={"site": config.Site()})  # its directory is not here
        assert catalogue.load(here).criteria


def test_documents_have_links_commands_and_settings_that_are_looked_at() -> None:
    for looked in (links, commands, settings):
        assert sum(len(looked(document)) for document in DOCUMENTS) >= 8, looked


@pytest.mark.slow
def test_generated_documents_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docs.generate", "--check"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
