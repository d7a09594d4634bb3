"""The page of the gates in a real browser: read at a desk, on a phone, and by axe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from browser import DESKTOP, PHONE, axe, chromium, violations, visit
from fakes import FakeClock
from fakes_gates import told
from fakes_sinks import whole

from dvfd.clock import SystemClock
from dvfd.config import Http
from dvfd.sinks.server import HttpServer
from dvfd.sinks.site import Site

pytestmark = pytest.mark.slow

MARKUP = "<script>document.title='owned'</script>" + "W" * 500


def hostile(gates: dict[str, Any]) -> dict[str, Any]:
    """The same with endless words and markup wherever people wrote something."""
    first, *rest = gates["gates"]
    signed = {**first["signatures"][0], "by": MARKUP, "note": MARKUP, "override": MARKUP}
    lines = [
        {**line, "evidence": [{**e, "reason": MARKUP, "verdict": "FAIL"} for e in line["evidence"]]}
        for line in first["lines"]
    ]
    first = {**first, "signatures": [signed], "lines": lines}
    return gates | {"gates": [first, *rest], "problems": [MARKUP], "overrides": [MARKUP]}


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    """A listener for gates as they may be, and one for gates that somebody wrote nonsense into."""
    snapshot, fine = whole(FakeClock()).snapshot(), told(signed=True)
    servers = {
        name: HttpServer(
            Site(lambda gates=gates: replace(snapshot, gates=gates)),
            Http(port=0),
            clock=SystemClock(),
        )
        for name, gates in (("fine", fine), ("hostile", hostile(fine)))
    }
    for server in servers.values():
        server.start()
    yield {name: f"http://127.0.0.1:{server.port}/gates" for name, server in servers.items()}
    for server in servers.values():
        server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def wide(page: Any) -> bool:
    """Whether something sticks out of the window to the right."""
    client = page.context.new_cdp_session(page)
    sizes = client.send("Page.getLayoutMetrics")
    return bool(sizes["cssContentSize"]["width"] > sizes["cssLayoutViewport"]["clientWidth"])


def test_a_director_goes_from_gate_to_gate_without_a_script(
    browser: Any, urls: dict[str, str]
) -> None:
    with visit(browser, urls["fine"]) as page:
        assert page.inner_text("h1") == "HOLD"
        page.click("text=Phase 1")
        assert page.inner_text("h1") == "authorised"
        assert "signed by Ann Lee" in page.inner_text(".hero")
        assert page.locator(".table tbody tr").count() == 10
        assert page.locator(".lines tr").count() == 22
        assert page.locator(".aged").is_hidden()


@pytest.mark.parametrize(
    ("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desk", "phone"]
)
def test_axe_finds_nothing_serious_and_nothing_runs_or_widens_the_page(
    browser: Any, urls: dict[str, str], size: tuple[int, int], scheme: str
) -> None:
    axe()
    for address in (f"{urls['fine']}?hold=1", f"{urls['hostile']}?gate=phase1&hold=1"):
        with visit(browser, address, size=size, scheme=scheme, java_script_enabled=True) as page:
            assert not wide(page), address
            assert violations(page) == [], address
            assert page.title() != "owned"
