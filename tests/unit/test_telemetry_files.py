"""Jobs that cannot use the reporter: their files and log lines become rows, once."""

from __future__ import annotations

import json
import math
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from fakes_telemetry import FakeStore, Ranks
from hypothesis import given
from hypothesis import strategies as st

from dvfd.config import Config, Jobs, LogSource, Metrics
from dvfd.errors import NotApplicable, ProbeError
from dvfd.probes.ranks import Ranks as RanksProbe
from dvfd.telemetry.files import Files
from dvfd.telemetry.patterns import LINE_LIMIT, LINES, words
from dvfd.telemetry.patterns import parse as parse_text
from dvfd.telemetry.trainer_log import TrainerLog

if TYPE_CHECKING:
    from pathlib import Path

# Real lines. torchtitan: pytorch/torchtitan pull requests 3393, 2389 and 950. Megatron-LM:
# epfLLM/Megatron-LLM issue 11; nan: bigscience-workshop/Megatron-DeepSpeed issue 396. nanoGPT: the
# format strings of its train.py. Trainer: what transformers' ProgressCallback prints.
TITAN = (
    "[rank0]:[titan] 2026-05-18 16:04:46,338 - root - INFO - step: 14  loss:  3.24405  grad_norm:"
    "  0.8319  memory:  9.46GiB(64.99%)  tps: 7,282  tflops: 0.52  mfu: 0.17%"
)
TITAN_WITHOUT_NORM = (
    "[rank0]:[titan] 2025-03-12 11:10:21,511 - root - INFO - step: 22  loss:  6.2250  memory:"
    "  1.41GiB(1.79%)  tps: 193,831  tflops: 18.36  mfu: 1.86%"
)
MEGATRON = (
    " iteration      122/  250000 | consumed samples:       124928 | elapsed time per iteration"
    " (ms): 86545.2 | learning rate: 9.150E-06 | global batch size:  1024 | lm loss: 2.504220E+00 |"
    " loss scale: 1.0 | grad norm: 0.231 | number of skipped iterations:   0 |"
    " number of nan iterations:   0 |"
)
MEGATRON_NAN = (
    " iteration     5426/  250000 | consumed samples:        43408 | consumed tokens:"
    "     88899584 | elapsed time per iteration (ms): 4247.9 | learning rate: 2.999E-04 |"
    " global batch size:     8 |"
    " loss scale: 1.0 | grad norm: nan | actual seqlen:  2048 | number of skipped iterations:   0 |"
)


def parse(pattern: str, line: str) -> dict[str, float]:
    return parse_text(pattern, words(line)[1])


TRAINER = "{'loss': 2.3311, 'grad_norm': 1.52, 'learning_rate': 4.9e-05, 'epoch': 0.02}"
TRAINER_TEXTS = (
    "{'loss': '2.3311', 'grad_norm': '1.52', 'learning_rate': '4.9e-05', 'epoch': '0.02'}"
)


@pytest.mark.parametrize(
    ("pattern", "line", "said"),
    [
        ("torchtitan", TITAN, {"step": 14, "loss": 3.24405, "grad_norm": 0.8319}),
        ("torchtitan", TITAN_WITHOUT_NORM, {"step": 22, "loss": 6.225}),
        ("torchtitan", "\x1b[31mstep:  4\x1b[0m \x1b[32m loss:  7.6\x1b[0m",
         {"step": 4, "loss": 7.6}),
        ("torchtitan", "INFO - validate step: 20  loss:  2.5  memory: 1GiB",
         {"step": 20, "val_loss": 2.5}),
        ("megatron", MEGATRON,
         {"step": 122, "lr": 9.15e-6, "samples": 1024, "loss": 2.50422, "grad_norm": 0.231}),
        ("nanogpt", "iter 100: loss 2.5012, time 123.45ms, mfu 12.30%",
         {"step": 100, "loss": 2.5012}),
        ("nanogpt", "step 250: train loss 2.4106, val loss 2.5312",
         {"step": 250, "val_loss": 2.5312}),
        ("huggingface", TRAINER, {"loss": 2.3311, "grad_norm": 1.52, "lr": 4.9e-5}),
        ("huggingface", TRAINER_TEXTS, {"loss": 2.3311, "grad_norm": 1.52, "lr": 4.9e-5}),
        ("huggingface", "{'eval_loss': 2.1, 'eval_runtime': 3.2, 'epoch': 1.0}", {"val_loss": 2.1}),
        ("dvfd", "step=40 loss=2.5 grad_norm=1.25 lr=0.003000 step_seconds=0.1 val_loss=2.75",
         {"step": 40, "loss": 2.5, "grad_norm": 1.25, "lr": 0.003, "val_loss": 2.75}),
    ],
)  # fmt: skip
def test_a_trainers_line_is_read(pattern: str, line: str, said: dict[str, float]) -> None:
    assert parse(pattern, line) == said


