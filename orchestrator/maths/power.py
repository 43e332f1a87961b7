r"""What a design can find before a token is spent: power, the smallest difference found, and what would lower it.

All of it is about the rule of :mod:`orchestrator.maths.verdict`, for seeds that scatter normally. Differences and
standard deviations are in the metric's units, of what a seed counts by: its curve's mean over the last fifth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from orchestrator.maths.verdict import both_sides, bound, shrunken

Array: TypeAlias = np.ndarray

POWER = 0.8  # the chance at which a difference is said to be found
_DRAWS = 4_000  # of the variances; given these the chance is computed exactly
_SEED = 20251
_MOST_SEEDS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Where the variance of what a seed counts by comes from."""

    training: float  # variance over seeds that no evaluation would remove
    answer: float  # mean over tasks of the variance of one answer, p (1 - p)
    tasks: int
    samples: int  # answers a task
    averaging: float = 1.0  # variance left by averaging over evaluations, see :func:`left_by_averaging`

    @property
    def evaluation(self) -> float:
        """Variance that evaluating by finitely many answers adds."""
        return self.answer * self.averaging / (self.tasks * self.samples)

    @property
    def total(self) -> float:
        """Variance over an arm's seeds."""
        return self.training + self.evaluation

    @property
    def share(self) -> float:
        """Part of the variance that more evaluation would remove, in [0, 1]; 0 without any variance."""
        return self.evaluation / self.total if self.total > 0 else 0.0

    def with_evaluation(self, tasks: float = 1.0, samples: float = 1.0, averaging: float = 1.0) -> Noise:
        """The same training with that many times the tasks and samples, and that share of what averaging leaves."""
        return replace(
            self,
            tasks=max(1, round(self.tasks * tasks)),
            samples=max(1, round(self.samples * samples)),
            averaging=self.averaging * averaging,
        )


def left_by_averaging(weights: Sequence[float]) -> float:
    """Share of an evaluation's variance that is left in a weighted mean of independent ones: the sum of squares.

    :param weights: of the evaluations, sum 1, as :func:`orchestrator.maths.verdict.window_weights` gives them
    """
    return float(np.square(np.asarray(weights, dtype=float)).sum())


def power(
    effect: float,
    deviation: float,
    counts: Sequence[int],
    *,
    arm: int = 1,
    confidence: float = 0.95,
    spread: float = 0.0,
    relative: Sequence[float] | None = None,
) -> float:
    """Chance that the first step names an arm on the right side, when it alone differs from the baseline.

    :param effect: true difference from the baseline
    :param deviation: standard deviation over seeds: the root of its mean square over arms
    :param counts: [A] seeds, the baseline's first
    :param arm: which of them differs
    :param spread: standard deviation of the logarithm of the arms' spreads
    :param relative: [A] known standard deviations of the arms, in units of ``deviation``; None: all the same
    """
    if not deviation > 0:
        return float(effect != 0)
    width, error = _errors(tuple(int(count) for count in counts), arm, spread, tuple(relative or ()))
    return float(_chance_of(abs(effect) / deviation, width, error * bound(counts, confidence)))


def smallest_difference(
    deviation: float,
    counts: Sequence[int],
    *,
    wanted: float = POWER,
    arm: int = 1,
    confidence: float = 0.95,
    spread: float = 0.0,
    bar: float | None = None,
) -> float:
    """The true difference that is found with a chance of ``wanted``, parameters as in :func:`power`.

    :param bar: distance from which an arm is named; None: that of one look
    """
    width, error = _errors(tuple(int(count) for count in counts), arm, spread, ())
    reach = error * (bound(counts, confidence) if bar is None else bar)
    far = 1.0
    while _chance_of(far, width, reach) < wanted:
        far *= 2
    return deviation * float(brentq(lambda size: _chance_of(size, width, reach) - wanted, 0.0, far, xtol=1e-6))


def chance_of_equivalence(
    margin: float,
    deviation: float,
    counts: Sequence[int],
    *,
    arm: int = 1,
    confidence: float = 0.95,
    spread: float = 0.0,
) -> float:
    """Chance that an arm equal to the baseline is called equivalent within a margin, parameters as in :func:`power`."""
    if not deviation > 0:
        return 0.0
    width, error = _errors(tuple(int(count) for count in counts), arm, spread, ())
    within = margin / deviation - error * bound(counts, both_sides(confidence))
    room = np.minimum(within, error * bound(counts, confidence))  # nearer than what is named
    return float(np.where(room > 0, 2 * ndtr(room / width) - 1, 0.0).mean())


def seeds_needed(
    effect: float,
    *,
    arms: int = 1,
    wanted: float = POWER,
    confidence: float = 0.95,
    spread: float = 0.0,
    baseline: float = 1.0,
) -> int | None:
    """Seeds per arm after which the rule would find an effect of this size among so many arms.

    :param effect: true difference in standard deviations over seeds
    :param arms: compared with the baseline
    :param baseline: its seeds, in those of an arm
    :returns: at least 2; None beyond 512, and for no effect
    """

    def found(count: int) -> bool:
        counts = (max(2, round(baseline * count)), *(count,) * arms)
        return power(effect, 1.0, counts, confidence=confidence, spread=spread) >= wanted

    if not effect or not found(_MOST_SEEDS):
        return None
    low, high = 1, 2
    while not found(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def _chance_of(size: float, width: Array, reach: Array) -> float:
    """Chance that a difference of mean ``size`` and standard deviation ``width`` ends above ``reach``."""
    return float(ndtr((size - reach) / width).mean())


@lru_cache(maxsize=256)
def _errors(counts: tuple[int, ...], arm: int, spread: float, relative: tuple[float, ...]) -> tuple[Array, Array]:
    """True and estimated standard error of an arm's difference, in deviations: [draws] each.

    Means and variances of normal seeds are independent: only the variances need be drawn.
    """
    generator = np.random.default_rng(_SEED)
    n = np.array(counts)
    size = (_DRAWS, n.size)
    true = np.exp(2 * (spread * generator.normal(size=size) - spread**2))  # mean 1
    true *= np.square(relative or np.ones(n.size))
    estimated = true * generator.chisquare(n - 1, size=size) / (n - 1)
    pair = [0, arm]
    share = shrunken(estimated, counts)[:, pair] / n[pair]
    return np.sqrt((true[:, pair] / n[pair]).sum(axis=1)), np.sqrt(share.sum(axis=1))
