"""What misses its limit stands first on the front page, and says so."""

from __future__ import annotations

from bench.render import numbers_table


def figure(text, reached, wanted="<= 1 s"):
    return {"text": text, "value": 2.0, "unit": "s", "wanted": wanted, "reached": reached}


def test_figures_outside_of_their_limits_are_first_and_marked():
    figures = [
        figure("well", True), figure("ill", False), figure("who knows", None), figure("-", None, "")
    ]  # fmt: skip
    told = numbers_table([{"figures": figures}])
    first, rest = told.split("<details>")

    assert "Of 3 figures that have a limit 1 are within it, 1 are **outside**, and of 1" in first
    assert "| ill | 2 s | <= 1 s | **outside** |" in first
    assert "| who knows | 2 s | <= 1 s | not known |" in first
    assert "| well |" not in first
    assert "| well | 2 s | <= 1 s | within |" in rest
