"""Dispatchers that are not trained: what a learner must beat before anybody is impressed.

Run them with ``schedule.steps: 0``; the evaluation before training is their result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from orchestrator.api import Action, Column, Context, Packed, Rollout, Sampling, Speaks

from .matching import NEVER, match
from .observation import Snapshot
from .policy import IDLE, views, worlds

WORTH = 100.0  # of a pair in `nearest`, less the minutes to the pick-up: any pair within 100 minutes beats none


class Yardstick:
    """Matches by a score that needs no training."""

    speaks = Speaks.FEATURES

    def __init__(self) -> None:
        self.module = torch.nn.Module()
        self.module.register_parameter("nothing", torch.nn.Parameter(torch.zeros(0)))  # optimisers want a parameter

    def scores(self, snapshot: Snapshot, rows: np.ndarray) -> np.ndarray:
        """[n, M]"""
        raise NotImplementedError

    def act(self, contexts: Sequence[Context], sampling: Sequence[Sampling]) -> list[Action]:
        """Match every world; certain of what it does, so each log-probability is 0."""
        actions: list[Action] = [IDLE] * len(contexts)
        for places in worlds(contexts):
            seen = views(contexts, places)
            snapshot = seen[0].snapshot
            rows = np.array([view.row for view in seen])
            free = np.flatnonzero(~snapshot.busy[rows])
            if not len(free) or not len(snapshot.requests):
                continue
            scores = np.full((len(rows), len(snapshot.requests)), NEVER)
            scores[free] = self.scores(snapshot, rows[free])
            chosen = match(scores)
            for index in np.flatnonzero(chosen >= 0):
                actions[places[index]] = Action(tokens=(int(chosen[index]),), logprobs=(0.0,))
        return actions

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        raise ValueError("a yardstick has no actions as text")

    def pack(self, rollouts: Sequence[Rollout]) -> Packed:
        raise ValueError(f"the policy {type(self).__name__} is not trained; set schedule.steps to 0")

    def columns(self, inputs: Mapping[str, Tensor], wanted: frozenset[Column]) -> dict[Column, Tensor]:
        raise ValueError(f"the policy {type(self).__name__} is not trained; set schedule.steps to 0")

    def refresh(self) -> None:
        """Nothing to carry over."""


class Nearest(Yardstick):
    """Least minutes to the pick-up over the fleet, as many pairs as can be made."""

    def scores(self, snapshot: Snapshot, rows: np.ndarray) -> np.ndarray:
        return WORTH - snapshot.pickup_minutes(rows)


class BestPair(Yardstick):
    """Most reward this minute, worked out exactly for every pair; blind to all later minutes."""

    def scores(self, snapshot: Snapshot, rows: np.ndarray) -> np.ndarray:
        return snapshot.pair_rewards(rows)
