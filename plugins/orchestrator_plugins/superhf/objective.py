"""The objective: likelihood of the kept rollouts, and how far the whole distribution has moved.

Kept from supervised training: the token mean of the cross-entropy. Changed: a forward KL from the frozen initial
policy, over the whole vocabulary. Left out: the inverse-loss penalty of the code (0 by default).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from orchestrator.api import (
    Batch,
    Column,
    Couples,
    LossTerm,
    Mean,
    Need,
    Reduction,
    Terms,
    Weights,
    cross_entropy,
    expect_shape,
    masked_mean,
)

from .config import SuperHFConfig

LOGPROB = Need(Weights.CURRENT, Column.LOGPROB)
LOGITS = Need(Weights.CURRENT, Column.LOGITS)
REFERENCE_LOGITS = Need(Weights.REFERENCE, Column.LOGITS)


class SuperHF:
    """Cross-entropy of every row, plus a weighted KL that keeps the policy near where it started."""

    couples = Couples.ROWS
    corrections = ("token", "sequence")

    def __init__(self, config: SuperHFConfig):
        self.config = config
        self._measures = config.kl_weight > 0 or config.measure_kl
        self.needs = frozenset({LOGPROB, LOGITS, REFERENCE_LOGITS} if self._measures else {LOGPROB})

    def terms(self, batch: Batch, current: Mapping[Column, Tensor]) -> Terms:
        """The terms ``policy`` and ``kl``; the latter is left out where its weight is 0."""
        mask = batch.mask
        likelihood = cross_entropy(current[Column.LOGPROB], mask)
        loss = [LossTerm(name="policy", values=likelihood, reduction=Reduction.TOKEN_MEAN)]
        metrics = {"superhf/cross_entropy": Mean.over(likelihood, mask)}
        if self._measures:
            kl = forward_kl(current[Column.LOGITS], batch.columns[REFERENCE_LOGITS], mask)
            metrics["superhf/kl"] = Mean.over(kl, mask)
            if self.config.kl_weight > 0:
                loss.append(
                    LossTerm(name="kl", values=kl, reduction=Reduction.SEQUENCE_MEAN, coefficient=self.config.kl_weight)
                )
        return Terms(loss=tuple(loss), metrics=metrics)


def forward_kl(logits: Tensor, reference_logits: Tensor, mask: Tensor) -> Tensor:
    r"""Exact divergence of the policy from the reference, per token.

    .. math:: \sum_v \pi_0(v) (\log \pi_0(v) - \log \pi(v))

    :param logits: [B, T, V] that the token at each position was chosen from, differentiable
    :param reference_logits: [B, T, V], no gradient
    :param mask: [B, T] bool
    :returns: [B, T] nats, 0 where ``mask`` is False, and in rows whose mean rounding makes negative
    :raises ValueError: when shapes differ
    Source: arXiv:2310.16763; direction, alignment and the bound at 0 per row after the released code.

    Deviation: the released code reads the logits one position late; here each token has the distribution it was
    chosen from.
    """
    expect_shape(reference_logits, "B T V", like=logits, name="reference_logits")
    expect_shape(mask, "B T", like={"B": logits.shape[0], "T": logits.shape[1]}, name="mask")
    shown = mask[..., None]
    policy = torch.where(shown, logits, 0.0).log_softmax(-1)
    reference = torch.where(shown, reference_logits.detach(), 0.0).log_softmax(-1)
    values = torch.where(mask, (reference.exp() * (reference - policy)).sum(-1), 0.0)
    rows = masked_mean(values.detach(), mask, dim=1)
    return torch.where((rows > 0)[:, None], values, 0.0)
