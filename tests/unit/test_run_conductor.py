"""A run from its order to its report, in a daemon that may be restarted, killed, or asked twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from fakes import FakeClock
from fakes_telemetry import Ranks

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.errors import DvfdError
from dvfd.model import Check, Sample, Verdict, labels
from dvfd.people.attestations import Attestations
from dvfd.runs import parts
from dvfd.runs.baselines import Baselines
from dvfd.runs.conductor import Conductor, Order
from dvfd.runs.freezing import Frozen, judged_again
from dvfd.runs.run import Run, Stage
from dvfd.runs.watched import Watched
from dvfd.store import Store
from dvfd.store.run_reading import Reading
from dvfd.telemetry.fold import folds
from dvfd.telemetry.wire import Row

CONFIG = Config()
CATALOGUE = load(CONFIG)
PHASE1 = CATALOGUE.checks["stability_phase1"]
SHORT = Order(check="stability_phase1", job="gpt", duration=600.0, force=True)


class Node:
    """A daemon's part in a run: book, store, conductor, and a clock that moves when told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ranks = Ranks()
        self.clock: FakeClock = self.ranks.clock
        self.told: list[tuple[float, dict[str, Verdict]]] = []
        self.sequence = 0
        self.seats: list[object] = []
        self.start()

    def start(self) -> None:
        self.store = Store(self.directory / "dvfd.db", metrics=CATALOGUE.metrics, clock=self.clock)
        self.store.start()
        self.conductor: Conductor = parts.conduct(
            CONFIG, CATALOGUE, store=self.store, book=self.ranks.book, clock=self.clock,
            directory=self.directory / "runs", judge=self._judge,
            attestations=Attestations(CATALOGUE, self.store, self.clock),
            baselines=Baselines(self.directory / "runs", self.store, self.clock),
        )  # fmt: skip
        self.conductor.take_up()

    def stop(self) -> None:
        self.conductor.stop()
        self.store.stop()

    def kill(self) -> None:
        """As SIGKILL: nobody says goodbye, and what was not flushed is gone."""
        self.ranks.book.listener = None
        self.store.flush()
        self.store.stop()

    def _judge(self, check: Check) -> None:
        results = self.conductor.results(check, self.clock.now())
        verdicts = {r.criterion.id.partition(".")[2]: r.verdict for r in results}
        self.told.append((self.clock.boot(), verdicts))

    def arm(self, order: Order = SHORT) -> Run:
        return self.conductor.arm(order, by="root")

    def join(self, ranks: int = 4, **hello: object) -> None:
        given = {"checkpoint_every": 500, **hello}
        self.seats = [self.ranks.join(rank, **given) for rank in range(ranks)]

    def train(self, seconds: int, *, samples: float = 32.5, loss: float | None = None) -> None:
        """Two steps a second of every rank, as rows and as what the store commits of them."""
        for _ in range(seconds):
            for rank, seat in enumerate(self.seats):
                step = (seat.rank.step or 0) + 1
                fields = {"samples": samples, "grad_norm": 1.0, "compute": 0.4,
                          "loss": 2.0 + 3.0 / (step + 10) if loss is None else loss}  # fmt: skip
                at = self.clock.boot()
                rows = [Row(seat.rank.seen + n, step + n - 1, at + n / 2, **fields) for n in (1, 2)]
                self.ranks.book.steps(seat, rows)
                made = tuple(folds("gpt", rank, rows, self.clock.now()))
                self.store.commit_telemetry(
                    f"s{rank}-{seat.rank.session}", rows[-1].sequence, made, lambda _: None,
                    job="gpt",
                )  # fmt: skip
            self.clock.advance(1)
            self.beat()

    def beat(self) -> None:
        at = self.clock.now()
        self.conductor.sampled(
            [Sample("node_memory_used_ratio", 0.5, at, labels(numa_node=0))]
            + [Sample("rank_cpu_ratio", 0.9, at, labels(job="gpt", rank=r)) for r in range(4)]
        )
        self.conductor.tick()

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            self.conductor.tick()

    @property
    def run(self) -> Run:
        return self.conductor.run()

    def report(self) -> dict:
        return json.loads((self.directory / "runs" / f"{self.run.id}.json").read_text())


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.stop()


@pytest.mark.slow
def test_a_run_goes_from_its_order_to_its_report(node: Node) -> None:
    node.arm()
    node.join()
    node.train(30)
    assert node.run.stage is Stage.WARM_UP
    node.train(100)
    assert node.run.stage is Stage.RUNNING
    node.train(480)
    node.wait(10)
    assert node.run.stage is Stage.COMPLETE
    assert node.run.frozen
    assert node.report()["run"]["id"] == node.run.id


def test_a_second_order_is_refused_while_a_run_is_on(node: Node) -> None:
    first = node.arm()
    with pytest.raises(DvfdError, match=f"run {first.id} is armed on this node: one at a time"):
        node.arm()


