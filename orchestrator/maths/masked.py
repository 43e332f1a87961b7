"""Sums, means and deviations over the True positions of a mask.

Whatever stands at False positions, nan included, has neither effect nor gradient. Empty masks give 0.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_sum(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum over the True positions.

    :param dim: dimension to sum over; None: all of them
    """
    kept = torch.where(mask, values, 0.0)
    return kept.sum() if dim is None else kept.sum(dim)


def masked_mean(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Mean over the True positions; 0 where there are none.

    :param dim: dimension to average over; None: all of them
    """
    count = mask.sum() if dim is None else mask.sum(dim)
    return masked_sum(values, mask, dim) / count.clamp(min=1)


def masked_std(values: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation over the True positions, unbiased (divided by count - 1); 0 for fewer than two."""
    deviations = torch.where(mask, values - masked_mean(values, mask), 0.0)
    return (deviations.square().sum() / (mask.sum() - 1).clamp(min=1)).sqrt()


def sequence_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over each row's True positions.

    :param values: [B, T]
    :returns: [B]
    """
    return masked_sum(values, mask, dim=-1)
