"""Statistics of a few noisy runs: robust means, bootstrap intervals, tests and effect sizes.

Samples are one number per seed. Everything is vectorised over bootstrap resamples and deterministic in ``seed``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, stdtr, stdtrit

Array: TypeAlias = np.ndarray

RESAMPLES = 10_000


class Interval(NamedTuple):
    """A range with its two ends."""

    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether the value lies outside."""
        return not self.low <= value <= self.high


class TTest(NamedTuple):
    """A difference of means, its standard error, degrees of freedom and two-sided p-value."""

    difference: float
    error: float
    df: float
    p: float

    def interval(self, confidence: float = 0.95) -> Interval | None:
        """Two-sided interval of the difference; None where the samples show no spread to measure it by."""
        return t_interval(self.difference, self.error, self.df, confidence)


def interquartile_mean(values: ArrayLike, axis: int = -1) -> Array | float:
    """Average the middle half of the sorted values.

    A quarter of the weight is cut from each end; a value that the cut goes through counts by what is left of it, so
    that the result is defined for any number of values and equals the 25 % trimmed mean when four divides it.

    :param values: at least one value along ``axis``
    :returns: the values' shape without ``axis``
    :raises ValueError: when there is no value
    Source: Agarwal et al. 2021 (arXiv:2108.13264), sec. 4.3.
    """
    ordered = np.sort(np.asarray(values, dtype=float), axis=axis)
    count = ordered.shape[axis]
    if count == 0:
        raise ValueError("interquartile mean of no values; expected at least one")
    ranks = np.arange(count)
    weights = np.clip(np.minimum(ranks + 1, 0.75 * count) - np.maximum(ranks, 0.25 * count), 0, None)
    mean = np.moveaxis(ordered, axis, -1) @ (weights / weights.sum())
    return float(mean) if np.ndim(mean) == 0 else mean


