"""Every criterion of the four stability runs: a healthy run passes it, its own fault fails it and
nothing else but what follows from that, and without its data it is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from fakes_runs import PROFILES, RATE, Story, healthy

from dvfd.model import NONE_YET, Verdict
from dvfd.runs.rows import What

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN

Spoil = Callable[[Story], None]


@dataclass(frozen=True)
class Item:
    """A criterion, the fault that fails it, what else that fails, and what takes its data away."""

    name: str
    fault: Spoil
    blind: Spoil
    also: frozenset[str] = frozenset()
    blind_also: frozenset[str] = frozenset()


# --- Faults -----------------------------------------------------------------------------------


def scaled(factor: float) -> Spoil:
    """Every step carries fewer samples: the loss curve lies elsewhere, too."""

    def spoil(story: Story) -> None:
        story.change(lambda w: True, samples=lambda w: w.samples * factor)

    return spoil


def uneven(spread: float) -> Spoil:
    """Every other interval carries more samples, and the one between as many fewer."""

    def spoil(story: Story) -> None:
        each = spread / (RATE * story.check.processes) * story.check.every
        story.change(
            lambda w: True, samples=lambda w: w.samples + (each if w.window % 2 else -each)
        )

    return spoil


def gauge(metric: str, value: float, *, whole: bool = True) -> Spoil:
    """A series of a probe at another value, in every minute or in one."""

    def spoil(story: Story) -> None:
        for n, m in enumerate(story.minutes):
            first = m.metric == metric and dict(m.labels).get("rank", "0") == "0"
            if first and (whole or m.minute == 30):
                story.minutes[n] = m._replace(sum=12 * value, low=value, high=value, last=value)

    return spoil


def grows(metric: str, by: float = 1.0) -> Spoil:
    return lambda story: story.set(metric, 30, grown=by)


def happens(what: What, **more: object) -> Spoil:
    return lambda story: story.happens(what, 1000.0, **more)


def slow_rank(story: Story) -> None:
    story.change(lambda w: w.rank == 0, compute=lambda w: w.compute * 1.6)


def rising(story: Story) -> None:
    story.change(lambda w: True, loss=lambda w: w.losses * (2.0 + w.window * 0.01))


def down(seconds: float) -> Spoil:
    def spoil(story: Story) -> None:
        story.happens(What.DOWN, 1000.0, text="rank 1: process 7 is gone")
        story.happens(What.UP, 1000.0 + seconds)

    return spoil


def lost_save(*whats: What) -> Spoil:
    """Of one checkpoint these events are missing."""

    def spoil(story: Story) -> None:
        step = story.check.checkpoint_every * 2
        story.events = [e for e in story.events if not (e.what in whats and e.step == step)]

    return spoil


def still_saving(story: Story) -> None:
    """The last checkpoint was begun, and the run is over before it is saved."""
    last = max(e.step for e in story.events if e.what is What.BEGUN)
    ends = {What.SAVED, What.VERIFIED}
    story.events = [e for e in story.events if not (e.what in ends and e.step == last)]


def damaged(story: Story) -> None:
    lost_save(What.VERIFIED)(story)
    step = story.check.checkpoint_every * 2
    story.happens(What.DAMAGED, 900.0, step=step, text=f"/checkpoints/{step}: a bit flipped")


def takes(name: str, value: float) -> Spoil:
    """A rank's time in a section, in every step."""
    return lambda story: story.change(lambda w: True, **{name: lambda w: value * w.steps})


def injected(seconds: float | None) -> Spoil:
    """A partition, healed; steps come again after *seconds*, or not."""

    def spoil(story: Story) -> None:
        story.happens(What.INJECTED, 1000.0, text="partition")
        story.happens(What.HEALED, 1010.0)
        if seconds is not None:
            story.happens(What.RECOVERED, 1010.0 + seconds, value=seconds)

    return spoil


def never_healed(story: Story) -> None:
    story.happens(What.INJECTED, 1000.0, text="partition")


def attests(item: str, value: float | None) -> Spoil:
    def spoil(story: Story) -> None:
        known = {**story.context.attested, item: value}
        kept = {name: each for name, each in known.items() if each is not None}
        story.context = replace(story.context, attested=kept)

    return spoil


# --- What takes data away ---------------------------------------------------------------------


def without(metric: str) -> Spoil:
    return lambda story: story.without(metric)


def untold(**fields: object) -> Spoil:
    """Ranks that do not report something."""
    return lambda story: story.change(
        lambda w: True, **{name: (lambda w, v=value: v) for name, value in fields.items()}
    )


def no_events(*whats: What) -> Spoil:
    return lambda story: story.drop(*whats)


def unseen(story: Story) -> None:
    story.happens(What.UNSEEN, 1000.0, text="no daemon looked")
    story.happens(What.UP, 1400.0)


def unset(**fields: object) -> Spoil:
    def spoil(story: Story) -> None:
        story.context = replace(story.context, **fields)

    return spoil


