r"""The verdict's rule, looked at more than once: bounds that spend one error over several looks, and races to the best.

A design declares beforehand after how many seeds it looks. At each look the rule of :mod:`orchestrator.maths.verdict`
is applied with a wider bound: over all looks together, the furthest of equal arms exceeds the bounds in no more than
1 minus the confidence of draws. How much of that a look may have spent follows from its share t of the most seeds,

.. math:: \alpha(t) = \alpha \ln(1 + (e - 1) t),

so that bounds depend on the looks really made and on the seeds really there, never on looks to come. The draws are those
of the fixed rule, whose bound one look at t = 1 gives to the bit; later looks add seeds to the arms drawn.

Arms named at a look leave the family, and those left are judged by the bounds they would have had alone, at all looks.
Arms found equivalent stay in it, so that no error is bought back. Equivalence is two one-sided tests with bounds of the
same kind, for each arm alone. In a race every arm is tested against being the best: an arm falls behind when another
exceeds it by more than the furthest of equal arms, one-sided, exceeds any one of them. The same event bounds how far the
best can be above an arm, which makes ties within the margin at no further cost in error.

Spending: Lan and DeMets 1983 with the function in the manner of Pocock 1977. Comparisons with the best: Hsu 1981.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from orchestrator.maths.verdict import DRAWS, PRIOR, SEED, SPREAD, distances, shrunken

Array: TypeAlias = np.ndarray
_Path: TypeAlias = tuple[int, ...]  # an arm's seeds, look by look


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The looks made so far."""

    counts: tuple[tuple[int, ...], ...]  # by look: seeds of every arm; fewer than two: not there yet
    shares: tuple[float, ...]  # by look: of the most seeds, in (0, 1], rising

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip((0.0, *self.shares), self.shares, strict=False))
        if len(self.counts) != len(self.shares) or not self.counts or not rising or self.shares[-1] > 1 + 1e-12:
            raise ValueError(f"looks at shares {self.shares}, {len(self.counts)} of counts; expected them to rise to 1")

    @property
    def paths(self) -> tuple[_Path, ...]:
        """Seeds of every arm, look by look; an arm that lost some counts as if it had kept them."""
        return tuple(tuple(np.maximum.accumulate(path).tolist()) for path in zip(*self.counts, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Looked:
    """What one look says of k arms against the first; arrays [..., k]."""

    difference: Array  # nan for an arm that is not there yet
    error: Array
    named: Array  # int: 1 above the baseline, -1 below it, 0 neither; of arms that were open
    equivalent: Array  # bool
    bound: float  # distance, in errors, from which the furthest arm is named
    bounds: Array  # by arm: the distance its simultaneous interval reaches
    margins: Array  # by arm: the distance of the interval that is held against the margin


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Raced:
    """What one look says of A arms that race; arrays [..., A]."""

    behind: Array  # bool: another arm is better
    tied: Array  # bool: within the margin of the best, whichever that is; of arms not behind
    reach: Array  # how far the best may be above the arm: an upper bound; nan for an arm that is not there
    leader: Array  # int []: the furthest up of those not behind
    bounds: Array  # by arm: the distance at which another puts it behind


def spent(share: float, confidence: float = 0.95) -> float:
    """Error that looks up to this share of the most seeds have spent."""
    return (1 - confidence) * math.log1p((math.e - 1) * min(1.0, share))


def bounds(
    course: Course,
    confidence: float = 0.95,
    left: Collection[int] | None = None,
    *,
    control: int = 0,
    one_sided: bool = False,
) -> Array:
    """Distances from the control beyond which chance takes the furthest arm at each look: [looks], inf where it has no error left.

    :param left: columns of ``course.counts`` among which the furthest is sought; None: all but the control
    :param one_sided: only arms above the control count
    :raises ValueError: ``left`` is no part of the arms
    """
    paths = course.paths
    others = [arm for arm in range(len(paths)) if arm != control]
    among = others if left is None else sorted(left)
    if not among or not set(among) <= set(others):
        raise ValueError(f"arms {among} left of {others}")
    made = _bounds(
        paths[control],
        tuple(sorted(paths[arm] for arm in others)),
        tuple(sorted(paths[arm] for arm in among)),
        course.shares,
        float(confidence),
        one_sided,
    )
    return np.array(made)


def look(
    means: ArrayLike,
    variances: ArrayLike,
    course: Course,
    *,
    open_arms: Collection[int] | None = None,
    named_before: Collection[int] = (),
    confidence: float = 0.95,
    margin: float | None = None,
) -> Looked:
    """Make the last look of a course.

    :param means: [..., A] the baseline first; of arms with fewer than two seeds any number
    :param variances: [..., A] unbiased
    :param open_arms: columns of arms not decided at earlier looks; None: all
    :param named_before: columns of arms that earlier looks named
    :param margin: differences smaller than this do not matter; None: nothing is equivalent
    """
    m, v = np.asarray(means, dtype=float), np.asarray(variances, dtype=float)
    counts = [path[-1] for path in course.paths]
    there = _there(counts)
    shape = (*m.shape[:-1], m.shape[-1] - 1)
    difference, error, ratio = (np.full(shape, np.nan) for _ in range(3))
    if 0 in there and len(there) > 1:
        present = [arm - 1 for arm in there[1:]]
        found = distances(m[..., there], v[..., there], [counts[arm] for arm in there])
        difference[..., present], error[..., present], ratio[..., present] = found
    family = [arm for arm in range(1, m.shape[-1]) if arm not in set(named_before)]
    undecided = [arm for arm in (family if open_arms is None else sorted(open_arms)) if arm in family]
    size = np.abs(np.nan_to_num(ratio)).reshape(-1, shape[-1])
    named = np.zeros(size.shape, dtype=bool)
    whole = float(bounds(course, confidence, family)[-1]) if family else math.inf
    for row in range(len(size)):
        named[row, [arm - 1 for arm in _step_down(size[row], course, confidence, family, undecided)]] = True
    reach = np.full(shape[-1], whole)
    within = np.full(shape[-1], np.inf)
    equivalent = np.zeros(shape, dtype=bool)
    side = np.where(named.reshape(shape), np.sign(np.nan_to_num(difference)), 0).astype(int)
    if margin is not None:
        for arm in undecided:
            within[arm - 1] = bounds(course, max(0.0, 1 - 2 * (1 - confidence)), [arm])[-1]
        with np.errstate(invalid="ignore"):
            inside = (error > 0) & (np.abs(difference) + within * error < margin)
        equivalent = inside & (side == 0)
    return Looked(
        difference=difference,
        error=error,
        named=side,
        equivalent=equivalent,
        bound=whole,
        bounds=reach,
        margins=within,
    )


def race(
    means: ArrayLike,
    variances: ArrayLike,
    course: Course,
    *,
    live: Collection[int] | None = None,
    confidence: float = 0.95,
    margin: float | None = None,
) -> Raced:
    """Make the last look of a race; more is better.

    :param means: [..., A]
    :param variances: [..., A] unbiased
    :param live: columns of arms that have not fallen behind at earlier looks; None: all
    :param margin: an arm no further than this below the best is tied with it; None: no arm is tied
    """
    m, v = np.asarray(means, dtype=float), np.asarray(variances, dtype=float)
    counts = [path[-1] for path in course.paths]
    there = _there(counts)
    running = [arm for arm in (range(len(counts)) if live is None else sorted(live)) if arm in there]
    width = np.full(len(counts), np.inf)
    behind, tied = np.zeros(m.shape, dtype=bool), np.zeros(m.shape, dtype=bool)
    reach = np.full(m.shape, np.nan)
    if len(running) < 2:
        leader = np.full(m.shape[:-1], running[0] if running else 0)
        return Raced(behind=behind, tied=tied, reach=reach, leader=leader, bounds=width)
    for arm in running:
        width[arm] = bounds(course, confidence, control=arm, one_sided=True)[-1]
    spread = np.zeros(m.shape)
    spread[..., there] = shrunken(v[..., there], [counts[arm] for arm in there])
    share = spread / np.maximum(1, counts)
    mine, theirs = m[..., running], m[..., running]
    gap = theirs[..., None, :] - mine[..., :, None]  # [..., arm, other]: how far the other is above it
    error = np.sqrt(share[..., running][..., None, :] + share[..., running][..., :, None])
    known = (error > 0) & ~np.eye(len(running), dtype=bool)
    beats = known & (gap > width[running][:, None] * error)
    behind[..., running] = beats.any(axis=-1)
    above = np.where(known, gap + width[running] * error, -np.inf)  # of those that may yet be the best
    above = np.where(behind[..., running][..., None, :], -np.inf, above)
    reach[..., running] = np.maximum(0.0, above.max(axis=-1))
    if margin is not None:
        tied[..., running] = ~behind[..., running] & known.any(axis=-1) & (reach[..., running] < margin)
    standing = np.where(behind[..., running], -np.inf, mine)
    leader = np.asarray(running)[standing.argmax(axis=-1)]
    return Raced(behind=behind, tied=tied, reach=reach, leader=leader, bounds=width)


def _there(counts: Sequence[int]) -> list[int]:
    return [arm for arm, count in enumerate(counts) if count > 1]


def _step_down(
    size: Array, course: Course, confidence: float, family: Sequence[int], undecided: Sequence[int]
) -> list[int]:
    """Arms named at the last look, the furthest first, each by the bound of those left and none by a wider one."""
    left, named, bar = list(family), [], math.inf
    for arm in sorted(undecided, key=lambda arm: -size[arm - 1]):
        bar = min(bar, float(bounds(course, confidence, left)[-1]))
        if not size[arm - 1] > bar:
            break
        named.append(arm)
        left.remove(arm)
    return named


@lru_cache(maxsize=4096)
def _bounds(
    control: _Path,
    arms: tuple[_Path, ...],
    among: tuple[_Path, ...],
    shares: tuple[float, ...],
    confidence: float,
    one_sided: bool,
) -> tuple[float, ...]:
    columns: list[int] = []
    for path in sorted(set(among)):  # arms of equal paths share their draws, whatever their order
        first = arms.index(path)
        columns += range(first, first + among.count(path))
    drawn = _equal_arms(control, arms)[:, :, columns]
    tops = (drawn if one_sided else np.where(np.isfinite(drawn), np.abs(drawn), -np.inf)).max(axis=2)
    alive, gone, made = np.ones(DRAWS, dtype=bool), 0, []
    for top, share in zip(tops, shares, strict=True):
        allowed = max(1, math.ceil(spent(share, confidence) * (DRAWS + 1) - 1e-9) - 1)
        new = allowed - gone
        left = np.sort(top[alive])
        if new < 1 or not np.isfinite(left[-new]):
            made.append(math.inf)
            continue
        made.append(float(left[-new]))
        crossed = alive & (top >= made[-1])
        gone += int(crossed.sum())
        alive &= ~crossed
    return tuple(made)


@lru_cache(maxsize=2)
def _equal_arms(control: _Path, arms: tuple[_Path, ...]) -> Array:
    """Distances from the control of arms that differ in nothing but their spread: [looks, DRAWS, k]; -inf: not there."""
    generator = np.random.default_rng(SEED)
    paths = np.array((control, *arms)).T  # [looks, A]
    size = (DRAWS, paths.shape[1])
    sigma = np.exp(SPREAD * generator.normal(size=size))
    means, squares = np.zeros(size), np.zeros(size)
    before = np.zeros(paths.shape[1], dtype=int)
    found = np.full((len(paths), DRAWS, len(arms)), -np.inf)
    for index, wanted in enumerate(paths):
        now = np.where(wanted > 1, wanted, 0)
        new = np.maximum(0, now - before)
        drawn = sigma * generator.normal(size=size) / np.sqrt(np.maximum(1, new))
        inside = sigma**2 * generator.chisquare(np.maximum(1, new - 1), size=size) * (new > 1)
        both = np.maximum(1, now)
        squares += inside + (drawn - means) ** 2 * (before * new / both)
        means += (drawn - means) * (new / both)
        before = now
        there = _there(now.tolist())
        if 0 in there and len(there) > 1:
            variances = squares[:, there] / (now[there] - 1)
            ratio = distances(means[:, there], variances, now[there].tolist(), PRIOR)[2]
            found[index][:, [arm - 1 for arm in there[1:]]] = ratio
    found.flags.writeable = False
    return found
