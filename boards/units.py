"""Values as words, by Grafana's names of units: as much of them as the dashboards use."""

from __future__ import annotations

import math
from collections.abc import Callable

Worded = Callable[[float, int | None], str]

SPANS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))


def worded(value: float, unit: str, decimals: int | None = None) -> str:
    """*value* with its unit; as many digits as tell it apart unless *decimals* says."""
    if not math.isfinite(value):
        return str(value)
    if unit in SCALED:
        return _scaled(value, *SCALED[unit], decimals)
    return UNITS.get(unit, _plain)(value, decimals)


def _digits(value: float, decimals: int | None) -> str:
    if decimals is None:
        decimals = 0 if value == int(value) or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{decimals}f}"


def _plain(value: float, decimals: int | None) -> str:
    return _digits(value, decimals)


def _scaled(
    value: float, base: float, prefixes: tuple[str, ...], unit: str, decimals: int | None
) -> str:
    power = 0
    while abs(value) >= base and power < len(prefixes) - 1:
        value, power = value / base, power + 1
    return f"{_digits(value, decimals)} {prefixes[power]}{unit}".rstrip()


def _seconds(value: float, decimals: int | None) -> str:
    size, name = next((s for s in SPANS if abs(value) >= s[0]), (1, "s"))
    return f"{_digits(value / size, decimals)} {name}"


THOUSANDS = ("", "k", "M", "G", "T")
SCALED = {
    "short": (1000.0, ("", "K", "Mil", "Bil", "Tri"), ""),
    "bytes": (1024.0, ("", "Ki", "Mi", "Gi", "Ti"), "B"),
    "Bps": (1000.0, THOUSANDS, "B/s"),
    "pps": (1000.0, THOUSANDS, "p/s"),
    "cps": (1000.0, ("", "K", "Mil"), "c/s"),
    "reqps": (1000.0, ("", "K", "Mil"), "req/s"),
    "watt": (1000.0, THOUSANDS, "W"),
    "kwatth": (1e9, ("",), "kWh"),
    "joule": (1000.0, THOUSANDS, "J"),
    "celsius": (1e9, ("",), "°C"),
}
UNITS: dict[str, Worded] = {
    "none": _plain,
    "percentunit": lambda value, decimals: f"{_digits(100 * value, decimals)} %",
    "s": _seconds,
}
