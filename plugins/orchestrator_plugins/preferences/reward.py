"""The reward: how often an answer beats its siblings."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.api import RolloutGroup, Score

from .answers import Scorer
from .config import PreferenceConfig
from .matrix import win_rates
from .scorers import scorer_of


class Preference:
    """Scores a rollout by its mean probability of beating each sibling, itself included at 1/2.

    ``Score.against`` keeps the whole row of probabilities, so that preferences which no scalar can represent (cycles)
    reach objectives that compare pairs. A missing comparison is nan there and left out of the mean.
    """

    def __init__(self, scorer: Scorer):
        self.scorer = scorer

    def score(self, group: RolloutGroup) -> Sequence[Score]:
        if not group.rollouts:
            return []
        matrix, scores = self.scorer.compare(group)
        return [
            Score(value=float(rate), parts=_part(scores, place), against=tuple(map(float, matrix[place])))
            for place, rate in enumerate(win_rates(matrix))
        ]


def preference(config: PreferenceConfig) -> Preference:
    """Build the reward on the scorer its options name."""
    return Preference(scorer_of(config))


def _part(scores: Sequence[float] | None, place: int) -> dict[str, float]:
    if scores is None or not math.isfinite(scores[place]):
        return {}
    return {"score": float(scores[place])}
