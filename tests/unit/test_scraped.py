"""What a Prometheus answers to a drill: its series, or its own words."""

from __future__ import annotations

import json

import pytest

from dvfd.errors import ProbeError
from dvfd.scraped import answered


def test_rows_that_are_none_are_left_out():
    result = [
        {"metric": {}, "value": [1, "x"]},
        {"metric": 7},
        8,
        {"metric": {}, "value": [1, "NaN"]},
    ]
    body = {"status": "success", "data": {"resultType": "vector", "result": result}}

    assert answered(json.dumps(body).encode()) == []


def test_an_error_of_prometheus_keeps_its_words():
    with pytest.raises(ProbeError, match="refuses: too many"):
        answered(b'{"status": "error", "error": "too many samples"}')