def test_of_two_orders_at_once_one_wins(node: Node) -> None:
    won: list[str] = []
    lost: list[str] = []

    def order() -> None:
        try:
            won.append(node.arm().id)
        except DvfdError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=order) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (Order(check="daily", job="gpt"), "is no stability run"),
        (Order(check="stability_phase1", job=""), "no name of the job"),
        (Order(check="stability_phase1", job="gpt", duration=1e9), "wanted 1 to 86400 seconds"),
        (Order(check="stability_phase1", job="gpt", duration=0.0), "wanted 1 to 86400 seconds"),
    ],
)
def test_an_order_that_means_nothing_is_refused(node: Node, order: Order, words: str) -> None:
    with pytest.raises(DvfdError, match=words):
        node.arm(order)


def test_a_job_that_never_reports_ends_the_run_with_the_reason(node: Node) -> None:
    node.arm()
    node.wait(610)
    assert node.run.stage is Stage.ABORTED
    assert "did not report within 10 min" in node.run.reason
    assert Verdict.PASS not in node.told[-1][1].values()


@pytest.mark.slow
def test_too_few_ranks_end_the_run_with_the_reason(node: Node) -> None:
    node.arm()
    node.join(3)
    node.train(610)
    assert "3 of 4 ranks here made a step" in node.run.reason


def test_a_world_that_changes_its_size_ends_the_run(node: Node) -> None:
    node.arm()
    node.join()
    node.train(30)
    node.join(2, world_size=2, local_world_size=2, run="r2")
    node.train(2)
    assert node.run.stage is Stage.ABORTED
    assert "a world of 2 processes now, wanted 4" in node.run.reason


def test_a_command_that_ends_in_the_warm_up_ends_the_run(node: Node) -> None:
    run = node.arm()
    node.join()
    node.train(20)
    node.conductor.exited(run.id, "ended with exit code 1")
    assert node.run.stage is Stage.ABORTED
    assert "ended with exit code 1 in its warm-up" in node.run.reason


def test_a_stopped_run_says_who_stopped_it(node: Node) -> None:
    run = node.arm()
    node.join()
    node.train(100)
    node.conductor.abort(run.id, "wrong branch", by="ada")
    node.wait(5)
    assert (node.run.stage, node.run.reason) == (Stage.ABORTED, "stopped by ada: wrong branch")
    assert node.run.frozen
    with pytest.raises(DvfdError, match="is not on"):
        node.conductor.abort(run.id, "again", by="ada")


def test_another_run_may_follow(node: Node) -> None:
    first = node.arm()
    node.conductor.abort(first.id, "", by="ada")
    node.wait(5)
    second = node.arm()
    assert second.id != first.id
    assert [run.id for run in node.conductor.runs()] == sorted([first.id, second.id])


def test_a_rank_that_dies_fails_the_run_at_once(node: Node) -> None:
    node.arm()
    node.join()
    node.train(100)
    node.ranks.book.died(node.seats[1])
    node.wait(15)
    assert node.told[-1][1]["unplanned_failures"] is Verdict.FAIL


def test_a_restarted_daemon_takes_the_run_up_and_shows_the_gap(node: Node) -> None:
    node.arm()
    node.join()
    node.train(100)
    node.stop()
    node.clock.advance(20)
    node.start()
    node.train(100)
    stretches = [
        (e.what.value, round(e.t)) for e in Reading(node.conductor._on.file.path).events()
        if e.what.value in {"up", "down", "unseen"}
    ]  # fmt: skip
    assert stretches[-2:] == [("unseen", 100), ("up", 121)]
    assert node.run.stage is Stage.RUNNING


def test_a_killed_daemon_loses_no_step_that_was_acknowledged(node: Node) -> None:
    node.arm()
    node.join()
    node.train(100)
    node.kill()
    node.start()
    node.train(50)
    node.store.flush()
    steps = sum(w.steps for w in Reading(node.conductor._on.file.path).windows())
    assert steps == 4 * 2 * 150


def test_a_clock_that_is_stepped_changes_no_time_of_the_run(node: Node) -> None:
    node.arm()
    node.join()
    node.train(100)
    for step in (3600.0, -7200.0):
        node.clock.step(step)
        node.train(10)
    status = node.conductor.status()
    assert status["t"] == pytest.approx(120.0, abs=1.5)
    events = Reading(node.conductor._on.file.path).events()
    assert [round(e.value) for e in events if e.what.value == "clock stepped"] == [3600, -7200]


@pytest.mark.slow
def test_what_was_frozen_is_judged_again_to_the_same_byte(node: Node) -> None:
    node.arm()
    node.join()
    node.train(620)
    node.wait(10)
    run, report = node.run, node.report()
    again = judged_again(node.directory / "runs" / f"{run.id}.db", run, PHASE1)
    assert json.loads(json.dumps([j.to_document() for j in again])) == report["results"]


