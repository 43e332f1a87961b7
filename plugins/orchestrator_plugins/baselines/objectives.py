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
    Reduction,
    Terms,
    Weights,
    clipped_surrogate,
    clipped_value_loss,
    cross_entropy,
    importance_ratio,
    kl_estimate,
    masked_sum,
)

from .config import ClippedConfig, CrossEntropyConfig, ReinforceConfig

LOGPROB = Need(Weights.CURRENT, Column.LOGPROB)
ENTROPY = Need(Weights.CURRENT, Column.ENTROPY)
VALUE = Need(Weights.CURRENT, Column.VALUE)
OLD_LOGPROB = Need(Weights.OLD, Column.LOGPROB)
OLD_VALUE = Need(Weights.OLD, Column.VALUE)
REFERENCE_LOGPROB = Need(Weights.REFERENCE, Column.LOGPROB)


class Clipped:
    """Clipped surrogate, with KL, entropy bonus and critic where their weights are above 0."""

    couples = Couples.ROWS

    def __init__(self, config: ClippedConfig):
        self.config = config
        needs = {LOGPROB, OLD_LOGPROB} | _regulariser_needs(config)
        if config.value_weight > 0:
            needs |= {VALUE} if config.value_clip is None else {VALUE, OLD_VALUE}
        self.needs = frozenset(needs)

    def terms(self, batch: Batch, current: Mapping[Column, Tensor]) -> Terms:
        config, mask = self.config, batch.mask
        advantages = _advantages(batch, "clipped")
        logprobs, old_logprobs = current[Column.LOGPROB], batch.columns[OLD_LOGPROB]
        policy = clipped_surrogate(
            logprobs,
            old_logprobs,
            advantages,
            mask,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            dual_clip=config.dual_clip,
        )
        loss = [LossTerm(name="policy", values=policy, reduction=config.reduction)]
        metrics = _clip_metrics(config, logprobs.detach(), old_logprobs, advantages, mask)
        _regularise(config, batch, current, loss, metrics)
        if config.value_weight > 0:
            loss.append(self._critic(batch, current[Column.VALUE]))
        return Terms(loss=tuple(loss), metrics=metrics)

    def _critic(self, batch: Batch, values: Tensor) -> LossTerm:
        if batch.returns is None:
            raise ValueError(
                "objective clipped has value_weight > 0 but the advantage estimator sets no returns for a critic; "
                "use one that does, such as gae, or set objective.value_weight to 0"
            )
        old_values = values.detach() if self.config.value_clip is None else batch.columns[OLD_VALUE]
        return LossTerm(
            name="value",
            values=clipped_value_loss(values, old_values, batch.returns, batch.mask, clip=self.config.value_clip),
            reduction=Reduction.TOKEN_MEAN,
            coefficient=self.config.value_weight,
        )


class Reinforce:
    """Log-probability times advantage. On-policy only: nothing corrects a second step on the same rollouts."""

    couples = Couples.ROWS

    def __init__(self, config: ReinforceConfig):
        self.config = config
        self.needs = frozenset({LOGPROB} | _regulariser_needs(config))

    def terms(self, batch: Batch, current: Mapping[Column, Tensor]) -> Terms:
        losses = torch.where(batch.mask, -current[Column.LOGPROB] * _advantages(batch, "reinforce"), 0.0)
        loss = [LossTerm(name="policy", values=losses, reduction=self.config.reduction)]
        metrics: dict[str, Mean] = {}
        _regularise(self.config, batch, current, loss, metrics)
        return Terms(loss=tuple(loss), metrics=metrics)


class CrossEntropy:
    """Negative log-likelihood of the rows' tokens, whatever their rewards."""

    couples = Couples.ROWS
    needs = frozenset({LOGPROB})

    def __init__(self, config: CrossEntropyConfig):
        self.config = config

    def terms(self, batch: Batch, current: Mapping[Column, Tensor]) -> Terms:
        values, mask = cross_entropy(current[Column.LOGPROB], batch.mask), batch.mask
        own_mask = None
        if self.config.rows == "demonstrations":
            own_mask = mask = mask & batch.demonstration[:, None]
        term = LossTerm(name="policy", values=values, reduction=self.config.reduction, mask=own_mask)
        return Terms(loss=(term,), metrics={"train/cross_entropy": _mean(values, mask)})


def _regulariser_needs(config: ClippedConfig | ReinforceConfig) -> set[Need]:
    needs = {REFERENCE_LOGPROB} if config.kl_weight > 0 else set()
    return needs | ({ENTROPY} if config.entropy_weight > 0 else set())


def _regularise(
    config: ClippedConfig | ReinforceConfig,
    batch: Batch,
    current: Mapping[Column, Tensor],
    loss: list[LossTerm],
    metrics: dict[str, Mean],
) -> None:
    """Append the KL and entropy terms whose weights are above 0, and their metrics."""
    if config.kl_weight > 0:
        reference = batch.columns[REFERENCE_LOGPROB]
        kl = kl_estimate(current[Column.LOGPROB], reference, batch.mask, estimator=config.kl_estimator)
        loss.append(LossTerm(name="kl", values=kl, reduction=config.reduction, coefficient=config.kl_weight))
        metrics["train/kl_reference"] = _mean(kl, batch.mask)
    if config.entropy_weight > 0:
        entropy = current[Column.ENTROPY]
        loss.append(
            LossTerm(name="entropy", values=entropy, reduction=config.reduction, coefficient=-config.entropy_weight)
        )
        metrics["train/entropy"] = _mean(entropy, batch.mask)


def _clip_metrics(
    config: ClippedConfig, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor
) -> dict[str, Mean]:
    ratio = importance_ratio(logprobs, old_logprobs, mask)
    stopped = ((advantages > 0) & (ratio > 1 + config.clip_high)) | ((advantages < 0) & (ratio < 1 - config.clip_low))
    return {
        "train/clip_fraction": _mean(stopped.to(ratio.dtype), mask),
        "train/approx_kl": _mean(kl_estimate(old_logprobs, logprobs, mask, estimator="k3"), mask),
    }


def _advantages(batch: Batch, objective: str) -> Tensor:
    if batch.advantages is None:
        raise ValueError(
            f"objective {objective} needs advantages and the batch has none; name an estimator, "
            f"as in `advantage: {{use: group_mean}}`"
        )
    return batch.advantages


def _mean(values: Tensor, mask: Tensor) -> Mean:
    return Mean(masked_sum(values.detach(), mask), mask.sum())
