"""What is preserved of a failure: whole, sealed, bounded, and without anybody's secrets."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import signal
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock
from fakes_store import METRICS, opened, sample

from dvfd.errors import DvfdError
from dvfd.incidents import preserve
from dvfd.incidents.preserve import ROOM, Orders, Sealing, by_child, problems, within
from dvfd.shell import Output

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


def test_a_manifest_says_of_what_when_and_which_parts(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    log.write_text("one\n")
    given = orders(
        tmp_path, texts={"a.txt": "two"}, files={"l/job.log": log},
        commands={"c.txt": ("echo", "three")}, since=1_799_996_400.0, until=1_799_999_990.0,
    )  # fmt: skip
    told = manifest(Path(Sealing(given).make().path))

    assert {key: told[key] for key in told if key != "parts"} == {
        "schema": 1, "incident": "i-1", "node": "n1", "at": 1_800_000_000.0,
        "since": 1_799_996_400.0, "until": 1_799_999_990.0, "missing": [],
    }  # fmt: skip
    assert [(p["name"], p["source"], p["bytes"], p["cut"]) for p in told["parts"]] == [
        ("i-1/a.txt", "dvfd", 3, False),
        ("i-1/l/job.log", str(log), 4, False),
        ("i-1/c.txt", "echo three", 6, False),
    ]
    assert told["parts"][0]["sha256"] == hashlib.sha256(b"two").hexdigest()


def test_a_bundle_says_what_it_is_and_its_members_are_of_the_incident(tmp_path: Path) -> None:
    found = Sealing(orders(tmp_path, texts={"a.txt": "one"}, at=1_800_000_000.9)).make()
    path = Path(found.path)

    assert (found.bytes, found.parts, found.missing) == (path.stat().st_size, 1, ())
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with tarfile.open(path) as tar:
        members_ = tar.getmembers()
    assert [m.name for m in members_] == ["i-1/a.txt", "i-1/manifest.json"]
    assert {(m.mtime, m.mode) for m in members_} == {(1_800_000_000, 0o440)}
    assert list(path.parent.iterdir()) == [path]


def test_two_bundles_of_the_same_are_the_same(tmp_path: Path) -> None:
    made = [
        Sealing(orders(tmp_path, path=tmp_path / "out" / "i-1.tar.gz", texts={"a": "b"})).make()
        for _ in range(2)
    ]
    assert made[0].sha256 == made[1].sha256


@pytest.mark.parametrize(("free", "room"), [(ROOM, True), (ROOM - 1, False)])
def test_a_bundle_is_begun_where_there_is_room_for_its_manifest(
    tmp_path: Path, free: int, *, room: bool
) -> None:
    given = orders(tmp_path, spare=100)
    if room:
        Sealing(given, left=lambda _path: free + 100)
        return
    with pytest.raises(DvfdError) as refused:
        Sealing(given, left=lambda _path: free + 100)
    assert str(refused.value) == (
        f"{tmp_path / 'out'}: room for {free} bytes, wanted at least {ROOM}: "
        f"{free + 100} are free, and 100 stay free"
    )


def test_a_disk_that_is_fuller_than_it_may_be_has_room_for_nothing(tmp_path: Path) -> None:
    with pytest.raises(DvfdError, match="room for 0 bytes"):
        Sealing(orders(tmp_path, spare=500), left=lambda _path: 100)


def test_of_a_part_for_which_there_is_no_room_the_end_is_kept_and_called_cut(
    tmp_path: Path,
) -> None:
    text = "x" * 5000 + "THE END"
    found = Sealing(orders(tmp_path, texts={"a.txt": text}), left=lambda _path: ROOM + 2000).make()
    path = Path(found.path)

    assert members(path)["a.txt"] == text[-2000:].encode()
    assert [(p["bytes"], p["cut"]) for p in manifest(path)["parts"]] == [(2000, True)]


@pytest.mark.parametrize(("room", "kept"), [(1023, 0), (1024, 1)])
def test_below_a_kibibyte_a_part_is_left_out_and_one_that_fits_is_not(
    tmp_path: Path, room: int, kept: int
) -> None:
    texts = {"a.txt": "x" * 5000, "b.txt": "y" * 1000}
    found = Sealing(orders(tmp_path, texts=texts), left=lambda _path: ROOM + room).make()

    assert found.parts == kept + 1
    told = (f"i-1/a.txt: no room: {room} bytes left of {1 << 20}",)
    assert found.missing == (() if kept else told)


def test_what_a_tool_says_first_of_why_it_failed_is_told_or_its_code(tmp_path: Path) -> None:
    loud = ("sh", "-c", "echo first >&2; echo second >&2; exit 3")
    still = ("sh", "-c", "exit 3")
    long = ("sh", "-c", f"echo {'x' * 300} >&2")
    given = orders(tmp_path, commands={"a": loud, "b": still, "c": long})
    found = Sealing(given).make()

    assert found.parts == 0
    assert found.missing[0].endswith("exit 3: first")
    assert found.missing[1] == "sh -c exit 3: it ended with code 3"
    assert found.missing[2].endswith(f">&2: {'x' * 200}")


def test_metrics_for_which_there_is_no_room_are_cut_and_it_is_said_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    now = clock.now()
    monkeypatch.setattr(preserve, "WINDOW", 1000)
    with opened(tmp_path / "s.db", clock) as store:
        store.write([sample(float(n), now - 100 + n) for n in range(100)])
        store.flush()
        found = Sealing(
            orders(tmp_path, store=tmp_path / "s.db", metrics=METRICS, since=now - 50, until=now)
        ).make()

    path = Path(found.path)
    rows = [json.loads(x) for x in members(path)["metrics.jsonl"].splitlines()]
    assert rows[0] == {
        "metric": "heat", "labels": {}, "at": now - 50, "value": 50.0, "span": 0.0
    }  # fmt: skip
    assert 900 < len(members(path)["metrics.jsonl"]) <= 1000
    assert manifest(path)["parts"][0]["cut"]
    assert manifest(path)["parts"][0]["source"] == str(tmp_path / "s.db")
    assert found.missing == ("metrics.jsonl: cut at 1000 bytes: later series are not in it",)


def test_a_changed_bundle_is_told_with_both_hashes_and_a_changed_part_by_its_name(
    tmp_path: Path,
) -> None:
    found = Sealing(orders(tmp_path, texts={"a.txt": "one", "b.txt": "two"})).make()
    path = Path(found.path)

    assert problems(path, "0" * 64) == [
        f"{path}: its SHA-256 is {found.sha256}, wanted {'0' * 64}: it was changed"
    ]
    raw = gzip.decompress(path.read_bytes()).replace(b"two", b"toe")
    path.chmod(0o640)
    path.write_bytes(gzip.compress(raw))
    assert problems(path) == [f"{path}: i-1/b.txt is not what the manifest says"]


def test_a_bundle_without_a_part_that_its_manifest_names_is_found_out(tmp_path: Path) -> None:
    found = Sealing(orders(tmp_path, texts={"a.txt": "one"})).make()
    told = members(Path(found.path))["manifest.json"]
    poor = tmp_path / "poor.tar.gz"
    with tarfile.open(poor, "w:gz") as tar:
        preserve._add(tar, "i-1/manifest.json", told, 0.0)

    assert problems(poor) == [f"{poor}: i-1/a.txt is not what the manifest says"]


def test_what_a_child_could_not_do_is_told_by_its_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Output(1, "", "a warning\nno such thing\n", 0.1)
    monkeypatch.setattr(preserve.shell, "run", lambda *_given, **_more: said)
    assert by_child(orders(tmp_path)).missing == ("nothing was preserved: no such thing",)

    monkeypatch.setattr(preserve.shell, "run", lambda *_given, **_more: replace(said, stderr=""))
    assert by_child(orders(tmp_path)).missing == ("nothing was preserved: 1",)


def test_a_place_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = by_child(orders(tmp_path, path=tmp_path / "file" / "in" / "i.tar.gz"))
    assert found.path == ""
    assert found.missing[0].startswith("nothing was preserved: [Errno 20]")


def test_a_place_is_made_for_the_daemon_and_its_group_alone(tmp_path: Path) -> None:
    found = by_child(orders(tmp_path, path=tmp_path / "a" / "b" / "i-1.tar.gz", texts={"x": "y"}))
    assert found.missing == ()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o750


def test_a_part_that_was_ready_in_time_leaves_no_alarm_behind() -> None:
    earlier = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        with within(30.0):
            pass
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *earlier)


def test_an_alarm_that_was_set_before_has_the_time_that_it_had_left() -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    earlier = signal.setitimer(signal.ITIMER_REAL, 500.0, 70.0)
    try:
        with within(30.0):
            pass
        left, every = signal.getitimer(signal.ITIMER_REAL)
        assert 400.0 < left <= 500.0
        assert every == pytest.approx(70.0)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with within(30.0):
            time.sleep(0.6)  # it was due meanwhile, and comes at once
        assert signal.getitimer(signal.ITIMER_REAL)[0] < 0.5
    finally:
        signal.setitimer(signal.ITIMER_REAL, *earlier)
        signal.signal(signal.SIGALRM, before)


def test_a_bundle_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    poor = tmp_path / "poor.tar.gz"
    with tarfile.open(poor, "w:gz") as tar:
        preserve._add(tar, "i-1/a.txt", b"one", 0.0)

    assert problems(poor) == [f"{poor}: it has no manifest.json: nothing says what was in it"]


def test_every_tool_is_bound_to_its_time_and_to_what_it_may_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, dict[str, Any]] = {}

    def run(argv: tuple[str, ...], **more: Any) -> Output:
        asked[argv[0]] = more
        return Output(0, "said\n", "", 0.1)

    monkeypatch.setattr(preserve.shell, "run", run)
    Sealing(orders(tmp_path, commands={"c": ("a-tool",)}, files={"l": tmp_path / "l"})).make()
    bounds = {"timeout": preserve.COMMAND, "bound": True, "last": preserve.PART}
    assert asked == {"tail": bounds, "a-tool": bounds}
