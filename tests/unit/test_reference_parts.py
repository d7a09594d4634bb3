"""The parts of the reference job: text, order of samples, checkpoints, faults, options."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from dvfd import checkpoint_load, checkpoint_verify, manifest  # noqa: E402
from dvfd.checkpoint_verify import Manner  # noqa: E402
from dvfd.drills import checkpoint, corpus, faults, options, world  # noqa: E402
from dvfd.drills.reference_model import ByteModel  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    for number in range(40):
        (tmp_path / f"m{number:02}.py").write_text(f"# {number}\n" * 1000)
    return tmp_path


def test_the_text_is_the_same_every_time(sources: Path) -> None:
    assert corpus.load(sources).hash == corpus.load(sources).hash


def test_every_twentieth_file_is_held_out(sources: Path) -> None:
    text = corpus.load(sources)
    assert bytes(text.validation[:5].tolist()) == b"# 19\n"
    assert len(text.train) > 15 * len(text.validation)


def test_installed_packages_are_no_part_of_the_text(sources: Path) -> None:
    before = corpus.load(sources).hash
    (sources / "site-packages").mkdir()
    (sources / "site-packages/a.py").write_text("x = 1\n")
    assert corpus.load(sources).hash == before


def test_a_python_without_sources_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 bytes of Python sources"):
        corpus.load(tmp_path)


def sampler(position: int = 0) -> corpus.Sampler:
    text = torch.arange(1000).remainder(256).to(torch.uint8)
    return corpus.Sampler(text, context=10, seed=3, position=position)


def test_ranks_share_an_epoch_without_overlap() -> None:
    ranks = [sampler() for _ in range(4)]
    seen = [row[0].item() for r, s in enumerate(ranks) for row in s.take(24, rank=r, world=4)]
    assert len(set(seen)) == 96  # windows begin with different bytes: 10 i modulo 256


def test_a_restored_position_goes_on_with_the_same_samples() -> None:
    first = sampler()
    first.take(5, rank=0, world=4)
    again = sampler(position=first.position)
    assert torch.equal(first.take(5, rank=0, world=4), again.take(5, rank=0, world=4))


def test_each_epoch_has_an_order_of_its_own() -> None:
    one = sampler()
    epochs = [[one.index(e * one.windows + i) for i in range(one.windows)] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]


def test_the_model_sees_no_byte_before_it_comes() -> None:
    torch.manual_seed(0)
    model = ByteModel(width=32, layers=1, context=8)
    window = torch.randint(0, 256, (1, 9))
    changed = window.clone()
    changed[0, 8] = (changed[0, 8] + 1) % 256  # a target only
    assert model(window) != model(changed)
    assert torch.equal(model.tokens(window[:, :8]), model.tokens(changed[:, :8]))


def state(step: int) -> dict[str, object]:
    return {"step": step, "model": {"w": torch.arange(6.0).view(2, 3)}, "list": [torch.tensor(1)]}


def test_a_saved_checkpoint_agrees_with_its_manifest(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 5, state(5), keep=3)
    manifest.check_own(path)
    assert checkpoint.load(path)["step"] == 5


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        checkpoint.save(tmp_path, step, state(step), keep=2)
    assert [path.name for path in checkpoint.saved(tmp_path)] == [
        "step-000000020",
        "step-000000015",
    ]


def test_a_save_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, 5, state(5), keep=2)
    assert list(tmp_path.iterdir()) == []


def test_resuming_skips_a_broken_checkpoint_and_says_so(tmp_path: Path) -> None:
    for step in (5, 10):
        checkpoint.save(tmp_path, step, state(step), keep=3)
    os.truncate(tmp_path / "step-000000010/state.pt", 10)
    path, wrong = checkpoint.newest(tmp_path)
    assert path.name == "step-000000005"
    assert wrong[0].startswith("step-000000010: state.pt: 10 bytes")


def ask(path: Path, **more: object) -> tuple[bool | None, str]:
    question = {"paths": [str(path)], "tensors": None, "weights_only": True, **more}
    return checkpoint_load.answer(question)


def test_a_checkpoint_loads_and_its_tensors_are_those_that_were_saved(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 5, state(5), keep=2)
    tensors = manifest.read(path / manifest.NAME)["tensors"]  # type: ignore[index]
    assert ask(path / "state.pt", tensors=tensors) == (True, "1 loaded")


def test_other_tensors_than_those_saved_are_not_accepted(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 5, state(5), keep=2)
    wanted = manifest.read(path / manifest.NAME)["tensors"]  # type: ignore[index]
    wanted["model.w"] = "0" * 64
    assert ask(path / "state.pt", tensors=wanted) == (
        False,
        "tensor model.w is not the one that was saved",
    )


def test_a_random_state_of_numpys_is_not_made_of_a_files_words(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    torch.save({"numpy": numpy.random.get_state()}, tmp_path / "state.pth")
    loadable, why = ask(tmp_path / "state.pth")
    assert loadable is None
    assert "a pickle is code" in why


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rng_state.pth", "rng_state_1.pth", "random_states_0.pkl"])
def test_a_trainers_random_state_is_named_as_not_loaded_and_the_rest_is(
    tmp_path: Path, name: str
) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "optimizer.pt")
    torch.save({"x": Bomb(tmp_path / "boom")}, tmp_path / name)
    loadable, how = checkpoint_verify.load(tmp_path, None, Manner())
    assert loadable is True
    assert how == f"1 loaded; {name} not loaded: a generator's state, pickled"
    assert not (tmp_path / "boom").exists()


@pytest.mark.slow
def test_a_random_state_is_loaded_where_pickles_are_trusted(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "optimizer.pt")
    torch.save({"x": Bomb(tmp_path / "boom")}, tmp_path / "rng_state.pth")
    found = checkpoint_verify.load(tmp_path, None, Manner(trust_pickles=True))
    assert found == (True, "2 loaded")
    assert (tmp_path / "boom").exists()


def test_a_random_state_alone_is_no_checkpoint_that_was_seen_to_load(tmp_path: Path) -> None:
    torch.save({"python": [1, 2]}, tmp_path / "rng_state.pth")
    assert checkpoint_verify.load(tmp_path, None, Manner())[0] is None


def test_a_damaged_random_state_is_still_found_broken(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "optimizer.pt")
    torch.save({"python": torch.zeros(9)}, tmp_path / "rng_state.pth")
    path = tmp_path / "rng_state.pth"
    os.truncate(path, path.stat().st_size - 30)
    assert checkpoint_verify.verify(tmp_path).intact is False


@pytest.mark.slow
def test_a_trainers_pickled_arguments_are_no_state_that_must_load(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "optimizer.pt")
    torch.save(SimpleNamespace(lr=1.0), tmp_path / "training_args.bin")
    assert ask(tmp_path / "training_args.bin")[0] is None
    assert checkpoint_verify.load(tmp_path, None, Manner()) == (True, "1 loaded")


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.path,))


def test_a_pickle_never_runs_and_is_unknown(tmp_path: Path) -> None:
    torch.save({"x": Bomb(tmp_path / "boom")}, tmp_path / "evil.pt")
    loadable, why = ask(tmp_path / "evil.pt")
    assert loadable is None
    assert "a pickle is code" in why
    assert not (tmp_path / "boom").exists()


def test_a_file_that_is_no_checkpoint_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"nonsense")
    assert ask(tmp_path / "a.pt")[0] is False


def test_bfloat16_and_empty_tensors_have_hashes() -> None:
    ones = torch.ones(3, dtype=torch.bfloat16)
    assert checkpoint_load.tensor_hash(ones) != checkpoint_load.tensor_hash(ones.float())
    assert checkpoint_load.tensor_hash(torch.empty(0))


def test_a_fault_harms_the_first_attempt_only() -> None:
    assert faults.planted({"DVFD_FAULT": "nan@5:1"}) == faults.Fault("nan", 5, 1)
    again = {"DVFD_FAULT": "nan@5", "TORCHELASTIC_RESTART_COUNT": "1"}
    assert faults.planted(again) == faults.Fault()


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted KIND@STEP"):
        faults.planted({"DVFD_FAULT": "fire@5"})


def test_corruption_flips_one_bit_of_one_rank() -> None:
    model = torch.nn.Linear(2, 2)
    before = model.weight.detach().clone()
    faults.Fault("corrupt", 5, 2).corrupt(model, step=5, rank=1)
    assert torch.equal(before, model.weight)
    faults.Fault("corrupt", 5, 2).corrupt(model, step=5, rank=2)
    assert (before != model.weight).sum() == 1


def test_a_width_that_no_head_divides_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        options.parse(["--width", "100"])
    assert caught.value.code == 2
    assert "multiple of 32" in capsys.readouterr().err


def test_a_launch_whose_restarts_cannot_work_is_told_so() -> None:
    restarts = {"TORCHELASTIC_MAX_RESTARTS": "3"}
    assert "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in world.restart_advice(restarts)
    assert not world.restart_advice({**restarts, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"})
    assert not world.restart_advice({})
