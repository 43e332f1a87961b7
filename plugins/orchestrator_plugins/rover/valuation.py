"""The implicit action values of a policy, their bootstrap, and the squared error between them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from orchestrator.api import expect_shape


class Valuation(NamedTuple):
    """Per-token values, all [B, T], 0 where masked out."""

    error: Tensor  # (Q - target) squared, differentiable through Q only
    values: Tensor  # Q, no gradient
    bootstrap: Tensor  # Q' of the next state, unweighted, no gradient


def valuation(
    logprobs: Tensor,
    old_logprobs: Tensor,
    vocab_means: Tensor,
    old_vocab_means: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    q_temperature: float,
    bootstrap_weight: float,
    across_turns: bool = False,
) -> Valuation:
    r"""Squared Bellman error of the policy's implicit action values, per token.

    .. math::
        Q_t = \rho (\log \pi_t - \log \pi^{old}_t), \qquad
        Q'_t = \frac{\rho}{V} \sum_v \big(\log \pi(v|s_{t+1}) - \log \pi^{old}(v|s_{t+1})\big), \qquad
        \big(Q_t - \mathrm{sg}[\tilde r_t + \beta Q'_t]\big)^2

    Q' is the value of the next state under the uniformly random policy. It is 0 after the last token.

    :param logprobs: [B, T] of the chosen tokens, nats, differentiable
    :param vocab_means: [B, T] unweighted mean over the vocabulary of the log-probabilities a token was chosen from;
        from untruncated logits, or it is minus infinity
    :param advantages: [B, T]; paper: the centred reward of the row
    :param mask: [B, T] bool
    :param q_temperature: rho, nats of log-ratio per unit of reward, inverted; greater than 0
    :param bootstrap_weight: beta, at least 0
    :param across_turns: where the mask has a hole, take the next state behind it; False: the hole ends the play
    :raises ValueError: when shapes differ
    Source: arXiv:2509.24981, eqs. 3 and 4, algorithm 1.

    Deviation: no bound on log-ratios. The paper clips nothing, and a clamp would take the gradient that pulls a far
    value back; squares of 1e3 nats are far from overflow.
    """
    for name, tensor in (
        ("old_logprobs", old_logprobs),
        ("vocab_means", vocab_means),
        ("old_vocab_means", old_vocab_means),
        ("advantages", advantages),
        ("mask", mask),
    ):
        expect_shape(tensor, "B T", like=logprobs, name=name)
    values = q_temperature * torch.where(mask, logprobs - old_logprobs.detach(), 0.0)
    state_values = q_temperature * torch.where(mask, vocab_means - old_vocab_means, 0.0).detach()
    bootstrap = torch.where(mask, _next(state_values, mask, across_turns), 0.0)
    target = torch.where(mask, advantages.detach(), 0.0) + bootstrap_weight * bootstrap
    return Valuation((values - target).square(), values.detach(), bootstrap)


def _next(values: Tensor, mask: Tensor, across_turns: bool) -> Tensor:
    """[B, T] of the next position, or of the next True one; 0 where there is none."""
    rows, width = values.shape
    padded = torch.cat([values, values.new_zeros(rows, 1)], dim=1)
    if not across_turns:
        return padded[:, 1:]
    places = torch.where(mask, torch.arange(width, device=values.device), width)
    nearest = places.flip(1).cummin(1).values.flip(1)  # first True position at or after each one
    following = torch.cat([nearest[:, 1:], torch.full_like(nearest[:, :1], width)], dim=1)
    return padded.gather(1, following)
