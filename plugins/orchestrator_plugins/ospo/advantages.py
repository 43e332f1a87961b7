"""Credit by comparing vehicles that were matched in the same minute of the same world.

``one_step_group`` keeps a step's own reward only; ``fleet_return`` adds the discounted future; ``fleet_gae`` asks a
critic. A token is one decision of one vehicle; decisions of a vehicle may lie several minutes apart, which discounts
take into account. Kept from the released code: population deviations with 1e-8, the spread term. Changed: groups are
formed by the minute of the decision, never by the minute a sample is stored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from orchestrator.api import Batch, Column, Credit, Need, Weights, whiten

from .config import FleetGaeConfig, FleetReturnConfig, OneStepGroupConfig

EPSILON = 1e-8
OLD_VALUE = Need(Weights.OLD, Column.VALUE)


def standardise_together(values: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Subtract the mean and divide by the population deviation of those with the same key.

    :param values: [B, T]
    :param keys: [B, T] int64, non-negative where ``mask`` is True
    :param mask: [B, T] bool
    :returns: [B, T]; 0 for a value alone with its key, and where masked out
    Source: arXiv:2507.15351, released code; A = (r - mean) / (std + 1e-8) over the vehicles matched in a step.
    """
    result = torch.zeros_like(values)
    if not mask.any():
        return result
    _, place = torch.unique(keys[mask], return_inverse=True)
    chosen = values[mask].double()
    count = torch.zeros(int(place.max()) + 1, dtype=torch.float64, device=values.device)
    count = count.index_add(0, place, torch.ones_like(chosen))
    mean = torch.zeros_like(count).index_add(0, place, chosen) / count
    centred = chosen - mean[place]
    deviation = (torch.zeros_like(count).index_add(0, place, centred**2) / count).sqrt()
    scores = torch.where(count[place] > 1, centred / (deviation[place] + EPSILON), 0.0)
    result[mask] = scores.to(values.dtype)
    return result


def spread_penalty(rewards: Tensor, turn: Tensor, group: Tensor, mask: Tensor, *, fleet: int | None = None) -> Tensor:
    r"""Charge a step for how much it spread the vehicles' incomes.

    .. math:: pen_t = -(\mathrm{std}(s_t) - \mathrm{std}(s_{t-1}))

    with :math:`s_t` the vehicles' totals after step t and the population deviation over the fleet of the group.

    :param rewards: [B, T]
    :param turn: [B, T] int64, the step of each decision
    :param group: [B] int64, rows of one world share a value
    :param fleet: vehicles; those without a row have earned nothing. None: as many as the group has rows
    :returns: [B, T], the same for all decisions of a step; 0 where masked out
    :raises ValueError: ``fleet`` is smaller than a group
    Source: released code of arXiv:2507.15351; not in the abstract.
    """
    penalty = torch.zeros_like(rewards)
    for world in group.unique():
        rows = (group == world).nonzero().squeeze(1)
        size = len(rows) if fleet is None else fleet
        if size < len(rows):
            raise ValueError(f"advantage.fleet is {fleet} but a world has {len(rows)} vehicles")
        taken = mask[rows]
        if not taken.any():
            continue
        steps, place = torch.unique(turn[rows][taken], return_inverse=True)
        gains = torch.zeros(len(rows), len(steps), dtype=torch.float64, device=rewards.device)
        own = torch.arange(len(rows), device=rewards.device)[:, None].expand_as(taken)[taken]
        gains.index_put_((own, place), rewards[rows][taken].double(), accumulate=True)
        totals = gains.cumsum(1)
        mean = totals.sum(0) / size
        variance = ((totals - mean) ** 2).sum(0) / size + (size - len(rows)) / size * mean**2
        deviation = variance.sqrt()
        change = deviation - torch.cat([deviation.new_zeros(1), deviation[:-1]])
        charged = torch.zeros(taken.shape, dtype=rewards.dtype, device=rewards.device)
        charged[taken] = -change[place].to(rewards.dtype)
        penalty[rows] = charged
    return penalty


def spaced_returns(rewards: Tensor, turn: Tensor, mask: Tensor, *, gamma: float) -> Tensor:
    """Discounted reward to go of decisions that lie ``turn`` differences apart. [B, T], 0 where masked out.

    .. math:: G_k = r_k + \\gamma^{t_{k+1} - t_k} G_{k+1}
    """
    returns = torch.zeros_like(rewards)
    later, when = torch.zeros_like(rewards[:, 0]), turn[:, 0]
    for place in reversed(range(rewards.shape[1])):
        here = mask[:, place]
        gap = (when - turn[:, place]).clamp(min=0).to(rewards.dtype)
        total = rewards[:, place] + gamma**gap * later
        returns[:, place] = torch.where(here, total, 0.0)
        later, when = torch.where(here, total, later), torch.where(here, turn[:, place], when)
    return returns


