"""What the stress test measures, and what would refute the paper's headline at a small scale. Numbers in, verdicts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr

DROP = 0.2  # a collapse: success this far, absolutely, below its maximum so far ...
STAY = 10  # ... for so many iterations
LAST = 5  # final success is the mean over so many iterations
WINDOW = 15  # iterations before a collapse over which ‖C‖ is watched
MANY, FEW = 0.6, 0.2  # shares of seeds: 3 of 5 collapse, 1 of 5 does


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One trial, iteration by iteration; nan where something was not measured."""

    seed: int
    success: np.ndarray  # of the policy that sampled
    clipped_tokens: np.ndarray  # share of tokens without gradient
    clipped_turns: np.ndarray  # share of turns with such a token
    clipped_norm: np.ndarray  # ‖C‖, mean over the iteration's optimiser steps
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)  # metrics that are only tabulated

    @property
    def final(self) -> float:
        """Success over the last iterations."""
        return float(np.nanmean(self.success[-LAST:]))

    @property
    def collapsed_at(self) -> int | None:
        """Index of the iteration from which success stays low; see :func:`collapse`."""
        return collapse(self.success)

    @property
    def is_down(self) -> bool:
        """Whether success was low throughout the last iterations, yet not for long enough to be called a collapse."""
        return self.collapsed_at is None and bool(_low(self.success, DROP)[-LAST:].all())


class Claim(NamedTuple):
    """One claim and what the runs say to it."""

    name: str
    words: str
    verdict: str  # holds, refuted, untested or undecided
    evidence: str


class MeanDifference(NamedTuple):
    """A mean difference and its confidence interval."""

    mean: float
    low: float
    high: float


Arms = Mapping[str, Sequence[Run]]
"""Runs by method: token, turn, s, st; replayed for the control."""


def collapse(success: ArrayLike, *, drop: float = DROP, stay: int = STAY) -> int | None:
    """Index of the first iteration from which success stays ``drop`` below its maximum so far; None: it never did.

    :param stay: iterations it must stay there; those that had no time to are no collapse
    """
    low = _low(success, drop)
    for start in range(len(low) - stay + 1):
        if low[start : start + stay].all():
            return start
    return None


def rise_before(norms: ArrayLike, at: int, *, window: int = WINDOW) -> float | None:
    """Spearman correlation of ‖C‖ with time up to an iteration; None with fewer than four iterations to go by.

    Ranks do not see the logarithm.
    """
    values = np.asarray(norms, dtype=float)[max(0, at - window) : at + 1]
    values = values[np.isfinite(values)]
    if len(values) < 4 or np.ptp(values) == 0:
        return None
    return float(spearmanr(np.arange(len(values)), values).statistic)


