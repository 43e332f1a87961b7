"""The verdict: which arm is better than the baseline, by how much, at equal cost, with what confidence.

One rule, fixed beforehand. An arm is named better (or worse) than the baseline when both hold:

1. Welch's t-test on the seeds' values at the common cost has a p-value below ``1 - confidence`` after Bonferroni's
   correction for the number of arms compared;
2. the stratified bootstrap interval of the difference of interquartile means, at the same corrected level, lies on
   the same side of zero.

Everything else is "not enough evidence". The second condition keeps the verdict from contradicting the robust means
it is shown beside. Fewer than two seeds in either arm never decide. How often the rule errs is measured by
``benchmarks/calibration.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from orchestrator.maths import statistics
from orchestrator.maths.statistics import Interval
from orchestrator.runs.curves import Curve, by_arm, common_cost, costless
from orchestrator.verdict.wording import count_text, interval_text, metric_label, number, p_text, signed

FEW_SEEDS = 5  # below this, the spread of an arm's improvement is pooled over arms


class Outcome(StrEnum):
    """What the evidence says about an arm and the baseline."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "not enough evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSummary:
    """One arm at the common cost."""

    arm: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]  # by seed
    iqm: float | None
    interval: Interval | None  # stratified bootstrap over seeds; None below two seeds
    start: float | None  # mean before training, where measured
    improvement: float | None  # mean over seeds of value minus that seed's own value before training
    improvement_interval: Interval | None  # Student


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One arm against the baseline; differences are arm minus baseline."""

    arm: str
    baseline: str
    outcome: Outcome
    reason: str  # why it is undecided; empty otherwise
    difference: float | None  # of means
    interval: Interval | None  # Welch, at the Bonferroni-corrected level
    p: float | None  # Welch, two-sided
    p_adjusted: float | None  # Bonferroni
    iqm_difference: float | None
    iqm_interval: Interval | None  # stratified bootstrap, at the corrected level
    pairs: int  # seeds that both arms finished
    paired_difference: float | None  # mean over those seeds
    paired_interval: Interval | None  # Student, uncorrected
    effect: float | None  # Cohen's d
    improvement_probability: float | None  # that a run of the arm beats a run of the baseline
    improvement_interval: Interval | None  # stratified bootstrap, uncorrected
    seeds_needed: int | None = None  # per arm, to find a difference of the size seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the report says first."""

    headline: str
    metric: str
    mode: str
    confidence: float
    cost: float  # generated tokens at which arms are compared; steps where no cost was recorded
    cost_name: str
    baseline: str
    arms: tuple[ArmSummary, ...]
    comparisons: tuple[Comparison, ...]
    final: bool = True  # False: trials are still to come, so nothing is decided
    costless: tuple[str, ...] = ()  # arms that spent nothing while others did, read as they ended