NO_SAMPLES = untold(samples=None)
LOSSLESS = untold(losses=0, loss=0.0)
NO_STEPS: Spoil = lambda story: story.windows.clear()  # noqa: E731  # beside its like

PHASE1 = [
    Item("throughput", scaled(0.8), NO_SAMPLES, blind_also=frozenset({"throughput_sigma"})),
    Item("throughput_sigma", uneven(30), NO_SAMPLES, blind_also=frozenset({"throughput"})),
    Item("cpu", gauge("rank_cpu_ratio", 0.5), without("rank_cpu_ratio")),
    Item(
        "memory", gauge("node_memory_used_ratio", 0.9, whole=False),
        without("node_memory_used_ratio"),
    ),
    Item(
        "power", grows("cpu_package_energy_joules_total", 60.0 * 260),
        without("cpu_package_energy_joules_total"),
    ),
    Item("loss_finite", grows("job_nonfinite_total"), without("job_nonfinite_total")),
    Item("loss_spikes", grows("job_loss_spikes_total"), without("job_loss_spikes_total")),
    Item("loss_convergent", rising, LOSSLESS),
    Item(
        "gradient_norm_agreement", grows("run_gradient_norm_disagreements_total"),
        without("run_gradient_norm_disagreements_total"),
    ),
    Item(
        "gradient_norm_stable", grows("run_gradient_norm_excursions_total"),
        without("run_gradient_norm_excursions_total"),
    ),
    Item(
        "checkpoints_attempted", lost_save(What.BEGUN, What.SAVED, What.VERIFIED), NO_STEPS,
        blind_also=frozenset({
            "throughput", "throughput_sigma", "loss_convergent", "checkpoints_expected",
            "checkpoints_saved", "checkpoints_verified", "communication",
        }),
    ),
    Item("checkpoints_saved", lost_save(What.SAVED, What.VERIFIED), NO_STEPS,
         blind_also=frozenset({
            "throughput", "throughput_sigma", "loss_convergent", "checkpoints_expected",
            "checkpoints_attempted", "checkpoints_verified", "communication",
         })),
    Item("checkpoints_verified", damaged, lost_save(What.VERIFIED)),
    Item("restarts", happens(What.RESTART), unseen,
         blind_also=frozenset({"unplanned_failures"})),
    Item("unplanned_failures", happens(What.FAILURE, text="rank 1 is gone"), unseen,
         blind_also=frozenset({"restarts"})),
]  # fmt: skip


CHECKPOINTS = frozenset({
    "checkpoints_expected", "checkpoints_attempted", "checkpoints_saved", "checkpoints_verified",
})  # fmt: skip
SILENT = frozenset({"saturation_headroom", "saturation"})

PHASE2A = [
    Item("throughput", scaled(0.85), NO_SAMPLES, frozenset({"efficiency"}),
         frozenset({"throughput_band", "efficiency"})),
    Item("throughput_band", uneven(12), NO_SAMPLES,
         blind_also=frozenset({"throughput", "efficiency"})),
    Item("balance", slow_rank, untold(computes=0, compute=0.0)),
    Item("cpu", gauge("rank_cpu_ratio", 0.5), without("rank_cpu_ratio")),
    Item("saturation", takes("allreduce", 0.006), untold(allreduces=0, allreduce=0.0),
         blind_also=frozenset({"saturation_headroom", "allreduce"})),
    Item("saturation_headroom", takes("allreduce", 0.0040), untold(allreduces=0, allreduce=0.0),
         blind_also=frozenset({"saturation", "allreduce"})),
    Item("allreduce", takes("allreduce", 0.06), untold(allreduces=0, allreduce=0.0),
         frozenset({"saturation"}), SILENT),
    Item("loss_finite", grows("job_nonfinite_total"), without("job_nonfinite_total")),
    Item("loss_spikes", grows("job_loss_spikes_total"), without("job_loss_spikes_total")),
    Item("agreement", grows("job_hash_mismatches_total"), without("job_hash_comparisons_total"),
         frozenset({"corruption", "synchronisation"}),
         frozenset({"corruption", "synchronisation"})),
    Item("corruption", grows("job_hash_mismatches_total"), without("job_hash_comparisons_total"),
         frozenset({"agreement", "synchronisation"}),
         frozenset({"agreement", "synchronisation"})),
    Item("checkpoints_saved", lost_save(What.SAVED, What.VERIFIED), still_saving,
         blind_also=frozenset({"checkpoints_verified"})),
    Item("partition", injected(45.0), never_healed),
    Item("restarts", happens(What.RESTART), unseen,
         blind_also=frozenset({"unplanned_failures", "uptime", "synchronisation"})),
    Item("unplanned_failures", happens(What.FAILURE, text="rank 1 is gone"), unseen,
         blind_also=frozenset({"restarts", "uptime", "synchronisation"})),
    Item("uptime", down(20.0), unseen,
         blind_also=frozenset({"restarts", "unplanned_failures", "synchronisation"})),
    Item("communication", takes("communication", 0.1), untold(communication=0.0, stepping=0.0)),
    Item("efficiency", scaled(0.93), unset(single_process=None)),
]  # fmt: skip

