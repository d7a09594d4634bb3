"""A month of one node as two real engines have it comes to what the node's own store has of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from engines import prometheus_of, victoria_of
from fakes import FakeClock
from fakes_reviews import CATALOGUE, Standing, accepted, in_here
from fakes_store import eventually, rows

from bench.hall import DAY, HOUR, Hall, Node
from dvfd.config import Config, parse
from dvfd.errors import HistoryError
from dvfd.history.asked import asked
from dvfd.history.chosen import Chosen
from dvfd.history.course import Key, Reading
from dvfd.history.course import Period as Stretch
from dvfd.history.engine import Engine
from dvfd.history.look import NEEDED, look
from dvfd.history.past import where
from dvfd.history.question import MEAN
from dvfd.judgements import Judgements
from dvfd.model import Report, Sample, Verdict, labels
from dvfd.reviews.review import (
    AVAILABILITY,
    COMPARED,
    DIFFERED,
    OBSERVED,
    SYNC,
    TREND,
    UP,
    Period,
    Reviews,
    availability,
    job_of,
)
from dvfd.reviews.uptime import grown
from dvfd.store import Store

pytestmark = pytest.mark.slow

END = 1_780_000_000 // HOUR * HOUR + 1500
SCRAPE, LOOK = 60.0, 15.0
"""Seconds between two scrapes, and between two looks of the daemon."""

HALL = Hall(END, days=30, count=1)
WHOLE = END - HALL.begin
RECENT = WHOLE - 8.5 * DAY
"""From when on the store has all series; before that the two of the uptime, once a minute."""

NODE = Node(
    "node-01",
    dead=((24.3 * DAY, 24.3 * DAY + 70), (26.1 * DAY, 26.1 * DAY + 1900)),
    down=((27.4 * DAY, 27.4 * DAY + 700),),
    unscraped=((28.2 * DAY, 28.2 * DAY + 5000),),
    anew=26.1 * DAY + 1900,
    differed=3.0,
)
"""Its daemon restarts; it loses its state and counts anew; its job is down; the engine is away."""

RESETS = 1
TOLERANCE = SCRAPE * (2 + RESETS) + LOOK
"""Seconds: an engine's newest sample is a scrape old at both ends of a period and at a reset."""

JOB = labels(job="gpt")


def write(out: Any, milliseconds: bool) -> object:
    return HALL.write(out, SCRAPE, nodes=[NODE], milliseconds=milliseconds)


def samples() -> Iterator[Sample]:
    for sample in HALL.samples(NODE, LOOK):
        t = sample.at - HALL.begin
        if t >= RECENT or (t % SCRAPE == 0 and sample.metric in {UP, OBSERVED}):
            yield sample


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    path, clock = tmp_path_factory.mktemp("local") / "dvfd.db", FakeClock(float(HALL.begin))

    def opened() -> Store:
        made = Store(path, metrics=CATALOGUE.metrics, clock=clock)
        made.start()
        return made

    first, batch = opened(), list[Sample]()
    for sample in samples():
        batch.append(sample)
        if len(batch) == 20_000:
            first.write(batch)
            assert first.flush(60)
            batch = []
    first.write(batch)
    assert first.flush(60)
    first.stop()
    clock.advance(WHOLE + 10.0)
    second = opened()
    last = END // HOUR * HOUR - HOUR
    assert eventually(
        lambda: len(rows(path, f"SELECT 1 FROM hours WHERE start = {last}")) == 6, 120
    )
    yield second
    second.stop()


@pytest.fixture(scope="module", params=[prometheus_of, victoria_of], ids=["prometheus", "victoria"])
def config(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Config]:
    directory = tmp_path_factory.mktemp("engine")
    with request.param(directory, write) as server:
        path = "/prometheus" if request.param is victoria_of else ""  # it answers there as well
        yield parse(f'[node]\nname = "node-01"\n[history]\nurl = "{server.url}{path}"\n')


@pytest.fixture(scope="module")
def chosen(config: Config, store: Store) -> Chosen:
    return Chosen(config, CATALOGUE.metrics, store)


def listed(check: str, store: Store, chosen: Chosen | None) -> Report:
    clock = FakeClock(float(END))
    review = Reviews(store, Standing(accepted()), clock, run=in_here, history=chosen)
    windows = chosen.windows if chosen else lambda _check, _at: {}
    judgements = Judgements(
        CATALOGUE, store=store, clock=clock, reviewed=review.of, windows=windows
    )
    return judgements.run_check(CATALOGUE.checks[check])


def period(name: str) -> Period:
    return Period.ending(name, float(END))


def test_the_engine_is_looked_at_as_it_is(config: Config) -> None:
    found = look(config, now=float(END))
    assert found.targets == ("node-01:9109",)
    assert found.ahead == pytest.approx(0.0, abs=2.0)
    assert found.since is not None
    assert 0 <= HALL.begin - found.since < HOUR
    assert found.newest is not None
    assert 0 <= END - found.newest <= SCRAPE
    assert set(NEEDED) - set(found.series or ()) == {"job_communication_ratio"}
    assert set((found.series or {}).values()) == {1}


