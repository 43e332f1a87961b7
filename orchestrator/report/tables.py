"""The report's tables as rows of text, the same in HTML, Markdown and the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from orchestrator.report.content import Report
from orchestrator.verdict.judge import FEW_SEEDS, Comparison, Outcome, Verdict
from orchestrator.verdict.wording import DASH, count_text, interval_text, number, p_text, seconds_text, signed

Table = tuple[list[str], list[list[str]]]  # header, rows


def arms_table(verdict: Verdict) -> Table:
    """Every arm at the common cost, the baseline first."""
    level = f"{100 * verdict.confidence:.3g} %"
    header = ["arm", "seeds", f"IQM [{level}]", "before training", f"improvement [{level}]", "verdict"]
    outcomes = {comparison.arm: comparison.outcome.value for comparison in verdict.comparisons}
    rows = []
    for arm in sorted(verdict.arms, key=lambda arm: arm.arm != verdict.baseline):
        improvement = DASH
        if arm.improvement is not None:
            improvement = f"{signed(arm.improvement)} {interval_text(arm.improvement_interval)}"
        iqm = DASH if arm.iqm is None else f"{number(arm.iqm)} {interval_text(arm.interval)}"
        outcome = outcomes.get(arm.arm, "baseline" if outcomes else DASH)
        rows.append([arm.arm, str(len(arm.seeds)), iqm, number(arm.start), improvement, outcome])
    return header, rows


def comparisons_table(verdict: Verdict) -> Table:
    """Every arm against the baseline."""
    corrected = 1 - (1 - verdict.confidence) / max(1, len(verdict.comparisons))
    header = [
        "arm",
        "verdict",
        f"difference of means [{100 * corrected:.3g} %]",
        f"difference of IQMs [{100 * corrected:.3g} %]",
        f"paired by seed [{100 * verdict.confidence:.3g} %]",
        "p (Welch)",
        "p (Bonferroni)",
        "Cohen's d",
        f"P(better) [{100 * verdict.confidence:.3g} %]",
    ]
    return header, [_comparison_row(comparison) for comparison in verdict.comparisons]


def _comparison_row(found: Comparison) -> list[str]:
    paired = DASH
    if found.paired_difference is not None:
        paired = f"{signed(found.paired_difference)}, {found.pairs} pairs {interval_text(found.paired_interval)}"
    return [
        found.arm,
        found.outcome.value,
        _with_interval(signed(found.difference), found.interval, found.difference),
        _with_interval(signed(found.iqm_difference), found.iqm_interval, found.iqm_difference),
        paired,
        p_text(found.p),
        p_text(found.p_adjusted),
        signed(found.effect),
        _with_interval(
            number(found.improvement_probability), found.improvement_interval, found.improvement_probability
        ),
    ]


def spending_table(report: Report) -> Table:
    """What trials cost on average."""
    counters = [
        ("generated", "cost/generated_tokens"),
        ("prompt", "cost/prompt_tokens"),
        ("trained", "cost/trained_tokens"),
        ("evaluation", "cost/evaluation_tokens"),
    ]
    header = ["mean per trial", "trials", "steps"]
    header += [f"{name} tokens" for name, _ in counters] + ["tokens/s", "time", "device time"]
    rows = []
    for row in report.spending:
        cells = [row.name, str(row.trials), f"{row.steps:.0f}"]
        cells += [count_text(row.counters[counter]) if counter in row.counters else DASH for _, counter in counters]
        speed = row.tokens_per_second
        cells.append(DASH if speed is None else count_text(round(speed)))
        cells += [seconds_text(row.counters.get(name)) for name in ("cost/seconds", "cost/device_seconds")]
        rows.append(cells)
    return header, rows


def settings_table(report: Report) -> Table:
    """Settings that arms do not share."""
    header = ["setting", *report.study.arms]
    rows = [[path, *(_value(values[arm]) for arm in report.study.arms)] for path, values in report.differences.items()]
    return header, rows


def trials_table(report: Report) -> Table:
    """Every trial that enters the verdict, and the failed ones of tuning."""
    metric = report.verdict.metric if report.verdict else None
    values = {
        (a.arm, seed): v
        for a in (report.verdict.arms if report.verdict else ())
        for seed, v in zip(a.seeds, a.values, strict=True)
    }
    header = ["trial", "arm", "seed", "status", "step", f"{metric or 'value'} at the common cost"]
    rows = []
    for trial in (*report.study.confirmations, *(t for t in report.study.tuning if t.status == "failed")):
        value = values.get((trial.arm, trial.spec.seed)) if trial.spec.phase == "confirm" else None
        rows.append([trial.spec.id, trial.arm, str(trial.spec.seed), trial.status, str(trial.step), number(value)])
    return header, rows


def reasons(verdict: Verdict) -> Iterable[str]:
    """Why each undecided arm is undecided."""
    for found in verdict.comparisons:
        if found.outcome is Outcome.UNDECIDED and found.reason:
            yield f"{found.arm}: {found.reason}."


def rule(verdict: Verdict) -> str:
    """How the verdict was reached, in words."""
    idle = f" but {', '.join(verdict.costless)}, which spent none and is taken as it ended" if verdict.costless else ""
    read = (
        f"Each seed's curve of {verdict.metric} is read at {count_text(verdict.cost)} {verdict.cost_name}, which all of "
        f"them reached{idle}. {'More' if verdict.mode == 'max' else 'Less'} is better."
    )
    intervals = (
        "Bootstrap intervals are widened for small samples; improvements over the value before training have Student "
        f"intervals, their spread pooled over arms below {FEW_SEEDS} seeds."
    )
    if not verdict.comparisons:
        return f"{read} {intervals}"
    corrected = 100 * (1 - (1 - verdict.confidence) / len(verdict.comparisons))
    return (
        f"{read} An arm is named better or worse than {verdict.baseline} only when Welch's t-test, with Bonferroni's "
        f"correction for {len(verdict.comparisons)} compared, has p below {1 - verdict.confidence:.2g}, and the "
        f"{corrected:.3g} % bootstrap interval of the difference of interquartile means (IQM) lies on the same side of "
        f"zero. {intervals}"
    )


def _with_interval(text: str, interval: Any, value: float | None) -> str:
    return DASH if value is None else f"{text} {interval_text(interval)}"


def _value(value: Any) -> str:
    if value is None:
        return DASH
    return value if isinstance(value, str) else json.dumps(value)
