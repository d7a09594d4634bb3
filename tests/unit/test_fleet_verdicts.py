"""The verdicts of many nodes as one: the worst decides, none is green while one is missing."""

from __future__ import annotations

from functools import partial
from itertools import product

import pytest
from fakes_output import valid
from fakes_sinks import NOW, catalogue, check, criterion, sample
from hypothesis import given
from hypothesis import strategies as st

from dvfd import fleet
from dvfd.cli.fleet import text
from dvfd.fleet import Seen, balances, counted
from dvfd.judge import judge
from dvfd.model import Combine, Comparison, Limit, Scope, Severity, Verdict
from dvfd.scraped import Series

OURS = catalogue().hash
PASS, FAIL, UNKNOWN, NA = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN, Verdict.NOT_APPLICABLE
LIVE = check("live", criterion(), watch=True)
LED = check("network", criterion("network.goodput", scope=Scope.CLUSTER))
BOTH = check(
    "weekly",
    criterion("weekly.memory"),
    criterion("weekly.review", scope=Scope.CLUSTER),
    criterion("weekly.hint", severity=Severity.WARNING),
)


def node(name: str, verdict: Verdict = PASS, **keys) -> Seen:
    given_ = {"catalogue": OURS, "age": 1.0, "checks": {"live": verdict, "network": verdict}}
    return Seen(node=name, **(given_ | keys))


def count(of, *nodes: Seen, lead: str = "n1") -> fleet.Counted:
    return counted(of, nodes, lead=lead, catalogue=OURS)


# --- The worst decides ----------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), [*product((PASS, FAIL, UNKNOWN), repeat=2)])
def test_the_worst_of_two_nodes_decides(a, b):
    wanted = FAIL if FAIL in {a, b} else UNKNOWN if UNKNOWN in {a, b} else PASS

    assert count(LIVE, node("n1", a), node("n2", b)).verdict is wanted


MISSING = [
    {"why": "no answer"},
    {"troubles": ("its store keeps nothing",)},
    {"catalogue": "beef"},
    {"catalogue": ""},
    {"checks": {}},
]


@pytest.mark.parametrize("keys", MISSING, ids=str)
def test_a_pass_beside_a_node_that_cannot_be_relied_on_is_unknown(keys):
    found = count(LIVE, node("n1"), node("n2", **keys))

    assert found.verdict is UNKNOWN
    assert found.nodes == {"n1": PASS, "n2": UNKNOWN}
    assert ("checks" in keys) or found.reasons["n2"]


@pytest.mark.parametrize("keys", [{"troubles": ("x",)}, {"catalogue": "beef"}], ids=str)
def test_a_failure_counts_whoever_saw_it(keys):
    assert count(LIVE, node("n1"), node("n2", FAIL, **keys)).verdict is FAIL


@given(
    st.lists(st.sampled_from([*Verdict]), min_size=1, max_size=6),
    st.lists(st.sampled_from(["", "gone"]), min_size=6, max_size=6),
)
def test_no_set_of_nodes_passes_while_one_of_them_is_missing(verdicts, whys):
    nodes = [node(f"n{i}", v, why=whys[i]) for i, v in enumerate(verdicts)]

    for of in (LIVE, LED, BOTH):
        if any(n.why for n in nodes):
            assert count(of, *nodes).verdict in {UNKNOWN, FAIL}


def test_nodes_to_which_nothing_applies_do_not_pass_alone_and_do_not_spoil_others():
    assert count(LIVE, node("n1", NA)).verdict is UNKNOWN
    assert count(LIVE, node("n1", NA), node("n2")).verdict is PASS


def test_nobody_is_no_pass():
    assert count(LIVE).verdict is UNKNOWN


# --- What only the lead judges --------------------------------------------------------------------


