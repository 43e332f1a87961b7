r"""The rule behind every verdict, as functions of numbers: which of k arms differ from the baseline, and which do not.

The rule, fixed beforehand and the same for two arms and for sixteen. A seed counts by the mean of its curve over the
last fifth of the common cost. An arm's variance over its seeds is drawn towards the variance common to all arms, as if
that were known from four more seeds; the arm's distance from the baseline is the difference of the two means in units
of the standard error these variances give. The arm is named better or worse when the distance is larger than chance
allows to the furthest of all arms: larger than all but 5 % (1 minus the confidence) of the largest distances of arms
that differ in nothing but how widely their seeds scatter, drawn once for a design, with log-normal spreads. Then the
arms not yet named are judged among themselves, and so on down. An arm that is not named is equivalent when two
one-sided tests under the same correction, single-step, put its difference within the margin declared beforehand.
Everything else is undecided; so is an arm of fewer than two seeds, and every arm where no seed differs from another.

How often the rule errs and what it finds is measured by ``benchmarks/calibration.py``. Shrinking variances towards a
common one: Smyth 2004 (Statistical Applications in Genetics and Molecular Biology 3:1), with the prior's weight fixed
here. The largest of many distances, step by step: Dunnett 1955 and Dunnett and Tamhane 1991 are the limit of an
infinite prior and equal spreads; Welch 1947 that of no prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

Array: TypeAlias = np.ndarray

WINDOW = 0.2  # share of the common cost, at its end, over which curves are averaged
PRIOR = 4.0  # degrees of freedom that the common variance counts for
SPREAD = 0.5  # standard deviation of the logarithm of arms' spreads, for which the rule is made
DRAWS = 40_000  # of the chance distribution; error rates are exact to 0.1 points at 5 %
SEED = 20250  # of the draws: the same design has the same bounds everywhere


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Findings:
    """What the rule says of k arms; all fields [..., k], the arms in their order after the baseline."""

    difference: Array  # mean of the arm minus mean of the baseline
    error: Array  # standard error of the difference
    distance: Array  # difference / error; nan where no seed differs from another
    p: Array  # chance of such a distance for this arm alone
    p_adjusted: Array  # chance of such a distance for the furthest arm of those left; named when below 1 - confidence
    low: Array  # simultaneous interval of the difference; nan without spread
    high: Array
    named: Array  # int: 1 above the baseline, -1 below it, 0 neither
    equivalent: Array  # bool: not named, and within the margin


def window_mean(costs: ArrayLike, values: ArrayLike, low: float, high: float) -> float:
    """Average a curve over a stretch of its cost, exactly: linear between measurements, held beyond its ends.

    :param costs: [n], not falling
    :param values: [n]
    :param low: start of the stretch; at ``high`` or beyond it, the value at ``high`` is returned
    """
    x, y = np.asarray(costs, dtype=float), np.asarray(values, dtype=float)
    if not low < high:
        return float(np.interp(high, x, y))
    inside = (low < x) & (x < high)
    places = np.concatenate([[low], x[inside], [high]])
    heights = np.concatenate([[np.interp(low, x, y)], y[inside], [np.interp(high, x, y)]])
    return float(np.trapezoid(heights, places) / (high - low))


def window_weights(costs: ArrayLike, low: float, high: float) -> Array:
    """Weight of every measurement in :func:`window_mean`, which is linear in them: [n], sum 1."""
    size = np.asarray(costs).size
    return np.array([window_mean(costs, unit, low, high) for unit in np.eye(size)])


def shrunken(variances: ArrayLike, counts: Sequence[int], prior: float = PRIOR) -> Array:
    r"""Variances drawn towards their common one.

    .. math:: V = \sum_a (n_a - 1) v_a / \sum_a (n_a - 1), \qquad s_a = (d V + (n_a - 1) v_a) / (d + n_a - 1)

    :param variances: [..., A] unbiased, of each arm over its seeds
    :param counts: [A] seeds, at least two each
    :param prior: d, degrees of freedom of the common variance; 0 leaves the variances, infinity makes them equal
    """
    v, freedom = np.asarray(variances, dtype=float), np.asarray(counts, dtype=float) - 1
    common = (freedom * v).sum(-1, keepdims=True) / freedom.sum()
    if np.isinf(prior):
        return np.broadcast_to(common, v.shape)
    return (prior * common + freedom * v) / (prior + freedom)


def distances(
    means: ArrayLike, variances: ArrayLike, counts: Sequence[int], prior: float = PRIOR
) -> tuple[Array, Array, Array]:
    """Difference of every arm from the first, its standard error, and their ratio; [..., k] each.

    The ratio is nan where the error is 0.

    :param means: [..., A], the baseline first
    :param variances: [..., A] unbiased
    :param counts: [A] seeds
    """
    m = np.asarray(means, dtype=float)
    share = shrunken(variances, counts, prior) / np.asarray(counts, dtype=float)
    difference, error = m[..., 1:] - m[..., :1], np.sqrt(share[..., 1:] + share[..., :1])
    ratio = np.full(difference.shape, np.nan)
    np.divide(difference, error, out=ratio, where=error > 0)
    return difference, error, ratio


def chance(
    counts: Sequence[int], left: Sequence[int] | None = None, *, prior: float = PRIOR, spread: float = SPREAD
) -> Array:
    """How far the furthest of some equal arms comes by chance: [DRAWS] sorted, a constant of the design.

    :param counts: seeds of the baseline, then of every arm compared with it
    :param left: seeds of the arms among which the furthest is sought, a part of ``counts[1:]``; None: all
    :param spread: standard deviation of the logarithm of the arms' spreads
    :raises ValueError: fewer than two seeds somewhere, or ``left`` is no part of the arms
    """
    arms = tuple(sorted(int(count) for count in counts[1:]))
    among = arms if left is None else tuple(sorted(int(count) for count in left))
    return _chance(int(counts[0]), arms, among, float(prior), float(spread))


def bound(
    counts: Sequence[int],
    confidence: float = 0.95,
    left: Sequence[int] | None = None,
    *,
    prior: float = PRIOR,
    spread: float = SPREAD,
) -> float:
    """The distance that chance exceeds in a share of 1 - ``confidence`` of draws, see :func:`chance`."""
    tops = chance(counts, left, prior=prior, spread=spread)
    beyond = max(1, int(np.ceil((1 - confidence) * (tops.size + 1) - 1e-9)) - 1)
    return float(tops[-beyond])


def both_sides(confidence: float) -> float:
    """Confidence of the interval that two one-sided tests, each at this confidence, look at: 0.90 for 0.95."""
    return max(0.0, 1 - 2 * (1 - confidence))


def adjusted_p(ratio: ArrayLike, counts: Sequence[int], *, prior: float = PRIOR, spread: float = SPREAD) -> Array:
    """Chance of every arm's distance, for being one of several, step by step downwards.

    The furthest arm is held against the furthest of all by chance, the next against the furthest of those left, and
    none is more certain than the one before it. nan counts as no distance.

    :param ratio: [..., k] distances
    :param counts: seeds of the baseline, then of every arm
    :returns: [..., k] in (0, 1]
    Source: Westfall and Young 1993, algorithm 2.8, with one added to the counts of draws (Phipson and Smyth 2010).
    """
    shape = np.shape(ratio)
    size = np.abs(np.nan_to_num(np.asarray(ratio, dtype=float))).reshape(-1, shape[-1])  # [rows, k]
    order = np.argsort(-size, axis=1, kind="stable")
    ordered = np.take_along_axis(size, order, axis=1)
    seeds = np.asarray(counts[1:])[order]
    stepped = np.empty_like(ordered)
    for step in range(shape[-1]):
        parts, member = np.unique(np.sort(seeds[:, step:], axis=1), axis=0, return_inverse=True)
        member = member.reshape(-1)
        for index, part in enumerate(parts):
            rows = member == index
            stepped[rows, step] = _share(chance(counts, part, prior=prior, spread=spread), ordered[rows, step])
    result = np.empty_like(stepped)
    np.put_along_axis(result, order, np.maximum.accumulate(stepped, axis=1), axis=1)
    return result.reshape(shape)


def decide(
    means: ArrayLike,
    variances: ArrayLike,
    counts: Sequence[int],
    *,
    confidence: float = 0.95,
    margin: float | None = None,
    prior: float = PRIOR,
    spread: float = SPREAD,
) -> Findings:
    """Apply the rule of this module.

    The simultaneous interval of an arm that only the later steps name is cut at zero: its sign is known, how far from
    zero it stays is not. An arm is equivalent when its interval at :func:`both_sides` of the confidence, just as
    simultaneous, lies within the margin.

    :param means: [..., A] means over seeds of what each seed counts by, the baseline first
    :param variances: [..., A] unbiased, over seeds
    :param counts: [A] seeds, at least two each
    :param margin: differences smaller than this do not matter, in the metric's units; None: nothing is equivalent
    :raises ValueError: fewer than two seeds in an arm
    """
    difference, error, ratio = distances(means, variances, counts, prior)
    known = error > 0
    p = np.stack(
        [
            _share(chance(counts, [n], prior=prior, spread=spread), np.abs(np.nan_to_num(ratio[..., arm])))
            for arm, n in enumerate(counts[1:])
        ],
        axis=-1,
    )
    adjusted = np.where(known, adjusted_p(ratio, counts, prior=prior, spread=spread), 1.0)
    named = np.where(adjusted < 1 - confidence, np.sign(difference), 0).astype(int)
    reach = np.where(known, bound(counts, confidence, prior=prior, spread=spread) * error, np.nan)
    low, high = difference - reach, difference + reach
    equivalent = np.zeros(named.shape, dtype=bool)
    if margin is not None:
        within = bound(counts, both_sides(confidence), prior=prior, spread=spread) * error
        equivalent = known & (named == 0) & (np.abs(difference) + within < margin)
    return Findings(
        difference=difference,
        error=error,
        distance=ratio,
        p=np.where(known, p, 1.0),
        p_adjusted=adjusted,
        low=np.where(named > 0, np.maximum(low, 0.0), low),
        high=np.where(named < 0, np.minimum(high, 0.0), high),
        named=named,
        equivalent=equivalent,
    )


def moments(samples: Sequence[ArrayLike]) -> tuple[Array, Array, tuple[int, ...]]:
    """Means and unbiased variances of samples, [A] each, and their sizes; a spread within rounding counts as none.

    :raises ValueError: a sample of fewer than two values
    """
    arrays = [np.asarray(sample, dtype=float) for sample in samples]
    for place, values in enumerate(arrays):
        if values.ndim != 1 or values.size < 2:
            raise ValueError(f"sample {place} has shape {list(values.shape)}; expected at least two values in a row")
    rounding = [1e-12 * float(np.abs(values).max()) for values in arrays]
    spreads = [0.0 if np.ptp(v) <= r else float(v.var(ddof=1)) for v, r in zip(arrays, rounding, strict=True)]
    return np.array([v.mean() for v in arrays]), np.array(spreads), tuple(v.size for v in arrays)


def _share(tops: Array, distance: ArrayLike) -> Array:
    """Share of draws at least as far, the distance itself counted among them."""
    return (1 + tops.size - np.searchsorted(tops, distance, side="left")) / (1 + tops.size)


@lru_cache(maxsize=256)
def _chance(baseline: int, arms: tuple[int, ...], among: tuple[int, ...], prior: float, spread: float) -> Array:
    if min(baseline, *arms) < 2:
        raise ValueError(f"designs of {baseline} and {', '.join(map(str, arms))} seeds; expected at least two each")
    columns: list[int] = []
    for count in sorted(set(among)):  # arms of equally many seeds share their draws, whatever their order
        first, wanted = arms.index(count) if count in arms else 0, among.count(count)
        if wanted > arms.count(count):
            raise ValueError(f"{wanted} arms of {count} seeds left of {arms.count(count)}")
        columns += range(first, first + wanted)
    tops = np.sort(_equal_arms(baseline, arms, prior, spread)[:, np.array(columns)].max(axis=1))
    tops.flags.writeable = False
    return tops


@lru_cache(maxsize=8)
def _equal_arms(baseline: int, arms: tuple[int, ...], prior: float, spread: float) -> Array:
    """Distances of arms that differ from the baseline in nothing but their spread: [DRAWS, k]."""
    generator = np.random.default_rng(SEED)
    counts = np.array((baseline, *arms))
    size = (DRAWS, counts.size)
    sigma = np.exp(spread * generator.normal(size=size))
    means = sigma * generator.normal(size=size) / np.sqrt(counts)
    variances = sigma**2 * generator.chisquare(counts - 1, size=size) / (counts - 1)
    return np.abs(distances(means, variances, (baseline, *arms), prior)[2])
