"""The ledger of evidence: only added to, whole or refused, every hand that touched it told of."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from fakes import FakeClock
from fakes_store import Heads

from dvfd.errors import StoreError
from dvfd.evidence.chain import FOUNDED, ORIGIN, sealed
from dvfd.evidence.ledger import FILE, LOCK, TORN, Evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dvfd.evidence.chain import Record


T = TypeVar("T")


class Desk:
    """A ledger of three runs, and hands to spoil it with."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.path = directory / "evidence", directory / "evidence" / FILE
        self.clock, self.heads = FakeClock(), Heads()
        self.ledger = self.opened()
        for n in range(3):
            self.run(n)

    def opened(self) -> Evidence:
        return Evidence(self.directory, self.clock, node="n1", store=self.heads)

    def run(self, n: int, ledger: Evidence | None = None) -> Record:
        body = {"run": f"r{n}", "verdict": "PASS"}
        return (ledger or self.ledger).append("run", "hardware", body, submitted="root")

    def lines(self) -> list[bytes]:
        return self.path.read_bytes().splitlines(keepends=True)

    def leave(self, *lines: bytes) -> None:
        self.path.write_bytes(b"".join(lines))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def runs(ledger: Evidence) -> list[str]:
    return [record.body["run"] for record in ledger.records("run")]


# --- Kept ---------------------------------------------------------------------------------------


def test_what_was_appended_is_read_back_oldest_first_also_by_another(desk: Desk) -> None:
    assert runs(desk.ledger) == ["r0", "r1", "r2"]
    assert runs(desk.opened()) == ["r0", "r1", "r2"]
    assert desk.opened().verify() == []


def test_the_first_record_founds_the_ledger_with_an_id_of_its_own(
    desk: Desk, tmp_path: Path
) -> None:
    first = desk.ledger.records()[0]

    assert (first.number, first.kind, first.subject) == (1, FOUNDED, desk.ledger.cluster)
    assert Desk(tmp_path / "other").ledger.cluster != desk.ledger.cluster


def test_a_record_says_when_where_and_by_whom(desk: Desk) -> None:
    record = desk.ledger.newest("run", "hardware")

    assert record is not None
    assert (record.number, record.node, record.submitted) == (4, "n1", "root")
    assert record.at == desk.clock.now()


def test_the_newest_is_of_that_kind_and_subject_alone(desk: Desk) -> None:
    desk.ledger.append("run", "network", {"run": "other"}, submitted="root")

    newest = desk.ledger.newest("run", "hardware")

    assert newest is not None
    assert newest.body["run"] == "r2"
    assert desk.ledger.newest("waiver", "hardware") is None


def test_nothing_is_touched_before_the_first_record(tmp_path: Path) -> None:
    ledger = Evidence(tmp_path / "evidence", FakeClock())

    assert (ledger.records(), ledger.verify(), ledger.cluster) == ([], [], "")
    assert not (tmp_path / "evidence").exists()


def test_another_process_may_append_between_two_of_ours(desk: Desk) -> None:
    desk.run(3, desk.opened())
    desk.run(4)

    assert runs(desk.ledger) == ["r0", "r1", "r2", "r3", "r4"]
    assert desk.ledger.verify() == []


