"""The page in a real browser, from a real daemon: read without JavaScript, on desk and phone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from browser import DESKTOP, PHONE, axe, chromium, violations, visit
from fakes import FakeClock
from fakes_sinks import FULL, NOW, Raised, result, run_line, run_state, whole
from node import Node, running
from testbed import eventually, fetch

from bench.simulated import simulated
from dvfd.clock import SystemClock
from dvfd.config import Http
from dvfd.model import Verdict
from dvfd.sinks.server import HttpServer
from dvfd.sinks.site import Site

pytestmark = pytest.mark.slow

SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])
KEPT = os.environ.get("DVFD_PICTURES", "")
"""A directory for pictures of what the tests see, to be looked at."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of a daemon that watches four ranks."""
    node = Node(tmp_path_factory.mktemp("node"), [], "[profile]\nexpected_throughput = 320\n")
    with running(node), simulated(node, "gpt"):
        address = f"http://{node.address}/"
        eventually(lambda: fetch(address).count(b'class="line"') == 2, 30, every=0.5)
        yield address


@pytest.fixture(scope="module")
def hostile() -> Iterator[str]:
    """A page of endless words and markup, from everywhere that somebody else writes."""
    long = "W" * 700
    markup = f"<script>document.title='owned'</script><b style=color:red>{long}"
    rank = {
        "rank": 0, "state": "stalled", "why": markup, "step": 10**15, "progress_at": NOW - 12,
        "step_seconds": 0.2, "pid": 4711,
    }  # fmt: skip
    job = {
        "job": markup, "state": "not responding", "world_size": 1, "local_world_size": 1,
        "present": 1, "restarts": 0, "exception": markup, "ranks": [rank],
    }  # fmt: skip
    alert = Raised(
        key=long, name="x", severity="critical", since=NOW, summary=long, description=markup,
        delivered=False,
    )  # fmt: skip
    line = {
        "log": long, "at": NOW, "severity": "critical", "pattern": long, "line": markup,
        "note": "",
    }  # fmt: skip
    lost = run_line(markup, text=markup, reason=markup, left=markup, lost=True, burn_rate=9.0)
    spoilt = run_state(lost, id=long, title=markup, job=markup, uncounted=(markup,), trouble=markup)
    held = whole(FakeClock())
    held._sources = held._sources.__class__(
        **{
            **{name: getattr(FULL, name) for name in FULL.__slots__},
            "jobs": lambda: [job],
            "raised": lambda: (alert,),
            "log_lines": lambda: [line],
            "run": lambda: spoilt,
        }
    )
    held.judged(
        [result(Verdict.FAIL, c, reason=markup) for c in held.snapshot().live[0].check.criteria]
    )
    server = HttpServer(Site(held.snapshot), Http(port=0), clock=SystemClock())
    server.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.stop()


def look(page: Any, name: str) -> None:
    if KEPT:
        page.screenshot(path=f"{KEPT}/{name}.png", full_page=True)


def overflow(page: Any) -> list[str]:
    """What sticks out of the window to the right: measured by the browser, not by a script."""
    client = page.context.new_cdp_session(page)
    sizes = client.send("Page.getLayoutMetrics")
    wide, window = sizes["cssContentSize"]["width"], sizes["cssLayoutViewport"]["clientWidth"]
    return [f"{wide} px of content in {window} px"] if wide > window else []


@SIZES
@SCHEMES
def test_the_page_is_read_without_javascript_and_never_scrolls_sideways(
    browser: Any, url: str, size: tuple[int, int], scheme: str
) -> None:
    with visit(browser, url, size=size, scheme=scheme) as page:
        look(page, f"live-{size[0]}-{scheme}")
        text = page.inner_text("main")
        charts = page.locator("svg.plot")

        assert charts.count() == 2
        assert all(charts.nth(n).bounding_box()["width"] > 200 for n in range(2))
        assert "Throughput" in text
        assert re.search(r"\bresponding\b", text)
        assert page.locator(".aged").is_hidden()
        assert not overflow(page)


@SIZES
def test_what_others_write_neither_runs_nor_widens_the_page(
    browser: Any, hostile: str, size: tuple[int, int]
) -> None:
    with visit(browser, f"{hostile}?check=all&hold=1", size=size, java_script_enabled=True) as page:
        look(page, f"hostile-{size[0]}")

        assert page.title() == "FAIL · node4 · dvfd"
        assert not overflow(page)


@pytest.mark.parametrize(
    ("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["light", "dark"]
)
def test_axe_finds_nothing_serious(
    browser: Any, url: str, hostile: str, size: tuple[int, int], scheme: str
) -> None:
    axe()
    for address in (f"{url}?check=all&hold=1", f"{hostile}?hold=1"):
        with visit(browser, address, size=size, scheme=scheme, java_script_enabled=True) as page:
            assert violations(page) == []


def test_axe_would_find_something_serious(browser: Any, url: str) -> None:
    axe()
    with visit(browser, f"{url}?hold=1", java_script_enabled=True) as page:
        page.evaluate("document.documentElement.removeAttribute('lang')")
        assert any("html-has-lang" in line for line in violations(page))


def test_nothing_on_the_page_offends_its_own_policy(browser: Any, url: str) -> None:
    with visit(browser, "about:blank", java_script_enabled=True) as page:
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(url)
        page.locator("summary").first.click()

        assert page.locator(".rows tbody tr").first.is_visible()
        assert said == []


@pytest.mark.parametrize(("motion", "scheme"), [("no-preference", "light"), ("reduce", "dark")])
def test_a_page_that_is_not_refreshed_says_after_a_minute_that_it_is_old(
    browser: Any, url: str, motion: str, scheme: str
) -> None:
    options = {"java_script_enabled": True, "reduced_motion": motion, "scheme": scheme}
    with visit(browser, f"{url}?hold=1", **options) as page:
        hurry(page, 59)
        assert page.locator(".aged").is_hidden()
        fresh = page.locator(".hero h1").evaluate("e => getComputedStyle(e).textDecorationLine")

        hurry(page, 61)
        look(page, f"old-{scheme}-{motion}")
        old = page.locator(".hero h1").evaluate("e => getComputedStyle(e).textDecorationLine")
        assert page.locator(".aged").is_visible()
        assert (fresh, old) == ("none", "line-through")
        assert violations(page) == []


def hurry(page: Any, seconds: int) -> None:
    """Put every animation where it is after *seconds*."""
    page.evaluate(
        "at => document.getAnimations().forEach(a => { a.pause(); a.currentTime = at * 1000; })",
        seconds,
    )


def test_the_page_asks_for_a_newer_one_by_itself_and_a_held_one_does_not(
    browser: Any, url: str
) -> None:
    with visit(browser, url) as page, page.expect_navigation(timeout=15_000):
        pass
    with visit(browser, f"{url}?hold=1") as page:
        page.get_by_role("link", name="refresh").click()
        assert page.url == url
