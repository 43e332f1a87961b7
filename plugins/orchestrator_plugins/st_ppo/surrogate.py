"""The clipped surrogate with ratios of tokens or of turns, and what clipping removes from it. Pure functions."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from orchestrator.api import clipped_surrogate, expect_shape, importance_ratio, is_clipped


class Surrogate(NamedTuple):
    """A mini-batch's surrogate, token by token; all [B, T], nothing where the mask is False."""

    loss: Tensor  # minus the clipped surrogate, differentiable
    removed: Tensor  # minus the surrogate of the clipped tokens, unclipped: what the loss has lost; differentiable
    clipped: Tensor  # bool, tokens that clipping leaves without gradient
    ratio: Tensor  # importance ratios, 1 where the mask is False; no gradient


def surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    turn: Tensor,
    *,
    ratio: Literal["token", "turn"],
    clip_low: float,
    clip_high: float,
    turn_gradient: Literal["full", "token"] = "full",
    turn_advantage: Literal["per_token", "aggregate"] = "per_token",
) -> Surrogate:
    r"""Clipped surrogate whose ratios belong to tokens or to turns.

    .. math:: \ell_t = -\min\big(w_t A_t,\ \mathrm{clip}(w_t, 1-\epsilon_l, 1+\epsilon_h) A_t\big)

    The gradient of ``loss`` is that of the unclipped surrogate minus that of ``removed``.

    :param logprobs: [B, T] current policy, nats, differentiable
    :param old_logprobs: [B, T] policy at the start of the update
    :param advantages: [B, T], no gradient
    :param mask: [B, T] bool
    :param turn: [B, T] int64, the turn each token belongs to, -1 outside the policy's tokens
    :param ratio: token: w is the token's ratio, as in PPO; turn: :func:`turn_log_ratio` on every token of the turn
    :param turn_gradient: full: through the whole geometric mean; token: through the token's own likelihood
    :param turn_advantage: aggregate: every token has its turn's mean advantage
    :raises ValueError: when shapes differ
    Source: ST-PPO (arXiv:2511.20718): turn-level importance sampling, gradient of lemma 4.1, split of lemma 4.2; the
    token's own gradient is GSPO-token's (arXiv:2507.18071, eq. 13).
    """
    advantages = torch.where(mask, advantages, 0.0)
    log_weights, base = logprobs, old_logprobs
    if ratio == "turn":
        log_weights, base = turn_log_ratio(logprobs, old_logprobs, mask, turn), torch.zeros_like(old_logprobs)
        if turn_gradient == "token":
            log_weights = log_weights.detach() + logprobs - logprobs.detach()
        if turn_advantage == "aggregate":
            advantages = turn_mean(advantages, mask, turn)
    loss = clipped_surrogate(log_weights, base, advantages, mask, clip_low=clip_low, clip_high=clip_high)
    weights = importance_ratio(log_weights, base, mask)
    clipped = is_clipped(weights.detach(), advantages, mask, clip_low=clip_low, clip_high=clip_high)
    return Surrogate(loss, torch.where(clipped, -weights * advantages, 0.0), clipped, weights.detach())


def turn_log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, turn: Tensor) -> Tensor:
    r"""Log of the geometric mean of each turn's ratios, on every token of the turn.

    .. math:: \log \rho_k = \frac{1}{n_k} \sum_{t \in k} (\log \pi(y_t) - \log \pi_{old}(y_t))

    :param logprobs: [B, T], nats, differentiable
    :param old_logprobs: [B, T], nats
    :param turn: [B, T] int64, -1 outside the policy's tokens
    :returns: [B, T], nats, 0 where ``mask`` is False
    :raises ValueError: when shapes differ
    Source: ST-PPO (arXiv:2511.20718), turn-level ratio: that of GSPO (arXiv:2507.18071, eq. 7), turn by turn.
    """
    expect_shape(old_logprobs, "B T", like=logprobs, name="old_logprobs")
    return turn_mean(torch.where(mask, logprobs, 0.0) - torch.where(mask, old_logprobs, 0.0), mask, turn)


def turn_mean(values: Tensor, mask: Tensor, turn: Tensor) -> Tensor:
    """Mean over the tokens of each turn, on every token of the turn.

    :param values: [B, T]
    :param turn: [B, T] int64, -1 outside the policy's tokens
    :returns: [B, T], 0 where ``mask`` is False
    :raises ValueError: when shapes differ
    """
    expect_shape(mask, "B T", like=values, name="mask")
    index, count = _turn_index(mask, turn)
    totals = values.new_zeros(len(values), count).scatter_add(1, index, torch.where(mask, values, 0.0))
    tokens = values.new_zeros(len(values), count).scatter_add(1, index, mask.to(values.dtype))
    return torch.where(mask, (totals / tokens.clamp(min=1)).gather(1, index), 0.0)


def turns_with(tokens: Tensor, mask: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """Count the turns that hold any of the given tokens, and all turns.

    :param tokens: [B, T] bool
    :returns: [] and [], both int64
    """
    index, count = _turn_index(mask, turn)
    zeros = torch.zeros(len(mask), count, dtype=torch.int64, device=mask.device)
    chosen = zeros.scatter_add(1, index, (mask & tokens).long())
    return (chosen > 0).sum(), (zeros.scatter_add(1, index, mask.long()) > 0).sum()


def _turn_index(mask: Tensor, turn: Tensor) -> tuple[Tensor, int]:
    """[B, T] where each token's turn is summed up, and in how many places; the last is for no turn at all."""
    expect_shape(turn, "B T", like=mask, name="turn")
    count = int(turn.max()) + 1 if turn.numel() else 0
    return torch.where(mask, turn, count), count + 1
