"""Estimators for several turns: over turns, over turns and tokens, over the batch, and with the KL in the reward.

Kept of the token-level estimators: the recursion, the whitening, the critic's targets (advantage plus value).
Changed: what one step of the recursion is. Left out: anything that reads observation tokens, on which neither
reward, value nor trace is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from orchestrator.api import (
    AdvantageEstimator,
    Batch,
    Column,
    Credit,
    Facts,
    Need,
    Stateful,
    Weights,
    discounted_returns,
    group_index,
    leave_one_out,
    masked_mean,
    masked_sum,
    sequence_sum,
    whiten,
)

from .config import BilevelGaeConfig, KlPenalisedConfig, ReinforcePlusPlusConfig, TurnGaeConfig
from .turns import bilevel_advantages, turn_advantages, turn_values

logger = logging.getLogger(__name__)

OLD_VALUE = Need(Weights.OLD, Column.VALUE)
OLD_LOGPROB = Need(Weights.OLD, Column.LOGPROB)
REFERENCE_LOGPROB = Need(Weights.REFERENCE, Column.LOGPROB)


class TurnGae:
    """One advantage for all tokens of a turn, from one value per turn."""

    needs = frozenset({OLD_VALUE})
    gives_returns = True

    def __init__(self, config: TurnGaeConfig):
        self.config = config

    def estimate(self, batch: Batch) -> Credit:
        """Estimate; every token's target is its turn's return, the advantage plus the value the turn started from."""
        config, values = self.config, _values(batch)
        advantages = turn_advantages(
            batch.turn_rewards,
            values,
            batch.mask,
            batch.turn,
            gamma=config.gamma,
            lam=config.lam,
            value_at=config.value_at,
            bootstrap=batch.bootstrap,
        )
        before = turn_values(values, batch.mask, batch.turn, config.value_at)
        return _credit(batch, advantages, advantages + before, whitened=config.whiten)


class BilevelGae:
    """Advantages over turns give each turn a return, which the advantages of its tokens aim at."""

    needs = frozenset({OLD_VALUE})
    gives_returns = True

    def __init__(self, config: BilevelGaeConfig):
        self.config = config

    def estimate(self, batch: Batch) -> Credit:
        config, values = self.config, _values(batch)
        advantages = bilevel_advantages(
            batch.turn_rewards,
            values,
            batch.mask,
            batch.turn,
            gamma_turn=config.gamma_turn,
            gamma_token=config.gamma_token,
            lam_turn=config.lam_turn,
            lam_token=config.lam_token,
            bootstrap=batch.bootstrap,
        )
        return _credit(batch, advantages, advantages + values, whitened=config.whiten)


class ReinforcePlusPlus:
    """Discounted reward from here on, carried across observations, whitened over the batch; no critic, no siblings."""

    needs: frozenset[Need] = frozenset()
    gives_returns = False

    def __init__(self, config: ReinforcePlusPlusConfig):
        self.config = config

    def estimate(self, batch: Batch) -> Credit:
        returns = discounted_returns(batch.turn_rewards, batch.mask, gamma=self.config.gamma)
        return Credit(advantages=whiten(returns, batch.mask) if self.config.whiten else returns)


class Rloo:
    """Every token gets its row's reward minus its siblings' mean; a row without siblings gets 0, which is said once.

    Where siblings are missing because their episodes failed, 0 is the honest answer: nothing says whether the one
    that is left was good.
    """

    needs: frozenset[Need] = frozenset()
    facts = Facts(least_siblings=2, gives_returns=False)

    def __init__(self):
        self._warned = False

    def estimate(self, batch: Batch) -> Credit:
        index, count = group_index(batch.group)
        alone = torch.bincount(index, minlength=count)[index] == 1
        if bool(alone.any()) and not self._warned:
            self._warned = True
            logger.warning(
                "advantage rloo: %s of %s rollouts have no sibling to compare with and get advantage 0; "
                "this is said once",
                int(alone.sum()),
                len(alone),
            )
        by_row = torch.where(alone, 0.0, leave_one_out(batch.rewards, batch.group))
        return Credit(
            advantages=torch.where(batch.mask, by_row[:, None], 0.0),
            metrics={"multi_turn/without_siblings": float(alone.double().mean())},
        )


class KlPenalised:
    """Another estimator, on rewards from which every token has paid for leaving the reference policy.

    The row's reward falls by the sum of what its tokens paid, so that group baselines see it too. Rows that were not
    sampled from a policy pay nothing.
    """

    def __init__(self, config: KlPenalisedConfig, inner: AdvantageEstimator):
        self.weight, self.inner = config.weight, {"inner": inner}
        self.needs = inner.needs | {OLD_LOGPROB, REFERENCE_LOGPROB}

    def estimate(self, batch: Batch) -> Credit:
        sampled = batch.mask & ~batch.demonstration[:, None]
        logratio = kl_of_tokens(batch.columns[OLD_LOGPROB], batch.columns[REFERENCE_LOGPROB], sampled)
        penalty = (self.weight * logratio).to(batch.turn_rewards.dtype)
        charged = replace(
            batch,
            turn_rewards=batch.turn_rewards - penalty,
            rewards=batch.rewards - sequence_sum(penalty, sampled).to(batch.rewards.dtype),
        )
        credit = self.inner["inner"].estimate(charged)
        rows = sampled.any(1).sum().clamp(min=1)
        metrics = {
            "multi_turn/kl_reference": float(masked_mean(logratio, sampled)),
            "multi_turn/kl_penalty": float(masked_sum(penalty, sampled) / rows),
        }
        return replace(credit, metrics={**credit.metrics, **metrics})

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the core keeps the state of the other estimator."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint of version 0.1, which holds the other estimator's state here."""
        if "inner" in state and isinstance(self.inner["inner"], Stateful):
            self.inner["inner"].load_state_dict(state["inner"])


def kl_of_tokens(logprobs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    r"""Estimate the KL to the reference by one sample per token (k1).

    .. math:: \log \pi_{old}(a_t) - \log \pi_{ref}(a_t)

    :param logprobs: [B, T] of the sampled tokens, nats
    :param reference: [B, T] of the same tokens under the reference, nats
    :returns: [B, T], 0 where ``mask`` is False
    Source: the KL in the reward of arXiv:2510.01132; estimator k1 of http://joschu.net/blog/kl-approx.html.
    """
    return torch.where(mask, logprobs - reference, 0.0)


def _values(batch: Batch) -> Tensor:
    return batch.columns[OLD_VALUE].to(batch.turn_rewards.dtype)


def _credit(batch: Batch, advantages: Tensor, returns: Tensor, *, whitened: bool) -> Credit:
    returns = torch.where(batch.mask, returns, 0.0)
    if whitened:
        advantages = whiten(advantages, batch.mask)
    return Credit(advantages=advantages, returns=returns)


def kl_penalised(config: KlPenalisedConfig) -> KlPenalised:
    """Build the estimator around the one its options name."""
    return KlPenalised(config, config.inner.build())
