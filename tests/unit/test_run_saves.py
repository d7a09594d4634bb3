"""Every checkpoint of a run gets one answer, and nobody waits for the disk it lies on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes_checkpoints import FakeVerifier, flip, sealed

from dvfd import shell
from dvfd.config import Checkpoints as Settings
from dvfd.errors import ToolTimeout
from dvfd.probes.verifier import Verifier
from dvfd.runs.answers import verdicts
from dvfd.runs.rows import Event, What
from dvfd.runs.saves import QUEUE, REMOVED, Manifestless, Save, Saves


class Rig:
    """The saves of a run, a verifier that is fake unless told, and a thread that runs when told."""

    def __init__(self, run: object = None, records: object = None) -> None:
        self.run = run or FakeVerifier()
        self.work: list[Callable[[], None]] = []
        self.events: list[Event] = []
        verifier = Verifier(Settings(), records=records or Manifestless(), run=self.run)
        self.saves = Saves(verifier, self, start=self.work.append)

    def add(self, rows: list[Event]) -> None:
        self.events.extend(rows)

    def save(self, path: Path, step: int = 500) -> str:
        return self.saves.add(Save("n0", step, str(path), None))

    def beat(self) -> None:
        """Tick, let the thread work, tick."""
        self.saves.tick(10.0, 1000.0)
        while self.work:
            self.work.pop()()
        self.saves.tick(11.0, 1001.0)

    def verified(self, path: Path, step: int = 500) -> tuple[What, str]:
        self.save(path, step)
        self.beat()
        [event] = self.events
        return event.what, event.text.removeprefix(f"{path}: ")


# --- Real checkpoints, the real verifier --------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Path:
    torch = pytest.importorskip("torch")
    from dvfd.drills import checkpoint

    state = {"model": {"weight": torch.arange(4096.0)}, "step": 500}
    return checkpoint.save(tmp_path, 500, state, keep=3)


@pytest.mark.slow
@pytest.mark.torch
def test_a_whole_checkpoint_is_verified(written: Path) -> None:
    assert Rig(shell.run).verified(written)[0] is What.VERIFIED


@pytest.mark.torch
def test_one_flipped_bit_is_damage(written: Path) -> None:
    flip(written / "state.pt")
    what, words = Rig(shell.run).verified(written)
    assert what is What.DAMAGED
    assert "state.pt" in words


@pytest.mark.torch
def test_truncation_is_damage(written: Path) -> None:
    file = written / "state.pt"
    file.write_bytes(file.read_bytes()[:-100])
    assert Rig(shell.run).verified(written)[0] is What.DAMAGED


@pytest.mark.torch
def test_one_that_is_removed_before_its_turn_is_unverified(written: Path) -> None:
    shutil.rmtree(written)
    assert Rig(shell.run).verified(written) == (What.UNVERIFIED, REMOVED)


# --- What the verifier says ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("intact", "loadable", "what"),
    [
        (True, True, What.VERIFIED),
        (False, None, What.DAMAGED),
        (True, False, What.DAMAGED),
        (True, None, What.UNVERIFIED),
        (None, True, What.UNVERIFIED),
    ],
)
def test_only_what_is_intact_and_loads_is_verified(
    tmp_path: Path, intact: bool | None, loadable: bool | None, what: What
) -> None:
    rig = Rig(FakeVerifier(intact, loadable))
    assert rig.verified(sealed(tmp_path / "c")) == (what, "because")


def test_no_manifest_of_what_was_just_read_is_taken_for_a_proof(tmp_path: Path) -> None:
    rig = Rig()
    rig.verified(sealed(tmp_path / "c"))
    assert all("--make-manifest" not in call for call in rig.run.calls)


def test_a_verifier_that_takes_too_long_leaves_it_unverified(tmp_path: Path) -> None:
    def late(*_: object, **__: object) -> None:
        raise ToolTimeout("no answer within 600 s")

    what, words = Rig(late).verified(sealed(tmp_path / "c"))
    assert (what, words) == (What.UNVERIFIED, "no answer within 600 s")


def test_one_that_goes_while_it_is_read_was_removed_not_damaged(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "c")

    class Removing(FakeVerifier):
        def __call__(self, *argv: object, **more: object) -> object:
            shutil.rmtree(folder, ignore_errors=True)
            return super().__call__(*argv, **more)

    assert Rig(Removing(intact=False)).verified(folder) == (What.UNVERIFIED, REMOVED)


def test_damage_is_looked_at_twice(tmp_path: Path) -> None:
    rig = Rig(FakeVerifier(intact=False))
    rig.verified(sealed(tmp_path / "c"))
    assert rig.run.verifications == 2


def test_a_relative_path_says_what_to_report(tmp_path: Path) -> None:
    what, words = Rig().verified(Path("checkpoints/5"))
    assert what is What.UNVERIFIED
    assert "absolute" in words


# --- The queue ----------------------------------------------------------------------------------


def test_who_tells_of_a_save_touches_no_disk_and_starts_no_work(tmp_path: Path) -> None:
    rig = Rig()
    rig.save(sealed(tmp_path / "c"))
    assert rig.work == []
    rig.saves.tick(1.0, 1.0)
    rig.saves.tick(2.0, 2.0)
    assert len(rig.work) == 1
    assert rig.run.calls == []


def test_they_are_read_one_after_the_other_oldest_first(tmp_path: Path) -> None:
    rig = Rig()
    for step in (30, 10, 20):
        rig.save(sealed(tmp_path / str(step)), step)
    rig.beat()
    assert [event.step for event in rig.events] == [30, 10, 20]
    assert rig.saves.idle


def test_the_queue_is_bounded_and_says_so(tmp_path: Path) -> None:
    rig = Rig()
    told = [rig.save(tmp_path / str(step), step) for step in range(QUEUE + 1)]
    assert told[:QUEUE] == [""] * QUEUE
    assert "64 checkpoints wait" in told[-1]


def test_a_save_told_twice_is_read_once(tmp_path: Path) -> None:
    rig = Rig()
    folder = sealed(tmp_path / "c")
    for _ in range(4):
        rig.save(folder)
    rig.beat()
    assert rig.run.verifications == 1


def test_one_told_of_again_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "c")
    rig = Rig()

    class Telling(FakeVerifier):
        def __call__(self, *argv: object, **more: object) -> object:
            if not self.calls:
                rig.save(folder)
            return super().__call__(*argv, **more)

    rig.run = Telling()
    rig.saves._verifier = Verifier(Settings(), records=Manifestless(), run=rig.run)
    assert rig.verified(folder)[0] is What.VERIFIED
    assert rig.run.verifications == 2


def test_one_that_another_step_is_written_over_is_not_taken_for_it(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "latest")
    rig = Rig()
    rig.save(folder, 500)
    rig.saves.begun(str(folder), 1000)
    rig.beat()
    [event] = rig.events
    assert (event.what, event.step) == (What.UNVERIFIED, 500)
    assert "overwritten by the checkpoint of step 1000" in event.text


def test_a_step_that_is_written_again_is_not_void(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "c")
    rig = Rig()
    rig.save(folder, 500)
    rig.saves.begun(str(folder), 500)
    assert rig.verified(folder)[0] is What.VERIFIED


def test_a_fault_in_the_thread_leaves_the_next_its_turn(tmp_path: Path) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    rig = Rig(broken)
    rig.save(sealed(tmp_path / "a"), 1)
    rig.saves.tick(1.0, 1.0)
    with pytest.raises(RuntimeError):
        rig.work.pop()()
    assert rig.saves.idle
    rig.save(sealed(tmp_path / "b"), 2)
    rig.saves.tick(2.0, 2.0)
    assert len(rig.work) == 1


# --- Over a restart -----------------------------------------------------------------------------


def event(what: What, step: int, text: str, rank: int | None = None) -> Event:
    return Event(node="n0", t=0.0, at=0.0, what=what, step=step, text=text, rank=rank)


def test_after_a_restart_what_has_no_answer_waits_again(tmp_path: Path) -> None:
    rig = Rig()
    folder = sealed(tmp_path / "b")
    past = [
        event(What.SAVED, 1, "/a", 0), event(What.VERIFIED, 1, "/a: intact"),
        event(What.SAVED, 2, str(folder), 0),
        event(What.SAVED, 3, "/a: b", 0), event(What.DAMAGED, 3, "/a: b: a bit flipped"),
    ]  # fmt: skip
    rig.saves.resume(past, {})
    rig.beat()
    assert [(e.what, e.step) for e in rig.events] == [(What.VERIFIED, 2)]


def test_after_a_restart_paths_are_read_in_the_words_of_the_rank(tmp_path: Path) -> None:
    rig = Rig()
    rig.saves.resume([event(What.SAVED, 2, "/b", 3)], {3: 4711})
    assert [save.pid for save in rig.saves._waiting.values()] == [4711]


def test_a_step_is_verified_when_each_of_its_shards_is() -> None:
    saved = [event(What.SAVED, 1, "/a"), event(What.SAVED, 1, "/b")]
    good = [event(What.VERIFIED, 1, "/a: fine")]
    assert verdicts(saved + good) == {1: None}
    assert verdicts([*saved, *good, event(What.VERIFIED, 1, "/b")]) == {1: What.VERIFIED}
    bad = event(What.DAMAGED, 1, "/b: bad")
    assert verdicts([*saved, *good, bad]) == verdicts([*saved, bad]) == {1: What.DAMAGED}


def test_the_newest_answer_on_a_checkpoint_counts() -> None:
    torn = [event(What.SAVED, 1, "/a"), event(What.DAMAGED, 1, "/a: torn")]
    again = [event(What.SAVED, 1, "/a"), event(What.VERIFIED, 1, "/a")]
    assert verdicts(torn + again) == {1: What.VERIFIED}
    assert verdicts([*torn, again[0]]) == {1: None}
