"""A directory of *.prom files: fresh ones count, and nothing that lies there hangs anybody."""

import os
import tempfile
from pathlib import Path

import pytest
from fakes_probes import measure
from fakes_site import metric

from dvfd.config import TextFile as Settings
from dvfd.model import labels
from dvfd.probes.inputs import Allowance
from dvfd.probes.textfile import LARGEST, MANY, TextFile

NOW = 1_800_000_000.0
GOOD = '# TYPE smartmon_healthy gauge\nsmartmon_healthy{disk="sda",type="sat"} 1\n'


@pytest.fixture
def probe(tmp_path):
    settings = Settings(name="smart", directory=tmp_path, max_age=600)
    return TextFile(settings, [metric()], Allowance(50))


def put(directory, text=GOOD, name="smart.prom", age=10.0):
    path = directory / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    os.utime(path, (NOW - age, NOW - age))
    return path


def found(probe, at=NOW):
    samples, error = measure(probe, at)
    return [(dict(s.labels), s.value, s.at) for s in samples], error


def test_a_value_is_as_old_as_its_file(probe, tmp_path):
    put(tmp_path, age=100)

    assert found(probe) == ([({"disk": "sda"}, 1.0, NOW - 100)], "")


def test_a_file_is_told_once_and_again_when_it_is_written_again(probe, tmp_path):
    put(tmp_path, age=100)
    found(probe)
    assert found(probe) == ([], "")

    put(tmp_path, age=5)
    assert found(probe)[0] == [({"disk": "sda"}, 1.0, NOW - 5)]


def test_what_a_late_pass_brought_is_brought_again(tmp_path):
    clock = iter([0.0, 11.0, 20.0, 20.1])
    settings = Settings(name="smart", directory=tmp_path)
    probe = TextFile(settings, [metric()], Allowance(50), elapsed=lambda: next(clock))
    put(tmp_path)

    assert found(probe)[0] == found(probe)[0] != []


def test_an_old_file_brings_nothing_and_says_how_old_it_is(probe, tmp_path):
    put(tmp_path, age=3600)

    assert found(probe) == ([], "smart.prom: written 60 min ago, wanted every 10 min")


