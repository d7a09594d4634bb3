"""The log probe: what counts, what is accepted until when, and what is not known."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes_checkpoints import Records
from fakes_logs import FakeJournal

from dvfd.config import Allow, LogSource
from dvfd.errors import ConfigError, ProbeError
from dvfd.model import Sample
from dvfd.probes import patterns
from dvfd.probes.logs import Logs

NOW = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
ERROR = "RuntimeError: CUDA error: an illegal memory access was encountered\n"


class Rig:
    """A probe over one log file."""

    def __init__(self, folder: Path, **source: object) -> None:
        self.path = folder / "train.log"
        self.path.touch()
        self.records = Records()
        self.lines: list[tuple[str, str]] = []
        self.source = LogSource(name="train", path=self.path, **source)  # type: ignore[arg-type]
        self.restart()

    def restart(self) -> None:
        self.probe = Logs(
            [self.source], records=self.records, lines=lambda *said: self.lines.append(said)
        )
        self.sample()

    def write(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def sample(self, at: float = NOW) -> dict[str, float]:
        return {s.metric: s.value for s in self.probe.sample(at)}


def test_a_quiet_log_counts_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write("step=1 loss=2.0\n")
    assert rig.sample() == {"log_errors_total": 0.0, "log_warnings_total": 0.0}


def test_an_error_line_counts_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write(ERROR)
    rig.sample()
    assert rig.sample()["log_errors_total"] == 1.0


def test_a_warning_is_no_error(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write("node1:77 [0] NCCL WARN Call to connect failed\n")
    assert rig.sample() == {"log_errors_total": 0.0, "log_warnings_total": 1.0}


def test_counts_go_on_after_a_restart(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write(ERROR)
    rig.sample()
    rig.write(ERROR)
    rig.restart()
    assert rig.sample()["log_errors_total"] == 2.0


def allowed(until: datetime) -> tuple[Allow, ...]:
    return (Allow(pattern="illegal memory", until=until, reason="ticket 7"),)


def test_an_accepted_line_does_not_count(tmp_path: Path) -> None:
    rig = Rig(tmp_path, allow=allowed(datetime(2026, 4, 1, tzinfo=UTC)))
    rig.write(ERROR)
    assert rig.sample()["log_errors_total"] == 0.0


def test_an_acceptance_that_has_expired_counts_again_and_says_so(tmp_path: Path) -> None:
    rig = Rig(tmp_path, allow=allowed(datetime(2026, 2, 1, tzinfo=UTC)))
    rig.write(ERROR)
    assert rig.sample()["log_errors_total"] == 1.0
    assert rig.probe.recent()[-1].note == "acceptance expired: ticket 7"


def test_an_acceptance_needs_an_offset_and_a_regular_expression(tmp_path: Path) -> None:
    naive = Allow(pattern="x", until=datetime(2026, 1, 1), reason="r")  # noqa: DTZ001
    broken = Allow(pattern="(", until=datetime(2026, 1, 1, tzinfo=UTC), reason="r")
    with pytest.raises(ConfigError) as caught:
        patterns.accept("train", [naive, broken])
    assert len(caught.value.problems) == 2


def test_an_acceptance_of_everything_is_refused() -> None:
    everything = Allow(pattern=".*", until=datetime(2027, 1, 1, tzinfo=UTC), reason="r")
    with pytest.raises(ConfigError, match="matches every line"):
        patterns.accept("train", [everything])


def test_a_log_that_is_not_there_is_unknown_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "b.log").touch()
    sources = [LogSource(name=n, path=tmp_path / f"{n}.log") for n in ("a", "b")]
    seen: list[Sample] = []
    with pytest.raises(ProbeError, match=r"log a: .*a\.log: no such file"):
        seen.extend(Logs(sources, records=Records()).sample(NOW))
    assert {dict(sample.labels)["log"] for sample in seen} == {"b"}


def test_a_log_too_far_behind_is_unknown(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.probe = Logs([rig.source], records=rig.records, budget=100)
    rig.write("calm\n" * 1000)
    with pytest.raises(ProbeError, match="bytes behind"):
        rig.sample()


def test_recent_lines_hold_no_secret_not_even_a_part_of_one(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write(
        "ERROR: login failed: api_key=hunter2 for x\nERROR " + "y" * 180 + " ghp_" + "z" * 36 + "\n"
    )
    rig.sample()
    first, second = (match.line for match in rig.probe.recent())
    assert first == "ERROR: login failed: api_key=*** for x"
    assert "ghp_" not in second


def test_recent_lines_are_short_and_harmless(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write("\x1b[31mTraceback (most recent call last)\x07\u202e" + "x" * 500 + "\n")
    rig.sample()
    line = rig.probe.recent()[-1].line
    assert len(line) <= 200
    assert line.isprintable()


def test_recent_lines_are_bounded(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write(ERROR * 1000)
    assert rig.sample()["log_errors_total"] == 1000.0
    assert len(rig.probe.recent()) == 50


def test_what_stands_beyond_the_kept_part_of_a_line_does_not_count(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write("x" * 5000 + ERROR)
    assert rig.sample()["log_errors_total"] == 0.0


def test_lines_are_handed_on_only_where_metrics_are_wanted(tmp_path: Path) -> None:
    plain, wanted = Rig(tmp_path), Rig(tmp_path, metrics="dvfd", job="gpt")
    plain.write("step=1 loss=2.0\n")
    plain.sample()
    wanted.sample()
    assert plain.lines == []
    assert wanted.lines == [("train", "step=1 loss=2.0")]


def test_no_log_at_all_is_said(tmp_path: Path) -> None:
    probe = Logs([], records=Records())
    assert list(probe.sample(NOW)) == []
    assert "no log is configured" in probe.gaps["log_errors_total"]


def test_a_pattern_set_that_does_not_exist_names_the_nearest(tmp_path: Path) -> None:
    source = LogSource(name="k", path=tmp_path / "k", patterns="kernal")
    with pytest.raises(ConfigError, match="did you mean 'kernel'"):
        Logs([source], records=Records())


# --- what counts ------------------------------------------------------------------------------

ERRORS = {
    "training": """\
