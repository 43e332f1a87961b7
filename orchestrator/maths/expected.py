"""How many trials a design that adds seeds look by look is expected to take, for seeds that scatter normally."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.maths.sequential import Course, bounds
from orchestrator.maths.verdict import both_sides, shrunken

_DRAWS = 1_000
_SEED = 20252


def expected_trials(
    looks: Sequence[int],
    effects: Sequence[float],
    deviation: float,
    *,
    margin: float | None = None,
    confidence: float = 0.95,
    spread: float = 0.0,
    best: bool = False,
) -> float:
    """Mean number of trials of all arms together; to within a few per cent.

    Bounds are those of arms that all go on to the end, which arms that stopped early move a little.

    :param looks: seeds of an undecided arm at each look
    :param effects: [A] true differences, the baseline's first
    :param deviation: standard deviation over seeds
    :param spread: standard deviation of the logarithm of the arms' spreads
    :param best: a race to the best, in place of comparisons with the baseline
    """
    generator = np.random.default_rng(_SEED)
    arms, most = len(effects), looks[-1]
    scatter = deviation * np.exp(spread * generator.normal(size=(_DRAWS, arms, 1)) - spread**2)
    rows = np.array(effects)[:, None] + scatter * generator.normal(size=(_DRAWS, arms, most))
    course = Course(counts=tuple((n,) * arms for n in looks), shares=tuple(n / most for n in looks))
    bars = bounds(course, confidence, one_sided=best)
    within = bounds(course, both_sides(confidence), [1])
    live, seeds = np.ones((_DRAWS, arms), dtype=bool), np.zeros((_DRAWS, arms), dtype=int)
    going: np.ndarray = np.ones((_DRAWS, 1), dtype=bool)
    means, variances = np.zeros((2, _DRAWS, arms))
    for n, bar, width in zip(looks, bars, within, strict=True):
        on = live & going
        on[:, 0] |= going[:, 0] & (not best)
        seeds = np.where(on, n, seeds)
        means = np.where(on, rows[..., :n].mean(-1), means)
        variances = np.where(on, rows[..., :n].var(-1, ddof=1), variances)
        share = shrunken(variances, [n] * arms) / seeds
        if best:
            standing = np.where(live, means, -np.inf)
            front = standing.argmax(1)[:, None]
            gap = np.take_along_axis(means, front, 1) - means
            error = np.sqrt(share + np.take_along_axis(share, front, 1))
            live &= ~(gap > bar * error)
            reach = np.where(live, gap + bar * error, -np.inf).max(1, keepdims=True)
            going = (live.sum(1, keepdims=True) > 1) & ~(reach < (margin or 0.0))
        else:
            gap, error = np.abs(means - means[:, :1]), np.sqrt(share + share[:, :1])
            live &= ~((gap > bar * error) | (gap + width * error < (margin or 0.0)))
            live[:, 0] = False
            going = np.asarray(live.any(axis=1))[:, None]
    return float(seeds.sum(1).mean())
