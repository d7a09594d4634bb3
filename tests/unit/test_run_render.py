"""A report's page and JUnit: of the document alone, escaped, whole without script or network."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from fakes_report import FakeRows, event, plan, report, rows, run

from dvfd.cli.formats import exit_code, junit
from dvfd.runs.charts import after, axis, draw
from dvfd.runs.render import html, percent, spent, why
from dvfd.runs.rows import What
from dvfd.runs.run import Stage
from dvfd.words import NONE

HOUR = 3600.0
SUM = "5ea1" * 16
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;\u202e"
SPENT = {
    "seconds": 3600.0,
    "goodput": 0.83333,
    "goodput_at_most": 0.9,
    "parts": [
        {"part": "productive", "words": "productive steps", "seconds": 3000.0},
        {"part": "save", "words": "saving checkpoints", "seconds": 600.0},
        {"part": "data", "words": "waiting for data", "seconds": 0.0},
    ],
    "notes": ["loading checkpoints is part of initialisation"],
}


class Tags(HTMLParser):
    """Every tag with its attributes; complains of nothing, as a browser."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def document():
    """An hour with a restart and a gap of ten minutes."""
    return report(
        run(lasted=HOUR, plan=plan(duration=HOUR)),
        rows(
            HOUR, event(2000.0, What.RESTART, "rank 2 came back", rank=2), away=((600.0, 1200.0),)
        ),
        goodput=SPENT,
    )


@pytest.fixture(scope="module")
def page(document):
    return html(document, SUM)


def words(text):
    body = text.partition("<body>")[2]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def chart(document, name):
    found = next(each for each in document["series"] if each["id"] == name)
    return draw(found, axis(document), document)


def test_the_first_screen_says_verdict_whether_it_counts_and_why_not(page):
    first = words(page).partition("Criteria")[0]

    places = [first.index(part) for part in ("FAIL", "does not count", "shortened: 60 min of 24 h")]
    assert places == sorted(places)
    assert "Ranks that came back as a new process" in first


def test_the_same_document_gives_the_same_page(document, page):
    again = {key: document[key] for key in reversed(document)}

    assert html(again, SUM) == page


def test_the_page_of_a_run_over_several_nodes_names_them():
    lead = html(report(run(peers={"n2": "r2"}), rows(HOUR)), SUM)
    other = html(report(run(leader="n1", of="r1"), rows(HOUR)), SUM)
    assert "<bdi>node4</bdi> leads and judges; <bdi>n2</bdi> recorded <code>r2</code>" in lead
    assert "<bdi>n1</bdi>, where it is judged as <code>r1</code>" in other


def test_the_page_fetches_and_runs_nothing(page):
    tags = Tags(page).found

    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object", "form"}
    assert not [name for _, given in tags for name in given if name.startswith("on")]
    assert not [given for _, given in tags if {"src", "href", "xlink:href"} & given.keys()]
    assert "url(" not in page.partition("</style>")[0]


def test_the_sum_of_the_json_and_how_to_check_it_stand_on_the_page(page, document):
    text = words(page)

    assert SUM in text
    assert f"sha256sum -c {document['run']['id']}.sha256" in text


def test_every_chart_has_a_table_under_it(page, document):
    drawn = [each for each in document["series"] if each["lines"]]

    assert page.count('<svg class="plot"') == len(drawn) == page.count("As a table</summary>")


def test_a_chart_shows_limit_expected_band_gap_and_restart(document):
    plot = chart(document, "throughput").plot

    assert plot.count('class="limit"') == 1
    assert plot.count('class="expected"') == 1
    assert plot.count('class="gap"') == 2  # the first interval has none before it to begin at
    assert plot.count('class="restart"') == 1


def test_a_line_is_never_drawn_over_a_gap(document):
    [path] = re.findall(r'class="line" d="([^"]+)"', chart(document, "loss").plot)

    since, until = 1000 * 570 / 3600, 1000 * 1170 / 3600
    _, *parts = path.split("M")
    assert len(parts) >= 2  # one on each side of it
    for part in parts:
        ends = [float(place.split()[0]) for place in part.split("L")]
        assert max(ends) <= since + 15 or min(ends) >= until - 15


def test_a_lone_point_is_drawn_as_long_as_what_it_stands_for():
    two = report(run(lasted=120.0), rows(120.0))
    memory = next(each for each in two["series"] if each["id"] == "memory")
    memory["lines"][1]["mean"][1] = None  # of two minutes

    [path] = re.findall(r'class="line" d="([^"]+)"', draw(memory, axis(two), two).plot)

    assert re.fullmatch(r"M0 [\d.]+H500", path)


