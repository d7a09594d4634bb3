"""What was found by killing: an answer is on the disk, a transition is told once, nothing is taken
for missing that could only not be read.
"""

from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock
from fakes_incidents import CATALOGUE, STABILITY, Place
from fakes_store import METRICS, opened, rows

from dvfd.control import Operation, Peer
from dvfd.errors import StoreError
from dvfd.evidence.ledger import Evidence
from dvfd.operations import lasting
from dvfd.people.attestations import Attestations
from dvfd.runs.run import Axis, Plan, Run, Stage, caught_up
from dvfd.store import Store

ROOT = Peer(1, 0, 0)
NAME = "dvfd.db"


def keeping(store: Store) -> Operation:
    """A change that stands in the store alone."""

    def keep(request: Any, peer: Peer) -> str:
        store.put("scaling point", str(request["key"]), {"n": 1})
        return "kept"

    found = lasting(store, {"scaling_record": Operation(keep, changes=True)})
    return found["scaling_record"]


def test_a_change_is_on_the_disk_when_it_is_answered(tmp_path: Path) -> None:
    with opened(tmp_path / NAME) as store:
        assert keeping(store).answer({"key": "a"}, ROOT) == "kept"

        assert rows(tmp_path / NAME, "SELECT key FROM records") == [("a",)]


def test_what_is_counted_is_refused_until_the_store_was_read(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    store = Store(blocked / NAME, metrics=METRICS, clock=FakeClock())
    store.start()

    with pytest.raises(StoreError, match="could not be read yet"):
        keeping(store).answer({"key": "a"}, ROOT)

    assert store.all("scaling point") == {}
    store.stop()


def test_incidents_wait_for_a_store_that_cannot_be_read_yet(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run(STABILITY)
    place.say(finding="a fan")
    known = [False]
    place.restart()
    incidents = place.incidents
    incidents._restored, incidents._known = False, lambda: known[0]
    incidents._found.clear()

    incidents.tick()
    assert "could not be read yet" in incidents.trouble
    assert incidents.ids() == []

    known[0] = True
    incidents.tick()
    (found,) = incidents.ids()
    journal = incidents.show({"id": found})["journal"]
    assert [e["why"] for e in journal if e["what"] == "finding"] == ["a fan"]


def test_a_piece_that_a_kill_left_is_in_no_attachments_way(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run(STABILITY)
    (id_,) = place.incidents.ids()
    count = len(place.incidents.show({"id": id_})["journal"])
    left = tmp_path / "incidents" / id_ / f"{count:03d}-log.txt"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")

    place.say(file="log.txt", content=base64.b64encode(b"all of it").decode())

    assert left.read_bytes() == b"all of it"


def test_what_is_stated_while_stock_is_taken_stands_in_the_ledger_once(tmp_path: Path) -> None:
    clock = FakeClock()
    with opened(tmp_path / NAME, clock) as store:
        ledger = Evidence(tmp_path / "evidence", clock, store=store)
        desk = Attestations(CATALOGUE, store, clock, ledger)
        request = {"item": desk.items[0], "value": True, "name": "Ann", "role": "CTO"}
        speaking = threading.Thread(target=desk.attest, args=(request, "ann"))
        read = ledger.records

        def read_while_ann_speaks(kind: str) -> Any:
            found = read(kind)
            speaking.start()
            speaking.join(1.0)  # she is through where nobody keeps her waiting
            return found

        ledger.records = read_while_ann_speaks  # type: ignore[method-assign, assignment]
        desk.enter()
        speaking.join()

        assert len(read("attestation")) == 1


def test_a_change_of_state_outlives_the_moment_at_which_nobody_looks_any_more(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    with opened(tmp_path / NAME, clock) as store:
        store.transition("job", "down", clock.now())
    with opened(tmp_path / NAME, clock):
        pass

    states = rows(tmp_path / NAME, "SELECT state FROM transitions ORDER BY at")
    assert states == [("down",), ("unobserved",)]


def test_a_ledger_announced_to_the_store_stands_once_it_is_there(tmp_path: Path) -> None:
    clock = FakeClock()
    with opened(tmp_path / NAME, clock) as store:
        ledger = Evidence(tmp_path / "evidence", clock, store=store)
        ledger.append("run", "x", {}, submitted="ann")
        announced: list[dict[str, Any]] = []
        put = store.put

        def first_only(kind: str, key: str, document: Any) -> None:
            """As a kill after the founding: the store heard of it beforehand, and no more."""
            if not announced:
                put(kind, key, document)
            announced.append(dict(document))

        store.put = first_only  # type: ignore[method-assign]
        ledger.renew({"reason": "r"}, submitted="ann")
        store.put = put  # type: ignore[method-assign]

        again = Evidence(tmp_path / "evidence", clock, store=store)
        assert again.verify() == []
        again.append("run", "y", {}, submitted="ann")
        assert again.verify() == []
        assert [record.number for record in again.records()] == [1, 2]


def test_a_run_goes_on_from_where_its_file_says_that_it_was() -> None:
    plan = Plan(check="c", planned=9.0, duration=9.0, nodes=1, processes=1, every=1,
                checkpoint_every=1, job="j")  # fmt: skip
    run = Run(id="r", plan=plan, node="n", armed_at=1.0, axis=Axis(boot_id="b", offset=0.0))
    told = run.moved(Stage.WARM_UP, began_t=5.0)

    assert caught_up(run, told).began_t == 5.0
    assert caught_up(told, run) is told
