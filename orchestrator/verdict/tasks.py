"""Looks behind a verdict, task by task: who solves what, and how much of the seeds' scatter evaluation makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.contract.metrics import COST, SUCCESS
from orchestrator.maths import tasks as statistics
from orchestrator.maths.power import Noise, left_by_averaging
from orchestrator.maths.statistics import Interval, pooled_variance
from orchestrator.maths.verdict import window_weights
from orchestrator.runs.read import TrialData
from orchestrator.runs.results import FINISHED
from orchestrator.runs.study import Study
from orchestrator.verdict.outcome import Verdict

Counts = Mapping[str, tuple[int, int]]  # answers and right ones by task


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskComparison:
    """One arm and the baseline on the held-out tasks both answered; differences are arm minus baseline."""

    arm: str
    baseline: str
    tasks: int
    difference: float  # of the rates of right answers over the last fifth, mean over tasks
    interval: Interval | None  # for other seeds on other tasks, for this arm alone; None below two seeds
    over_seeds: float | None  # standard errors: other seeds, the same tasks
    over_tasks: float | None  # the same seeds, other tasks
    error: float | None  # other seeds and other tasks
    arm_only: tuple[str, ...]  # tasks that the arm solves in most answers and the baseline does not
    baseline_only: tuple[str, ...]
    both: int
    neither: int
    chance: float  # tasks on either side that equal arms would show by the luck of sampling
    by_task: tuple[float, ...]  # differences, the largest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluations:
    """One trial's evaluations that enter what its seed counts by."""

    weights: tuple[float, ...]
    counts: tuple[Counts, ...]

    def rate(self, task: str) -> float:
        """Share of right answers, weighted as the curve is averaged."""
        return sum(w * c[task][1] / c[task][0] for w, c in zip(self.weights, self.counts, strict=True))

    def total(self, task: str) -> tuple[int, int]:
        """Answers and right ones, all together."""
        return sum(c[task][0] for c in self.counts), sum(c[task][1] for c in self.counts)


def read_evaluations(study: Study, verdict: Verdict) -> dict[str, list[Evaluations]]:
    """What the trials behind a verdict answered over the last fifth, by arm; trials that were not counted are left out."""
    read: dict[str, list[Evaluations]] = {}
    for trial in study.confirmations:
        if trial.status in FINISHED and (one := _evaluations(trial, verdict)) is not None:
            read.setdefault(trial.arm, []).append(one)
    return read


def compare_by_task(read: Mapping[str, Sequence[Evaluations]], verdict: Verdict) -> tuple[TaskComparison, ...]:
    """Compare every arm with the baseline on the tasks that all their seeds answered; empty where none were counted.

    :param read: from :func:`read_evaluations`
    """
    baseline = read.get(verdict.baseline, [])
    found = []
    for comparison in verdict.comparisons:
        arm = read.get(comparison.arm, [])
        shared = _shared([*arm, *baseline])
        if not arm or not baseline or len(shared) < 2:
            continue
        rates = [np.array([[one.rate(task) for task in shared] for one in group]) for group in (arm, baseline)]
        difference = statistics.compare_tasks(*rates)
        totals = [
            np.array([[one.total(task) for task in shared] for one in group]).sum(axis=0) for group in (arm, baseline)
        ]
        sides = statistics.solved(totals[0][:, 1], totals[0][:, 0], totals[1][:, 1], totals[1][:, 0])
        found.append(
            TaskComparison(
                arm=comparison.arm,
                baseline=verdict.baseline,
                tasks=len(shared),
                difference=difference.difference,
                interval=difference.interval(verdict.confidence),
                over_seeds=difference.over_seeds,
                over_tasks=difference.over_tasks,
                error=difference.error,
                arm_only=tuple(shared[place] for place in sides.arm_only),
                baseline_only=tuple(shared[place] for place in sides.baseline_only),
                both=sides.both,
                neither=sides.neither,
                chance=sides.chance,
                by_task=tuple(sorted((float(one) for one in difference.by_task), reverse=True)),
            )
        )
    return tuple(found)


def noise(read: Mapping[str, Sequence[Evaluations]], verdict: Verdict) -> Noise | None:
    """Where the scatter of an arm's seeds comes from; None where no seeds scatter, or answers were not counted.

    Evaluations are taken for independent of each other, so that what they add is rather under- than overstated.

    :param read: from :func:`read_evaluations`
    """
    trials = [one for arm in read.values() for one in arm]
    if verdict.metric != SUCCESS or not trials:
        return None
    variance, _ = pooled_variance([arm.values for arm in verdict.arms])
    if not variance > 0:
        return None
    answer, averaging, answers = [], [], []
    for one in trials:
        made, right = np.array([list(counts.values()) for counts in one.counts], dtype=float).transpose(2, 0, 1)
        answer.append(statistics.answer_variance(right, made))
        averaging.append(left_by_averaging(one.weights))
        answers.append((made.shape[1], made.mean()))
    tasks, samples = (max(1, round(float(np.mean(part)))) for part in zip(*answers, strict=True))
    found = Noise(
        training=0.0,
        answer=float(np.mean(answer)),
        tasks=tasks,
        samples=samples,
        averaging=float(np.mean(averaging)),
    )
    rest = max(0.0, variance - found.evaluation)
    shrink = (
        min(1.0, variance / found.evaluation) if found.evaluation else 1.0
    )  # evaluation makes no more than there is
    return Noise(training=rest, answer=found.answer * shrink, tasks=tasks, samples=samples, averaging=found.averaging)


def _evaluations(trial: TrialData, verdict: Verdict) -> Evaluations | None:
    """What a trial's evaluations counted over the last fifth; None where they did not, or the file is damaged."""
    try:
        counted = {step: counts for step, counts in trial.evaluations() if counts}  # a step evaluated again: the last
    except (ValueError, KeyError, TypeError):
        return None
    curve = trial.curve(verdict.metric, COST if verdict.cost_name != "steps" else None)
    if curve is None:
        return None
    weights = window_weights(curve.costs, *verdict.window)
    used = [(int(s), float(w)) for s, w in zip(curve.steps, weights, strict=True) if w > 1e-9]
    if not used or any(step not in counted for step, _ in used):
        return None
    tasks = set.intersection(*(set(counted[step]) for step, _ in used))
    kept = {task for task in tasks if all(counted[step][task][0] > 0 for step, _ in used)}
    return Evaluations(
        weights=tuple(weight for _, weight in used),
        counts=tuple({task: counted[step][task] for task in sorted(kept)} for step, _ in used),
    )


def _shared(trials: Sequence[Evaluations]) -> list[str]:
    """Tasks that every trial answered at every evaluation."""
    return sorted(set.intersection(*(set(one.counts[0]) for one in trials))) if trials else []
