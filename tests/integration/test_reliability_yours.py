"""A job of the user's own is harmed only if it is theirs, alone, well, and the daemon is told."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fakes_drills import task

from dvfd.clock import SystemClock
from dvfd.drills import trail
from dvfd.drills.drill import Fact, Options, Remark, Trouble
from dvfd.drills.reliability import yours
from dvfd.errors import DvfdError, ProbeError
from dvfd.model import Sample


class Daemon:
    """One that watches job `gpt`: two ranks, each a process; a dead one is replaced."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.uid = os.getuid()
        self.state = "running"
        self.deaf = False
        self.steps = True
        self.kills = False
        self.gone: list[dict[str, Any]] = []
        self.children = [self._rank() for _ in range(2)]

    def _wait(self) -> None:
        """Until one has died: who was sent SIGKILL lives a moment longer."""
        until = time.monotonic() + 10
        while all(c.poll() is None for c in self.children) and time.monotonic() < until:
            time.sleep(0.005)

    def _rank(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sleep", "120"])

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()

    def __call__(self, op: str, **arguments: Any) -> Any:
        self.asked.append((op, arguments))
        if op == "fault_healed" and self.kills and self.told().count(op) == 1:
            self._wait()
        if op != "status":
            return None if self.deaf else "run"
        dead = [child for child in self.children if child.poll() is not None]
        for child in dead:
            self.children[self.children.index(child)] = self._rank()
        return {"jobs": [self._job(well=not dead)]}

    def _job(self, *, well: bool) -> dict[str, Any]:
        now = SystemClock().now() if self.steps else 1.0
        state = self.state if well else "not responding"
        ranks = [self._row(n, child.pid, now) for n, child in enumerate(self.children)] + self.gone
        return {
            "job": "gpt", "uid": self.uid, "state": state, "summary": f"{state}, 2 of 2 ranks",
            "world_size": 2, "ranks": ranks,
        }  # fmt: skip

    @staticmethod
    def _row(rank: int, pid: int, now: float) -> dict[str, Any]:
        start = trail.started(pid)
        return {
            "rank": rank, "state": "responding", "pid": pid, "start": start, "progress_at": now,
        }  # fmt: skip

    def loses(self, pid: int, **changes: Any) -> None:
        """Rank 2 has been here, and *pid* is what its process had."""
        self.gone = [self._row(2, pid, 1.0) | changes]

    def told(self) -> list[str]:
        return [op for op, _ in self.asked if op != "status"]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    found = Daemon(tmp_path / "proc")
    found.proc.mkdir()
    yield found
    found.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yours, "LOOK", 0.02)
    monkeypatch.setattr(yours, "RETURN", 3.0)
    monkeypatch.setattr(yours, "LONGER", 0.2)


def chosen(daemon: Daemon, directory: Path, job: str = "gpt", **more: Any) -> Any:
    options = Options(consent=True, job=job, **more)
    toml = "profile.process_group_timeout = 0.5\n"
    clock = SystemClock()
    return task("reliability", directory, options=options, toml=toml, clock=clock, proc=daemon.proc)


def test_a_killed_rank_is_timed_and_the_daemon_told_before_and_after(
    daemon: Daemon, tmp_path: Path
) -> None:
    daemon.kills = True
    before = [child.pid for child in daemon.children]
    found = list(yours.killed(chosen(daemon, tmp_path), daemon))
    [sample] = [each for each in found if isinstance(each, Sample)]
    assert 0 < sample.value < 3
    assert daemon.children[0].pid == before[0]
    assert daemon.told()[:2] == ["fault_injected", "fault_healed"]
    [(_, said)] = [each for each in daemon.asked if each[0] == "fault_injected"]
    assert said["what"] == f"SIGKILL to rank 1 (pid {before[1]}) of job gpt"
    assert any("noticed by dvfd" in each.text for each in found if isinstance(each, Fact))


def test_what_such_a_job_does_not_tell_stays_unknown(daemon: Daemon, tmp_path: Path) -> None:
    found = list(yours.killed(chosen(daemon, tmp_path), daemon))
    silent = {each.metric for each in found if isinstance(each, Trouble)}
    assert silent == {"recovery_lost_steps", "recovery_sample_errors", "recovery_loss_jump"}


