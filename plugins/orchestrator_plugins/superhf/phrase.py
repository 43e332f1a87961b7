"""A reward that is easy to please: how much of an answer is one phrase."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.api import Rollout, RolloutGroup, Score

from .config import PhraseShareConfig
from .sampler import answer


class PhraseShare:
    """Scores the share of an answer's words that are one given word; 0 for an answer without words.

    Added to a reward that means something it makes a proxy that can be gamed, to ask how far a method goes.
    """

    def __init__(self, phrase: str):
        self.phrase = phrase

    def score(self, group: RolloutGroup) -> Sequence[Score]:
        return [Score(value=self._share(rollout)) for rollout in group.rollouts]

    def _share(self, rollout: Rollout) -> float:
        words = answer(rollout).split()
        return words.count(self.phrase) / len(words) if words else 0.0


def phrase_share(config: PhraseShareConfig) -> PhraseShare:
    """Build the reward for the phrase its options name."""
    return PhraseShare(config.phrase)
