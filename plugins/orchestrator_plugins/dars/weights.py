"""The weighting control: DARS's emphasis on hard tasks without its extra rollouts."""

from __future__ import annotations

import torch

from orchestrator.api import Batch, Credit, Need, group_centered, group_index

from .config import DarsWeightsConfig
from .rebalance import extra_rollouts


class DarsWeights:
    """Group-centred rewards, each group's multiplied by n / N: what DARS would sample over what was sampled.

    Tells apart whether DARS gains by what the extra rollouts find or by the larger step on hard tasks alone.
    """

    needs: frozenset[Need] = frozenset()
    gives_returns = False

    def __init__(self, config: DarsWeightsConfig):
        self.config = config

    def estimate(self, batch: Batch) -> Credit:
        centered = group_centered(batch.rewards, batch.group, standardise=self.config.standardise)
        place, groups = group_index(batch.group)
        sizes = torch.bincount(place, minlength=groups).tolist()
        right = torch.bincount(place[batch.rewards >= self.config.success_at], minlength=groups).tolist()
        weights = [self._weight(count, size) for count, size in zip(right, sizes, strict=True)]
        scale = torch.tensor(weights, dtype=centered.dtype, device=centered.device)
        advantages = torch.where(batch.mask, (centered * scale[place])[:, None], 0.0)
        return Credit(advantages=advantages, metrics={"dars/weight/mean": sum(weights) / max(groups, 1)})

    def _weight(self, right: int, size: int) -> float:
        if size < 2:
            return 1.0
        config = self.config
        return 1 + extra_rollouts(right, size, config.max_rollouts, config.schedule, config.standardise) / size