@pytest.mark.parametrize(
    ("pattern", "line", "field"),
    [
        ("torchtitan", "step: 14  loss:  nan  grad_norm:  0.8", "loss"),
        ("megatron", MEGATRON_NAN, "grad_norm"),
        ("nanogpt", "iter 7: loss nan, time 1.00ms, mfu 1.00%", "loss"),
        ("huggingface", "{'loss': nan, 'grad_norm': 1.0, 'epoch': 0.1}", "loss"),
        ("huggingface", "{'loss': 'nan', 'grad_norm': 1.0, 'epoch': 0.1}", "loss"),
    ],
)
def test_a_nan_in_a_line_is_a_nan(pattern: str, line: str, field: str) -> None:
    assert math.isnan(parse(pattern, line)[field])


@pytest.mark.parametrize("pattern", ["huggingface", *LINES])
def test_other_lines_say_nothing(pattern: str) -> None:
    for line in ("", "Traceback (most recent call last):", "loss is falling", "{'a': 1}"):
        assert parse(pattern, line) == {}


@pytest.mark.parametrize("nan", ["nan", "NAN", "NaN", "-nan", "inf", "INF", "-Inf", "Infinity"])
@pytest.mark.parametrize(
    ("pattern", "line", "fields"),
    [
        ("torchtitan", "step: 14  loss:  @  grad_norm:  @  memory", {"loss", "grad_norm"}),
        ("torchtitan", "validate step: 14  loss:  @", {"val_loss"}),
        ("megatron", MEGATRON.replace("2.504220E+00", "@").replace("0.231", "@"),
         {"loss", "grad_norm"}),
        ("megatron", " validation loss at iteration 100 | lm loss value: @ | lm loss PPL: @ |",
         {"val_loss"}),
        ("nanogpt", "iter 7: loss @, time 1.00ms, mfu 1.00%", {"loss"}),
        ("nanogpt", "step 250: train loss @, val loss @", {"loss", "val_loss"}),
        ("huggingface", "{'loss': @, 'grad_norm': '@', 'epoch': 0.1}", {"loss", "grad_norm"}),
        ("huggingface", "{'loss': np.float64(@), 'grad_norm': 1.0, []: {1: 2}}", {"loss"}),
        ("huggingface", "{'loss': tensor([@], device='cuda:0'), 'grad_n", {"loss"}),
        ("huggingface", "{'eval_accuracy': 1.0, 'eval_loss': @, 'epoch': 1.0}", {"val_loss"}),
        ("huggingface", "{'train_runtime': 3.0, 'train_loss': @, 'epoch': 1.0}", {"loss"}),
        ("dvfd", "step=40 loss=@ grad_norm=@ lr=0.003 val_loss=@",
         {"loss", "grad_norm", "val_loss"}),
    ],
)  # fmt: skip
def test_a_nan_is_one_in_whatever_letters(
    pattern: str, line: str, fields: set[str], nan: str
) -> None:
    said = parse(pattern, line.replace("@", nan))
    assert {name for name, value in said.items() if not math.isfinite(value)} == fields