def paired_difference(
    one: Sequence[Run], other: Sequence[Run], *, confidence: float = 0.95, resamples: int = 10_000
) -> MeanDifference | None:
    """Difference in final success over the seeds both have, with a bootstrap interval; None without two such seeds."""
    first, second = ({run.seed: run.final for run in runs} for runs in (one, other))
    seeds = sorted(first.keys() & second.keys())
    if len(seeds) < 2:
        return None
    differences = np.array([first[seed] - second[seed] for seed in seeds])
    draws = np.random.default_rng(0).integers(len(seeds), size=(resamples, len(seeds)))
    low, high = np.quantile(differences[draws].mean(1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return MeanDifference(float(differences.mean()), float(low), float(high))


def judge(arms: Arms) -> list[Claim]:
    """All claims, in order; those whose arms did not run are untested."""
    return [_clip_fractions(arms), _collapses(arms), _final_success(arms), _norm_rises(arms), _replayed(arms)]


def collapsed_share(runs: Sequence[Run], *, with_down: bool = False) -> float:
    """Share of the runs that collapsed.

    :param with_down: count those too that were down at the end, too late to be called a collapse
    """
    return float(np.mean([run.collapsed_at is not None or (with_down and run.is_down) for run in runs]))


def _low(success: ArrayLike, drop: float) -> np.ndarray:
    """Where success is ``drop`` below its maximum so far; not where it is unknown."""
    values = np.asarray(success, dtype=float)
    return values <= np.fmax.accumulate(values) - drop + 1e-12


def _clip_fractions(arms: Arms) -> Claim:
    words = "ST-PPO clips at least a tenth less than Token-PPO, by tokens and by what is decided on (tokens, turns)"
    if not _present(arms, "token", "st"):
        return Claim("F1", words, "untested", "needs Token-PPO and ST-PPO")
    token, turn_tokens, turns = (
        float(np.mean([np.nanmean(getattr(run, name)) for run in arms[arm]]))
        for arm, name in (("token", "clipped_tokens"), ("st", "clipped_tokens"), ("st", "clipped_turns"))
    )
    holds = turn_tokens <= 0.9 * token and turns <= 0.9 * token
    evidence = f"Token-PPO {token:.3f} of tokens; ST-PPO {turn_tokens:.3f} of tokens, {turns:.3f} of turns"
    return Claim("F1", words, "holds" if holds else "refuted", evidence)


def _collapses(arms: Arms) -> Claim:
    words = "Where Token-PPO collapses in 3 of 5 seeds, ST-PPO does in at most 1"
    if not _present(arms, "token", "st"):
        return Claim("F2", words, "untested", "needs Token-PPO and ST-PPO")
    evidence = "; ".join(f"{_NAMES[arm]} {_count(arms[arm])}" for arm in ("token", "st"))
    if collapsed_share(arms["token"]) < MANY:
        return Claim("F2", words, "untested", f"{evidence}: Token-PPO does not collapse here")
    if collapsed_share(arms["st"]) > FEW:
        return Claim("F2", words, "refuted", evidence)
    settled = collapsed_share(arms["st"], with_down=True) <= FEW
    return Claim("F2", words, "holds" if settled else "undecided", evidence)


def _final_success(arms: Arms) -> Claim:
    words = "S-PPO and ST-PPO end alike, and neither below Token-PPO"
    pairs = {"ST-PPO - S-PPO": ("st", "s"), "S-PPO - Token-PPO": ("s", "token"), "ST-PPO - Token-PPO": ("st", "token")}
    if not _present(arms, "token", "s", "st"):
        return Claim("F3", words, "untested", "needs Token-PPO, S-PPO and ST-PPO")
    differences = {name: paired_difference(arms[one], arms[other]) for name, (one, other) in pairs.items()}
    found = {name: interval for name, interval in differences.items() if interval is not None}
    if len(found) < len(pairs):
        return Claim("F3", words, "undecided", "fewer than two seeds in common")
    evidence = "; ".join(f"{name} {i.mean:+.2f} [{i.low:+.2f}, {i.high:+.2f}]" for name, i in found.items())
    alike, *above = found.values()
    if not alike.low <= 0 <= alike.high or any(interval.high < 0 for interval in above):
        return Claim("F3", words, "refuted", evidence)
    return Claim("F3", words, "holds" if all(i.low >= 0 for i in above) else "undecided", evidence)


def _norm_rises(arms: Arms) -> Claim:
    words = "The norm of the clipped-away gradient rises before each collapse of Token-PPO (Spearman above 0.5)"
    collapsed = [(run, at) for run in arms.get("token", ()) if (at := run.collapsed_at) is not None]
    if not collapsed:
        return Claim("F4", words, "untested", "no collapse of Token-PPO")
    found = [rise_before(run.clipped_norm, at) for run, at in collapsed]
    known = [value for value in found if value is not None]
    evidence = ", ".join("too early" if value is None else f"{value:+.2f}" for value in found)
    if not known:
        return Claim("F4", words, "undecided", f"{evidence}: fewer than four iterations before each collapse")
    return Claim("F4", words, "holds" if all(value > 0.5 for value in known) else "refuted", evidence)


def _replayed(arms: Arms) -> Claim:
    words = "What stabilises is when the step is shortened: the same factors in an order of no meaning do not"
    if not _present(arms, "token", "replayed"):
        return Claim("F5", words, "untested", "needs Token-PPO with and without replayed factors")
    evidence = "; ".join(f"{_NAMES[arm]} {_count(arms[arm])}" for arm in ("token", "replayed"))
    if collapsed_share(arms["token"]) < MANY:
        return Claim("F5", words, "untested", f"{evidence}: Token-PPO does not collapse here")
    if collapsed_share(arms["replayed"]) <= FEW:
        return Claim("F5", words, "refuted", evidence)
    if _present(arms, "s") and collapsed_share(arms["s"]) > FEW:
        return Claim(
            "F5", words, "untested", f"{evidence}; S-PPO {_count(arms['s'])}: nothing is stabilised to explain"
        )
    return Claim("F5", words, "holds", evidence)


_NAMES = {"token": "Token-PPO", "turn": "Turn-PPO", "s": "S-PPO", "st": "ST-PPO", "replayed": "replayed factors"}


def _count(runs: Sequence[Run]) -> str:
    down = sum(run.is_down for run in runs)
    late = f" and down at the end of {down} more" if down else ""
    return f"collapsed in {sum(run.collapsed_at is not None for run in runs)} of {len(runs)}{late}"


def _present(arms: Arms, *names: str) -> bool:
    return all(arms.get(name) for name in names)
