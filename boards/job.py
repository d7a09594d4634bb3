"""One training job on its nodes: pace, ranks, loss, checkpoints, uptime."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.models.dashboard import Dashboard

from boards.limits import limit
from boards.parts import (
    NONE_WANTED,
    PLAIN,
    SILENT,
    YES_NO,
    Row,
    asked,
    board,
    lines,
    number,
    said,
    states,
)
from boards.promql import Query, against, increase, of, of_job, or_unknown, rate

SILENCE = "the job says nothing, has ended, or dvfd does not answer: UNKNOWN, not well."
UNTOLD = "the job does not report this: see docs on the reporter. UNKNOWN, not zero."
UNSET = "the profile says no figure to hold it against: [profile] in the node's configuration."

THROUGHPUT = of_job("dvfd_job_throughput_samples_per_second")
EXPECTED = of("dvfd_profile_expected_throughput_samples_per_second")
SINGLE = of("dvfd_profile_single_process_throughput_samples_per_second")

EFFICIENCY = (
    f"{THROUGHPUT} / on (job, instance, training_job) {of_job('dvfd_job_processes')}"
    f" / on (job, instance) group_left () {SINGLE}"
)
"""X_n / (n X_1), never clamped: above 1 the baseline wants to be looked at."""


def training_job() -> Any:
    """The variable that chooses jobs, for the fleet's dashboard too."""
    return asked(
        "training_job",
        "Training job",
        f"label_values({of('dvfd_job_processes')}, training_job)",
        text="The job as it calls itself; label job is Prometheus's own",
    )


def make() -> Dashboard:
    """The dashboard."""
    return board(
        "dvfd-job",
        "dvfd: job",
        "A training job as its nodes see it. Each node tells the whole job's throughput from its "
        "own ranks; where nodes disagree, so do their ranks.",
        (
            Row("Now", _now()),
            Row("Pace", _pace()),
            Row("Ranks", _ranks()),
            Row("Loss and gradients", _loss()),
            Row("Checkpoints", _checkpoints()),
            Row("Uptime", _uptime()),
        ),
        variables=(training_job(),),
    )


def _now() -> tuple[object, ...]:
    ups, seen = of_job("dvfd_job_up_seconds_total"), of_job("dvfd_job_observed_seconds_total")
    return (
        said(
            "All ranks respond",
            "Whether every rank that registered is alive and none is missing.",
            Query(
                f"min({of_job('dvfd_rank_responding')}) * (sum({of_job('dvfd_job_ranks_missing')}) "
                "== bool 0)"
            ),
            values=YES_NO,
            blank=SILENCE,
        ),
        number(
            "Throughput",
            "Samples a second of the whole job, the mean of what the nodes say.",
            Query(f"avg({THROUGHPUT})"),
            unit="cps",
            decimals=1,
            blank=SILENCE,
        ),
        number(
            "Of what was accepted",
            "Throughput over the accepted one of the profile.",
            Query(f"avg({THROUGHPUT}) / avg({EXPECTED})"),
            unit="percentunit",
            steps=PLAIN,
            blank=UNSET,
        ),
        number(
            "Efficiency",
            "Throughput over that of as many single processes: X_n / (n X_1), never clamped.",
            Query(f"avg({EFFICIENCY})"),
            unit="percentunit",
            steps=PLAIN,
            blank=UNSET,
        ),
        number(
            "Up, of the time observed",
            "Over the chosen time: every expected rank alive and in time, of the seconds in which "
            "that could be seen. Blind time is in neither.",
            Query(f"sum({increase(ups, '$__range')}) / sum({increase(seen, '$__range')})"),
            unit="percentunit",
            decimals=3,
            steps=PLAIN,
            blank=SILENCE,
        ),
        number(
            "Restarts of ranks",
            "Over the chosen time.",
            Query(f"sum({increase(of_job('dvfd_rank_restarts_total'), '$__range')})"),
            unit="none",
            decimals=0,
            steps=NONE_WANTED,
            blank=SILENCE,
        ),
    )