def test_a_file_of_the_future_brings_nothing(probe, tmp_path):
    put(tmp_path, age=-3600)

    assert found(probe) == (
        [], "smart.prom: written 60 min in the future: which clock is wrong?"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (GOOD + "smartmon_healthy{disk=\n", "line 3: read 'smartmon_healthy{disk='"),
        (GOOD + "what is this\n", "line 3: read 'what is this'"),
        (GOOD + "smartmon_x 1_0\n", "line 3: read"),
        (GOOD[:-1], "line 2: cut off"),
        (GOOD.encode() + b'x{a="\xff"} 1\n', "line 3: not UTF-8"),
        ('smartmon_healthy{disk="sda"} 1 1700000000000\n', "line 1: has a timestamp"),
        ("x 1\n" * (LARGEST // 4 + 1), f"has more than {LARGEST} bytes"),
        ("smartmon_healthy 1\n", "line 1: smartmon_healthy: it has no label 'disk'"),
        ('smartmon_healthy{disk="sda"} NaN\n', "line 1: smartmon_healthy: is nan"),
        ('smartmon_healthy{disk="sda"} +Inf\n', "line 1: smartmon_healthy: is inf"),
        (f"y {'9' * 400}\n", "line 1: read"),
    ],
)
def test_a_file_that_cannot_be_meant_brings_nothing_and_names_the_line(probe, tmp_path, text, why):
    put(tmp_path, text)
    samples, error = found(probe)

    assert samples == []
    assert f"smart.prom {why}" in error.replace("prom: ", "prom ")


def test_a_broken_file_does_not_hide_the_one_beside_it(probe, tmp_path):
    put(tmp_path, "nonsense\n", "a.prom")
    put(tmp_path)
    samples, error = found(probe)

    assert len(samples) == 1
    assert error.startswith("a.prom: line 1")


def test_one_series_in_two_files_is_true_in_neither(probe, tmp_path):
    put(tmp_path)
    put(tmp_path, GOOD.replace(" 1\n", " 0\n"), "other.prom")
    samples, error = found(probe)

    assert samples == []
    assert error == "smart.prom line 2: smartmon_healthy: also in other.prom: which is true?"


def test_a_file_that_was_never_read_may_hold_any_series(probe, tmp_path):
    put(tmp_path)
    put(tmp_path, "nonsense\n", "other.prom")
    found(probe)
    (missed,) = probe.unseen
    assert missed.why.startswith("other.prom: line 1")
    assert missed.concerns("site_smart", labels(disk="sdb"))

    put(tmp_path, GOOD.replace("sda", "sdb"), "other.prom", age=1)
    found(probe)
    assert probe.unseen == ()


def test_a_file_that_is_broken_for_a_moment_leaves_its_series_to_grow_old(probe, tmp_path):
    put(tmp_path)
    found(probe)
    put(tmp_path, "nonsense\n", age=0)
    found(probe)
    assert probe.unseen == ()

    found(probe, NOW + 601)
    assert [u.metric for u in probe.unseen] == ["site_smart"]


def test_an_old_file_that_was_never_told_hides_its_series_alone(probe, tmp_path):
    put(tmp_path)
    put(tmp_path, GOOD.replace("sda", "sdb"), "other.prom", age=3600)
    put(tmp_path, "x 1\n", "idle.prom", age=3600)
    found(probe)

    (missed,) = probe.unseen
    assert missed.labels == labels(disk="sdb")
    assert missed.why == "other.prom: written 60 min ago, wanted every 10 min"


def test_what_was_told_goes_stale_by_itself(probe, tmp_path):
    put(tmp_path)
    found(probe)
    found(probe, NOW + 601)
    assert probe.unseen == ()


def test_an_old_file_hides_nothing_that_a_fresh_one_tells(probe, tmp_path):
    put(tmp_path)
    put(tmp_path, GOOD, "before.prom", age=3600)
    found(probe)
    assert probe.unseen == ()


def test_more_files_than_are_read_may_hold_any_series(probe, tmp_path):
    put(tmp_path, name="0.prom")
    for number in range(1, MANY + 1):
        put(tmp_path, "x 1\n", f"{number}.prom")
    found(probe)
    assert [u.metric for u in probe.unseen] == ["site_smart"]


@pytest.mark.parametrize(
    ("line", "series"),
    [
        ('smartmon_healthy{disk="sdb"} NaN\n', labels(disk="sdb")),
        ("smartmon_healthy 1\n", ()),
        ('smartmon_healthy{disk="sdb"} 1\nsmartmon_healthy{disk="sdb"} 0\n', labels(disk="sdb")),
    ],
)
def test_a_series_that_says_nothing_is_missed_beside_those_that_do(probe, tmp_path, line, series):
    put(tmp_path, GOOD + line)
    samples, error = found(probe)

    assert len(samples) == 1
    assert [(u.why, u.labels) for u in probe.unseen] == [(error, series)]


def test_a_series_beyond_the_allowance_is_missed(tmp_path):
    settings = Settings(name="smart", directory=tmp_path)
    probe = TextFile(settings, [metric()], Allowance(1))
    put(tmp_path, GOOD + 'smartmon_healthy{disk="sdb"} 0\n')
    found(probe)

    (missed,) = probe.unseen
    assert "1 series beyond the 1 of [site] series" in missed.why
    assert not missed.concerns("site_smart", labels(disk="sda"))


def test_a_flood_of_series_that_say_nothing_is_one_that_may_be_any(probe, tmp_path):
    put(tmp_path, "".join(f'smartmon_healthy{{disk="{n}"}} NaN\n' for n in range(1000)))
    found(probe)

    (missed,) = probe.unseen
    assert missed.labels == ()
    assert missed.why.endswith("and 999 more")


def test_a_fifo_hangs_nobody(probe, tmp_path):
    os.mkfifo(tmp_path / "pipe.prom")
    put(tmp_path)
    samples, error = found(probe)

    assert (len(samples), error) == (1, "pipe.prom: is no regular file")


def test_a_directory_and_a_device_are_no_files(probe, tmp_path):
    (tmp_path / "d.prom").mkdir()
    (tmp_path / "null.prom").symlink_to("/dev/null")

    assert found(probe)[1] == "d.prom: is no regular file; null.prom: is no regular file"


def test_a_link_is_as_old_as_the_file_behind_it(probe, tmp_path):
    real = put(tmp_path, name="real.txt", age=50)
    (tmp_path / "link.prom").symlink_to(real)

    assert found(probe)[0] == [({"disk": "sda"}, 1.0, NOW - 50)]


def test_a_link_to_nowhere_is_like_a_file_that_is_gone(probe, tmp_path):
    (tmp_path / "link.prom").symlink_to(tmp_path / "gone")

    assert found(probe) == ([], "")
    assert "no series smartmon_healthy" in probe.gaps["site_smart"]


def test_a_file_that_somebody_renames_into_place_is_read_whole(probe, tmp_path):
    put(tmp_path)
    found(probe)
    new = put(tmp_path, GOOD.replace(" 1\n", " 0\n"), "smart.prom.tmp", age=1)
    new.rename(tmp_path / "smart.prom")

    assert found(probe)[0] == [({"disk": "sda"}, 0.0, NOW - 1)]


def test_a_directory_that_is_not_there_is_said(probe, tmp_path):
    tmp_path.rmdir()
    assert found(probe) == ([], f"{tmp_path}: no such directory")


def test_a_directory_without_files_leaves_a_gap_and_not_silence(probe, tmp_path):
    assert found(probe) == ([], "")
    assert probe.gaps == {"site_smart": f"no series smartmon_healthy in {tmp_path}"}


def test_a_flood_of_files_is_bounded(probe, tmp_path):
    for number in range(MANY + 1):
        put(tmp_path, "x 1\n", f"{number}.prom")

    assert f"{MANY + 1} files, wanted at most {MANY}" in found(probe)[1]


def test_a_file_that_may_not_be_read_is_told():
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        directory.chmod(0o755)
        put(directory).chmod(0)
        probe = TextFile(Settings(name="smart", directory=directory), [metric()], Allowance(9))
        me = os.geteuid()
        os.seteuid(65534 if me == 0 else me)
        try:
            samples, error = found(probe)
        finally:
            os.seteuid(me)

    assert (samples, "smart.prom: permission denied" in error) == ([], True)


def test_only_what_a_metric_asks_for_is_taken_in_its_own_unit(tmp_path):
    settings = Settings(name="smart", directory=tmp_path)
    wanted = metric(labels=(), where=(("disk", "sdb"),), series="temp", times=0.1)
    put(tmp_path, 'temp{disk="sda"} 400\ntemp{disk="sdb"} 410\n')

    assert found(TextFile(settings, [wanted], Allowance(9)))[0] == [({}, 41.0, NOW - 10)]
