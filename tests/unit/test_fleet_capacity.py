"""The arithmetic of docs/fleet.md: each cell is a product of measured numbers."""

from __future__ import annotations

from bench.capacity import table

FOUND = {
    "nodes": 1000.0, "interval": 15.0, "head": 450_000.0, "rss_series": 4.0, "cpu": 20.0,
    "chunks": 2.0, "index": 480.0,
}  # fmt: skip
"""450 series a node, 4 KiB each, 0.2 cores, 2 bytes a sample and an index that adds one."""


def rows() -> dict[tuple[str, str], list[str]]:
    figures = [{"name": name, "value": value} for name, value in FOUND.items()]
    lines = [[cell.strip() for cell in line.strip("|").split("|")]
             for line in table({"figures": figures}).splitlines()[2:]]  # fmt: skip
    return {(cells[0], cells[1]): cells[2:] for cells in lines}


def test_the_measured_fleet_is_given_back() -> None:
    series, rate, memory, cores, *_ = rows()["1,000", "15 s"]
    assert (series, rate, memory, cores) == ("450,000", "30,000", "1.72 GiB", "0.2 cores")


def test_ten_times_the_nodes_are_ten_times_everything() -> None:
    assert rows()["10,000", "15 s"][:4] == ["4,500,000", "300,000", "17.2 GiB", "2 cores"]


def test_disk_is_samples_by_their_bytes_with_the_index_shared_by_a_block() -> None:
    """30,000 a second, three bytes each, for a day: 7.24 GiB."""
    assert rows()["1,000", "15 s"][4:] == ["7.24 GiB", "109 GiB"]


def test_half_the_scrapes_need_half_the_processor_and_the_same_memory() -> None:
    often, rarely = rows()["1,000", "15 s"], rows()["1,000", "30 s"]
    assert rarely[1:4] == ["15,000", often[2], "0.1 cores"]
