"""How many different right answers a policy knows, from its attempts at one task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from math import comb, exp, fsum, log


def distinct_correct(answers: Sequence[Hashable | None], correct: Sequence[bool | float]) -> int:
    """Count the different right answers. Right attempts whose answer is None count nothing.

    :raises ValueError: when the lengths differ
    """
    return len(_right(answers, correct))


def correct_entropy(answers: Sequence[Hashable | None], correct: Sequence[bool | float]) -> float:
    """Entropy of the empirical distribution over right answers, in nats; 0 for at most one.

    :raises ValueError: when the lengths differ
    """
    counts = _right(answers, correct).values()
    total = sum(counts)
    return fsum(count / total * log(total / count) for count in counts)


def effective_correct(answers: Sequence[Hashable | None], correct: Sequence[bool | float]) -> float:
    """Effective number of right answers: the exponential of their entropy; 0 without any.

    :raises ValueError: when the lengths differ
    """
    return exp(correct_entropy(answers, correct)) if distinct_correct(answers, correct) else 0.0


def distinct_at_k(answers: Sequence[Hashable | None], correct: Sequence[bool | float], k: int) -> float:
    r"""Estimate the expected number of different right answers among ``k`` attempts.

    .. math:: \sum_a 1 - \binom{n - m_a}{k} / \binom{n}{k}

    with m_a the right attempts that gave answer a: the mean over all k-subsets of the n attempts, unbiased. At
    k = n it is :func:`distinct_correct`.

    :raises ValueError: when the lengths differ or k is not within 1..n
    """
    total = len(answers)
    counts = _right(answers, correct)
    if not 1 <= k <= total:
        raise ValueError(f"k = {k} with {total} attempts; expected 1 <= k <= attempts")
    subsets = comb(total, k)
    return sum(subsets - comb(total - count, k) for count in counts.values()) / subsets


def distinct_curve(
    answers: Sequence[Hashable | None], correct: Sequence[bool | float], ks: Sequence[int]
) -> dict[int, float]:
    """:func:`distinct_at_k` for several k, by k."""
    return {k: distinct_at_k(answers, correct, k) for k in ks}


def _right(answers: Sequence[Hashable | None], correct: Sequence[bool | float]) -> Counter[Hashable]:
    """Right attempts by answer."""
    if len(answers) != len(correct):
        raise ValueError(f"{len(answers)} answers but {len(correct)} judgements; expected one for each")
    return Counter(answer for answer, is_right in zip(answers, correct, strict=True) if is_right and answer is not None)
