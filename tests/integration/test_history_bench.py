"""What the measurement of history rests on: both sides hold the samples that were made up."""

from __future__ import annotations

from pathlib import Path

from bench import history
from bench.made_up import EVERY, HOUR, hours, series
from bench.remote_write import send
from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.model import Sample
from dvfd.store.retention import Retention

START = 1_800_000_000 // HOUR * HOUR


def test_prometheus_answers_with_every_sample_that_was_sent(tmp_path: Path) -> None:
    made = series(5)
    at, values = next(hours(5, START, 1))
    with history._server(tmp_path, tmp_path / "data") as server:
        send(server.url, made, at, values)
        told = {
            each.number: server.query(f"{history._selector(each)}[1h]", at=float(at + HOUR - EVERY))
            for each in made
        }

    for each in made:
        pairs = told[each.number][0]["values"]
        assert [when for when, _ in pairs] == [at + EVERY * beat for beat in range(len(pairs))]
        assert [float(value) for _, value in pairs] == values[each.number].tolist()


def test_a_store_that_is_stepped_rolls_up_and_deletes_as_time_is_told(tmp_path: Path) -> None:
    clock, metrics = history.ToldClock(float(START)), load(Config()).metrics
    kept = Retention(raw=HOUR, minutes=2 * HOUR)
    path = tmp_path / "dvfd.db"
    store = history.Stepped(path, metrics=metrics, clock=clock, retention=kept, pacing=clock.boot)
    store.begin()
    for second in range(0, 4 * HOUR, 20):
        clock.at = START + second + 0.0
        store.write([Sample("node_memory_used_ratio", 0.5, clock.at)])
        store.step()
    course = store.series("node_memory_used_ratio", (), since=START, until=clock.at)
    store.stop()
    rows = history._kept(path, clock.at)

    assert HOUR / 20 <= rows["rows_samples"] <= 2 * HOUR / 20 + 1
    assert 2 * 60 - 2 <= rows["rows_minutes"] <= 3 * 60 + 1
    assert rows["rows_hours"] == 3
    assert rows["intact"]
    assert course[-1].at == clock.at
    assert len(course) > 3
