"""A job's report and a comparison in a real browser: desk, phone, dark, paper, and by ear."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import DESKTOP, PHONE, axe, chromium, violations, visit
from fakes_reporting import PRICE, Desk, came_back
from fakes_spent import AT

from dvfd.config import Cost
from dvfd.reporting.compare import comparison
from dvfd.reporting.document import document
from dvfd.reporting.render import compared, html

pytestmark = pytest.mark.slow

NAMES = pytest.mark.parametrize("name", ["whole", "bare", "hostile", "compared"])
LOOKS = pytest.mark.parametrize(
    ("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desk", "phone"]
)
KEPT = os.environ.get("DVFD_PICTURES", "")
"""A directory for pictures of what the tests see, to be looked at."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job with all there is to tell, one with nothing but steps, one with hostile words, and two
    held together.
    """
    place = tmp_path_factory.mktemp("reports")
    bare = Desk()
    for metric in ("job_loss", "job_throughput_samples_per_second", "job_samples_total",
                   "cpu_package_energy_joules_total", "rank_compute_seconds"):  # fmt: skip
        bare.without(metric)
    bad = "<script>document.title='owned'</script><b style=color:red>" + "W" * 400
    whole = came_back().report()
    hostile = document(came_back().story(), PRICE, made_at=AT)
    hostile |= {"job": bad, "node": bad, "headline": bad, "unknown": [bad]}
    both = comparison(whole, hostile, sums=("a" * 64, "b" * 64))
    made = {
        "whole": html(whole, "5ea1" * 16), "hostile": html(hostile, "5ea1" * 16),
        "bare": html(bare.report(Cost()), "5ea1" * 16), "compared": compared(both),
    }  # fmt: skip
    for name, page in made.items():
        (place / f"{name}.html").write_text(page)
    return place


@NAMES
@LOOKS
def test_a_page_never_scrolls_sideways_and_axe_finds_nothing_serious(
    browser: Any, pages: Path, name: str, size: tuple[int, int], scheme: str
) -> None:
    options = {"size": size, "scheme": scheme, "java_script_enabled": True}
    with visit(browser, f"file://{pages}/{name}.html", **options) as page:
        if KEPT:
            page.screenshot(path=f"{KEPT}/job-{name}-{size[0]}.png", full_page=True)
        sizes = page.context.new_cdp_session(page).send("Page.getLayoutMetrics")
        assert sizes["cssContentSize"]["width"] <= sizes["cssLayoutViewport"]["clientWidth"]
        assert page.title() != "owned"
        axe()
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert violations(page) == []


@LOOKS
def test_the_headline_is_on_the_first_screen(
    browser: Any, pages: Path, size: tuple[int, int], scheme: str
) -> None:
    with visit(browser, f"file://{pages}/whole.html", size=size, scheme=scheme) as page:
        box = page.locator("h1").bounding_box()
        assert box["y"] + box["height"] < size[1] / 2
        assert "80 % of it productive" in page.locator("h1").inner_text()


def test_a_page_asks_nobody_for_anything(browser: Any, pages: Path) -> None:
    asked: list[str] = []
    with visit(browser, "about:blank") as page:
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{pages}/compared.html")
    assert asked == [f"file://{pages}/compared.html"]


def test_what_is_read_of_the_time_adds_up(browser: Any, pages: Path) -> None:
    with visit(browser, f"file://{pages}/whole.html") as page:
        rows = page.locator(".spent tbody tr td:last-child").all_inner_texts()
        total = page.locator(".spent tfoot td:last-child").inner_text()
    assert sum(map(float, rows)) == pytest.approx(float(total))


def test_on_paper_a_report_takes_two_pages_at_most(browser: Any, pages: Path) -> None:
    with visit(browser, f"file://{pages}/whole.html") as page:
        printed = page.pdf(format="A4", path=f"{KEPT}/job.pdf" if KEPT else None)
    assert printed.count(b"/Type /Page\n") in {1, 2}
