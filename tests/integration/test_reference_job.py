"""The reference job under a real torchrun: one launch, one killed rank, one polite end."""

from __future__ import annotations

import json
import math
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dvfd import checkpoint_verify
from dvfd.telemetry import wire

pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.torch]

KILL_AT, NAN_AT, STOP_AT, EVERY = 50, 30, 75, 20


class Ears:
    """A daemon that only listens: every packet of every rank, decoded."""

    def __init__(self, path: Path) -> None:
        self.heard: list[tuple[int, wire.Hello | wire.Steps | wire.Event]] = []
        self._stop = threading.Event()
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server.bind(str(path))
        self._server.listen(16)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._server.close()

    def rows(self, rank: int) -> list[wire.Row]:
        packets = [p for r, p in self.heard if r == rank and isinstance(p, wire.Steps)]
        return [row for packet in packets for row in packet.rows]

    def events(self, rank: int, name: str) -> list[wire.Event]:
        return [
            p for r, p in self.heard if isinstance(p, wire.Event) and (r, p.event) == (rank, name)
        ]

    def _listen(self) -> None:
        ranks: dict[socket.socket, int] = {}
        with selectors.DefaultSelector() as selector:
            selector.register(self._server, selectors.EVENT_READ)
            while not self._stop.is_set():
                for key, _ in selector.select(0.2):
                    if key.fileobj is self._server:
                        line, _ = self._server.accept()
                        selector.register(line, selectors.EVENT_READ)
                        ranks[line] = -1
                    else:
                        self._hear(key.fileobj, ranks, selector)  # type: ignore[arg-type]
        for line in ranks:
            line.close()

    def _hear(
        self,
        line: socket.socket,
        ranks: dict[socket.socket, int],
        selector: selectors.BaseSelector,
    ) -> None:
        packet = b""
        with suppress(ConnectionError):
            packet = line.recv(1 << 17)
        if not packet:
            selector.unregister(line)
            del ranks[line]
            line.close()
            return
        said = wire.decode(packet)
        if isinstance(said, wire.Hello):
            ranks[line] = said.rank
        self.heard.append((ranks[line], said))


@dataclass
class Story:
    """What one launch did."""

    directory: Path
    ears: Ears
    lines: list[str] = field(default_factory=list)
    killed: float = 0.0
    back: float = 0.0
    stopped: float = 0.0
    ended: float = 0.0

    def losses(self, step: int) -> list[str]:
        found = (re.match(rf"step={step} loss=(\S+)", line) for line in self.lines)
        return [match[1] for match in found if match]


