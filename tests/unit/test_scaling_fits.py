"""Fits of throughput by process count: the source's own series, known curves, and doubt."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from fakes_scaling import SHARES, SOURCE, Child, point, source, vague
from hypothesis import given, settings
from hypothesis import strategies as st

from dvfd.errors import ProbeError, ToolError
from dvfd.scaling import fits
from dvfd.scaling.asked import Answer, Projection, ask, read

EXACT = {"low": None, "high": None}


def projected(points: Any, *targets: int) -> Projection:
    answer = ask(points, fit=range(len(points)), targets=targets or (16, 32), run=Child())
    assert answer.projection
    return answer.projection


def fit(found: Projection, name: str) -> Any:
    return next(fit for fit in found.fits if fit.name == name)


@pytest.fixture(scope="module")
def four() -> Projection:
    return projected(source(**EXACT))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "REFITS", 20)
    monkeypatch.setattr(fits, "DRAWS", 200)


# --- The source's own series ----------------------------------------------------------------------


def test_four_points_of_the_source_are_1088_at_16_by_the_usl(four: Projection) -> None:
    usl = fit(four, "usl")
    assert usl.parameters["sigma"] == pytest.approx(-0.0494, abs=1e-4)
    assert usl.parameters["kappa"] == pytest.approx(0.00259, abs=1e-5)
    assert four.of(16).value == pytest.approx(1088.0, abs=0.1)  # type: ignore[union-attr]


def test_and_1236_by_a_power_law_so_that_the_interval_is_what_lies_between(
    four: Projection,
) -> None:
    assert fit(four, "power").parameters["exponent"] == pytest.approx(1.079, abs=5e-4)
    target = four.of(16)
    assert target
    assert (target.low, target.high) == pytest.approx((1088.0, 1236.2), abs=0.1)
    assert target.interval == "the spread of 3 models; no point says how sure it is"


def test_its_serial_fraction_by_amdahl_is_negative_and_so_unphysical(four: Projection) -> None:
    amdahl = fit(four, "amdahl")
    assert amdahl.parameters["sigma"] == pytest.approx(-0.0072, abs=1e-4)
    assert not amdahl.physical


def test_super_linear_data_let_the_unbounded_usl_decide_and_the_bounded_one_is_a_line(
    four: Projection,
) -> None:
    assert (four.superlinear, four.decides) == (True, "usl")
    bounded = fit(four, "usl bounded")
    assert (bounded.parameters["sigma"], bounded.parameters["kappa"]) == (0.0, 0.0)


def test_twelve_left_out_is_missed_by_eleven_percent(four: Projection) -> None:
    assert four.worst == pytest.approx(0.1108, abs=1e-4)
    assert max(four.left_out, key=lambda each: abs(each[2]))[0] == 12


def test_beyond_twenty_processes_its_fit_falls(four: Projection) -> None:
    assert fit(four, "usl").peak == pytest.approx(20.1, abs=0.1)
    assert [target.monotone for target in four.targets] == [True, False]
    assert four.of(32).extrapolation == pytest.approx(32 / 12)  # type: ignore[union-attr]


def test_three_points_of_the_source_are_1480_at_16_and_none_can_be_left_out() -> None:
    three = projected(source((1, 4, 8), **EXACT), 12, 16)
    assert [t.value for t in three.targets] == pytest.approx([999.8, 1479.7], abs=0.1)
    assert three.worst is None
    assert "3 process counts, of which none can be left out" in three.not_left_out


def test_two_points_are_a_power_law_and_no_more() -> None:
    two = projected(source((1, 4), **EXACT), 8)
    assert two.decides == "power"
    assert two.of(8).value == pytest.approx(561.8, abs=0.1)  # type: ignore[union-attr]
    assert "2 process counts determine no 3 parameters" in two.lacks["usl"]


# --- Known curves ---------------------------------------------------------------------------------

COUNTS = (1, 2, 4, 8, 12, 16)


def curve(sigma: float, kappa: float, one: float = 62.5) -> list[Any]:
    return [
        point(n, one * n / (1 + sigma * (n - 1) + kappa * n * (n - 1)), **EXACT) for n in COUNTS
    ]


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0.0, 0.3), st.floats(0.0, 0.01), st.floats(1.0, 1e4),
)  # fmt: skip
def test_a_usl_curve_is_recovered(sigma: float, kappa: float, one: float) -> None:
    n = np.array(COUNTS, dtype=float)
    x = one * n / (1 + sigma * (n - 1) + kappa * n * (n - 1))
    for bounded in (False, True):
        found = fits.fitted("usl", n, x, bounded=bounded).parameters
        assert found == pytest.approx((one, sigma, kappa), rel=1e-3, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.3, 1.3), st.floats(1.0, 1e4))
def test_a_power_law_is_recovered(exponent: float, one: float) -> None:
    n = np.array(COUNTS, dtype=float)
    found = fits.fitted("power", n, one * n**exponent).parameters
    assert found == pytest.approx((one, exponent), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.0, 0.9), st.floats(1.0, 1e4))
def test_gustafson_and_amdahl_find_the_serial_share(share: float, one: float) -> None:
    n = np.array(COUNTS, dtype=float)
    line = fits.fitted("gustafson", n, one * (share + (1 - share) * n)).parameters
    law = fits.fitted("amdahl", n, one * n / (1 + share * (n - 1))).parameters
    assert line == pytest.approx((one, share), rel=1e-6, abs=1e-6)
    assert law == pytest.approx((one, share), rel=1e-4, abs=1e-5)


def test_where_nothing_is_super_linear_the_bounded_usl_decides() -> None:
    found = projected(curve(0.05, 0.001), 32)
    assert (found.superlinear, found.decides) == (False, "usl bounded")
    assert found.worst == pytest.approx(0.0, abs=1e-6)


def test_a_pole_is_no_finite_throughput() -> None:
    n, x = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.5, 5.0])
    usl = fits.fitted("usl", n, x)
    assert not np.isfinite(usl.at(np.array([16.0])))[0]
    found = projected([point(int(a), float(b), **EXACT) for a, b in zip(n, x, strict=True)])
    target = found.of(16)
    assert target
    assert (target.value, target.finite, target.monotone) == (None, False, False)


# --- How sure -------------------------------------------------------------------------------------


def windows(mean: float, deviation: float, *, rho: float = 0.0, count: int = 400) -> list[float]:
    """Throughputs that hang together: AR(1)."""
    rng, found, last = np.random.default_rng(3), [], 0.0
    for _ in range(count):
        last = rho * last + float(rng.normal()) * (1 - rho**2) ** 0.5
        found.append(mean + deviation * last)
    return found


def interval(rho: float) -> float:
    made = windows(600.0, 20.0, rho=rho)
    mean = float(np.mean(made))
    (ends,) = ask([point(8, mean, windows=tuple(made), **EXACT)], run=Child()).intervals
    assert ends
    assert ends[0] < mean < ends[1]
    return ends[1] - ends[0]


def test_the_interval_of_independent_windows_is_that_of_their_mean() -> None:
    assert interval(0.0) == pytest.approx(2 * 1.96 * 20.0 / 400**0.5, rel=0.3)


def test_windows_that_hang_together_make_it_wider() -> None:
    assert interval(0.9) > 2.5 * interval(0.0)


def test_a_ratio_has_the_doubt_of_both_sides() -> None:
    pair = [point(8, 600.0), point(1, 62.5, low=60.0, high=65.0)]
    (ends,) = ask(pair, pairs=[(0, 1)], run=Child()).pairs
    assert ends == pytest.approx((600 / 65.0, 600 / 60.0), rel=0.01)


def test_what_says_nothing_of_its_doubt_has_no_interval() -> None:
    answer = ask(source((8, 1), **EXACT), pairs=[(0, 1)], run=Child())
    assert answer.intervals == (None, None)
    assert answer.pairs == (None,)


def test_doubt_about_the_points_widens_what_is_foretold() -> None:
    sure = projected(source()).of(16)
    unsure = doubtful(0.03)
    assert sure
    assert unsure
    assert sure.bootstrap
    assert unsure.low < sure.low  # type: ignore[operator]
    assert unsure.bootstrap[1] > sure.bootstrap[1] + 100


def doubtful(share: float) -> Any:
    ends = ((n, x, x * (1 - share), x * (1 + share)) for n, x in SOURCE.items())
    return projected([point(n, x, low=low, high=high) for n, x, low, high in ends]).of(16)


def test_where_refits_have_no_finite_value_nothing_bounds_what_is_foretold() -> None:
    wild = projected(vague()).of(16)
    assert wild
    assert (wild.bootstrap, wild.lost > 0.05) == (None, True)
    assert "too unsure to determine it" in wild.open


def test_communication_is_a_line_over_processes_bounded_by_one_over_their_logarithm() -> None:
    target = projected(source()).of(16)
    assert target
    assert target.communication
    value, low, high = target.communication
    assert value == high == pytest.approx(0.11)
    assert SHARES[12] < low < value


# --- The child ------------------------------------------------------------------------------------


def question(points: list[Any]) -> bytes:
    keys = ("processes", "throughput", "low", "high", "windows", "communication")
    rows = [{key: getattr(p, key) for key in keys} for p in points]
    asked = {"points": rows, "pairs": [[1, 0]], "fit": [0, 1, 2, 3], "targets": [16, 32]}
    return json.dumps(asked).encode()


@pytest.mark.slow
def test_the_same_question_gives_the_same_bytes() -> None:
    argv = [sys.executable, "-P", "-m", "dvfd.scaling.fits"]
    said = {
        subprocess.run(argv, input=question(source()), capture_output=True, check=True).stdout
        for _ in range(2)
    }
    assert len(said) == 1
    assert b"NaN" not in said.pop()


def test_a_count_that_stands_twice_is_refused() -> None:
    with pytest.raises(ToolError, match="each may stand once"):
        ask([*source(), point(8, 500.0)], fit=range(5), targets=(16,), run=Child())


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"projection": null, "intervals": [[2, 1]], "pairs": []}',
        '{"projection": null, "intervals": [[NaN, 1]], "pairs": []}',
        '{"projection": {"targets": 1}, "intervals": [], "pairs": []}',
        '{"projection": null, "intervals": [["a", 1]], "pairs": []}',
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ProbeError, match=r"dvfd.scaling.fits: its answer cannot be read"):
        read(text)


def test_an_answer_without_two_counts_has_no_projection() -> None:
    answer = ask(source((1,)), fit=(0,), targets=(16,), run=Child())
    assert isinstance(answer, Answer)
    assert answer.projection is None
