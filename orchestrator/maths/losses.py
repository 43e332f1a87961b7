"""Per-token losses: clipped surrogates, value losses, cross-entropy, KL estimates. Nothing here divides by a count."""

from __future__ import annotations

import torch
from torch import Tensor

from orchestrator.maths.ratios import importance_ratio, log_ratio


def clipped_surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> Tensor:
    r"""Clipped policy-gradient loss, per token.

    .. math:: -\min(\rho_t A_t,\ \mathrm{clip}(\rho_t, 1-\epsilon_l, 1+\epsilon_h) A_t)

    :param logprobs: [B, T] current policy, nats, differentiable
    :param old_logprobs: [B, T] policy at the start of the update, nats
    :param advantages: [B, T], no gradient
    :param mask: [B, T] bool
    :param clip_low: distance of the lower bound of the ratio from 1, at least 0; infinite: unclipped
    :param clip_high: distance of the upper bound from 1, at least 0; infinite: unclipped
    :param dual_clip: for negative advantages the loss is at most this times the advantage's size; greater than 1
    :returns: [B, T] loss per token, 0 where ``mask`` is False
    :raises ValueError: when shapes differ
    Source: Schulman et al. 2017 (arXiv:1707.06347), eq. 7; asymmetric bounds: DAPO (arXiv:2503.14476), sec. 3.1;
    dual clip: Ye et al. 2020 (arXiv:1912.09729), eq. 5.
    """
    _same_shape("clipped_surrogate", logprobs, advantages=advantages, mask=mask)
    ratio = importance_ratio(logprobs, old_logprobs, mask)
    advantages = torch.where(mask, advantages, 0.0)
    losses = -torch.minimum(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)
    if dual_clip is not None:
        losses = torch.where(advantages < 0, torch.minimum(losses, -dual_clip * advantages), losses)
    return losses


def is_clipped(ratio: Tensor, advantages: Tensor, mask: Tensor, *, clip_low: float, clip_high: float) -> Tensor:
    """Tokens that the bounds leave without gradient: gone too far already in the direction their advantage pushes.

    The second clip of negative advantages is not counted.

    :param ratio: [B, T]
    :param advantages: [B, T]
    :param mask: [B, T] bool
    :returns: [B, T] bool, False where ``mask`` is; an advantage of 0 is never clipped, nor a ratio on the bound
    :raises ValueError: when shapes differ
    """
    _same_shape("is_clipped", ratio, advantages=advantages, mask=mask)
    too_high = (advantages > 0) & (ratio > 1 + clip_high)
    too_low = (advantages < 0) & (ratio < 1 - clip_low)
    return mask & (too_high | too_low)


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip: float | None = None
) -> Tensor:
    r"""Half the squared error of a critic, per token, pessimistic about moves further than ``clip``.

    .. math:: \tfrac12 \max\big((V_t - R_t)^2,\ (V^{old}_t + \mathrm{clip}(V_t - V^{old}_t, -c, c) - R_t)^2\big)

    :param values: [B, T] current critic, differentiable
    :param old_values: [B, T] critic at the start of the update
    :param returns: [B, T] targets
    :param clip: c, in units of the return; None: the plain squared error
    :returns: [B, T], 0 where ``mask`` is False
    :raises ValueError: when shapes differ
    Source: Schulman et al. 2017 (arXiv:1707.06347), eq. 9; the clip is that of the paper's released code.
    """
    _same_shape("clipped_value_loss", values, old_values=old_values, returns=returns, mask=mask)
    values, old_values, returns = (torch.where(mask, tensor, 0.0) for tensor in (values, old_values, returns))
    squares = (values - returns).square()
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        squares = torch.maximum(squares, (near - returns).square())
    return 0.5 * squares


def cross_entropy(logprobs: Tensor, mask: Tensor) -> Tensor:
    """Negative log-likelihood of the chosen tokens, in nats.

    :param logprobs: [B, T] of the chosen tokens, differentiable
    :returns: [B, T], 0 where ``mask`` is False
    :raises ValueError: when shapes differ
    """
    _same_shape("cross_entropy", logprobs, mask=mask)
    return torch.where(mask, -logprobs, 0.0)


def kl_estimate(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, *, estimator: str = "k3") -> Tensor:
    r"""Estimate KL(current ‖ reference) from the chosen tokens, in nats per token.

    With :math:`\log r = \log \pi_{ref} - \log \pi`, clamped to ±20 nats: ``k1`` is :math:`-\log r` (unbiased, may be
    negative), ``k2`` is :math:`\tfrac12 (\log r)^2` (biased, but its gradient on-policy is that of the KL), ``k3`` is
    :math:`r - 1 - \log r` (unbiased, never negative).

    :param logprobs: [B, T] current policy, nats, differentiable
    :param reference_logprobs: [B, T], nats
    :returns: [B, T], 0 where ``mask`` is False
    :raises ValueError: when shapes differ or the estimator is unknown
    Source: Schulman 2020, "Approximating KL divergence" (k1, k2, k3); k3 in a loss: DeepSeekMath (arXiv:2402.03300),
    eq. 4.
    """
    _same_shape("kl_estimate", logprobs, mask=mask)
    log_r = log_ratio(reference_logprobs, logprobs, mask)
    if estimator == "k1":
        return -log_r
    if estimator == "k2":
        return 0.5 * log_r.square()
    if estimator == "k3":
        return torch.expm1(log_r) - log_r
    raise ValueError(f"kl_estimate: no estimator {estimator!r}; expected k1, k2 or k3")


def _same_shape(function: str, first: Tensor, **others: Tensor) -> None:
    for name, other in others.items():
        if other.shape != first.shape:
            raise ValueError(f"{function}: {name} has shape {list(other.shape)}; expected {list(first.shape)}")
