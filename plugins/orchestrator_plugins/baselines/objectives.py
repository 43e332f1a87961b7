"""Objectives: clipped surrogate, REINFORCE, cross-entropy.

``clipped`` keeps PPO's surrogate, entropy bonus and critic loss; adds asymmetric bounds (DAPO), a second clip for
negative advantages (Ye et al.) and a KL to the reference in the loss (DeepSeekMath); leaves out PPO's adaptive KL.
With infinite bounds, or on the first step of an update, its gradient is that of ``reinforce``.
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
    cross_entropy,
    importance_ratio,
    is_clipped,
    kl_estimate,
)

from .config import ClippedConfig, CrossEntropyConfig, ReinforceConfig

LOGPROB = Need(Weights.CURRENT, Column.LOGPROB)
OLD_LOGPROB = Need(Weights.OLD, Column.LOGPROB)


class Clipped:
    """Clipped surrogate, with KL, entropy bonus and critic where their weights are above 0."""

    couples = Couples.ROWS
    corrections = ("token", "sequence")

    def __init__(self, config: ClippedConfig):
        self.config = config
        self._regulariser = Regulariser(
            objective="clipped",
            reduction=config.reduction,
            kl_weight=config.kl_weight,
            kl_estimator=config.kl_estimator,
            entropy_weight=config.entropy_weight,
            value_weight=config.value_weight,
            value_clip=config.value_clip,
        )
        self.needs = frozenset({LOGPROB, OLD_LOGPROB}) | self._regulariser.needs
        self.needs_returns = self._regulariser.needs_returns
        self.vanishes_with_advantages = self._regulariser.adds_nothing

    def terms(self, batch: Batch, current: Mapping[Column, Tensor]) -> Terms:
        config, mask = self.config, batch.mask
        advantages = advantages_of(batch)
        logprobs, old_logprobs = current[Column.LOGPROB], batch.columns[OLD_LOGPROB]
        values = clipped_surrogate(
            logprobs,
            old_logprobs,
            advantages,
            mask,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            dual_clip=config.dual_clip,
        )
        policy = LossTerm(name="policy", values=values, reduction=config.reduction)
        others, metrics = self._regulariser.terms(batch, current)
        return Terms(
            loss=(policy, *others),
            metrics=_clip_metrics(config, logprobs.detach(), old_logprobs, advantages, mask) | metrics,
        )


class Reinforce:
    """Log-probability times advantage. On-policy only: nothing corrects a second step on the same rollouts."""

    couples = Couples.ROWS
    corrections = ("token", "sequence")

    def __init__(self, config: ReinforceConfig):
        self.config = config
        self._regulariser = Regulariser(
            objective="reinforce",
            reduction=config.reduction,
            kl_weight=config.kl_weight,
            kl_estimator=config.kl_estimator,
            entropy_weight=config.entropy_weight,
        )
        self.needs = frozenset({LOGPROB}) | self._regulariser.needs
        self.vanishes_with_advantages = self._regulariser.adds_nothing

    def terms(self, batch: Batch, current: Mapping[Column, Tensor]) -> Terms:
        losses = torch.where(batch.mask, -current[Column.LOGPROB] * advantages_of(batch), 0.0)
        policy = LossTerm(name="policy", values=losses, reduction=self.config.reduction)
        others, metrics = self._regulariser.terms(batch, current)
        return Terms(loss=(policy, *others), metrics=metrics)


class CrossEntropy:
    """Negative log-likelihood of the rows' tokens, whatever their rewards."""

    couples = Couples.ROWS
    corrections = ("token", "sequence")
    needs = frozenset({LOGPROB})

    def __init__(self, config: CrossEntropyConfig):
        self.config = config

    def terms(self, batch: Batch, current: Mapping[Column, Tensor]) -> Terms:
        values, mask = cross_entropy(current[Column.LOGPROB], batch.mask), batch.mask
        own_mask = None
        if self.config.rows == "demonstrations":
            own_mask = mask = mask & batch.demonstration[:, None]
        term = LossTerm(name="policy", values=values, reduction=self.config.reduction, mask=own_mask)
        return Terms(loss=(term,), metrics={"train/cross_entropy": Mean.over(values, mask)})


def _clip_metrics(
    config: ClippedConfig, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor
) -> dict[str, Mean]:
    ratio = importance_ratio(logprobs, old_logprobs, mask)
    stopped = is_clipped(ratio, advantages, mask, clip_low=config.clip_low, clip_high=config.clip_high)
    return {
        "train/clip_fraction": Mean.over(stopped, mask),
        "train/approx_kl": Mean.over(kl_estimate(old_logprobs, logprobs, mask, estimator="k3"), mask),
    }
