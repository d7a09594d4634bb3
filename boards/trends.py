"""Months: throughput, efficiency, uptime, energy and cost, from what is recorded every hour."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from boards import colours
from boards.parts import Row, asked, board, lines, number
from boards.promql import Query, of, of_job

RECORDED = (
    "the rules of dvfd-recording-dashboards are not loaded, are younger than an hour, or nothing "
    "was measured: UNKNOWN, not zero."
)
UNSET = f"no node's profile says it: see [profile] and [cost]. Else {RECORDED}"
NO_METER = f"no meter can be read. Else {RECORDED}"
DAY = "1d"

JOB = "instance_training_job:dvfd_job"
THROUGHPUT = of_job(f"{JOB}_throughput_samples_per_second:avg1h")
SINGLES = of_job(f"{JOB}_single_processes_samples_per_second:avg1h")
SAMPLES = of_job(f"{JOB}_samples:increase1h")
UP = of_job(f"{JOB}_up_seconds:increase1h")
OBSERVED = of_job(f"{JOB}_observed_seconds:increase1h")
RESTARTS = of_job("instance_training_job:dvfd_rank_restarts:increase1h")
VERDICTS = of("instance_verdict:dvfd_check_verdict:count1h")
ENERGY = of("instance_source:dvfd_energy_joules:increase1h")
COST = of("instance_currency:dvfd_profile_cost_per_hour:avg1h")

JOULES_PER_KWH = 3_600_000
MILLION = 1_000_000
ALL = "$__range"
EACH = "$__interval"


def make() -> Dashboard:
    """The dashboard."""
    return board(
        "dvfd-trends",
        "dvfd: trends",
        "Weeks and months, from series recorded every hour: load alert_rules/"
        "dvfd-recording-dashboards.rules.yml into Prometheus, and keep its data for as long as you "
        "want to look back. Bars and points are days, at the end of each.",
        (
            Row("Over the chosen time", _totals()),
            Row("Throughput and efficiency", _throughput()),
            Row("Uptime", _uptime()),
            Row("Energy and cost", _cost()),
        ),
        since="now-90d",
        refresh="1h",
        variables=(
            asked(
                "training_job",
                "Training job",
                f"label_values({JOB}_up_seconds:increase1h"
                '{job=~"$job", instance=~"$instance"}, training_job)',
                text="The job as it calls itself; label job is Prometheus's own",
            ),
        ),
    )


def _sum(selector: str, by: str = "", over: str = ALL) -> str:
    """Hours added up over a time."""
    return f"sum{f' by ({by})' if by else ''} (sum_over_time({selector}[{over}]))"


def _those(
    selector: str, also: str, on: str = "job, instance", by: str = "", over: str = ALL
) -> str:
    """Hours added up, of those nodes only that tell *also*: a node that says no price, or whose
    meter is not read, must not make the others look cheap.
    """
    each = f"sum_over_time({selector}[{over}]) and on ({on}) present_over_time({also}[{over}])"
    return f"sum{f' by ({by})' if by else ''} ({each})"


def _efficiency(by: str = "", over: str = ALL) -> str:
    both = "job, instance, training_job"
    return f"{_those(THROUGHPUT, SINGLES, both, by, over)} / {_sum(SINGLES, by, over)}"


def _totals() -> tuple[object, ...]:
    return (
        number(
            "Samples trained",
            "By all chosen jobs, on the chosen nodes.",
            Query(_sum(SAMPLES)),
            unit="short",
            blank=RECORDED,
            span=3,
        ),
        number(
            "Throughput",
            "Mean over the hours in which it was seen: of the job, or of the three fastest chosen.",
            Query(
                f"topk(3, avg by (training_job) (avg_over_time({THROUGHPUT}[{ALL}])))",
                "{{training_job}}",
            ),
            unit="cps",
            decimals=0,
            named=True,
            blank=RECORDED,
            span=3,
        ),
        number(
            "Efficiency",
            "Throughput over that of as many single processes: X_n / (n X_1).",
            Query(_efficiency()),
            unit="percentunit",
            decimals=1,
            blank=UNSET,
            span=3,
        ),
        number(
            "Up of observed",
            "Seconds up over seconds observed. Blind time is in neither: see how much below.",
            Query(f"{_sum(UP)} / {_sum(OBSERVED)}"),
            unit="percentunit",
            decimals=3,
            blank=RECORDED,
            span=3,
        ),
        number(
            "Restarts of ranks",
            "Of the chosen jobs.",
            Query(_sum(RESTARTS)),
            unit="short",
            decimals=0,
            steps=((None, colours.UNKNOWN), (0, colours.SERIES[0])),
            blank=RECORDED,
            span=3,
        ),
        number(
            "Energy",
            "Of processor packages and GPUs that have a meter.",
            Query(f"{_sum(ENERGY)} / {JOULES_PER_KWH}"),
            unit="kwatth",
            decimals=0,
            blank=NO_METER,
            span=3,
        ),
        number(
            "Cost",
            "Hours in which a node was seen, times what it costs an hour.",
            Query(_sum(COST, "currency"), "{{currency}}"),
            unit="none",
            decimals=0,
            named=True,
            blank=UNSET,
            span=3,
        ),
        number(
            "Cost of 1 M samples",
            "Of the chosen nodes that say what they cost, over the samples that they trained.",
            Query(
                f"{MILLION} * {_sum(COST, 'currency')} / on () group_left () "
                f"{_those(SAMPLES, COST)}",
                "{{currency}}",
            ),
            unit="none",
            decimals=2,
            named=True,
            blank=UNSET,
            span=3,
        ),
    )


def _throughput() -> tuple[object, ...]:
    by = "{{training_job}}"
    return (
        lines(
            "Throughput",
            "Mean of each day, over the nodes of each job. A fall over weeks is what the monthly "
            "review looks for.",
            Query(f"avg by (training_job) (avg_over_time({THROUGHPUT}[{EACH}]))", by),
            unit="cps",
            every=DAY,
            blank=RECORDED,
        ),
        lines(
            "Efficiency",
            "X_n / (n X_1) of each day.",
            Query(_efficiency("training_job", EACH), by),
            unit="percentunit",
            top=1,
            every=DAY,
            blank=UNSET,
        ),
        lines(
            "Samples trained",
            "In each day, summed over the nodes of each job.",
            Query(_sum(SAMPLES, "training_job", EACH), by),
            unit="short",
            every=DAY,
            stacked=True,
            blank=RECORDED,
        ),
        lines(
            "Restarts of ranks",
            "In each day.",
            Query(_sum(RESTARTS, "training_job", EACH), by),
            unit="short",
            top=1,
            every=DAY,
            stacked=True,
            blank=RECORDED,
        ),
    )


def _uptime() -> tuple[object, ...]:
    by = "{{training_job}}"
    seconds = "($__interval_ms / 1000)"
    share = f"sum_over_time({VERDICTS}[{EACH}])"
    whole = f"ignoring (verdict) group_left () sum by (job, instance) ({share})"
    nodes = f"count(count by (job, instance) ({share}))"  # avg leaves out those without the verdict
    return (
        lines(
            "Up, of the time observed",
            "Of each day: every expected rank alive and its progress within its limit.",
            Query(f"{_sum(UP, 'training_job', EACH)} / {_sum(OBSERVED, 'training_job', EACH)}", by),
            unit="percentunit",
            top=1,
            least=None,
            every=DAY,
            blank=RECORDED,
        ),
        lines(
            "Observed, of the day",
            "The node that saw the job longest. What is missing to 100 % is blind time, or time "
            "without the job: uptime says nothing about it.",
            Query(
                f"max by (training_job) (sum_over_time({OBSERVED}[{EACH}])) / {seconds}",
                by,
            ),
            unit="percentunit",
            top=1,
            every=DAY,
            blank=RECORDED,
        ),
        lines(
            "Nodes' verdicts",
            "Share of the scrapes of each day in which the continuous watch had each verdict, the "
            "mean of the nodes. A node that was silent has no scrapes.",
            Query(
                f"sum by (verdict) ({share} / {whole}) / on () group_left () {nodes}",
                "{{verdict}}",
            ),
            unit="percentunit",
            top=1,
            every=DAY,
            stacked=True,
            span=24,
            colour=colours.VERDICTS,
            blank=RECORDED,
        ),
    )


def _cost() -> tuple[object, ...]:
    return (
        lines(
            "Energy",
            "In each day, of processor packages and of GPUs that have a meter.",
            Query(f"{_sum(ENERGY, 'source', EACH)} / {JOULES_PER_KWH}", "{{source}}"),
            unit="kwatth",
            every=DAY,
            stacked=True,
            blank=NO_METER,
        ),
        lines(
            "Energy of a thousand samples",
            "Of the chosen nodes with a meter, over the samples that they trained, in each day.",
            Query(
                f"1000 * {_sum(ENERGY, '', EACH)} / {_those(SAMPLES, ENERGY, over=EACH)}", "energy"
            ),
            unit="joule",
            every=DAY,
            blank=NO_METER,
        ),
        lines(
            "Cost",
            "In each day: hours in which a node was seen, times what it costs.",
            Query(_sum(COST, "currency", EACH), "{{currency}}"),
            unit="none",
            every=DAY,
            stacked=True,
            blank=UNSET,
        ),
        lines(
            "Cost of a million samples",
            "Of the chosen nodes that say what they cost, over the samples that they trained, in "
            "each day.",
            Query(
                f"{MILLION} * {_sum(COST, 'currency', EACH)} / on () group_left () "
                f"{_those(SAMPLES, COST, over=EACH)}",
                "{{currency}}",
            ),
            unit="none",
            every=DAY,
            blank=UNSET,
        ),
    )
