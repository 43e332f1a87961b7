"""What lies behind a verdict, in tables and sentences: tasks, the scatter of seeds, and what would narrow it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from orchestrator.maths.power import Noise, smallest_difference
from orchestrator.verdict.tasks import TaskComparison
from orchestrator.verdict.wording import DASH, difference_text, number, percent

if TYPE_CHECKING:
    from orchestrator.report.content import Report

FEW = 6  # degrees of freedom below which the scatter of seeds is a hint
FEW_NAMES = 12  # tasks named on either side


def tasks_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Every arm and the baseline on the same held-out tasks."""
    if not report.tasks or report.verdict is None:
        return [], []
    baseline = report.verdict.baseline
    header = [
        "arm",
        "tasks",
        f"difference [{percent(report.verdict.confidence)}, other seeds and tasks]",
        "error, other seeds",
        "error, other tasks",
        "error, both",
        "solved by the arm only",
        f"by {baseline} only",
        "either side by chance",
        "by both",
        "by neither",
    ]
    return header, [_row(found) for found in report.tasks]


def tasks_note(report: Report) -> str:
    """What the table of tasks says and does not say."""
    return (
        "Right answers over the last fifth, task by task, so that the tasks' difficulty drops out. The verdict speaks of "
        "other seeds on these tasks; the interval here also of other tasks, for each arm alone, and decides nothing. An "
        "arm solves a task when at least half of all its seeds' answers are right; of tasks solved on one side only, so "
        "many are expected on either side by chance between equal arms."
    )


def only_one_solves(report: Report) -> Iterable[tuple[str, str]]:
    """Title and names of the tasks that one side solves and the other does not, the clearest first."""
    for found in report.tasks:
        for title, names in (
            (f"{found.arm} solves, {found.baseline} does not", found.arm_only),
            (f"{found.baseline} solves, {found.arm} does not", found.baseline_only),
        ):
            if names:
                more = f" and {len(names) - FEW_NAMES} more" if len(names) > FEW_NAMES else ""
                yield title, ", ".join(names[:FEW_NAMES]) + more


def noise_text(report: Report) -> str:
    """How seeds scatter, which part of it evaluation makes, and what would find smaller differences."""
    noise, verdict = report.noise, report.verdict
    if noise is None or verdict is None:
        return ""
    share = "at most" if noise.samples == 1 else "about"
    rest = "; no evaluation would remove the rest" if noise.share < 0.95 else ""
    freedom = sum(len(arm.values) - 1 for arm in verdict.arms if len(arm.values) > 1)
    hint = " So few seeds give a hint of it and no more." if freedom < FEW else ""
    text = (
        f"Seeds of one arm scatter with a standard deviation of {number(noise.total**0.5)}. Evaluation by {noise.tasks} "
        f"tasks x {noise.samples} answers makes {share} {percent(round(noise.share, 2))} of that variance{rest}.{hint}"
    )
    seeds = {arm.arm: len(arm.seeds) for arm in verdict.arms}
    counts = [seeds[verdict.baseline], *(seeds[c.arm] for c in verdict.comparisons if seeds[c.arm] > 1)]
    if len(counts) < 2 or counts[0] < 2:
        return text
    as_it_is, seeded, answered = (
        smallest_difference(found.total**0.5, n, confidence=verdict.confidence)
        for found, n in _alternatives(noise, counts)
    )
    return (
        f"{text} So scattered, a design of this size finds a difference of {number(as_it_is)} in four of five "
        f"cases; with twice the seeds it would find {number(seeded)}, with four times the answers {number(answered)}."
    )


def _alternatives(noise: Noise, counts: Sequence[int]) -> list[tuple[Noise, list[int]]]:
    return [
        (noise, list(counts)),
        (noise, [2 * count for count in counts]),
        (noise.with_evaluation(samples=4), list(counts)),
    ]


def _row(found: TaskComparison) -> list[str]:
    errors = [DASH if e is None else number(e) for e in (found.over_seeds, found.over_tasks, found.error)]
    return [
        found.arm,
        str(found.tasks),
        difference_text(found.difference, found.interval),
        *errors,
        str(len(found.arm_only)),
        str(len(found.baseline_only)),
        f"{found.chance:.1f}",
        str(found.both),
        str(found.neither),
    ]
