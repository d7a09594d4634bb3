"""What is preserved of a failure: whole, sealed, bounded, and without anybody's secrets."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock
from fakes_store import METRICS, opened, sample

from dvfd.errors import DvfdError
from dvfd.incidents import preserve
from dvfd.incidents.preserve import ROOM, Orders, Sealing, by_child, problems, within

PLENTY = 1 << 40


def orders(tmp_path: Path, **more: Any) -> Orders:
    given = {
        "incident": "i-1", "node": "n1", "path": tmp_path / "out" / "i-1.tar.gz",
        "limit": 1 << 20, "spare": 0, "at": 1_800_000_000.0,
    }  # fmt: skip
    (tmp_path / "out").mkdir(exist_ok=True)
    return Orders(**{**given, **more})


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        found = {m.name.partition("/")[2]: tar.extractfile(m) for m in tar.getmembers()}
        return {name: file.read() for name, file in found.items() if file}


def manifest(path: Path) -> dict[str, Any]:
    return json.loads(members(path)["manifest.json"])


def test_a_bundle_is_sealed_by_its_own_hash_and_those_of_its_parts(tmp_path: Path) -> None:
    found = Sealing(orders(tmp_path, texts={"a.txt": "one", "b/c.txt": "two"})).make()

    path = Path(found.path)
    assert members(path)["b/c.txt"] == b"two"
    assert problems(path, found.sha256) == []
    assert path.stat().st_mode & 0o777 == 0o440
    assert [part["name"] for part in manifest(path)["parts"]] == ["i-1/a.txt", "i-1/b/c.txt"]


def test_a_changed_bundle_is_found_out(tmp_path: Path) -> None:
    found = Sealing(orders(tmp_path, texts={"a.txt": "one"})).make()
    path = Path(found.path)
    raw = gzip.decompress(path.read_bytes()).replace(b"one", b"two")
    path.chmod(0o640)
    path.write_bytes(gzip.compress(raw))

    assert "it was changed" in problems(path, found.sha256)[0]
    assert "a.txt is not what the manifest says" in problems(path)[0]
    path.write_bytes(b"nothing")
    assert "cannot be read" in problems(path)[0]


def test_of_a_log_that_is_too_long_the_end_is_kept(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(preserve, "PART", 1000)
    log = tmp_path / "job.log"
    log.write_text("".join(f"line {number}\n" for number in range(1000)))

    found = Sealing(orders(tmp_path, files={"job.log": log})).make()

    kept = members(Path(found.path))["job.log"].decode()
    assert kept.endswith("line 999\n")
    assert kept.startswith("line ")
    assert len(kept) <= 1000


def test_of_a_journal_that_is_too_long_the_end_is_kept_and_it_is_called_cut(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(preserve, "PART", 1000)
    say = ("sh", "-c", "seq 1000; echo THE FAILURE")

    found = Sealing(orders(tmp_path, commands={"journal.txt": say, "short": ("echo", "1")})).make()

    path = Path(found.path)
    kept = members(path)["journal.txt"].decode()
    assert kept.endswith("1000\nTHE FAILURE\n")
    assert 900 < len(kept) <= 1000
    assert kept.splitlines()[0] in map(str, range(1000))
    assert [part["cut"] for part in manifest(path)["parts"]] == [True, False]


def test_a_log_of_exactly_the_limit_is_whole_and_one_without_lines_is_kept(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(preserve, "PART", 1000)
    whole, bar = tmp_path / "whole.log", tmp_path / "bar.log"
    whole.write_text("x" * 999 + "\n")
    bar.write_text("50 %\r" * 999)

    found = Sealing(orders(tmp_path, files={"whole.log": whole, "bar.log": bar})).make()

    assert len(members(Path(found.path))["bar.log"]) == 1000
    assert [part["cut"] for part in manifest(Path(found.path))["parts"]] == [False, True]


def test_a_part_that_takes_too_long_costs_only_itself(tmp_path: Path, monkeypatch) -> None:
    def endless(text: str) -> str:
        while text == "slow":
            pass
        return text

    monkeypatch.setattr(preserve, "redacted", endless)

    found = Sealing(orders(tmp_path, texts={"a": "one", "b": "slow", "c": "two"}), each=0.2).make()

    assert set(members(Path(found.path))) == {"a", "c", "manifest.json"}
    assert found.missing == ("b: not ready after 0.2 s: left out",)


def test_a_file_that_nobody_can_read_to_its_end_costs_only_itself(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(preserve, "COMMAND", 0.2)
    hangs = tmp_path / "hangs.log"
    os.mkfifo(hangs)

    found = Sealing(orders(tmp_path, texts={"a": "one"}, files={"l": hangs})).make()

    assert found.parts == 1
    assert "hangs.log: tail: still running after 0.2 s; killed" in found.missing[0]


def test_when_the_time_is_over_what_there_is_is_sealed(tmp_path: Path) -> None:
    found = Sealing(orders(tmp_path, texts={"a": "one"}), seconds=0.0).make()

    assert problems(Path(found.path), found.sha256) == []
    assert found.missing == ("a: no time left for it",)


def test_a_part_that_cannot_be_made_costs_only_itself(tmp_path: Path, monkeypatch) -> None:
    def crashes(text: str) -> str:
        return str(1 / 0) if text == "bad" else text

    monkeypatch.setattr(preserve, "redacted", crashes)

    found = Sealing(orders(tmp_path, texts={"a": "bad", "b": "half \udcff"})).make()

    assert members(Path(found.path))["b"] == b"half \\udcff"
    assert found.missing == ("a: ZeroDivisionError: division by zero",)


def test_an_alarm_that_was_set_before_still_comes() -> None:
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    earlier = signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with within(30.0):
            pass
        while not rang:
            time.sleep(0.01)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *earlier)
        signal.signal(signal.SIGALRM, before)

    assert rang == [1]


def test_a_bundle_stays_below_its_limit_and_names_what_it_left_out(tmp_path: Path) -> None:
    noise = {f"{n}.bin": _noise(40_000, n) for n in range(10)}

    found = Sealing(orders(tmp_path, texts=noise, limit=ROOM + 80_000)).make()

    assert found.bytes <= ROOM + 80_000
    assert 0 < found.parts < 10
    assert "i-1/9.bin: no room" in found.missing[-1]


def _noise(size: int, seed: int) -> str:
    """Text that gzip makes no smaller than it is, by much."""
    return random.Random(seed).randbytes(size // 2).hex()


def test_without_room_on_the_disk_nothing_is_begun(tmp_path: Path) -> None:
    with pytest.raises(DvfdError, match="1000 are free, and 500 stay free"):
        Sealing(orders(tmp_path, spare=500), left=lambda _path: 1000)

    assert not list((tmp_path / "out").iterdir())


def test_a_disk_that_fills_up_meanwhile_keeps_the_most_important_parts(tmp_path: Path) -> None:
    room = iter([PLENTY, PLENTY, 0, 0, 0])

    found = Sealing(
        orders(tmp_path, texts={"a.txt": "x" * 2000, "b.txt": "y" * 2000}),
        left=lambda _path: next(room, 0),
    ).make()

    assert set(members(Path(found.path))) == {"a.txt", "manifest.json"}
    assert "no room" in found.missing[0]
    assert problems(Path(found.path)) == []


def test_a_disk_that_is_full_after_all_leaves_nothing_behind(tmp_path: Path) -> None:
    given = orders(tmp_path, texts={"a.txt": "x"})
    sealing = Sealing(given)
    (tmp_path / "out").rename(tmp_path / "gone")

    with pytest.raises(OSError, match="No such file"):
        sealing.make()


def test_what_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    found = Sealing(
        orders(
            tmp_path,
            files={"job.log": tmp_path / "none.log"},
            commands={"k.txt": ("sh", "-c", "echo 'not permitted' >&2; exit 1"), "n": ("none-1",)},
            store=tmp_path / "none.db",
        )
    ).make()

    told = "\n".join(found.missing)
    assert "none.log: cannot be read: No such file" in told
    assert "not permitted" in told
    assert "none-1: cannot be started" in told
    assert "none.db" in told
    assert manifest(Path(found.path))["missing"] == list(found.missing)


def test_what_a_tool_shows_in_part_is_kept_with_what_it_says_of_the_rest(tmp_path: Path) -> None:
    partly = ("sh", "-c", "echo one entry; echo 'not seeing messages from others' >&2")
    nothing = ("echo", "-- No entries --")

    found = Sealing(orders(tmp_path, commands={"a.txt": partly, "b.txt": nothing})).make()

    kept = members(Path(found.path))
    assert kept["a.txt"] == b"one entry\n"
    assert "b.txt" not in kept
    assert "not seeing messages from others" in found.missing[0]


def test_no_secret_leaves_in_a_bundle(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    log.write_text("WANDB_API_KEY=geheim1\nsaved to s3://u:geheim2@h/x\nstep 5 loss 2.5\n")
    texts = {"environment.json": json.dumps({"password": "geheim3", "LR": "0.1"})}
    say = ("echo", "Authorization: Bearer geheim4")

    found = Sealing(
        orders(tmp_path, texts=texts, files={"job.log": log}, commands={"out.txt": say})
    ).make()

    kept = members(Path(found.path))
    assert b"geheim" not in b"".join(kept.values())
    assert b"step 5 loss 2.5" in kept["job.log"]
    assert json.loads(kept["environment.json"]) == {"password": "***", "LR": "0.1"}


def test_the_window_of_metrics_is_what_the_store_has_of_it(tmp_path: Path) -> None:
    clock = FakeClock()
    with opened(tmp_path / "s.db", clock) as store:
        now = clock.now()
        store.write([sample(float(n), now - 100 + n) for n in range(100)])
        store.flush()
        found = Sealing(
            orders(tmp_path, store=tmp_path / "s.db", metrics=METRICS, since=now - 50, until=now)
        ).make()

    rows = [json.loads(x) for x in members(Path(found.path))["metrics.jsonl"].splitlines()]
    assert [row["value"] for row in rows if row["metric"] == "heat"] == list(range(50, 100))


def test_a_child_makes_it_and_says_what_it_could_not(tmp_path: Path) -> None:
    found = by_child(orders(tmp_path, texts={"a.txt": "one"}))
    assert problems(Path(found.path), found.sha256) == []

    refused = by_child(orders(tmp_path, spare=PLENTY))
    assert not refused.path
    assert "nothing was preserved" in refused.missing[0]
    assert "stay free" in refused.missing[0]
