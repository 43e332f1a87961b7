r"""Statistics over held-out tasks: on which one arm is better than the other, and what the choice of tasks adds.

Arms answer the same tasks, so their difference is taken task by task, where the tasks' difficulty drops out. Seeds and
tasks are both drawn from many, and each seed meets each task: the two are crossed. Source: Miller 2024
(arXiv:2411.00640) for paired differences, errors clustered by task and the variance of sampled answers; its items are
crossed with seeds here, with the degrees of freedom of Satterthwaite 1946.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtrc

from orchestrator.maths.statistics import Interval, t_interval

Array: TypeAlias = np.ndarray

SOLVED = 0.5  # an arm solves a task when at least this share of all its seeds' answers is right


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskDifference:
    """Two arms on the same tasks; differences are arm minus baseline."""

    by_task: Array  # [T] difference of the means over seeds
    difference: float  # mean over tasks
    over_tasks: float | None  # standard error for other tasks, the same seeds: clustered by task
    over_seeds: float | None  # standard error for other seeds, the same tasks; None below two seeds in an arm
    error: float | None  # standard error for other seeds and other tasks
    df: float | None  # degrees of freedom of ``error``, by Satterthwaite

    def interval(self, confidence: float = 0.95) -> Interval | None:
        """Student interval of the difference for other seeds on other tasks, for this arm alone; None if unknown."""
        if self.error is None or self.df is None:
            return None
        return t_interval(self.difference, self.error, self.df, confidence)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solved:
    """Which tasks two arms solve; indices into the tasks, the clearest difference first."""

    both: int
    neither: int
    arm_only: tuple[int, ...]
    baseline_only: tuple[int, ...]
    chance: float  # tasks that equal arms would be expected to show on either side, by the luck of sampling


def compare_tasks(arm: ArrayLike, baseline: ArrayLike) -> TaskDifference:
    r"""Compare two arms on the same tasks, seeds and tasks both counted as sources of variation.

    With the mean :math:`d_t` of the difference on task t, the seeds' means over tasks with variance :math:`v_a`, and
    the variance :math:`e_a` of what is left of a seed on a task when both are taken out,

    .. math:: \widehat{\mathrm{Var}} = \frac{\mathrm{var}_t(d_t)}{T} + \sum_a \frac{v_a}{n_a} - \sum_a \frac{e_a}{n_a T}

    where the last term is in each of the others once, and is taken back once. It is at least each of the first two.

    :param arm: [n, T] pass rate of every seed on every task, or any other score
    :param baseline: [m, T]
    :raises ValueError: no two tasks, or other tasks in the two arms
    """
    groups = [np.atleast_2d(np.asarray(rates, dtype=float)) for rates in (arm, baseline)]
    tasks = groups[0].shape[1]
    if groups[1].shape[1] != tasks or tasks < 2:
        raise ValueError(f"arms on {tasks} and {groups[1].shape[1]} tasks; expected the same two or more")
    by_task = groups[0].mean(axis=0) - groups[1].mean(axis=0)
    between = float(by_task.var(ddof=1)) / tasks
    known = {"by_task": by_task, "difference": float(by_task.mean()), "over_tasks": math.sqrt(between)}
    if min(len(rates) for rates in groups) < 2:
        return TaskDifference(**known, over_seeds=None, error=None, df=None)
    parts, twice = [(between, tasks - 1.0)], 0.0
    for rates in groups:
        seeds = rates.shape[0]
        parts.append((float(rates.mean(axis=1).var(ddof=1)) / seeds, seeds - 1.0))
        left = rates - rates.mean(axis=1, keepdims=True) - rates.mean(axis=0) + rates.mean()
        twice += float((left**2).sum()) / ((seeds - 1) * (tasks - 1)) / (seeds * tasks)
    within = sum(share for share, _ in parts[1:])
    variance = max(between + within - twice, between, within)
    spread = sum(share**2 / freedom for share, freedom in parts)
    return TaskDifference(
        **known,
        over_seeds=math.sqrt(within),
        error=math.sqrt(variance),
        df=variance**2 / spread if spread > 0 else math.inf,
    )


def solved(
    right: ArrayLike, made: ArrayLike, baseline_right: ArrayLike, baseline_made: ArrayLike, at: float = SOLVED
) -> Solved:
    """Sort tasks by which arm solves them.

    :param right: [T] right answers of all the arm's seeds together
    :param made: [T] all of them, at least one
    :param at: share of right answers from which a task counts as solved
    """
    won, tried = np.asarray(right, dtype=float), np.asarray(made, dtype=float)
    lost, against = np.asarray(baseline_right, dtype=float), np.asarray(baseline_made, dtype=float)
    difference = won / tried - lost / against
    ours, theirs = won >= at * tried, lost >= at * against
    rate = (won + lost) / (tried + against)
    first, second = _reaches(at, tried, rate), _reaches(at, against, rate)

    def sort(chosen: Array, sign: float) -> tuple[int, ...]:
        places = np.flatnonzero(chosen)
        return tuple(int(place) for place in places[np.argsort(-sign * difference[places], kind="stable")])

    return Solved(
        both=int((ours & theirs).sum()),
        neither=int((~ours & ~theirs).sum()),
        arm_only=sort(ours & ~theirs, 1.0),
        baseline_only=sort(~ours & theirs, -1.0),
        chance=float((0.5 * (first * (1 - second) + second * (1 - first))).sum()),
    )


def answer_variance(right: ArrayLike, made: ArrayLike) -> float:
    """Mean over tasks of the variance of one answer: what sampling answers adds, times tasks and samples.

    Unbiased where tasks have two answers or more. Tasks with one answer count by the overall rate's variance, which is
    an upper bound: it takes the tasks for equally hard.

    :param right: [..., T] right answers
    :param made: [..., T] answers, at least one
    """
    won, tried = np.broadcast_arrays(np.asarray(right, dtype=float), np.asarray(made, dtype=float))
    rate, overall = won / tried, float(won.sum() / tried.sum())
    several = tried > 1
    own = rate * (1 - rate) * tried / np.where(several, tried - 1, 1)
    return float(np.where(several, own, overall * (1 - overall)).mean())


def _reaches(at: float, made: Array, rate: Array) -> Array:
    """Chance that at least a share ``at`` of answers is right."""
    fewest = np.ceil(at * made - 1e-9)
    return np.where(fewest <= 0, 1.0, bdtrc(np.maximum(fewest - 1, 0), made.astype(int), rate))
