"""Read an exporter's /metrics on this node, as Prometheus does: bounded in time and in size."""

from __future__ import annotations

import http
from functools import partial
from typing import TYPE_CHECKING, Protocol

from dvfd import exposition, remote
from dvfd.errors import DvfdError, ProbeError
from dvfd.masking import masked
from dvfd.probes.files import raise_all
from dvfd.probes.inputs import AHEAD, Seen, bounded, take
from dvfd.reduce import seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dvfd.config import Scrape as Settings
    from dvfd.model import Metric, Sample, Unseen
    from dvfd.probes.inputs import Allowance
    from dvfd.remote import Answer

LARGEST = 4 << 20
"""Bytes of one answer: a node_exporter has 100 KB, a cAdvisor of a full node 3 MB."""


class Get(Protocol):
    """`remote.get`, or a fake of it."""

    def __call__(self, url: str, access: remote.Access, *, within: float) -> Answer:
        """The answer, whatever its status. Raises DvfdError."""
        ...


BOUNDED: Get = partial(remote.get, most=LARGEST)


class Scrape:
    """Probe over one [[scrape]]."""

    def __init__(
        self,
        settings: Settings,
        metrics: Sequence[Metric],
        allowance: Allowance,
        *,
        get: Get = BOUNDED,
    ) -> None:
        self.name = f"scrape.{settings.name}"
        self.metrics = tuple(metric.name for metric in metrics)
        self.interval = settings.interval
        self.deadline = settings.timeout + 5.0  # to read what came in time
        self.gaps: dict[str, str] = {}
        self.unseen: tuple[Unseen, ...] = ()
        self._settings = settings
        self._wanted = tuple(metrics)
        self._names = frozenset(metric.origin.series for metric in metrics if metric.origin)
        self._allowance = allowance
        self._access = remote.Access(ca_file=settings.ca_file, anybody=settings.self_signed)
        self._get = get

    def sample(self, at: float) -> Iterator[Sample]:
        """What it exposes now. Raises ProbeError, after that, with what is wrong with it."""
        taken = take(self._wanted, list(self._seen(at)))
        address = masked(self._settings.url)
        self.gaps = {name: f"{why} at {address}" for name, why in taken.missing.items()}
        admitted = self._allowance.admit(taken.samples)
        self.unseen = bounded((*taken.unseen, *admitted.unseen))
        yield from admitted.samples
        raise_all(filter(None, (*taken.problems, admitted.beyond)))

    def _seen(self, at: float) -> Iterator[Seen]:
        address = masked(self._settings.url)
        for found in self._exposed(address):
            since = at if found.at is None else found.at
            if since > at + AHEAD:
                ahead = seconds(since - at)
                raise ProbeError(
                    f"{address} line {found.line}: {found.name} is {ahead} ahead of us"
                )
            yield Seen(address, since, found)

    def _exposed(self, address: str) -> list[exposition.Exposed]:
        try:
            answer = self._get(self._settings.url, self._access, within=self._settings.timeout)
        except DvfdError as error:
            raise ProbeError(str(error)) from None
        if answer.status != http.HTTPStatus.OK:
            raise ProbeError(f"{address}: answers {answer.status}, wanted 200")
        try:
            return list(exposition.samples(answer.body, self._names))
        except ProbeError as error:
            raise ProbeError(f"{address} {error}") from None
