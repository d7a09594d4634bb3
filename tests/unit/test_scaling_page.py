"""A projection as a page: self-contained, honest about what it does not know, safe."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from fakes_scaling import CONFIGURATION, Child, known, point, source

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.errors import DvfdError
from dvfd.scaling import asked, plot
from dvfd.scaling import view as views
from dvfd.scaling.page import html
from dvfd.scaling.points import How
from dvfd.scaling.view import View, view
from dvfd.words import NONE

CATALOGUE = load(Config())


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child's work in this process."""
    ask = asked.ask
    monkeypatch.setattr(views.asked, "ask", lambda *a, **k: ask(*a, **{**k, "run": Child()}))


def seen(points: Any, *targets: int, **more: Any) -> View:
    return view(known(points), CONFIGURATION, targets or (16, 32), CATALOGUE, **more)


class Sources(HTMLParser):
    """What a page would load, and the words that it shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.loads += [v for k, v in attrs if k in {"src", "href"} and v]


def test_the_page_is_one_file_without_script_and_says_all_of_it() -> None:
    text = html(seen(source(low=None, high=None)))
    page = Sources(text)
    assert (page.loads, "script" in page.tags) == ([], False)
    for words in ("1088", "1088 to 1236.2", "USL, decides", "12 processes left out",
                  "Super-linear: verify the baseline", "882", "not frozen"):  # fmt: skip
        assert words in text, words


def test_the_same_view_is_the_same_page_to_the_byte() -> None:
    assert html(seen(source())) == html(seen(source()))


def test_words_of_people_are_words() -> None:
    hostile = "<script>document.title='owned'</script>"
    spoilt = [replace(p, by=hostile, note=hostile, name=hostile) for p in source()]
    assert "<script>" not in html(seen(spoilt))


def test_what_lies_beyond_the_largest_count_is_shaded() -> None:
    drawn = plot.throughput(seen(source()))
    left = re.search(r'class="gap" d="M([\d.]+) 0', drawn.plot)
    assert left
    assert float(left[1]) == pytest.approx(1000 * 12 / (32 * plot.AIR), abs=0.1)


def test_every_point_is_drawn_with_its_interval_and_one_of_no_run_is_hollow() -> None:
    typed = [replace(p, how=How.RECORDED) if p.processes == 4 else p for p in source()]
    drawn = plot.throughput(seen(typed)).plot
    counts = [drawn.count(f'class="{kind}"') for kind in ("dot", "sure", "hole")]
    assert counts == [4, 4, 1]


def test_a_curve_ends_where_its_fit_has_no_finite_value() -> None:
    made = seen([point(1, 1.0), point(2, 2.5), point(3, 5.0)], 16)
    usl = next(model for model in made.models if model.decides)
    assert usl.curve[-1] is None
    assert NONE in html(made)
    assert "not finite" in "".join(made.targets[0].against)


@pytest.mark.slow
def test_the_floors_that_bind_are_drawn_unless_they_flatten_all_else() -> None:
    near = plot.throughput(seen(source(), 16))
    assert (near.plot.count('class="floor"'), near.above) == (4, 0)
    slow = plot.throughput(seen([point(n, float(n)) for n in (1, 4, 8, 12)], 16))
    assert (slow.plot.count('class="floor"'), slow.above) == (0, 4)


def test_without_one_process_there_is_no_efficiency() -> None:
    made = seen(source((4, 8, 12)))
    assert plot.efficiency(made) is None
    assert made.targets[0].efficiency is None
    assert "Efficiency" not in html(made)


def test_no_two_names_lie_upon_another() -> None:
    names = [name.y for name in plot.throughput(seen(source())).names]
    assert len(names) == 5
    assert min(b - a for a, b in pairwise(names)) >= 4.9
    assert max(names) <= 98.1


def test_three_counts_say_that_nothing_says_how_wrong_they_are() -> None:
    against = seen(source(), 16, below=12).targets[0].against
    assert "how wrong the fit is cannot be said" in against[0]


def test_one_count_is_no_view() -> None:
    with pytest.raises(DvfdError, match="two counts wanted"):
        seen(source((4,)))
