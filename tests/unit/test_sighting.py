"""Every node is seen by its own /metrics; who is not seen says why."""

from __future__ import annotations

import pytest
from fakes import FakeClock
from fakes_sinks import whole

from dvfd.config import Member
from dvfd.errors import DvfdError
from dvfd.model import Verdict
from dvfd.remote import Answer
from dvfd.scraped import exposed
from dvfd.sighting import by_nodes, targets
from dvfd.sinks.prometheus import Exposition

EXPOSITION = Exposition(whole(FakeClock()).snapshot).text()
N1 = Member(name="n1", address="10.0.0.1", url="http://10.0.0.1:9109")
N2 = Member(name="n2", address="10.0.0.2", url="http://user:secret@n2.example:9109")
N3 = Member(name="n3", address="10.0.0.3")


NOW = FakeClock().now()


def ok(body: bytes, status: int = 200) -> Answer:
    return Answer(status, body, NOW, NOW)


# --- /metrics -------------------------------------------------------------------------------------


def test_a_node_is_read_from_what_it_really_exposes():
    def get(url, **_):
        assert url == "http://10.0.0.1:9109/metrics"
        return ok(EXPOSITION)

    [found] = by_nodes([N1], get)

    assert (found.why, found.troubles) == ("", ())
    assert found.checks["live"] is Verdict.PASS
    assert len(found.catalogue) == 12
    assert found.criteria["daily.memory"] is Verdict.PASS
    assert len(found.figures) == 2


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"<html>", 200, "cannot be read|no dvfd_build_info"),
        (b"\xff\xfe", 200, "cannot be read"),
        (b"", 200, "no dvfd_build_info"),
        (b"dvfd_check_verdict{check=", 200, "cannot be read"),
        (EXPOSITION, 500, "answers 500"),
    ],
)
def test_what_is_no_exposition_is_a_node_not_seen(body, status, why):
    import re

    [found] = by_nodes([N1], lambda url, **_: ok(body, status))

    assert re.search(why, found.why)
    assert not found.checks


def test_who_does_not_answer_or_has_no_url_is_named_and_the_others_are_seen():
    def get(url, **_):
        if "n2" in url:
            raise DvfdError("http://***@n2.example:9109/metrics: Connection refused")
        return ok(EXPOSITION)

    found = by_nodes([N1, N2, N3], get)

    assert [seen.node for seen in found] == ["n1", "n2", "n3"]
    assert [bool(seen.why) for seen in found] == [False, True, True]
    assert "no url" in found[2].why


def test_a_number_that_is_none_says_nothing():
    told = b"dvfd_build_info 1\ndvfd_rank_compute_seconds NaN\ndvfd_store_ok +Inf\n"

    assert [each.name for each in exposed(told)] == ["dvfd_build_info"]


def test_a_nodes_words_move_no_cursor_and_fill_no_page():
    body = b'dvfd_build_info{version="\x1b[2J%s",catalogue="",profile=""} 1\n' % (b"9" * 9000)
    [info] = exposed(body)

    assert "\x1b" not in info.labels["version"]
    assert len(info.labels["version"]) == 200


# --- Which target is whose ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instances", "mine"),
    [
        (["10.0.0.1:9109", "10.0.0.1:9100"], ["10.0.0.1:9109"]),
        (["n1:9109", "n10:9109", "10.0.0.10:9109", "10x0.0.1:1"], ["n1:9109"]),
        (["n1"], ["n1"]),
        (["10.0.0.2:9109"], []),
    ],
)
def test_a_target_is_a_nodes_own_by_its_url_else_by_name_or_address(instances, mine):
    assert targets(N1, instances) == mine
