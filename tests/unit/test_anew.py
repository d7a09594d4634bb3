"""What is judged anew is judged beside everything else, and once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from fakes import FakeClock
from testbed import eventually

from dvfd import notify
from dvfd.anew import AGAIN, Anew
from dvfd.config import Config, Profile
from dvfd.daemon import Daemon
from dvfd.model import Report, Result, Verdict, Waived


class Judge:
    """Judges once it may, and fails as often as it is told to."""

    def __init__(self, *, fails: int = 0) -> None:
        self.may = threading.Event()
        self.asked = 0
        self._fails = fails

    def __call__(self) -> None:
        self.asked += 1
        assert self.may.wait(10)
        if self.asked <= self._fails:
            raise RuntimeError("no such days")


def over(anew: Anew) -> bool:
    """Whether nothing is owed any more."""
    return not anew._owed


def test_whoever_asks_does_not_wait() -> None:
    anew, judge = Anew(FakeClock()), Judge()

    assert anew.ask("weekly", judge)
    anew.tick()  # and comes back, though nobody lets it judge yet

    assert eventually(lambda: judge.asked == 1, 60)
    judge.may.set()
    assert eventually(lambda: over(anew), 60)


def test_a_check_that_is_being_judged_is_not_judged_beside_itself() -> None:
    anew, judge = Anew(FakeClock()), Judge()
    anew.ask("weekly", judge)
    anew.tick()

    assert not anew.ask("weekly", judge)
    anew.tick()
    judge.may.set()

    assert eventually(lambda: over(anew), 60)
    assert judge.asked == 1


def test_what_failed_is_tried_again_after_a_while_and_hurts_nobody() -> None:
    clock = FakeClock()
    anew, judge = Anew(clock), Judge(fails=1)
    judge.may.set()
    anew.ask("weekly", judge)
    anew.tick()
    assert eventually(lambda: "weekly" in anew._failed_at, 60)

    anew.stop()  # the thread is over
    anew._ended = False
    anew.tick()
    assert judge.asked == 1
    clock.advance(AGAIN)
    anew.tick()

    assert eventually(lambda: over(anew), 60)
    assert judge.asked == 2


def test_nothing_begins_after_the_end() -> None:
    anew, judge = Anew(FakeClock()), Judge()
    anew.ask("weekly", judge)

    anew.stop()
    anew.tick()

    assert not judge.asked


def test_a_daemon_gives_signs_of_life_while_a_lapsed_waiver_has_a_list_reviewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVFD_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("DVFD_RUNTIME_DIR", str(tmp_path))
    signs: list[str] = []
    monkeypatch.setattr(notify, "notify", signs.append)
    daemon = Daemon(Config(profile=Profile(nodes=1, expected_throughput=250.0)))
    monkeypatch.setattr(daemon, "loops", dict)
    weekly = daemon._catalogue.checks["weekly"]
    at = daemon._clock.now()
    waived = Waived(
        verdict=Verdict.FAIL, found="f", by="A", role="B", reason="r", expires=at - 1, record=2
    )
    first, *rest = weekly.criteria
    unknown = [Result.unknown(each, at, "-") for each in rest]
    lapsed = Result(first, Verdict.WAIVED, at - 60, "w", waived=waived)
    daemon._state.tell(Report(weekly, (lapsed, *unknown), at))
    may = threading.Event()
    monkeypatch.setattr(daemon._judgements, "_reviewed", lambda _check: may.wait(10) and None)

    daemon.tick()

    assert daemon._state.lapsed() == {"weekly"}  # nobody let it be judged yet
    assert signs == ["WATCHDOG=1"]
    may.set()
    assert eventually(lambda: not daemon._state.lapsed(), 60)