Traceback (most recent call last):
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB
RuntimeError: [enforce fail at alloc_cpu.cpp:116] DefaultCPUAllocator: can't allocate memory
[rank0]:[E1122 12:00:00 ProcessGroupNCCL.cpp:616] Watchdog caught collective operation timeout: X
RuntimeError: [/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:29600
RuntimeError: Connection reset by peer
RuntimeError: Timed out waiting 10000ms for recv operation to complete
failed (exitcode: -9) local_rank: 2 (pid: 77) of binary: /usr/bin/python3
traceback : Signal 11 (SIGSEGV) received by PID 77
ncclSystemError: System call (e.g. socket, malloc) or external library call failed
CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm
DataLoader worker (pid 77) is killed by signal: Killed.
step 120 loss: nan
{"step": 120, "loss": NaN}
grad_norm=inf
CRITICAL:root:giving up""",
    "kernel": """\
NVRM: Xid (PCI:0000:3b:00): 79, pid=77, GPU has fallen off the bus.
mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 4: b200000000070f0f
EDAC MC0: 1 UE memory read error on CPU_SrcID#0_Ha#0_Chan#0_DIMM#0
Out of memory: Killed process 77 (python3) total-vm:1kB
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null)
nvme nvme0: I/O 77 QID 1 timeout, aborting
blk_update_request: I/O error, dev sda, sector 77 op 0x0:(READ)
EXT4-fs error (device sda1): ext4_lookup:1
INFO: task python3:77 blocked for more than 120 seconds.
watchdog: BUG: soft lockup - CPU#3 stuck for 22s!""",
}

HARMLESS = {
    "training": """\
step=120 loss=2.3145 grad_norm=1.0210 lr=0.001000 step_seconds=0.0750 samples_per_second=213.4
{'loss': 2.3, 'grad_norm': 1.1, 'learning_rate': 5e-05, 'epoch': 0.1}
W1122 12:00:00.0 77 torch/distributed/run.py:874] Setting OMP_NUM_THREADS environment variable
UserWarning: information about the normal distribution
resuming from step-000000040
loss infinitesimal, nothing to norm nano""",
    "kernel": """\
mce: CPU0: Thermal monitoring enabled (TM1)
EDAC MC: Ver: 3.0.0
nvme nvme0: 8/0/0 default/read/poll queues
mlx5_core 0000:3b:00.0 ens1: Link up
python3 invoked a kitten""",
}

CASES = [(name, line) for name, text in ERRORS.items() for line in text.splitlines()]


