"""Every source, every way to mute it, and why a way cannot apply where it cannot. Data, no code.

docs/blindness.md is written from it, bench.mutes carries it out, and a test fails where a probe or
a source of the catalogue has no row, or a row lacks a way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Way(StrEnum):
    """What is done to a source."""

    RAISES = "the probe raises any exception"
    HANG = "the source never answers"
    BACK = "it stops, and the clock is set back an hour"
    FORWARD = "it stops, and the clock is set forward an hour"
    GONE = "the source is gone"
    DENIED = "permission is taken"
    GARBAGE = "it answers garbage"
    FROZEN = "it answers with the same value for ever"


@dataclass(frozen=True, slots=True)
class Source:
    """How a source is muted in each way, in words, and why it cannot be in the others."""

    ways: Mapping[Way, str] = field(default_factory=dict)
    cannot: Mapping[Way, str] = field(default_factory=dict)


_ALL = {
    Way.RAISES: "ZeroDivisionError from its sample()",
    Way.BACK: "raises from then on; the wall clock loses 3600 s",
    Way.FORWARD: "raises from then on; the wall clock gains 3600 s",
}
_SHARED = {Way.HANG: "its read blocks, and with it every probe that shares the sampler's thread"}
_ALONE = {Way.HANG: "its read blocks beyond its deadline"}
_LEVEL = "a level may stand still: {}; dvfd cannot tell, and says the value"

SOURCES: dict[str, Source] = {
    "ranks": Source(
        _ALL | _SHARED,
        {
            Way.GONE: "a rank that dies or leaves is measured: FAIL within 2 s, never silence",
            Way.DENIED: "ranks speak of their own accord: there is no file to refuse",
            Way.GARBAGE: "a packet that is none is refused and counted, and the rank goes silent",
            Way.FROZEN: "a rank that lives and makes no step is measured: FAIL at its hang limit",
        },
    ),
    "files": Source(
        {},
        dict.fromkeys(Way, "it brings no metric: it tells of ranks, which are muted there"),
    ),
    "cpu": Source(
        _ALL | _SHARED | {
            Way.GONE: "/proc/PID of the ranks and /proc/stat are gone",
            Way.DENIED: "chmod 0 of /proc/stat",
            Way.GARBAGE: "/proc/stat and /proc/PID/stat say garbage",
            Way.FROZEN: "the ticks of /proc/stat stand still",
        },
    ),
    "memory": Source(
        _ALL | _SHARED | {
            Way.GONE: "meminfo of the NUMA node is gone",
            Way.DENIED: "chmod 0 of meminfo",
            Way.GARBAGE: "meminfo says garbage",
        },
        {Way.FROZEN: _LEVEL.format("a node at rest uses the same memory")},
    ),
    "temperature": Source(
        _ALL | _SHARED | {
            Way.GONE: "tempN_input and the throttle counters are gone",
            Way.DENIED: "chmod 0 of tempN_input and the throttle counters",
            Way.GARBAGE: "tempN_input and the throttle counters say garbage",
        },
        {Way.FROZEN: _LEVEL.format("whole degrees, and a package that never throttles counts 0")},
    ),
    "power": Source(
        _ALL | _SHARED | {
            Way.GONE: "energy_uj is gone",
            Way.DENIED: "chmod 0 of energy_uj",
            Way.GARBAGE: "energy_uj says garbage",
            Way.FROZEN: "energy_uj stands still: no package uses nothing",
        },
    ),
    "gpu": Source(
        _ALL | _ALONE | {
            Way.GONE: "NVML: the driver is not loaded",
            Way.DENIED: "NVML: permission denied",
            Way.GARBAGE: "NVML: values that stand for none",
        },
        {Way.FROZEN: _LEVEL.format("a GPU at rest has one temperature, and 0 errors")},
    ),
    "network": Source(
        _ALL | _SHARED | {
            Way.GONE: "the interface and /proc/net/snmp are gone",
            Way.DENIED: "chmod 0 of the interface's counters and of /proc/net/snmp",
            Way.GARBAGE: "the counters and /proc/net/snmp say garbage",
        },
        {Way.FROZEN: "an idle link counts nothing: dvfd cannot tell, and says what it reads"},
    ),
    "checkpoints": Source(
        _ALL | _ALONE,
        {
            Way.GONE: "a checkpoint that is not where it was reported is measured: FAIL",
            Way.DENIED: "the word on it is UNKNOWN as the criteria in process are: needs a save",
            Way.GARBAGE: "bytes that are not those that were written are measured: FAIL",
            Way.FROZEN: "no save where one is due is measured: checkpoint_missing",
        },
    ),
    "logs": Source(
        _ALL | _ALONE | {
            Way.GONE: "the log is gone",
        },
        {
            Way.DENIED: "what is open stays readable, and is read; a new file at its place is GONE",
            Way.GARBAGE: "every line is text to it: what matches no pattern is no error",
            Way.FROZEN: "a log in which nothing goes wrong may be quiet: dvfd cannot tell",
        },
    ),
    "node": Source(
        _ALL | _SHARED | {
            Way.GONE: "/proc/loadavg is gone and adjtimex is not there",
            Way.DENIED: "adjtimex and /proc/loadavg refuse",
            Way.GARBAGE: "/proc/loadavg says garbage, adjtimex fails",
        },
        {Way.FROZEN: _LEVEL.format("a disciplined clock stays one, a node at rest has load 0")},
    ),
    "filesystems": Source(
        _ALL | _ALONE,
        {
            Way.GONE: "it watches the daemon's own directory, without which is no daemon",
            Way.DENIED: "statvfs asks for no right but to reach the path: as GONE",
            Way.GARBAGE: "the kernel's own answer; a size of 0 is an error, by a test of the probe",
            Way.FROZEN: _LEVEL.format("nobody writes"),
        },
    ),
    "plugin.check": Source(
        _ALL | _ALONE | {
            Way.GONE: "the program is gone",
            Way.DENIED: "the program may not be run",
            Way.GARBAGE: "it ends with 7 and says garbage",
        },
        {Way.FROZEN: "it is run anew each time: the same answer is a new one"},
    ),
    "textfile.cron": Source(
        _ALL | _ALONE | {
            Way.GONE: "the file is gone",
            Way.DENIED: "chmod 0 of the file",
            Way.GARBAGE: "the file says garbage",
            Way.FROZEN: "nobody writes the file any more: its modification time stands",
        },
    ),
    "scrape.exporter": Source(
        _ALL | _ALONE | {
            Way.GONE: "the series is gone from the answer",
            Way.DENIED: "it answers 403",
            Way.GARBAGE: "it answers a page",
            Way.FROZEN: "its samples are stamped an hour ago",
        },
    ),
}  # fmt: skip
