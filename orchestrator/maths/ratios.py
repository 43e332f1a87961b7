"""How much likelier an action became: log-ratios and importance ratios, bounded."""

from __future__ import annotations

import torch
from torch import Tensor

LOG_RATIO_BOUND = 20.0
"""Log-ratios are clamped to ±20 nats: exp(20) is about 4.9e8, whose square is still finite in float32."""


def log_ratio(logprobs: Tensor, other_logprobs: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Log of the importance ratio, clamped to ±20 nats.

    .. math:: \log \rho_t = \log \pi(a_t) - \log \mu(a_t)

    :param logprobs: nats, differentiable; any shape
    :param other_logprobs: nats, same shape
    :param mask: same shape; the result is 0, without gradient, where it is False
    :raises ValueError: when shapes differ

    Beyond the clamp the gradient is 0.
    """
    if logprobs.shape != other_logprobs.shape:
        raise ValueError(
            f"log_ratio: logprobs have shape {list(logprobs.shape)} and other_logprobs {list(other_logprobs.shape)}; "
            f"expected the same"
        )
    if mask is not None:
        logprobs = torch.where(mask, logprobs, 0.0)
        other_logprobs = torch.where(mask, other_logprobs, 0.0)
    return (logprobs - other_logprobs).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)


def importance_ratio(logprobs: Tensor, other_logprobs: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Importance ratio of each token, between exp(-20) and exp(20).

    .. math:: \rho_t = \pi(a_t) / \mu(a_t)

    :param mask: the result is 1, without gradient, where it is False
    :raises ValueError: when shapes differ
    """
    return log_ratio(logprobs, other_logprobs, mask).exp()
