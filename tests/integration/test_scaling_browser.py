"""A projection's page in a real browser, from the file alone: desk, phone, dark, and by ear."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import DESKTOP, PHONE, chromium, violations, visit

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "examples" / "scaling" / "projection.html"
LOOKS = [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light")]


def test_it_fits_every_screen_loads_nothing_and_draws_all_points() -> None:
    with chromium() as browser:
        for size, scheme in LOOKS:
            asked: list[str] = []
            with visit(browser, "about:blank", size=size, scheme=scheme) as page:
                page.on("request", lambda request, asked=asked: asked.append(request.url))
                page.goto(PAGE.as_uri())
                assert page.locator(".plot").count() == 2
                box = page.locator("main").bounding_box()
                assert box
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= size[0]
                plots = [p.bounding_box() for p in page.locator(".plot").all()]
                assert all(p and p["width"] > 200 and p["height"] > 150 for p in plots)
                assert page.locator(".plot path.dot").count() == 8
            assert asked == [PAGE.as_uri()]


def test_nothing_of_it_is_seriously_hard_to_use() -> None:
    with chromium() as browser:
        for scheme in ("light", "dark"):
            more = {"java_script_enabled": True, "bypass_csp": True}
            with visit(browser, PAGE.as_uri(), scheme=scheme, **more) as page:
                assert violations(page) == []
