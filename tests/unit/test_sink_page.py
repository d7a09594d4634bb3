"""The page: says why, says what it does not know, and carries nothing that could run."""

import base64
import hashlib
import re
import time
from dataclasses import dataclass, field

import pytest
from fakes import FakeClock
from fakes_incidents import Place
from fakes_sinks import (
    NOW,
    Health,
    check,
    criterion,
    result,
    run_line,
    run_state,
    snapshot,
    sources,
    state,
    whole,
)

from dvfd.model import Labels, ProbeHealth, Sample, Severity, Verdict, Waived
from dvfd.sinks.page import View, day, headline, ordered, render, response
from dvfd.state import Delivery, Failures, Loop, NoPast, Peer, Raised, Snapshot
from dvfd.store.documents import StoredReport
from dvfd.words import ago, duration

JOB = {
    "job": "gpt",
    "state": "not responding",
    "world_size": 4,
    "local_world_size": 4,
    "present": 1,
    "restarts": 1,
    "exception": "",
    "ranks": [
        {
            "rank": 2,
            "state": "stalled",
            "why": "no step for 12 s",
            "step": 41,
            "progress_at": NOW - 12,
            "step_seconds": 0.2,
            "pid": 4711,
        }
    ],
}


def words(html: str) -> str:
    """What a person reads."""
    body = html.partition("<body>")[2]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def shown(*results, **keys) -> str:
    return words(render(snapshot(*results, of=sources(**keys))))


def test_the_verdict_is_the_title_and_the_headline():
    html = render(snapshot(result(Verdict.FAIL)))

    assert "<title>FAIL · node4 · dvfd</title>" in html
    assert "<h1>FAIL</h1>" in html


def test_the_reason_stands_below_the_verdict():
    assert "rank 2 responds: 0, wanted 1" in shown(result(Verdict.FAIL)).partition("Jobs")[0]


def test_a_node_that_is_well_has_nothing_to_explain():
    assert "Why" not in shown(result(Verdict.PASS))


def test_many_criteria_with_one_reason_are_one_line():
    live = check("live", *(criterion(f"live.c{n}") for n in range(30)), watch=True)

    top = words(render(state(live).snapshot())).partition("Jobs")[0]

    assert top.count("not judged yet") == 1
    assert "30 criteria: live.c0" in top


def test_the_headline_counts_in_words():
    assert headline(snapshot(result(Verdict.UNKNOWN))) == "Of 1 live criteria, 1 cannot be known."


def test_without_a_live_check_nothing_is_known():
    assert "nothing is known" in headline(state(check("a", criterion("a.b"))).snapshot())


def test_what_is_waived_stands_there_with_who_waived_it_and_what_it_is():
    waived = Waived(
        verdict=Verdict.FAIL, found="hot", by="Ann <Lee>", role="CTO", reason="fan",
        expires=NOW + 9, record=2,
    )  # fmt: skip
    reason = "waived by Ann <Lee> (CTO): fan; it is FAIL: hot"
    page = shown(result(Verdict.WAIVED, waived=waived, reason=reason)).partition("Waived")[2]

    assert "waived by Ann &lt;Lee&gt; (CTO): fan; it is FAIL: hot" in page
    assert "Waived" not in shown(result(Verdict.FAIL))


def test_a_ledger_that_somebody_touched_is_told_of():
    assert "the ledger does not verify" in shown(evidence=lambda: ["the ledger does not verify"])


def test_jobs_and_ranks_say_what_is_wrong_with_them():
    page = shown(jobs=lambda: [JOB])

    for part in ("gpt", "1 of 4 ranks here", "stalled", "no step for 12 s", "12 s ago", "4711"):
        assert part in page


def test_without_a_job_the_page_says_how_one_registers():
    assert "No job reports to this node" in shown()


def test_without_an_alertmanager_the_page_says_where_breaches_go():
    assert "No Alertmanager configured: breaches go to the log." in shown()


def test_alerts_that_do_not_get_out_are_on_the_page():
    peer = Peer(url="http://am", last_success=NOW - 600, error="HTTP 401: no")
    page = shown(delivery=lambda: Delivery(peers=(peer,), waiting=1))

    assert "Alerts are not getting out: http://am: HTTP 401: no" in page
    assert "last accepted 10 min ago" in page
    assert "1 in the outbox" in page


