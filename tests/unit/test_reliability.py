"""The reliability drill: who may break what, damaged copies, ten cycles, two hundred hours."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fakes_drills import FakeRunner, judged, said, task, verdicts
from fakes_runs import BEGAN, LENGTH, healthy

from dvfd import checkpoint_verify, drills, manifest
from dvfd.drills.drill import Options
from dvfd.drills.reliability import consent, damage, long_term
from dvfd.drills.reliability.checkpoints import Checkpoints
from dvfd.drills.reliability.cut import cut
from dvfd.drills.reliability.growth import steps
from dvfd.drills.supervise import supervise
from dvfd.errors import DvfdError, ProbeError
from dvfd.model import Verdict, labels
from dvfd.runs.rows import Event, Minute, What, Window

NAME = "reliability"


# --- Consent ------------------------------------------------------------------------------------


def test_nothing_is_broken_that_nobody_asked_for(tmp_path: Path) -> None:
    chosen = task(NAME, tmp_path)
    parts = [
        p for p in drills.build(NAME) if p.name not in {"checkpoint cycles", "two hundred hours"}
    ]
    findings = supervise(chosen, parts)
    assert len(parts) == 3
    assert not findings.samples
    assert all("--yes-break-it" in trouble.text for trouble in findings.troubles)
    assert set(verdicts(judged(chosen, findings)).values()) == {Verdict.UNKNOWN}


def asked(directory: Path, **more: Any) -> Any:
    return task(NAME, directory, options=Options(consent=True), **more)


def test_two_never_provoke_at_once(tmp_path: Path) -> None:
    with (
        consent.lease(asked(tmp_path), "one"),
        pytest.raises(DvfdError, match=r"pid \d+ provokes"),
        consent.lease(asked(tmp_path), "another"),
    ):
        pass


def test_a_lease_ends_with_who_has_it(tmp_path: Path) -> None:
    had = []
    for holder in ("one", "another"):
        with consent.lease(asked(tmp_path), holder):
            had.append(holder)
    assert had == ["one", "another"]


CLUSTER = """node.name = "n2"
[cluster]
lead = "n1"
[[cluster.nodes]]
name = "n1"
address = "10.0.0.1"
[[cluster.nodes]]
name = "n2"
address = "10.0.0.2"
"""


def test_the_lease_of_a_cluster_is_at_its_lead(tmp_path: Path) -> None:
    why = consent.refused(asked(tmp_path, toml=CLUSTER), "a rank is killed")
    assert "run it on n1, this is n2" in why
    assert not consent.refused(asked(tmp_path, toml=CLUSTER.replace('"n2"\n[c', '"n1"\n[c')), "")


def test_nothing_is_provoked_beside_a_training_that_is_not_ours(tmp_path: Path) -> None:
    assert "train.py: rank 0" in consent.refused(asked(tmp_path, training="train.py: rank 0"), "")


# --- Partition, growth --------------------------------------------------------------------------


def test_a_cut_drops_what_ranks_say_to_each_other_and_no_fixed_port(tmp_path: Path) -> None:
    (tmp_path / "sys/net/ipv4").mkdir(parents=True)
    (tmp_path / "sys/net/ipv4/ip_local_port_range").write_text("32768\t60999\n")
    made = cut(["10.0.0.2", "fd00::2"], 14.0, within=("in",), proc=tmp_path)
    [[*head, rules]] = made.harm
    assert head == ["in", "nft"]
    assert rules.count("tcp sport 32768-60999 tcp dport 32768-60999 drop") == 4
    assert "10.0.0.2 timeout 19s" in rules
    assert "fd00::2 timeout 19s" in rules
    assert made.heal == (("in", "nft", "delete table inet dvfd_partition"),)


def test_a_cut_leaves_the_ports_of_services_whatever_is_handed_out(tmp_path: Path) -> None:
    (tmp_path / "sys/net/ipv4").mkdir(parents=True)
    (tmp_path / "sys/net/ipv4/ip_local_port_range").write_text("1024\t65535\n")
    [[*_, rules]] = cut(["10.0.0.2"], 14.0, within=("in",), proc=tmp_path).harm
    assert rules.count("tcp sport 32768-65535 tcp dport 32768-65535 drop") == 2  # one a direction


def test_a_job_grows_at_once_or_by_way_of_half_as_many() -> None:
    assert steps(4, halfway=False) == (4,)
    assert steps(4, halfway=True) == (2, 2)
    with pytest.raises(ProbeError, match="3 processes"):
        steps(3, halfway=True)


# --- Checkpoints --------------------------------------------------------------------------------


def sealed(directory: Path) -> Path:
    """A checkpoint of three shards."""
    directory.mkdir(parents=True)
    dice = random.Random(3)
    for name in ("model.pt", "optimizer.pt", "rest.pt"):
        (directory / name).write_bytes(dice.randbytes(20_000))
    document = manifest.build(directory)
    (directory / manifest.NAME).write_text(json.dumps(document, indent=1))
    return directory


def test_a_hundred_flips_truncations_and_missing_shards_are_all_caught(tmp_path: Path) -> None:
    found = damage.count(sealed(tmp_path / "c"), tmp_path, times=100)
    assert found.caught == {"flipped bits": 100, "truncations": 100, "missing shards": 100}
    assert (found.kinds, found.whole) == (3, 3)


def test_every_bit_of_a_manifest_counts(tmp_path: Path) -> None:
    copy = sealed(tmp_path / "c")
    text = (copy / manifest.NAME).read_bytes()
    dice = random.Random(5)
    for place in dice.sample(range(8 * len(text)), 300):
        byte, bit = divmod(place, 8)
        flipped = bytearray(text)
        flipped[byte] ^= 1 << bit
        (copy / manifest.NAME).write_bytes(flipped)
        verified = checkpoint_verify.verify(copy, manner=checkpoint_verify.Manner(load=False))
        assert verified.intact is False, (byte, bit)


def test_a_checker_that_misses_one_of_a_hundred_has_not_caught_that_kind(tmp_path: Path) -> None:
    sizes = {p.name: p.stat().st_size for p in sealed(tmp_path / "c").iterdir()}

    def by_size(path: Path) -> bool:
        return {p.name: p.stat().st_size for p in path.iterdir()} == sizes

    found = damage.count(tmp_path / "c", tmp_path, times=5, intact=by_size)
    assert found.kinds == 2
    assert "0 of 5 flipped bits" in found.words


def test_a_checker_that_calls_everything_damaged_has_caught_nothing(tmp_path: Path) -> None:
    assert (
        damage.count(sealed(tmp_path / "c"), tmp_path, times=5, intact=lambda _: False).kinds == 0
    )


class Worker:
    """Saves a checkpoint at each order; from cycle *wrong* on something is not what it was."""

    def __init__(self, wrong: int = 99) -> None:
        self.wrong, self.asked = wrong, 0

    def __call__(self, argv: list[str]) -> Any:
        *_, place, answer = argv
        sealed(Path(place))
        value = "other" if self.asked >= self.wrong else "one"
        Path(answer).write_text(json.dumps({"model.w": "abc", "rest.step=": value}))
        self.asked += 1
        return said()


def test_ten_cycles_that_change_nothing_pass(tmp_path: Path) -> None:
    chosen = task(NAME, tmp_path, run=FakeRunner({"bare.py": Worker()}))
    results = judged(chosen, supervise(chosen, [Checkpoints(times=2)]))
    assert results["checkpoint_cycles"].verdict is Verdict.PASS
    assert results["checkpoint_damage"].verdict is Verdict.PASS


def test_a_cycle_that_changes_a_value_fails_and_names_it(tmp_path: Path) -> None:
    chosen = task(NAME, tmp_path, run=FakeRunner({"bare.py": Worker(wrong=8)}))
    result = judged(chosen, supervise(chosen, [Checkpoints(times=2)]))["checkpoint_cycles"]
    assert (result.verdict, result.observed) == (Verdict.FAIL, 7)
    assert "cycle 8: 1 changed, the first is rest.step=" in result.note


def test_a_worker_that_cannot_load_leaves_the_cycles_unknown(tmp_path: Path) -> None:
    broken = said(code=1, stderr="Broken: model.pt: not there")
    chosen = task(NAME, tmp_path, run=FakeRunner({"bare.py": broken}))
    result = judged(chosen, supervise(chosen, [Checkpoints(times=2)]))["checkpoint_cycles"]
    assert result.verdict is Verdict.UNKNOWN
    assert "model.pt: not there" in result.reason


# --- Two hundred hours --------------------------------------------------------------------------


@dataclass
class FakeRows:
    """A run's rows from memory."""

    made: list[Window] = field(default_factory=list)
    kept: list[Minute] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)

    def windows(self, since: int = 0, until: int | None = None) -> Iterator[Window]:
        return iter(self.made)

    def minutes(self, since: int = 0, until: int | None = None) -> Iterator[Minute]:
        return iter(self.kept)

    def events(self, since: int = 0, until: int | None = None) -> Iterator[Event]:
        return iter(self.told)

    def mark(self) -> int:
        return 1