def judge(
    curves: Sequence[Curve],
    *,
    metric: str,
    mode: str = "max",
    confidence: float = 0.95,
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
    :param baseline: arm the others are compared with; None: the first
    :param budget: cost at which to compare, where all curves reach it
    :param arms: all arms, also those without a curve, in the order to show them; None: those of the curves
    :param final: False while trials are still to come: the numbers are shown, nothing is decided
    :param resamples: of the bootstrap
    :raises ValueError: without curves, or for a baseline that is no arm
    """
    grouped = by_arm(curves)
    names = list(arms) if arms is not None else list(grouped)
    baseline = baseline or names[0]
    if baseline not in names:
        raise ValueError(f"report.baseline: no arm {baseline!r}; expected one of {', '.join(names)}")
    cost = common_cost(curves, budget)
    values = {arm: np.array([curve.at(cost) for curve in grouped.get(arm, [])]) for arm in names}
    seeds = {arm: tuple(curve.seed for curve in grouped.get(arm, [])) for arm in names}
    others = [arm for arm in names if arm != baseline]
    comparisons = tuple(
        compare(
            arm,
            baseline,
            dict(zip(seeds[arm], values[arm], strict=True)),
            dict(zip(seeds[baseline], values[baseline], strict=True)),
            mode=mode,
            confidence=confidence,
            comparisons=len(others),
            final=final,
            resamples=resamples,
        )
        for arm in others
    )
    summaries = _summaries(names, grouped, values, seeds, confidence, resamples)
    headline = _headline(summaries, comparisons, metric, cost, cost_name, final)
    return Verdict(
        headline=headline,
        metric=metric,
        mode=mode,
        confidence=confidence,
        cost=cost,
        cost_name=cost_name,
        baseline=baseline,
        arms=summaries,
        comparisons=comparisons,
        final=final,
        costless=costless(curves),
    )


def compare(
    arm: str,
    baseline: str,
    treatment: dict[int, float],
    control: dict[int, float],
    *,
    mode: str = "max",
    confidence: float = 0.95,
    comparisons: int = 1,
    final: bool = True,
    resamples: int = statistics.RESAMPLES,
) -> Comparison:
    """Compare one arm with the baseline by the rule of this module.

    :param treatment: the arm's value by seed
    :param control: the baseline's value by seed
    :param comparisons: how many arms are compared with the baseline in all
    """
    a, b = np.array(list(treatment.values())), np.array(list(control.values()))
    if not a.size or not b.size:
        missing = " and ".join(name for name, sample in ((arm, a), (baseline, b)) if not sample.size)
        return _without_test(arm, baseline, f"{missing} finished no seed")
    shared = sorted(treatment.keys() & control.keys())
    differences = np.array([treatment[seed] - control[seed] for seed in shared])
    sign = 1.0 if mode == "max" else -1.0
    probability, probability_interval = statistics.probability_of_improvement(
        sign * a, sign * b, confidence=confidence, resamples=resamples
    )
    difference, iqm_difference = float(a.mean() - b.mean()), _iqm(a) - _iqm(b)
    if a.size < 2 or b.size < 2:
        alone = " and ".join(name for name, sample in ((arm, a), (baseline, b)) if sample.size < 2)
        return _without_test(
            arm,
            baseline,
            f"one seed of {alone} cannot tell a method from its luck; run at least three",
            difference=difference,
            iqm_difference=iqm_difference,
            pairs=len(shared),
            paired_difference=float(differences.mean()) if shared else None,
            improvement_probability=probability,
        )
    corrected = 1 - (1 - confidence) / comparisons
    test = statistics.welch(a, b)
    p_adjusted = statistics.bonferroni(test.p, comparisons)
    iqm_interval = statistics.bootstrap_interval(
        [a, b],
        lambda x, y: statistics.interquartile_mean(x) - statistics.interquartile_mean(y),
        confidence=corrected,
        resamples=resamples,
    )
    effect = statistics.cohens_d(a, b)
    needed = statistics.seeds_needed(effect, alpha=1 - corrected)
    outcome, reason = _decide(test, p_adjusted, iqm_difference, iqm_interval, sign, confidence, needed, final)
    matched = statistics.one_sample(differences) if len(shared) > 1 else None
    return Comparison(
        arm=arm,
        baseline=baseline,
        outcome=outcome,
        reason=reason,
        difference=difference,
        interval=test.interval(corrected),
        p=test.p,
        p_adjusted=p_adjusted,
        iqm_difference=iqm_difference,
        iqm_interval=iqm_interval,
        pairs=len(shared),
        paired_difference=float(differences.mean()) if shared else None,
        paired_interval=matched.interval(confidence) if matched else None,
        effect=effect,
        improvement_probability=probability,
        improvement_interval=probability_interval,
        seeds_needed=needed if outcome is Outcome.UNDECIDED else None,
    )


def _decide(
    test: statistics.TTest,
    p_adjusted: float,
    iqm_difference: float,
    iqm_interval: Interval,
    sign: float,
    confidence: float,
    needed: int | None,
    final: bool,
) -> tuple[Outcome, str]:
    """Apply the rule; both conditions at the corrected level."""
    if not final:
        return Outcome.UNDECIDED, "trials are still to come; a verdict read early would name winners too often"
    if p_adjusted >= 1 - confidence:
        hint = f"; a true difference of the size seen would take about {needed} seeds per arm" if needed else ""
        if test.error == 0 and test.difference:
            hint = "; the seeds show no spread at all, so only more seeds can decide"
        chance = f"chance alone gives a difference of this size too often (p = {p_text(p_adjusted)})"
        return Outcome.UNDECIDED, f"{chance}{hint}"
    if not iqm_interval.excludes(0.0) or iqm_difference * test.difference <= 0:
        return Outcome.UNDECIDED, (
            f"the means differ (p = {p_text(p_adjusted)}), but the interval of the difference of interquartile means "
            f"{interval_text(iqm_interval)} does not clear zero: a few seeds may carry it"
        )
    return (Outcome.BETTER if sign * test.difference > 0 else Outcome.WORSE), ""


def _without_test(arm: str, baseline: str, reason: str, **known: float | int | None) -> Comparison:
    fields = dict.fromkeys(
        (
            "difference",
            "interval",
            "p",
            "p_adjusted",
            "iqm_difference",
            "iqm_interval",
            "paired_difference",
            "paired_interval",
            "effect",
            "improvement_probability",
            "improvement_interval",
        )
    )
    return Comparison(
        arm=arm, baseline=baseline, outcome=Outcome.UNDECIDED, reason=reason, **({"pairs": 0, **fields} | known)
    )


def _summaries(
    names: Sequence[str],
    grouped: dict[str, list[Curve]],
    values: dict[str, np.ndarray],
    seeds: dict[str, tuple[int, ...]],
    confidence: float,
    resamples: int,
) -> tuple[ArmSummary, ...]:
    firsts = {arm: [curve.first for curve in grouped.get(arm, [])] for arm in names}
    gains = [np.array([v - f for v, f in zip(values[arm], firsts[arm], strict=True) if f is not None]) for arm in names]
    if any(gain.size < FEW_SEEDS for gain in gains):
        intervals = statistics.pooled_intervals(gains, confidence)
    else:
        intervals = [statistics.one_sample(gain).interval(confidence) for gain in gains]
    return tuple(
        ArmSummary(
            arm=arm,
            seeds=seeds[arm],
            values=tuple(float(value) for value in values[arm]),
            iqm=_iqm(values[arm]) if values[arm].size else None,
            interval=statistics.bootstrap_interval(
                [values[arm]], statistics.interquartile_mean, confidence=confidence, resamples=resamples
            )
            if values[arm].size > 1
            else None,
            start=float(np.mean([f for f in firsts[arm] if f is not None])) if gain.size else None,
            improvement=float(gain.mean()) if gain.size else None,
            improvement_interval=interval,
        )
        for arm, gain, interval in zip(names, gains, intervals, strict=True)
    )


def _headline(
    arms: Sequence[ArmSummary],
    comparisons: Sequence[Comparison],
    metric: str,
    cost: float,
    cost_name: str,
    final: bool,
) -> str:
    where = f"{metric_label(metric)} at {count_text(cost)} {cost_name}"
    if not comparisons:
        return _alone(arms[0], where)
    baseline = comparisons[0].baseline
    if not final:
        return f"Preliminary: trials are still to come, so nothing is decided. Shown: {where}, against {baseline}."
    if len(comparisons) == 1:
        return _single(comparisons[0], where, {arm.arm: len(arm.seeds) for arm in arms})
    sentences = []
    for outcome in (Outcome.BETTER, Outcome.WORSE):
        found = [c for c in comparisons if c.outcome is outcome]
        if found:
            found.sort(key=lambda c: -abs(c.difference or 0.0))
            listed = ", ".join(f"{c.arm} ({signed(c.difference)})" for c in found)
            sentences.append(f"{outcome.value.capitalize()} than {baseline}: {listed}.")
    undecided = [c.arm for c in comparisons if c.outcome is Outcome.UNDECIDED]
    if undecided:
        sentences.append(f"Not enough evidence that these differ from {baseline}: {', '.join(undecided)}.")
    return f"{' '.join(sentences)} Compared: {where}."


def _alone(arm: ArmSummary, where: str) -> str:
    if arm.iqm is None:
        return f"{arm.arm} finished no seed; there is nothing to judge."
    gain = ""
    if arm.improvement is not None:
        known = "(one seed, no interval)" if len(arm.seeds) == 1 else interval_text(arm.improvement_interval)
        gain = f", {signed(arm.improvement)} {known} since before training"
    return f"One arm, nothing to compare. {arm.arm} reached {number(arm.iqm)} in {where}{gain}."


def _single(found: Comparison, where: str, seeds: dict[str, int]) -> str:
    if found.outcome is Outcome.UNDECIDED:
        seen = (
            ""
            if found.difference is None
            else f" Seen: {signed(found.difference)} {interval_text(found.interval)} in {where}."
        )
        reason = found.reason[:1].upper() + found.reason[1:]
        return f"Not enough evidence that {found.arm} and {found.baseline} differ.{seen} {reason}."
    count = min(seeds[found.arm], seeds[found.baseline])
    return (
        f"{found.arm} is {found.outcome.value} than {found.baseline}: "
        f"{signed(found.difference)} {interval_text(found.interval)} in {where} "
        f"({count} seeds, p = {p_text(found.p_adjusted)})."
    )


def _iqm(values: np.ndarray) -> float:
    return float(statistics.interquartile_mean(values))