def test_an_alert_shows_both_sides_and_whether_it_was_delivered():
    raised = Raised(
        key="live.responding",
        name="DvfdCriterionFailed",
        severity="critical",
        since=NOW - 65,
        summary="live.responding: text",
        description="0, wanted 1",
        delivered=True,
    )
    page = shown(
        raised=lambda: (raised,), delivery=lambda: Delivery(peers=(Peer(url="http://am"),))
    )

    assert "0, wanted 1" in page
    assert "for 65 s · delivered" in page


def test_trouble_of_dvfd_itself_is_a_banner():
    page = shown(
        loops=lambda: {"watch": Loop(age=99, limit=20)},
        store=lambda: Health(ok=False, reason="disk full"),
    )

    assert "dvfd itself is in trouble: loop watch: no progress for 99 s, wanted every 20 s" in page
    assert "store: disk full" in page


def test_readings_that_are_off_are_a_banner():
    assert "Readings are off" in words(render(snapshot(readings=False)))


def test_a_probe_that_is_down_shows_its_error():
    page = shown(probes=lambda: {"power": ProbeHealth("power", error="permission denied")})

    assert "power down never – permission denied" in page  # noqa: RUF001


@pytest.mark.parametrize(("opened", "unfolded"), [("", 0), ("a", 1), ("all", 1), ("b", 0)])
def test_a_check_unfolds_when_asked_for(opened, unfolded):
    html = render(state(check("a", criterion("a.b"))).snapshot(), View(opened=opened))

    assert html.count("text of a.b") == unfolded


def test_the_refresh_keeps_what_is_unfolded_and_nothing_else():
    taken = state(check("a", criterion("a.b"))).snapshot()

    def again(query: str) -> str:
        return response(taken, query).headers["Refresh"]

    assert again("check=a&span=day") == "10; url=/?check=a&span=day"
    assert again('check=x"><script>&span=year&hold=2') == "10; url=/"


def test_a_page_that_is_held_still_does_not_refresh_and_says_how_to_go_on():
    held = response(snapshot(), "hold=1&span=day")

    assert "Refresh" not in held.headers
    assert '<a href="/?span=day">refresh</a>' in held.body.decode()


def test_what_comes_from_outside_is_escaped():
    html = render(snapshot(result(Verdict.FAIL, reason="<script>alert(1)</script>")))

    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_letters_that_turn_the_direction_of_writing_turn_only_their_own_words():
    peer = Peer(url="http://am", error="\u202egnp.exe")
    html = render(snapshot(of=sources(delivery=lambda: Delivery(peers=(peer,)))))

    assert html.count("\u202e") == html.count("\u202egnp.exe</bdi>") == 2


def test_the_style_is_allowed_by_its_hash_and_no_other():
    answer = response(snapshot())
    style = re.search(r"<style>(.*?)</style>", answer.body.decode(), re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()

    assert f"style-src 'sha256-{digest}'" in answer.headers["Content-Security-Policy"]
    assert " style=" not in answer.body.decode()


def test_every_verdict_is_a_word_and_not_only_a_colour():
    for verdict, word in zip(Verdict, ("PASS", "N/A", "WAIVED", "UNKNOWN", "FAIL"), strict=True):
        assert f"</i>{word}</span>" in render(snapshot(result(verdict)))


def test_two_hundred_criteria_all_unfolded_stay_below_200_kb():
    checks = [
        check(f"c{n}", *(criterion(f"c{n}.criterion_{m}", text="x" * 80) for m in range(10)))
        for n in range(20)
    ]

    assert len(render(state(*checks).snapshot(), View(opened="all")).encode()) < 200_000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "12 ms"), (1, "1 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (2e5, "2 d")],
)
def test_durations_are_in_the_unit_that_a_person_would_use(seconds, text):
    assert duration(seconds) == text


def test_a_moment_is_told_as_how_long_ago():
    assert (ago(None, NOW), ago(NOW, NOW), ago(NOW - 5, NOW)) == ("never", "just now", "5 s ago")


