"""What a site makes of the catalogue: its profile, its overrides, its calendar."""

from __future__ import annotations

from fakes_catalogue import HEAT, criterion, problems, write

from dvfd.catalogue import load
from dvfd.config import Config, Override, Profile, Schedule
from dvfd.model import Comparison, Scope, Severity

GOODPUT = {"metric": '"goodput"', "unit": '"bytes/second"', "comparison": '">="'}


def site(**override):
    return Config(override={"day.heat": Override(**override, reason="hot summer")})


def one(directory, config=None):
    return load(config or Config(), directory).criteria["day.heat"]


def test_an_override_changes_the_limit_and_is_told(tmp_path):
    catalogue = load(site(limit=80), write(tmp_path))
    assert catalogue.criteria["day.heat"].limit.value == 80
    assert catalogue.overrides == ("day.heat: limit 75 -> 80 (hot summer)",)


def test_an_override_may_change_everything_it_names(tmp_path):
    day = criterion(reduce='"mean"', window=600, for_=5)
    own = site(window=60, max_age=30, severity="warning", **{"for": 9})
    heat = one(write(tmp_path, day), own)
    assert (heat.window, heat.max_age, heat.hold, heat.severity) == (60, 30, 9, Severity.WARNING)
    assert heat.overridden == (
        "window 600 -> 60 (hot summer); max_age default -> 30 (hot summer);"
        " for 5 -> 9 (hot summer); severity default -> warning (hot summer)"
    )


def test_an_override_reaches_what_is_like_it(tmp_path):
    day = HEAT + '[[criterion]]\nid = "later"\nlike = "day.heat"\n'
    catalogue = load(site(limit=80), write(tmp_path, day))
    assert catalogue.criteria["day.later"].limit.value == 80
    assert "day.later: limit 75 -> 80 (hot summer)" in catalogue.overrides


def test_an_override_does_not_reach_a_number_of_its_own(tmp_path):
    day = HEAT + '[[criterion]]\nid = "later"\nlike = "day.heat"\nlimit = 60\n'
    later = load(site(limit=80), write(tmp_path, day)).criteria["day.later"]
    assert (later.limit.value, later.overridden) == (60, "")


def test_an_override_reaches_a_veto():
    config = Config(override={"phase1.no_go_throughput": Override(limit=190, reason="older nodes")})
    catalogue = load(config)
    assert catalogue.gates["phase1"].vetoes[0].limit.value == 190
    assert catalogue.overrides == ("phase1.no_go_throughput: limit 200 -> 190 (older nodes)",)


def test_an_override_of_nothing_names_the_nearest(tmp_path):
    config = Config(override={"day.heet": Override(limit=1, reason="typo")})
    assert problems(write(tmp_path), config) == (
        "embedded defaults: override.day.heet: no such criterion; did you mean 'day.heat'?",
    )


def test_an_override_that_changes_nothing_is_a_mistake(tmp_path):
    found = problems(write(tmp_path), site())
    assert found == (
        (
            "embedded defaults: override.day.heat: changes nothing: "
            "give limit, window, max_age, for, severity"
        ),
    )


def test_an_override_of_a_window_that_is_not_there_is_a_mistake(tmp_path):
    found = problems(write(tmp_path), site(window=60))
    assert found == ("embedded defaults: override.day.heat.window: the latest value has none",)


def test_an_override_beyond_what_is_possible_is_a_mistake(tmp_path):
    (said,) = problems(write(tmp_path), site(limit=-30))
    assert "empty range" in said
    assert "overridden: limit 75 -> -30 (hot summer)" in said


def test_a_limit_of_the_profile_becomes_a_number(tmp_path):
    limit = '{ of = "profile.link_bytes_per_second", times = 0.9, plus = 1 }'
    heat = one(write(tmp_path, criterion(**GOODPUT, limit=limit)))
    assert heat.limit.value == 45e9 + 1