@pytest.mark.parametrize("pattern", ["huggingface", "megatron", *LINES])
def test_a_loss_that_is_nan_is_heard_in_words_that_nobody_foresaw(pattern: str) -> None:
    for line in ("epoch 3 | train/loss=nan", "mtp_1 loss: NaN |", "gradient norm: nan",
                 "'loss': nan", "iteration 5/ 9 | loss: tensor(nan) |"):  # fmt: skip
        assert any(map(math.isnan, parse(pattern, line).values())), line


@pytest.mark.parametrize("pattern", ["huggingface", "megatron", *LINES])
def test_a_setting_that_names_a_nan_is_none(pattern: str) -> None:
    for line in ("check_for_nan_in_loss_and_grad ............. True", "best_val_loss: inf",
                 "{'max_grad_norm': inf, 'loss': 'mse'}", "loss: nanometers",
                 "logging_nan_inf_filter=True",
                 "loss scale: 1.0 | number of nan iterations:   0 |"):  # fmt: skip
        assert all(map(math.isfinite, parse(pattern, line).values())), line


HOSTILE = (
    ("megatron", "iteration 1/1 |" * 90 + "learning rate: 1 |" * 200),
    ("megatron", "iteration 1/1 |" * 90 + "learning rate:1|" * 3 + "lm loss: 1 |" * 300),
    ("megatron", "validation loss at iteration 1 " * 120 + "lm loss value:"),
    ("megatron", "validation" * 400),
    ("megatron", "[exiting program " * 240),
    ("torchtitan", "Saving a " * 110 + "checkpoint" * 300),
    ("torchtitan", "Saving a checkpoint" * 100 + " at last step, step " * 200),
    ("torchtitan", "Saving the checkpoint (or staging" * 120),
    ("torchtitan", "Training starts " * 110 + "global batch size " * 200),
    ("dvfd", "step=1 loss=1 grad_norm=1 " * 80 + " val_loss=" * 300),
    ("huggingface", "{'loss':" * 240 + "x" * 4096),
    ("huggingface", "'loss':" + "[" * 4000),
    ("nanogpt", "loss" + " " * 4000),
    ("nanogpt", "loss value: " * 300 + "x.(" * 1000),
)


@pytest.mark.parametrize(("pattern", "line"), HOSTILE, ids=range(len(HOSTILE)))
def test_no_line_takes_long_to_read(pattern: str, line: str) -> None:
    """Ten of those that took longest were 7 s, with every other thread held; now under 10 ms."""
    log, began = TrainerLog(pattern), time.thread_time()
    log.read([line[:LINE_LIMIT]] * 10)
    assert time.thread_time() - began < 0.5


@given(st.sampled_from(["huggingface", *LINES]), st.text())
def test_any_line_gives_numbers_or_nothing(pattern: str, line: str) -> None:
    for said in (line, f"{{'loss': {line}}}"):
        assert all(isinstance(value, int | float) for value in parse(pattern, said).values())


