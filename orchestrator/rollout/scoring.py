"""Scores of a group: the weighted sum of its rewards."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from orchestrator.contract.metrics import number
from orchestrator.contract.types import Rollout, RolloutGroup, Score
from orchestrator.errors import blame
from orchestrator.rollout.handed import LARGEST_REWARD, expect_scores

if TYPE_CHECKING:
    from orchestrator.contract.roles import Reward


def score_group(
    rewards: Sequence[tuple[str, float, Reward]],
    group: RolloutGroup,
    labels: Mapping[str, str] | None = None,
    watch: Callable[[str, str], AbstractContextManager[None]] = lambda what, key: nullcontext(),
) -> tuple[Score, ...]:
    """Score the rollouts of a group together.

    :param rewards: (name, weight, reward); none: each episode's own rewards, by turn
    :param labels: who to blame, by ``reward/NAME`` and ``environment``
    :param watch: of (``reward/NAME``, task): around each call of a reward
    :returns: one score per rollout: the weighted sum, with each reward's own value under its name. A reward that
        says which turn earned what keeps that placement; the others pay on the last turn. Where rewards compare
        siblings, ``against`` is their weighted mean.
    :raises ValueError: a reward returned the wrong number of scores, no ``Score``, or what cannot be learnt from
    """
    if not rewards:
        with blame((labels or {}).get("environment")):
            return tuple(episode_score(rollout) for rollout in group.rollouts)
    columns = []
    for name, weight, reward in rewards:
        with blame((labels or {}).get(f"reward/{name}")):
            with watch(f"reward/{name}", group.task.id):
                scores = reward.score(group)
            scores = expect_scores(scores, group, name)
        columns.append((name, weight, scores))
    return tuple(
        _combine([(name, weight, scores[index]) for name, weight, scores in columns], len(rollout.turns))
        for index, rollout in enumerate(group.rollouts)
    )


def episode_score(rollout: Rollout) -> Score:
    """The sum of what the environment paid, kept by turn.

    :raises ValueError: the sum is too large to learn from
    """
    turns = tuple(turn.reward for turn in rollout.turns)
    value = number(
        math.fsum(turns), f"the rewards of an episode of task {rollout.task_id!r}: their sum", largest=LARGEST_REWARD
    )
    return Score(value=value, turns=turns)


def _combine(scores: Sequence[tuple[str, float, Score]], turns: int) -> Score:
    value = number(
        math.fsum(weight * score.value for _, weight, score in scores),
        "the weighted sum of the rewards",
        largest=LARGEST_REWARD,
    )
    parts: dict[str, float] = {}
    for name, _, score in scores:
        parts.update({name: score.value, **{f"{name}/{part}": v for part, v in score.parts.items()}})
    return Score(value=value, parts=parts, against=_against(scores), turns=_by_turn(scores, turns))


def _by_turn(scores: Sequence[tuple[str, float, Score]], turns: int) -> tuple[float, ...] | None:
    if turns == 0 or all(score.turns is None for _, _, score in scores):
        return None
    total = [0.0] * turns
    for _, weight, score in scores:
        if score.turns is None:
            total[-1] += weight * score.value
        else:
            for index, value in enumerate(score.turns):
                total[index] += weight * value
    return tuple(total)


def _against(scores: Sequence[tuple[str, float, Score]]) -> tuple[float, ...] | None:
    comparing = [(weight, score.against) for _, weight, score in scores if score.against is not None and weight > 0]
    if not comparing:
        return None
    mass = sum(weight for weight, _ in comparing)
    width = len(comparing[0][1])
    return tuple(sum(weight * row[j] for weight, row in comparing) / mass for j in range(width))
