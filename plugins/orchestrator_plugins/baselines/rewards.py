"""Rewards: the right answer, the environment's own pay, and weighted sums of rewards."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.api import Reward, Rollout, RolloutGroup, Score, Stop, Task

from .config import CombinedConfig


class Exact:
    """1 for the right answer, else 0.

    The episode's own metric ``correct`` decides where it gives one; otherwise the last action's text must equal
    ``task.reference``, white space around both aside.
    """

    def score(self, group: RolloutGroup) -> Sequence[Score]:
        """Score each rollout alone.

        :raises ValueError: when a finished episode gave no ``correct`` and the task has no reference
        """
        return [Score(value=_correct(group.task, rollout)) for rollout in group.rollouts]


class EnvironmentReward:
    """The sum of the turns' rewards, kept by turn."""

    def score(self, group: RolloutGroup) -> Sequence[Score]:
        turns = [tuple(float(turn.reward) for turn in rollout.turns) for rollout in group.rollouts]
        return [Score(value=sum(paid), turns=paid) for paid in turns]


class Combined:
    """Weighted sum of other rewards, unweighted parts by name, inner ones as ``name/part``.

    Of two rewards with one name the second is called ``name_2``. Turns add up by weight, a reward that gives none
    counting on the last turn. Comparisons with siblings (``against``) are averaged by weight over the rewards that
    make them.
    """

    def __init__(self, rewards: Sequence[tuple[str, float, Reward]]):
        """:param rewards: name, weight and reward of each part"""
        self.rewards = []
        taken: dict[str, int] = {}
        for name, weight, reward in rewards:
            taken[name] = taken.get(name, 0) + 1
            self.rewards.append((name if taken[name] == 1 else f"{name}_{taken[name]}", weight, reward))

    def score(self, group: RolloutGroup) -> Sequence[Score]:
        """Score the group with every part.

        :raises ValueError: when a part does not give one score per rollout
        """
        columns = []
        for name, weight, reward in self.rewards:
            scores = list(reward.score(group))
            if len(scores) != len(group.rollouts):
                raise ValueError(
                    f"reward {name!r} gave {len(scores)} scores for the {len(group.rollouts)} rollouts of task "
                    f"{group.task.id!r}; expected one each"
                )
            columns.append((name, weight, scores))
        return [
            _combine([(name, weight, scores[place]) for name, weight, scores in columns], len(rollout.turns))
            for place, rollout in enumerate(group.rollouts)
        ]


def _correct(task: Task, rollout: Rollout) -> float:
    if "correct" in rollout.metrics:
        return float(rollout.metrics["correct"])
    if task.reference is not None:
        text = rollout.turns[-1].action.text if rollout.turns else None
        return float(text is not None and text.strip() == task.reference.strip())
    if rollout.stop is not Stop.DONE:
        return 0.0  # cut before the episode could judge
    raise ValueError(
        f"task {task.id!r} has no reference and its episode gave no metric `correct`, so the reward `exact` cannot "
        f"judge it; give Task.reference, or metrics={{'correct': 0.0 or 1.0}} in the last Feedback"
    )


def _combine(parts: Sequence[tuple[str, float, Score]], turns: int) -> Score:
    by_turn = [0.0] * turns
    against, compared = None, 0.0
    for _, weight, score in parts:
        if score.turns is not None:
            by_turn = [total + weight * paid for total, paid in zip(by_turn, score.turns, strict=True)]
        elif turns:
            by_turn[-1] += weight * score.value
        if score.against is not None and weight > 0:
            before = against or (0.0,) * len(score.against)
            against = tuple(total + weight * p for total, p in zip(before, score.against, strict=True))
            compared += weight
    named: dict[str, float] = {}
    for name, _, score in parts:
        named |= {name: score.value, **{f"{name}/{inner}": value for inner, value in score.parts.items()}}
    return Score(
        value=sum(weight * score.value for _, weight, score in parts),
        parts=named,
        against=None if against is None else tuple(total / compared for total in against),
        turns=tuple(by_turn) if any(score.turns is not None for _, _, score in parts) else None,
    )


def combined(config: CombinedConfig) -> Combined:
    """Build the sum of the rewards its options name."""
    return Combined([(use.use, use.weight, use.build()) for use in config.rewards])