def test_the_last_log_lines_that_counted_are_on_the_page_newest_first():
    def line(text: str, at: float) -> dict[str, object]:
        return {
            "log": "training", "at": at, "severity": "critical", "pattern": "cuda",
            "line": text, "note": "",
        }  # fmt: skip

    page = shown(log_lines=lambda: [line(f"error {n}", NOW - 10 + n) for n in range(7)])

    assert page.index("error 6") < page.index("error 2")
    assert "error 1 " not in page
    assert "training · 4 s ago · cuda" in page


def test_a_source_that_is_read_only_in_part_is_not_green_and_comes_before_those_that_are():
    probes = {
        "cpu": ProbeHealth("cpu", up=True),
        "logs": ProbeHealth("logs", up=True, error="no log is configured"),
    }
    html = render(snapshot(of=sources(probes=lambda: probes)))

    assert '<span class="v UNKNOWN">partly</span>' in html
    assert html.index(">logs<") < html.index(">cpu<")


def test_the_page_says_how_much_of_the_framework_nothing_measures():
    live = check("live", criterion(), watch=True)
    test = check("link", criterion("link.goodput", metric="link_goodput"))

    assert "Nothing measures 1 of the framework's 2 criteria yet" in words(
        render(state(live, test).snapshot())
    )


def test_unknown_is_explained_where_it_is_the_verdict():
    assert "UNKNOWN is never well" in shown(result(Verdict.UNKNOWN))
    assert "UNKNOWN is never well" not in shown(result(Verdict.PASS))


def test_while_something_fails_the_top_says_what_and_leaves_the_unknown_to_the_checks():
    blind = result(Verdict.UNKNOWN, criterion("live.cpu"), reason="no sample")
    live = check("live", criterion(), blind.criterion, watch=True)
    made = state(live)
    made.judged([result(Verdict.FAIL), blind])

    top, _, rest = words(render(made.snapshot())).partition("Jobs")

    assert "no sample" not in top
    assert "no sample" in rest


def test_a_node_whose_jobs_have_all_ended_says_that_none_runs():
    ended = JOB | {"state": "ended", "ranks": [JOB["ranks"][0] | {"state": "left", "why": "left"}]}

    assert "No job runs here now" in shown(jobs=lambda: [ended])
    assert "left left" not in shown(jobs=lambda: [ended])
    assert "No job runs here now" not in shown(jobs=lambda: [ended, JOB])


def test_a_page_that_grows_old_has_words_ready_that_need_no_script():
    html = render(snapshot())

    assert "This page is older than a minute" in words(html)
    assert re.search(
        r"\.aged \{ visibility: hidden;[^}]*animation: aged-note [^}]* 60s forwards", html
    )
    assert "prefers-reduced-motion" in html


@dataclass
class Remembered(NoPast):
    """A store with one course for every series, and runs of a checklist."""

    samples: tuple[Sample, ...] = ()
    runs: tuple[StoredReport, ...] = ()
    asked: list[tuple[str, Labels, float, float]] = field(default_factory=list)

    def series(self, metric, labels, *, since, until):
        self.asked.append((metric, labels, since, until))
        return self.samples

    def reports(self, check_id, limit):
        return [run for run in self.runs if run.check_id == check_id][:limit]


COURSE = tuple(Sample("x", 270.0 + n % 3, NOW - 600 + 5 * n) for n in range(121))


def drawn(past: Remembered, query: str = "", *jobs: dict[str, object], **keys) -> str:
    held = whole(FakeClock())
    held._sources = sources(jobs=lambda: jobs or [JOB])
    return response(held.snapshot(), query, past).body.decode()


def test_a_running_job_has_charts_of_throughput_and_loss_over_the_last_hour():
    past = Remembered(COURSE)
    page = words(drawn(past))

    assert [(m, dict(of), until - since) for m, of, since, until in past.asked] == [
        ("job_throughput_samples_per_second", {"job": "gpt"}, 3600),
        ("job_loss", {"job": "gpt"}, 3600),
    ]
    assert "Throughput samples/s 270 just now" in page
    assert "50 min not observed" in page


