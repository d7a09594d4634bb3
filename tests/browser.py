"""The system's Chromium, driven by Playwright: pages as people see them, and axe-core's opinion."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testbed import need

ARGUMENTS = (
    "--no-sandbox",  # tests run as root in containers, where Chromium has no sandbox to make
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

AXE = Path(__file__).resolve().parents[1] / ".cache" / "axe-core" / "axe.min.js"
"""Fetched by scripts/test."""

DESKTOP, PHONE = (1280, 900), (390, 844)


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser; ends with the block."""
    from playwright.sync_api import sync_playwright

    path = need("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def visit(
    browser: Any, url: str, *, size: tuple[int, int] = DESKTOP, scheme: str = "light", **more: Any
) -> Iterator[Any]:
    """A page at *url* in a window of *size*, without JavaScript unless *more* says otherwise."""
    options = {"java_script_enabled": False, **more}
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, **options
    )
    try:
        page = context.new_page()
        page.goto(url)
        yield page
    finally:
        context.close()


def axe() -> str:
    """The source of axe-core, or no test."""
    if not AXE.exists():
        message = f"{AXE} is missing: scripts/test fetches it"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    return AXE.read_text(encoding="utf-8")


def violations(page: Any) -> list[str]:
    """What axe-core finds serious or critical on *page*, one line each."""
    page.evaluate(axe())
    found = page.evaluate("async () => (await axe.run()).violations")
    return [
        f"{v['id']} ({v['impact']}): {v['help']}: {[n['html'][:120] for n in v['nodes'][:3]]}"
        for v in found
        if v["impact"] in {"serious", "critical"}
    ]
