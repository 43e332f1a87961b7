"""Which siblings are compared, the better first."""

from __future__ import annotations

import torch
from torch import Tensor

from orchestrator.api import group_index


def best_and_worst(scores: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the best and of the worst sibling of each group that has a best one; of equals the first.

    :param scores: [B]
    :param group: [B] int64, siblings share a value
    :returns: two [M] int64, at most one pair a group
    """
    index, count = group_index(group)
    rows = torch.arange(len(scores), device=scores.device)

    def first(extreme: str) -> tuple[Tensor, Tensor]:
        bound = scores.new_zeros(count).scatter_reduce(0, index, scores, reduce=extreme, include_self=False)
        reached = torch.where(scores == bound[index], rows, len(rows))
        return bound, torch.full_like(rows[:count], len(rows)).scatter_reduce(0, index, reached, reduce="amin")

    (high, best), (low, worst) = first("amax"), first("amin")
    return best[high > low], worst[high > low]


def ordered_pairs(scores: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the better and of the worse of every pair of siblings with unequal scores.

    :returns: two [M] int64
    """
    beats = (group[:, None] == group[None, :]) & (scores[:, None] > scores[None, :])
    better, worse = beats.nonzero(as_tuple=True)
    return better, worse
