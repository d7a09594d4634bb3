"""Limits for the dashboards, read from the catalogue: numbers of the framework live in checks/."""

from __future__ import annotations

from functools import cache

from dvfd.catalogue import load
from dvfd.config import Config
from dvfd.model import Catalogue


@cache
def catalogue() -> Catalogue:
    """The framework as delivered."""
    return load(Config())


def limit(criterion: str) -> float:
    """The limit of a criterion, which must be a plain number."""
    found = catalogue().criteria[criterion].limit
    assert found.value is not None, criterion
    return found.value


def phases() -> dict[str, list[str]]:
    """The checks of each phase, in the order of the framework; production without the watch."""
    found: dict[str, list[str]] = {}
    for check in catalogue().checks.values():
        if check.phase and not check.watch:
            found.setdefault(check.phase, []).append(check.id)
    return dict(sorted(found.items(), key=lambda item: (item[0] == "production", item[0])))