def test_a_day_is_drawn_when_asked_for():
    past = Remembered(COURSE)
    html = drawn(past, "span=day")

    assert past.asked[0][3] - past.asked[0][2] == 86_400
    assert '<a href="/#job-1">last hour</a>' in html


def test_a_job_that_has_ended_has_no_charts():
    assert "<figure" not in drawn(Remembered(COURSE), "", JOB | {"state": "ended"})


def test_of_many_jobs_the_first_are_drawn_and_the_others_say_that_they_are_not():
    html = drawn(Remembered(COURSE), "", *[JOB | {"job": f"gpt{n}"} for n in range(6)])

    assert html.count("<figure") == 2 * 4
    assert html.count("Not drawn: charts are of the first 4 jobs only.") == 2


def test_the_limit_of_the_live_criterion_is_a_line_and_a_sentence():
    html = drawn(Remembered(COURSE))

    assert html.count('class="limit"') == 1
    assert "wanted ≥ 1 (<code>live.throughput</code>)" in html


def test_a_chart_of_nothing_says_so_and_claims_no_value():
    page = drawn(Remembered())

    assert "nothing observed" in page
    assert 'class="line"' not in page
    assert page.count("not observed</td>") == 24


def run(check_id: str, at: float, verdict: Verdict = Verdict.PASS, late: float = 0) -> StoredReport:
    return StoredReport(check_id, at, verdict.value, late, at, "")


def test_a_checklist_shows_its_last_runs_with_dates_oldest_first_and_in_words():
    newest_first = (
        run("daily", NOW, Verdict.UNKNOWN),
        run("daily", NOW - 86_400, Verdict.FAIL, late=7200),
        run("daily", NOW - 2 * 86_400),
    )
    html = drawn(Remembered(runs=newest_first))

    strip = words("<body>" + html[html.index('<ol class="runs"') :].partition("</ol>")[0])
    assert re.findall(r"(PASS|FAIL|UNKNOWN) on", strip) == ["PASS", "FAIL", "UNKNOWN"]
    assert re.findall(r"\d\d-\d\d", strip) == [day(NOW - n * 86_400) for n in (2, 1, 0)]
    assert "2 h late" in html
    assert html.count('<ol class="runs"') == 1


def test_a_warning_that_fails_stands_below_what_is_critical_and_says_so():
    rows = [
        result(Verdict.PASS, criterion("live.a")),
        result(Verdict.FAIL, criterion("live.b", severity=Severity.WARNING)),
        result(Verdict.FAIL, criterion("live.c")),
    ]
    assert [r.criterion.id for r in ordered(rows)] == ["live.c", "live.b", "live.a"]


def test_the_checklists_stand_in_the_order_of_their_frequency():
    html = drawn(Remembered())
    places = [html.index(f'id="{check}"') for check in ("live", "daily", "weekly", "monthly")]

    assert places == sorted(places)


def fullest() -> tuple[Snapshot, Remembered]:
    """A node with all there is to show: jobs of sixteen ranks, their courses, every history."""
    job = JOB | {"ranks": [JOB["ranks"][0] | {"rank": n} for n in range(16)]}
    noisy = tuple(Sample("x", 270 + (n * 7919) % 997 / 7, NOW - 3600 + 5 * n) for n in range(721))
    checks = ("daily", "weekly", "monthly")
    runs = tuple(run(check, NOW - 86_400 * n, late=99) for check in checks for n in range(14))
    held = whole(FakeClock(), 16)
    held._sources = sources(jobs=lambda: [job | {"job": f"gpt{n}"} for n in range(4)])
    return held.snapshot(), Remembered(noisy, runs)


def test_sixteen_ranks_with_charts_histories_and_all_checks_unfolded_stay_below_200_kb():
    page = response(fullest()[0], "check=all", fullest()[1]).body

    assert page.count(b'class="line"') == 8
    assert len(page) < 200_000


def test_the_fullest_page_takes_less_than_100_ms_of_processor_time():
    taken, past = fullest()

    def seconds() -> float:
        begun = time.process_time()
        response(taken, "check=all", past)
        return time.process_time() - begun

    assert min(seconds() for _ in range(5)) < 0.1