@pytest.mark.slow
def test_while_a_report_is_made_the_last_judgement_stands(node: Node) -> None:
    freeze, seen = node.conductor._freeze, []

    def asked_meanwhile(on: Watched) -> Frozen:
        results = node.conductor.results(PHASE1, node.clock.now())
        seen.append({r.criterion.id.partition(".")[2]: r.verdict for r in results})
        assert seen == [node.told[-1][1]]
        return freeze(on)

    node.conductor._freeze = asked_meanwhile
    node.arm()
    node.join()
    node.train(620)
    node.wait(10)
    assert node.run.frozen
    assert Verdict.UNKNOWN in seen[0].values()


def test_a_check_that_was_never_run_says_how_to(node: Node) -> None:
    results = node.conductor.results(PHASE1, node.clock.now())
    unknown = [r for r in results if r.verdict is Verdict.UNKNOWN]
    assert len(unknown) > 10
    assert all("dvfd stability start phase1" in r.reason for r in unknown)


@pytest.mark.slow
def test_a_restarted_daemon_still_knows_a_finished_run(node: Node) -> None:
    node.arm()
    node.join()
    node.train(620)
    node.wait(10)
    before = node.told[-1][1]
    node.stop()
    node.start()
    results = node.conductor.results(PHASE1, node.clock.now())
    assert {r.criterion.id.partition(".")[2]: r.verdict for r in results} == before


@pytest.mark.slow
def test_a_daemon_that_ended_before_the_report_writes_it_later(node: Node) -> None:
    node.arm()
    node.join()
    node.conductor._freeze = lambda on: on.file.freeze() and _ended()
    with pytest.raises(KeyboardInterrupt):
        node.train(620)
    assert not node.run.frozen
    node.kill()
    node.start()
    node.conductor._report_late()
    assert node.run.frozen
    assert node.report()["run"]["id"] == node.run.id


def test_no_order_comes_before_the_run_that_a_late_store_knows_of(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.arm()
    node.stop()
    with monkeypatch.context() as unread:
        unread.setattr(Store, "known", property(lambda _store: False))
        unread.setattr(Store, "all", lambda _store, _kind: {})
        node.start()

    with pytest.raises(DvfdError, match="one at a time"):
        node.arm()


def test_a_run_whose_file_cannot_be_written_at_the_start_is_taken_up_when_it_can(
    node: Node,
) -> None:
    run = node.arm()
    node.stop()
    path = node.directory / "runs" / f"{run.id}.db"
    path.chmod(0o444)
    node.start()
    assert "cannot be taken up" in node.conductor.status()["trouble"]
    node.wait(1)

    path.chmod(0o644)

    with pytest.raises(DvfdError, match="one at a time"):
        node.arm()
    assert not node.conductor.status()["trouble"]


def full(_on: Watched) -> Frozen:
    raise OSError(28, "No space left on device")


def without_room(node: Node) -> Run:
    """A run that ended, stopped, while its report could not be written."""
    run = node.arm()
    freeze, node.conductor._freeze = node.conductor._freeze, full
    node.conductor.abort(run.id, "", by="ada")
    node.wait(5)
    assert "No space left" in node.conductor.status()["trouble"]
    node.conductor._freeze = freeze
    return run


def test_a_report_without_room_is_written_when_there_is_some_again(node: Node) -> None:
    run = without_room(node)
    node.conductor._report_late()
    assert not node.conductor.run(run.id).frozen, "not again at once"

    node.wait(60)
    node.conductor._report_late()

    assert node.conductor.run(run.id).frozen
    assert not node.conductor.status()["trouble"]


def test_a_report_that_cannot_be_written_is_tried_ever_more_rarely(node: Node) -> None:
    run = without_room(node)
    tries: list[float] = []

    def fails(_run: Run, _check: Check) -> Frozen:
        tries.append(node.clock.boot())
        raise DvfdError("no room")

    node.conductor._made = fails  # type: ignore[method-assign]
    for _ in range(4000):
        node.clock.advance(5)
        node.conductor._report_late()

    pauses = [round(b - a) for a, b in pairwise(tries)]
    assert pauses[:3] == [120, 240, 480]
    assert set(pauses[-2:]) == {3600}
    assert not node.conductor.run(run.id).frozen


@pytest.mark.slow
@pytest.mark.parametrize("restarted", [False, True])
def test_a_run_without_a_report_that_another_followed_gets_it(
    node: Node, *, restarted: bool
) -> None:
    first = without_room(node)
    second = node.arm()
    node.conductor.abort(second.id, "the later one", by="ada")
    node.wait(5)
    shown = str(node.conductor.results(PHASE1, node.clock.now()))
    assert "the later one" in shown
    if restarted:
        node.stop()
        node.start()
    assert node.conductor.run(second.id).frozen
    node.wait(60)

    node.conductor._report_late()

    assert node.conductor.run(first.id).frozen
    assert str(node.conductor.results(PHASE1, node.clock.now())) == shown, "the newest run stands"
    path = node.directory / "runs" / f"{first.id}.json"
    assert json.loads(path.read_text())["run"]["id"] == first.id


def _ended() -> str:
    raise KeyboardInterrupt
