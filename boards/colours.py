"""Colours by meaning, told apart by everybody: see test_dashboards for the three deficiencies.

Colour is never alone: a verdict always shows its word too.
"""

from __future__ import annotations

FAIL = "#C94A00"
UNKNOWN = "#6F42B5"
WAIVED = "#E9B949"
PASS = "#1F9E6E"  # noqa: S105  # a verdict
NOT_APPLICABLE = "#C9CDD3"

VERDICTS = {
    "NOT_APPLICABLE": NOT_APPLICABLE,
    "PASS": PASS,
    "WAIVED": WAIVED,
    "UNKNOWN": UNKNOWN,
    "FAIL": FAIL,
}
"""Best first: a verdict's code on a timeline is its place here, so the largest is the worst."""

SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""The hues of Okabe and Ito, one for each query of a panel; its series are shades of it."""

LIMIT = "#8A8F98"
"""Lines that are limits or expectations, dashed as well."""
