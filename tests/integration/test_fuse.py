"""A fuse heals, whatever becomes of who lit it: when asked, at its deadline, by itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dvfd.drills import trail
from dvfd.drills.reliability import fuse as burning
from dvfd.drills.reliability.cut import TABLE, cut
from dvfd.drills.reliability.harm import FUSE, Harm, lit
from dvfd.errors import ProbeError

pytestmark = pytest.mark.machine  # processes are seen as on a node without namespaces

LONG = 60.0
"""Seconds of a harm that nobody waits for."""

TESTER = """
import sys, time
from dvfd.drills.reliability.harm import Harm, lit
pid, start = map(int, sys.argv[1:3])
with lit(Harm(words="stop", seconds=60.0, stop=((pid, start),))):
    print("harmed", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "120"]) as child:
        yield child
        child.kill()


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def soon(holds: Callable[[], bool], seconds: float = 30.0) -> bool:
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.02)
    return holds()


def stopping(pid: int, seconds: float = LONG) -> Harm:
    return Harm(words="stop", seconds=seconds, stop=((pid, trail.started(pid)),))


def test_a_stopped_process_goes_on_when_asked(victim: subprocess.Popen[bytes]) -> None:
    with lit(stopping(victim.pid)) as fuse:
        assert stopped(victim.pid)
        assert not fuse.wait(0.05)
        assert fuse.heal() > fuse.harmed
        assert (stopped(victim.pid), fuse.why) == (False, "asked")


def test_it_goes_on_at_the_deadline(victim: subprocess.Popen[bytes]) -> None:
    with lit(stopping(victim.pid, seconds=0.5)) as fuse:
        assert soon(lambda: fuse.wait(0.1))
        assert (stopped(victim.pid), fuse.why) == (False, "deadline")


def test_it_goes_on_when_the_tester_breaks(victim: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ZeroDivisionError), lit(stopping(victim.pid)):
        assert 1 / 0
    assert not stopped(victim.pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_it_goes_on_when_the_tester_dies(
    victim: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    words = [str(victim.pid), str(trail.started(victim.pid))]
    with subprocess.Popen(
        [sys.executable, "-c", TESTER, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as tester:
        assert tester.stdout
        assert tester.stdout.readline() == b"harmed\n"
        assert stopped(victim.pid)
        tester.send_signal(number)
        assert soon(lambda: not stopped(victim.pid))


def test_it_goes_on_when_the_fuse_is_killed(victim: subprocess.Popen[bytes]) -> None:
    with lit(stopping(victim.pid)) as fuse:
        [burning] = [p for p in children() if str(FUSE).encode() in commandline(p)]
        os.kill(burning, signal.SIGKILL)
        assert soon(lambda: fuse.wait(0.1))
        assert not stopped(victim.pid)
        assert "the fuse died" in fuse.why


def test_a_fuse_heals_when_it_is_asked_to_end(victim: subprocess.Popen[bytes]) -> None:
    with lit(stopping(victim.pid)) as fuse:
        [burning] = [p for p in children() if str(FUSE).encode() in commandline(p)]
        os.kill(burning, signal.SIGTERM)
        assert soon(lambda: fuse.wait(0.1))
        assert (stopped(victim.pid), fuse.why) == (False, "signal 15")


def test_a_process_that_has_the_number_of_another_is_left_alone(
    victim: subprocess.Popen[bytes],
) -> None:
    other = Harm(words="stop", seconds=LONG, stop=((victim.pid, 1),))
    with pytest.raises(ProbeError, match="not the process that it was"), lit(other):
        pass
    assert not stopped(victim.pid)


def test_a_harm_that_cannot_be_done_is_refused(tmp_path: Path) -> None:
    half = Harm(
        words="two", seconds=LONG, harm=(("touch", str(tmp_path / "a")), ("false",)),
        heal=(("rm", "-f", str(tmp_path / "a")),),
    )  # fmt: skip
    with pytest.raises(ProbeError, match="two: false: failed"), lit(half):
        pass
    assert not (tmp_path / "a").exists()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(burning, "TRYING", 0.0)


@pytest.mark.usefixtures("hurried")
def test_a_tool_that_is_gone_has_healed_nothing() -> None:
    assert "nft-that-went" in burning.heal({"heal": [["nft-that-went", "delete", "table"]]})
    within = ["env", "nft-that-went"]  # `ip netns exec` says it in like words
    assert "No such file" in burning.heal({"heal": [within]})


# --- Packets ------------------------------------------------------------------------------------


@pytest.fixture
def namespace() -> Iterator[str]:
    if os.geteuid() != 0 or not shutil.which("nft") or not shutil.which("ip"):
        pytest.skip("namespaces and nft need root")
    name = f"dvfdtest-fuse-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


def rules(namespace: str) -> str:
    argv = ["ip", "netns", "exec", namespace, "nft", "list", "ruleset"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_a_cut_is_made_and_taken_back(namespace: str) -> None:
    within = ("ip", "netns", "exec", namespace)
    with lit(cut(["198.18.0.1"], LONG, within=within)):
        assert "198.18.0.1 timeout" in rules(namespace)
    assert TABLE not in rules(namespace)


@pytest.mark.usefixtures("hurried")
def test_a_table_or_a_namespace_that_is_gone_is_healed(namespace: str) -> None:
    [argv] = cut(["198.18.0.1"], LONG, within=("ip", "netns", "exec", namespace)).heal
    [gone] = cut(["198.18.0.1"], LONG, within=("ip", "netns", "exec", f"{namespace}-gone")).heal
    assert burning.heal({"heal": [argv, gone]}) == ""
    tool = ["ip", "netns", "exec", namespace, "nft-that-went"]
    assert "nft-that-went" in burning.heal({"heal": [tool]})


def test_the_kernel_forgets_a_cut_that_nobody_is_left_to_heal(namespace: str) -> None:
    within = ("ip", "netns", "exec", namespace)
    made = cut(["198.18.0.1"], -3.0, within=within)  # the kernel's own margin less three seconds
    subprocess.run(made.harm[0], check=True)
    assert "198.18.0.1" in rules(namespace)
    assert soon(lambda: "198.18.0.1" not in rules(namespace))


def children() -> list[int]:
    text = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
    return list(map(int, text.split()))


def commandline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
