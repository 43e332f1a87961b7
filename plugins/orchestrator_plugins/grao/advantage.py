"""The estimator: rollouts and demonstration standardised in one group."""

from __future__ import annotations

import torch
from torch import Tensor

from orchestrator.api import Batch, Credit, Need, group_index

from .alignment import relative_advantages, relative_alignment_score
from .config import GraoAdvantageConfig, Statistics


class GraoAdvantage:
    """Every token of a row gets the row's standardised reward; the demonstration's row too."""

    needs: frozenset[Need] = frozenset()
    gives_returns = False

    def __init__(self, config: GraoAdvantageConfig):
        self.config = config

    def estimate(self, batch: Batch) -> Credit:
        advantages = relative_advantages(
            batch.rewards, batch.group, batch.demonstration, joint=self.config.statistics is Statistics.JOINT
        )
        if self.config.clip_demonstration:
            advantages = torch.where(batch.demonstration, advantages.clamp(min=0), advantages)
        return Credit(advantages=torch.where(batch.mask, advantages[:, None], 0.0), metrics=_metrics(batch, advantages))


def _metrics(batch: Batch, advantages: Tensor) -> dict[str, float]:
    place, groups = group_index(batch.group)
    shown = batch.demonstration
    largest = torch.zeros(groups, device=advantages.device, dtype=advantages.dtype)
    largest = largest.scatter_reduce(0, place, advantages.abs(), reduce="amax")
    metrics = {"grao/without_signal": float((largest == 0).double().mean()) if groups else 0.0}
    if not bool(shown.any()):
        return metrics
    level = torch.full((groups,), torch.nan, device=shown.device, dtype=batch.rewards.dtype)
    level[place[shown]] = batch.rewards[shown]
    above = (batch.rewards - level[place])[~shown]
    judgements = above[~above.isnan()].tolist()
    return metrics | {
        "grao/demonstration_advantage/mean": float(advantages[shown].mean()),
        "grao/better_than_demonstration": relative_alignment_score(judgements),
        "grao/as_good_as_demonstration": relative_alignment_score(judgements, count_ties=True),
    }
