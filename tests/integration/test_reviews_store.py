"""A week as the store keeps it: written by the sample, read by the hour, judged by the list."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakes import FakeClock
from fakes_reviews import CATALOGUE, Standing, accepted
from fakes_store import eventually, rows

from dvfd.judgements import Judgements
from dvfd.model import Sample, Verdict, labels
from dvfd.reviews.review import Reviews
from dvfd.store import Store

BEGAN = 1_800_000_000.0
EVERY, HOUR, DAY = 15.0, 3600.0, 86400.0
LENGTH = 8 * DAY
UNSEEN = (3 * DAY + 600.0, 3 * DAY + 600.0 + 1200.0)
"""No daemon looked for twenty minutes, at some minutes past an hour."""


def samples() -> Iterator[Sample]:
    up = 0.0
    job = labels(job="gpt")
    for n in range(int(LENGTH / EVERY)):
        t = n * EVERY
        if UNSEEN[0] <= t < UNSEEN[1]:
            continue
        up += EVERY if n else 0.0
        found = {
            "job_up_seconds_total": up,
            "job_observed_seconds_total": up,
            "job_throughput_samples_per_second": 240.0 + n % 5 / 10,
            "job_processes": 4.0,
        }
        yield from (Sample(metric, value, BEGAN + t, job) for metric, value in found.items())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    path, clock = tmp_path_factory.mktemp("week") / "dvfd.db", FakeClock(BEGAN)

    def opened() -> Store:
        made = Store(path, metrics=CATALOGUE.metrics, clock=clock)
        made.start()
        return made

    first, batch = opened(), []
    for sample in samples():
        batch.append(sample)
        if len(batch) == 20_000:
            first.write(batch)
            assert first.flush(60)
            batch = []
    first.write(batch)
    assert first.flush(60)
    first.stop()
    clock.advance(LENGTH + 10)
    second = opened()
    wanted = 4 * int(LENGTH / HOUR)
    assert eventually(lambda: len(rows(path, "SELECT 1 FROM hours")) == wanted, 60)
    yield second
    second.stop()


def test_a_week_of_the_store_is_judged_as_it_was(store: Store) -> None:
    clock = FakeClock(BEGAN + LENGTH - EVERY)
    review = Reviews(store, Standing(accepted()), clock, keep=store.write)
    judgements = Judgements(CATALOGUE, store=store, clock=clock, reviewed=review.of)

    report = judgements.run_check(CATALOGUE.checks["weekly"])

    found = {r.criterion.id.partition(".")[2]: r for r in report.results}
    assert found["trend_floor"].verdict is Verdict.PASS, found["trend_floor"].reason
    assert found["efficiency"].verdict is Verdict.PASS, found["efficiency"].reason
    assert found["uptime"].verdict is Verdict.UNKNOWN  # 20 minutes unseen are more than 0.1 %
    assert found["uptime"].observed == pytest.approx(1 - 1200 / (7 * DAY), abs=2e-4)
    kept = store.latest("job_availability_ratio")
    assert [dict(s.labels) for s in kept] == [{"job": "gpt", "period": "7d"}]
