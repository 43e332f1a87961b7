"""Judges learning curves: which arm is better than the baseline, by how much, at equal cost, with what confidence.

The rule itself, and the reasons for it, are :mod:`orchestrator.maths.verdict`. Here curves become what each seed counts
by, arms of fewer than two seeds are set aside, and what was found gets its words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from orchestrator.maths import statistics
from orchestrator.maths import verdict as rule
from orchestrator.maths.power import seeds_needed
from orchestrator.maths.statistics import Interval
from orchestrator.runs.curves import Curve, by_arm
from orchestrator.verdict.headline import headline
from orchestrator.verdict.outcome import ArmSummary, Comparison, Outcome, Verdict
from orchestrator.verdict.sight import Sight, see
from orchestrator.verdict.wording import interval_text, margin_text, p_equals, percent

FEW_SEEDS = 5  # below this, the spread of an arm's mean and improvement is pooled over arms, for their intervals


def judge(
    curves: Sequence[Curve],
    *,
    metric: str,
    mode: str = "max",
    confidence: float = 0.95,
    margin: float | None = None,
    baseline: str | None = None,
    budget: float | None = None,
    cost_name: str = "generated tokens",
    arms: Sequence[str] | None = None,
    final: bool = True,
    resamples: int = statistics.RESAMPLES,
) -> Verdict:
    """Compare all arms with the baseline at equal cost.

    :param curves: one per trial that ended without failing
    :param mode: ``max`` when more is better, else ``min``
    :param margin: differences smaller than this do not matter; None: no arm is called equivalent
    :param baseline: arm the others are compared with; None: the first
    :param budget: cost at which to compare, where all curves reach it
    :param arms: all arms, also those without a curve, in the order to show them; None: those of the curves
    :param final: False while trials are still to come: the numbers are shown, nothing is decided
    :param resamples: of the bootstrap, which only describes
    :raises ValueError: without curves, or for a baseline that is no arm
    """
    names = list(arms) if arms is not None else list(by_arm(curves))
    baseline = baseline or names[0]
    if baseline not in names:
        raise ValueError(f"report.baseline: no arm {baseline!r}; expected one of {', '.join(names)}")
    sight = see(curves, names, budget)
    values = sight.values
    others = [arm for arm in names if arm != baseline]
    family = [arm for arm in others if min(len(values[arm]), len(values[baseline])) > 1]
    decisions = _decisions(values, baseline, family, mode, confidence, margin, final)
    comparisons = tuple(
        describe(decisions[arm], sight, mode, confidence, resamples)
        if arm in decisions
        else _without_test(arm, baseline, values)
        for arm in others
    )
    counts = [len(values[arm]) for arm in (baseline, *family)]
    found = Verdict(
        headline="",
        metric=metric,
        mode=mode,
        confidence=confidence,
        margin=margin,
        cost=sight.cost,
        window=sight.window,
        cost_name=cost_name,
        baseline=baseline,
        arms=summarise(names, sight, confidence),
        comparisons=comparisons,
        bound=rule.bound(counts, confidence) if family else None,
        final=final,
        costless=sight.costless,
    )
    return replace(found, headline=headline(found))


def _decisions(
    values: Mapping[str, Mapping[int, float]],
    baseline: str,
    family: Sequence[str],
    mode: str,
    confidence: float,
    margin: float | None,
    final: bool,
) -> dict[str, Comparison]:
    """Apply the rule to all arms of two seeds and more."""
    if not family:
        return {}
    means, variances, counts = rule.moments([list(values[arm].values()) for arm in (baseline, *family)])
    found = rule.decide(means, variances, counts, confidence=confidence, margin=margin)
    spreads = rule.shrunken(variances, counts)
    wide = rule.bound(counts, rule.both_sides(confidence)) if margin is not None else 0.0
    sign = 1 if mode == "max" else -1
    decided = {}
    for place, arm in enumerate(family):
        difference, error = float(found.difference[place]), float(found.error[place])
        spread = float(np.sqrt((spreads[0] + spreads[place + 1]) / 2))
        equivalence = Interval(difference - wide * error, difference + wide * error) if margin and error else None
        outcome = Outcome.UNDECIDED
        if final and found.named[place]:
            outcome = Outcome.BETTER if sign * found.named[place] > 0 else Outcome.WORSE
        elif final and found.equivalent[place]:
            outcome = Outcome.EQUIVALENT
        p = float(found.p_adjusted[place])
        needed = None
        if outcome is Outcome.UNDECIDED and final and spread:
            needed = seeds_needed(difference / spread, arms=len(family), confidence=confidence)
        decided[arm] = Comparison(
            arm=arm,
            baseline=baseline,
            outcome=outcome,
            reason=_reason(outcome, final, error, difference, p, equivalence, margin, confidence, needed),
            difference=difference,
            interval=Interval(float(found.low[place]), float(found.high[place])) if error else None,
            p=float(found.p[place]) if error else None,
            p_adjusted=p if error else None,
            equivalence_interval=equivalence,
            negligible=bool(
                equivalence
                and margin
                and outcome in (Outcome.BETTER, Outcome.WORSE)
                and max(-equivalence.low, equivalence.high) < margin
            ),
            seeds_needed=needed,
        )
    return decided


def _reason(
    outcome: Outcome,
    final: bool,
    error: float,
    difference: float,
    p: float,
    equivalence: Interval | None,
    margin: float | None,
    confidence: float,
    needed: int | None,
) -> str:
    if outcome in (Outcome.BETTER, Outcome.WORSE):
        return ""
    level = percent(rule.both_sides(confidence))
    if outcome is Outcome.EQUIVALENT:
        return f"the {level} interval {interval_text(equivalence)} lies within {margin_text(margin)}"
    if not final:
        return "trials are still to come; a verdict read early would name winners too often"
    if not error:
        return "the seeds show no spread at all, so that nothing tells the arms from their luck"
    hint = f"; a true difference of the size seen would take about {needed} seeds per arm" if needed else ""
    beyond = ""
    if equivalence is not None:
        beyond = f", and the {level} interval {interval_text(equivalence)} reaches beyond {margin_text(margin)}"
    return f"chance alone gives a difference of this size too often ({p_equals(p)}){beyond}{hint}"


def describe(
    decision: Comparison, sight: Sight, mode: str, confidence: float, resamples: int = statistics.RESAMPLES
) -> Comparison:
    """Add what describes two arms and decides nothing; of arms with fewer than two seeds nothing is known."""
    treatment, control = sight.values[decision.arm], sight.values[decision.baseline]
    if min(len(treatment), len(control)) < 2:
        return decision
    a, b = np.array(list(treatment.values())), np.array(list(control.values()))
    sign = 1.0 if mode == "max" else -1.0
    probability, interval = statistics.probability_of_improvement(
        sign * a, sign * b, confidence=confidence, resamples=resamples
    )
    differences = _paired(treatment, control)
    matched = statistics.one_sample(differences) if differences.size > 1 else None
    return replace(
        decision,
        pairs=differences.size,
        paired_difference=float(differences.mean()) if differences.size else None,
        paired_interval=matched.interval(confidence) if matched else None,
        effect=statistics.cohens_d(a, b),
        improvement_probability=probability,
        improvement_interval=interval,
    )


def _without_test(arm: str, baseline: str, values: Mapping[str, Mapping[int, float]]) -> Comparison:
    treatment, control = values[arm], values[baseline]
    missing = " and ".join(name for name in (arm, baseline) if not values[name])
    if missing:
        return Comparison(arm=arm, baseline=baseline, outcome=Outcome.UNDECIDED, reason=f"{missing} finished no seed")
    alone = " and ".join(name for name in (arm, baseline) if len(values[name]) < 2)
    differences = _paired(treatment, control)
    return Comparison(
        arm=arm,
        baseline=baseline,
        outcome=Outcome.UNDECIDED,
        reason=f"one seed of {alone} cannot tell a method from its luck; run at least three",
        difference=float(np.mean(list(treatment.values())) - np.mean(list(control.values()))),
        pairs=differences.size,
        paired_difference=float(differences.mean()) if differences.size else None,
    )


def _paired(treatment: Mapping[int, float], control: Mapping[int, float]) -> np.ndarray:
    return np.array([treatment[seed] - control[seed] for seed in sorted(treatment.keys() & control.keys())])


def summarise(names: Sequence[str], sight: Sight, confidence: float) -> tuple[ArmSummary, ...]:
    """Every arm by itself."""
    values = sight.values
    samples = [np.array(list(values[arm].values())) for arm in names]
    firsts = {arm: {c.seed: c.first for c in sight.curves.get(arm, []) if c.first is not None} for arm in names}
    gains = [np.array([values[arm][seed] - first for seed, first in firsts[arm].items()]) for arm in names]
    return tuple(
        ArmSummary(
            arm=arm,
            seeds=tuple(values[arm]),
            values=tuple(float(value) for value in sample),
            mean=float(sample.mean()) if sample.size else None,
            interval=interval,
            iqm=float(statistics.interquartile_mean(sample)) if sample.size else None,
            start=float(np.mean(list(firsts[arm].values()))) if gain.size else None,
            improvement=float(gain.mean()) if gain.size else None,
            improvement_interval=improvement,
        )
        for arm, sample, interval, gain, improvement in zip(
            names, samples, _intervals(samples, confidence), gains, _intervals(gains, confidence), strict=True
        )
    )


def _intervals(samples: Sequence[np.ndarray], confidence: float) -> list[Interval | None]:
    """Student intervals of means, each arm's own spread where all have seeds enough for it."""
    if any(sample.size < FEW_SEEDS for sample in samples):
        return statistics.pooled_intervals(samples, confidence)
    return [statistics.one_sample(sample).interval(confidence) for sample in samples]
