"""What a scrape reads is what Prometheus' own client library would have written."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from dvfd.sinks.text_format import Family, lines

VALUES = (0.0, -0.0, 1.0, 0.1, 1e-7, -2.5e-300, 123456.0, 1234567.0, 1.5e15, 1e21, 1 / 3, 7)
TEXTS = ("", "plain", 'with "quotes"', "back\\slash", "two\nlines", "naïve ✓", "a=b,{c}")


class Collected:
    """One family, for a registry of the library."""

    def __init__(self, family: GaugeMetricFamily | CounterMetricFamily) -> None:
        self._family = family

    def collect(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        return [self._family]


def by_library(family: Family) -> str:
    make = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}[family.kind]
    made = make(family.name.removesuffix("_total"), family.text, labels=family.labels)
    for texts, value in family.values:
        made.add_metric(texts, value)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected(made))
    return generate_latest(registry).decode()


@pytest.mark.parametrize("kind", ["gauge", "counter"])
@pytest.mark.parametrize("labels", [(), ("only",), ("z", "a", "m")])
def test_every_byte_is_as_the_library_writes_it(kind: str, labels: tuple[str, ...]) -> None:
    name = "dvfd_some_total" if kind == "counter" else "dvfd_some"
    values = [((text,) * len(labels), value) for text in TEXTS for value in VALUES]
    family = Family(name, kind, 'Help with \\ and "quotes"\nand more', labels, values)

    assert "".join(lines(family)) == by_library(family)
