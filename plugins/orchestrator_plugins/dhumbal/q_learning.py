"""The objective ``q_learning``: the policy's logits are action values, the reference policy's are the target's.

Kept of DQN: replay (the sampler's), a target network copied now and then (``schedule.refresh_reference: round``), the
squared error to ``r + gamma max Q_target``. Added: the maximum runs over legal actions only. Left out: nothing.

Source: Mnih et al. 2015 (doi:10.1038/nature14236), algorithm 1; double Q-learning: van Hasselt et al. 2016
(arXiv:1509.06461), eq. 4.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from orchestrator.api import Batch, Column, Couples, LossTerm, Mean, Need, Reduction, Terms, Weights

from .config import QLearningConfig

CURRENT = Need(Weights.CURRENT, Column.LOGITS)
TARGET = Need(Weights.REFERENCE, Column.LOGITS)


def q_targets(rewards: Tensor, following: Tensor, mask: Tensor, present: Tensor, *, gamma: float) -> Tensor:
    r"""One-step targets.

    .. math:: y_t = r_t + \gamma\, V_{t+1}, \qquad V_{t+1} = 0 \text{ after the last decision}

    :param rewards: [B, T] what each decision was paid
    :param following: [B, T] value of the state at each position
    :param mask: [B, T] bool, True on decisions
    :param present: [B, T] bool, True on states that may be valued: decisions, and where a play was cut off
    :returns: [B, T], 0 outside ``mask``
    """
    ahead = torch.zeros_like(rewards)
    ahead[:, :-1] = torch.where(present[:, 1:], following[:, 1:], 0.0)
    return torch.where(mask, rewards + gamma * ahead, 0.0)


class QLearning:
    """Deep Q-learning on whole rollouts."""

    needs = frozenset({CURRENT, TARGET})
    couples = Couples.ROWS
    corrections = ()  # Q-learning is off-policy: its targets hold whoever acted

    def __init__(self, config: QLearningConfig):
        self.config = config

    def terms(self, batch: Batch, current: Mapping[Column, Tensor]) -> Terms:
        """Squared (or Huber) error of the chosen action's value, per decision.

        :raises ValueError: the policy's inputs hold no ``actions``, ``legal`` and ``temperature``
        """
        missing = sorted({"actions", "legal", "temperature"} - batch.inputs.keys())
        if missing:
            raise ValueError(f"q_learning needs a policy over features; this one's inputs lack {', '.join(missing)}")
        # Logits come divided by the sampling temperature; action values are the logits themselves.
        temperature = batch.inputs["temperature"][:, None, None]
        values = current[Column.LOGITS] * temperature
        targets = batch.columns[TARGET].detach() * temperature
        legal = batch.inputs["legal"]
        present = batch.mask if batch.bootstrap is None else batch.mask | batch.bootstrap
        chooser = values.detach() if self.config.double else targets
        best = chooser.masked_fill(~legal, float("-inf")).argmax(-1, keepdim=True)
        following = targets.gather(-1, best).squeeze(-1)
        wanted = q_targets(batch.turn_rewards, following, batch.mask, present, gamma=self.config.gamma)
        chosen = values.gather(-1, batch.inputs["actions"].unsqueeze(-1)).squeeze(-1)
        chosen = torch.where(batch.mask, chosen, 0.0)
        if self.config.huber is None:
            loss = (chosen - wanted) ** 2
        else:
            loss = huber_loss(chosen, wanted, reduction="none", delta=self.config.huber)
        count = batch.mask.sum()
        metrics = {
            "dhumbal/q_mean": Mean(chosen.detach().sum(), count),
            "dhumbal/q_error": Mean((chosen.detach() - wanted).abs().sum(), count),
        }
        return Terms(loss=(LossTerm(name="policy", values=loss, reduction=Reduction.TOKEN_MEAN),), metrics=metrics)
