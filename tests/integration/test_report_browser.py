"""A run's report in a real browser, from the file alone: desk, phone, dark, paper, and by ear."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import DESKTOP, PHONE, axe, chromium, violations, visit
from fakes_report import FakeRows, event, plan, report, rows, run

from dvfd.runs.freezing import where_time_went
from dvfd.runs.render import html
from dvfd.runs.rows import What
from dvfd.runs.run import Run, Stage

pytestmark = pytest.mark.slow

DAY = 86_400.0
SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])
NAMES = pytest.mark.parametrize("name", ["whole", "spoilt", "nothing", "hostile"])
KEPT = os.environ.get("DVFD_PICTURES", "")
"""A directory for pictures of what the tests see, to be looked at."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of a good run, a spoilt one, one that never began, and one with hostile words."""
    place = tmp_path_factory.mktemp("reports")
    spoilt = rows(
        DAY,
        event(50_000, What.FAILURE, "rank 2: killed by signal 9", rank=2),
        event(50_000, What.DOWN, "rank 2 is gone"),
        event(50_001, What.RESTART, "rank 2 came back", rank=2),
        event(50_040, What.UP),
        event(60_000, What.CLOCK, "the wall clock was stepped", value=3.2),
        away=((40_000.0, 40_900.0),),
    )
    never = run(Stage.ABORTED, lasted=0.0, began_t=None, warm_t=None, reason="job gpt never came")
    bad = "<script>document.title='owned'</script><b style=color:red>" + "W" * 700
    odd = run(
        Stage.ABORTED, lasted=3600.0, reason=bad, node=bad,
        plan=plan(job=bad, note=bad, by=bad, argv=(bad,)),
    )  # fmt: skip
    told = rows(3600.0, event(99.0, What.FAILURE, bad), event(99.0, What.DOWN, bad))
    _write(place / "whole.html", run(), rows())
    _write(place / "spoilt.html", run(), spoilt)
    _write(place / "nothing.html", never, FakeRows())
    _write(place / "hostile.html", odd, told, overrides=[bad], environment={bad: bad})
    return place


def _write(path: Path, of: Run, given: FakeRows, **keys: Any) -> None:
    goodput = where_time_went(of, given, of.ended_t or 0.0)
    path.write_text(html(report(of, given, goodput=goodput, **keys), "5ea1" * 16))


def look(page: Any, name: str) -> None:
    if KEPT:
        page.screenshot(path=f"{KEPT}/{name}.png", full_page=True)


@NAMES
@SIZES
@SCHEMES
def test_a_report_never_scrolls_sideways_and_is_read_without_javascript(
    browser: Any, pages: Path, name: str, size: tuple[int, int], scheme: str
) -> None:
    with visit(browser, f"file://{pages}/{name}.html", size=size, scheme=scheme) as page:
        look(page, f"report-{name}-{size[0]}-{scheme}")
        client = page.context.new_cdp_session(page)
        sizes = client.send("Page.getLayoutMetrics")

        assert sizes["cssContentSize"]["width"] <= sizes["cssLayoutViewport"]["clientWidth"]
        assert "owned" not in page.title()


@SIZES
def test_the_first_screen_says_the_verdict_and_whether_it_counts(
    browser: Any, pages: Path, size: tuple[int, int]
) -> None:
    for name, words in (("whole", "PASS"), ("nothing", "UNKNOWN")):
        with visit(browser, f"file://{pages}/{name}.html", size=size) as page:
            box = page.locator("h1").bounding_box()
            counts = "counts" if name == "whole" else "does not count"

            assert box["y"] + box["height"] < size[1] / 2
            assert words in page.locator("h1").inner_text()
            assert counts in page.locator("h1").inner_text()


@NAMES
@pytest.mark.parametrize(
    ("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["light", "dark"]
)
def test_axe_finds_nothing_serious(
    browser: Any, pages: Path, name: str, size: tuple[int, int], scheme: str
) -> None:
    axe()
    options = {"size": size, "scheme": scheme, "java_script_enabled": True}
    with visit(browser, f"file://{pages}/{name}.html", **options) as page:
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert violations(page) == []


def test_a_report_asks_nobody_for_anything(browser: Any, pages: Path) -> None:
    asked: list[str] = []
    with visit(browser, "about:blank") as page:
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{pages}/spoilt.html")

    assert asked == [f"file://{pages}/spoilt.html"]


def test_on_paper_there_is_a_place_to_sign(browser: Any, pages: Path) -> None:
    with visit(browser, f"file://{pages}/whole.html") as page:
        assert page.locator(".sign").is_hidden()
        page.emulate_media(media="print")
        assert page.locator(".sign").is_visible()
        if KEPT:
            page.pdf(path=f"{KEPT}/report.pdf", format="A4")


def test_a_table_unfolds_under_its_chart(browser: Any, pages: Path) -> None:
    with visit(browser, f"file://{pages}/spoilt.html") as page:
        page.locator("summary").first.click()
        assert page.locator(".rows tbody tr", has_text="2026-09-21").first.is_visible()
