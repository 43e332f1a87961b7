"""The maths: advantages of a group that holds a demonstration, the three terms, the paper's two measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from orchestrator.api import expect_shape, group_index, masked_mean

SIGMA_FLOOR = 1e-6
"""Deviations up to this are none at all: every advantage of the group is 0."""


def relative_advantages(rewards: Tensor, group: Tensor, demonstration: Tensor, *, joint: bool) -> Tensor:
    r"""Standardise the rewards of each group, its demonstration included.

    .. math:: A_i = (R_i - \mu) / \sigma, \qquad A_y = (R_y - \mu) / \sigma

    :param rewards: [B]
    :param group: [B] int64, siblings share a value
    :param demonstration: [B] bool
    :param joint: mean and population deviation over all rows of the group; False: over its rollouts only
    :returns: [B]; 0 throughout a group whose deviation is at most 1e-6
    :raises ValueError: when shapes differ
    Source: arXiv:2508.07750, sec. 3.

    Deviation: the paper has no rule for a deviation of 0. Under ``joint`` a group whose G rollouts all lose alike
    gives its demonstration the advantage sqrt(G); under the literal statistics that group would be 0/0.
    """
    expect_shape(group, "B", like=rewards, name="group")
    expect_shape(demonstration, "B", like=rewards, name="demonstration")
    place, groups = group_index(group)
    counted = torch.ones_like(demonstration) if joint else ~demonstration
    counts = _by_group(counted.to(rewards.dtype), place, groups).clamp(min=1)
    mean = _by_group(torch.where(counted, rewards, 0.0), place, groups) / counts
    centered = rewards - mean[place]
    variance = _by_group(torch.where(counted, centered.square(), 0.0), place, groups) / counts
    sigma = variance.sqrt()[place]
    return torch.where(sigma > SIGMA_FLOOR, centered / sigma.clamp(min=SIGMA_FLOOR), 0.0)


class Alignment(NamedTuple):
    """What is maximised, [N] one per group, and the demonstrations' likelihood."""

    exploration: Tensor
    imitation: Tensor  # without its weight
    alignment: Tensor  # without its weight
    likelihood: Tensor  # [N] mean log-probability of the demonstration's tokens, in nats


def alignment_terms(
    logprobs: Tensor, advantages: Tensor, mask: Tensor, group: Tensor, demonstration: Tensor
) -> Alignment:
    r"""The three terms of each group, from length-normalised log-likelihoods.

    .. math::
        \tfrac1G \sum_i A_i \ell_i, \qquad A_y \ell_y, \qquad \tfrac1G \sum_i A_i (\ell_i - \ell_y)

    :param logprobs: [B, T] of the chosen tokens, nats, differentiable
    :param advantages: [B, T], no gradient
    :param mask: [B, T] bool
    :param group: [B] int64; groups must be whole
    :param demonstration: [B] bool; of several in a group the mean is taken
    :returns: a group without a demonstration has 0 in all but the exploration
    :raises ValueError: when shapes differ
    Source: arXiv:2508.07750, eq. 3; order of reduction (tokens, samples, prompts) from its convergence section.

    Deviation: a row without tokens has likelihood 0 and counts in G, but has no token to carry an advantage, so it
    is left out of the regulariser's second half.
    """
    expect_shape(advantages, "B T", like=logprobs, name="advantages")
    expect_shape(mask, "B T", like=logprobs, name="mask")
    place, groups = group_index(group)
    advantages = torch.where(mask, advantages.detach(), 0.0)
    weighted = masked_mean(advantages * torch.where(mask, logprobs, 0.0), mask, dim=1)
    rollouts, shown = ~demonstration, demonstration
    exploration = _mean_by_group(weighted, rollouts, place, groups)
    imitation = _mean_by_group(weighted, shown, place, groups)
    likelihood = _mean_by_group(masked_mean(logprobs, mask, dim=1), shown, place, groups)
    mean_advantage = _mean_by_group(masked_mean(advantages, mask, dim=1), rollouts, place, groups)
    has_demonstration = _by_group(shown.to(logprobs.dtype), place, groups) > 0
    alignment = torch.where(has_demonstration, exploration - mean_advantage * likelihood, 0.0)
    return Alignment(exploration, imitation, alignment, likelihood)


def relative_alignment_score(judgements: Sequence[float], *, count_ties: bool = False) -> float:
    """Share of answers judged better than their reference (RAS); 0 without any.

    :param judgements: above 0 better, 0 tie, below 0 worse
    :param count_ties: count ties too, as the paper's appendix has it; its formula does not
    """
    won = sum(j > 0 or (count_ties and j == 0) for j in judgements)
    return won / len(judgements) if judgements else 0.0


def normalised_alignment_gain(after: Sequence[float], before: Sequence[float], *, net: bool = False) -> float:
    """Share of prompts judged better after training than before (NAG); 0 without any.

    :param net: subtract the share judged worse, which alone explains the negative value in the paper's table 1
    :raises ValueError: when the lengths differ
    """
    if len(after) != len(before):
        raise ValueError(f"{len(after)} judgements after training but {len(before)} before; expected one pair a prompt")
    better = sum(a > b for a, b in zip(after, before, strict=True))
    worse = sum(a < b for a, b in zip(after, before, strict=True)) if net else 0
    return (better - worse) / len(after) if after else 0.0


def _by_group(values: Tensor, place: Tensor, groups: int) -> Tensor:
    return values.new_zeros(groups).index_add(0, place, values)


def _mean_by_group(values: Tensor, counted: Tensor, place: Tensor, groups: int) -> Tensor:
    """[N] mean over the rows that count; 0 where there are none."""
    counts = _by_group(counted.to(values.dtype), place, groups)
    return _by_group(torch.where(counted, values, 0.0), place, groups) / counts.clamp(min=1)
