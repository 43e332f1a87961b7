"""Credit: group baselines, discounted returns and generalised advantages, whitening."""

from __future__ import annotations

import torch
from torch import Tensor

from orchestrator.maths.masked import masked_mean, masked_std
from orchestrator.maths.shapes import expect_shape, group_index

STD_FLOOR = 1e-6
"""Added to a group's standard deviation before dividing by it."""

VARIANCE_FLOOR = 1e-8
"""Added to a variance before dividing by its root: equal values stay near 0, whatever their mean was rounded to."""


def group_centered(rewards: Tensor, group: Tensor, *, standardise: bool = False) -> Tensor:
    r"""Subtract from each reward the mean of its group.

    .. math:: A_i = r_i - \bar r, \qquad \text{standardised: } A_i = (r_i - \bar r) / (s + 10^{-6})

    :param rewards: [B]
    :param group: [B] int64, siblings share a value
    :param standardise: divide by the group's standard deviation s, unbiased
    :returns: [B]; exactly 0 in a group whose rewards are equal; the reward itself in a group of one
    :raises ValueError: when shapes differ
    Source: DeepSeekMath (arXiv:2402.03300), sec. 4.1.2; without the division: Dr. GRPO (arXiv:2503.20783), sec. 3.2.
    """
    expect_shape(group, "B", like=rewards, name="group")
    index, count = group_index(group)
    sizes = _by_group(torch.ones_like(rewards), index, count)
    shifted = rewards - _smallest(rewards, index, count)[index]  # equal rewards then give exact zeros
    centered = shifted - (_by_group(shifted, index, count) / sizes)[index]
    if standardise:
        variance = _by_group(centered.square(), index, count) / (sizes - 1).clamp(min=1)
        centered = centered / (variance.sqrt() + STD_FLOOR)[index]
    return torch.where(sizes[index] == 1, rewards, centered)


def leave_one_out(rewards: Tensor, group: Tensor) -> Tensor:
    r"""Subtract from each reward the mean of its siblings' rewards, its own left out.

    .. math:: A_i = r_i - \frac{1}{G-1} \sum_{j \ne i} r_j = \frac{G}{G-1} (r_i - \bar r)

    :param rewards: [B]
    :param group: [B] int64, siblings share a value
    :returns: [B]; exactly 0 in a group whose rewards are equal; the reward itself in a group of one
    :raises ValueError: when shapes differ
    Source: Ahmadian et al. 2024 (arXiv:2402.14740), REINFORCE leave-one-out.
    """
    centered = group_centered(rewards, group)
    index, count = group_index(group)
    sizes = _by_group(torch.ones_like(rewards), index, count)[index]
    return torch.where(sizes == 1, rewards, centered * (sizes / (sizes - 1).clamp(min=1)))


def discounted_returns(rewards: Tensor, mask: Tensor, *, gamma: float) -> Tensor:
    r"""Reward from here on, discounted once per token the policy chose.

    .. math:: R_t = r_t + \gamma R_{t'}, \quad t' \text{ the policy's next token}

    :param rewards: [B, T], on tokens the policy chose
    :param mask: [B, T] bool; other positions are skipped, they neither discount nor cut
    :param gamma: in [0, 1]
    :returns: [B, T], 0 where ``mask`` is False
    :raises ValueError: when shapes differ
    """
    zeros = torch.zeros_like(rewards)
    return generalised_advantages(rewards, zeros, mask, gamma=gamma, lam=1.0)


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float, bootstrap: Tensor | None = None
) -> Tensor:
    r"""Generalised advantage estimates over the tokens the policy chose.

    .. math:: \delta_t = r_t + \gamma V_{t'} - V_t, \qquad A_t = \delta_t + \gamma \lambda A_{t'}

    where t' is the policy's next token in the row: prompts and observations in between are skipped. After the last
    token the advantage is 0, and so is the value, unless the row was cut off: then it is that of the state where it
    was cut. Targets of a critic are the advantages plus the values.

    :param rewards: [B, T], on tokens the policy chose
    :param values: [B, T] of the state before each token
    :param mask: [B, T] bool
    :param gamma: discount, in [0, 1]
    :param lam: trace decay, in [0, 1]
    :param bootstrap: [B, T] bool, True where a row was cut off, as ``Batch.bootstrap``
    :returns: [B, T], 0 where ``mask`` is False
    :raises ValueError: when shapes differ
    Source: Schulman et al. 2016 (arXiv:1506.02438), eqs. 11 and 16.
    """
    expect_shape(values, "B T", like=rewards, name="values")
    expect_shape(mask, "B T", like=rewards, name="mask")
    valued = mask if bootstrap is None else mask | expect_shape(bootstrap, "B T", like=rewards, name="bootstrap")
    if rewards.shape[1] == 0:
        return torch.zeros_like(rewards)
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(valued, values, 0.0)
    deltas = torch.where(mask, rewards + gamma * _next_value(values, valued) - values, 0.0)
    decay = torch.where(mask, gamma * lam, torch.ones_like(rewards))  # skipped positions pass the sum on unchanged
    running = rewards.new_zeros(len(rewards))
    steps = []
    for delta, factor in zip(reversed(deltas.unbind(1)), reversed(decay.unbind(1)), strict=True):
        running = torch.addcmul(delta, factor, running)
        steps.append(running)
    return torch.where(mask, torch.stack(steps[::-1], dim=1), 0.0)


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    r"""Shift and scale to mean 0 and standard deviation 1 over the True positions.

    .. math:: (x - \bar x) / \sqrt{s^2 + 10^{-8}}, \quad s^2 \text{ unbiased}

    :returns: same shape, 0 where ``mask`` is False
    :raises ValueError: when shapes differ
    Source: the masked whitening of TRL and verl, floor included; the papers name none.
    """
    if mask.shape != values.shape:
        raise ValueError(f"whiten: mask has shape {list(mask.shape)}; expected {list(values.shape)}")
    scaled = (values - masked_mean(values, mask)) * (masked_std(values, mask).square() + VARIANCE_FLOOR).rsqrt()
    return torch.where(mask, scaled, 0.0)


def _next_value(values: Tensor, valued: Tensor) -> Tensor:
    """[B, T] value at each row's next True position of ``valued``; 0 where there is none."""
    width = values.shape[1]
    places = torch.where(valued, torch.arange(width, device=values.device), width)
    nearest = places.flip(1).cummin(1).values.flip(1)
    following = torch.cat([nearest[:, 1:], torch.full_like(nearest[:, :1], width)], dim=1)
    return torch.cat([values, torch.zeros_like(values[:, :1])], dim=1).gather(1, following)


def _by_group(values: Tensor, index: Tensor, count: int) -> Tensor:
    return values.new_zeros(count).index_add(0, index, values)


def _smallest(values: Tensor, index: Tensor, count: int) -> Tensor:
    """[N] value of each group's smallest member: an offset that does not depend on the order of siblings."""
    return values.new_full((count,), torch.inf).scatter_reduce(0, index, values, reduce="amin")
