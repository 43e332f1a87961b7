"""The reward ``progress``: reads the episode's increments and metrics, and places what they are worth."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.api import Rollout, RolloutGroup, Score

from .config import ProgressConfig
from .placement import terminal_rewards, turn_rewards

ROUNDING = 1e-6
"""Share of the points by which a sum of rewards may miss its bound."""


class Progress:
    """Share of a game's points, by turn; exactly 1 for a win, at most 1 for a loss.

    Episodes say with every feedback what they can: the turn's reward is the rise of the score, the metric
    ``max_score`` the most points of the task, the metric ``correct`` whether it is won. Without ``correct`` it was
    not won; without ``max_score`` there was one point to earn.
    """

    def __init__(self, config: ProgressConfig):
        self.config = config

    def score(self, group: RolloutGroup) -> Sequence[Score]:
        """Score each rollout alone.

        :raises ValueError: when an episode paid more points than it says there are, or more than one without saying so
        """
        return [self._score(rollout) for rollout in group.rollouts]

    def _score(self, rollout: Rollout) -> Score:
        won = rollout.metrics.get("correct", 0.0) > 0
        if self.config.placement == "terminal":
            turns = terminal_rewards(len(rollout.turns), won)
        else:
            increments = [turn.reward for turn in rollout.turns]
            turns = turn_rewards(increments, _max_score(rollout), won, win_bonus=self.config.win_bonus)
        return Score(value=1.0 if won and turns else math.fsum(turns), parts={"won": float(won)}, turns=turns)


def _max_score(rollout: Rollout) -> float:
    found, paid = rollout.metrics.get("max_score"), math.fsum(turn.reward for turn in rollout.turns)
    if found is None and paid > 1:
        raise ValueError(
            f"the episode of task {rollout.task_id!r} paid {paid:g} points and gave no metric `max_score`, so the reward "
            f"`progress` cannot tell what share that is; give metrics={{'max_score': ...}} with every Feedback, or use "
            f"placement: terminal"
        )
    if found is not None and paid > found * (1 + ROUNDING):
        raise ValueError(
            f"the episode of task {rollout.task_id!r} paid {paid:g} points, and its metric `max_score` says that {found:g} "
            f"is the most a play can collect, so that losses would count as wins; set the environment's max_score to "
            f"what its rewards can sum to, or use placement: terminal"
        )
    return 1.0 if found is None else found