def _pace() -> tuple[object, ...]:
    return (
        lines(
            "Throughput",
            "Samples a second of the whole job, as each node sees it.",
            Query(THROUGHPUT, "{{training_job}} seen by {{instance}}"),
            Query(f"max({EXPECTED})", "accepted", limit=True),
            unit="cps",
            blank=SILENCE,
        ),
        lines(
            "Efficiency",
            "X_n / (n X_1). Super-linear, above 100 %: verify the baseline.",
            Query(EFFICIENCY, "{{training_job}} seen by {{instance}}"),
            unit="percentunit",
            top=1,
            blank=UNSET,
        ),
        lines(
            "Time of a step",
            "Mean time between the steps of each rank.",
            Query(of_job("dvfd_rank_step_seconds"), "rank {{rank}}"),
            unit="s",
            blank=SILENCE,
        ),
        lines(
            "Compute section",
            "Mean time that each rank computes in a step, collectives excluded.",
            Query(of_job("dvfd_rank_compute_seconds"), "rank {{rank}}"),
            unit="s",
            blank=UNTOLD,
        ),
        lines(
            "Communication",
            "Exposed communication over step time.",
            Query(of_job("dvfd_job_communication_ratio"), "{{instance}}"),
            unit="percentunit",
            blank=UNTOLD,
        ),
        lines(
            "All-reduce",
            "The largest mean time of an all-reduce among the ranks of a node.",
            Query(of_job("dvfd_job_allreduce_seconds"), "{{instance}}"),
            unit="s",
            blank=UNTOLD,
        ),
    )


def _ranks() -> tuple[object, ...]:
    by = ["instance", "training_job", "rank"]
    responding = of_job("dvfd_rank_responding")
    return (
        states(
            "Ranks",
            "Whether each rank runs and is connected.",
            Query(
                or_unknown(f"max by ({', '.join(by)}) ({responding})", by, responding, SILENT),
                "{{training_job}} rank {{rank}} on {{instance}}",
            ),
            values=YES_NO,
            span=12,
            blank=SILENCE,
        ),
        lines(
            "Silence over its limit",
            "Time since each rank's last progress over its hang limit, the larger of 10 s and "
            "5 x P99 of its steps. At 1 it hangs.",
            Query(of_job("dvfd_rank_stall_ratio"), "rank {{rank}}"),
            against(limit("live.progress"), of_job("dvfd_rank_stall_ratio"), "hangs"),
            unit="percentunit",
            top=1,
            blank=SILENCE,
        ),
        lines(
            "Stragglers",
            "The fastest rank's compute section, or the rank's own past, over its own now.",
            Query(of_job("dvfd_rank_straggler_ratio"), "rank {{rank}}"),
            against(limit("daily.stragglers"), of_job("dvfd_rank_straggler_ratio")),
            unit="percentunit",
            top=1,
            blank=UNTOLD,
        ),
        lines(
            "Processor use of ranks",
            "User and system time of each rank over the cores it was given.",
            Query(of_job("dvfd_rank_cpu_ratio"), "rank {{rank}}"),
            against(limit("daily.cpu"), of_job("dvfd_rank_cpu_ratio"), "wanted, more than"),
            unit="percentunit",
            top=1,
            blank="the process cannot be seen from here.",
        ),
        lines(
            "Missing ranks and skew",
            "Ranks of a node that never came or left without a word; steps between the first and "
            "the last rank.",
            Query(of_job("dvfd_job_ranks_missing"), "missing on {{instance}}"),
            Query(of_job("dvfd_job_step_skew"), "skew on {{instance}}"),
            unit="short",
            top=1,
            blank=SILENCE,
        ),
        lines(
            "Restarts and exceptions",
            "Ranks that came back as new processes, and exceptions that ranks reported.",
            Query(increase(of_job("dvfd_rank_restarts_total")), "restarts on {{instance}}"),
            Query(increase(of_job("dvfd_job_exceptions_total")), "exceptions on {{instance}}"),
            unit="short",
            top=1,
            blank=SILENCE,
        ),
    )


