# ruff: noqa: E501  # lines as the trainers write them
"""Logs of trainers that cannot be changed: what two versions of each write, two years apart.

Each sample is what the print and log statements of the named version give for made-up numbers:
nanoGPT 40f4d6ff (2023-01-31) and 3adf61e1 (2025-11-12); Megatron-LM core_v0.8.0 (2024-08-12) and
core_v0.19.0 (2026-08-19); torchtitan a99d2e5d (2024-08-30), v0.1.0 (2025-06-17), v0.2.2 (2026-02-20)
and b5bcd76c (2026-08-21); transformers 4.41.2 (2024-05) and 5.24.0.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from fakes_telemetry import FakeStore, Ranks
from hypothesis import given
from hypothesis import strategies as st

from dvfd.config import Config, Jobs, LogSource, Metrics
from dvfd.probes.ranks import Ranks as RanksProbe
from dvfd.telemetry.files import Files
from dvfd.telemetry.patterns import NOTICES
from dvfd.telemetry.trainer_log import TrainerLog
from dvfd.telemetry.writers import writer

NANOGPT_2023 = """\
vocab_size = 65 (from data/shakespeare_char/meta.pkl)
step 0: train loss 4.2874, val loss 4.2823
iter 0: loss 4.2664, time 33821.77ms
iter 10: loss 3.2400, time 402.11ms
step 20: train loss 2.9, val loss 2.9131
saving checkpoint to out-shakespeare-char
iter 20: loss 2.7904, time 2412.43ms"""
NANOGPT_2025 = """\
tokens per iteration will be: 16,384
step 0: train loss 4.2874, val loss 4.2823
iter 0: loss 4.2664, time 33821.77ms, mfu -100.00%
iter 10: loss 3.2400, time 402.11ms, mfu 0.93%
step 20: train loss 2.9000, val loss 2.9131
saving checkpoint to out-shakespeare-char
iter 20: loss 2.7904, time 2412.43ms, mfu 0.85%"""

MEGATRON_2024 = """\
 [2024-08-12 09:00:01] iteration      100/  500000 | consumed samples:       102400 | elapsed time per iteration (ms): 8654.2 | throughput per GPU (TFLOP/s/GPU): 401.3 | learning rate: 9.150000E-06 | global batch size:  1024 | lm loss: 2.504220E+00 | loss scale: 1.0 | grad norm: 0.231 | number of skipped iterations:   0 | number of nan iterations:   0 |
--------------------------------------------------------------------------------------------------
 validation loss at iteration 100 | lm loss value: 2.611000E+00 | lm loss PPL: 1.361263E+01 |
--------------------------------------------------------------------------------------------------
saving checkpoint at iteration     100 to /ckpt/gpt in torch_dist format
  successfully saved checkpoint from iteration     100 to /ckpt/gpt
[after training is done] datetime: 2024-08-12 09:00:20 """
MEGATRON_2026 = """\
 [2026-08-19 09:00:01.123456] iteration      100/  500000 | consumed samples:       102400 | elapsed time per iteration (ms): 8654.2 | throughput per GPU (TFLOP/s/GPU): 401.3 | energy per GPU (J/iter/GPU): 900.1 | power per GPU (W/GPU): 650.0 | learning rate: 9.150000E-06 | global batch size:  1024 | lm loss: 2.504220E+00 | loss scale: 1.0 | grad norm: 0.231 | num zeros: 12 | params norm: 1234.567 | number of skipped iterations:   0 | number of nan iterations:   0 |
--------------------------------------------------------------------------------------------------
 validation loss at iteration 100 | lm loss value: 2.611000E+00 | lm loss PPL: 1.361263E+01 |
--------------------------------------------------------------------------------------------------
[2026-08-19 09:00:02.123456] saving checkpoint at iteration     100 to /ckpt/gpt in torch_dist format
  [2026-08-19 09:00:09.123456] successfully saved checkpoint from iteration     100 to /ckpt/gpt [ t 1/2, gtp_remat 1/1, p 1/1 ]
