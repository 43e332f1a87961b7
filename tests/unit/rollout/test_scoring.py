"""Scores are weighted sums with parts, placed on turns, comparing siblings."""

import pytest

from orchestrator.contract.types import Action, Rollout, RolloutGroup, Score, Task, Turn
from orchestrator.rollout.scoring import score_group


class Fixed:
    def __init__(self, *scores):
        self.scores = scores

    def score(self, group):
        return self.scores


def _group(size: int, turns: int = 2) -> RolloutGroup:
    turn = Turn(observation=(), action=Action(tokens=(1,), logprobs=(0.0,)), reward=0.5)
    rollouts = tuple(Rollout(task_id="t", index=i, seed=i, turns=(turn,) * turns) for i in range(size))
    return RolloutGroup(task=Task(id="t"), rollouts=rollouts)


def test_without_rewards_the_episode_pays():
    assert score_group([], _group(1)) == (Score(value=1.0, turns=(0.5, 0.5)),)


def test_weights_apply_to_values_and_not_to_parts():
    a, b = Fixed(Score(value=1.0), Score(value=0.0)), Fixed(Score(value=4.0, parts={"x": 3.0}), Score(value=2.0))

    first, second = score_group([("a", 0.5, a), ("b", 2.0, b)], _group(2))

    assert first.value == 8.5
    assert first.parts == {"a": 1.0, "b": 4.0, "b/x": 3.0}
    assert second.value == 4.0


def test_a_reward_by_turn_keeps_its_places_and_the_rest_goes_last():
    by_turn, flat = Fixed(Score(value=3.0, turns=(1.0, 2.0))), Fixed(Score(value=5.0))

    [score] = score_group([("t", 2.0, by_turn), ("f", 1.0, flat)], _group(1))

    assert score.turns == (2.0, 9.0)
    assert score.value == 11.0


def test_comparisons_are_averaged_by_weight():
    a = Fixed(Score(value=0.7, against=(0.5, 0.9)), Score(value=0.3, against=(0.1, 0.5)))
    b = Fixed(Score(value=0.5, against=(0.5, 0.5)), Score(value=0.5, against=(0.5, 0.5)))

    first, second = score_group([("a", 3.0, a), ("b", 1.0, b)], _group(2))

    assert first.against == pytest.approx((0.5, 0.8))
    assert second.against == pytest.approx((0.2, 0.5))


def test_the_wrong_number_of_scores_is_refused():
    with pytest.raises(ValueError, match="'a' gave 1 scores for 2 rollouts"):
        score_group([("a", 1.0, Fixed(Score(value=1.0)))], _group(2))


def test_a_score_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="reward 'a', rollout 1 of task 't': the value is nan"):
        score_group([("a", 1.0, Fixed(Score(value=1.0), Score(value=float("nan"))))], _group(2))
