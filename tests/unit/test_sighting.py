"""Every node is seen by its own /metrics or by Prometheus; who is not seen says why."""

from __future__ import annotations

import json
from urllib.parse import unquote

import pytest
from fakes import FakeClock
from fakes_sinks import whole

from dvfd.config import Member
from dvfd.errors import DvfdError, ProbeError
from dvfd.model import Verdict
from dvfd.remote import Answer
from dvfd.scraped import answered, exposed
from dvfd.sighting import by_nodes, by_prometheus, targets
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


# --- Prometheus -----------------------------------------------------------------------------------


def vector(*rows: tuple[dict, float]) -> bytes:
    result = [{"metric": labels, "value": [1e9, str(value)]} for labels, value in rows]
    return json.dumps(
        {"status": "success", "data": {"resultType": "vector", "result": result}}
    ).encode()


class Prometheus:
    """Has scraped n1 three seconds ago; a test says otherwise."""

    def __init__(self):
        self.up = {"10.0.0.1:9109": 1.0}
        self.ages = {"10.0.0.1:9109": 3.0}
        self.asked = []

    def __call__(self, url, **_):
        expression = unquote(url.partition("query=")[2])
        self.asked.append(expression)
        if expression.startswith("up"):
            return ok(vector(*(({"instance": i}, v) for i, v in self.up.items())))
        if expression.startswith("time"):
            return ok(vector(*(({"instance": i}, v) for i, v in self.ages.items())))
        named = [
            ({"__name__": s.name, "instance": i, **s.labels}, s.value)
            for i in self.up
            for s in exposed(EXPOSITION)
        ]
        return ok(vector(*named if expression.startswith("{") else []))


def test_a_node_is_seen_as_prometheus_scraped_it():
    [found] = by_prometheus("http://p:9090", [N1], ["weekly"], Prometheus())

    assert (found.why, found.age) == ("", 3.0)
    assert found.checks["live"] is Verdict.PASS


@pytest.mark.parametrize(
    ("up", "ages", "why"),
    [
        ({}, {}, "no target of Prometheus is its own"),
        ({"10.0.0.1:9109": 0.0}, {"10.0.0.1:9109": 3.0}, "gets no answer of 10.0.0.1:9109"),
        ({"10.0.0.1:9109": 1.0}, {"10.0.0.1:9109": 500.0}, "last seen 500 s ago"),
        ({"10.0.0.1:9109": 1.0}, {}, "does not say when"),
        ({"n1:1": 1.0, "n1:2": 1.0}, {}, "2 targets are its own"),
    ],
)
def test_whom_prometheus_does_not_see_is_not_seen(up, ages, why):
    server = Prometheus()
    server.up, server.ages = up, ages
    [found] = by_prometheus("http://p:9090", [N1], [], server)

    assert why in found.why


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"status": "error", "error": "query timed out"}',
     b'{"status": "success", "data": {"resultType": "matrix", "result": []}}', b"[" * 99999],
)  # fmt: skip
def test_a_prometheus_that_does_not_answer_blinds_all(body):
    found = by_prometheus("http://p:9090", [N1, N2], [], lambda url, **_: ok(body))

    assert [seen.node for seen in found] == ["n1", "n2"]
    assert all(seen.why.startswith("Prometheus: ") for seen in found)


def test_rows_that_are_none_are_left_out():
    result = [
        {"metric": {}, "value": [1, "x"]},
        {"metric": 7},
        8,
        {"metric": {}, "value": [1, "NaN"]},
    ]
    body = {"status": "success", "data": {"resultType": "vector", "result": result}}

    assert answered(json.dumps(body).encode()) == []


def test_only_the_clusters_own_targets_are_asked_for():
    server = Prometheus()
    by_prometheus("http://p:9090", [N1, N2], ["weekly", "monthly"], server)

    assert all('job="dvfd"' in each and "10\\\\.0\\\\.0\\\\.1" in each for each in server.asked)
    assert 'check=~"monthly|weekly"' in server.asked[-1]
    assert not any("secret" in each for each in server.asked)


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


def test_an_error_of_prometheus_keeps_its_words():
    with pytest.raises(ProbeError, match="refuses: too many"):
        answered(b'{"status": "error", "error": "too many samples"}')