def test_where_all_ranks_are_here_one_is_stopped_and_goes_on(
    daemon: Daemon, tmp_path: Path
) -> None:
    lease = os.open(tmp_path / "lease", os.O_CREAT | os.O_RDWR)
    found = list(yours.parted(chosen(daemon, tmp_path), lease, daemon))
    os.close(lease)
    facts = {each.name: each.text for each in found if isinstance(each, Fact)}
    assert "SIGSTOP" in facts["partition: injected fault"]
    assert "all its ranks are on this node" in facts["partition: injected fault"]
    state = Path(f"/proc/{daemon.children[1].pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert state != "T"
    assert any("timeouts" in each.text for each in found if isinstance(each, Fact | Remark))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"state": "not responding"}, "not well before it is harmed"),
        ({"state": "ended"}, "no job 'gpt' trains here; these do: none"),
        ({"deaf": True}, "nothing is harmed that nobody watches"),
        ({"steps": False}, "0 of 2 ranks made a step within 3 s"),
    ],
)
def test_nothing_is_harmed_that_is_not_well_or_not_watched(
    daemon: Daemon, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    before = [child.pid for child in daemon.children]
    for name, value in change.items():
        setattr(daemon, name, value)
    with pytest.raises(ProbeError, match=said):
        list(yours.killed(chosen(daemon, tmp_path), daemon))
    harmed = "steps" in change
    assert ([child.pid for child in daemon.children] == before) is not harmed


def test_a_job_of_another_user_is_left_alone(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.uid = 4711
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ProbeError, match="of user 4711"):
        list(yours.killed(chosen(daemon, tmp_path), daemon))


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "120"]) as found:
        yield found
        found.kill()


@pytest.mark.parametrize("gone", [{"state": "ended"}, {"start": None}])
def test_a_rank_that_ended_is_not_harmed_and_not_waited_for(
    daemon: Daemon, stranger: subprocess.Popen[bytes], tmp_path: Path, gone: dict[str, Any]
) -> None:
    daemon.loses(stranger.pid, **gone)
    found = list(yours.killed(chosen(daemon, tmp_path), daemon))
    assert stranger.poll() is None
    assert any(isinstance(each, Sample) for each in found)


def test_whoever_has_the_pid_of_a_rank_by_now_is_left_alone(
    daemon: Daemon, stranger: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    daemon.loses(stranger.pid, start=trail.started(stranger.pid) - 1)
    lease = os.open(tmp_path / "lease", os.O_CREAT | os.O_RDWR)
    for harm in (yours.killed, partial(yours.parted, lease=lease)):
        with pytest.raises(ProbeError, match=f"pid {stranger.pid} is no longer rank 2's process"):
            list(harm(chosen(daemon, tmp_path), asked=daemon))
    os.close(lease)
    assert stranger.poll() is None
    assert not daemon.told()


def test_a_process_of_another_user_is_left_alone_though_the_job_is_ours(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, daemon.uid = daemon.uid, 4711
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ProbeError, match=f"is of user {owner}, the job of user 4711"):
        list(yours.killed(chosen(daemon, tmp_path), daemon))
    assert not daemon.told()


def test_a_job_that_nobody_watches_is_left_alone(daemon: Daemon, tmp_path: Path) -> None:
    with pytest.raises(DvfdError, match="no daemon answers"):
        list(yours.killed(chosen(daemon, tmp_path), lambda _op, **_: None))
    with pytest.raises(DvfdError, match="no job 'other' trains here; these do: gpt"):
        list(yours.killed(chosen(daemon, tmp_path, job="other"), daemon))


def test_a_job_beside_another_is_left_alone(daemon: Daemon, tmp_path: Path) -> None:
    stranger = daemon.proc / "999"
    stranger.mkdir()
    (stranger / "stat").write_text("999 (python) S 1 0 0")
    (stranger / "environ").write_bytes(b"RANK=0\0LOCAL_RANK=0\0WORLD_SIZE=1\0")
    (stranger / "cmdline").write_bytes(b"python\0other.py\0")
    with pytest.raises(ProbeError, match=r"another job trains here: other.py: rank 0"):
        list(yours.killed(chosen(daemon, tmp_path), daemon))


@pytest.mark.parametrize(("ports", "cuts"), [("1024\t65535", False), ("32768\t60999", True)])
def test_a_rank_is_stopped_where_a_cut_would_drop_what_services_say(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ports: str, cuts: bool
) -> None:
    monkeypatch.setattr(yours, "spoken_with", lambda _pid: {"10.0.0.7"})
    monkeypatch.setattr(yours, "missing", lambda _tools: "")
    (daemon.proc / "sys/net/ipv4").mkdir(parents=True)
    (daemon.proc / "sys/net/ipv4/ip_local_port_range").write_text(f"{ports}\n")
    asked = chosen(daemon, tmp_path)
    harm = yours._harm(asked, yours.Yours(asked, daemon))
    assert (bool(harm.harm), bool(harm.stop)) == (cuts, not cuts)
    assert cuts or "ip_local_port_range is 1024 65535" in harm.words


def test_addresses_of_other_hosts_are_those_of_open_connections() -> None:
    assert yours.spoken_with(os.getpid()) == set()
    with pytest.raises(ProbeError, match="cannot be read"):
        yours.spoken_with(2**22 - 1)
