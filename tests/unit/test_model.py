"""The nouns: which verdict decides, and what comparisons do with nonsense."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvfd.model import Comparison, Range, Verdict, labels, worst

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN
WAIVED, NOT_APPLICABLE = Verdict.WAIVED, Verdict.NOT_APPLICABLE


@pytest.mark.parametrize(
    ("verdicts", "decides"),
    [
        ([], UNKNOWN),
        ([NOT_APPLICABLE], UNKNOWN),
        ([NOT_APPLICABLE, PASS], PASS),
        ([PASS, WAIVED], WAIVED),
        ([PASS, WAIVED, UNKNOWN], UNKNOWN),
        ([PASS, UNKNOWN, FAIL], FAIL),
    ],
)
def test_the_worst_verdict_decides(verdicts: list[Verdict], decides: Verdict) -> None:
    assert worst(verdicts) is decides


@given(st.lists(st.sampled_from(Verdict)))
def test_a_pass_needs_a_pass_and_nothing_worse(verdicts: list[Verdict]) -> None:
    passed = worst(verdicts) is PASS
    assert passed == (PASS in verdicts and not {FAIL, UNKNOWN, WAIVED} & set(verdicts))


@pytest.mark.parametrize("comparison", list(Comparison))
def test_nan_satisfies_no_comparison(comparison: Comparison) -> None:
    assert not comparison.holds(math.nan, 1.0)
    assert not comparison.holds(1.0, math.nan)


def test_labels_have_one_order() -> None:
    assert labels(rank=3, job="gpt") == labels(job="gpt", rank=3)


def test_a_range_has_its_ends_and_no_nan() -> None:
    assert 0.0 in Range(0, 1)
    assert 1.0 in Range(0, 1)
    assert math.nan not in Range(0, 1)  # noqa: PLW0177  # membership, not equality