@pytest.mark.parametrize(
    ("elapsed", "words"), [(30, "30 s"), (60, "1 min"), (5400, "90 min"), (7200, "2 h")]
)
def test_an_axis_says_how_long_the_run_had_run(elapsed, words):
    assert after(elapsed) == words


def test_what_was_not_observed_is_counted_once(document):
    assert chart(document, "cpu").unobserved == pytest.approx(600, abs=31)


def test_of_several_lines_the_one_that_decides_is_drawn_strongly_and_named(document):
    cpu, memory = chart(document, "cpu"), chart(document, "memory")

    assert (cpu.decides, memory.decides) == ("rank 3", "NUMA node 1")
    assert cpu.plot.count('class="line"') == 1
    assert cpu.plot.count('class="line other"') == 3


def test_names_notes_and_words_of_others_neither_run_nor_break_the_page():
    odd = run(
        Stage.ABORTED, lasted=HOUR, reason=HOSTILE, node=HOSTILE,
        plan=plan(job=HOSTILE, note=HOSTILE, by=HOSTILE, argv=(HOSTILE,)),
    )  # fmt: skip
    given = rows(HOUR, event(100.0, What.FAILURE, HOSTILE), event(99.0, What.DOWN, HOSTILE))
    document = report(odd, given, overrides=[HOSTILE], environment={HOSTILE: HOSTILE})

    page = html(document, SUM)

    names = {tag for tag, _ in Tags(page).found}
    assert not names & {"script", "img"}
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 8


def test_junit_parses_and_has_an_error_for_each_criterion_that_is_not_known():
    document = report(run(Stage.ABORTED, lasted=0.0, began_t=None, reason=HOSTILE), FakeRows())

    suites = ET.fromstring(junit(document))

    assert suites.attrib["tests"] == "21"
    assert suites.attrib["errors"] == "17"
    assert exit_code(document) == 3


def test_a_run_with_nothing_at_all_has_a_page_that_says_so():
    never = run(Stage.ABORTED, lasted=0.0, began_t=None, warm_t=None, reason="job gpt never came")
    page = html(report(never, FakeRows()), SUM)

    assert "Nothing was observed that could be drawn." in page
    assert "never" in words(page)
    assert 'class="v PASS"' not in page
    assert 'svg class="state"' not in page


def test_a_job_that_never_came_is_one_reason_and_not_seventeen():
    never = run(Stage.ABORTED, lasted=0.0, began_t=None, warm_t=None, reason="job gpt never came")

    [cause] = why(report(never, FakeRows()))

    assert len(cause.rows) == 17
    assert cause.reason.endswith("aborted: job gpt never came")


def test_all_that_would_pass_but_for_the_run_is_one_reason():
    short = report(run(lasted=1200.0, plan=plan(duration=1200.0)), rows(1200.0))

    [cause] = why(short)

    assert (
        cause.reason == "What was measured passes, which does not count: shortened: 20 min of 24 h"
    )


def test_what_fails_comes_before_what_cannot_be_known(document):
    verdicts = [cause.verdict for cause in why(document)]

    assert verdicts[0] == "FAIL"
    assert verdicts == sorted(verdicts)


def test_where_time_went_is_a_bar_and_a_table(page):
    assert [(p.part, p.share, p.before) for p in spent(SPENT)] == [
        ("productive", pytest.approx(5 / 6), 0.0),
        ("save", pytest.approx(1 / 6), pytest.approx(5 / 6)),
    ]
    assert page.count('<rect class="') == 2
    assert "Goodput 83.33 % at most 90 %" in words(page)
    assert "loading checkpoints is part of initialisation" in words(page)


def test_without_goodput_the_page_has_no_section_of_it():
    assert "Where time went" not in html(report(run(lasted=HOUR), rows(HOUR)), SUM)


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100 %"), (0.99999, "99.99 %"), (0.9896, "98.96 %"), (0.0, "0 %"), (None, NONE)],
)
def test_a_share_is_never_rounded_up_to_all(share, text):
    assert percent(share) == text


@pytest.mark.slow
def test_two_days_of_sixteen_ranks_fit_on_a_page():
    lasted = 2 * 86_400.0
    long = run(lasted=lasted, plan=replace(plan(), processes=16, planned=lasted, duration=lasted))

    page = html(report(long, rows(lasted, ranks=16)), SUM)

    assert len(page) < 1_500_000