def spiked(minute: int, count: float) -> Minute:
    where = labels(job="gpt")
    return Minute("n0", long_term.SPIKED, where, minute, 4, 0.0, 0.0, count, count, count, 60.0)


def stretch(*more: Any) -> long_term.Stretch:
    story = healthy()
    events = [*story.events, *(m for m in more if isinstance(m, Event))]
    spikes = {m.minute: m for m in more if isinstance(m, Minute)}
    minutes = [
        spikes.get(m.minute, m) if m.metric == long_term.SPIKED else m for m in story.minutes
    ]
    rows = FakeRows(story.windows, minutes, events)
    return long_term.of_stretch(story.run(), rows)


def test_a_healthy_run_is_productive_nearly_throughout() -> None:
    found = stretch()
    assert 0.85 * LENGTH < found.seconds <= LENGTH
    assert (found.spikes, found.nonfinite, found.told) == (0, 0, True)


def test_a_spike_counts_and_one_behind_a_resumption_does_not() -> None:
    back = Event(node="n0", t=BEGAN + 3000.0, at=0.0, what=What.RESTORED, value=1.0)
    found = stretch(back, spiked(int((BEGAN + 3030.0) // 60), 2.0), spiked(100, 1.0))
    assert (found.spikes, found.masked) == (1, 2)


def test_a_run_that_tells_no_losses_says_nothing_of_spikes() -> None:
    story = healthy()
    silent = [window._replace(losses=0, loss=0.0) for window in story.windows]
    assert not long_term.of_stretch(story.run(), FakeRows(silent, story.minutes, story.events)).told


def test_production_counts_where_no_run_was() -> None:
    found = list(long_term.free(0.0, 100.0, [(10.0, 20.0), (15.0, 30.0), (90.0, 120.0)]))
    assert found == [(0.0, 10.0), (30.0, 90.0)]


def test_without_a_run_the_hours_are_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVFD_STATE_DIR", str(tmp_path / "state"))
    chosen = task(NAME, tmp_path)
    result = judged(chosen, supervise(chosen, [long_term.LongTerm()]))["long_term"]
    assert result.verdict is Verdict.UNKNOWN
    assert "no stability run of any job" in result.reason
