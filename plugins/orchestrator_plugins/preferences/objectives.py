"""Objectives over pairs of siblings: DPO and IPO.

Kept from the papers: the losses, the reference, log-probabilities summed over the answer. Changed: pairs are not given
but found among the siblings of a group by their scores, so any sampler and any reward will do, and rounds
(``schedule.steps_per_round``, ``refresh_reference: round``) make the method iterative. Left out: label smoothing,
normalisation by length.
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

from .config import DpoConfig, IpoConfig, PairConfig
from .pairs import best_and_worst, ordered_pairs

LOGPROB = Need(Weights.CURRENT, Column.LOGPROB)
REFERENCE_LOGPROB = Need(Weights.REFERENCE, Column.LOGPROB)


class _Pairwise:
    """Mean over the groups that have a pair of the mean over their pairs of a loss of the implicit rewards' margin."""

    couples = Couples.GROUPS
    needs = frozenset({LOGPROB, REFERENCE_LOGPROB})
    # which groups have a pair follows from the scores; a pair is no sample of either policy
    facts = Facts(least_siblings=2, counts_ahead=True, corrections=())

    def __init__(self, config: PairConfig):
        self.config = config

    def loss(self, margins: Tensor) -> Tensor:
        """Loss of each pair.

        :param margins: [M] implicit reward of the better answer minus that of the worse
        """
        raise NotImplementedError

    def terms(self, batch: Batch, current: Mapping[Column, Tensor]) -> Terms:
        """The pairwise loss as the term ``policy``, one value per group; groups of ties stay out of the mean."""
        ratios = sequence_sum(current[Column.LOGPROB] - batch.columns[REFERENCE_LOGPROB], batch.mask)
        rewards = self.config.kl_weight * ratios
        choose = best_and_worst if self.config.pairs == "best_worst" else ordered_pairs
        better, worse = choose(batch.rewards, batch.group)
        margins = rewards[better] - rewards[worse]
        values, known = _group_means(self.loss(margins), batch.group, better)
        term = LossTerm(name="policy", values=values, reduction=Reduction.GROUP_MEAN, mask=known)
        return Terms(loss=(term,), metrics=_metrics(rewards.detach(), better, worse, len(known)))


class Dpo(_Pairwise):
    r"""Logistic loss of the margin, :math:`-\log \sigma(R_w - R_l)` with :math:`R = \beta(\ell - \ell^{ref})`.

    Source: Rafailov et al. 2023 (arXiv:2305.18290), eq. 7.
    """

    def __init__(self, config: DpoConfig):
        super().__init__(config)

    def loss(self, margins: Tensor) -> Tensor:
        return -torch.nn.functional.logsigmoid(margins)


class Ipo(_Pairwise):
    r"""Squared distance of the margin from a wanted one, :math:`(R_w - R_l - m)^2`.

    Source: Azar et al. 2023 (arXiv:2310.12036), eq. 17, in the form of arXiv:2410.06293, where m is 1/tau.
    """

    def __init__(self, config: IpoConfig):
        super().__init__(config)
        self.margin = config.margin

    def loss(self, margins: Tensor) -> Tensor:
        return (margins - self.margin).square()


def _group_means(values: Tensor, group: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
    """[N] mean over each group's pairs, 0 where it has none; [N] whether it has any."""
    index, count = group_index(group)
    home = index[member]
    totals = values.new_zeros(count).index_add(0, home, values)
    pairs = torch.bincount(home, minlength=count)
    return totals / pairs.clamp(min=1), pairs > 0


def _metrics(rewards: Tensor, better: Tensor, worse: Tensor, groups: int) -> dict[str, Mean]:
    chosen, rejected, count = rewards[better], rewards[worse], len(better)
    return {
        "preferences/accuracy": Mean((chosen > rejected).sum(), count),
        "preferences/chosen": Mean(chosen.sum(), count),
        "preferences/rejected": Mean(rejected.sum(), count),
        "preferences/chosen_raised": Mean((chosen > 0).sum(), count),
        "preferences/pairs": Mean(count, groups),
    }
