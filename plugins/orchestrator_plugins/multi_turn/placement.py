"""What each turn of a game earns, normalised so that a win is 1 and no loss outranks it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence


def turn_rewards(
    increments: Sequence[float], max_score: float, won: bool, *, win_bonus: float = 0.0
) -> tuple[float, ...]:
    r"""Turn score increments into progress.

    .. math:: P_t = \mathrm{clip}\Big(\frac{1}{S} \sum_{u \le t} s_u, 0, 1\Big), \qquad
              r_t = (1 - b)(P_t - P_{t-1}) + b\,[t = \text{last, won}]

    with P of the last turn of a win lifted to 1: what a game ends without having paid, the win pays.

    :param increments: what the score rose by in each turn; negative where points were lost
    :param max_score: S, the most points of this game, above 0
    :param won: whether the game was won, which is not whether it is over
    :param win_bonus: b, share of a win's 1 that winning alone earns, in [0, 1]
    :returns: one number per turn; they sum to 1 in a win, and to between 0 and 1 - b in a loss
    :raises ValueError: when max_score is not a positive number

    Deviation: the paper's code divides a win's increments by how many there were and a loss's by 1, so that a loss
    with nine of ten points earns nine times a win.
    """
    if not (math.isfinite(max_score) and max_score > 0):
        raise ValueError(f"max_score is {max_score}; expected the most points a play of the task can collect, above 0")
    if not increments:
        return ()
    total, reached = 0.0, [0.0]
    for increment in increments:
        total += increment
        reached.append(min(max(total / max_score, 0.0), 1.0))
    if won:
        reached[-1] = 1.0
    earned = [(1 - win_bonus) * (after - before) for before, after in itertools.pairwise(reached)]
    if won:
        earned[-1] += win_bonus
    return tuple(earned)


def terminal_rewards(turns: int, won: bool) -> tuple[float, ...]:
    """Pay 1 on the last of so many turns if the game was won, else nothing."""
    return (*(0.0,) * (turns - 1), float(won)) if turns else ()
