"""The objective: exploration by the rollouts, imitation of the demonstration, and a regulariser between them.

Kept from GRPO: the group and its standardised rewards. Changed: the demonstration is a member with an advantage of
its own, likelihoods are normalised by length. Left out: ratio, clip, KL; so take one optimiser step per batch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from orchestrator.api import Batch, Column, Couples, LossTerm, Mean, Need, Reduction, Terms, Weights, advantages_of

from .alignment import Alignment, alignment_terms
from .config import GraoConfig


class Grao:
    """Minus the mean over groups of exploration, weighted imitation and weighted alignment.

    A group without a demonstration only explores.
    """

    couples = Couples.GROUPS  # the demonstration's weight depends on its siblings
    needs = frozenset({Need(Weights.CURRENT, Column.LOGPROB)})
    corrections = ()

    def __init__(self, config: GraoConfig):
        self.config = config

    def terms(self, batch: Batch, current: Mapping[Column, Tensor]) -> Terms:
        """The terms ``policy`` (exploration), ``imitation`` and ``alignment``, one value per group."""
        found = alignment_terms(
            current[Column.LOGPROB], advantages_of(batch), batch.mask, batch.group, batch.demonstration
        )
        weighted = {
            "policy": (found.exploration, self.config.exploration_weight),
            "imitation": (found.imitation, self.config.imitation_weight),
            "alignment": (found.alignment, self.config.alignment_weight),
        }
        loss = tuple(
            LossTerm(name=name, values=-values, reduction=Reduction.GROUP_MEAN, coefficient=weight)
            for name, (values, weight) in weighted.items()
        )
        return Terms(loss=loss, metrics=_metrics(found, weighted))


def _metrics(found: Alignment, weighted: Mapping[str, tuple[Tensor, float]]) -> dict[str, Mean]:
    sizes = {name: (weight * values).detach().abs().sum() for name, (values, weight) in weighted.items()}
    total = torch.stack(list(sizes.values())).sum()
    shares = {f"grao/share/{name}": Mean(size, total) for name, size in sizes.items()}
    return shares | {"grao/demonstration_logprob": Mean(found.likelihood.detach().sum(), len(found.likelihood))}
