"""The objective: policy gradient of pairs of siblings.

Kept from PPO: reuse of sampled responses, the clipped surrogate (literally, with ``clipping: separate``). Changed: the
advantage is what a response is worth more than a sibling, so whatever a reward adds to all answers of a prompt drops
out; a response is one action with one ratio; the KL to the reference is part of the reward. Left out: critic, GAE,
whitening of advantages.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from orchestrator.api import (
    Batch,
    Column,
    Couples,
    Facts,
    LossTerm,
    Mean,
    Need,
    Reduction,
    Terms,
    Weights,
    group_index,
    sequence_sum,
)

from .config import P3OConfig
from .pairs import joint_clipping, separate_clipping, sibling_pairs

LOGPROB = Need(Weights.CURRENT, Column.LOGPROB)
OLD_LOGPROB = Need(Weights.OLD, Column.LOGPROB)
REFERENCE_LOGPROB = Need(Weights.REFERENCE, Column.LOGPROB)


class P3O:
    """Mean over groups of the mean over sibling pairs of a pairwise clipped loss."""

    couples = Couples.GROUPS
    facts = Facts(least_siblings=2, corrections=())

    def __init__(self, config: P3OConfig):
        self.config = config
        self.needs = frozenset({LOGPROB, OLD_LOGPROB} | ({REFERENCE_LOGPROB} if config.kl_weight > 0 else set()))

    def terms(self, batch: Batch, current: Mapping[Column, Tensor]) -> Terms:
        """The pairwise loss as the term ``policy``, one value per group.

        Rows that no policy sampled (demonstrations) have no ratio to speak of and stay out of all pairs. A group
        without a pair is worth 0 and counts as a group.
        """
        config = self.config
        logprobs = sequence_sum(current[Column.LOGPROB], batch.mask)
        old_logprobs = sequence_sum(batch.columns[OLD_LOGPROB], batch.mask)
        worth = batch.rewards.to(logprobs.dtype)
        metrics: dict[str, Mean] = {}
        if config.kl_weight > 0:
            reference = sequence_sum(batch.columns[REFERENCE_LOGPROB], batch.mask)
            kl = (logprobs.detach() if config.kl_at == "current" else old_logprobs) - reference
            worth = worth - config.kl_weight * kl
            metrics["train/kl_reference"] = Mean(kl.sum(), batch.mask.sum())
        first, second = sibling_pairs(batch.group, ~batch.demonstration, disjoint=config.pairing == "disjoint")
        pairs = torch.stack([first, second], dim=1)
        loss = separate_clipping if config.clipping == "separate" else joint_clipping
        difference = worth[first] - worth[second]
        found = loss(logprobs[pairs], old_logprobs[pairs], difference, clip=config.clip, max_weight=config.max_weight)
        term = LossTerm(
            name="policy", values=_group_means(found.values, batch.group, first), reduction=Reduction.GROUP_MEAN
        )
        metrics |= {
            "train/clip_fraction": Mean(found.clipped.sum(), len(first)),
            "p3o/difference/abs": Mean(difference.abs().sum(), len(first)),
            "p3o/log_ratio/abs": Mean((logprobs - old_logprobs).detach().abs().sum(), len(logprobs)),
        }
        return Terms(loss=(term,), metrics=metrics)


def _group_means(values: Tensor, group: Tensor, first: Tensor) -> Tensor:
    """[N] mean over each group's pairs, 0 where it has none."""
    index, count = group_index(group)
    home = index[first]
    totals = values.new_zeros(count).index_add(0, home, values)
    pairs = values.new_zeros(count).index_add(0, home, torch.ones_like(values.detach()))
    return totals / pairs.clamp(min=1)
