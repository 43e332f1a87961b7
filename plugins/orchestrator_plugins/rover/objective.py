"""The objective: the policy as its own action values, regressed on the random policy's valuation.

Kept from REINFORCE with a group mean: the sampled groups, centred rewards, and the first optimiser step of every
batch, which is 2 x ``q_temperature`` times that one. Changed: from the second step on the squared error bounds how
far a batch moves the policy, and the bootstrap holds the next distribution open. Left out: clip, KL, critic.
"""

from __future__ import annotations

from collections.abc import Mapping

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
    advantages_of,
)

from .config import RoverConfig
from .valuation import Valuation, valuation

OLD_LOGPROB = Need(Weights.OLD, Column.LOGPROB)
OLD_VOCAB_MEAN = Need(Weights.OLD, Column.VOCAB_MEAN_LOGPROB)


class Rover:
    """Squared error between the policy's action values and their one-step targets, mean over all tokens."""

    couples = Couples.ROWS
    corrections = ("token", "sequence")
    needs = frozenset(
        {
            Need(Weights.CURRENT, Column.LOGPROB),
            Need(Weights.CURRENT, Column.VOCAB_MEAN_LOGPROB),
            OLD_LOGPROB,
            OLD_VOCAB_MEAN,
        }
    )

    def __init__(self, config: RoverConfig):
        self.config = config

    def terms(self, batch: Batch, current: Mapping[Column, Tensor]) -> Terms:
        """The squared error as the term ``policy``."""
        config = self.config
        found = valuation(
            current[Column.LOGPROB],
            batch.columns[OLD_LOGPROB],
            current[Column.VOCAB_MEAN_LOGPROB],
            batch.columns[OLD_VOCAB_MEAN],
            advantages_of(batch),
            batch.mask,
            q_temperature=config.q_temperature,
            bootstrap_weight=config.bootstrap_weight,
            across_turns=config.across_turns,
        )
        term = LossTerm(name="policy", values=found.error, reduction=Reduction.TOKEN_MEAN)
        return Terms(loss=(term,), metrics=_metrics(found, batch.mask))


def _metrics(found: Valuation, mask: Tensor) -> dict[str, Mean]:
    return {
        "rover/q/mean": Mean.over(found.values, mask),
        "rover/q/abs": Mean.over(found.values.abs(), mask),
        "rover/bootstrap/mean": Mean.over(found.bootstrap, mask),
        "rover/bootstrap/abs": Mean.over(found.bootstrap.abs(), mask),
    }
