"""A site's own lines in the framework's lists: they add, and never take away."""

import os
import tempfile
from pathlib import Path

import pytest
from fakes_site import LINES, METRICS, site

from dvfd.catalogue import load
from dvfd.config import Config, parse
from dvfd.errors import ConfigError
from dvfd.model import Comparison
from dvfd.site_catalogue import LARGEST, MOST

FRAMEWORK = load(Config())


def problems(config):
    with pytest.raises(ConfigError) as caught:
        load(config)
    return caught.value.problems


def test_a_sites_lines_stand_in_the_list_under_their_own_names(tmp_path):
    daily = load(site(tmp_path)).checks["daily"]

    added = [c.id for c in daily.criteria[len(FRAMEWORK.checks["daily"].criteria) :]]
    assert added == ["daily.site.clock", "daily.site.disks"]
    assert {c.check for c in daily.criteria} == {"daily"}


def test_every_line_of_the_framework_stays_as_it_is(tmp_path):
    whole = load(site(tmp_path, daily=LINES, live=LINES, weekly=LINES, monthly=LINES))

    assert whole.criteria.items() >= FRAMEWORK.criteria.items()
    assert whole.gates == FRAMEWORK.gates
    assert whole.metrics.items() >= FRAMEWORK.metrics.items()


def test_a_sites_line_answers_no_line_of_the_source(tmp_path):
    own = load(site(tmp_path)).criteria["daily.site.clock"]

    assert (own.item, own.clause) == ("beyond the source", "Our runbook, chapter 4")


def test_a_line_that_is_like_one_of_the_frameworks_says_its_own_limit(tmp_path):
    text = '[[criterion]]\nid = "cooler"\nlike = "daily.cpu_temperature"\nlimit = 60\n'
    own = load(site(tmp_path, daily=text)).criteria["daily.site.cooler"]
    of = FRAMEWORK.criteria["daily.cpu_temperature"]

    assert (own.metric, own.limit.value, own.item) == (of.metric, 60, "beyond the source")


def test_the_hash_says_that_a_site_added_something_and_what(tmp_path):
    one = load(site(tmp_path))
    other = load(site(tmp_path, daily=LINES.replace("limit = 2", "limit = 1")))

    assert len({FRAMEWORK.hash, one.hash, other.hash}) == 3
    assert one.overrides == (f"2 criteria added by this site, from {tmp_path / 'checks.d'}",)


def test_a_site_without_checks_has_the_frameworks_hash():
    assert load(parse('[[plugin]]\nname = "a"\ncommand = ["/bin/true"]\n')).hash == FRAMEWORK.hash


def test_a_plugins_result_stands_until_its_next_run_is_late(tmp_path):
    loaded = load(site(tmp_path))

    assert loaded.criteria["daily.site.clock"].max_age == 75  # 60 + 10 + 5
    assert loaded.metrics["plugin_status"].max_age == 75
    assert loaded.criteria["daily.site.disks"].max_age == 900


def test_what_a_site_says_of_age_counts(tmp_path):
    text = LINES.replace("limit = 2", "limit = 2\nmax_age = 20")

    assert load(site(tmp_path, daily=text)).criteria["daily.site.clock"].max_age == 20


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('plugin = "ntp"', 'plugin = "npt"', "no [[plugin]] is named 'npt'; did you mean 'ntp'?"),
        ('where = { plugin = "ntp" }\n', "", "say which plugin: one that never ran would not be"),
        ('unit = "status"', 'unit = "seconds"', "unit: 'seconds', but latest of plugin_status is"),
        ('"site_smart"', '"site_smrt"', "no metric 'site_smrt'; did you mean 'site_smart'?"),
        ('text = "The clock is right"\n', "", "clock.text: missing"),
        ("limit = 2", 'limit = 2\nitem = "item 1"', "item: no such key"),
        ("limit = 2", 'limit = 2\nscope = "cluster"', "scope: no such key"),
        ("limit = 2", "limit = 7", "nothing possible fails"),
        ('"disks"', '"clock"', "'daily.site.clock' is there twice"),
        ('id = "clock"', 'id = "../clock"', "is not a lower-case name"),
        ("clause =", 'schedule = "daily"\nclause =', "schedule: no such key"),
        (
            "limit = 2",
            "limit = 2\nmax_age = 1e12",
            "clock.max_age: 1000000000000.0 is not from 0.5",
        ),
    ],
)
def test_a_mistake_is_told_with_file_and_key(tmp_path, old, new, why):
    found = problems(site(tmp_path, daily=LINES.replace(old, new, 1)))

    assert why in " ".join(found)
    assert all(line.startswith(str(tmp_path / "checks.d" / "daily.toml")) for line in found)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("[site_smart]", "[smart]", "a site's metric is called site_NAME"),
        ("[site_smart]", "[cpu_busy_ratio]", "a site's metric is called site_NAME"),
        (
            'textfile = "smart"',
            'textfile = "smrt"',
            "no [[textfile]] is named 'smrt'; did you mean",
        ),
        (
            'textfile = "smart"',
            'scrape = "node", textfile = "smart"',
            "give either textfile or scrape",
        ),
        (
            'series = "smartmon_healthy"',
            'serie = "x"',
            "no such key 'serie'; did you mean 'series'?",
        ),
        ('unit = "bool"\n', "", "site_smart.unit: missing"),
        ("[0, 1]", "[1, 0]", "not [low, high] in numbers"),
        ("possible", "source", "source: no such key"),
        ('["disk"]', '["path"]', "labels: 'path' is the framework's own"),
        ('["disk"]', '["__name__"]', "is no name of a label"),
        ('unit = "bool"', 'unit = "bool"\nmax_age = 1e12', "max_age: 1000000000000.0 is not from"),
        ('"smartmon_healthy"', '"smartmon_healthy", times = 0', "times 0 makes every value 0"),
    ],
)
def test_a_metric_that_cannot_be_is_told_with_file_and_key(tmp_path, old, new, why):
    found = problems(site(tmp_path, METRICS.replace(old, new, 1)))

    assert why in found[0]
    assert found[0].startswith(str(tmp_path / "checks.d" / "metrics.toml"))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (os.mkfifo, "is no regular file"),
        (Path.mkdir, "is no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
        (lambda path: path.symlink_to("nowhere"), "No such file"),
        (lambda path: path.write_text("#" * (LARGEST + 1)), f"more than {LARGEST} bytes"),
        (lambda path: path.write_bytes(b"\xff"), "can't decode"),
    ],
)
def test_what_is_no_file_hangs_nobody_and_is_a_mistake(tmp_path, make, why):
    config = site(tmp_path)
    make(tmp_path / "checks.d" / "live.toml")
    (found,) = problems(config)

    assert why in found
    assert found.startswith(str(tmp_path / "checks.d" / "live.toml"))