[after training is done] datetime: 2026-08-19 09:00:20.123456 """

STAMP = "[titan] 2026-02-20 10:00:00,123 - root - INFO - "
TITAN_2024 = """\
Checkpointing active. Checkpoints will be loaded from and saved to outputs/checkpoint
Training starts at step 1, with local batch size 8, global batch size 64, sequence length 2048, total steps 1000 (warmup 200)
\x1b[36mstep: 10  \x1b[32mloss:  8.1234  \x1b[33mmemory: 33.12GiB(41.89%)  \x1b[34mwps: 5,432  \x1b[35mmfu: 33.12%\x1b[39m
Finished saving the checkpoint (or staging if async is enabled)in 3.21 seconds.
Training completed"""
TITAN_2025 = """\
Checkpointing active. Checkpoints will be loaded from and saved to ./outputs/checkpoint
Trainer is initialized with local batch size 8, global batch size 64, gradient accumulation steps 1, sequence length 2048, total steps 1000 (warmup 200).
Training starts at step 1.
\x1b[31mstep: 10  \x1b[32mloss:  8.1234  \x1b[38;2;180;60;0mgrad_norm:  1.4321  \x1b[36mmemory: 33.12GiB(41.89%)  \x1b[34mtps: 5,432  \x1b[36mtflops: 220.11  \x1b[35mmfu: 33.12%\x1b[39m
Saving the checkpoint (or staging if async is enabled).
Finished saving the checkpoint (or staging if async is enabled)in 3.21 seconds.
Saving the checkpoint (or staging if async is enabled).
Saving a full checkpoint at last step, step 20.
Finished saving the checkpoint (or staging if async is enabled)in 3.21 seconds.
Training completed"""
TITAN_2026 = """\
Checkpointing active. Checkpoints will be loaded from and saved to ./outputs/checkpoint
Trainer is initialized with 16384 tokens per DP rank, 131072 tokens per train step, gradient accumulation steps 1, maximum context length 2048, total steps 1000 (warmup 200)
Training starts at step 1
\x1b[31mstep: 10  \x1b[32mloss:  8.12345  \x1b[38;2;180;60;0mgrad_norm:  1.4321  \x1b[36mmemory: 33.12GiB(41.89%)  \x1b[34mtps: 5,432  \x1b[36mtflops: 220.11  \x1b[35mmfu: N/A\x1b[39m
\x1b[33mvalidate step: 10  \x1b[32mloss:  8.2000  \x1b[36mmemory: 33.12GiB(41.89%)  \x1b[34mtps: 9,999\x1b[39m
Saving the checkpoint.
Finished saving the checkpoint in 3.21 seconds.
Saving the checkpoint.
Saving a full checkpoint at last step, step 20.
Last step checkpoint completed in 3.21s
Training completed"""
TITAN_ASYNC = """\
step: 10  loss:  8.12345  grad_norm:  1.4321
Staging the checkpoint.
Finished staging the checkpoint in 0.31 seconds."""
TITAN_PINNED = """\
step: 10  loss:  8.1234  memory: 33.12GiB(41.89%)
Saving the checkpoint (or staging if async is enabled).
Finished saving the checkpoint (or staging if async is enabled)in 3.21 seconds.
Finish saving the checkpoint in the background process in 12.21 seconds."""

TRAINER_2024 = """\
[INFO|trainer.py:2084] 2024-06-01 10:00:00,123 >>   Total train batch size (w. parallel, distributed & accumulation) = 32
{'loss': 2.3311, 'grad_norm': 1.52, 'learning_rate': 4.9e-05, 'epoch': 0.02}
{'eval_loss': 2.1, 'eval_runtime': 3.2, 'eval_samples_per_second': 31.2, 'eval_steps_per_second': 3.9, 'epoch': 0.02}
[INFO|trainer.py:3410] 2024-06-01 10:00:02,123 >> Saving model checkpoint to /out/checkpoint-500
{'loss': 2.2, 'grad_norm': 1.4, 'learning_rate': 4.8e-05, 'epoch': 0.04}
{'train_runtime': 35.4, 'train_samples_per_second': 28.2, 'train_steps_per_second': 3.5, 'train_loss': 2.3, 'epoch': 0.04}"""
TRAINER_2026 = """\
[INFO|trainer.py:1625] 2026-06-01 10:00:00,123 >>   Total train batch size (w. parallel, distributed & accumulation) = 32
{'loss': '2.331', 'grad_norm': '1.52', 'learning_rate': '4.9e-05', 'epoch': '0.02'}
{'eval_loss': '2.1', 'eval_runtime': '3.2', 'eval_samples_per_second': '31.2', 'eval_steps_per_second': '3.9', 'epoch': '0.02'}
[INFO|trainer.py:4149] 2026-06-01 10:00:02,123 >> Saving model checkpoint to /out/checkpoint-500
{'loss': '2.2', 'grad_norm': '1.4', 'learning_rate': '4.8e-05', 'epoch': '0.04'}
{'train_runtime': '35.4', 'train_samples_per_second': '28.2', 'train_steps_per_second': '3.5', 'train_loss': '2.3', 'epoch': '0.04'}"""


def read(pattern: str, text: str, samples: float | None = None) -> list[dict]:
    return [dict(said) for said in TrainerLog(pattern, samples).read(text.split("\n"))]


def rows(pattern: str, text: str) -> list[dict]:
    return [said for said in read(pattern, text) if "event" not in said]


def events(pattern: str, text: str) -> list[tuple]:
    said = [each for each in read(pattern, text) if "event" in each]
    return [(s["event"], s["step"], s["path"]) if "step" in s else s["event"] for s in said]


# --- What each version says -------------------------------------------------------------------


@pytest.mark.parametrize("text", [NANOGPT_2023, NANOGPT_2025], ids=["2023", "2025"])
def test_nanogpt_says_losses_and_a_checkpoint_that_is_there_once_it_goes_on(text: str) -> None:
    assert rows("nanogpt", text) == [
        {"step": 0, "val_loss": 4.2823}, {"step": 0, "loss": 4.2664}, {"step": 10, "loss": 3.24},
        {"step": 20, "val_loss": 2.9131}, {"step": 20, "loss": 2.7904},
    ]  # fmt: skip
    path = "out-shakespeare-char/ckpt.pt"
    assert events("nanogpt", text) == [
        ("checkpoint_begin", 20, path),
        ("checkpoint_saved", 20, path),
    ]


@pytest.mark.parametrize("text", [MEGATRON_2024, MEGATRON_2026], ids=["2024", "2026"])
def test_megatron_says_all_but_the_time_of_its_end(text: str) -> None:
    first = {"step": 100, "lr": 9.15e-6, "samples": 1024, "loss": 2.50422, "grad_norm": 0.231}
    assert rows("megatron", text) == [first, {"step": 100, "val_loss": 2.611}]
    path = "/ckpt/gpt/iter_0000100"
    assert events("megatron", text) == [
        ("checkpoint_begin", 100, path), ("checkpoint_saved", 100, path), "end",
    ]  # fmt: skip


@pytest.mark.parametrize("stamp", ["", STAMP, "[rank0]:" + STAMP, "[default0]:" + STAMP])
@pytest.mark.parametrize(
    ("text", "row"),
    [
        (TITAN_2024, {"step": 10, "loss": 8.1234, "samples": 64}),
        (TITAN_2025, {"step": 10, "loss": 8.1234, "grad_norm": 1.4321, "samples": 64}),
        (TITAN_2026, {"step": 10, "loss": 8.12345, "grad_norm": 1.4321}),
    ],
    ids=["2024", "2025", "2026"],
)
def test_torchtitan_says_its_step_and_its_batch_until_2026(
    text: str, row: dict, stamp: str
) -> None:
    assert rows("torchtitan", re.sub("^", stamp, text, flags=re.MULTILINE))[0] == row


def test_torchtitan_of_2026_says_which_checkpoints_are_written() -> None:
    last = ("checkpoint_saved", 20, "./outputs/checkpoint/step-20")
    assert events("torchtitan", TITAN_2026) == [
        ("checkpoint_begin", None, ""), ("checkpoint_saved", None, ""),
        ("checkpoint_begin", None, ""), last, "end",
    ]  # fmt: skip


def test_torchtitan_of_2025_says_so_of_the_last_one_only() -> None:
    """Its line is the same whether the checkpoint is written or only staged."""
    last = ("checkpoint_saved", 20, "./outputs/checkpoint/step-20")
    assert events("torchtitan", TITAN_2025) == [
        ("checkpoint_begin", None, ""), ("checkpoint_staged", None, ""),
        ("checkpoint_begin", None, ""), last, "end",
    ]  # fmt: skip
    assert events("torchtitan", TITAN_2024) == ["end"]


def test_a_checkpoint_in_the_background_is_saved_when_the_background_says_so() -> None:
    assert events("torchtitan", TITAN_ASYNC)[-1] == ("checkpoint_staged", None, "")
    assert events("torchtitan", TITAN_PINNED)[-1] == ("checkpoint_saved", None, "")


def test_megatron_saves_in_the_background_while_it_goes_on() -> None:
    text = (
        "saving checkpoint at iteration     100 to /c in torch_dist format\n"
        "  scheduled an async checkpoint save at iteration     100 to /c\n"
        "  successfully saved checkpoint from iteration     100 to /c"
    )
    assert [event[0] for event in events("megatron", text)] == [
        "checkpoint_begin", "checkpoint_staged", "checkpoint_saved",
    ]  # fmt: skip


@pytest.mark.parametrize("text", [TRAINER_2024, TRAINER_2026], ids=["4.41", "5.24"])
def test_the_trainer_says_its_losses_without_a_step(text: str) -> None:
    first, validation, second = rows("huggingface", text)
    assert (first["grad_norm"], first["lr"], second["loss"]) == (1.52, 4.9e-5, 2.2)
    assert validation == {"val_loss": 2.1}
    assert not {"step", "samples"} & (first.keys() | second.keys())


@pytest.mark.parametrize("text", [TRAINER_2024, TRAINER_2026], ids=["4.41", "5.24"])
def test_the_trainer_says_its_checkpoint_and_its_end(text: str) -> None:
    assert events("huggingface", text) == [
        ("checkpoint_begin", 500, "/out/checkpoint-500"),
        ("checkpoint_saved", 500, "/out/checkpoint-500"), "end",
    ]  # fmt: skip


def test_megatron_counts_the_iterations_whose_loss_is_nan() -> None:
    text = MEGATRON_2026.replace("nan iterations:   0", "nan iterations:   2")
    assert math.isnan(rows("megatron", text)[0]["loss"])


def test_the_loss_on_the_test_set_is_no_validation() -> None:
    text = (
        " validation loss at iteration 100 on test set | lm loss value: 2.6E+00 | lm loss PPL: 1 |"
    )
    assert rows("megatron", text) == []
    assert rows("megatron", text.replace("test", "validation")) == [{"step": 100, "val_loss": 2.6}]


# --- How lines come ---------------------------------------------------------------------------


def test_ranks_that_write_into_one_log_count_once_though_one_runs_ahead() -> None:
    text = "\n".join(
        f"[rank{rank}]:step: {step}  loss:  {rank}.5"
        for rank, step in [(0, 10), (0, 20), (1, 10), (1, 20), (1, 30), (0, 30)]
    )
    assert [(row["step"], row["loss"]) for row in rows("torchtitan", text)] == [
        (10, 0.5), (20, 0.5), (30, 1.5),
    ]  # fmt: skip


def test_a_job_that_resumes_at_an_earlier_step_is_heard_again() -> None:
    text = "\n".join(f"[default0]:iter {step}: loss 2.0, time 1.00ms" for step in (10, 20, 10, 20))
    assert [row["step"] for row in rows("nanogpt", text)] == [10, 20, 10, 20]


def test_each_rank_says_that_it_saved_and_it_is_one_checkpoint() -> None:
    lines = [
        "step: 10  loss:  8.1",
        "Saving the checkpoint.",
        "Finished saving the checkpoint in 3.21 seconds.",
    ]
    text = "\n".join(f"[rank{rank}]:{line}" for rank in (0, 1) for line in lines)
    assert len(events("torchtitan", text)) == 2


def test_saves_between_two_lines_of_progress_all_count() -> None:
    save = "\nSaving the checkpoint.\nFinished saving the checkpoint in 3.21 seconds."
    assert len(events("torchtitan", "step: 10  loss:  8.1" + 3 * save)) == 6


def test_labels_of_mpirun_and_srun_are_taken_off() -> None:
    for label in ("[1,0]<stdout>:", "0: ", " 3: ", "[default0]:", "[rank12]: "):
        assert rows("nanogpt", f"{label}iter 10: loss 2.0, time 1.00ms, mfu 1.00%")


def test_a_traceback_is_the_exception_that_it_ends_with() -> None:
    text = (
        "[rank1]: Traceback (most recent call last):\n"
        '[rank1]:   File "train.py", line 3, in <module>\n'
        "iter 10: loss 2.0, time 1.00ms\n"
        "[rank1]:     raise ValueError('x')\n"
        "[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n"
        "[rank1]: ValueError: not of a traceback"
    )
    (found,) = [said for said in read("nanogpt", text) if "event" in said]
    assert (found["type"], found["error"][:18]) == ("torch.OutOfMemoryError", "CUDA out of memory")


@pytest.mark.parametrize(
    "raised", ["struct.error: unpack requires 4 bytes", "socket.timeout", "a.b.C: d", "Error:"]
)
def test_an_exception_may_be_named_in_small_letters_and_a_log_level_is_none(raised: str) -> None:
    text = f"Traceback (most recent call last):\nINFO: a\ntrain.py:3: b\n{raised}\nWARNING: c"
    (found,) = [said for said in read("nanogpt", text) if "event" in said]
    assert (found["type"], found["error"]) == (
        raised.partition(":")[0], raised.partition(": ")[2],
    )  # fmt: skip


def test_a_shell_may_say_how_the_job_ended() -> None:
    ended = read("nanogpt", "saving checkpoint to out\ndvfd: exit 0")
    assert [said["event"] for said in ended] == ["checkpoint_begin", "checkpoint_saved", "end"]
    failed = read("nanogpt", "saving checkpoint to out\ndvfd: exit 137")
    assert [(said["event"], said.get("failed")) for said in failed[1:]] == [("end", True)]


@pytest.mark.parametrize(
    "lines",
    [
        ("[rank0]:iter 10: loss 2.0, time 1ms", "[rank1]:iter 10: loss nan, time 1ms"),
        ("[rank0]:iter 20: loss 2.0, time 1ms", "[rank1]:iter 10: loss NAN, time 1ms"),
        ("iter 10: loss 2.0, time 1ms", "iter 10: loss nan, time 1ms"),
        ("[rank0]:iter 10: loss 2.0, time 1ms", "[rank1]:step 10: train loss 1.0, val loss inf"),
            ],
)  # fmt: skip
def test_a_nan_is_heard_from_any_rank_and_is_no_progress(
    tmp_path: Path, lines: tuple[str, ...]
) -> None:
    log = Watched(tmp_path / "log", "nanogpt")
    log.write(*lines)
    log.poll()
    assert (log.job.counters.nonfinite, log.job.counters.losses) == (1, 1)
    assert (log.rank.steps_total, log.rank.totals.losses) == (1, 1)


def test_a_step_that_no_job_makes_is_no_row() -> None:
    assert rows("nanogpt", f"iter {'9' * 400}: loss 2.0, time 1.00ms") == []
    assert rows("huggingface", "{'loss': 2.0, 'step': 'nan'}") == []


@given(st.sampled_from(sorted(NOTICES)), st.lists(st.text(), max_size=5))
def test_any_lines_give_numbers_and_known_events(pattern: str, lines: list[str]) -> None:
    beginnings = ("saving checkpoint to ", "Traceback (most recent call last)", "{'loss': ", "")
    for said in TrainerLog(pattern).read([b + line for b in beginnings for line in lines]):
        assert "event" in said or all(isinstance(value, float) for value in said.values())


# --- What the daemon makes of them ------------------------------------------------------------


class Watched:
    """A log that a job writes, and a book of jobs that it is read into."""

    def __init__(self, path: Path, pattern: str, **settings: object) -> None:
        self.path = path
        self.ranks = Ranks()
        self.store = FakeStore()
        source = LogSource(name="train", path=path, metrics=pattern, job="gpt", **settings)
        path.touch()
        self.files = Files(
            Config(logs=(source,)), self.ranks.book, self.ranks.clock, lambda _: None
        )
        self.probe = RanksProbe(self.ranks.book, self.ranks.clock)
        self.poll(0)

    def write(self, *lines: str, end: str = "\n") -> None:
        with self.path.open("a") as file:
            file.write("\n".join(lines) + end)

    def poll(self, after: float = 1.0) -> dict[str, float]:
        """Look *after* seconds; every sample by its metric."""
        self.ranks.clock.advance(after)
        self.files.poll(self.ranks.clock.now())
        return {s.metric: s.value for s in self.probe.sample(self.ranks.clock.now())}

    @property
    def job(self):
        return self.ranks.book.all()[0]

    @property
    def rank(self):
        return self.job.ranks[0]


def nano(step: int, loss: float = 2.5) -> str:
    return f"iter {step}: loss {loss:.4f}, time 100.00ms, mfu 1.00%"


def test_throughput_comes_from_steps_and_the_time_between_lines(tmp_path: Path) -> None:
    log = Watched(tmp_path / "log", "nanogpt", samples_per_step=12)
    for step in (0, 10, 20):
        log.write(nano(step))
        seen = log.poll(2)
    assert seen["job_throughput_samples_per_second"] == pytest.approx(12 * 10 / 2)
    assert seen["rank_step_seconds"] == pytest.approx(0.2)


def test_throughput_does_not_sink_while_the_next_line_is_not_due(tmp_path: Path) -> None:
    log = Watched(tmp_path / "log", "nanogpt", samples_per_step=12)
    for step in (0, 100, 200):
        log.write(nano(step))
        seen = log.poll(20)
    between = [log.poll(5).get("job_throughput_samples_per_second") for _ in range(3)]
    assert between == [seen["job_throughput_samples_per_second"]] * 3 == [60.0] * 3


def test_a_log_that_comes_in_bursts_of_a_full_buffer_is_no_hang(tmp_path: Path) -> None:
    log = Watched(tmp_path / "log", "nanogpt", samples_per_step=12)
    for burst in range(4):
        waiting = log.poll(59)
        assert waiting.get("rank_stall_ratio", 0) < 1, f"before burst {burst}"
        log.write(*(nano(10 * step) for step in range(140 * burst, 140 * (burst + 1))))
        seen = log.poll(1)
    assert seen["job_throughput_samples_per_second"] == pytest.approx(12 * 1400 / 60)
    assert log.poll(301)["rank_stall_ratio"] > 1


def test_without_a_batch_size_throughput_is_not_known(tmp_path: Path) -> None:
    log = Watched(tmp_path / "log", "nanogpt")
    for step in (0, 10, 20):
        log.write(nano(step))
        seen = log.poll(2)
    assert "job_throughput_samples_per_second" not in seen
    assert seen["job_loss"] == 2.5


def test_megatron_says_its_own_batch_size(tmp_path: Path) -> None:
    log = Watched(tmp_path / "log", "megatron")
    for step in (100, 110):
        log.write(MEGATRON_2026.split("\n", 1)[0].replace("100/", f"{step}/"))
        seen = log.poll(10)
    assert seen["job_throughput_samples_per_second"] == pytest.approx(1024)


def test_a_batch_size_for_lines_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="do not number their steps"):
        LogSource(name="a", path="/a", metrics="huggingface", samples_per_step=8)  # type: ignore[arg-type]


def test_a_validation_is_no_step_and_hides_no_loss(tmp_path: Path) -> None:
    log = Watched(tmp_path / "log", "nanogpt", samples_per_step=12)
    log.write(nano(0), nano(10), "step 20: train loss 2.9, val loss 2.9131", nano(20, 2.25))
    seen = log.poll()
    assert (log.rank.steps_total, log.rank.step) == (21, 20)
    assert log.rank.totals.samples == 21 * 12
    assert (seen["job_validation_loss"], log.rank.totals.losses) == (2.9131, 3)


def test_a_line_that_comes_in_pieces_or_behind_a_progress_bar_is_one_line(tmp_path: Path) -> None:
    log = Watched(tmp_path / "log", "huggingface")
    log.write("  5%|▌         | 5/100 [00:01<00:20,  4.9it/s]\r  6%|▌   |\r", end="")
    log.write("\x1b[A{'loss': 2.3311, 'grad_n", end="")
    log.poll()
    assert not log.ranks.book.all()
    log.write("orm': 1.52, 'learning_rate': 4.9e-05, 'epoch': 0.02}\r\n", end="")
    assert log.poll()["job_loss"] == 2.3311


def test_a_log_that_is_rotated_between_two_lines_loses_neither(tmp_path: Path) -> None:
    log = Watched(tmp_path / "log", "nanogpt")
    log.write(nano(0))
    log.poll()
    log.write(nano(10))
    log.path.rename(tmp_path / "log.1")
    log.write(nano(20))
    log.poll()
    assert (log.rank.steps_total, log.rank.totals.losses) == (21, 3)


def test_a_checkpoint_has_its_path_where_the_writer_stands(tmp_path: Path) -> None:
    log = Watched(tmp_path / "log", "nanogpt")
    with job_in(tmp_path, log.path) as job:
        log.write(nano(0), "saving checkpoint to out", nano(10))
        log.poll()
        job.communicate("end")
    assert log.job.saves.path == f"{tmp_path}/out/ckpt.pt"
    assert log.job.saves.saved == 1


def test_a_relative_path_of_a_writer_that_nobody_sees_stays_relative(tmp_path: Path) -> None:
    log = Watched(tmp_path / "log", "nanogpt")
    log.write(nano(0), "saving checkpoint to out", nano(10))
    log.poll()
    assert log.job.saves.path == "out/ckpt.pt"


def job_in(directory: Path, log: Path) -> subprocess.Popen[str]:
    """A process that stands in *directory*, has *log* open, and waits for a word."""
    with log.open("a") as file:
        return subprocess.Popen(
            [sys.executable, "-c", "input()"],
            cwd=directory, stdin=subprocess.PIPE, stdout=file, text=True,
        )  # fmt: skip


def test_a_job_whose_writer_is_gone_is_gone_at_once(tmp_path: Path) -> None:
    log = Watched(tmp_path / "log", "nanogpt")
    job = job_in(tmp_path, log.path)
    log.write(nano(0), nano(10))
    log.poll()
    process = log.rank.process
    log.ranks.table.add(process.pid, start=process.start)
    job.communicate("end")
    del log.ranks.table.table[process.pid]
    log.poll()
    assert log.ranks.book.why("gpt").startswith(
        f"rank 0: process {job.pid} is gone, which wrote log"
    )


def test_a_job_that_is_started_again_on_its_log_is_a_restart(tmp_path: Path) -> None:
    log = Watched(tmp_path / "log", "nanogpt")
    for step in (50, 10):
        job = job_in(tmp_path, log.path)
        log.write(nano(step))
        log.poll()
        process = log.rank.process
        log.ranks.table.add(process.pid, start=process.start)
        job.communicate("end")
        del log.ranks.table.table[process.pid]
        log.ranks.book.look()
    assert (log.job.counters.restarts, log.rank.step) == (1, 10)


def test_who_writes_a_log_is_never_signalled_as_a_rank(tmp_path: Path) -> None:
    log = Watched(tmp_path / "log", "nanogpt")
    with job_in(tmp_path, log.path) as job:
        log.write(nano(0))
        log.poll()
        job.communicate("end")
    assert log.rank.process is not None
    assert log.ranks.book.registered("gpt") == []
    assert log.ranks.book.processes() == []


def test_only_who_writes_counts_as_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    with path.open():
        assert writer(path) is None
    with path.open("a"):
        found = writer(path)
    assert found is not None
    assert (found.process.pid, found.directory) == (os.getpid(), str(Path.cwd()))


def test_an_end_that_the_log_tells_ends_the_job_and_a_last_validation_does_not_revive_it(
    tmp_path: Path,
) -> None:
    log = Watched(tmp_path / "log", "huggingface")
    log.write(*TRAINER_2026.split("\n"), "{'eval_loss': '2.0', 'epoch': '0.04'}")
    log.poll()
    assert log.ranks.snapshot()["state"] == "ended"
    log.write("{'loss': '2.331', 'epoch': '0.02'}")
    log.poll()
    assert log.ranks.snapshot()["state"] == "running"


@pytest.mark.parametrize("end", ["Training completed", "dvfd: exit 0"])
@pytest.mark.parametrize("code", [1, 137])
def test_an_exit_with_an_error_is_a_failure_whatever_the_log_said_before(
    tmp_path: Path, end: str, code: int
) -> None:
    log = Watched(tmp_path / "log", "torchtitan")
    log.write("step: 1  loss:  2.0", end)
    log.poll()
    assert log.ranks.snapshot()["state"] == "ended"
    log.write(f"dvfd: exit {code}", "dvfd: exit 0")
    assert log.poll()["rank_responding"] == 0.0
    assert log.ranks.snapshot()["state"] == "not responding"


LATE_WORDS = {
    "job_exceptions_total": ("Traceback (most recent call last):", "RuntimeError: died in save"),
    "job_nonfinite_total": ("{'eval_loss': nan, 'epoch': 1.0}",),
}


@pytest.mark.parametrize("metric", LATE_WORDS)
def test_what_goes_wrong_after_the_end_is_told_for_a_minute(tmp_path: Path, metric: str) -> None:
    log = Watched(tmp_path / "log", "huggingface")
    log.write("{'loss': 2.0, 'epoch': 0.1}", "{'train_runtime': 3.0, 'epoch': 1.0}")
    assert metric not in log.poll()
    log.write(*LATE_WORDS[metric])
    told = [log.poll(5).get(metric) for _ in range(13)]
    assert told == [1.0] * 12 + [None]
    assert log.ranks.snapshot()["state"] == "ended"


def test_a_crash_is_told_in_the_words_of_its_traceback(tmp_path: Path) -> None:
    log = Watched(tmp_path / "log", "nanogpt")
    log.write(
        nano(0), "Traceback (most recent call last):", '  File "t.py", line 1', "OSError: full"
    )
    seen = log.poll()
    assert (seen["job_exceptions_total"], log.job.exception) == (1.0, "OSError: full")


def test_a_staged_checkpoint_stalls_nobody_and_is_not_saved(tmp_path: Path) -> None:
    log = Watched(tmp_path / "log", "torchtitan")
    log.write(*TITAN_ASYNC.split("\n"))
    log.poll()
    log.poll(120)
    assert (log.rank.section, log.job.saves.saved, log.job.counters.failed) == (None, 0, 0)


def test_json_lines_may_tell_events_too(tmp_path: Path) -> None:
    log = Watched(tmp_path / "log", "nanogpt")
    config = Config(jobs=Jobs(files=(Metrics(path=tmp_path / "m", job="own"),)))
    (tmp_path / "m").touch()
    files = Files(config, log.ranks.book, log.ranks.clock, lambda _: None)
    files.poll(0)
    (tmp_path / "m").write_text(
        '{"step": 5, "loss": 1.0}\n{"event": "checkpoint_saved", "step": 5, "path": "/c/5"}\n'
        '{"event": "checkpoint_saved", "step": -1, "path": 7}\n{"event": "exception", "error": "x"}\n'
    )
    files.poll(1)
    assert (log.job.saves.path, log.job.saves.saved, log.job.exception) == ("/c/5", 1, "x")


def test_the_examples_configuration_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "examples/nanogpt/dvfd.toml").read_text(encoding="utf-8")
    (log,) = Config.model_validate(tomllib.loads(text)).logs
    assert (log.metrics, log.job, log.samples_per_step) == ("nanogpt", "nano", 12)
