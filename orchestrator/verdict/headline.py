"""The sentence a report begins with: what is said, of what quantity, and what is not said."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.maths.verdict import both_sides
from orchestrator.verdict.outcome import ArmSummary, Comparison, Outcome, Verdict
from orchestrator.verdict.wording import (
    count_text,
    difference_text,
    interval_text,
    margin_text,
    metric_label,
    number,
    p_equals,
    percent,
    signed,
)


def estimand(verdict: Verdict) -> str:
    """What is compared, in words: which metric, over which part of which cost."""
    measured = metric_label(verdict.metric)
    if not verdict.window.low < verdict.window.high:
        return f"{measured} at {count_text(verdict.cost)} {verdict.cost_name}"
    low, high = (count_text(end) for end in verdict.window)
    return f"{measured}, averaged over the last fifth of the common cost ({low} to {high} {verdict.cost_name})"


def headline(verdict: Verdict) -> str:
    """Say the verdict in one paragraph that can be repeated."""
    said = _said(verdict)
    if not verdict.exploratory:
        return said
    return f"Exploratory, since {verdict.exploratory}; no error rate holds for this. {said}"


def looks_text(verdict: Verdict) -> str:
    """How often a verdict was looked at, and how much error that spent; empty where it was looked at once."""
    if not verdict.looks:
        return ""
    seeds = [str(look.seeds) for look in verdict.looks]
    after = seeds[0] if len(seeds) == 1 else f"{', '.join(seeds[:-1])} and {seeds[-1]}"
    error = f"{percent(verdict.looks[-1].spent)} of {percent(1 - verdict.confidence)} error spent"
    return f"Looked at after {after} seeds, {error}."


def _said(verdict: Verdict) -> str:
    if verdict.looks and not verdict.final:
        return f"{_so_far(verdict)} {looks_text(verdict)} Compared: {estimand(verdict)}."
    if not verdict.comparisons:
        return _alone(verdict.arms[0], estimand(verdict))
    if not verdict.final:
        return (
            f"Preliminary: trials are still to come, so nothing is decided. Shown: {estimand(verdict)}, "
            f"against {verdict.baseline}."
        )
    if verdict.compare == "best":
        said = _raced(verdict)
    else:
        said = _single(verdict) if len(verdict.comparisons) == 1 else _several(verdict)
    return f"{said} {looks_text(verdict)}".rstrip()


def _so_far(verdict: Verdict) -> str:
    """What is decided while seeds are still added."""
    race = verdict.compare == "best"
    decided = []
    for outcome in (Outcome.BETTER, Outcome.WORSE, Outcome.EQUIVALENT):
        arms = ", ".join(c.arm for c in _with(verdict, outcome))
        if arms:
            said = "fallen behind" if race else f"{outcome.label} than {verdict.baseline}"
            if outcome is Outcome.EQUIVALENT:
                said = f"equivalent to {verdict.baseline} within {margin_text(verdict.margin)}"
            decided.append(f"{said}: {arms}")
    listed = "; ".join(decided) or "nothing"
    front = f" In front: {verdict.baseline}." if race else ""
    still = ", ".join(c.arm for c in _with(verdict, Outcome.UNDECIDED)) or "none"
    return f"Seeds are still to come. Decided so far, for good: {listed}. Still open: {still}.{front}"


def _raced(verdict: Verdict) -> str:
    """Which arm is the best of all, or which it may be."""
    front, others = verdict.baseline, [c for c in verdict.comparisons if c.outcome is not Outcome.WORSE]
    where = f"Compared: {estimand(verdict)}."
    if not others:
        gaps = [c.difference for c in verdict.comparisons if c.difference is not None]
        nearest = f", the nearest by {number(min(map(abs, gaps)))}" if gaps else ""
        return f"{front} is the best of {len(verdict.arms)} arms: every other fell behind{nearest}. {where}"
    tied = [c.arm for c in others if c.outcome is Outcome.EQUIVALENT]
    opened = [c.arm for c in others if c.outcome is Outcome.UNDECIDED]
    said = ""
    if tied:
        said = f" Tied with the best within {margin_text(verdict.margin)}: {', '.join([front, *tied])}."
    if opened:
        said += (
            f" Not enough evidence that these are not the best: {', '.join([*opened] if tied else [front, *opened])}."
        )
    behind = len(verdict.comparisons) - len(others)
    return f"No single arm is shown to be the best of {len(verdict.arms)}; {behind} fell behind.{said} {where}"


def _alone(arm: ArmSummary, where: str) -> str:
    if arm.mean is None:
        return f"{arm.arm} finished no seed; there is nothing to judge."
    gain = ""
    if arm.improvement is not None:
        known = "(one seed, no interval)" if len(arm.seeds) == 1 else interval_text(arm.improvement_interval)
        gain = f", {signed(arm.improvement)} {known} since before training"
    return f"One arm, nothing to compare. {arm.arm} reached {number(arm.mean)} in {where}{gain}."


def _single(verdict: Verdict) -> str:
    found = verdict.comparisons[0]
    counts = {arm.arm: len(arm.seeds) for arm in verdict.arms}
    seeds = " and ".join(str(n) for n in dict.fromkeys((counts[found.arm], counts[found.baseline])))
    seen = difference_text(found.difference, found.interval)
    if found.outcome is Outcome.UNDECIDED:
        shown = "" if found.difference is None else f" Seen: {seen} in {estimand(verdict)}; {seeds} seeds."
        reason = found.reason[:1].upper() + found.reason[1:]
        return (
            f"Not enough evidence that {found.arm} and {found.baseline} differ, and none that they are equal."
            f"{shown} {reason}."
        )
    if found.outcome is Outcome.EQUIVALENT:
        return (
            f"{found.arm} and {found.baseline} are equivalent within {margin_text(verdict.margin)}: "
            f"{difference_text(found.difference, found.equivalence_interval)} "
            f"({percent(both_sides(verdict.confidence))}) in {estimand(verdict)}; {seeds} seeds."
        )
    small = f" Both ends lie within the margin of {margin_text(verdict.margin)}." if found.negligible else ""
    return (
        f"{found.arm} is {found.outcome.label} than {found.baseline}: {seen} in {estimand(verdict)}; "
        f"{seeds} seeds{'' if verdict.looks else f', {p_equals(found.p_adjusted)}'}.{small}"
    )


def _several(verdict: Verdict) -> str:
    sentences = []
    for outcome in (Outcome.BETTER, Outcome.WORSE):
        found = sorted(_with(verdict, outcome), key=lambda c: -abs(c.difference or 0.0))
        if found:
            listed = "; ".join(
                f"{c.arm}, {difference_text(c.difference, c.interval)}{' (within the margin)' if c.negligible else ''}"
                for c in found
            )
            sentences.append(f"{outcome.label.capitalize()} than {verdict.baseline}: {listed}.")
    equivalent = [c.arm for c in _with(verdict, Outcome.EQUIVALENT)]
    if equivalent:
        sentences.append(
            f"Equivalent to {verdict.baseline} within {margin_text(verdict.margin)}: {', '.join(equivalent)}."
        )
    undecided = [c.arm for c in _with(verdict, Outcome.UNDECIDED)]
    if undecided:
        sentences.append(
            f"Not enough evidence that these differ from {verdict.baseline}, and none that they equal it: "
            f"{', '.join(undecided)}."
        )
    return f"{' '.join(sentences)} Compared: {estimand(verdict)}."


def _with(verdict: Verdict, outcome: Outcome) -> Sequence[Comparison]:
    return [comparison for comparison in verdict.comparisons if comparison.outcome is outcome]
