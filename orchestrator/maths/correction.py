"""Weights that correct what was sampled by one program, or by older weights, and is trained by another.

The ratio is the trainer's probability at the start of the update over the one recorded when acting. Token weights correct
each token's distribution and leave the states it was reached through as they were visited; a sequence's weight, the product
over its tokens, corrects both, with a variance that grows with the length.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from orchestrator.maths.masked import sequence_sum
from orchestrator.maths.ratios import LOG_RATIO_BOUND, importance_ratio


def behaviour_ratio(
    old_logprobs: Tensor, behaviour_logprobs: Tensor, mask: Tensor, *, level: Literal["token", "sequence"]
) -> Tensor:
    r"""Ratio of the trainer's probability to the recorded one, of each token or of each row's tokens together.

    .. math:: \rho_t = \pi_{old}(a_t) / \mu(a_t), \qquad \rho = \prod_t \rho_t

    :param old_logprobs: [B, T], nats: recomputed by the trainer with the weights at the start of the update
    :param behaviour_logprobs: [B, T], nats: as recorded by what acted
    :param mask: [B, T] bool; what stands where it is False has no effect
    :param level: ``token``: [B, T], 1 where ``mask`` is False; ``sequence``: [B]
    :returns: no gradient; logs are clamped to ±20 nats, a sequence's after the sum
    :raises ValueError: when shapes differ
    Source: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training" (tokens); Liu, Li et
    al. 2025, "When speed kills stability", sec. 4.2.1 (sequences); with older weights: Hilton et al. 2021
    (arXiv:2110.00641), whose proximal policy is the old one here.
    """
    old_logprobs = old_logprobs.detach()
    if level == "token":
        return importance_ratio(old_logprobs, behaviour_logprobs, mask)
    if old_logprobs.shape != behaviour_logprobs.shape:
        raise ValueError(
            f"behaviour_ratio: old_logprobs have shape {list(old_logprobs.shape)} and behaviour_logprobs "
            f"{list(behaviour_logprobs.shape)}; expected the same"
        )
    return sequence_sum(old_logprobs - behaviour_logprobs, mask).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp()


def truncated_weights(ratio: Tensor, *, cap: float) -> Tensor:
    r"""Truncated importance sampling (TIS): large ratios count as the cap, small ones as they are.

    .. math:: w = \min(\rho, C)

    :param ratio: any shape, not negative
    :param cap: C, above 0
    Source: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training", sec. "Truncated
    importance sampling"; Ionides 2008.
    """
    return ratio.clamp(max=cap)


def masked_weights(ratio: Tensor, *, floor: float, cap: float) -> Tensor:
    r"""Masked importance sampling (MIS): what lies beyond the bounds counts nothing, the rest its ratio.

    .. math:: w = \rho\, \mathbb 1\{f \le \rho \le C\}

    :param ratio: any shape, not negative
    :param floor: f; 0: no lower bound, as in MIS
    :param cap: C
    Source: Liu, Li et al. 2025, "When speed kills stability", sec. 4.2.1 (floor 0; sequences and tokens); IcePop, Ring-1T
    report (arXiv:2510.18855), the function M of its objective: tokens, with both bounds, there alpha and beta.
    """
    return torch.where((ratio >= floor) & (ratio <= cap), ratio, 0.0)


def effective_share(total: float, squares: float, count: float) -> float:
    r"""Effective sample size as a share of the samples: 1 where all weights are equal, 0 where there are none.

    .. math:: (\textstyle\sum w)^2 / (n \sum w^2)

    :param total: sum of the weights
    :param squares: sum of their squares
    :param count: n
    Source: Kish 1965.
    """
    return total * total / (count * squares) if squares > 0 else 0.0
