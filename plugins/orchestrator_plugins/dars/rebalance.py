r"""How many more rollouts a task gets, from how many of its first ones were right.

With N first rollouts, success rate a and no division by the deviation, a group's total absolute advantage is
n s(a) with s(a) = 2a(1-a); with it, s(a) = 2 sqrt(a(1-a)). Tasks below one half are given rollouts until this
weight reaches the one that N rollouts at a = 1/2 have (equal treatment), or 2(1-a) times that (hardness weighted).
"""

from __future__ import annotations

from enum import StrEnum
from math import isqrt
from operator import index


class Schedule(StrEnum):
    """What weight a hard task is lifted to."""

    EQUAL_TREATMENT = "equal_treatment"  # ET: that of a task solved half of the time
    HARDNESS_WEIGHTED = "hardness_weighted"  # HW: up to twice that, linearly more the harder the task


def extra_rollouts(
    correct: int, pre_rollouts: int, max_rollouts: int, schedule: Schedule | str, standardise: bool = False
) -> int:
    r"""Count the rollouts a task gets beyond its first ones.

    With k right of N, a = k/N (half a success when k = 0) and nothing extra from a = 1/2 on, the total is

    .. math:: n = \lceil N / 4a(1-a) \rceil \ (ET), \quad \lceil N / 2a \rceil \ (HW)

    and, standardised, :math:`\lceil N / 2\sqrt{a(1-a)} \rceil` and :math:`\lceil N \sqrt{(1-a)/a} \rceil`, then capped.

    :param correct: k, right ones among the first rollouts
    :param pre_rollouts: N, at least 2
    :param max_rollouts: cap of the total; below N nothing is added
    :param standardise: whether advantages are divided by the group's standard deviation
    :returns: how many more, 0 or more; the ceiling is taken in exact integers
    :raises ValueError: when a count is out of range or the schedule unknown
    Source: arXiv:2508.13755 as in its released code; half a success for k = 0 is the code's rule.
    """
    correct, pre_rollouts, max_rollouts = index(correct), index(pre_rollouts), index(max_rollouts)
    if pre_rollouts < 2:
        raise ValueError(f"pre_rollouts is {pre_rollouts}; expected 2 or more: one rollout gives no success rate")
    if not 0 <= correct <= pre_rollouts:
        raise ValueError(f"correct is {correct}; expected 0 to pre_rollouts = {pre_rollouts}")
    if schedule not in list(Schedule):
        raise ValueError(f"schedule is {schedule!r}; expected {' or '.join(Schedule)}")
    if 2 * correct >= pre_rollouts:
        return 0
    # In halves: a = right / (2N), so that half a success is a whole number.
    right = max(2 * correct, 1)
    wrong = 2 * pre_rollouts - right
    hard = schedule == Schedule.HARDNESS_WEIGHTED
    if standardise:
        square = _ceil(pre_rollouts**2 * wrong, right) if hard else _ceil(pre_rollouts**4, right * wrong)
        total = isqrt(square - 1) + 1  # the least n with n * n >= square
    else:
        total = _ceil(pre_rollouts**2, right) if hard else _ceil(pre_rollouts**3, right * wrong)
    return max(min(total, max_rollouts) - pre_rollouts, 0)


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