def run_shown(*lines, **keys) -> str:
    page = shown(run=lambda: run_state(*lines, **keys))
    return page.partition("Stability run")[2].partition("Jobs")[0]


def test_a_run_that_is_on_shows_how_far_it_is_and_when_it_ends():
    section = run_shown()

    assert "6 h 12 min of 24 h" in section
    assert "ends " + time.strftime("%Y-%m-%d %H:%M", time.gmtime(NOW + 64_080)) in section
    assert "All 1 criteria pass so far. Nothing has passed before the run is complete." in section


def failures_shown(place, **keys) -> str:
    page = shown(failures=place.incidents.failures, **keys)
    return page.partition("Failed phase tests")[2].partition("Jobs")[0]


def test_a_failed_phase_test_says_why_what_to_do_and_by_when(tmp_path):
    place = Place(tmp_path)
    place.run()

    section = failures_shown(place)

    assert "stability_phase1.throughput: 190 samples/s, wanted at least 250" in section
    assert "calls the team lead alone" in section
    assert "in 60 min the team is told" in section
    assert "find the cause: dvfd incident show stability_phase1-2" in section
    assert "is being preserved" in section


def test_a_fixed_one_shows_what_is_still_to_pass_and_what_was_preserved(tmp_path):
    place = Place(tmp_path)
    place.run()
    place.incidents.act(place.on["id"])
    place.say(cause="fixed", finding="a fan", delay=2)

    section = failures_shown(place)

    assert "hardware : not run since the fix" in section
    assert "b.tar.gz , 2 parts, sealed" in section
    assert "left alone" in section
    assert "Phase delayed until" in section


def test_what_a_report_says_cannot_become_markup_in_an_incident(tmp_path):
    place = Place(tmp_path)
    place.run(results=[{"criterion": "x", "verdict": "FAIL", "severity": "critical",
                        "reason": "<script>alert(1)</script>"}])  # fmt: skip

    assert "<script>" not in render(snapshot(of=sources(failures=place.incidents.failures)))


def test_without_a_failure_the_page_has_no_section_of_them():
    assert "Failed phase tests" not in shown()


def test_incidents_that_do_not_move_on_are_a_notice(tmp_path):
    assert "incidents do not move on: no room" in shown(
        failures=lambda: Failures(trouble="no room")
    )


def test_without_a_run_the_page_has_no_section_of_it():
    assert "Stability run" not in shown()


def test_the_criteria_of_a_run_that_need_a_look_come_worst_first_with_what_is_left():
    section = run_shown(
        run_line("calm"),
        run_line("blind", so_far=Verdict.UNKNOWN),
        run_line("uptime", burn_rate=2.5, left="30.0 of 86.4 s left", margin=0.0003, unit="ratio"),
        run_line("restarts", so_far=Verdict.FAIL, lost=True),
    )

    places = [section.find(f"stability_phase1.{n}") for n in ("restarts", "uptime", "blind")]
    assert places == sorted(places)
    assert -1 not in places
    assert "stability_phase1.calm" not in section
    assert "Can no longer be met." in section
    assert "30.0 of 86.4 s left, burning at 2.5 times the pace that lasts" in section
    assert "margin 0.0003 ratio" in section


def test_a_run_that_will_not_count_says_so_while_it_is_on():
    section = run_shown(uncounted=("shortened: 20 min of 24 h",))

    assert "A pass of it will not count: shortened: 20 min of 24 h" in section


def test_many_criteria_of_a_run_that_need_a_look_are_cut_with_a_count():
    section = run_shown(*(run_line(f"c{n}", so_far=Verdict.UNKNOWN) for n in range(9)))

    assert "and 3 more: dvfd stability status" in section


def test_a_run_before_its_first_step_says_what_it_waits_for():
    assert "waits for the first step of all ranks" in run_shown(ends_at=None, stage="armed")


def test_a_criterion_that_passes_so_far_is_not_green_while_the_run_is_on():
    section = run_shown(run_line("uptime", burn_rate=2.5, left="30.0 of 86.4 s left"))

    assert "UNKNOWN" in section
    assert "PASS" not in section