def test_what_the_lead_alone_judges_is_its_word():
    assert count(LED, node("n1"), node("n2", UNKNOWN)).verdict is PASS
    assert count(LED, node("n1", UNKNOWN), node("n2")).verdict is UNKNOWN
    assert count(LED, node("n1"), node("n2", FAIL)).verdict is FAIL
    assert count(LED, node("n1", why="gone"), node("n2")).verdict is UNKNOWN


@pytest.mark.parametrize(
    ("memory", "whole", "wanted"),
    [
        (PASS, UNKNOWN, PASS),  # the review is nobody's but the lead's
        (UNKNOWN, UNKNOWN, UNKNOWN),
        (FAIL, FAIL, FAIL),
        (PASS, FAIL, FAIL),
        (NA, UNKNOWN, NA),
        (None, UNKNOWN, UNKNOWN),
    ],
)
def test_of_a_check_of_both_kinds_another_node_answers_for_its_own_part(memory, whole, wanted):
    criteria = {"weekly.review": UNKNOWN, "weekly.hint": UNKNOWN}
    criteria |= {"weekly.memory": memory} if memory else {}
    other = node("n2", checks={"weekly": whole}, criteria=criteria)
    led = node("n1", checks={"weekly": PASS})

    assert count(BOTH, led, other).nodes["n2"] is wanted


# --- What a node said -----------------------------------------------------------------------------


def series(*more: Series, verdict: str = "PASS") -> list[Series]:
    info = {"version": "1.0", "catalogue": OURS[:12], "profile": "decaf"}
    said = {"check": "live", "verdict": verdict}
    return [
        Series("dvfd_build_info", 1, info), Series("dvfd_check_verdict", 1, said),
        Series("dvfd_loop_late", 0, {"loop": "watch"}), Series("dvfd_store_ok", 1),
        Series(fleet.LAST_READ, NOW - 600, {"probe": "a"}),
        Series(fleet.LAST_READ, NOW - 3, {"probe": "b"}), *more,
    ]  # fmt: skip


seen = partial(fleet.seen, at=NOW)


def test_a_node_is_seen_as_its_series_say():
    found = seen("n1", series(), age=4.0)

    assert (found.why, found.age, found.version, found.troubles) == ("", 4.0, "1.0", ())
    assert found.checks == {"live": PASS}


@pytest.mark.parametrize(
    ("more", "trouble"),
    [
        (Series("dvfd_loop_late", 1, {"loop": "sampler"}), "its loop sampler makes no progress"),
        (Series("dvfd_store_ok", 0), "its store keeps nothing"),
    ],
)
def test_a_dvfd_that_is_itself_in_trouble_says_so(more, trouble):
    found = seen("n1", series(more))

    assert trouble in found.troubles
    assert count(LIVE, found).verdict is UNKNOWN


@pytest.mark.parametrize("age", [181.0, -181.0, 1e9, float("nan")])
def test_what_was_seen_too_long_ago_or_in_another_time_does_not_count(age):
    found = seen("n1", series(), age=age)

    assert "wanted at most 180" in found.why
    assert count(LIVE, found).verdict is UNKNOWN


@pytest.mark.parametrize("off", [-3600.0, 3600.0])
def test_a_node_that_answers_with_what_was_true_an_hour_ago_is_not_seen(off):
    found = fleet.seen("n1", series(), at=NOW + off)

    assert "its newest reading is" in found.why
    assert count(LIVE, found).verdict is UNKNOWN


def test_a_node_that_has_read_nothing_yet_is_not_seen():
    told = [each for each in series() if each.name != fleet.LAST_READ]

    assert seen("n1", told).why == "it has read none of its sources yet"


def test_a_word_that_is_no_verdict_is_unknown_and_of_two_the_worse_counts():
    both = Series("dvfd_check_verdict", 1, {"check": "live", "verdict": "FAIL"})

    assert seen("n1", series(verdict="GREEN")).checks["live"] is UNKNOWN
    assert seen("n1", series(both)).checks["live"] is FAIL


def test_who_does_not_say_which_dvfd_it_is_says_nothing():
    assert seen("n1", series()[1:]).why == "it says nothing of itself"


