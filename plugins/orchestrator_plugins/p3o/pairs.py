"""Which siblings are compared, and the two pairwise losses."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from orchestrator.api import clipped_surrogate, log_ratio


class PairLoss(NamedTuple):
    """Losses of M pairs."""

    values: Tensor  # [M], differentiable
    clipped: Tensor  # [M] share of the pair's clips that took its gradient away, no gradient


def sibling_pairs(group: Tensor, eligible: Tensor, *, disjoint: bool) -> tuple[Tensor, Tensor]:
    """Rows of the first and of the second response of each pair.

    :param group: [B] int64, siblings share a value
    :param eligible: [B] bool, rows that may be paired
    :param disjoint: pair the eligible siblings as (0, 1), (2, 3), ...; one left over stays alone
    :returns: two [M] int64, the first before the second
    """
    together = (group[:, None] == group[None, :]) & eligible[:, None] & eligible[None, :]
    later = together.triu(diagonal=1)
    if disjoint:
        place = together.tril(diagonal=-1).sum(1)  # eligible siblings before this one
        later &= (place[:, None] % 2 == 0) & (place[None, :] == place[:, None] + 1)
    first, second = later.nonzero(as_tuple=True)
    return first, second


def separate_clipping(
    logprobs: Tensor, old_logprobs: Tensor, difference: Tensor, *, clip: float, max_weight: float
) -> PairLoss:
    r"""Clip each response's ratio; the partner's ratio is a capped weight.

    .. math:: -\tfrac12 \sum_{k \in \{i,j\}} \min\big(A_k \rho_k,\ A_k \mathrm{clip}(\rho_k, 1-\epsilon, 1+\epsilon)\big),
        \quad A_i = q\,\mathrm{cap}(\rho_j),\ A_j = -q\,\mathrm{cap}(\rho_i)

    :param logprobs: [M, 2] of whole responses, nats, differentiable
    :param old_logprobs: [M, 2] of the policy that sampled
    :param difference: [M] q, what the first response is worth more than the second; no gradient
    :param clip: epsilon; infinite: unclipped
    :param max_weight: C, cap(z) lies in [1/C, C]; infinite: uncapped
    Source: the first author's released ``modeling_p3o.py`` of September 2023; without clip and cap arXiv:2310.00212,
    theorem 1. A response's own ratio is not capped.
    """
    ratio = log_ratio(logprobs, old_logprobs).exp().detach()
    weight = ratio.flip(1).clamp(1 / max_weight, max_weight)
    advantages = torch.stack([difference, -difference], dim=1) * weight
    everywhere = torch.ones_like(advantages, dtype=torch.bool)
    losses = clipped_surrogate(logprobs, old_logprobs, advantages, everywhere, clip_low=clip, clip_high=clip)
    stopped = ratio.clamp(1 - clip, 1 + clip) * advantages < ratio * advantages
    return PairLoss(0.5 * losses.sum(1), stopped.to(ratio.dtype).mean(1))


def joint_clipping(
    logprobs: Tensor, old_logprobs: Tensor, difference: Tensor, *, clip: float, max_weight: float
) -> PairLoss:
    r"""Clip the change of the pair's difference of log-probabilities.

    .. math:: -\tfrac12 w \min\big(q \delta,\ q\,\mathrm{clip}(\delta, -\epsilon, \epsilon)\big), \quad
        \delta = (\ell_i - \ell_j) - (\ell^{old}_i - \ell^{old}_j),\ w = \mathrm{cap}(\rho_i \rho_j)

    Parameters as in :func:`separate_clipping`, ``clip`` in nats.
    Source: the first author's released ``modeling_p3o.py`` of October 2023; without clip and cap arXiv:2310.00212,
    theorem 1. The value is 0 at the policy that sampled; the code logs another constant, with the same gradient.
    """
    weight = log_ratio(logprobs, old_logprobs).sum(1).exp().detach().clamp(1 / max_weight, max_weight)
    moved = logprobs - old_logprobs
    gap = moved[:, 0] - moved[:, 1]
    free, bounded = difference * gap, difference * gap.clamp(-clip, clip)
    stopped = (bounded < free).to(gap.dtype)
    return PairLoss(-0.5 * weight * torch.minimum(free, bounded), stopped.detach())