def test_a_directory_that_may_not_be_read_does_not_look_empty():
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        directory.chmod(0o755)
        config = site(directory)
        (directory / "checks.d").chmod(0)
        me = os.geteuid()
        os.seteuid(65534 if me == 0 else me)
        try:
            found = problems(config)
        finally:
            os.seteuid(me)
            (directory / "checks.d").chmod(0o755)

    assert found == (f"site.checks: {directory / 'checks.d'} cannot be read: Permission denied",)


def test_a_list_that_is_none_is_named(tmp_path):
    found = problems(site(tmp_path, dayly=LINES))

    assert "no list is called so; did you mean 'daily'?" in found[0]


def test_a_test_of_a_phase_takes_no_lines_of_a_site(tmp_path):
    assert "no list is called so" in problems(site(tmp_path, hardware=LINES))[0]


def test_figures_of_the_frameworks_tests_are_no_metric_for_a_list(tmp_path):
    text = '[[criterion]]\nid = "a"\nlike = "loss_convergence.curve"\n'

    assert "belongs to the framework's tests" in " ".join(problems(site(tmp_path, daily=text)))


def test_a_site_may_not_add_without_bound(tmp_path):
    line = '[[criterion]]\nid = "a{}"\nlike = "daily.cpu_temperature"\nlimit = 60\n'
    text = "".join(line.format(n) for n in range(MOST + 1))

    assert f"{MOST + 1} criteria, wanted at most {MOST}" in problems(site(tmp_path, daily=text))[0]


def test_a_directory_that_is_not_there_is_a_mistake(tmp_path):
    config = Config.model_validate({"site": {"checks": tmp_path / "gone"}})

    (found,) = problems(config)
    assert found.startswith(f"site.checks: {tmp_path / 'gone'} is no directory; wanted")


def test_a_file_that_is_no_toml_is_a_mistake(tmp_path):
    assert "cannot be read" in problems(site(tmp_path, daily="[[["))[0]


def test_a_sites_line_cannot_stand_against_one_of_the_frameworks(tmp_path):
    text = (
        '[[criterion]]\nid = "hot"\nlike = "daily.cpu_temperature"\ncomparison = ">"\nlimit = 100\n'
    )

    assert "contradicts daily.cpu_temperature" in " ".join(problems(site(tmp_path, daily=text)))


def test_an_override_reaches_a_sites_line_and_is_told(tmp_path):
    config = site(tmp_path)
    own = parse('[override."daily.site.clock"]\nlimit = 1\nreason = "strict"\n').override
    loaded = load(config.model_copy(update={"override": own}))

    clock = loaded.criteria["daily.site.clock"]
    assert (clock.comparison, clock.limit.value) == (Comparison.LESS_THAN, 1)
    assert "daily.site.clock: limit 2 -> 1 (strict)" in loaded.overrides


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('name = "a"\ncommand = ["check_x"]', "wanted an absolute path"),
        ('name = "a"\ncommand = []', "command"),
        ('name = "a"\ncommand = "/bin/true"', "command"),
        ('name = "A b"\ncommand = ["/bin/true"]', "name"),
        ('name = "a"\ncommand = ["/bin/true"]\ninterval = 10\ntimeout = 20', "is above interval"),
    ],
)
def test_a_plugin_that_cannot_be_is_a_mistake(text, why):
    with pytest.raises(ConfigError, match=why):
        parse(f"[[plugin]]\n{text}\n")


def test_what_nothing_judges_is_noticed(tmp_path):
    assert load(site(tmp_path)).notices == (
        "metric site_load: read, and no criterion of [site] checks judges it",
    )
    idle = load(parse('[[plugin]]\nname = "a"\ncommand = ["/bin/true"]\n')).notices
    assert idle == ("[[plugin]] a: read, and no criterion of [site] checks judges it",)


def test_nothing_is_noticed_where_a_site_set_up_nothing():
    assert FRAMEWORK.notices == ()


def test_a_relative_directory_is_a_mistake():
    for text in ('[site]\nchecks = "checks.d"\n', '[[textfile]]\nname = "a"\ndirectory = "x"\n'):
        with pytest.raises(ConfigError, match="wanted an absolute path"):
            parse(text)


def test_two_plugins_of_one_name_are_a_mistake():
    with pytest.raises(ConfigError, match="two are named a"):
        parse('[[plugin]]\nname = "a"\ncommand = ["/bin/true"]\n' * 2)
