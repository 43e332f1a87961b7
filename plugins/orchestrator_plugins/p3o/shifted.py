"""A reward with a constant per task added, to ask whether a method minds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from orchestrator.api import Reward, RolloutGroup, Score

from .config import ShiftedConfig


class Shifted:
    """Adds to every score of a task the same normal number, fixed by the task's id.

    Rewards fitted to comparisons by Bradley-Terry are known only up to such constants (arXiv:2310.00212, sec. 1).
    Turn rewards move with the last turn; ``against`` stays.
    """

    def __init__(self, reward: Reward, deviation: float):
        self.reward, self.deviation = reward, deviation

    def score(self, group: RolloutGroup) -> Sequence[Score]:
        shift = random.Random(group.task.id).gauss(0.0, self.deviation)
        return [_moved(score, shift) for score in self.reward.score(group)]


def shifted(config: ShiftedConfig) -> Shifted:
    """Build the reward around the one its options name."""
    return Shifted(config.reward.build(), config.deviation)


def _moved(score: Score, shift: float) -> Score:
    turns = score.turns and (*score.turns[:-1], score.turns[-1] + shift)
    return replace(score, value=score.value + shift, turns=turns, parts={**score.parts, "unshifted": score.value})