def _loss() -> tuple[object, ...]:
    return (
        lines(
            "Loss",
            "Mean training loss of the ranks of each node, and the newest validation loss.",
            Query(of_job("dvfd_job_loss"), "training, {{instance}}"),
            Query(of_job("dvfd_job_validation_loss"), "validation, {{instance}}"),
            unit="none",
            least=None,
            blank=UNTOLD,
        ),
        lines(
            "Gradient norm",
            "Mean global gradient norm.",
            Query(of_job("dvfd_job_gradient_norm"), "{{instance}}"),
            unit="none",
            blank=UNTOLD,
        ),
        lines(
            "Losses that are none",
            "NaN or infinite losses and gradient norms, and spikes of the loss, as they come.",
            Query(increase(of_job("dvfd_job_nonfinite_total")), "not finite, {{instance}}"),
            Query(increase(of_job("dvfd_job_loss_spikes_total")), "spikes, {{instance}}"),
            unit="short",
            top=1,
            blank="the job tells no loss, or its ranks are silent: UNKNOWN, not well.",
        ),
        lines(
            "Hashes compared between ranks",
            "Gradient and parameter hashes compared at the same step, and those that differed: "
            "silent corruption.",
            Query(rate(of_job("dvfd_job_hash_comparisons_total")), "compared, {{instance}}"),
            Query(rate(of_job("dvfd_job_hash_mismatches_total")), "differed, {{instance}}"),
            unit="cps",
            blank=UNTOLD,
        ),
    )


def _checkpoints() -> tuple[object, ...]:
    return (
        lines(
            "Age of the last checkpoint",
            "Time since the last save that the job reported.",
            Query(of_job("dvfd_checkpoint_age_seconds"), "{{training_job}} on {{instance}}"),
            unit="s",
            blank="no checkpoint was reported yet.",
        ),
        lines(
            "Missing and failed saves",
            "Saves that were due by the declared interval and not reported, and saves that failed.",
            Query(of_job("dvfd_checkpoint_missing"), "missing, {{instance}}"),
            Query(increase(of_job("dvfd_checkpoint_failures_total")), "failed, {{instance}}"),
            unit="short",
            top=1,
            blank="no checkpoint interval was declared.",
        ),
        states(
            "Newest checkpoint intact",
            "Whether the newest verified checkpoint agrees with its manifest or its archive sums.",
            Query(_checkpoint("dvfd_checkpoint_intact"), "{{training_job}} on {{instance}}"),
            values=YES_NO,
            span=12,
            height=5,
            blank="none was verified yet: UNKNOWN.",
        ),
        states(
            "Newest checkpoint loads",
            "Whether it loaded in a process of its own.",
            Query(_checkpoint("dvfd_checkpoint_loadable"), "{{training_job}} on {{instance}}"),
            values=YES_NO,
            span=12,
            height=5,
            blank="none was loaded yet, or torch is not at hand: UNKNOWN.",
        ),
    )


def _checkpoint(metric: str) -> str:
    by = ["instance", "training_job"]
    selector = of_job(metric)
    return or_unknown(f"max by ({', '.join(by)}) ({selector})", by, selector, SILENT)


def _uptime() -> tuple[object, ...]:
    by = "{{training_job}} on {{instance}}"
    return (
        lines(
            "Up and observed, shares of the time",
            "From observed down to up the job was down; from 1 down to observed nobody could tell. "
            "Up needs every expected rank alive and its progress within its limit.",
            Query(rate(of_job("dvfd_job_observed_seconds_total")), f"observed, {by}"),
            Query(rate(of_job("dvfd_job_up_seconds_total")), f"up, {by}"),
            unit="percentunit",
            top=1,
            blank=SILENCE,
        ),
        lines(
            "Samples trained",
            "Samples a second that each node's ranks reported; their sum over nodes is the job's. "
            "After a silence what was kept meanwhile comes at once, as a peak.",
            Query(rate(of_job("dvfd_job_samples_total")), by),
            unit="cps",
            blank=UNTOLD,
        ),
        lines(
            "Expected jobs that are absent",
            "1 while a job that is expected here, by [jobs] expected, has no live rank.",
            Query(of_job("dvfd_job_absent"), by),
            unit="short",
            top=1,
            span=24,
            blank="no job is declared as expected.",
        ),
    )
