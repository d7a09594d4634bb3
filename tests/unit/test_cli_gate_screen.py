"""What `dvfd gate` and `dvfd summary` print of what somebody waives, and of a broken ledger."""

from __future__ import annotations

import pytest
from fakes_gates import AT, DAY, book, told

from dvfd.cli.gate import _four, _screen, _table

WAIVER = {"by": "Ann Lee", "role": "CTO", "reason": "a known dip", "expires": AT + DAY}
THROUGHPUT = "stability_phase1.throughput"


def screen(*, without=""):
    """Phase 1 with a throughput between GO and No-Go that somebody waives."""
    made = book("phase1")
    made.observe(THROUGHPUT, 230.0)
    made.add("waiver", THROUGHPUT, dict(WAIVER))
    made.records = [record for record in made.records if record.subject != without]
    found = made.decide().to_document()
    found |= {"due": None, "due_words": "Friday", "overrides": [], "problems": []}
    return "\n".join(_screen(found))


@pytest.mark.parametrize("without", ["", "pytorch"], ids=["GO", "HOLD"])
def test_what_somebody_waives_is_a_line_of_its_own_with_who_and_why(without):
    text = " ".join(screen(without=without).split())
    assert "WAIVED stability, test stability_phase1: waived by Ann Lee (CTO)" in text
    assert "a known dip" in text
    passed = text.partition("PASS")[2]
    assert "WAIVED" not in passed
    assert "throughput" in passed  # the No-Go line, which nobody waives


def test_a_ledger_that_is_not_as_it_was_written_is_said_above_the_table_and_the_gates():
    found = told() | {"problems": ["line 7: edited"]}
    for printed in (_table(found), _four(found)):
        assert next(printed) == "the ledger is not as it was written: line 7: edited"
