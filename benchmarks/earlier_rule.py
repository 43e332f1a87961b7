"""The rule by which reports judged before, kept to compare with: what it would have said, and how often it erred.

Welch's t-test with Bonferroni's correction on the values at the common cost, and the stratified bootstrap interval of the
difference of interquartile means, at the corrected level, on the same side of zero.

    python benchmarks/earlier_rule.py RUN...    # run directories judged by both rules, side by side
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import stdtr

from orchestrator.maths.statistics import bootstrap_interval, interquartile_mean
from orchestrator.report.content import gather
from orchestrator.runs.curves import by_arm
from orchestrator.verdict.wording import interval_text, p_text, signed


def decide(samples: Sequence[np.ndarray], confidence: float = 0.95, resamples: int = 1_000) -> list[tuple[int, float]]:
    """Judge every sample against the first: 1 above it, -1 below it, 0 undecided, each with its corrected p."""
    level = (1 - confidence) / (len(samples) - 1)
    decided = []
    for sample in samples[1:]:
        statistic, p = welch(sample, samples[0])
        p *= len(samples) - 1
        side = 0
        if p < 1 - confidence:
            ends = bootstrap_interval(
                [sample, samples[0]],
                lambda x, y: interquartile_mean(x) - interquartile_mean(y),
                confidence=1 - level,
                resamples=resamples,
            )
            difference = interquartile_mean(sample) - interquartile_mean(samples[0])
            side = int(np.sign(statistic)) * int(ends.excludes(0.0) and difference * statistic > 0)
        decided.append((side, min(1.0, p)))
    return decided


def welch(sample: np.ndarray, control: np.ndarray) -> tuple[float, float]:
    """Welch's statistic and two-sided p; without any spread 0 and 1."""
    a, b = sample.var(ddof=1) / sample.size, control.var(ddof=1) / control.size
    if a + b == 0:
        return 0.0, 1.0
    statistic = float((sample.mean() - control.mean()) / np.sqrt(a + b))
    df = (a + b) ** 2 / (a**2 / (sample.size - 1) + b**2 / (control.size - 1))
    return statistic, float(2 * stdtr(df, -abs(statistic)))


def main() -> None:
    """Print what both rules say of run directories."""
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    print("| run | arm | at the end, before | | last fifth, now | | |\n|---|---|---:|---|---:|---|---|")
    for directory in map(Path, sys.argv[1:]):
        report = gather([directory])
        verdict = report.verdict
        if verdict is None:
            print(f"| {directory.name} | {report.unjudged} | | | | | |")
            continue
        cost = "cost/generated_tokens" if verdict.cost_name != "steps" else None
        trials = [trial for trial in report.study.confirmations if trial.status in ("done", "stopped")]
        curves = by_arm(curve for trial in trials if (curve := trial.curve(verdict.metric, cost)) is not None)
        ends = {arm: np.array([curve.at(verdict.cost) for curve in found]) for arm, found in curves.items()}
        judged = [c for c in verdict.comparisons if c.p_adjusted is not None]
        before = decide([ends[verdict.baseline], *(ends[c.arm] for c in judged)], verdict.confidence, 10_000)
        sign = 1 if verdict.mode == "max" else -1
        for found, (side, p) in zip(judged, before, strict=True):
            word = {1: "better", -1: "worse", 0: "not enough evidence"}[side * sign]
            gap = signed(float(ends[found.arm].mean() - ends[verdict.baseline].mean()))
            now = f"{signed(found.difference)} {interval_text(found.interval)}"
            print(
                f"| {directory.name} | {found.arm} | {gap} | {word}, p {p_text(p)} | {now} | {found.outcome.label} "
                f"| p {p_text(found.p_adjusted)} |"
            )


if __name__ == "__main__":
    main()
