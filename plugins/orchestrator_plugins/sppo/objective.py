"""The objective: a step of multiplicative weights against oneself, learnt as a regression.

Kept from DPO in rounds: samples, reference and summed log-ratios of the last round's policy. Changed: every answer's own
log-ratio is regressed on its win rate, so the winner's likelihood rises instead of the gap alone, and preferences need
not come from a scalar. Left out: KL, clip, importance weights, normalised advantages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

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
    expect_shape,
    sequence_sum,
)

from .config import SppoConfig
from .game import Table, best_and_worst, bradley_terry, lay_out, sampled_log_partition, win_rates

LOGPROB = Need(Weights.CURRENT, Column.LOGPROB)
REFERENCE_LOGPROB = Need(Weights.REFERENCE, Column.LOGPROB)


class Sppo:
    """Mean over the chosen answers of (log-ratio - (step_size x win rate - log Z)) squared."""

    couples = Couples.GROUPS
    needs = frozenset({LOGPROB, REFERENCE_LOGPROB})
    # which answers are chosen follows from scores and win rates
    facts = Facts(least_siblings=2, counts_ahead=True, corrections=("sequence",))

    def __init__(self, config: SppoConfig):
        self.config = config

    def terms(self, batch: Batch, current: Mapping[Column, Tensor]) -> Terms:
        """The squared error as the term ``policy``, one value per row.

        Win rates come from ``batch.against``; without it from the scores by Bradley-Terry.

        :raises ValueError: when ``batch.against`` is not [B, at least G]
        """
        ratios = sequence_sum(current[Column.LOGPROB] - batch.columns[REFERENCE_LOGPROB], batch.mask)
        table = lay_out(batch.group)
        against = _against(batch, table).to(ratios.dtype)
        rates = win_rates(against)
        best, worst = best_and_worst(batch.rewards, rates, table)
        chances = self._chances(rates, against, table, best, worst)
        step_size, share = self.config.step_size, self.config.log_partition
        if share == "sample":
            log_partition = sampled_log_partition(rates, table, step_size)[table.home]
        else:
            log_partition = torch.full_like(rates, step_size * share)
        targets = (step_size * chances - log_partition).detach()
        term = LossTerm(name="policy", values=(ratios - targets).square(), reduction=Reduction.SEQUENCE_MEAN)
        if self.config.selection == "best_worst":
            chosen = torch.zeros_like(batch.demonstration)
            chosen[best] = chosen[worst] = True
            term = replace(term, mask=chosen)
        return Terms(loss=(term,), metrics=_metrics(ratios.detach(), targets, rates, best, worst, len(table.present)))

    def _chances(self, rates: Tensor, against: Tensor, table: Table, best: Tensor, worst: Tensor) -> Tensor:
        """[B] what stands for the probability of winning."""
        if self.config.comparison == "win_rate":
            return rates
        chances = rates.clone()
        if self.config.comparison == "hard":
            chances[best], chances[worst] = 1.0, 0.0
        else:
            duel = against[best, table.place[worst]]
            duel = torch.where(duel.isnan(), 0.5, duel)  # never compared: no order, no move
            chances[best], chances[worst] = duel, 1 - duel
        return chances


def _against(batch: Batch, table: Table) -> Tensor:
    if batch.against is None:
        return bradley_terry(batch.rewards, table)
    expect_shape(batch.against, "B G", like={"B": len(batch.rewards)}, name="batch.against")
    if batch.against.shape[1] < table.present.shape[1]:
        raise ValueError(
            f"batch.against has {batch.against.shape[1]} columns for groups of up to {table.present.shape[1]} siblings"
        )
    return batch.against


def _metrics(
    ratios: Tensor, targets: Tensor, rates: Tensor, best: Tensor, worst: Tensor, groups: int
) -> dict[str, Mean]:
    pairs = len(best)
    return {
        "sppo/best": Mean(ratios[best].sum(), pairs),
        "sppo/worst": Mean(ratios[worst].sum(), pairs),
        "sppo/best_raised": Mean((ratios[best] > 0).sum(), pairs),
        "sppo/target/best": Mean(targets[best].sum(), pairs),
        "sppo/win_rate/gap": Mean((rates[best] - rates[worst]).sum(), pairs),
        "sppo/pairs": Mean(pairs, groups),
    }