class Written:
    """A file that a job writes, and the files of a configuration that names it."""

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        self.ranks = Ranks()
        self.store = FakeStore()
        self.files = Files(config, self.ranks.book, self.ranks.clock, lambda _news: None)

    def write(self, *lines: object) -> None:
        with self.path.open("a") as file:
            file.writelines(
                (line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines
            )

    def poll(self, after: float = 5.0) -> None:
        self.ranks.clock.advance(after)
        self.files.poll(self.ranks.clock.now())

    @property
    def rank(self):
        (job,) = self.ranks.book.jobs()
        return job.ranks[0]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    path = tmp_path / "metrics.jsonl"
    config = Config(jobs=Jobs(files=(Metrics(path=path, job="gpt", world_size=2),)))
    found = Written(path, config)
    found.poll()
    return found


def test_a_line_is_a_row(written: Written) -> None:
    written.write({"step": 7, "loss": 2.0, "samples": 32})
    written.poll()

    assert (written.rank.step, written.rank.totals.samples) == (7, 32)


def test_ranks_in_one_file_are_told_apart(written: Written) -> None:
    written.write({"step": 7, "rank": 0}, {"step": 7, "rank": 1}, {"step": 7, "rank": 9})
    written.poll()

    assert set(written.ranks.book.jobs()[0].ranks) == {0, 1}


def test_what_was_in_the_file_before_is_the_past(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_text('{"step": 1}\n')
    config = Config(jobs=Jobs(files=(Metrics(path=path, job="gpt"),)))
    written = Written(path, config)
    written.poll()

    assert written.ranks.book.jobs() == ()


def test_a_line_is_read_once_it_is_complete(written: Written) -> None:
    written.path.write_text('{"step": 1}\n{"st')
    written.poll()
    written.write('ep": 2}')
    written.poll()

    assert written.rank.step == 2


def test_a_rotation_loses_no_line(written: Written) -> None:
    written.write({"step": 1})
    written.poll()
    written.write({"step": 2})
    written.path.rename(written.path.with_suffix(".1"))
    written.write({"step": 3})
    written.poll()

    assert written.rank.steps_total == 3


def test_a_truncated_file_is_read_from_its_start(written: Written) -> None:
    written.write({"step": 1, "loss": 2.0})
    written.poll()
    written.path.write_text('{"step": 2}\n')
    written.poll()

    assert written.rank.step == 2


def test_lines_that_are_none_are_counted_and_passed_over(written: Written) -> None:
    written.write("nonsense", [1], {"step": "x"}, {"step": -1}, {"step": 1e300}, {"step": 4})
    written.poll()

    assert written.rank.step == 4


def test_steps_between_two_lines_are_counted(written: Written) -> None:
    written.write({"step": 10})
    written.poll()
    written.write({"step": 20})
    written.poll()

    assert written.rank.totals.intervals == 10


def steps_counted(written: Written, *steps: int, seconds: float = 5.0) -> list[int]:
    """How many steps each line counts for, of lines that come *seconds* apart."""
    counted = [0]
    for step in steps:
        written.write({"step": step})
        written.poll(seconds)
        counted.append(written.rank.steps_total)
    return [after - before for before, after in pairwise(counted)]


def test_a_jump_that_no_job_makes_in_the_time_is_a_resumption(written: Written) -> None:
    assert steps_counted(written, 5, 9999, 10000, 10001) == [1, 1, 1, 1]


def test_a_jump_far_beyond_the_jobs_own_pace_is_a_resumption(written: Written) -> None:
    assert steps_counted(written, 10, 20, 30, 5030, 5040, 5050, 5060) == [1, 10, 10, 1, 10, 10, 10]


@pytest.mark.parametrize("steps", [(1, 10, 20, 30), (1, 2, 5, 10, 20, 50, 100), (0, 100, 200, 300),
                                   (10, 20, 40, 50)])  # fmt: skip
def test_lines_that_come_at_any_steps_count_them_all(
    written: Written, steps: tuple[int, ...]
) -> None:
    counted = steps_counted(written, *steps)
    assert sum(counted[1:]) == steps[-1] - steps[0]


def test_a_job_that_is_faster_than_any_that_was_seen_is_counted_from_its_third_line(
    written: Written,
) -> None:
    assert steps_counted(written, 0, 5000, 10000, 15000) == [1, 1, 5000, 5000]


def test_a_slow_first_line_does_not_make_the_next_ones_jumps(written: Written) -> None:
    assert steps_counted(written, 1, 10, seconds=120) == [1, 9]
    assert steps_counted(written, 20, 30, seconds=0.1)[1:] == [10]
    assert written.rank.steps_total == 30


def test_a_file_that_falls_silent_is_a_rank_that_does_not_respond(written: Written) -> None:
    for step in (1, 2):
        written.write({"step": step})
        written.poll(1)
    written.poll(60)

    assert "progress is all there is to judge by" in written.ranks.book.why("gpt")


def test_a_file_says_that_its_job_has_ended(written: Written) -> None:
    written.write({"step": 1}, {"event": "end"})
    written.poll()

    assert written.ranks.book.snapshot()[0]["state"] == "ended"


@pytest.mark.parametrize("rank", [{}, {"rank": 0}])
def test_a_file_says_that_its_job_has_failed_and_no_other_end_mends_it(
    written: Written, rank: dict[str, int]
) -> None:
    end = {"event": "end", **rank}
    written.write({"step": 1}, end, {**end, "failed": True}, end)
    written.poll()

    assert written.ranks.book.why("gpt") == "rank 0: ended by a failure"


def test_only_an_end_that_failed_keeps_others_from_being_ends(written: Written) -> None:
    written.write({"step": 1}, {"event": "note", "failed": True}, {"event": "end"})
    written.poll()

    assert written.ranks.book.snapshot()[0]["state"] == "ended"


def test_a_file_goes_on_counting_after_a_restart_of_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "m"
    config = Config(jobs=Jobs(files=(Metrics(path=path, job="gpt"),)))
    first = Written(path, config)
    first.poll()
    first.write({"step": 1}, {"step": 2})
    first.poll()
    second = Written(path, config)
    job = first.ranks.book.jobs()[0]
    rank = {**job.ranks[0].to_document(), "run": job.run, "boot": "this boot"}
    second.ranks.book.restore({"gpt": job.to_document()}, {"gpt/0": rank})
    second.poll()
    second.write({"step": 3})
    second.poll()

    assert second.rank.steps_total == 3


def test_a_log_is_read_by_its_pattern_and_ranks_that_repeat_a_line_count_once(
    tmp_path: Path,
) -> None:
    path = tmp_path / "train.log"
    source = LogSource(name="train", path=path, metrics="torchtitan", job="titan")
    written = Written(path, Config(logs=(source,)))
    written.poll()
    written.write(TITAN, TITAN, "noise")
    written.poll()

    assert (written.rank.step, written.rank.steps_total) == (14, 1)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    config = Config(jobs=Jobs(files=(Metrics(path=tmp_path / ("y" * 300), job="gpt"),)))
    written = Written(tmp_path, config)
    written.poll()

    assert "too long" in next(iter(written.files.trouble.values()))


def test_as_a_probe_it_says_what_it_cannot_read(tmp_path: Path) -> None:
    config = Config(jobs=Jobs(files=(Metrics(path=tmp_path / ("y" * 300), job="gpt"),)))
    with pytest.raises(ProbeError, match="too long"):
        Written(tmp_path, config).files.sample(0.0)
    with pytest.raises(NotApplicable):
        Written(tmp_path, Config()).files.sample(0.0)


# --- What must not be lost --------------------------------------------------------------------


class Beside:
    """Two files of two jobs, `odd` and `sound`, polled in that order, and what the daemon says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        named = [Metrics(path=folder / name, job=name) for name in ("odd", "sound")]
        for each in named:
            each.path.touch()
        self.written = Written(folder, Config(jobs=Jobs(files=tuple(named))))
        self.probe = RanksProbe(self.written.ranks.book, self.written.ranks.clock)
        self.written.poll()

    def write(self, name: str, *lines: str) -> None:
        with (self.folder / name).open("a") as file:
            file.writelines(line + "\n" for line in lines)

    def nonfinite(self, after: float = 1.0) -> dict[str, float]:
        """Values that were no numbers, of each job of which that is said."""
        self.written.poll(after)
        found = self.probe.sample(self.written.ranks.clock.now())
        return {dict(s.labels)["job"]: s.value for s in found if s.metric == "job_nonfinite_total"}


ODD = (
    '{"event": [], "step": 7, "loss": 1.0}', '{"event": {}}', '{"rank": []}',
    '{"step": [], "loss": {}}',
    '{"loss": 1' + "0" * 400 + "}", '{"event": "pause", "seconds": []}',
    '{"path": 3, "event": "note"}',
)  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_no_line_hides_the_nan_behind_it_nor_that_of_another_file(tmp_path: Path, odd: str) -> None:
    both = Beside(tmp_path)
    both.write("odd", odd, '{"step": 7, "loss": NaN}')
    both.write("sound", '{"step": 1, "loss": NaN}')

    seen = both.nonfinite()

    assert (seen["odd"] >= 1, seen["sound"]) == (True, 1)
    assert not both.written.files.trouble


def test_a_reader_that_fails_costs_its_own_pass_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Beside(tmp_path)
    for name in ("odd", "sound"):
        both.write(name, '{"step": 1, "loss": 1.0}')
    assert both.nonfinite() == {"odd": 0, "sound": 0}
    first = both.written.files._sources[0][1]
    with monkeypatch.context() as broken:
        broken.setattr(first, "_rank", lambda _said: {}[0])
        for name in ("odd", "sound"):
            both.write(name, '{"step": 2, "loss": NaN}')
        assert both.nonfinite() == {"sound": 1}
    with pytest.raises(ProbeError, match="odd: lines lost: KeyError"):
        both.written.files.sample(0.0)


def test_after_lines_were_lost_nobody_says_for_a_minute_that_losses_are_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Beside(tmp_path)
    both.write("odd", '{"step": 1, "loss": 1.0}')
    both.nonfinite()
    with monkeypatch.context() as broken:
        broken.setattr(both.written.files._sources[0][1], "_rank", lambda _said: {}[0])
        both.write("odd", '{"step": 2, "loss": NaN}')
        both.nonfinite()
    seen = []
    for step in range(3, 17):
        both.write("odd", json.dumps({"step": step, "loss": 1.0}))
        seen.append((both.nonfinite(5), bool(both.written.files.trouble)))

    assert seen == [({}, True)] * 11 + [({"odd": 0}, False)] * 3


def test_what_was_read_before_a_file_went_away_is_not_lost(tmp_path: Path) -> None:
    both = Beside(tmp_path)
    both.write("odd", '{"step": 1, "loss": NaN}')
    (tmp_path / "odd").unlink()

    assert both.nonfinite() == {"odd": 1}
    both.written.poll()
    assert "no such file" in next(iter(both.written.files.trouble.values()))


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 5, "loss": nan, "samples": 3}', '{"step": 2, "lo{"step": 3, "loss": -NaN}',
        '{"loss": [1.0, NaN]}', '{"loss": "tensor(nan, device=\'cuda:0\')"}',
        '{"loss": {"a": "inf"}}',
        '{"rank": 9, "step": 2, "loss": NaN}', '{"rank": [], "loss": NaN}',
        '{"step": -1, "grad_norm": "-Infinity"}', '{"step": 1, "loss": NaN}',
        '{"event": "note", "val_loss": NaN}', '{"event": "end", "loss": NaN}', '{"loss": 1e999}',
    ],
)  # fmt: skip
def test_a_loss_that_is_no_number_is_counted_however_it_is_written(
    tmp_path: Path, line: str
) -> None:
    both = Beside(tmp_path)
    both.write("odd", '{"step": 1, "loss": 1.0}')
    both.written.poll()
    both.write("odd", line)
    both.written.poll()

    assert both.written.ranks.book.all()[0].counters.nonfinite == 1


def test_ranks_that_say_the_same_nan_are_one_and_no_progress(tmp_path: Path) -> None:
    both = Beside(tmp_path)
    both.write("odd", '{"step": 1, "loss": 1.0}', *['{"step": 1, "loss": NaN}'] * 8)
    both.written.poll()
    job = both.written.ranks.book.all()[0]

    assert (job.counters.nonfinite, job.ranks[0].steps_total, job.ranks[0].step) == (1, 1, 1)
