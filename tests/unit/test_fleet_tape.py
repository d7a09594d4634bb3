"""Recorded expositions that go on, as many nodes: what moves, what stands, who is ill."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from bench.player import ILL, Condition, Stage, fleet, play, targets
from bench.recording import SCENES
from bench.tape import WANDER, Moment, load, tape

RECORDED = """# scraped at 1000.0
# HELP dvfd_rank_steps_total Steps
# TYPE dvfd_rank_steps_total counter
dvfd_rank_steps_total{rank="0",training_job="train"} 100.0
dvfd_job_loss{training_job="train"} 2.5
dvfd_probe_up{probe="cpu"} 1.0
dvfd_probe_last_success_timestamp_seconds{probe="cpu"} 997.0
dvfd_check_last_run_timestamp_seconds{check="daily"} 400.0
dvfd_criterion_verdict{check="live",criterion="live.clock",verdict="FAIL"} 1.0
dvfd_criterion_verdict{check="live",criterion="live.memory",verdict="PASS"} 1.0
dvfd_check_verdict{check="live",verdict="FAIL"} 1.0
"""
TEXT = RECORDED + RECORDED.replace("1000.0", "1010.0").replace(" 100.0", " 200.0").replace(
    " 997.0", " 1007.0"
)


def values(body: bytes) -> dict[str, float]:
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def played(seconds: float, seed: float = 0.0, text: str = TEXT) -> dict[str, float]:
    return values(tape(text).play(Moment(seed, since=5000.0, now=5000.0 + seconds)))


STEPS = 'dvfd_rank_steps_total{rank="0",training_job="train"}'


def test_a_counter_goes_on_at_the_rate_between_the_scrapes() -> None:
    assert played(0)[STEPS] == 200
    assert played(60)[STEPS] == 200 + 10 * 60


def test_nodes_are_at_different_counts_and_paces() -> None:
    young, old = played(60, seed=0.1)[STEPS], played(60, seed=0.9)[STEPS]
    assert old > young > 200


def test_a_clock_that_moved_keeps_its_distance_and_one_that_stood_stands() -> None:
    later = played(100)
    assert later['dvfd_probe_last_success_timestamp_seconds{probe="cpu"}'] == 5100 - 3
    assert later['dvfd_check_last_run_timestamp_seconds{check="daily"}'] == 5000 - 610


def test_a_gauge_wanders_below_its_recorded_value() -> None:
    seen = [
        played(second, seed=0.3)['dvfd_job_loss{training_job="train"}'] for second in range(600)
    ]
    assert 2.5 * (1 - WANDER) <= min(seen) < 2.5 * (1 - 0.9 * WANDER)
    assert 2.5 * (1 - 0.1 * WANDER) < max(seen) <= 2.5


def test_flags_stand() -> None:
    assert played(100)['dvfd_probe_up{probe="cpu"}'] == 1


def test_what_a_virtual_machine_cannot_show_is_healed_and_the_watch_with_it() -> None:
    shown = played(0)
    healed = 'dvfd_criterion_verdict{check="live",criterion="live.clock",verdict="PASS"}'
    assert healed in shown
    assert 'dvfd_check_verdict{check="live",verdict="PASS"}' in shown


def test_what_fails_otherwise_is_not_healed() -> None:
    failing = TEXT.replace('"live.memory",verdict="PASS"', '"live.memory",verdict="FAIL"')
    assert 'dvfd_check_verdict{check="live",verdict="FAIL"}' in played(0, text=failing)


@pytest.mark.parametrize("scene", SCENES)
def test_every_recording_plays_with_its_series_once_each(scene: str) -> None:
    names = load(scene).series()
    assert len(names) == len(set(names)) > 350


@pytest.mark.parametrize(
    ("scene", "verdict"),
    [("cpu-4", "PASS"), ("gpu-8", "PASS"), ("failing", "FAIL"), ("blind", "UNKNOWN")],
)
def test_the_watch_of_a_recording_says_what_was_recorded(scene: str, verdict: str) -> None:
    assert f'dvfd_check_verdict{{check="live",verdict="{verdict}"}}' in load(scene).series()


@pytest.mark.parametrize("count", [50, 1000])
def test_a_fleet_has_as_many_ill_nodes_as_declared(count: int) -> None:
    found = Counter(node.condition for node in fleet(count, 2))
    assert {condition: found[condition] for condition in ILL} == dict.fromkeys(ILL, 2)
    assert found[Condition.WELL] == count - 2 * len(ILL)


def test_each_node_has_an_instance_of_its_own() -> None:
    listed = targets(fleet(1000, 3), 1234)
    assert len({target["labels"]["instance"] for target in listed}) == 1000
    assert {address for target in listed for address in target["targets"]} == {"127.0.0.1:1234"}


def shown_by(condition: Condition, now: float = 60.0) -> bytes:
    nodes = [node for node in fleet(50, 1) if node.condition is condition]
    return Stage(nodes, 5000.0).exposition(nodes[0], 5000.0 + now)


def test_a_stale_node_says_the_same_for_ever() -> None:
    assert shown_by(Condition.STALE, 60) == shown_by(Condition.STALE, 600)
    assert shown_by(Condition.WELL, 60) != shown_by(Condition.WELL, 600)


def test_a_node_that_is_behind_says_an_older_version() -> None:
    assert b'version="0.0.9' in shown_by(Condition.BEHIND)
    assert b'version="0.0.9' not in shown_by(Condition.WELL)


def test_the_player_answers_by_path_and_leaves_a_silent_node_unanswered(tmp_path: Path) -> None:
    asyncio.run(ask_around(tmp_path / "targets.json"))


async def ask_around(path: Path) -> None:
    nodes = fleet(50, 1)
    playing = asyncio.create_task(play(nodes, 5.0, path))
    while not path.exists():
        await asyncio.sleep(0.01)
    port = int(json.loads(path.read_text())[0]["targets"][0].rpartition(":")[2])
    silent = next(n.name for n in nodes if n.condition is Condition.SILENT)

    head, body = await get(port, "/node-0001/metrics")
    assert b"200 OK" in head
    assert len(values(gzip.decompress(body))) == len(load("cpu-4").series())
    assert b"404" in (await get(port, "/nobody/metrics"))[0]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(get(port, f"/{silent}/metrics"), 0.2)
    playing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await playing


async def get(port: int, path: str) -> tuple[bytes, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nAccept-Encoding: gzip\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        return head, await reader.readexactly(length)
    finally:
        writer.close()
