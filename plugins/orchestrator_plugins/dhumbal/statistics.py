"""Statistics of tournaments: those the study reports, and a bootstrap that respects how rounds were paired.

The study tests series of single rounds as if they were independent. They are not (one seat's win is the others' loss),
so its p values are approximate; the bootstrap resamples whole deals, each played in every seating.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class WelchTest(NamedTuple):
    """Welch's t, its degrees of freedom and the two-sided p value."""

    t: float
    df: float
    p: float


class Difference(NamedTuple):
    """A mean difference with its interval, and how often resamples were above zero."""

    mean: float
    low: float
    high: float
    above: float


def half_width(share: float, count: int) -> float:
    """Half of the normal 95 % interval of a share: ``1.96 sqrt(p (1 - p) / n)``.

    :param share: in [0, 1]
    """
    return 1.96 * math.sqrt(share * (1 - share) / count)


def welch(x: ArrayLike, y: ArrayLike) -> WelchTest:
    """Compare two means without assuming equal variances.

    :raises ValueError: for fewer than two values on a side
    :returns: nan where neither side varies
    """
    from scipy.special import stdtr

    x, y = _two(x, y)
    a, b = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
    if a + b == 0:
        return WelchTest(math.nan, math.nan, math.nan)
    t = (x.mean() - y.mean()) / math.sqrt(a + b)
    df = (a + b) ** 2 / (a**2 / (len(x) - 1) + b**2 / (len(y) - 1))
    return WelchTest(float(t), float(df), float(2 * stdtr(df, -abs(t))))


def cohens_d(x: ArrayLike, y: ArrayLike, *, released: bool = False) -> float:
    """Difference of means over the pooled standard deviation; 0 where nothing varies.

    :param released: pool population variances (divided by n), as the released code does, instead of sample ones
    :raises ValueError: for fewer than two values on a side
    """
    x, y = _two(x, y)
    ddof = 0 if released else 1
    weighted = (len(x) - 1) * x.var(ddof=ddof) + (len(y) - 1) * y.var(ddof=ddof)
    spread = math.sqrt(weighted / (len(x) + len(y) - 2))
    return float((x.mean() - y.mean()) / spread) if spread else 0.0


def correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Pearson's correlation; None for fewer than two pairs or a side that does not vary."""
    if len(x) < 2 or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def paired_bootstrap(
    x: ArrayLike, y: ArrayLike, *, resamples: int = 5_000, confidence: float = 0.95, seed: int = 0
) -> Difference:
    """Bootstrap the mean of ``x - y`` over blocks.

    :param x: one mean per block (a deal in all its seatings), paired with ``y``
    :returns: the percentile interval
    :raises ValueError: for fewer than two blocks, or lengths that differ
    """
    x, y = _two(x, y)
    if len(x) != len(y):
        raise ValueError(f"{len(x)} and {len(y)} blocks cannot be paired")
    differences = x - y
    rng, count = np.random.default_rng(seed), len(differences)
    means = np.concatenate(
        [differences[rng.integers(count, size=(size, count))].mean(axis=1) for size in _batches(resamples, 250)]
    )
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    above = float(np.mean(means > 0) + np.mean(means == 0) / 2)
    return Difference(float(differences.mean()), float(low), float(high), above)


def _batches(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]


def _two(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(x) < 2 or len(y) < 2:
        raise ValueError(f"{len(x)} and {len(y)} values; a comparison needs at least two on each side")
    return x, y
