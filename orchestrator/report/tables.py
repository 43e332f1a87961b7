"""The report's tables as rows of text, the same in HTML, Markdown and the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from orchestrator.maths.statistics import Interval
from orchestrator.maths.verdict import both_sides
from orchestrator.report.content import Report
from orchestrator.verdict.judge import FEW_SEEDS
from orchestrator.verdict.outcome import Comparison, Outcome, Verdict
from orchestrator.verdict.wording import (
    DASH,
    beside,
    count_text,
    difference_text,
    interval_text,
    margin_text,
    number,
    p_text,
    percent,
    seconds_text,
    signed,
)

Table = tuple[list[str], list[list[str]]]  # header, rows


def arms_table(verdict: Verdict) -> Table:
    """Every arm over the last fifth of the common cost, the baseline first."""
    level = percent(verdict.confidence)
    best = verdict.compare == "best"
    header = ["arm", "seeds", f"mean [{level}]", "before training", f"improvement [{level}]", "verdict"]
    outcomes = {comparison.arm: comparison.outcome.label for comparison in verdict.comparisons}
    rows = []
    for arm in sorted(verdict.arms, key=lambda arm: arm.arm != verdict.baseline):
        improvement = DASH
        if arm.improvement is not None:
            improvement = f"{signed(arm.improvement)} {interval_text(arm.improvement_interval)}"
        mean = DASH if arm.mean is None else f"{number(arm.mean)} {interval_text(arm.interval)}"
        outcome = outcomes.get(arm.arm, ("in front" if best else "baseline") if outcomes else DASH)
        rows.append([arm.arm, str(len(arm.seeds)), mean, number(arm.start), improvement, outcome])
    return header, rows


def comparisons_table(verdict: Verdict) -> Table:
    """Every arm against the baseline; what decides comes first."""
    level = percent(verdict.confidence)
    several = len(verdict.comparisons) > 1
    header = ["arm", "verdict", f"difference [{level}{', all together' if several else ''}]"]
    if verdict.margin is not None:
        header.append(f"difference [{percent(both_sides(verdict.confidence))}, against {margin_text(verdict.margin)}]")
    header += [
        "p" if not several else f"p among {len(verdict.comparisons)}",
        *(["p alone"] if several else []),
        f"paired by seed [{level}]",
        "Cohen's d",
        f"P(better) [{level}]",
    ]
    return header, [_comparison_row(comparison, verdict, several) for comparison in verdict.comparisons]


def _comparison_row(found: Comparison, verdict: Verdict, several: bool) -> list[str]:
    paired = DASH
    if found.paired_difference is not None:
        shown = beside(found.paired_difference, found.paired_interval)
        paired = f"{shown}, {found.pairs} pairs {interval_text(found.paired_interval)}"
    probability = found.improvement_probability
    cells = [found.arm, found.outcome.label, _difference(found.difference, found.interval)]
    if verdict.margin is not None:
        cells.append(_difference(found.difference, found.equivalence_interval))
    return [
        *cells,
        p_text(found.p_adjusted),
        *([p_text(found.p)] if several else []),
        paired,
        signed(found.effect),
        _with_interval(number(probability), found.improvement_interval, probability),
    ]


def looks_table(verdict: Verdict) -> Table:
    """Every look at a verdict that adds seeds; empty where there was but one."""
    header = ["look", "seeds of an open arm", "trials", "decided", "open", "error spent"]
    rows = []
    for look in verdict.looks:
        decided = ", ".join(f"{arm} {Outcome(outcome).label}" for arm, outcome in look.decided.items()) or DASH
        still = ", ".join(look.open) or DASH
        spent = f"{percent(look.spent)} of {percent(1 - verdict.confidence)}"
        rows.append([str(look.number), str(look.seeds), str(len(look.trials)), decided, still, spent])
    return header, rows


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
    header = ["trial", "arm", "seed", "status", "step", f"{metric or 'value'}, mean of the last fifth"]
    rows = []
    for trial in (*report.study.confirmations, *(t for t in report.study.tuning if t.status == "failed")):
        value = values.get((trial.arm, trial.spec.seed)) if trial.spec.phase == "confirm" else None
        rows.append([trial.spec.id, trial.arm, str(trial.spec.seed), trial.status, str(trial.step), number(value)])
    return header, rows


def reasons(verdict: Verdict) -> Iterable[str]:
    """Why each undecided arm is undecided, and what makes an arm equivalent."""
    for found in verdict.comparisons:
        if found.reason:
            yield f"{found.arm}: {found.outcome.label}; {found.reason}."


def rule(verdict: Verdict) -> str:
    """How the verdict was reached, in words."""
    idle = f" but {', '.join(verdict.costless)}, which spent none and is taken as it ended" if verdict.costless else ""
    read = (
        f"A seed counts by the mean of its curve of {verdict.metric} from {count_text(verdict.window.low)} to "
        f"{count_text(verdict.window.high)} {verdict.cost_name}, the last fifth of the cost which all of them reached{idle}. "
        f"{'More' if verdict.mode == 'max' else 'Less'} is better."
    )
    intervals = (
        f"Means and improvements over the value before training have Student intervals, their spread pooled over arms "
        f"below {FEW_SEEDS} seeds; they, p alone, pairs, d and P(better) describe and decide nothing."
    )
    if not verdict.comparisons or verdict.bound is None:
        return f"{read} {intervals}"
    if verdict.compare == "best":
        return f"{read} {_race_rule(verdict)} {intervals}"
    if verdict.looks:
        return f"{read} {_looks_rule(verdict)} {intervals}"
    arms = len(verdict.comparisons)
    others = f"the furthest of {arms} equal arms" if arms > 1 else "an equal arm"
    steps = ", and those left are then judged among themselves" if arms > 1 else ""
    margin = (
        f" An arm that is not named is equivalent when its {percent(both_sides(verdict.confidence))} interval lies "
        f"within {margin_text(verdict.margin)}, the margin declared before the run."
        if verdict.margin is not None
        else " No report.margin was declared, so that no arm can be called equivalent."
    )
    return (
        f"{read} An arm is named better or worse than {verdict.baseline} when the difference of the means over seeds is "
        f"more than {number(verdict.bound)} standard errors, which {others} would reach by chance in "
        f"{percent(1 - verdict.confidence)} of such comparisons, also where arms scatter unequally{steps}. Variances are "
        f"drawn towards the one common to all arms.{margin} Everything else is not enough evidence, for a difference or "
        f"for equality. {intervals}"
    )


def _looks_rule(verdict: Verdict) -> str:
    """How several looks decide."""
    looks = ", ".join(str(look.seeds) for look in verdict.looks)
    margin = (
        f" An arm is equivalent when its {percent(both_sides(verdict.confidence))} interval, for this arm alone and all "
        f"looks together, lies within {margin_text(verdict.margin)}."
        if verdict.margin is not None
        else " No report.margin was declared, so that no arm can be called equivalent."
    )
    return (
        f"Seeds are added to arms that are not decided yet, with looks so far after {looks} seeds. At a look an arm is named "
        f"better or worse than {verdict.baseline} when its distance exceeds a bound (at the last look {number(verdict.bound)} "
        f"standard errors) so wide that over all looks together the furthest of equal arms exceeds it by chance in "
        f"{percent(1 - verdict.confidence)} of such designs; arms already named leave the family. What a look decides "
        f"stays decided, with the numbers of that look. Variances are drawn towards the one common to all arms.{margin} "
        "Everything else is not enough evidence, for a difference or for equality."
    )


def _race_rule(verdict: Verdict) -> str:
    """How a race is decided."""
    margin = (
        f" Arms are tied with the best when no arm can be more than {margin_text(verdict.margin)} better."
        if verdict.margin is not None
        else " No report.margin was declared, so that no arms can be called tied."
    )
    return (
        f"An arm falls behind (worse) when another exceeds it by more than a bound (about {number(verdict.bound)} standard "
        f"errors) so wide that over all looks together the best arm falls behind by chance in at most "
        f"{percent(1 - verdict.confidence)} of such races; each end of an interval holds with that confidence.{margin} "
        f"Differences are from {verdict.baseline}, the arm in front, or from the one in front when an arm fell behind."
    )


def _difference(value: float | None, interval: Interval | None) -> str:
    return DASH if value is None else difference_text(value, interval)


def _with_interval(text: str, interval: Any, value: float | None) -> str:
    return DASH if value is None else f"{text} {interval_text(interval)}"


def _value(value: Any) -> str:
    if value is None:
        return DASH
    return value if isinstance(value, str) else json.dumps(value)
