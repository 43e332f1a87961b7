"""Estimators: thin shells around the maths of groups, returns and critics."""

from __future__ import annotations

import torch

from orchestrator.api import (
    Batch,
    Column,
    Credit,
    Need,
    Weights,
    discounted_returns,
    generalised_advantages,
    group_centered,
    leave_one_out,
    whiten,
)

from .config import GaeConfig, GroupMeanConfig, RewardToGoConfig

OLD_VALUE = Need(Weights.OLD, Column.VALUE)


class GroupMean:
    """Every token of a row gets the row's reward minus its group's mean; a group of one keeps its reward."""

    needs: frozenset[Need] = frozenset()
    gives_returns = False

    def __init__(self, config: GroupMeanConfig):
        self.standardise = config.standardise

    def estimate(self, batch: Batch) -> Credit:
        return _by_row(batch, group_centered(batch.rewards, batch.group, standardise=self.standardise))


class LeaveOneOut:
    """Every token of a row gets the row's reward minus its siblings' mean; a group of one keeps its reward."""

    needs: frozenset[Need] = frozenset()
    gives_returns = False

    def estimate(self, batch: Batch) -> Credit:
        return _by_row(batch, leave_one_out(batch.rewards, batch.group))


class RewardToGo:
    """Every token gets the discounted reward from its turn on: REINFORCE as it was, without a baseline."""

    needs: frozenset[Need] = frozenset()
    gives_returns = False

    def __init__(self, config: RewardToGoConfig):
        self.gamma = config.gamma

    def estimate(self, batch: Batch) -> Credit:
        return Credit(advantages=discounted_returns(batch.turn_rewards, batch.mask, gamma=self.gamma))


class Gae:
    """Generalised advantages over the policy's tokens, observations in between skipped; sets the critic's targets.

    A row that was cut off goes on with the value of the state where it was cut.
    """

    needs = frozenset({OLD_VALUE})
    gives_returns = True

    def __init__(self, config: GaeConfig):
        self.config = config

    def estimate(self, batch: Batch) -> Credit:
        values = batch.columns[OLD_VALUE].to(batch.turn_rewards.dtype)
        advantages = generalised_advantages(
            batch.turn_rewards,
            values,
            batch.mask,
            gamma=self.config.gamma,
            lam=self.config.lam,
            bootstrap=batch.bootstrap,
        )
        returns = torch.where(batch.mask, advantages + values, 0.0)
        metrics = {"train/explained_variance": _explained_variance(values, returns, batch.mask)}
        if self.config.whiten:
            advantages = whiten(advantages, batch.mask)
        return Credit(advantages=advantages, returns=returns, metrics=metrics)


def _by_row(batch: Batch, advantages: torch.Tensor) -> Credit:
    return Credit(advantages=torch.where(batch.mask, advantages[:, None], 0.0))


def _explained_variance(values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor) -> float:
    """Share of the targets' variance that the critic foresaw; 0 when the targets vary by rounding alone."""
    targets, foreseen = returns[mask].double(), values[mask].double()
    if len(targets) < 2:
        return 0.0
    variance = targets.var(correction=0)
    largest = (targets.abs() + foreseen.abs()).max()
    if variance <= mask.shape[1] * (torch.finfo(returns.dtype).eps * largest) ** 2:  # one rounding a step of the sum
        return 0.0
    return float(1 - (targets - foreseen).var(correction=0) / variance)