@pytest.mark.parametrize(("name", "line"), CASES, ids=[line[:40] for _, line in CASES])
def test_real_error_lines_count(name: str, line: str) -> None:
    found = patterns.PatternSet(patterns.load(name)).find(line, at=NOW)
    assert found
    assert found.pattern.severity == "critical"


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_lines_do_not_count(name: str) -> None:
    wanted = patterns.PatternSet(patterns.load(name))
    assert [line for line in HARMLESS[name].splitlines() if wanted.find(line, at=NOW)] == []


@pytest.mark.parametrize("name", HARMLESS)
def test_no_pattern_is_anchored_or_spans_lines(name: str) -> None:
    assert patterns.load(name)
    for pattern in patterns.load(name):
        assert not set("^$") & set(pattern.regex.pattern), pattern.name
        assert pattern.source


# --- the journal ------------------------------------------------------------------------------


def journal(fake: FakeJournal, records: Records | None = None, unit: str = "kernel") -> Logs:
    source = LogSource(name="kernel", journal_unit=unit, patterns="kernel")
    return Logs([source], records=records or Records(), run=fake)


def values(probe: Logs, at: list[float] = [NOW]) -> list[float]:  # noqa: B006  # time goes on
    at[0] += 10
    return [sample.value for sample in probe.sample(at[0])]


XID = "NVRM: Xid (PCI:0000:3b:00): 48"


def test_only_journal_entries_after_the_first_look_count() -> None:
    fake = FakeJournal(XID)
    probe = journal(fake)
    assert values(probe) == [0.0, 0.0]
    fake.messages += ["calm", XID]
    assert values(probe) == [1.0, 0.0]
    assert values(probe) == [1.0, 0.0]


def test_the_journals_cursor_survives_a_restart() -> None:
    fake, records = FakeJournal("boot"), Records()
    values(journal(fake, records))
    fake.messages.append(XID)
    assert values(journal(fake, records)) == [1.0, 0.0]


def test_a_message_that_is_no_text_is_read_all_the_same() -> None:
    fake = FakeJournal("boot")
    probe = journal(fake)
    values(probe)
    fake.messages += [list(b"\xff" + XID.encode()), None]
    assert values(probe) == [1.0, 0.0]


def test_a_machine_without_a_journal_is_unknown() -> None:
    fake = FakeJournal()
    fake.absent = True
    with pytest.raises(ProbeError, match="cannot be started"):
        values(journal(fake))


def test_a_journal_that_may_not_be_read_is_unknown_not_calm() -> None:
    fake = FakeJournal("mine")
    fake.stderr = "Hint: You are currently not seeing messages from other users and the system."
    with pytest.raises(ProbeError, match="not seeing messages"):
        values(journal(fake))


def test_a_unit_that_never_said_a_word_is_unknown() -> None:
    with pytest.raises(ProbeError, match=r"no entry of trian\.service"):
        values(journal(FakeJournal(), unit="trian.service"))


def test_a_cursor_that_the_journal_has_forgotten_is_said_once_and_mended() -> None:
    fake = FakeJournal("boot")
    probe = journal(fake)
    values(probe)
    fake.code = 1
    with pytest.raises(ProbeError, match="code 1"):
        values(probe)
    fake.code = 0
    assert values(probe) == [0.0, 0.0]


def test_the_journal_is_not_asked_at_every_pass() -> None:
    fake = FakeJournal("boot")
    probe = journal(fake)
    assert len(list(probe.sample(NOW))) == 2
    assert list(probe.sample(NOW + 2)) == []
    assert len(list(probe.sample(NOW + 10))) == 2
    assert len(fake.calls) == 2


def test_a_log_that_cannot_be_taken_costs_no_other_and_is_not_quiet_for_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("odd", "sound"):
        (tmp_path / name).touch()
    sources = [LogSource(name=n, path=tmp_path / n) for n in ("odd", "sound")]  # type: ignore[arg-type]
    probe = Logs(sources, records=Records())

    def told(at: float) -> tuple[set[str], str]:
        seen, said = set(), ""
        try:
            for sample in probe.sample(NOW + at):
                seen.add(dict(sample.labels)["log"])
        except ProbeError as error:
            said = str(error)
        return seen, said

    both, lost = ({"odd", "sound"}, ""), ({"sound"}, "log odd: lines lost: KeyError: 0")
    assert told(0) == both
    with monkeypatch.context() as broken:
        broken.setattr(probe._logs["odd"].follower, "blocks", lambda _budget: {}[0])
        assert told(5) == lost
    assert [told(at) for at in (10, 60, 65)] == [lost, lost, both]