def test_a_metric_is_told_by_the_hour(config: Config) -> None:
    told = asked(OBSERVED, 24.0, config, now=float(END))["rows"]
    assert told[0]["labels"] == {"job": "gpt"}
    assert told[-1]["value"] == pytest.approx(NODE.observed(WHOLE), abs=SCRAPE)
    hours = [row["at"] for row in told if row["at"] % HOUR == 0]
    assert hours == [END // HOUR * HOUR - ago * HOUR for ago in range(23, -1, -1)]


def test_a_metric_that_is_not_there_is_told_with_what_is(config: Config) -> None:
    with pytest.raises(HistoryError, match="no sample of it in the last 2 h, and others of node-"):
        asked("job_communication_ratio", 2.0, config, now=float(END))
    node = config.node.model_copy(update={"name": "elsewhere"})
    other = config.model_copy(update={"node": node})
    with pytest.raises(HistoryError, match="instance is node-01:9109; "):
        asked(OBSERVED, 2.0, other, now=float(END))


def test_many_nodes_in_many_pieces_are_answered_alike(config: Config) -> None:
    small = config.history.model_copy(update={"points": 6000, "range_days": 2.5})
    many = [*(f"other-{number:04d}(:[0-9]+)?" for number in range(200)), "node-01(:[0-9]+)?"]
    found = []
    for settings, nodes in ((config.history, many[-1:]), (small, many)):
        over = Stretch(END - 9.5 * DAY, float(END))
        read = Reading(Engine(settings), CATALOGUE.metrics, where(settings, nodes), over)
        found.append((read.counter(OBSERVED), read.gauge("job_processes", MEAN)))
    assert found[0] == found[1]
    assert len(found[0][0][Key("node-01:9109", JOB)]) > 200


@pytest.mark.parametrize("name", ["7d", "30d"])
def test_the_bounds_of_the_uptime_agree(name: str, store: Store, chosen: Chosen) -> None:
    over = period(name)
    theirs = chosen.over(over.since - DAY, over.until)
    bounds = []
    for past in (store, theirs):
        job = job_of(past, past.latest(OBSERVED)[0], over)
        sample = next(f for f in availability(job, over, ()) if isinstance(f, Sample))
        bounds.append((sample.low, sample.high))

    whole = over.until - over.since
    for ours, engines in zip(*bounds, strict=True):
        assert ours is not None
        assert engines is not None
        print(name, "seconds apart", (engines - ours) * whole)
        assert abs(engines - ours) * whole <= TOLERANCE
    down = 700.0
    assert bounds[1][1] == pytest.approx(1 - down / whole, abs=TOLERANCE / whole)


def test_hours_and_their_medians_agree(store: Store, chosen: Chosen) -> None:
    over = period("7d")
    theirs = chosen.over(over.since - DAY, over.until)
    ours, engines = (job_of(p, p.latest(OBSERVED)[0], over).pace for p in (store, theirs))

    assert len(ours) > 160
    edges = set(ours) ^ set(engines)
    print("hours that one of them knows", len(edges), "of", len(ours))
    assert len(edges) <= 3  # the engine was away for more than an hour, the node was not
    for hour in set(ours) & set(engines):
        assert engines[hour] == pytest.approx(ours[hour], rel=2e-3)


def test_what_counters_grew_by_agrees_over_a_reset(store: Store, chosen: Chosen) -> None:
    over = period("7d")
    theirs = chosen.over(over.since - DAY, over.until)
    for metric in (COMPARED, DIFFERED):
        ours, engines = (
            grown(p.series(metric, JOB, since=over.since - DAY, until=over.until),
                  over.since, over.until)
            for p in (store, theirs)
        )  # fmt: skip
        assert engines == pytest.approx(ours, abs=0.1 * TOLERANCE + 1 if metric == COMPARED else 0)
    assert engines == 3.0


def test_the_weekly_list_is_judged_alike_and_names_its_source(store: Store, chosen: Chosen) -> None:
    ours, engines = listed("weekly", store, None), listed("weekly", store, chosen)

    verdicts = [{r.criterion.id: r.verdict for r in report.results} for report in (ours, engines)]
    assert verdicts[0] == verdicts[1]
    figures = [{r.criterion.metric: r for r in report.results} for report in (ours, engines)]
    for metric in (AVAILABILITY, TREND, SYNC, "job_efficiency_ratio", DIFFERED):
        assert figures[0][metric].observed is not None, metric
        assert figures[1][metric].observed == pytest.approx(figures[0][metric].observed, abs=1e-3)
    assert engines.run is not None
    [source] = [text for name, text in engines.run.facts if name == "source of 7d"]
    assert source.startswith("the engine at http://127.0.0.1:")


def test_even_one_hash_that_differed_fails_the_week(store: Store, chosen: Chosen) -> None:
    found = {r.criterion.id: r for r in listed("weekly", store, chosen).results}
    assert found["weekly.corruption"].verdict is Verdict.FAIL
    assert found["weekly.corruption"].observed == 3.0
