"""The checkpoint probe: never says that a checkpoint is whole unless that was just shown."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from fakes_checkpoints import FakeVerifier, Records, archive, flip

from dvfd.config import Checkpoints as Settings
from dvfd.errors import ToolTimeout
from dvfd.probes.checkpoints import SPREAD, Checkpoints, fingerprint
from dvfd.probes.verifier import ANSWERS
from dvfd.telemetry.checkpoint_state import CheckpointState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


class Rig:
    """A probe over one job, a fake verifier, and threads that run when told."""

    def __init__(self, path: Path, turn: float = 0.0, **state: object) -> None:
        self.run = FakeVerifier()
        self.records = Records()
        self.work: list[Callable[[], None]] = []
        self.state(path=str(path), saved_at=90.0, **state)
        self.probe = Checkpoints(
            lambda: [self._state],
            settings=Settings(verify_every=3600),
            records=self.records,
            run=self.run,
            start=self.work.append,
            turn=lambda _job: turn,
        )

    def state(self, **fields: object) -> None:
        self._state = CheckpointState(job="gpt", **fields)  # type: ignore[arg-type]

    def sample(self, at: float = 100.0) -> dict[str, float]:
        return {s.metric: s.value for s in self.probe.sample(at)}

    def verified(self, at: float = 100.0) -> dict[str, float]:
        """Sample, let the verifier work, sample again."""
        self.sample(at)
        self.finish()
        return self.sample(at)

    def finish(self) -> None:
        while self.work:
            self.work.pop()()


def test_age_missing_and_failures_come_from_what_the_job_said(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"), every=500, due=4, saved=3, failed=2)
    found = rig.sample(at=100.0)
    assert found["checkpoint_age_seconds"] == 10.0
    assert found["checkpoint_missing"] == 1.0
    assert found["checkpoint_failures_total"] == 2.0


def test_a_job_that_declares_no_interval_has_no_missing_ones(tmp_path: Path) -> None:
    assert "checkpoint_missing" not in Rig(archive(tmp_path / "a.pt")).sample()


def test_nothing_is_said_before_the_first_verification(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    assert "checkpoint_intact" not in rig.sample()
    assert "being verified" in rig.probe.gaps["checkpoint_intact"]


def test_a_whole_checkpoint_is_intact_and_loadable(tmp_path: Path) -> None:
    found = Rig(archive(tmp_path / "a.pt")).verified()
    assert (found["checkpoint_intact"], found["checkpoint_loadable"]) == (1.0, 1.0)


def test_a_broken_one_is_not(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.run.answer["intact"] = False
    assert rig.verified()["checkpoint_intact"] == 0.0


def test_what_could_not_be_shown_gives_no_sample_but_a_reason(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.run.answer["loadable"] = None
    assert "checkpoint_loadable" not in rig.verified()
    assert rig.probe.gaps["checkpoint_loadable"].endswith("a.pt: because")


def test_that_a_broken_one_is_not_loaded_is_no_blindness(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.run.answer |= {"intact": False, "loadable": None}
    assert not rig.probe.explains("checkpoint_loadable", {"job": "gpt"})
    rig.verified()
    assert "checkpoint_loadable" not in rig.sample()
    assert rig.probe.explains("checkpoint_loadable", {"job": "gpt"})
    assert not rig.probe.explains("checkpoint_loadable", {"job": "other"})
    assert not rig.probe.explains("checkpoint_intact", {"job": "gpt"})


def test_a_checkpoint_that_is_not_there_is_broken_at_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "nowhere.pt")
    assert rig.sample()["checkpoint_intact"] == 0.0
    assert not rig.run.calls


def test_a_checkpoint_that_vanishes_is_broken_at_once(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.verified()
    (tmp_path / "a.pt").unlink()
    assert rig.sample()["checkpoint_intact"] == 0.0


def test_a_file_that_changes_after_its_save_is_unknown_until_verified_again(
    tmp_path: Path,
) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.verified()
    flip(tmp_path / "a.pt")
    rig.run.answer["intact"] = False
    assert "checkpoint_intact" not in rig.sample(101)
    rig.finish()
    assert rig.sample(102)["checkpoint_intact"] == 0.0


def test_setting_the_modification_time_back_does_not_hide_a_change(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.verified()
    before = (tmp_path / "a.pt").stat()
    flip(tmp_path / "a.pt")
    os.utime(tmp_path / "a.pt", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "checkpoint_intact" not in rig.sample(101)


def test_a_changed_shard_deep_in_a_directory_is_seen(tmp_path: Path) -> None:
    (tmp_path / "ck/ranks").mkdir(parents=True)
    shard = archive(tmp_path / "ck/ranks/0.pt")
    rig = Rig(tmp_path / "ck")
    rig.verified()
    flip(shard)
    assert "checkpoint_intact" not in rig.sample(101)


def test_an_answer_stands_until_the_next_verification_is_due(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.verified(at=100)
    assert rig.sample(at=3000)["checkpoint_intact"] == 1.0
    assert rig.run.verifications == 1


def test_an_answer_still_stands_while_it_is_being_renewed(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.verified(at=100)
    assert rig.sample(at=3800)["checkpoint_intact"] == 1.0
    rig.finish()
    assert rig.run.verifications == 2


def test_an_answer_that_was_not_renewed_for_two_intervals_is_dropped(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.verified(at=100)
    assert "checkpoint_intact" not in rig.sample(at=7400)


def test_the_word_on_an_older_one_stands_while_the_newest_is_verified(
    tmp_path: Path,
) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.verified(at=100)
    rig.state(path=str(archive(tmp_path / "b.pt")), saved_at=95.0)
    assert rig.sample(at=399)["checkpoint_intact"] == 1.0
    assert "checkpoint_intact" not in rig.sample(at=400)


def test_a_file_being_written_over_is_not_called_broken(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.verified()
    rig.state(path=str(tmp_path / "a.pt"), saved_at=90.0, began_at=99.0)
    (tmp_path / "a.pt").write_bytes(b"half")
    assert "checkpoint_intact" not in rig.sample()
    assert not rig.work


def test_a_verifier_that_outlives_its_time_leaves_it_unknown(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))

    def never(*_: object, **__: object) -> None:
        raise ToolTimeout("python: still running after 600 s; killed")

    rig.probe._verifier._run = never  # type: ignore[assignment]
    assert "checkpoint_intact" not in rig.verified()
    assert "still running after 600 s" in rig.probe.gaps["checkpoint_intact"]


def test_a_verifier_that_dies_without_a_word_leaves_it_unknown(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.run.answer.clear()
    assert "checkpoint_intact" not in rig.verified()


def test_the_manifest_made_at_the_save_is_kept_and_used_again(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.run.document = {"files": {}}
    rig.verified(at=100)
    rig.verified(at=4000)
    assert sum("--make-manifest" in argv for argv in rig.run.calls) == 1
    assert rig.run.given[-1] == b'{"files": {}}'


def test_a_new_save_at_the_same_path_gets_a_manifest_of_its_own(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.verified()
    rig.state(path=str(tmp_path / "a.pt"), saved_at=120.0)
    rig.verified(at=130)
    assert sum("--make-manifest" in argv for argv in rig.run.calls) == 2


def test_only_one_verification_is_asked_for_at_a_time(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.sample(100)
    rig.sample(105)
    assert len(rig.work) == 1


def test_a_job_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.state()
    assert "checkpoint_age_seconds" not in rig.sample()
    assert rig.probe.gaps["checkpoint_intact"] == "job gpt: no checkpoint reported yet"


def test_a_relative_path_is_unknown_not_broken(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.state(path="latest.pt")
    assert "checkpoint_intact" not in rig.sample()
    assert "relative path" in rig.probe.gaps["checkpoint_intact"]


def test_a_path_in_a_container_is_opened_through_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvfd.probes.places import locate

    for pid, space in (("self", "mnt:[1]"), ("77", "mnt:[2]")):
        (tmp_path / pid / "ns").mkdir(parents=True)
        (tmp_path / pid / "ns/mnt").symlink_to(space)
    assert locate("/ck/a", 77, proc=tmp_path) == tmp_path / "77/root/ck/a"


def test_the_nodes_of_one_job_begin_to_read_its_checkpoint_one_after_the_other(
    tmp_path: Path,
) -> None:
    rig = Rig(archive(tmp_path / "a.pt"), turn=0.5, shared=True)

    assert "checkpoint_intact" not in rig.verified(at=100.0)
    assert "turn" in rig.probe.gaps["checkpoint_intact"]
    assert not rig.run.calls
    assert rig.verified(at=100.0 + SPREAD / 2)["checkpoint_intact"] == 1.0


def test_a_job_of_one_node_is_verified_at_once(tmp_path: Path) -> None:
    assert Rig(archive(tmp_path / "a.pt"), turn=0.5).verified()["checkpoint_intact"] == 1.0


def test_a_job_that_saves_more_often_than_a_turn_lasts_is_verified_all_the_same(
    tmp_path: Path,
) -> None:
    path = str(archive(tmp_path / "a.pt"))
    rig = Rig(tmp_path / "a.pt", turn=0.9, shared=True)

    for at in range(100, 100 + int(SPREAD), 10):
        rig.state(path=path, saved_at=float(at), shared=True)
        rig.verified(at=float(at))

    assert rig.verified(at=100.0 + SPREAD)["checkpoint_intact"] == 1.0


def test_a_changed_file_waits_for_no_turn(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"), turn=0.5, shared=True)
    rig.verified(at=100.0)
    rig.verified(at=100.0 + SPREAD / 2)

    flip(tmp_path / "a.pt")
    rig.run.answer["intact"] = False

    assert rig.verified(at=110.0 + SPREAD / 2)["checkpoint_intact"] == 0.0


def test_the_word_on_the_one_before_stands_while_a_node_waits(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"), turn=0.9, shared=True)
    rig.verified(at=100.0)
    rig.verified(at=100.0 + SPREAD)

    rig.state(path=str(archive(tmp_path / "b.pt")), saved_at=200.0, shared=True)

    assert rig.sample(at=201.0)["checkpoint_intact"] == 1.0


def restarted(rig: Rig, **settings: object) -> Rig:
    """The same node with a new daemon over the same store."""
    rig.probe = Checkpoints(
        lambda: [rig._state],
        settings=Settings(verify_every=3600, **settings),  # type: ignore[arg-type]
        records=rig.records,
        run=rig.run,
        start=rig.work.append,
    )
    return rig


def test_a_daemon_that_starts_anew_knows_what_was_shown_of_the_same_files(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.verified(at=100.0)
    assert restarted(rig).sample(at=160.0)["checkpoint_intact"] == 1.0
    assert rig.run.verifications == 1


def test_it_knows_what_was_wrong_with_them_too(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.run.answer["intact"] = False
    rig.verified(at=100.0)
    assert restarted(rig).sample(at=160.0)["checkpoint_intact"] == 0.0


def test_what_changed_while_no_daemon_looked_is_not_known_until_it_is_verified(
    tmp_path: Path,
) -> None:
    rig = Rig(path := archive(tmp_path / "a.pt"))
    rig.verified(at=100.0)
    flip(path)
    assert "checkpoint_intact" not in restarted(rig).sample(at=160.0)


def test_what_was_shown_longer_ago_than_it_stands_is_not_known_to_the_next_daemon(
    tmp_path: Path,
) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.verified(at=100.0)
    assert "checkpoint_intact" not in restarted(rig).sample(at=100.0 + 2 * 3600 + 1)


def test_an_answer_of_another_interpreter_is_none(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.verified(at=100.0)
    assert "checkpoint_loadable" not in restarted(rig, weights_only=False).sample(at=160.0)


def test_a_record_that_is_none_of_ours_is_no_answer(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.verified(at=100.0)
    rig.records.kept[ANSWERS, "gpt"]["target"] = {"place": "/"}
    assert "checkpoint_intact" not in restarted(rig).sample(at=160.0)


def test_the_answer_about_a_job_that_is_gone_goes_with_it(tmp_path: Path) -> None:
    rig = Rig(archive(tmp_path / "a.pt"))
    rig.verified(at=100.0)
    assert (ANSWERS, "gpt") in rig.records.kept
    rig.probe._verifier.keep_only(set())
    assert (ANSWERS, "gpt") not in rig.records.kept


def test_a_fingerprint_is_the_same_in_every_process(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pt")
    text = "import sys; from pathlib import Path; from dvfd.probes.checkpoints import fingerprint; "
    argv = [sys.executable, "-c", f"{text}print(fingerprint(Path(sys.argv[1])))", str(path)]
    said = subprocess.run(argv, capture_output=True, check=True, timeout=120, text=True).stdout
    assert int(said) == fingerprint(path)