PHASE2B = [
    Item("throughput", scaled(0.85), NO_SAMPLES, frozenset({"efficiency", "no_degradation"}),
         frozenset({"efficiency", "no_degradation"})),
    Item("efficiency", scaled(0.963), unset(single_process=None),
         blind_also=frozenset({"no_degradation"})),
    Item("balance", slow_rank, untold(computes=0, compute=0.0)),
    Item("allreduce", lambda s: probed(s, 0.006), no_events(What.PROBED)),
    Item("saturation", takes("allreduce", 0.006), untold(allreduces=0, allreduce=0.0),
         blind_also=frozenset({"saturation_headroom"})),
    Item("no_degradation", unset(smaller_efficiency=1.2), unset(smaller_efficiency=None)),
    Item("uptime", down(20.0), unseen),
]  # fmt: skip

PHASE2C = [
    Item("throughput", scaled(0.85), NO_SAMPLES, frozenset({"efficiency"}),
         frozenset({"efficiency", "loss_baseline"})),
    Item("efficiency", scaled(0.97), unset(single_process=None)),
    Item("balance", slow_rank, untold(computes=0, compute=0.0)),
    Item("step_skew", gauge("run_step_skew", 3.0, whole=False), without("run_step_skew")),
    Item("parameters", grows("job_hash_mismatches_total"), without("job_hash_comparisons_total")),
    Item("allreduce", lambda s: probed(s, 0.007), no_events(What.PROBED)),
    Item("saturation", takes("allreduce", 0.006), untold(allreduces=0, allreduce=0.0),
         blind_also=frozenset({"saturation_headroom"})),
    Item("loss_baseline", lambda s: s.change(lambda w: True, loss=lambda w: w.loss * 1.02),
         unset(baseline=())),
    Item("loss_finite", grows("job_nonfinite_total"), without("job_nonfinite_total")),
    Item("checkpoints_verified", damaged, lost_save(What.VERIFIED)),
    Item("uptime", down(20.0), unseen),
]  # fmt: skip

ALL = [
    *(("stability_phase1", item) for item in PHASE1),
    *(("stability_phase2a", item) for item in PHASE2A),
    *(("stability_phase2b", item) for item in PHASE2B),
    *(("stability_phase2c", item) for item in PHASE2C),
]
EACH = pytest.mark.parametrize(
    ("check_id", "item"), ALL, ids=[f"{c.removeprefix('stability_')}-{i.name}" for c, i in ALL]
)


def probed(story: Story, seconds: float) -> None:
    story.events = [replace(e, value=seconds) if e.what is What.PROBED else e for e in story.events]


def judged(story: Story) -> dict[str, Verdict]:
    """By criterion; those that nothing measures yet are left out."""
    return {
        name: j.result.verdict
        for name, j in story.judged().items()
        if j.result.criterion.source != NONE_YET
    }


def named(verdicts: dict[str, Verdict], verdict: Verdict) -> set[str]:
    return {name for name, each in verdicts.items() if each is verdict}


@pytest.mark.parametrize("check_id", PROFILES)
def test_a_healthy_run_passes_every_criterion_that_applies(check_id: str) -> None:
    story = healthy(check_id)
    reasons = {n: j.result.reason for n, j in story.judged().items()}
    verdicts = judged(story)
    assert not named(verdicts, FAIL) | named(verdicts, UNKNOWN), reasons


@pytest.mark.slow
@EACH
def test_its_own_fault_fails_it_and_only_what_follows(check_id: str, item: Item) -> None:
    story = healthy(check_id)
    item.fault(story)
    verdicts = judged(story)
    assert named(verdicts, FAIL) == {item.name} | item.also
    assert not named(verdicts, UNKNOWN)


@EACH
def test_without_its_data_it_is_unknown_and_only_what_shares_them(
    check_id: str, item: Item
) -> None:
    story = healthy(check_id)
    item.blind(story)
    verdicts = judged(story)
    assert named(verdicts, UNKNOWN) == {item.name} | item.blind_also
    assert not named(verdicts, FAIL)


def test_a_partition_after_which_no_step_came_has_failed_without_one() -> None:
    story = healthy("stability_phase2a")
    injected(None)(story)
    assert story.judged()["partition"].result.verdict is FAIL


@pytest.mark.parametrize(("factor", "above"), [(1.0, True), (0.85, False)])
def test_more_than_linear_asks_to_verify_the_baseline(factor: float, above: bool) -> None:
    story = healthy("stability_phase2a")
    scaled(factor)(story)
    reason = story.judged()["efficiency"].result.reason
    assert ("super-linear: verify the baseline" in reason) is above