EVEN = criterion(
    "stability_phase2b.balance", across="node", combine=Combine.SPREAD, source="ranks",
    comparison=Comparison.AT_MOST, limit=Limit(value=0.05),
)  # fmt: skip

# --- Balance --------------------------------------------------------------------------------------

COMPUTE = "dvfd_rank_compute_seconds"


def ranks(*values: float, job: str = "gpt") -> list[Series]:
    return [Series(COMPUTE, v, {"training_job": job, "rank": str(i)}) for i, v in enumerate(values)]


def test_balance_is_the_furthest_from_the_mean_of_the_nodes_means():
    nodes = [seen("n1", series(*ranks(1.0, 3.0))), seen("n2", series(*ranks(3.0)))]
    [found] = balances([*nodes, Seen(node="n3", why="gone")])

    assert found.values == {"n1": 2.0, "n2": 3.0}
    assert found.spread == pytest.approx(0.2)
    assert (found.job, found.missing) == ("gpt", ("n3",))


def test_one_node_alone_is_balanced_with_nothing():
    [found] = balances([seen("n1", series(*ranks(1.0)))])

    assert found.spread is None


@given(st.lists(st.floats(0.001, 1e6), min_size=2, max_size=8))
def test_balance_is_the_spread_that_the_judge_finds(values):
    nodes = [seen(f"n{i}", series(*ranks(v))) for i, v in enumerate(values)]
    [found] = balances(nodes)
    samples = [sample(value=v, node=f"n{i}") for i, v in enumerate(values)]

    assert found.spread == pytest.approx(judge(EVEN, samples, at=NOW).observed)


# --- The document ---------------------------------------------------------------------------------

WHOLE = catalogue(LIVE, LED, BOTH, check("stability_phase2b", EVEN))


def document(*nodes: Seen, checks=("live",)):
    return fleet.document(nodes, WHOLE, checks, lead="n1", at=1e9, source="the nodes")


def test_the_document_is_as_its_schema_says_and_names_the_missing():
    made = document(
        seen("n1", series(*ranks(1.0))),
        seen("n2", series(*ranks(1.2), verdict="FAIL"), age=9.0),
        Seen(node="n3", why="n3: Connection refused"),
    )
    valid(made, "fleet")

    assert made["verdict"] == "FAIL"
    assert [n["verdict"] for n in made["nodes"]] == ["PASS", "FAIL", "UNKNOWN"]
    assert made["nodes"][2]["reason"] == "n3: Connection refused"
    [even] = made["balance"]
    assert (even["limit"], even["furthest"]) == (0.05, "n1")


def test_the_verdict_is_that_of_the_checks_that_were_asked_for():
    nodes = [node("n1", checks={"live": PASS, "weekly": FAIL})]

    assert document(*nodes)["verdict"] == "PASS"
    assert document(*nodes, checks=("live", "weekly"))["verdict"] == "FAIL"


def test_differences_name_who_has_which():
    other = node("n2", version="2.0")
    made = document(node("n1", version="1.0"), other, node("n3", version="1.0"))

    assert made["differences"] == {"version": {"1.0": ["n1", "n3"], "2.0": ["n2"]}}


def test_people_read_who_fails_who_is_missing_and_how_uneven_it_is():
    told = text(
        document(
            seen("n1", series(*ranks(1.0))),
            seen("n2", series(*ranks(1.2), verdict="FAIL")),
            Seen(node="n3", why="n3: Connection refused"),
        )
    )

    assert "3 nodes by live: FAIL" in told
    assert "UNKNOWN  n3  n3: Connection refused" in told
    assert "FAIL     live: FAIL n2; UNKNOWN n3; PASS 1" in told
    assert "UNKNOWN on every node: network, weekly" in told
    assert "9.1% from the mean is n1, the furthest, wanted at most 5.0%" in told
    assert "not seen of n3" in told
