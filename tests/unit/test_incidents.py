"""A failed phase test follows its protocol to the end, whatever is done to clocks and daemons."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from fakes_incidents import DAY, HOUR, STABILITY, SUITE, WEEK, Place, moment, ran
from fakes_incidents import body as body_of
from testbed import eventually

from dvfd.control import Peer
from dvfd.errors import DvfdError, StoreError
from dvfd.incidents import incident as rules
from dvfd.incidents import protocol
from dvfd.incidents.incident import Cause, Incident, Mark, Ran, State
from dvfd.incidents.protocol import Acted
from dvfd.telemetry.processes import Process


def opened(at: float = 0.0) -> Incident:
    return rules.opened(ran(at=at), incident_id="i", node="n1", now=moment(at))


def later(incident: Incident, at: float, **clock: object) -> Incident:
    """As often as it moves on."""
    while (after := rules.advance(incident, moment(at, **clock))) is not incident:  # type: ignore[arg-type]
        incident = after
    return incident


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# --- Time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "state"),
    [(0.0, "open"), (HOUR - 1, "open"), (HOUR, "investigating"), (DAY - 1, "investigating"),
     (DAY, "decision"), (30 * DAY, "decision")],
)  # fmt: skip
def test_the_hour_and_the_day_are_kept_to_the_second(at: float, state: str) -> None:
    assert later(opened(), at).state == state


@pytest.mark.parametrize("step", [-400 * DAY, -HOUR, HOUR, 400 * DAY])
def test_a_step_of_the_wall_clock_moves_no_deadline(step: float) -> None:
    assert later(opened(), HOUR - 1, step=step).state is State.OPEN
    assert later(opened(), HOUR, step=step).state is State.INVESTIGATING
    assert later(opened(), DAY, step=step).state is State.DECISION


def test_a_reboot_is_measured_by_the_wall_clock_from_the_last_mark() -> None:
    mark = Mark(elapsed=0.0, wall=1_800_000_000.0, boot=1000.0, boot_id="a")
    stepped = mark.moved(moment(600, step=10 * DAY))

    booted = moment(900, boot_id="b", step=10 * DAY)

    assert stepped.until(booted) == 900.0
    assert mark.until(booted) == 900.0 + 10 * DAY  # what an old mark would have made of it


def test_time_never_runs_backwards_over_a_reboot() -> None:
    mark = Mark(elapsed=50.0, wall=1_800_000_000.0, boot=1000.0, boot_id="a")

    assert mark.until(moment(-5 * DAY, boot_id="b")) == 50.0


def test_without_a_boot_id_the_wall_clock_counts() -> None:
    mark = Mark(elapsed=0.0, wall=1_800_000_000.0, boot=1000.0, boot_id="")

    assert mark.until(moment(60, boot_id="", step=40)) == 100.0


def told(incident: Incident) -> list[tuple[str, str, str]]:
    return [(entry.who, entry.what, entry.why) for entry in incident.journal]


FAILED = f"run r7 of {STABILITY} (record 7) is FAIL: {STABILITY}.throughput: 190, wanted 250"


def test_an_incident_says_which_test_failed_where() -> None:
    found = opened()

    assert (found.title, found.node, found.check, found.phase) == (
        "24 hours", "n1", STABILITY, "phase1"
    )  # fmt: skip
    assert told(found) == [("dvfd", "opened", f"{FAILED}: the team lead's for one hour")]


def test_a_run_is_told_with_its_first_reason_and_how_many_more() -> None:
    several = ran(reasons=("too slow", "too hot", "too few"))
    bare = ran(reasons=())
    found = [
        rules.opened(run, incident_id="i", node="n1", now=moment()).journal[0].why
        for run in (several, bare)
    ]

    run = f"run r7 of {STABILITY} (record 7) is FAIL"
    assert found == [
        f"{run}: too slow (and 2 more): the team lead's for one hour",
        f"{run}: the team lead's for one hour",
    ]


def test_what_comes_by_itself_is_told_with_its_reason() -> None:
    quick = later(rules.caused(opened(), Cause.FIXED, moment(60), who="Ann", why="f", newest=9), 61)

    assert told(later(opened(), HOUR))[-1][2] == "one hour is over: the team is told"
    assert told(quick)[-2][2] == "the cause is said to be fixed: the team is told"


def test_what_people_say_of_a_cause_is_in_the_journal_under_their_names() -> None:
    fixed = rules.caused(opened(), Cause.FIXED, moment(60), who="Ann", why="a fan", newest=9)
    taken = rules.caused(fixed, Cause.UNKNOWN, moment(70), who="Ben", why="not the fan", newest=9)
    seen = rules.found(taken, "it hums", moment(80), who="Cy")
    kept = rules.found(seen, "a picture", moment(90), who="Cy", attached="p.png")

    assert told(kept)[1:] == [
        ("Ann", "cause fixed", "a fan"),
        ("Ben", "cause unknown", "not the fan"),
        ("Cy", "finding", "it hums"),
        ("Cy", "attached", "a picture"),
    ]
    assert (fixed.fixed_after, taken.fixed_at, taken.fixed_after) == (9, None, 0)


@pytest.mark.parametrize(("weeks", "words"), [(1, "1 week"), (2, "2 weeks")])
def test_a_delay_is_in_the_journal_and_is_somebodys(weeks: int, words: str) -> None:
    found = rules.delayed(opened(), weeks, moment(DAY), who="Ann", why="no parts")

    assert told(found)[-1] == ("Ann", f"phase delayed by {words}", "no parts")
    assert found.delay is not None
    assert found.delay.by == "Ann"
    assert rules.due(replace(found, state=State.DECISION)) == (
        "the delay is over", DAY + weeks * WEEK
    )  # fmt: skip


def test_a_delay_that_comes_by_itself_says_why() -> None:
    failing = rules.attached(opened(), ran(8), moment(8))
    first = later(failing, DAY)
    second = later(first, DAY + WEEK)

    assert told(first)[-1] == (
        "dvfd", "phase delayed by 1 week", "the test still fails 24 hours after it was opened"
    )  # fmt: skip
    assert told(second)[-1] == (
        "dvfd", "phase delayed by 2 weeks", "the test still fails after 1 week"
    )  # fmt: skip


def test_a_fix_that_is_taken_back_is_in_the_journal() -> None:
    fixed = rules.caused(opened(), Cause.FIXED, moment(60), who="Ann", why="a fan", newest=9)
    found = rules.attached(fixed, ran(12, reasons=("too hot",)), moment(100))
    run = f"run r12 of {STABILITY} (record 12) is FAIL: too hot"

    assert told(found)[-2:] == [
        ("dvfd", "failure attached", run),
        ("dvfd", "fix taken back", f"the test failed again: {run}"),
    ]


def test_a_fix_that_is_taken_back_after_a_day_leaves_it_decided() -> None:
    fixed = rules.caused(opened(), Cause.FIXED, moment(60), who="Ann", why="a fan", newest=9)

    assert rules.attached(later(fixed, 61), ran(12), moment(DAY)).state is State.DECISION


def test_what_a_person_does_next_goes_by_the_state() -> None:
    assert rules.next_step(opened(), ()).startswith("find the cause: dvfd incident show i; then")
    assert rules.next_step(later(opened(), DAY), ()) == (
        "infrastructure looks for the cause; once it is fixed: "
        "dvfd incident update i --cause fixed --finding WHAT --by NAME"
    )
    for count, words in ((1, "1 test still"), (2, "2 tests still")):
        needs = [rules.Need(check="c", why="not run")] * count
        assert rules.next_step(fixed(), needs) == (
            f"run the suite of phase1 again, {words} to pass after the fix: dvfd incident show i"
        )


def test_every_transition_is_in_the_journal_with_when_who_and_why() -> None:
    found = later(opened(), DAY).journal

    assert [(entry.what, entry.who) for entry in found] == [
        ("opened", "dvfd"), ("open -> investigating", "dvfd"), ("investigating -> decision", "dvfd")
    ]  # fmt: skip
    assert all(entry.why and entry.at and entry.state for entry in found)


# --- The decision ---------------------------------------------------------------------------------


def test_a_cause_said_to_be_unknown_waits_for_the_end_of_the_first_hour() -> None:
    now = moment(60)
    said = rules.caused(opened(), Cause.UNKNOWN, now, who="Ann", why="looked", newest=9)

    assert later(said, HOUR - 1).state is State.OPEN
    assert later(said, HOUR).escalation == "infrastructure"


def test_a_cause_that_is_fixed_is_a_decision_at_once() -> None:
    said = rules.caused(opened(), Cause.FIXED, moment(60), who="Ann", why="a fan", newest=9)

    found = later(said, 61)

    assert (found.state, found.escalation) == (State.DECISION, "team")


def test_a_failure_after_the_fix_takes_the_fix_back() -> None:
    fixed = rules.caused(opened(), Cause.FIXED, moment(60), who="Ann", why="a fan", newest=9)

    found = rules.attached(later(fixed, 61), ran(12, at=100), moment(100))

    assert (found.cause, found.state, found.fixed_at) == ("", State.INVESTIGATING, None)
    assert found.still_failing


def test_a_failure_that_was_recorded_twice_is_attached_once() -> None:
    found = rules.attached(opened(), ran(12), moment(5))

    assert rules.attached(found, ran(12), moment(6)) is found


def test_a_pass_between_two_failures_does_not_hide_the_last_one() -> None:
    found = opened()
    for number, verdict in ((8, "FAIL"), (9, "PASS"), (10, "FAIL")):
        found = rules.attached(found, ran(number, verdict), moment(number))

    assert found.still_failing


@pytest.mark.parametrize(
    "more",
    [{"verdict": "UNKNOWN"}, {"verdict": "NOT_APPLICABLE"}, {"shortened": "20 s of 24 h"},
     {"processes": 2}],
)  # fmt: skip
def test_a_rerun_that_shows_nothing_takes_no_delay_away(more: dict) -> None:
    failed = rules.attached(opened(), ran(8, processes=4), moment(8))

    found = rules.attached(failed, ran(9, **{"verdict": "PASS", "processes": 4, **more}), moment(9))

    assert found.still_failing
    delay = later(found, DAY).delay
    assert delay is not None
    assert delay.weeks == 1


@pytest.mark.parametrize("verdict", ["PASS", "WAIVED"])
def test_a_test_that_passes_whole_fails_no_longer(verdict: str) -> None:
    failed = rules.attached(opened(), ran(8, processes=4), moment(8))

    found = rules.attached(failed, ran(9, verdict, processes=4), moment(9))

    assert not found.still_failing
    assert later(found, DAY).delay is None


def test_a_delay_is_never_made_shorter() -> None:
    second = rules.delayed(opened(), 2, moment(DAY), who="dvfd", why="failing")

    with pytest.raises(DvfdError, match="one of 2 weeks already"):
        rules.delayed(second, 1, moment(2 * DAY), who="Ann", why="so")


@pytest.mark.parametrize("weeks", [0, 3, True, "1"])
def test_a_phase_is_delayed_by_one_or_two_weeks(weeks: object) -> None:
    with pytest.raises(DvfdError, match="wanted 1 or 2"):
        rules.delayed(opened(), weeks, moment(), who="Ann", why="so")  # type: ignore[arg-type]


def test_a_second_week_counts_from_the_first_delay() -> None:
    first = rules.delayed(opened(), 1, moment(DAY), who="dvfd", why="failing")
    second = rules.delayed(first, 2, moment(3 * DAY), who="Ann", why="parts are on order")

    assert first.delay is not None
    assert second.delay is not None
    assert second.delay.until - first.delay.until == WEEK


# --- What is still to pass ------------------------------------------------------------------------


def fixed(at: float = 60.0) -> Incident:
    found = rules.caused(opened(), Cause.FIXED, moment(at), who="Ann", why="a fan", newest=9)
    return later(found, at)


def again(number: int = 12, verdict: str = "PASS", **more: object) -> object:
    return ran(number, verdict, at=2 * HOUR, **{"began": 1_800_000_000.0 + HOUR, **more})


@pytest.mark.parametrize(
    ("run", "lack"),
    [
        (again(), ""),
        (again(verdict="WAIVED"), ""),
        (again(9), "not run since the fix"),
        (again(began=1_800_000_000.0 + 59), "it began before the fix"),
        (again(verdict="UNKNOWN", shortened="1 min of 24 h"), "UNKNOWN (shortened: 1 min of 24 h)"),
        (again(shortened="1 min of 24 h"), "shortened, 1 min of 24 h"),
        (again(processes=2), "not run since the fix"),
        (again(phase="phase2a"), "not run since the fix"),
    ],
)
def test_a_rerun_counts_if_it_is_whole_and_later_than_the_fix(run: object, lack: str) -> None:
    needs = rules.needed(fixed(), [STABILITY], [run], processes=4)  # type: ignore[list-item]

    assert (needs[0].why if needs else "").endswith(lack)
    assert bool(needs) == bool(lack)


def test_a_pass_without_a_cause_resolves_nothing() -> None:
    found = rules.attached(later(opened(), DAY), ran(12, "PASS"), moment(DAY))

    assert rules.settled(found, [], moment(DAY)) is found


def test_what_is_resolved_takes_no_word_more() -> None:
    over = rules.settled(fixed(), [], moment(100))

    assert over.over
    assert over.resolved_at == moment(100).wall
    assert told(over)[-1] == (
        "dvfd",
        "decision -> resolved",
        "the whole suite of the phase was run again after the fix, and passed",
    )
    with pytest.raises(DvfdError, match="a further failure opens another"):
        rules.found(over, "more", moment(101), who="Ann")


def test_an_incident_comes_back_from_the_store_as_it_was() -> None:
    found = rules.delayed(fixed(), 2, moment(100), who="Ann", why="so")

    assert Incident.from_document(json.loads(json.dumps(found.to_document()))) == found


def test_what_is_no_incident_is_refused_with_what_is_wrong() -> None:
    with pytest.raises(DvfdError, match="no incident of ours: KeyError\\('delay'\\)"):
        Incident.from_document({})


# --- On a node ------------------------------------------------------------------------------------


def test_a_failed_test_calls_the_team_lead_alone_for_an_hour(place: Place) -> None:
    place.run()

    assert place.on["id"] == f"{STABILITY}-2"
    assert place.calls() == {"DvfdPhaseTestFailed": "team_lead"}
    place.pass_time(HOUR - 1)
    assert place.calls() == {"DvfdPhaseTestFailed": "team_lead"}
    place.pass_time(1)
    assert place.calls() == {"DvfdPhaseTestFailed": "team"}


def test_the_old_label_set_is_resolved_when_the_new_one_is_raised(place: Place) -> None:
    place.run()
    place.pass_time(DAY)

    ended = [e.alert.labels["escalation"] for e in place.pager.entries() if not e.firing]

    assert ended == ["team_lead", "team"]
    assert place.calls() == {"DvfdPhaseTestFailed": "infrastructure"}


def test_no_label_holds_a_value(place: Place) -> None:
    place.run()
    place.run()
    place.pass_time(2 * DAY)

    labels = [entry.alert.labels for entry in place.pager.entries()]

    assert {frozenset(each) for each in labels} == {frozenset({"check", "phase", "escalation"})}
    assert {each["check"] for each in labels} == {STABILITY}


def test_a_test_that_passes_or_is_of_production_opens_nothing(place: Place) -> None:
    place.run(verdict="PASS")
    place.run(verdict="UNKNOWN")
    place.run("daily", phase="production")

    assert not place.incidents.on()
    assert not place.calls()


def test_later_failures_are_attached_and_open_no_second_one(place: Place) -> None:
    place.run()
    place.run()
    place.run("hardware")

    assert [(i["check"], i["failed"]) for i in place.incidents.on()] == [
        (STABILITY, 2), ("hardware", 1)
    ]  # fmt: skip


def test_a_waived_failure_opens_nothing(place: Place) -> None:
    waiver = {"by": "Ann", "role": "CTO", "reason": "so", "expires": place.clock.now() + 60}
    place.evidence.append("waiver", f"{STABILITY}.throughput", waiver, submitted="ann")
    place.run()
    assert not place.incidents.on()

    place.clock.advance(61)
    place.run()

    assert place.on["failed"] == 1


def test_the_whole_story_of_a_cause_that_stays_unknown_and_is_found(place: Place) -> None:
    place.run()
    place.say(finding="looked at the fans")
    place.pass_time(DAY)
    assert (place.on["state"], place.on["escalation"]) == ("decision", "infrastructure")

    told = place.say(cause="fixed", finding="a fan stood still; it was exchanged")
    assert [need["check"] for need in told["needs"]] == list(SUITE)
    place.clock.advance(HOUR)
    place.suite(*SUITE[:-1])
    assert [need["check"] for need in place.on["needs"]] == ["loss_convergence"]
    place.suite("loss_convergence")

    assert not place.incidents.on()
    assert not place.calls()
    states = [r.body["state"] for r in place.evidence.records("incident")]
    assert states == ["open", "resolved"]


def test_a_test_that_still_fails_delays_its_phase_and_the_ledger_says_until_when(
    place: Place,
) -> None:
    place.run()
    place.pass_time(2 * HOUR)
    place.run()
    place.pass_time(DAY)

    (delay,) = place.evidence.records("delay")
    assert (delay.subject, delay.body["weeks"]) == ("phase1", 1)
    assert delay.body["until"] == pytest.approx(1_800_000_000.0 + DAY + WEEK, abs=HOUR)
    assert delay.body["incident"] == place.on["id"]
    assert place.calls() == {
        "DvfdPhaseTestFailed": "infrastructure", "DvfdPhaseDelayed": "authority"
    }  # fmt: skip

    place.pass_time(WEEK, every=DAY)
    assert [each.body["weeks"] for each in place.evidence.records("delay")] == [1, 2]
    place.pass_time(4 * WEEK, every=DAY)
    assert len(place.evidence.records("delay")) == 2


def test_without_a_rerun_nothing_says_that_it_still_fails(place: Place) -> None:
    place.run()
    place.pass_time(3 * WEEK, every=DAY)

    assert not place.evidence.records("delay")


def test_a_restart_loses_no_deadline_and_no_alert(place: Place) -> None:
    place.run()
    place.pass_time(HOUR / 2)
    place.restart()
    assert place.calls() == {"DvfdPhaseTestFailed": "team_lead"}

    place.clock.advance(HOUR / 2)
    place.restart()

    assert place.calls() == {"DvfdPhaseTestFailed": "team"}
    assert len(place.evidence.records("incident")) == 1


def test_a_clock_stepped_across_a_deadline_and_then_a_reboot_move_nothing(place: Place) -> None:
    place.run()
    place.clock.step(3 * DAY)
    place.pass_time(120, every=60)
    assert place.on["state"] == "open"

    place.restart(boot_id="b")
    place.clock.advance(HOUR - 300)
    place.incidents.tick()
    assert place.on["state"] == "open"
    place.clock.advance(200)
    place.incidents.tick()

    assert place.on["state"] == "investigating"


def test_what_failed_while_no_daemon_ran_is_opened_as_old_as_it_is(place: Place) -> None:
    record = place.evidence
    place.incidents.stop()
    document = place.run("hardware", "PASS").body
    failed = {**document, "results": [{**document["results"][0], "verdict": "FAIL"}]}
    record.append("run", "hardware", failed, submitted="ann")
    place.store.records.clear()  # also of what was seen
    place.clock.advance(2 * HOUR)

    place.restart()

    assert (place.on["state"], round(place.on["age"])) == ("investigating", 2 * HOUR)


def test_a_store_that_was_lost_brings_back_no_incident_that_was_resolved(place: Place) -> None:
    place.run()
    place.say(cause="fixed", finding="a fan")
    place.clock.advance(60)
    place.suite()
    assert not place.incidents.on()

    place.store.records.clear()
    place.restart()

    assert not place.incidents.on()


def test_a_full_disk_keeps_nobody_from_hearing_of_it(place: Place, monkeypatch) -> None:
    append = place.evidence.append

    def full(kind: str, *given: object, **more: object) -> object:
        if kind == "incident":
            raise StoreError("no space left")
        return append(kind, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(place.evidence, "append", full)
    place.run()
    assert place.calls() == {"DvfdPhaseTestFailed": "team_lead"}
    assert "no space" in place.incidents.trouble

    monkeypatch.setattr(place.evidence, "append", append)
    place.incidents.tick()

    assert len(place.evidence.records("incident")) == 1
    assert not place.incidents.trouble


def test_what_was_done_at_once_is_written_down(place: Place) -> None:
    place.run()
    (waiting,) = place.incidents.unpreserved()
    place.incidents.act(waiting)

    assert place.on["bundle"]["sha256"] == "ab"
    assert not place.incidents.unpreserved()
    assert place.at_once.asked == [waiting]


def test_what_crashed_at_once_is_written_down_and_not_done_again_and_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place.at_once, "asked", None)  # so that to append to it is no DvfdError
    place.run()
    (waiting,) = place.incidents.unpreserved()
    place.incidents._busy.add(waiting)

    place.incidents.act(waiting)

    assert "could not be done" in place.on["bundle"]["missing"][0]
    assert "could not be done" in place.on["action"]["words"]
    assert not place.incidents._busy


def test_what_was_done_to_a_job_is_kept_before_anything_is_sealed(place: Place) -> None:
    place.run()
    (waiting,) = place.incidents.unpreserved()

    def seal(incident: Incident, _record: object, acted: Acted) -> dict[str, object]:
        acted({"action": "stop", "words": "asked to end"})
        raise KeyboardInterrupt  # the daemon ends here

    place.incidents._at_once = seal
    with pytest.raises(KeyboardInterrupt):
        place.incidents.act(waiting)
    place.restart()

    assert place.on["action"] == {"action": "stop", "words": "asked to end"}
    assert place.incidents.unpreserved() == [waiting]  # what is still to do


# --- Another ledger -------------------------------------------------------------------------------


def renewed(place: Place) -> None:
    place.clock.advance(60)
    place.evidence.renew({"by": "Ann"}, submitted="ann")
    place.clock.advance(60)


def test_a_test_that_fails_in_a_renewed_ledger_opens_an_incident(place: Place) -> None:
    for _ in range(5):
        place.run("hardware", "PASS")
    renewed(place)

    place.run("hardware")

    assert place.on["check"] == "hardware"


def test_a_daemon_that_comes_after_the_ledger_was_renewed_reads_it_from_its_beginning(
    place: Place,
) -> None:
    for _ in range(5):
        place.run("hardware", "PASS")
    place.incidents.stop()
    renewed(place)
    document = body_of("hardware", at=place.clock.now())
    place.evidence.append("run", "hardware", document, submitted="ann")

    place.restart()

    assert place.on["check"] == "hardware"


def test_an_incident_of_a_renewed_ledger_never_takes_the_place_of_an_older_one(
    place: Place,
) -> None:
    place.run("hardware")
    place.say(cause="fixed", finding="a fan")
    place.clock.advance(60)
    place.suite()
    assert not place.incidents.on()
    renewed(place)

    place.run("hardware")

    old, new = sorted(place.incidents.ids())
    assert old == "hardware-2"
    assert (new.startswith("hardware-2-"), place.on["id"]) == (True, new)


def test_what_is_open_goes_on_in_a_renewed_ledger_and_is_resolved_by_its_runs(
    place: Place,
) -> None:
    for _ in range(5):
        place.run("hardware", "PASS")
    place.run()
    place.say(cause="fixed", finding="a fan")
    renewed(place)

    place.run()
    assert (place.on["failed"], place.on["cause"]) == (2, "")
    place.say(cause="fixed", finding="the other fan")
    place.clock.advance(60)
    place.suite()

    assert not place.incidents.on()
    states = [r.body["state"] for r in place.evidence.records("incident")]
    assert states == ["open", "resolved"]


def test_a_delay_stands_in_a_renewed_ledger_too(place: Place) -> None:
    place.run()
    place.say(delay=1, finding="parts are on order")
    place.evidence.renew({"by": "Ann"}, submitted="ann")

    place.run("openmpi_gloo", "PASS")

    assert [r.body["weeks"] for r in place.evidence.records("delay")] == [1]


def test_a_renewed_ledger_hears_nothing_of_what_was_over(place: Place) -> None:
    place.run()
    place.say(cause="fixed", finding="a fan")
    place.clock.advance(60)
    place.suite()
    renewed(place)
    place.run("openmpi_gloo", "PASS")

    place.restart()

    assert not place.evidence.records("incident")


# --- What people say ------------------------------------------------------------------------------


def test_a_file_is_kept_beside_the_incident_with_its_hash(place: Place, tmp_path: Path) -> None:
    place.run()
    content = base64.b64encode(b"what I saw").decode()

    told = place.say(file="../../notes.txt", content=content)

    (kept,) = (tmp_path / "incidents" / told["id"]).iterdir()
    assert (kept.name[4:], kept.read_bytes()) == ("notes.txt", b"what I saw")
    assert str(kept) in told["journal"][-1]["attached"]


def test_a_file_that_was_torn_midway_stands_in_nobodys_way(place: Place, tmp_path: Path) -> None:
    place.run()
    (open_,) = place.incidents.on()
    number = len(place.incidents.show({"id": open_["id"]})["journal"])
    torn = tmp_path / "incidents" / open_["id"] / f"{number:03d}-notes.txt"
    torn.parent.mkdir(parents=True, exist_ok=True)
    torn.write_bytes(b"what I")  # a kill, or a disk without room, before the journal knew of it
    torn.with_name(f".{torn.name}.part").write_bytes(b"wh")
    content = base64.b64encode(b"what I saw").decode()

    told = place.say(file="notes.txt", content=content)

    assert [path.name for path in torn.parent.iterdir()] == [torn.name]
    assert torn.read_bytes() == b"what I saw"
    assert str(torn) in told["journal"][-1]["attached"]


def test_a_file_for_which_there_is_no_room_is_told_and_leaves_nothing(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.run()
    content = base64.b64encode(b"what I saw").decode()

    with monkeypatch.context() as without_room:
        without_room.setattr("os.fsync", no_room)
        with pytest.raises(StoreError, match="not attached: No space left"):
            place.say(file="notes.txt", content=content)

    assert not [path for path in (tmp_path / "incidents").rglob("*notes*") if path.is_file()]
    assert place.say(file="notes.txt", content=content)["journal"][-1]["attached"]


def no_room(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "nothing said"),
        ({"cause": "fixed"}, "say with --finding"),
        ({"cause": "gone", "finding": "x"}, "wanted fixed or unknown"),
        ({"delay": 3}, "wanted 1 or 2"),
        ({"delay": True}, "wanted 1 or 2"),
        ({"finding": "x", "name": ""}, "missing"),
        ({"finding": "x" * 3000}, "at most"),
        ({"file": "a", "content": "%"}, "Base64"),
        ({"id": "nothing-1", "finding": "x"}, "no incident"),
    ],
)
def test_what_cannot_be_said_is_refused_and_changes_nothing(
    place: Place, said: dict, why: str
) -> None:
    place.run()
    before = place.incidents.show({"id": place.on["id"]})["journal"]

    with pytest.raises(DvfdError, match=why):
        place.say(**said)

    assert place.incidents.show({"id": place.on["id"]})["journal"] == before


def test_what_was_said_without_a_daemon_is_told_by_the_next_one(place: Place) -> None:
    place.run()
    pager, place.incidents._pager = place.incidents._pager, None
    place.say(cause="fixed", finding="a fan")
    place.incidents._pager = pager
    assert place.calls() == {"DvfdPhaseTestFailed": "team_lead"}

    place.restart()

    assert place.calls() == {"DvfdPhaseTestFailed": "team"}


def test_a_further_failure_opens_another_whose_alert_outlives_a_restart(place: Place) -> None:
    place.run()
    place.say(cause="fixed", finding="a fan")
    place.clock.advance(60)
    place.suite()
    place.run()
    assert place.on["failed"] == 1

    place.restart()

    assert place.calls() == {"DvfdPhaseTestFailed": "team_lead"}
    assert len(place.incidents.document()["incidents"]) == 2


def test_whoever_asks_how_it_stands_never_waits_for_the_disk(place: Place) -> None:
    place.run()

    with place.incidents._lock:  # as while the ledger is being written
        other = threading.Thread(target=place.incidents.failures, daemon=True)
        other.start()
        other.join(10)

        assert not other.is_alive()


def test_deadlines_that_nobody_looks_after_are_told(place: Place) -> None:
    place.incidents.start()
    try:
        with place.incidents._lock:
            place.clock.advance(120)

            assert "nobody looked after them for 120 s" in place.incidents.failures().trouble
    finally:
        place.incidents.stop()


def test_what_was_stopped_again_is_written_down(place: Place) -> None:
    place.run()
    place.at_once.again = lambda: "stopped again"

    place.incidents.act(place.on["id"])

    def journal() -> list[str]:
        return [e["why"] for e in place.incidents.show({"id": place.on["id"]})["journal"]]

    assert eventually(lambda: "stopped again" in journal(), 60)


def test_a_record_that_is_not_understood_stops_nothing_else(place: Place) -> None:
    broken = {"results": [{"severity": "critical", "verdict": "MAYBE"}], "phase": "phase1"}
    place.evidence.append("run", "hardware", broken, submitted="ann")
    place.run()

    assert place.on["check"] == STABILITY
    assert not place.incidents.trouble


# --- What is told of one --------------------------------------------------------------------------


def test_an_incident_in_short_says_what_a_page_shows(place: Place) -> None:
    at = place.clock.now()
    place.run()
    place.clock.advance(60)
    found = place.on

    assert {key: found[key] for key in ("check", "title", "phase", "node", "state")} == {
        "check": STABILITY, "title": f"Title of {STABILITY}", "phase": "phase1", "node": "n1",
        "state": "open",
    }  # fmt: skip
    assert (found["escalation"], found["cause"], found["age"]) == ("team_lead", "", 60.0)
    assert (found["opened_at"], found["resolved_at"]) == (at, None)
    assert found["why"] == f"{STABILITY}.throughput: 190 samples/s, wanted at least 250"
    assert (found["failed"], found["reran"], found["delayed_until"]) == (1, 0, None)
    assert (found["needs"], found["bundle"], found["action"]) == ([], None, None)
    assert found["due"]["at"] == pytest.approx(at + HOUR)
    assert found["next"].startswith("find the cause")


def test_what_is_over_calls_nobody_and_is_due_nothing(place: Place) -> None:
    place.run()
    place.say(cause="fixed", finding="a fan")
    place.clock.advance(60)
    place.suite()
    (found,) = place.incidents.document()["incidents"]

    assert (found["state"], found["escalation"], found["due"]) == ("resolved", "", None)
    assert found["resolved_at"] == place.clock.now()
    assert found["reran"] >= 1


def test_all_are_told_with_those_that_are_not_over_first_and_the_newest_of_them_first(
    place: Place,
) -> None:
    place.run()
    place.say(cause="fixed", finding="a fan")
    place.clock.advance(60)
    place.suite()
    for check in ("hardware", "pytorch"):
        place.clock.advance(60)
        place.run(check)

    found = place.incidents.document()
    assert [each["check"] for each in found["incidents"]] == ["pytorch", "hardware", STABILITY]
    assert (found["at"], found["trouble"]) == (place.clock.now(), "")
    assert [each["check"] for each in place.incidents.on()] == ["hardware", "pytorch"]
    assert place.incidents.ids() == sorted(each["id"] for each in found["incidents"])


def test_one_of_them_is_told_with_its_suite_and_without_what_is_ours_alone(place: Place) -> None:
    place.run()
    told = place.incidents.show({"id": place.on["id"]})

    assert told["suite"] == list(SUITE)
    assert not {"mark", "fixed_after"} & told.keys()
    assert (told["state"], len(told["failures"])) == ("open", 1)


def test_of_an_unknown_one_it_is_said_how_to_find_the_known_ones(place: Place) -> None:
    with pytest.raises(DvfdError) as refused:
        place.incidents.show({"id": "nothing-1"})
    assert str(refused.value) == "no incident 'nothing-1' is known here: dvfd incident list"


def test_a_word_is_kept_under_the_name_that_was_given_and_the_one_that_gave_it(
    place: Place,
) -> None:
    place.run()
    id_ = place.on["id"]
    said = place.say(finding="it hums")
    own = place.incidents.update({"id": id_, "name": "ann", "finding": "it roars"}, "ann")

    assert said["journal"][-1]["who"] == "Ann Lee (as ann)"
    assert (own["journal"][-1]["who"], own["journal"][-1]["why"]) == ("ann", "it roars")


def test_a_delay_without_a_reason_and_a_file_without_a_finding_say_what_they_can(
    place: Place,
) -> None:
    place.run()
    content = base64.b64encode(b"x").decode()

    assert place.say(delay=1)["journal"][-1]["why"] == "said so"
    assert place.say(file="a.txt", content=content)["journal"][-1]["why"] == "a.txt"
    told = place.say(file="b.txt", content=content, finding="a picture")
    assert [entry["why"] for entry in told["journal"][-2:]] == ["a.txt", "a picture"]


def test_a_cause_is_held_against_the_newest_run_of_all(place: Place) -> None:
    place.run()
    number = place.run("pytorch", "PASS").number
    id_ = place.on["id"]
    place.say(cause="fixed", finding="a fan")

    assert place.incidents._found[id_].fixed_after == number


def test_a_file_is_kept_whole_with_its_size_and_up_to_a_mebibyte(
    place: Place, tmp_path: Path
) -> None:
    place.run()
    most = base64.b64encode(bytes(1 << 20)).decode()
    told = place.say(file="core", content=most)["journal"][-1]["attached"]
    (kept,) = (tmp_path / "incidents" / place.on["id"]).iterdir()
    digest = hashlib.sha256(bytes(1 << 20)).hexdigest()

    assert told == f"{kept}, 1048576 bytes, sha256 {digest}"
    assert kept.name == "001-core"
    more = base64.b64encode(bytes((1 << 20) + 1)).decode()
    with pytest.raises(DvfdError) as refused:
        place.say(file="core", content=more)
    assert str(refused.value) == (
        "attach: 1048577 bytes, wanted at most 1048576: put it where it stays, and name it in "
        "--finding"
    )


def test_a_file_that_cannot_be_kept_is_not_in_the_journal(place: Place, tmp_path: Path) -> None:
    place.run()
    (tmp_path / "incidents").write_text("no directory")
    content = base64.b64encode(b"x").decode()
    with pytest.raises(StoreError, match="01-a: not attached: "):
        place.say(file="a", content=content)

    assert len(place.incidents.show({"id": place.on["id"]})["journal"]) == 1


def test_the_ledger_has_who_opened_it_why_and_with_which_runs(place: Place) -> None:
    first = place.run().number
    second = place.run().number
    place.say(cause="fixed", finding="a fan")
    place.clock.advance(60)
    place.suite()
    opening, end = place.evidence.records("incident")

    assert (opening.submitted, opening.body["failures"]) == ("dvfd", [first])
    assert (opening.body["check"], opening.body["phase"]) == (STABILITY, "phase1")
    assert opening.body["why"].startswith(f"run run-{STABILITY} of {STABILITY}")
    assert (end.body["failures"], len(end.body["reruns"])) == ([first, second], 1)
    assert end.body["why"].startswith("the whole suite of the phase was run again")


def test_a_delay_in_the_ledger_says_who_wanted_it_and_why(place: Place) -> None:
    place.run()
    place.say(delay=1, finding="parts are on order")
    (delay,) = place.evidence.records("delay")

    assert (delay.submitted, delay.body["reason"]) == ("Ann Lee (as ann)", "parts are on order")
    assert (delay.body["weeks"], delay.body["incident"]) == (1, place.on["id"])


# --- What a record says ---------------------------------------------------------------------------


def read(place: Place, waived: dict[str, float] | None = None, **more: object) -> Ran:
    document = body_of(at=place.clock.now(), **more)  # type: ignore[arg-type]
    record = place.evidence.append("run", STABILITY, document, submitted="ann")
    return protocol.ran(record, waived or {}, "phase1", "ledger-1")


def test_a_run_is_what_its_record_says(place: Place) -> None:
    at = place.clock.now()
    found = read(place, shortened="1 min of 24 h")

    assert (found.run, found.check, found.title) == (
        f"run-{STABILITY}", STABILITY, f"Title of {STABILITY}"
    )  # fmt: skip
    assert (found.phase, found.verdict, found.processes) == ("phase1", "FAIL", 4)
    assert (found.at, found.began, found.ended) == (at, at - HOUR, at)
    assert (found.shortened, found.ledger) == ("1 min of 24 h", "ledger-1")
    assert found.reasons == (f"{STABILITY}.throughput: 190 samples/s, wanted at least 250",)


def test_a_run_that_says_next_to_nothing_is_read_all_the_same(place: Place) -> None:
    record = place.evidence.append("run", STABILITY, {"verdict": "PASS"}, submitted="ann")
    found = protocol.ran(record, {}, "phase1")

    assert (found.verdict, found.run, found.title, found.shortened) == ("PASS", "", "", "")
    assert (found.processes, found.began, found.ended, found.reasons) == (0, 0.0, 0.0, ())
    assert found.ledger == ""


def test_a_run_without_a_word_on_its_verdict_is_not_known(place: Place) -> None:
    record = place.evidence.append("run", STABILITY, {}, submitted="ann")
    assert protocol.ran(record, {}, "phase1").verdict == "UNKNOWN"


def test_only_what_is_critical_decides_a_run(place: Place) -> None:
    base = {"criterion": "c", "reason": "r"}
    rows = [{**base, "verdict": "PASS", "severity": "critical"},
            {**base, "verdict": "FAIL", "severity": "warning"}]  # fmt: skip
    assert read(place, results=rows).verdict == "PASS"


@pytest.mark.parametrize(
    ("verdict", "left", "found"),
    [("FAIL", 1.0, "WAIVED"), ("FAIL", 0.0, "FAIL"), ("UNKNOWN", 1.0, "WAIVED"),
     ("PASS", 1.0, "PASS"), ("UNKNOWN", -1.0, "UNKNOWN")],
)  # fmt: skip
def test_a_waiver_counts_to_its_last_second(
    place: Place, verdict: str, left: float, found: str
) -> None:
    waived = {f"{STABILITY}.throughput": place.clock.now() + left}
    assert read(place, waived, verdict=verdict).verdict == found


@pytest.mark.parametrize("expires", [None, "never"])
def test_a_waiver_without_an_end_waives_nothing(place: Place, expires: object) -> None:
    waiver = {"by": "Ann", "role": "CTO", "reason": "so", "expires": expires}
    place.evidence.append("waiver", f"{STABILITY}.throughput", waiver, submitted="ann")
    place.run()
    assert place.on["failed"] == 1


def test_a_failure_is_too_old_to_stop_anything_after_ten_minutes() -> None:
    incident = opened()
    assert not protocol.overdue(incident, moment(600))
    assert protocol.overdue(incident, moment(601))
    assert protocol.too_late(incident, moment(1200)) == (
        "nothing was stopped: the failure was noticed 20 min after it was recorded"
    )


@pytest.mark.parametrize(
    ("began", "spared"), [(-1.0, False), (0.0, False), (1.0, True), (100.0, True), (101.0, False)]
)
def test_what_began_between_the_failure_and_now_is_no_part_of_it(
    began: float, *, spared: bool
) -> None:
    process = Process(5, int((1000.0 + began) * protocol.TICKS))
    assert protocol.between(process, opened(), moment(100)) is spared


def test_what_began_after_the_run_ended_is_spared_though_it_was_recorded_late() -> None:
    run = replace(ran(), ended=ran().at - 30)
    late = rules.opened(run, incident_id="i", node="n1", now=moment())
    began = [Process(5, int((1000.0 - ago) * protocol.TICKS)) for ago in (29, 31)]

    assert [protocol.between(each, late, moment(100)) for each in began] == [True, False]


@pytest.mark.parametrize(
    ("bundle", "words"),
    [
        ({"path": "b", "bytes": 9, "parts": 2, "sha256": "ab"}, "b: 9 bytes in 2 parts, sha256 ab"),
        ({"path": "b", "bytes": 9, "parts": 2, "sha256": "ab", "missing": ["k: no", "l: late"]},
         "b: 9 bytes in 2 parts, sha256 ab; missing: k: no; l: late"),
        ({"path": "", "missing": ["nothing was preserved: full"]}, "nothing was preserved: full"),
    ],
)  # fmt: skip
def test_what_was_preserved_is_in_the_journal_in_a_sentence(
    place: Place, bundle: dict, words: str
) -> None:
    place.run()
    place.incidents._at_once = lambda _incident, _record, _acted: bundle
    place.incidents.act(place.on["id"])
    entry = place.incidents.show({"id": place.on["id"]})["journal"][-1]

    assert (entry["who"], entry["what"], entry["why"]) == ("dvfd", "preserved", words)
    assert place.on["bundle"] == bundle


def test_what_is_done_at_once_is_given_the_record_that_failed(place: Place) -> None:
    record = place.run()
    place.run("pytorch", "PASS")
    given = []
    place.incidents._at_once = lambda _incident, found, _acted: given.append(found) or {}
    place.incidents.act(place.on["id"])

    assert [each.number for each in given] == [record.number]


def test_a_stop_is_in_the_journal_as_the_daemons(place: Place) -> None:
    place.run()
    place.incidents.act(place.on["id"])
    stop = place.incidents.show({"id": place.on["id"]})["journal"][-2]

    assert (stop["who"], stop["what"], stop["why"]) == ("dvfd", "stop", "left alone")
    assert place.on["action"] == {"action": "notify", "words": "left alone"}


def test_a_store_that_cannot_be_read_yet_opens_nothing_and_is_told(place: Place) -> None:
    place.incidents._known, place.incidents._restored = lambda: False, False
    place.run()
    assert not place.incidents.on()
    assert place.incidents.trouble == "the store could not be read yet"

    place.incidents._known = lambda: True
    place.incidents.tick()
    assert (place.on["failed"], place.incidents.trouble) == (1, "")


def test_a_minute_without_a_look_is_nothing_and_more_is_told(place: Place) -> None:
    place.incidents.start()
    try:
        with place.incidents._lock:
            place.clock.advance(60)
            assert not place.incidents.trouble
            place.clock.advance(1)
            assert "nobody looked after them for 61 s" in place.incidents.trouble
    finally:
        place.incidents.stop()


def test_one_that_keeps_nothing_writes_nothing_down(place: Place) -> None:
    place.run()
    before = {kind: place.store.all(kind) for kind in ("incident", "incidents seen")}
    place.incidents._keeps = False
    place.run("pytorch")

    assert [each["check"] for each in place.incidents.on()] == [STABILITY, "pytorch"]
    assert {kind: place.store.all(kind) for kind in before} == before
    assert len(place.evidence.records("incident")) == 1


def test_a_stored_incident_that_is_not_understood_keeps_no_other_away(place: Place) -> None:
    place.run()
    place.store.put("incident", "broken", {"id": "broken"})
    place.restart()
    assert place.on["check"] == STABILITY


def test_a_daemon_is_asked_for_all_for_one_and_to_take_a_word(place: Place) -> None:
    place.run()
    asked = protocol.operations(place.incidents)
    peer = Peer(pid=1, uid=2**31, gid=0)  # nobody's number, which is then the name
    id_ = place.on["id"]

    assert asked["incidents"].answer({}, peer)["incidents"][0]["id"] == id_
    assert asked["incident"].answer({"id": id_}, peer)["id"] == id_
    told = asked["incident_update"].answer({"id": id_, "name": "Ann", "finding": "x"}, peer)
    assert told["journal"][-1]["who"] == f"Ann (as {peer.name})"
    assert [asked[name].changes for name in sorted(asked)] == [False, True, False]


# --- Over a restart, and in threads ---------------------------------------------------------------


def test_how_far_the_ledger_was_read_is_kept_with_which_ledger_it_was(place: Place) -> None:
    number = place.run().number
    assert place.store.all("incidents seen") == {
        "ledger": {"number": number, "cluster": place.evidence.cluster}
    }


def test_what_was_read_once_is_not_judged_anew_by_the_next_daemon(place: Place) -> None:
    waiver = {"by": "Ann", "role": "CTO", "reason": "so", "expires": place.clock.now() + 60}
    place.evidence.append("waiver", f"{STABILITY}.throughput", waiver, submitted="ann")
    place.run()
    ended = waiver | {"expires": place.clock.now() - 60}
    place.evidence.append("waiver", f"{STABILITY}.throughput", ended, submitted="ann")

    place.restart()

    assert not place.incidents.on()


def test_a_restart_does_not_forget_which_runs_came_before_the_fix(place: Place) -> None:
    number = place.run().number
    place.say(cause="fixed", finding="a fan")
    place.restart()
    assert place.incidents._found[place.on["id"]].fixed_after == number


def test_whose_word_the_cause_is_stands_in_the_journal(place: Place) -> None:
    place.run()
    told = place.say(cause="unknown", finding="looked at the fans")["journal"]
    assert [(e["who"], e["why"]) for e in told if e["what"] == "cause unknown"] == [
        ("Ann Lee (as ann)", "looked at the fans")
    ]


def test_a_file_without_content_is_empty(place: Place) -> None:
    place.run()
    assert ", 0 bytes, " in place.say(file="a.txt")["journal"][-1]["attached"]


def test_an_action_without_words_is_told_without_any(place: Place) -> None:
    place.run()

    def silent(_incident: Incident, _record: object, acted: Acted) -> dict[str, object]:
        acted({"action": "notify"})
        return {}

    place.incidents._at_once = silent
    place.incidents.act(place.on["id"])
    stop = place.incidents.show({"id": place.on["id"]})["journal"][-2]
    assert (stop["what"], stop["why"]) == ("stop", "")


def test_a_failure_of_a_ledger_without_a_name_is_of_this_one(place: Place) -> None:
    record = place.run()
    id_ = place.on["id"]
    known = place.incidents._found[id_]
    nameless = tuple(replace(run, ledger="") for run in known.failures)
    place.incidents._found[id_] = replace(known, failures=nameless)
    given = []
    place.incidents._at_once = lambda _incident, found, _acted: given.append(found) or {}
    place.incidents.act(id_)

    assert [each.number for each in given] == [record.number]


def test_what_is_to_be_done_at_once_is_done_beside_the_watch_and_waited_for(
    place: Place,
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow(_incident: Incident, _record: object, _acted: Acted) -> dict[str, object]:
        begun.set()
        may_end.wait(60)
        return {"path": "", "missing": ["slow"]}

    place.incidents._at_once = slow
    place.incidents.start()
    try:
        place.run()
        assert begun.wait(60)
        assert place.on["bundle"] is None
        threading.Timer(0.2, may_end.set).start()
    finally:
        place.incidents.stop()

    assert place.on["bundle"] == {"path": "", "missing": ["slow"]}


def test_one_that_does_nothing_at_once_looks_after_deadlines_all_the_same(place: Place) -> None:
    place.incidents._at_once = None
    place.incidents.start()
    try:
        place.run()
        assert not place.incidents.trouble
        assert place.incidents.unpreserved() == [place.on["id"]]
    finally:
        place.incidents.stop()


def test_no_thread_keeps_a_daemon_from_ending(place: Place) -> None:
    assert place.incidents._thread.daemon


@pytest.mark.parametrize(("key", "most"), [("name", 100), ("finding", 2000)])
def test_a_word_has_its_length(place: Place, key: str, most: int) -> None:
    place.run()
    place.say(**{"finding": "x", key: "y" * most})
    with pytest.raises(DvfdError, match=f"at most {most}"):
        place.say(**{"finding": "x", key: "y" * (most + 1)})
