"""Win rates, log-partition and choice of answers for groups laid out as [N, G] tables."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from orchestrator.api import group_index

SAME_RATE = 1e-6
"""Win rates closer than this are equal: sums of the same chances in another order."""


class Table(NamedTuple):
    """Where each row of a batch stands among its siblings."""

    home: Tensor  # [B] int64, 0 to N - 1
    place: Tensor  # [B] int64, 0 to G - 1, in the order of the batch
    present: Tensor  # [N, G] bool

    def spread(self, values: Tensor, fill: float) -> Tensor:
        """[N, G] from [B]; ``fill`` where a group has no such sibling."""
        table = values.new_full(self.present.shape, fill)
        table[self.home, self.place] = values
        return table


def lay_out(group: Tensor) -> Table:
    """Lay siblings out side by side.

    :param group: [B] int64, siblings share a value
    """
    home, count = group_index(group)
    together = group[:, None] == group[None, :]
    place = together.tril(diagonal=-1).sum(1)
    present = torch.zeros(count, int(place.max()) + 1 if len(group) else 0, dtype=torch.bool, device=group.device)
    present[home, place] = True
    return Table(home, place, present)


def bradley_terry(rewards: Tensor, table: Table) -> Tensor:
    """[B, G] probability of beating each sibling, from scalar scores; nan where there is none."""
    return torch.sigmoid(rewards[:, None] - table.spread(rewards, torch.nan)[table.home])


def win_rates(against: Tensor) -> Tensor:
    """[B] mean probability of beating a sibling, itself included; comparisons that are nan are left out.

    Source: arXiv:2405.00675, sec. 4.
    """
    return against.nanmean(1)


def sampled_log_partition(rates: Tensor, table: Table, step_size: float) -> Tensor:
    r"""[N] log of the partition function of the exact update, estimated from the siblings.

    .. math:: \log \hat Z = \log \frac1K \sum_i \exp(\eta \hat p_i)

    Between step_size / 2 and step_size where the win rates average 1/2.
    Source: arXiv:2405.00675, sec. 4.
    """
    return (step_size * table.spread(rates, -torch.inf)).logsumexp(1) - table.present.sum(1).to(rates.dtype).log()


def best_and_worst(rewards: Tensor, rates: Tensor, table: Table) -> tuple[Tensor, Tensor]:
    """[M] rows of the best and of the worst sibling by score, of equal scores by win rate, of equals the first.

    Groups whose siblings are all equal in both have neither: there is nothing to prefer.
    """
    rows = table.spread(torch.arange(len(rewards), device=rewards.device), 0)

    def extreme(sign: int) -> tuple[Tensor, Tensor]:
        scores = table.spread(sign * rewards, -torch.inf)
        leading = scores == scores.max(1, keepdim=True).values
        chances = torch.where(leading & table.present, table.spread(sign * rates, -torch.inf), -torch.inf)
        return torch.stack([scores.max(1).values, chances.max(1).values]) * sign, chances.argmax(1, keepdim=True)

    (high, best), (low, worst) = extreme(1), extreme(-1)
    differ = (high[0] > low[0]) | (high[1] - low[1] > SAME_RATE)
    return rows.gather(1, best).squeeze(1)[differ], rows.gather(1, worst).squeeze(1)[differ]
