"""All nodes: how many are well, which are not, and what they are worth together."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from boards import colours
from boards.job import EFFICIENCY, THROUGHPUT, training_job
from boards.limits import limit
from boards.parts import (
    NONE_WANTED,
    VERDICT,
    Row,
    bars,
    board,
    lines,
    number,
    rows,
    states,
)
from boards.promql import CODES, Query, against, counted, fleet_verdicts, node_verdict, of, rate

NOBODY = "no node is scraped: UNKNOWN, not well."
UNRECORDED = "the group dvfd-recording-cluster of dvfd-recording.rules.yml is not loaded: UNKNOWN."
CHOSEN_JOB = 'training_job=~"$training_job"'
SPREADS = {
    "compute section": "training_job:dvfd_rank_compute_seconds:spread",
    "throughput": "training_job:dvfd_job_throughput_samples_per_second:spread",
}
"""Recorded for jobs on two nodes or more."""

WORST = 40
"""Rows of a timeline that a person still reads."""


def make() -> Dashboard:
    """The dashboard."""
    return board(
        "dvfd-fleet",
        "dvfd: fleet",
        "Every node that Prometheus scrapes for dvfd. A node that does not answer, or whose "
        "readings stand still, is UNKNOWN and counts as that.",
        (
            Row("Now", _now()),
            Row("Fleet", _as_one()),
            Row("Nodes", _nodes()),
            Row("What fails where", _failing()),
            Row("Jobs, heat, power", _work()),
            Row("dvfd itself", _daemons()),
        ),
        variables=(training_job(),),
    )


def _with(verdict: str) -> str:
    """Nodes that have this verdict; 0 only if some node is known at all."""
    return counted(f"{_verdicts()} == {CODES[verdict]}", of("up"))


def _verdicts() -> str:
    return f"({node_verdict()})"


def _now() -> tuple[object, ...]:
    watts = (
        f"sum({rate(of('dvfd_cpu_package_energy_joules_total'))} or "
        f"{rate(of('dvfd_gpu_energy_joules_total'))})"
    )
    bad = ((None, colours.UNKNOWN), (0, colours.PASS), (0.5, colours.FAIL))
    odd = ((None, colours.UNKNOWN), (0, colours.PASS), (0.5, colours.UNKNOWN))
    return (
        number(
            "Nodes",
            "Nodes that Prometheus is told to scrape.",
            Query(f"count({of('up')})"),
            unit="none",
            blank=NOBODY,
            span=3,
        ),
        number(
            "PASS",
            "Nodes whose continuous watch passes.",
            Query(_with("PASS")),
            unit="none",
            blank=NOBODY,
            span=3,
        ),
        number(
            "FAIL",
            "Nodes on which a critical criterion fails.",
            Query(_with("FAIL")),
            unit="none",
            steps=bad,
            blank=NOBODY,
            span=3,
        ),
        number(
            "UNKNOWN",
            "Nodes that cannot be judged: silent ones, those whose readings stand still, and those "
            "with a critical criterion that nobody can measure.",
            Query(_with("UNKNOWN")),
            unit="none",
            steps=odd,
            blank=NOBODY,
            span=3,
        ),
        number(
            "Silent",
            "Nodes whose dvfd did not answer the last scrape; counted as UNKNOWN too.",
            Query(counted(f"{of('up')} == 0", of("up"))),
            unit="none",
            steps=odd,
            blank=NOBODY,
            span=3,
        ),
        number(
            "Alerts firing",
            "Alerts that the nodes' dvfds have raised and not taken back.",
            Query(f"sum({of('dvfd_alerts_firing')})"),
            unit="none",
            steps=NONE_WANTED,
            blank=NOBODY,
            span=3,
        ),
        number(
            "Power",
            "Of all processor packages and GPUs that have a meter.",
            Query(watts),
            unit="watt",
            blank="no node has a meter that dvfd may read: UNKNOWN, not zero.",
            span=3,
        ),
        number(
            "Cost an hour",
            "Of all nodes whose configuration says what they cost: [cost]. One figure for each "
            "currency.",
            Query(f"sum by (currency) ({of('dvfd_profile_cost_per_hour')})", "{{currency}}"),
            unit="none",
            decimals=2,
            named=True,
            blank="no node says what it costs.",
            span=3,
        ),
    )


def _as_one() -> tuple[object, ...]:
    odd = ((None, colours.UNKNOWN), (0, colours.PASS), (0.5, colours.UNKNOWN))
    return (
        states(
            "Checks, all nodes as one",
            "The worst verdict of each check over all nodes. Who is missing or says nothing "
            "makes it UNKNOWN.",
            Query(fleet_verdicts(), "{{check}}"),
            blank=UNRECORDED,
        ),
        number(
            "Missing",
            "Nodes that are silent, and those of the last hour that are no target any more.",
            Query("fleet:dvfd_nodes_missing:count{}"),
            unit="none",
            steps=odd,
            blank=UNRECORDED,
        ),
        *(
            lines(
                f"Balance of {what}",
                f"How far the node that is furthest from the mean {what} of its job is from it.",
                Query(f"{spread}{{{CHOSEN_JOB}}}", "{{training_job}}"),
                against(limit("stability_phase2b.balance"), f"{spread}{{{CHOSEN_JOB}}}"),
                unit="percentunit",
                blank=f"{UNRECORDED} One node alone is balanced with nothing.",
                span=10,
            )
            for what, spread in SPREADS.items()
        ),
    )


def _nodes() -> tuple[object, ...]:
    failing = of("dvfd_criterion_verdict", 'check="live"', 'verdict="FAIL"')
    names = [v for v in CODES if v not in {"NOT_APPLICABLE", "WAIVED"}]
    return (
        lines(
            "Nodes by verdict",
            "How many nodes have each verdict. Their sum is the number of nodes scraped, less "
            "those that have only WAIVED or NOT_APPLICABLE criteria.",
            *(Query(_with(name), name) for name in reversed(names)),
            unit="short",
            stacked=True,
            colour={name: colours.VERDICTS[name] for name in names},
            blank=NOBODY,
        ),
        rows(
            "Nodes that need a look",
            "Nodes that fail or cannot be judged, the worst first.",
            Query(f"sort_desc({_verdicts()} >= {CODES['UNKNOWN']})"),
            columns={"instance": "Node", "Value": "Verdict"},
            values=VERDICT,
            span=12,
            height=8,
            links=(
                ("Node", "The node's page", "${scheme}://${__data.fields.Node}/"),
                (
                    "Node",
                    "Its dashboard",
                    "/d/dvfd-node?var-instance=${__data.fields.Node}&${datasource:queryparam}",
                ),
            ),
            blank="every node passes, if there are nodes above; else nobody looked.",
        ),
        states(
            f"The {WORST} worst nodes",
            "Verdicts over time of the nodes that are worst at each moment, silence included.",
            Query(f"topk({WORST}, {_verdicts()})", "{{instance}}"),
            blank=NOBODY,
            height=20,
        ),
        bars(
            "Failing criteria on a node",
            "The 15 nodes with the most failing criteria of the continuous watch.",
            Query(f"topk(15, count by (instance) ({failing}))", "{{instance}}"),
            unit="none",
            colour=colours.FAIL,
            blank="nothing fails, if there are nodes above.",
        ),
        rows(
            "Versions, catalogues, profiles",
            "How many nodes run which. Results of unequal hashes do not compare.",
            Query(f"count by (version, catalogue, profile) ({of('dvfd_build_info')})"),
            columns={
                "Value": "Nodes",
                "version": "Version",
                "catalogue": "Catalogue",
                "profile": "Profile",
            },
            span=12,
            blank=NOBODY,
        ),
    )


def _failing() -> tuple[object, ...]:
    return tuple(
        bars(
            f"Criteria with {verdict}",
            f"The 15 criteria of the continuous watch that are {verdict} on the most nodes.",
            Query(
                "topk(15, count by (criterion) ("
                + of("dvfd_criterion_verdict", 'check="live"', f'verdict="{verdict}"')
                + "))",
                "{{criterion}}",
            ),
            unit="none",
            colour=colours.VERDICTS[verdict],
            blank=f"none is {verdict}, if there are nodes above.",
        )
        for verdict in ("FAIL", "UNKNOWN")
    )


def _work() -> tuple[object, ...]:
    chosen = 'training_job=~"$training_job"'
    return (
        lines(
            "Throughput of jobs",
            "Samples a second of each whole job: the mean of what its nodes say.",
            Query(f"avg by (training_job) ({THROUGHPUT})", "{{training_job}}"),
            unit="cps",
            blank="no job reports samples.",
        ),
        lines(
            "Efficiency of jobs",
            "X_n / (n X_1), the mean over the job's nodes.",
            Query(f"avg by (training_job) ({EFFICIENCY})", "{{training_job}}"),
            unit="percentunit",
            top=1,
            blank="no profile says what a single process does.",
        ),
        lines(
            "Ranks that do not respond",
            "Ranks dead, stopped, hung or gone, by job, and ranks that are missing.",
            Query(
                "count by (training_job) ("
                + of("dvfd_rank_responding", chosen)
                + ") - sum by (training_job) ("
                + of("dvfd_rank_responding", chosen)
                + ")",
                "{{training_job}} not responding",
            ),
            Query(
                f"sum by (training_job) ({of('dvfd_job_ranks_missing', chosen)})",
                "{{training_job}} missing",
            ),
            unit="short",
            top=1,
            blank="no job is known.",
        ),
        lines(
            "The hottest",
            "The ten hottest processor packages and GPUs.",
            Query(
                f"topk(10, {of('dvfd_cpu_temperature_celsius')})",
                "{{instance}} package {{package}}",
            ),
            Query(f"topk(10, {of('dvfd_gpu_temperature_celsius')})", "{{instance}} GPU {{gpu}}"),
            unit="celsius",
            blank="no sensor can be read: UNKNOWN, not cool.",
        ),
        lines(
            "Power",
            "Of processor packages, and of GPUs.",
            Query(f"sum({rate(of('dvfd_cpu_package_energy_joules_total'))})", "packages"),
            Query(f"sum({rate(of('dvfd_gpu_energy_joules_total'))})", "GPUs"),
            unit="watt",
            stacked=True,
            blank="no meter can be read: UNKNOWN, not zero.",
        ),
        lines(
            "The busiest links",
            "The ten interfaces closest to their link's speed.",
            Query(f"topk(10, {of('dvfd_network_saturation_ratio')})", "{{instance}} {{interface}}"),
            unit="percentunit",
            top=1,
            blank="no interface has a speed to compare with.",
        ),
    )


def _daemons() -> tuple[object, ...]:
    return (
        bars(
            "Sources that cannot be read",
            "Probes that are down, by the number of nodes.",
            Query(f"count by (probe) ({of('dvfd_probe_up')} == 0)", "{{probe}}"),
            unit="none",
            colour=colours.UNKNOWN,
            blank="every probe reads its source, if there are nodes above.",
        ),
        lines(
            "Daemons in trouble",
            "Nodes with a late loop, with a store that does not reach its disk, with alerts that "
            "nobody takes.",
            Query(
                f"count(sum by (instance) ({of('dvfd_loop_late')}) > 0) or 0 * count({of('up')})",
                "late loops",
            ),
            Query(counted(f"{of('dvfd_store_ok')} == 0", of("up")), "store not ok"),
            Query(counted(f"{of('dvfd_alerts_outbox')} > 0", of("up")), "alerts waiting"),
            unit="short",
            top=1,
            blank=NOBODY,
        ),
        lines(
            "Scrapes",
            "How long Prometheus waits for /metrics: the longest, and the mean.",
            Query(f"max({of('scrape_duration_seconds')})", "longest"),
            Query(f"avg({of('scrape_duration_seconds')})", "mean"),
            unit="s",
            blank=NOBODY,
        ),
        lines(
            "Series",
            "Samples that the scrapes bring, after relabelling: all nodes together.",
            Query(f"sum({of('scrape_samples_post_metric_relabeling')})", "series"),
            unit="short",
            blank=NOBODY,
        ),
    )