def workers(agent: int) -> dict[int, int]:
    """The pids of torchrun's children by rank."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    found = {}
    for child in map(int, children):
        with suppress(OSError):
            environment = Path(f"/proc/{child}/environ").read_bytes()
            if match := re.search(rb"(?:^|\0)RANK=(\d+)", environment):
                found[int(match[1])] = child
    return found


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Train; NaN at 30; kill rank 2 at 50; SIGTERM to torchrun at 75 of the second attempt."""
    folder = tmp_path_factory.mktemp("job")
    told = Story(folder / "checkpoints", Ears(folder / "s"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVFD", "OMP_"))}
    environment |= {
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "DVFD_SOCKET": str(folder / "s"),
        "DVFD_FAULT": f"nan@{NAN_AT}",
    }
    argv = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=4", "--max-restarts=2",
            "-m", "dvfd.drills.reference_job", "--job=tiny", "--width=64", "--layers=2",
            f"--checkpoint-dir={told.directory}", f"--checkpoint-every={EVERY}", "--keep=2",
            "--print-every=5", "--validate-every=20", "--hash-every=10",
            "--probe-every=15", "--seconds=120"]  # fmt: skip
    with subprocess.Popen(
        argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as agent:
        try:
            _watch(agent, told)
        finally:
            agent.kill()
            told.ears.close()
    return told


def _watch(agent: subprocess.Popen[str], told: Story) -> None:
    assert agent.stdout
    for line in agent.stdout:
        told.lines.append(line.rstrip())
        step = int(match[1]) if (match := re.match(r"step=(\d+)", line)) else 0
        if told.killed and not told.back and step:
            told.back = time.monotonic()
        if step >= KILL_AT and not told.killed:
            told.killed = time.monotonic()
            os.kill(workers(agent.pid)[2], signal.SIGKILL)
        if told.back and step >= STOP_AT and not told.stopped:
            told.stopped = time.monotonic()
            agent.send_signal(signal.SIGTERM)
    agent.wait(20)
    told.ended = time.monotonic()


def test_the_loss_falls(story: Story) -> None:
    rows = [row for row in story.ears.rows(1) if row.loss is not None]
    first, last = rows[:5], rows[-5:]
    assert sum(r.loss or 0 for r in last) < 0.7 * sum(r.loss or 0 for r in first)


def test_every_rank_reports_every_step_with_plausible_figures(story: Story) -> None:
    for rank in range(4):
        row = next(r for r in story.ears.rows(rank) if r.step == 45)
        assert row.samples == 4
        assert 0 < (row.compute or 0) < 5
        assert 0 <= (row.communication or 0) < 5
        assert 0 < (row.allreduce or 0) < 5
        assert row.bytes == 4 * 120_064  # parameters of this width, float32


def test_ranks_agree_bit_by_bit_on_gradients_and_parameters(story: Story) -> None:
    hashes = {
        (row.step, row.grad_hash, row.param_hash)
        for rank in range(4)
        for row in story.ears.rows(rank)
        if row.step == 40
    }
    assert len(hashes) == 1
    assert None not in hashes.pop()


def test_a_collective_of_64_kib_is_timed_and_told_by_one_rank(story: Story) -> None:
    told = story.ears.events(0, "collective")
    assert {event.message for event in told} == {"64KiB"}
    assert len(told) >= KILL_AT // 15
    assert all(0 < event.took < 5 for event in told)
    assert not story.ears.events(1, "collective")


def test_validation_loss_is_reported(story: Story) -> None:
    assert any(1 < (row.val_loss or 0) < 6 for row in story.ears.rows(0))


def test_a_planted_nan_is_reported_and_does_no_lasting_harm(story: Story) -> None:
    bad = [row for row in story.ears.rows(0) if row.step == NAN_AT]
    assert math.isnan(bad[0].loss or 0)
    assert all(math.isfinite(r.loss or 0) for r in story.ears.rows(0) if r.step > NAN_AT)


def test_a_killed_rank_comes_back_within_thirty_seconds(story: Story) -> None:
    assert 0 < story.back - story.killed < 30


def test_the_job_resumes_from_its_newest_checkpoint(story: Story) -> None:
    assert f"resuming from step-{KILL_AT // EVERY * EVERY:09d}" in story.lines


def test_steps_done_again_give_the_same_loss_to_the_last_digit(story: Story) -> None:
    before, after = story.losses(45)
    assert before == after


def test_sigterm_ends_the_job_cleanly_with_a_last_checkpoint(story: Story) -> None:
    ended = next(line for line in story.lines if line.startswith("ended at step"))
    step = int(ended.split()[3].rstrip(":"))
    assert ended.endswith("signal")
    assert (story.directory / f"step-{step:09d}").is_dir()
    assert story.ears.events(0, "end")[-1].reason == "signal"
    assert story.ended - story.stopped < 15


def test_checkpoints_are_announced_rotated_and_whole(story: Story) -> None:
    saved = [event.path for event in story.ears.events(0, "checkpoint_saved")]
    kept = sorted(story.directory.iterdir())
    assert [str(path) for path in kept] == saved[-2:]
    for path in kept:
        found = checkpoint_verify.verify(path, manner=checkpoint_verify.Manner(load=False))
        assert found.intact, found.reason


def test_the_newest_checkpoint_loads_in_a_fresh_process(story: Story) -> None:
    newest = max(story.directory.iterdir())
    found = checkpoint_verify.verify(newest)
    assert (found.intact, found.loadable) == (True, True), found.reason


@pytest.mark.parametrize("harm", ["flip", "truncate", "drop"])
def test_the_verifier_catches_what_torch_does_not(story: Story, tmp_path: Path, harm: str) -> None:
    newest, copy = max(story.directory.iterdir()), tmp_path / "copy"
    copy.mkdir()
    data = bytearray((newest / "state.pt").read_bytes())
    data[len(data) // 2] ^= 1
    half = data[: len(data) // 2]
    if harm != "drop":
        (copy / "state.pt").write_bytes(data if harm == "flip" else half)
    (copy / "manifest.json").write_bytes((newest / "manifest.json").read_bytes())
    argv = [sys.executable, "-m", "dvfd.checkpoint_verify", str(copy), "--json", "--no-load"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert json.loads(done.stdout)["intact"] is False
