"""One node: its verdict and why, its hardware, and dvfd itself."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from boards import colours
from boards.limits import limit
from boards.parts import (
    NONE_WANTED,
    SILENT,
    YES_NO,
    Row,
    Said,
    board,
    lines,
    number,
    rows,
    said,
    states,
    verdict,
)
from boards.promql import (
    Query,
    against,
    coded,
    counted,
    increase,
    node_verdict,
    of,
    or_unknown,
    rate,
)

NO_METER = "the machine has no such meter, or dvfd may not read it: UNKNOWN, not zero."
SILENCE = "dvfd does not answer Prometheus: UNKNOWN, not well."
CPU_ONLY = "no GPU in this node's profile, or NVML does not answer: the GPU probe below says which."


def make() -> Dashboard:
    """The dashboard."""
    return board(
        "dvfd-node",
        "dvfd: node",
        "One node: what dvfd says of it, why, and what it measures. Purple is UNKNOWN everywhere: "
        "not measured, stale or silent; never read it as well.",
        (
            Row("Verdict", _verdict()),
            Row("Processor, memory, temperature, power", _host()),
            Row("GPU", _gpu()),
            Row("Network and disks", _network()),
            Row("dvfd itself", _daemon()),
        ),
        one_node=True,
    )


def _verdict() -> tuple[object, ...]:
    live = 'check="live"'
    every = of("dvfd_criterion_verdict", live)
    failing = of("dvfd_criterion_verdict", live, 'verdict="FAIL"')
    unknown = of("dvfd_criterion_verdict", live, 'verdict="UNKNOWN"')
    return (
        verdict(
            "Verdict",
            "The worst of the continuous watch's critical criteria, now.",
            Query(f"max({node_verdict()})"),
            blank=SILENCE,
        ),
        said(
            "dvfd answers",
            "Whether Prometheus reached dvfd at its last scrape.",
            Query(f"min({of('up')})"),
            values=YES_NO,
            blank="Prometheus has no such target.",
        ),
        number(
            "Criteria failing",
            "Criteria of the continuous watch that fail now, warnings included.",
            Query(counted(failing, every)),
            unit="none",
            steps=NONE_WANTED,
            blank=SILENCE,
        ),
        number(
            "Criteria unknown",
            "Criteria of the continuous watch that nobody can judge now.",
            Query(counted(unknown, every)),
            unit="none",
            steps=((None, colours.UNKNOWN), (0, colours.PASS), (0.5, colours.UNKNOWN)),
            blank=SILENCE,
        ),
        number(
            "Alerts firing",
            "Alerts that this dvfd has raised and not taken back.",
            Query(f"sum({of('dvfd_alerts_firing')})"),
            unit="none",
            steps=NONE_WANTED,
            blank=SILENCE,
        ),
        number(
            "Loops late, store broken",
            "Loops of the daemon without progress, and 1 more if its store reaches no disk.",
            Query(f"sum({of('dvfd_loop_late')}) + sum(1 - {of('dvfd_store_ok')})"),
            unit="none",
            steps=NONE_WANTED,
            blank=SILENCE,
        ),
        states(
            "Continuous watch, every criterion",
            "Each criterion's verdict over time. A stretch in which dvfd was silent is UNKNOWN.",
            Query(
                or_unknown(
                    coded("dvfd_criterion_verdict", ["instance", "criterion"], live),
                    ["instance", "criterion"],
                    every,
                ),
                "{{criterion}}",
            ),
            blank=SILENCE,
            height=20,
        ),
        rows(
            "What is not well now",
            "Criteria of the continuous watch that fail or are unknown. The node's page says why; "
            "the runbook says what to do.",
            Query(of("dvfd_criterion_verdict", live, 'verdict=~"FAIL|UNKNOWN"')),
            columns={"instance": "Node", "criterion": "Criterion", "verdict": "Verdict"},
            texts={"FAIL": colours.FAIL, "UNKNOWN": colours.UNKNOWN},
            links=(
                ("Node", "The node's page", "${scheme}://${__data.fields.Node}/"),
                ("Criterion", "Runbook", "${runbooks}/DvfdCriterionFailed.md"),
                ("Verdict", "Runbook", "${runbooks}/DvfdBlind.md"),
            ),
            blank="nothing fails or is unknown, if the verdict above is PASS; else silence.",
        ),
    )


def _host() -> tuple[object, ...]:
    hottest = limit("daily.cpu_temperature")
    fullest = limit("daily.memory")
    return (
        lines(
            "Processor",
            "Busy share of all logical processors, and load average over their number.",
            Query(of("dvfd_node_cpu_ratio"), "busy"),
            Query(of("dvfd_node_load_ratio"), "load"),
            unit="percentunit",
            top=1,
            blank=NO_METER,
        ),
        lines(
            "Memory",
            "Used share of each NUMA node's memory, without what the kernel can give back.",
            Query(of("dvfd_node_memory_used_ratio"), "NUMA node {{numa_node}}"),
            against(fullest, of("dvfd_node_memory_used_ratio")),
            unit="percentunit",
            top=1,
            blank=NO_METER,
        ),
        lines(
            "Processor temperature",
            "Each package's own sensor.",
            Query(of("dvfd_cpu_temperature_celsius"), "package {{package}}"),
            against(hottest, of("dvfd_cpu_temperature_celsius")),
            unit="celsius",
            blank=NO_METER,
        ),
        lines(
            "Processor power",
            "Growth of each package's energy counter (RAPL).",
            Query(rate(of("dvfd_cpu_package_energy_joules_total")), "package {{package}}"),
            unit="watt",
            blank=NO_METER,
        ),
        lines(
            "Thermal throttling",
            "Throttle events of each package.",
            Query(increase(of("dvfd_cpu_throttles_total")), "package {{package}}"),
            unit="short",
            top=1,
            blank="only Intel's processors count them: UNKNOWN elsewhere.",
        ),
        lines(
            "Clock error",
            "The kernel's estimate of its largest clock error.",
            Query(of("dvfd_node_clock_error_seconds"), "error"),
            unit="s",
            blank="the kernel does not say: a system call filter, most likely.",
        ),
    )


def _gpu() -> tuple[object, ...]:
    return (
        lines(
            "GPU use",
            "Share of time in which a kernel ran. It shows 100 % while a collective hangs: "
            "read it beside the job's progress.",
            Query(of("dvfd_gpu_utilization_ratio"), "GPU {{gpu}}"),
            against(limit("daily.gpu"), of("dvfd_gpu_utilization_ratio"), "wanted, more than"),
            unit="percentunit",
            top=1,
            blank=CPU_ONLY,
        ),
        lines(
            "GPU memory",
            "Used share of each GPU's memory.",
            Query(of("dvfd_gpu_memory_used_ratio"), "GPU {{gpu}}"),
            unit="percentunit",
            top=1,
            blank=CPU_ONLY,
        ),
        lines(
            "GPU temperature",
            "Core temperature.",
            Query(of("dvfd_gpu_temperature_celsius"), "GPU {{gpu}}"),
            against(limit("daily.gpu_temperature"), of("dvfd_gpu_temperature_celsius")),
            unit="celsius",
            blank=CPU_ONLY,
        ),
        lines(
            "GPU power",
            "Growth of each GPU's energy counter.",
            Query(rate(of("dvfd_gpu_energy_joules_total")), "GPU {{gpu}}"),
            unit="watt",
            blank=CPU_ONLY,
        ),
        lines(
            "GPU faults",
            "Uncorrected memory errors and critical Xid events as they come, GPUs that are "
            "missing and GPUs that are slowed now. All should be 0.",
            Query(increase(of("dvfd_gpu_ecc_uncorrected_total")), "ECC, GPU {{gpu}}"),
            Query(increase(of("dvfd_gpu_xid_total")), "Xid, GPU {{gpu}}"),
            Query(of("dvfd_gpu_missing"), "missing"),
            Query(of("dvfd_gpu_throttled"), "slowed, GPU {{gpu}}"),
            unit="short",
            top=1,
            span=24,
            blank=CPU_ONLY,
        ),
    )


def _network() -> tuple[object, ...]:
    return (
        lines(
            "Traffic",
            "What each interface received and sent.",
            Query(rate(of("dvfd_network_receive_bytes_total")), "{{interface}} received"),
            Query(rate(of("dvfd_network_transmit_bytes_total")), "{{interface}} sent"),
            unit="Bps",
            blank="no interface is watched, or it is gone.",
        ),
        lines(
            "Saturation",
            "The busier direction over the link's speed.",
            Query(of("dvfd_network_saturation_ratio"), "{{interface}}"),
            against(limit("daily.network"), of("dvfd_network_saturation_ratio")),
            unit="percentunit",
            top=1,
            blank="the interface has no speed to compare with, as virtual ones have none.",
        ),
        lines(
            "Errors and drops",
            "Packets damaged or dropped in either direction.",
            Query(rate(of("dvfd_network_errors_total")), "{{interface}} errors"),
            Query(rate(of("dvfd_network_drops_total")), "{{interface}} drops"),
            unit="pps",
            blank="no interface is watched, or it is gone.",
        ),
        lines(
            "TCP segments",
            "Segments sent, and sent again.",
            Query(rate(of("dvfd_tcp_segments_sent_total")), "sent"),
            Query(rate(of("dvfd_tcp_segments_retransmitted_total")), "sent again"),
            unit="pps",
            blank=SILENCE,
        ),
        states(
            "Links",
            "Whether each interface is up with a carrier.",
            Query(
                or_unknown(
                    f"max by (interface) ({of('dvfd_network_up')})",
                    ["interface"],
                    of("dvfd_network_up"),
                    SILENT,
                ),
                "{{interface}}",
            ),
            values=YES_NO,
            span=12,
            blank="no interface is watched, or it is gone.",
        ),
        lines(
            "Free space",
            "Free share, for ordinary users, of the file systems that jobs and dvfd write to.",
            Query(of("dvfd_filesystem_free_ratio"), "{{path}}"),
            Query(of("dvfd_filesystem_free_inodes_ratio"), "{{path}}, inodes"),
            unit="percentunit",
            top=1,
            blank="the file system does not answer: UNKNOWN, not full.",
        ),
        lines(
            "Log lines",
            "New lines that matched an error or a warning pattern, allowed ones left out.",
            Query(increase(of("dvfd_log_errors_total")), "{{log}} errors"),
            Query(increase(of("dvfd_log_warnings_total")), "{{log}} warnings"),
            unit="short",
            top=1,
            span=24,
            blank="no log is configured, or it cannot be read.",
        ),
    )


def _daemon() -> tuple[object, ...]:
    probe_up = of("dvfd_probe_up")
    return (
        states(
            "Probes",
            "Whether each source could be read. A source that the profile rules out has no row.",
            Query(
                or_unknown(f"max by (probe) ({probe_up})", ["probe"], probe_up, SILENT),
                "{{probe}}",
            ),
            values=YES_NO | {0: Said("no", colours.UNKNOWN)},
            span=12,
            height=9,
            blank=SILENCE,
        ),
        lines(
            "Time a reading takes",
            "How long the last reading of each source took.",
            Query(of("dvfd_probe_duration_seconds"), "{{probe}}"),
            unit="s",
            blank=SILENCE,
        ),
        lines(
            "Age of readings",
            "Time since each source was last read well.",
            Query(f"time() - {of('dvfd_probe_last_success_timestamp_seconds')}", "{{probe}}"),
            unit="s",
            blank="the source was never read.",
        ),
        lines(
            "Cost of watching",
            "Memory and processor time of the daemon.",
            Query(of("dvfd_process_resident_memory_bytes"), "memory"),
            unit="bytes",
            span=6,
            blank=SILENCE,
        ),
        lines(
            "Processor time of the daemon",
            "Share of one processor that the daemon uses.",
            Query(rate(of("dvfd_process_cpu_seconds_total")), "processor"),
            unit="percentunit",
            span=6,
            blank=SILENCE,
        ),
        lines(
            "Writes waiting",
            "Writes that wait for the disk.",
            Query(of("dvfd_store_queue"), "waiting"),
            unit="short",
            top=1,
            span=6,
            blank=SILENCE,
        ),
        lines(
            "Last commit",
            "Time since the store last committed.",
            Query(f"time() - {of('dvfd_store_last_commit_timestamp_seconds')}", "ago"),
            unit="s",
            span=6,
            blank="the store never committed, or dvfd does not answer.",
        ),
        lines(
            "Telemetry of jobs",
            "Steps and packets that ranks sent, and what was lost, refused or malformed.",
            Query(rate(of("dvfd_ingest_steps_total")), "steps"),
            Query(rate(of("dvfd_ingest_packets_total")), "packets"),
            Query(rate(of("dvfd_ingest_lost_total")), "lost"),
            Query(rate(of("dvfd_ingest_refused_total")), "refused"),
            Query(rate(of("dvfd_ingest_malformed_total")), "malformed"),
            unit="cps",
            blank=SILENCE,
        ),
        lines(
            "Alerts posted",
            "Alerts posted to an Alertmanager, resends included, by how that ended.",
            Query(rate(of("dvfd_alert_deliveries_total")), "{{outcome}}"),
            unit="cps",
            span=6,
            blank="nothing was ever posted: no alert, or no Alertmanager is configured.",
        ),
        lines(
            "Alerts waiting",
            "Alerts that no Alertmanager has taken yet.",
            Query(of("dvfd_alerts_outbox"), "waiting"),
            unit="short",
            top=1,
            span=6,
            blank=SILENCE,
        ),
        lines(
            "Requests to the listener",
            "Requests for the page and for /metrics by their outcome.",
            Query(rate(of("dvfd_http_requests_total")), "{{outcome}}"),
            unit="reqps",
            blank=SILENCE,
        ),
    )