def test_what_the_profile_leaves_open_stays_open(tmp_path):
    changes = {"metric": '"rate"', "unit": '"samples/second"', "comparison": '">="'}
    metrics = '[rate]\nhelp = "x"\nunit = "samples/second"\n'
    limit = '{ of = "profile.expected_throughput", times = 0.99 }'
    directory = write(tmp_path, criterion(**changes, limit=limit), metrics=metrics)
    assert one(directory).limit.value is None
    known = Config(profile=Profile(expected_throughput=100))
    assert one(directory, known).limit.value == 99


def test_a_limit_of_a_metric_is_left_to_the_judge(tmp_path):
    heat = one(write(tmp_path, criterion(**GOODPUT, limit='{ of = "metric.wanted_goodput" }')))
    assert (heat.limit.metric, heat.limit.value) == ("wanted_goodput", None)


def test_another_link_needs_a_reason(tmp_path):
    config = Config(profile=Profile(link_gbps=100))
    assert "needs a reason in profile.link_gbps_reason" in problems(write(tmp_path), config)[0]


def test_another_link_is_told_in_every_report(tmp_path):
    profile = Profile(link_gbps=100, link_gbps_reason="older switches")
    overrides = load(Config(profile=profile), write(tmp_path)).overrides
    assert overrides == ("profile.link_gbps: 400 -> 100 (older switches)",)


def test_what_the_profile_has_not_is_not_applicable_with_the_reason(tmp_path):
    heat = one(write(tmp_path, criterion(requires='["gpu", "multi_node"]')))
    assert heat.inapplicable == 'the configuration says accelerator = "cpu" and nodes = 1'


def test_what_the_profile_has_is_applicable(tmp_path):
    directory = write(tmp_path, criterion(requires='["gpu", "nccl", "job"]'))
    config = Config(profile=Profile(accelerator="gpu", backend="nccl"))
    assert one(directory, config).inapplicable == ""


def test_sensors_that_the_profile_denies_are_not_applicable(tmp_path):
    day = criterion(requires='["temperature_sensors", "power_meters"]')
    config = Config(profile=Profile(temperature_sensors=False, power_meters=False))
    said = "the configuration says temperature_sensors = false and power_meters = false"
    assert one(write(tmp_path, day), config).inapplicable == said


def test_plausibility_and_age_come_from_the_metric(tmp_path):
    heat = one(write(tmp_path))
    assert (heat.possible.low, heat.possible.high, heat.max_age) == (-20, 130, 15)


def test_defaults_of_a_file_stay_in_it(tmp_path):
    day = '[defaults]\nscope = "cluster"\nwindow = 60\n' + HEAT
    day += criterion(id='"mean"', reduce='"mean"')
    found = load(Config(), write(tmp_path, day)).criteria
    assert (found["day.heat"].window, found["day.mean"].window) == (0, 60)
    assert found["day.heat"].scope is Scope.CLUSTER


def test_joules_a_second_are_watts(tmp_path):
    changes = {"metric": '"energy_total"', "unit": '"watts"', "reduce": '"rate"', "window": 60}
    assert one(write(tmp_path, criterion(**changes))).unit == "watts"


def test_readings_off_put_the_sources_number_in_place(tmp_path):
    day = criterion(written='{ comparison = "<=", limit = 70 }')
    heat = one(write(tmp_path, day), Config(readings=False))
    assert (heat.comparison, heat.limit.value) == (Comparison.AT_MOST, 70)


def test_readings_off_are_told_in_every_report(tmp_path):
    (told,) = load(Config(readings=False), write(tmp_path)).overrides
    assert told.startswith("readings: off")


def test_a_checklist_has_the_cron_line_of_the_site(tmp_path):
    config = Config(schedule=Schedule(daily="30 4 * * *"))
    check = load(config, write(tmp_path, 'schedule = "daily"\n' + HEAT)).checks["day"]
    assert check.schedule == "30 4 * * *"


def test_the_hash_does_not_see_comments(tmp_path):
    before = load(Config(), write(tmp_path)).hash
    assert load(Config(), write(tmp_path, "# a remark\n" + HEAT)).hash == before


def test_the_hash_sees_a_number(tmp_path):
    before = load(Config(), write(tmp_path)).hash
    assert load(Config(), write(tmp_path, criterion(limit=74))).hash != before