def spaced_advantages(
    rewards: Tensor, values: Tensor, turn: Tensor, mask: Tensor, *, gamma: float, lam: float
) -> Tensor:
    r"""Generalised advantages of decisions that lie ``turn`` differences apart. [B, T], 0 where masked out.

    .. math:: \delta_k = r_k + \gamma^{dt} V_{k+1} - V_k, \quad A_k = \delta_k + \gamma^{dt} \lambda A_{k+1}

    The last decision of a row is followed by nothing. Source: Schulman et al. 2016 (arXiv:1506.02438), eq. 16, for a
    semi-Markov process.
    """
    advantages = torch.zeros_like(rewards)
    zero = torch.zeros_like(rewards[:, 0])
    later, following, when = zero, zero, turn[:, 0]
    for place in reversed(range(rewards.shape[1])):
        here = mask[:, place]
        discount = gamma ** (when - turn[:, place]).clamp(min=0).to(rewards.dtype)
        delta = rewards[:, place] + discount * following - values[:, place]
        total = delta + discount * lam * later
        advantages[:, place] = torch.where(here, total, 0.0)
        later = torch.where(here, total, later)
        following = torch.where(here, values[:, place], following)
        when = torch.where(here, turn[:, place], when)
    return advantages


class OneStepGroup:
    """OSPO: the step's own reward, standardised over those matched in the step, plus the spread term."""

    needs: frozenset[Need] = frozenset()
    gives_returns = False

    def __init__(self, config: OneStepGroupConfig):
        self.config = config

    def estimate(self, batch: Batch) -> Credit:
        scores = standardise_together(batch.turn_rewards, step_keys(batch), batch.mask)
        return _with_spread(batch, scores, self.config.fairness_weight, self.config.fleet)


class FleetReturn:
    """GRPO for a fleet: rewards to go, standardised over those matched in the step; or the released code's form."""

    needs: frozenset[Need] = frozenset()
    gives_returns = False

    def __init__(self, config: FleetReturnConfig):
        self.config = config

    def estimate(self, batch: Batch) -> Credit:
        gamma = self.config.gamma
        if self.config.form == "group":
            to_go = spaced_returns(batch.turn_rewards, batch.turn, batch.mask, gamma=gamma)
            scores = standardise_together(to_go, step_keys(batch), batch.mask)
        else:
            world = batch.group[:, None].expand_as(batch.turn)
            scores = standardise_together(batch.turn_rewards, world, batch.mask)
            scores = spaced_returns(scores, batch.turn, batch.mask, gamma=gamma)
        # Deviation: the released line subtracts the term, whose sign is negative already; `released_sign` repeats it.
        sign = -1.0 if self.config.released_sign else 1.0
        return _with_spread(batch, scores, sign * self.config.fairness_weight, self.config.fleet)


class FleetGae:
    """PPO for a fleet: a critic of vehicles, discounts by the minutes between decisions."""

    needs = frozenset({OLD_VALUE})
    gives_returns = True

    def __init__(self, config: FleetGaeConfig):
        self.config = config

    def estimate(self, batch: Batch) -> Credit:
        values = batch.columns[OLD_VALUE]
        advantages = spaced_advantages(
            batch.turn_rewards, values, batch.turn, batch.mask, gamma=self.config.gamma, lam=self.config.lam
        )
        returns = torch.where(batch.mask, advantages + values, 0.0)
        if self.config.whiten:
            advantages = whiten(advantages, batch.mask)
        return Credit(advantages=advantages, returns=returns)


def step_keys(batch: Batch) -> Tensor:
    """One number per (world, step); negative nowhere the mask is True. [B, T] int64"""
    steps = int(batch.turn.max()) + 1
    return batch.group[:, None] * max(steps, 1) + batch.turn


def _with_spread(batch: Batch, scores: Tensor, weight: float, fleet: int | None) -> Credit:
    metrics = {}
    if weight:
        penalty = spread_penalty(batch.turn_rewards, batch.turn, batch.group, batch.mask, fleet=fleet)
        scores = torch.where(batch.mask, scores + weight * penalty, 0.0)
        metrics["ospo/spread_penalty"] = float(penalty[batch.mask].mean()) if batch.mask.any() else 0.0
    return Credit(advantages=scores, metrics=metrics)
