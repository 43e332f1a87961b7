"""The sampler: first rollouts for every task, then more for the hard ones, merged.

Kept from GRPO's sampling: one prompt, one group. Changed: groups have unequal sizes, chosen by difficulty, and
constant ones are left out. Left out of the released code: padding to the number of workers; nothing here needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.api import Collect, Rollout, RolloutGroup, RolloutRequest, Score, Task

from .config import DarsConfig
from .rebalance import extra_rollouts


class Dars:
    """Two stages with the same weights: ``pre_rollouts`` for every task, then what the schedule adds.

    Difficulty is estimated afresh each time; nothing is remembered between calls but the last call's numbers for
    :meth:`report`.
    """

    def __init__(self, config: DarsConfig):
        self.config = config
        self._report: dict[str, float] = {}

    def sample(self, tasks: Sequence[Task], collect: Collect) -> Sequence[RolloutGroup]:
        """Sample both stages and merge them, first rollouts first.

        A task whose first rollouts partly failed is judged by those that did not; with fewer than two it gets
        nothing extra.

        :raises ValueError: when scores are neither 0 nor 1, episodes give no ``correct`` and ``success_at`` is unset
        """
        config = self.config
        first = collect([RolloutRequest(task=task, count=config.pre_rollouts) for task in tasks])
        right = [self._right(group) for group in first]
        extra = [
            extra_rollouts(count, len(group.rollouts), config.max_rollouts, config.schedule, config.standardise)
            if len(group.rollouts) >= 2
            else 0
            for count, group in zip(right, first, strict=True)
        ]
        hard = [place for place, count in enumerate(extra) if count]
        merged = list(first)
        if hard:
            second = collect([RolloutRequest(task=tasks[place], count=extra[place]) for place in hard])
            for place, group in zip(hard, second, strict=True):
                merged[place] = _merge(first[place], group)
        self._report = self._describe(first, right, merged)
        return [group for group in merged if not (config.drop_constant and _is_constant(group))]

    def report(self) -> Mapping[str, float]:
        """Numbers of the last call; see the README."""
        return self._report

    def _right(self, group: RolloutGroup) -> int:
        return sum(
            _is_right(rollout, score, self.config.success_at)
            for rollout, score in zip(group.rollouts, group.scores, strict=True)
        )

    def _describe(
        self, first: Sequence[RolloutGroup], right: Sequence[int], merged: Sequence[RolloutGroup]
    ) -> dict[str, float]:
        played = [place for place, group in enumerate(first) if group.rollouts]
        if not played:
            return {}
        unsolved = [place for place in played if right[place] == 0]
        solved = [place for place in played if right[place] == len(first[place].rollouts)]
        rescued = [place for place in unsolved if self._right(merged[place]) > 0]
        sizes = [len(merged[place].rollouts) for place in played]
        extra = sum(sizes) - sum(len(first[place].rollouts) for place in played)
        return {
            "dars/rollouts/mean": sum(sizes) / len(played),
            "dars/extra_rollouts": float(extra),
            "dars/unsolved": len(unsolved) / len(played),
            "dars/solved": len(solved) / len(played),
            "dars/rescued": len(rescued) / len(unsolved) if unsolved else 0.0,
            "dars/dropped": sum(_is_constant(merged[place]) for place in played) / len(played),
        }


def _is_right(rollout: Rollout, score: Score, success_at: float | None) -> bool:
    if success_at is not None:
        return score.value >= success_at
    if "correct" in rollout.metrics:
        return rollout.metrics["correct"] > 0
    if score.value not in (0.0, 1.0):
        raise ValueError(
            f"rollout {rollout.index} of task {rollout.task_id!r} scored {score.value} and its episode gave no metric "
            f"`correct`; set sampler.success_at to the score from which a rollout counts as right"
        )
    return score.value == 1.0


def _merge(first: RolloutGroup, second: RolloutGroup) -> RolloutGroup:
    """One group of both stages. Scores that compare siblings are rescored by the core, which sees their width."""
    return replace(first, rollouts=first.rollouts + second.rollouts, scores=first.scores + second.scores)


def _is_constant(group: RolloutGroup) -> bool:
    return len({score.value for score in group.scores}) <= 1
