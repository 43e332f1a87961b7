"""Unbiased estimates of what k attempts achieve, from n attempts at a task: pass@k and majority@k."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from fractions import Fraction
from functools import lru_cache
from math import comb
from typing import overload

import numpy as np


@overload
def pass_at_k(samples: int, correct: int, k: int) -> float: ...
@overload
def pass_at_k(samples: np.ndarray, correct: np.ndarray, k: int) -> np.ndarray: ...
def pass_at_k(samples, correct, k):
    r"""Estimate the probability that at least one of ``k`` attempts is right.

    .. math:: 1 - \binom{n-c}{k} / \binom{n}{k}

    The share of the k-subsets of the n attempts that hold a right one: unbiased, computed in exact integers and
    rounded once.

    :param samples: n, attempts made; an integer or an array of them
    :param correct: c, right ones among them; same shape as ``samples`` or broadcast with it
    :param k: attempts allowed, 1 to the smallest n
    :returns: a float, or a float64 array of the broadcast shape
    :raises ValueError: when k or a count is out of range
    Source: Chen et al. 2021 (arXiv:2107.03374), eq. 1.
    """
    if np.ndim(samples) == 0 and np.ndim(correct) == 0:
        return _pass_at_k(int(samples), int(correct), int(k))
    n, c = np.broadcast_arrays(np.asarray(samples), np.asarray(correct))
    values = [_pass_at_k(int(one), int(other), int(k)) for one, other in zip(n.flat, c.flat, strict=True)]
    return np.array(values, dtype=np.float64).reshape(n.shape)


def majority_at_k(answers: Sequence[Hashable | None], correct: Sequence[bool | float], k: int) -> float:
    """Estimate the probability that the most frequent answer among ``k`` attempts is right.

    The mean over all k-subsets of the attempts, exact: a subset's most frequent answer is right or wrong, a tie
    between answers is broken evenly, and a subset without any answer is wrong. With k = 1 it is the share of
    right attempts among all (given that every right attempt has an answer).

    :param answers: what each attempt answered; None: it abstains from the vote
    :param correct: whether each attempt is right; an answer judged both ways counts by its share of right
    :param k: attempts that vote, 1 to ``len(answers)``
    :raises ValueError: when the lengths differ or k is out of range
    """
    if len(answers) != len(correct):
        raise ValueError(f"{len(answers)} answers but {len(correct)} judgements; expected one for each")
    _check_k(k, len(answers))
    votes = Counter(answer for answer in answers if answer is not None)
    right: Counter[Hashable] = Counter()
    for answer, is_right in zip(answers, correct, strict=True):
        if answer is not None and is_right:
            right[answer] += 1
    wins = _winning_weights(tuple(sorted(votes.values())), len(answers) - votes.total(), k)
    subsets = comb(len(answers), k)
    won = sum(wins[votes[answer]] * Fraction(count, votes[answer]) for answer, count in right.items())
    return float(won / subsets)


@lru_cache(maxsize=65536)
def _pass_at_k(samples: int, correct: int, k: int) -> float:
    if not 0 <= correct <= samples:
        raise ValueError(f"{correct} right of {samples} attempts; expected 0 <= right <= attempts")
    _check_k(k, samples)
    subsets = comb(samples, k)
    return (subsets - comb(samples - correct, k)) / subsets


@lru_cache(maxsize=4096)
def _winning_weights(counts: tuple[int, ...], abstaining: int, k: int) -> dict[int, Fraction]:
    """For each multiplicity an answer can have: in how many k-subsets such an answer wins, a tie of m as 1/m.

    Fix the winner and its number of votes j. The other answers' ways to get at most j votes multiply as
    polynomials in x (votes cast), with a second exponent for how many of them reach j exactly.
    """
    table = Counter(counts)
    weights = {}
    for own in table:
        others = table - Counter([own])
        total = Fraction(0)
        for votes in range(1, min(own, k) + 1):
            ways = _ways_below(tuple(sorted(others.items())), abstaining, votes, k - votes)
            total += comb(own, votes) * sum(Fraction(number, tied + 1) for tied, number in ways.items())
        weights[own] = total
    return weights


def _ways_below(others: tuple[tuple[int, int], ...], abstaining: int, votes: int, rest: int) -> dict[int, int]:
    """Ways to draw ``rest`` further attempts so that no other answer passes ``votes``, by how many reach it.

    :param others: (multiplicity, number of answers with it)
    """
    ways = {(drawn, 0): comb(abstaining, drawn) for drawn in range(min(abstaining, rest) + 1)}
    for multiplicity, answers in others:
        for _ in range(answers):
            grown: dict[tuple[int, int], int] = {}
            for (drawn, tied), number in ways.items():
                for more in range(min(multiplicity, votes, rest - drawn) + 1):
                    key = drawn + more, tied + (more == votes)
                    grown[key] = grown.get(key, 0) + number * comb(multiplicity, more)
            ways = grown
    return {tied: number for (drawn, tied), number in ways.items() if drawn == rest}


def _check_k(k: int, samples: int) -> None:
    if not 1 <= k <= samples:
        raise ValueError(f"k = {k} with {samples} attempts; expected 1 <= k <= attempts")
