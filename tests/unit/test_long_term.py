"""The productive hours of one training: what counts of its runs and of production, and what not."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes_drills import judged, task
from fakes_runs import Story, healthy
from fakes_spent import AT, Shelf

from dvfd.drills import trail
from dvfd.drills.drill import Options
from dvfd.drills.reliability import long_term
from dvfd.drills.reliability.long_term import Sum
from dvfd.drills.supervise import supervise
from dvfd.errors import ProbeError
from dvfd.model import Result, Verdict
from dvfd.runs.training import hash_of
from dvfd.store.run_file import RunFile

TRAIN = ("torchrun", "--nproc_per_node=4", "train.py", "--lr", "1")
OTHER = ("torchrun", "--nproc_per_node=4", "train.py", "--lr", "2")


def keep(
    state: Path,
    name: str,
    argv: tuple[str, ...] = TRAIN,
    *,
    spikes: float = 0.0,
    change: Callable[[Story], None] = lambda _story: None,
    **more: Any,
) -> None:
    """A healthy run of job gpt, in its file."""
    story = healthy()
    story.set(long_term.SPIKED, 40, grown=spikes)
    change(story)
    run = story.run()
    run = replace(run, id=name, plan=replace(run.plan, argv=argv), **more)
    file = RunFile.create(state / "runs" / f"{name}.db", run.to_document())
    assert file.receive("n0", story.rows(), {})
    file.close()


def gathered(directory: Path, **options: Any) -> Sum:
    return long_term.gather(task("reliability", directory, options=Options(**options)), directory)


def test_runs_of_one_training_add_up_and_another_of_that_name_does_not(tmp_path: Path) -> None:
    keep(tmp_path, "a")
    keep(tmp_path, "b", OTHER)
    keep(tmp_path, "c", (*TRAIN[:1], "--nproc_per_node=8", *TRAIN[2:]))
    found = gathered(tmp_path)
    assert [stretch.name for stretch in found.stretches] == ["run a", "run c"]
    assert found.left_out[0] == "run b: the same name and another training"
    assert found.add("seconds") == 2 * found.stretches[0].seconds > 10_000


def test_a_part_of_a_run_over_several_nodes_counts_at_its_leader_only(tmp_path: Path) -> None:
    keep(tmp_path, "a")
    keep(tmp_path, "b", of="the-leaders", leader="n1")
    assert [stretch.name for stretch in gathered(tmp_path).stretches] == ["run a"]


def test_a_job_that_no_run_watched_is_unknown(tmp_path: Path) -> None:
    keep(tmp_path, "a")
    with pytest.raises(ProbeError, match="no stability run of llama"):
        gathered(tmp_path, job="llama")


def test_a_run_whose_file_is_damaged_is_left_out_and_named(tmp_path: Path) -> None:
    keep(tmp_path, "a")
    keep(tmp_path, "b")
    path = tmp_path / "runs" / "a.db"
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : 2 * len(data) // 3] = bytes(len(data) // 3)
    path.write_bytes(data)
    found = gathered(tmp_path)
    assert [stretch.name for stretch in found.stretches] == ["run b"]
    assert any("run a" in words for words in found.left_out)


def judged_with(state: Path, limit: float, monkeypatch: pytest.MonkeyPatch) -> dict[str, Result]:
    monkeypatch.setenv("DVFD_STATE_DIR", str(state))
    toml = f'[override."reliability.long_term"]\nlimit = {limit}\nreason = "a test"\n'
    chosen = task("reliability", state, toml=toml)
    return judged(chosen, supervise(chosen, [long_term.LongTerm()]))


def test_hours_that_are_still_to_come_are_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path, "a")
    found = judged_with(tmp_path, 720_000.0, monkeypatch)
    assert found["long_term"].verdict is Verdict.UNKNOWN
    assert "198.20 h are still to come" in found["long_term"].reason
    assert found["long_term_smooth"].verdict is Verdict.UNKNOWN


def test_hours_that_are_all_there_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(tmp_path, "a")
    found = judged_with(tmp_path, 3600.0, monkeypatch)
    assert found["long_term"].verdict is Verdict.PASS
    assert found["long_term_smooth"].verdict is Verdict.PASS


def test_a_spike_fails_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(tmp_path, "a", spikes=1.0)
    assert judged_with(tmp_path, 720_000.0, monkeypatch)["long_term_smooth"].verdict is Verdict.FAIL


def deaf(until: int) -> Callable[[Story], None]:
    """Nobody watches for spikes before this minute."""

    def change(story: Story) -> None:
        story.minutes = [
            m for m in story.minutes if m.metric != long_term.SPIKED or m.minute >= until
        ]

    return change


def mute(until: int) -> Callable[[Story], None]:
    """The job tells no losses before this minute."""

    def change(story: Story) -> None:
        story.windows = [
            w._replace(losses=0, loss=0.0) if w.ended < 60.0 * until else w for w in story.windows
        ]

    return change


@pytest.mark.parametrize("blind", [deaf, mute])
@pytest.mark.parametrize(("minutes", "verdict"), [(3, Verdict.PASS), (12, Verdict.UNKNOWN)])
def test_spikes_that_nobody_could_have_seen_are_not_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    blind: Callable[[int], Callable[[Story], None]],
    minutes: int,
    verdict: Verdict,
) -> None:
    keep(tmp_path, "a", change=blind(minutes))
    found = judged_with(tmp_path, 3600.0, monkeypatch)["long_term_smooth"]
    assert found.verdict is verdict, found.reason


# --- Production ---------------------------------------------------------------------------------


def produced(shelf: Shelf) -> Sum:
    found = Sum("gpt", hash_of((), "gpt"))
    long_term.add_time(found, shelf, AT - 1.0, AT + 1000.0)  # type: ignore[arg-type]
    return found


def test_production_counts_with_its_spikes() -> None:
    shelf = Shelf()
    shelf.put(long_term.SPIKED, [0.0] * 10 + [2.0] * 11)
    shelf.put(long_term.NONFINITE, [5.0] * 10 + [1.0] * 11)  # counted anew by another daemon
    [stretch] = produced(shelf).stretches
    assert (stretch.seconds, stretch.spikes, stretch.nonfinite) == (100.0, 2.0, 1.0)
    assert stretch.told


def test_production_that_tells_no_losses_says_nothing_of_spikes() -> None:
    [stretch] = produced(Shelf()).stretches
    assert not stretch.told


@pytest.mark.parametrize(("looks", "told"), [(20, True), (19, False), (1, False)])
@pytest.mark.parametrize("metric", [long_term.SPIKED, long_term.NONFINITE])
def test_production_whose_losses_are_known_of_a_part_only_says_nothing_of_spikes(
    metric: str, looks: int, told: bool
) -> None:
    shelf = Shelf()
    for each in (long_term.SPIKED, long_term.NONFINITE):
        shelf.put(each, [0.0] * (looks if each == metric else 21))
    [stretch] = produced(shelf).stretches
    assert stretch.told is told


def test_production_that_nobody_looked_at_adds_nothing() -> None:
    assert not produced(Shelf(looks=1)).stretches


class Store:
    """One live rank of job gpt: this very process, trained by *argv* as the kernel tells."""

    def __init__(self, proc: Path, argv: tuple[str, ...], start: int | None = None) -> None:
        place = proc / str(os.getpid())
        place.mkdir(parents=True)
        (place / "cmdline").write_bytes("\0".join((*argv, "")).encode())
        self.start = trail.started(os.getpid()) if start is None else start

    def all(self, kind: str) -> Mapping[str, Mapping[str, Any]]:
        return {"gpt/0": {"pid": os.getpid(), "start": self.start}} if kind == "rank" else {}


def since(directory: Path, argv: tuple[str, ...], start: int | None = None) -> float | None:
    proc = directory / "proc"
    chosen = task("reliability", directory, proc=proc)
    found = Sum("gpt", hash_of(TRAIN, "gpt"))
    return long_term.known_since(found, Store(proc, argv, start), chosen)


def test_production_is_known_by_the_command_of_its_living_ranks(tmp_path: Path) -> None:
    assert since(tmp_path, ("python", "-u", "train.py", "--lr", "1")) is not None


def test_production_under_the_same_name_and_another_command_is_not_it(tmp_path: Path) -> None:
    assert since(tmp_path, ("python", "-u", "train.py", "--lr", "2")) is None


def test_a_process_that_has_the_number_of_a_dead_rank_proves_nothing(tmp_path: Path) -> None:
    assert since(tmp_path, ("python", "-u", "train.py", "--lr", "1"), start=1) is None


def test_without_a_command_the_name_says_what_it_is(tmp_path: Path) -> None:
    found = Sum("gpt", hash_of((), "gpt"))
    store = Store(tmp_path / "proc", OTHER)
    chosen = task("reliability", tmp_path)
    assert long_term.known_since(found, store, chosen) == long_term.FIRST_LOOK