def bootstrap_interval(
    strata: Sequence[ArrayLike],
    statistic: Callable[..., Array],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Expanded percentile interval of a statistic, every stratum resampled with replacement on its own.

    The plain percentile interval of n values is too narrow by sqrt((n - 1) / n) and by the difference between the
    normal and Student's distribution; the percentiles are moved outwards to make up for both. With three values or
    fewer it therefore reaches from one end of what resampling can give to the other.

    :param strata: one sample of values per stratum
    :param statistic: gets one [resamples, n] array per stratum, returns [resamples]
    :param seed: of the resampling
    :raises ValueError: when a stratum is empty, or none has two values
    Source: Hesterberg 2015 (The American Statistician 69:4), sec. 3.3 "expanded percentile"; for several strata with
    the smallest n in the factor and the degrees of freedom summed.
    """
    generator = np.random.default_rng(seed)
    samples = [np.asarray(stratum, dtype=float) for stratum in strata]
    for index, values in enumerate(samples):
        if values.size == 0:
            raise ValueError(f"stratum {index} is empty; expected at least one value")
    tails = _expanded_tails([values.size for values in samples], confidence)
    drawn = [values[generator.integers(values.size, size=(resamples, values.size))] for values in samples]
    low, high = np.quantile(statistic(*drawn), tails)
    return Interval(float(low), float(high))


def one_sample(values: ArrayLike) -> TTest:
    """Test a mean against zero.

    Without spread the p-value is that of the exact sign-flip test, 2 / 2^n.

    :raises ValueError: for fewer than two values
    """
    values = _sample(values, "sample")
    mean = float(values.mean())
    if _constant(values):
        p = 1.0 if mean == 0 else min(1.0, 2.0 ** (1 - values.size))
        return TTest(mean, 0.0, math.nan, p)
    error = float(values.std(ddof=1) / math.sqrt(values.size))
    return TTest(mean, error, values.size - 1.0, _two_sided(mean / error, values.size - 1.0))


def pooled_variance(samples: Sequence[ArrayLike]) -> tuple[float, int]:
    """Variance within samples, common to all of them, and its degrees of freedom: values minus samples.

    :returns: nan and 0 where no sample has two values
    """
    filled = [a for a in (np.asarray(sample, dtype=float) for sample in samples) if a.size]
    df = sum(a.size - 1 for a in filled)
    squares = sum(float(((a - a.mean()) ** 2).sum()) for a in filled)
    return (squares / df if df else math.nan), df


def pooled_intervals(samples: Sequence[ArrayLike], confidence: float = 0.95) -> list[Interval | None]:
    """Interval of each sample's mean from the spread common to all of them.

    The variance of :func:`pooled_variance` lends a sample of two the experience of its neighbours. It assumes that
    they scatter alike.

    :returns: one interval per sample; None for empty samples, and for all when nothing shows any spread
    """
    arrays = [np.asarray(sample, dtype=float) for sample in samples]
    variance, df = pooled_variance(arrays)
    if not variance > 0:
        return [None] * len(arrays)
    spread = math.sqrt(variance)
    return [t_interval(a.mean(), spread / math.sqrt(a.size), df, confidence) if a.size else None for a in arrays]


def t_interval(mean: float, error: float, df: float, confidence: float = 0.95) -> Interval | None:
    """Two-sided Student interval; None when the standard error is zero or unknown."""
    if not error > 0:
        return None
    reach = float(stdtrit(df, _tails(confidence)[1])) * error
    return Interval(float(mean) - reach, float(mean) + reach)


def cohens_d(treatment: ArrayLike, control: ArrayLike) -> float:
    """Difference of means in pooled standard deviations; infinite when there is a difference but no spread.

    :raises ValueError: for fewer than two values in a sample
    Source: Cohen 1988, sec. 2.5.2.
    """
    a, b = _sample(treatment, "treatment"), _sample(control, "control")
    difference = float(a.mean() - b.mean())
    if _constant(a) and _constant(b):
        return 0.0 if _constant(np.concatenate([a, b])) else math.copysign(math.inf, difference)
    pooled = ((a.size - 1) * a.var(ddof=1) + (b.size - 1) * b.var(ddof=1)) / (a.size + b.size - 2)
    return difference / math.sqrt(pooled)


def probability_of_improvement(
    treatment: ArrayLike,
    control: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, Interval | None]:
    """Probability that a treated run beats a control run, ties counting half, with a stratified bootstrap interval.

    :returns: probability and interval; None where all pairs agree, since resampling them then shows no spread
    Source: Agarwal et al. 2021 (arXiv:2108.13264), sec. 4.3; the Mann-Whitney statistic over n m.
    """
    a, b = np.asarray(treatment, dtype=float), np.asarray(control, dtype=float)
    if not a.size or not b.size:
        raise ValueError(f"samples of {a.size} and {b.size} values; expected at least one in each")
    wins = (a[:, None] > b[None, :]) + 0.5 * (a[:, None] == b[None, :])  # [n, m]
    if np.ptp(wins) == 0:
        return float(wins.mean()), None
    generator = np.random.default_rng(seed)
    times_a = generator.multinomial(a.size, np.full(a.size, 1 / a.size), size=resamples)  # how often each was drawn
    times_b = generator.multinomial(b.size, np.full(b.size, 1 / b.size), size=resamples)
    drawn = ((times_a @ wins) * times_b).sum(axis=1) / wins.size
    low, high = np.quantile(drawn, _expanded_tails(wins.shape, confidence))
    return float(wins.mean()), Interval(float(low), float(high))


def _two_sided(t: float, df: float) -> float:
    return float(2 * stdtr(df, -abs(t)))


def _tails(confidence: float) -> tuple[float, float]:
    return (1 - confidence) / 2, (1 + confidence) / 2


def _expanded_tails(sizes: Sequence[int], confidence: float) -> tuple[float, float]:
    counted = [size for size in sizes if size > 1]
    if not counted:
        raise ValueError("every stratum has one value; expected one with two or more, to measure spread by")
    student = float(stdtrit(sum(counted) - len(counted), _tails(confidence)[1]))
    tail = float(ndtr(-student * math.sqrt(min(counted) / (min(counted) - 1))))
    return tail, 1 - tail


def _constant(values: Array) -> bool:
    """Whether the values are equal up to the rounding of a float."""
    return bool(np.ptp(values) <= 1e-12 * max(1e-300, float(np.abs(values).max())))


def _sample(values: ArrayLike, name: str) -> Array:
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or sample.size < 2:
        raise ValueError(f"{name} has shape {list(sample.shape)}; expected one dimension with at least two values")
    return sample
