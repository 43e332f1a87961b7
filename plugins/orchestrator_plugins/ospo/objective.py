"""The objective ``pair_clipped``: PPO's surrogate with a higher upper bound, entropy, and a KL over all requests.

Kept from the released code of arXiv:2507.15351: bounds, entropy weight, a KL that is the mean over requests. Left out:
its rules of when the KL sets in and doubles, and the reference that follows the best evaluation; the reference here is
the core's.
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
    Regulariser,
    Terms,
    Weights,
    advantages_of,
    clipped_surrogate,
    importance_ratio,
    is_clipped,
)

from .config import PairClippedConfig

LOGPROB = Need(Weights.CURRENT, Column.LOGPROB)
LOGITS = Need(Weights.CURRENT, Column.LOGITS)
OLD_LOGPROB = Need(Weights.OLD, Column.LOGPROB)
REFERENCE_LOGITS = Need(Weights.REFERENCE, Column.LOGITS)
OFFERED = -1e8  # logits below it are those of requests that were not there


def request_kl(logits: Tensor, reference: Tensor, *, direction: str = "current_reference") -> Tensor:
    """KL between two distributions over the offered requests, divided by how many there are.

    :param logits: [B, T, M]; -1e9 where no request is
    :param reference: [B, T, M]
    :param direction: ``current_reference`` weighs by the current distribution, ``reference_current`` by the reference,
        ``both`` averages the two
    :returns: [B, T]; 0 where nothing was offered
    Source: released code of arXiv:2507.15351, which averages over requests where a KL would add.
    """
    offered = logits > OFFERED
    current, other = torch.log_softmax(logits, -1), torch.log_softmax(reference, -1)
    difference = torch.where(offered, current - other, 0.0)
    weights = {
        "current_reference": current.exp(),
        "reference_current": -other.exp(),
        "both": (current.exp() - other.exp()) / 2,
    }[direction]
    return (weights * difference).sum(-1) / offered.sum(-1).clamp(min=1)


class PairClipped:
    """Clipped surrogate over the decisions of a fleet."""

    couples = Couples.ROWS
    corrections = ("token", "sequence")

    def __init__(self, config: PairClippedConfig):
        self.config = config
        self._regulariser = Regulariser(
            objective="pair_clipped", reduction=config.reduction, entropy_weight=config.entropy_weight
        )
        needs = {LOGPROB, OLD_LOGPROB} | self._regulariser.needs
        if config.kl_weight > 0:
            needs |= {LOGITS, REFERENCE_LOGITS}
        self.needs = frozenset(needs)
        self.vanishes_with_advantages = config.kl_weight == 0 and self._regulariser.adds_nothing

    def terms(self, batch: Batch, current: Mapping[Column, Tensor]) -> Terms:
        """Surrogate, entropy and KL, per decision."""
        config, mask, advantages = self.config, batch.mask, advantages_of(batch)
        logprobs, old = current[Column.LOGPROB], batch.columns[OLD_LOGPROB]
        bounds = {"clip_low": config.clip_low, "clip_high": config.clip_high}
        surrogate = clipped_surrogate(logprobs, old, advantages, mask, **bounds)
        others, regularised = self._regulariser.terms(batch, current)
        loss = [LossTerm(name="policy", values=surrogate, reduction=config.reduction), *others]
        cut = is_clipped(importance_ratio(logprobs.detach(), old, mask), advantages, mask, **bounds)
        metrics = {"train/clip_fraction": Mean.over(cut, mask)} | regularised
        if config.kl_weight > 0:
            reference = batch.columns[REFERENCE_LOGITS]
            kl = torch.where(mask, request_kl(current[Column.LOGITS], reference, direction=config.kl_direction), 0.0)
            loss.append(LossTerm(name="kl", values=kl, reduction=config.reduction, coefficient=config.kl_weight))
            metrics["train/kl_reference"] = Mean.over(kl, mask)
        return Terms(loss=tuple(loss), metrics=metrics)
