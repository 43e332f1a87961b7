"""The reward: each rollout compared with the group's demonstration."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from orchestrator.api import Reward, RolloutGroup, Score

from .config import VersusDemonstrationConfig


class VersusDemonstration:
    """1 where the base reward is higher than the demonstration's, 0 where equal, -1 where lower.

    The demonstration ties with itself. A group without one is compared with nothing and scores 0.
    """

    def __init__(self, base: Reward, *, margin: float = 0.0):
        self.base, self.margin = base, margin

    def score(self, group: RolloutGroup) -> Sequence[Score]:
        values = [score.value for score in self.base.score(group)]
        shown = [v for v, rollout in zip(values, group.rollouts, strict=True) if rollout.demonstration]
        level = fmean(shown) if shown else None
        return [self._compare(value, level) for value in values]

    def _compare(self, value: float, level: float | None) -> Score:
        if level is None or abs(value - level) <= self.margin:
            return Score(value=0.0, parts={"base": value})
        return Score(value=1.0 if value > level else -1.0, parts={"base": value})


def versus_demonstration(config: VersusDemonstrationConfig) -> VersusDemonstration:
    """Build the reward around the one its options name."""
    return VersusDemonstration(config.base.build(), margin=config.margin)