def test_threads_and_objects_that_append_at_once_make_one_chain(desk: Desk) -> None:
    def many(ledger: Evidence) -> None:
        for n in range(20):
            desk.run(n, ledger)

    threads = [threading.Thread(target=many, args=(desk.opened(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert desk.opened().verify() == []
    assert len(desk.ledger.records("run")) == 83


# --- Told ---------------------------------------------------------------------------------------


def test_a_listener_hears_of_a_record_that_is_on_the_disk_already(desk: Desk) -> None:
    heard: list[list[str]] = []
    desk.ledger.listen(lambda record: heard.append(runs(desk.opened())))

    desk.run(3)

    assert heard == [["r0", "r1", "r2", "r3"]]


def test_a_listener_that_crashes_costs_itself_alone(desk: Desk) -> None:
    heard: list[int] = []
    desk.ledger.listen(lambda record: heard.append(1 // 0))
    desk.ledger.listen(lambda record: heard.append(record.number))

    assert desk.run(3).number == 5
    assert heard == [5]


# --- Spoilt by hand -----------------------------------------------------------------------------


def test_an_edit_is_found_and_what_was_edited_is_no_evidence(desk: Desk) -> None:
    lines = desk.lines()
    desk.leave(lines[0], lines[1].replace(b"PASS", b"FAIL"), *lines[2:])

    assert "line 2: edited" in desk.ledger.verify()[0]
    assert runs(desk.ledger) == ["r1", "r2"]


def test_an_edit_with_its_hash_made_anew_is_found_by_the_next_record(desk: Desk) -> None:
    document = json.loads(desk.lines()[1])
    document["body"]["verdict"] = "WAIVED"
    del document["sha256"]
    lines = desk.lines()
    desk.leave(lines[0], sealed(document)[1], *lines[2:])

    assert "that one was exchanged" in desk.ledger.verify()[0]


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_record_that_is_missing_is_named(desk: Desk, gone: int) -> None:
    lines = desk.lines()
    desk.leave(*lines[:gone], *lines[gone + 1 :])

    assert f"record {gone + 1} was removed" in desk.ledger.verify()[0]


def test_records_in_another_order_are_found(desk: Desk) -> None:
    first, second, third, fourth = desk.lines()
    desk.leave(first, third, second, fourth)

    assert any("their order was changed" in problem for problem in desk.ledger.verify())


def test_a_tail_that_was_cut_off_is_missed_by_the_store(desk: Desk) -> None:
    desk.leave(*desk.lines()[:-1])

    assert "ends with record 3, the store knows of 4" in desk.ledger.verify()[0]


def test_a_tail_that_was_cut_off_stays_missed_after_further_records(desk: Desk) -> None:
    desk.leave(*desk.lines()[:-1])

    assert desk.run(3).number == 5
    assert any("record 4 was removed" in problem for problem in desk.opened().verify())


def test_a_store_that_is_behind_after_a_kill_misses_nothing(desk: Desk) -> None:
    before = dict(desk.heads.kept)
    desk.run(3)
    desk.heads.kept = before

    assert desk.opened().verify() == []
    assert desk.run(4, desk.opened()).number == 6


def test_a_ledger_that_was_removed_is_missed_also_after_further_records(desk: Desk) -> None:
    desk.path.unlink()
    assert "the store knows of 4" in desk.ledger.verify()[0]

    desk.run(3)
    assert any("the first is missing" in problem for problem in desk.ledger.verify())


def test_the_ledger_of_another_cluster_is_named_as_such(desk: Desk, tmp_path: Path) -> None:
    other = Desk(tmp_path / "other")
    desk.leave(*other.lines())

    ours = desk.heads.kept["evidence", "head"]["cluster"]
    said = f"of cluster {other.ledger.cluster}, the store is of {ours}"
    assert desk.ledger.verify() == [f"{desk.path}: {said}"]


def written_anew(desk: Desk) -> None:
    """Every run passed all of a sudden, each hash is made to fit, and there is one run more."""
    parts = [json.loads(line) for line in desk.lines()]
    parts.append(dict(parts[-1], number=len(parts) + 1))
    before, lines = ORIGIN, []
    for each in parts:
        del each["sha256"]
        if each["kind"] == "run":
            each["body"] = {"run": "forged", "verdict": "PASS"}
        record, line = sealed({**each, "previous": before})
        before = record.sha256
        lines.append(line)
    desk.leave(*lines)


def of_another_cluster(desk: Desk) -> None:
    """With more records than ours."""
    other = Desk(desk.directory.parent / "other")
    other.run(3)
    desk.leave(*other.lines())


def last_exchanged(desk: Desk) -> None:
    *lines, last = desk.lines()
    parts = json.loads(last)
    del parts["sha256"]
    desk.leave(*lines, sealed({**parts, "body": {"run": "forged"}})[1])


def forked(desk: Desk) -> None:
    """It went on elsewhere from a copy, further than here."""
    there = Desk(desk.directory.parent / "there")
    there.leave(*desk.lines())
    there.heads.kept = dict(desk.heads.kept)
    desk.run(3)
    for n in range(2):
        there.run(10 + n, there.opened())
    desk.leave(*there.lines())


@pytest.mark.parametrize("spoil", [written_anew, of_another_cluster, last_exchanged, forked])
def test_another_history_is_found_and_stays_found_after_further_records(
    desk: Desk, spoil: Callable[[Desk], None]
) -> None:
    spoil(desk)
    before = desk.ledger.problems()
    desk.run(4)
    desk.run(5)

    assert any("exchanged" in each or "of cluster" in each for each in before)
    assert desk.ledger.problems()[-1] == before[-1]
    assert desk.opened().verify()[-1] == before[-1]


def test_an_edit_is_found_though_size_and_time_of_writing_are_as_before(desk: Desk) -> None:
    assert desk.ledger.problems() == []
    before, lines = desk.path.stat(), desk.lines()
    edited = lines[1].replace(b"PASS", b"FAIL")

    for _ in count():  # the clock of a file system goes in steps
        desk.leave(lines[0], edited, *lines[2:])
        os.utime(desk.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        if desk.path.stat().st_ctime_ns != before.st_ctime_ns:
            break

    assert "edited" in desk.ledger.problems()[0]


def test_an_edit_is_found_while_we_run_without_being_asked_to_verify(desk: Desk) -> None:
    assert desk.ledger.problems() == []

    lines = desk.lines()
    desk.leave(lines[0], lines[1].replace(b"PASS", b"FAIL"), *lines[2:])

    assert "edited" in desk.ledger.problems()[0]


def test_a_line_that_is_no_record_stops_nothing_from_being_read(desk: Desk) -> None:
    lines = desk.lines()
    desk.leave(lines[0], b"\x00\xff{\n", *lines[2:])

    assert runs(desk.ledger) == ["r1", "r2"]
    assert len(desk.ledger.verify()) == 1
    assert "line 2: no record" in desk.ledger.verify()[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": 1}, {"subject": None}, {"at": "now"}, {"at": 1e300}, {"at": True}, {"body": []},
        {"node": {}}, {"submitted": 0}, {"number": 1.5}, {"previous": 7},
    ],
)  # fmt: skip
def test_a_sealed_line_with_a_part_of_another_kind_is_no_record_and_stops_nothing(
    desk: Desk, wrong: dict[str, Any]
) -> None:
    parts = json.loads(desk.lines()[-1]) | {"number": 5} | wrong
    del parts["sha256"]
    desk.leave(*desk.lines(), sealed(parts)[1])

    assert (
        f"line 5: no record of this ledger: its {next(iter(wrong))} is" in desk.ledger.verify()[0]
    )
    assert runs(desk.ledger) == ["r0", "r1", "r2"]


def test_a_directory_that_cannot_be_searched_is_told_in_words(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise PermissionError(13, "Permission denied")

    for way in ("open", "stat", "exists"):
        monkeypatch.setattr(type(desk.path), way, refuse)

    assert "cannot be read: Permission denied" in desk.ledger.verify()[0]
    assert desk.ledger.notices() == []


def test_a_file_that_is_no_ledger_is_told_of_in_a_few_lines(desk: Desk) -> None:
    desk.path.write_text("nonsense\n" * 5000, encoding="ascii")

    problems = desk.ledger.verify()

    assert len(problems) < 30
    assert "and 4980 more" in problems


# --- Broken off ---------------------------------------------------------------------------------


def test_what_a_crash_cut_off_is_set_aside_and_said(desk: Desk) -> None:
    with desk.path.open("ab") as file:
        file.write(desk.lines()[-1][:70])
    again = desk.opened()
    assert (again.verify(), len(again.notices())) == ([], 1)

    desk.run(3, again)

    assert runs(again) == ["r0", "r1", "r2", "r3"]
    assert (desk.directory / TORN).read_bytes() == desk.lines()[3][:70] + b"\n"
    assert "a crash cut off" in again.notices()[0]


def test_a_disk_that_is_full_leaves_the_ledger_as_it_was(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, written = desk.path.read_bytes(), os.pwrite

    def half(descriptor: int, data: bytes, offset: int) -> int:
        if len(data) > 100:
            return written(descriptor, data[:100], offset)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(StoreError, match=r"nothing was recorded: No space left.*make room"):
        desk.run(3)
    monkeypatch.undo()

    assert desk.path.read_bytes() == before
    assert desk.run(3).number == 5
    assert desk.ledger.verify() == []


def test_a_disk_that_fails_to_keep_leaves_the_ledger_as_it_was(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = desk.path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        desk.run(3)

    assert desk.path.read_bytes() == before
    assert desk.heads.kept["evidence", "head"]["number"] == 4


def test_a_place_where_nothing_can_be_written_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="ascii")
    ledger = Evidence(tmp_path / "file" / "evidence", FakeClock())

    with pytest.raises(StoreError, match="nothing was recorded: Not a directory"):
        ledger.append("run", "hardware", {}, submitted="root")


@pytest.mark.parametrize("body", [{"x": float("nan")}, {"x": {1, 2}}, {"x": "\ud800"}])
def test_what_is_no_json_is_refused(desk: Desk, body: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match="cannot be kept as evidence"):
        desk.ledger.append("run", "hardware", body, submitted="root")
    assert desk.opened().verify() == []


def test_a_record_larger_than_a_megabyte_is_refused(desk: Desk) -> None:
    with pytest.raises(StoreError, match="wanted at most 1048576"):
        desk.ledger.append("run", "hardware", {"x": "y" * (1 << 20)}, submitted="root")


# --- Beside a writer that waits -----------------------------------------------------------------


class Stuck:
    """A disk that takes a record once it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go, sync = threading.Event(), threading.Event(), os.fsync

        def wait(descriptor: int) -> None:
            self.reached.set()
            assert self.go.wait(60)
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", wait)

    @contextmanager
    def during(self, write: Callable[[], object]) -> Iterator[None]:
        writer = threading.Thread(target=write)
        writer.start()
        try:
            assert self.reached.wait(60)
            yield
        finally:
            self.go.set()
            writer.join(60)
        assert not writer.is_alive()


def answered(ask: Callable[[], T]) -> T:
    """What *ask* gives, in a thread of its own: it must not wait."""
    found: list[T] = []
    asked = threading.Thread(target=lambda: found.append(ask()), daemon=True)
    asked.start()
    asked.join(30)
    assert found, "no answer"
    return found[0]


def test_who_reads_waits_for_no_disk_and_sees_a_record_once_it_is_safe(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp, ledger = desk.ledger.stamp(), desk.ledger
    with Stuck(monkeypatch).during(lambda: desk.run(3)):
        assert answered(lambda: runs(ledger)) == ["r0", "r1", "r2"]
        assert answered(ledger.problems) == answered(ledger.notices) == []
        assert answered(ledger.stamp) == stamp
        assert answered(lambda: len(list(ledger.lines()))) >= 4

    assert runs(ledger) == ["r0", "r1", "r2", "r3"]
    assert ledger.stamp() != stamp
    assert ledger.verify() == []


def test_a_record_that_waits_for_the_disk_is_a_notice_and_others_are_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvfd.evidence.ledger.PATIENCE", 0.01)
    with Stuck(monkeypatch).during(lambda: desk.run(3)):
        with pytest.raises(StoreError, match="nothing was recorded: something else"):
            desk.run(4)
        with pytest.raises(StoreError, match="nothing was recorded: something else"):
            desk.run(4, desk.opened())
        assert "a record is not on the disk after" in desk.ledger.notices()[0]

    assert desk.ledger.notices() == []
    assert desk.run(4).number == 6


def test_who_may_read_the_ledger_keeps_nobody_from_writing(desk: Desk) -> None:
    assert (desk.directory / LOCK).stat().st_mode & 0o777 == 0o600
    with desk.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        desk.run(3)

    assert runs(desk.ledger)[-1] == "r3"


# --- Founded anew -------------------------------------------------------------------------------


def test_a_ledger_that_is_founded_anew_names_the_one_before_and_keeps_it(desk: Desk) -> None:
    old = desk.ledger.cluster
    desk.leave(*desk.lines()[:-1])

    aside = desk.ledger.renew({"by": "Ann", "reason": "a block was lost"}, submitted="root")

    first = desk.ledger.records()[0]
    assert (first.number, first.body["by"]) == (1, "Ann")
    assert first.body["former"]["cluster"] == old
    assert first.body["former"]["number"] == 4
    assert desk.ledger.cluster == first.subject != old
    assert desk.opened().verify() == []
    assert len(aside.read_bytes().splitlines()) == 3


def test_after_that_others_write_into_the_new_one(desk: Desk) -> None:
    other = desk.opened()
    assert other.problems() == []
    desk.ledger.renew({}, submitted="root")

    assert desk.run(0, other).number == 2
    assert runs(desk.ledger) == ["r0"]
    assert desk.ledger.verify() == []


def test_who_waits_while_it_is_founded_anew_writes_into_the_new_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, other, left = fcntl.flock, desk.opened(), [1]

    def waited(file: Any, how: int) -> None:
        if left and how & fcntl.LOCK_EX:
            left.pop()
            desk.ledger.renew({}, submitted="root")
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", waited)
    desk.run(0, other)

    assert runs(desk.opened()) == ["r0"]
    assert desk.opened().verify() == []
