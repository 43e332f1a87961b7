"""Progress in games as a reward, and where it lies on the tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from multi_turn_credit import REGISTRY, double, near
from orchestrator_plugins.multi_turn.placement import terminal_rewards, turn_rewards
from orchestrator_plugins.multi_turn.turns import find_turns

from orchestrator.api import (
    Action,
    ConfigError,
    Finish,
    Rollout,
    RolloutGroup,
    Stop,
    Task,
    Turn,
)
from orchestrator.rollout.assembly import assemble
from orchestrator.testing import check_component

# --- progress ---------------------------------------------------------------------------------------------


def test_a_win_shares_its_1_among_the_turns_that_earned_it():
    near(double(*turn_rewards([1, 0, 1, 1], 3, won=True)), [1 / 3, 0, 1 / 3, 1 / 3])


def _as_published(increments, won):
    """The public rule: a win divides by how many increments it had, a loss by a maximum that is always 1."""
    positive = sum(increment > 0 for increment in increments)
    return [increment / (positive if won else 1.0) for increment in increments]


def test_a_loss_with_nine_of_ten_points_is_worth_nine_tenths_and_less_than_a_win():
    increments = [1.0] * 9 + [0.0]

    assert sum(turn_rewards(increments, 10, won=False)) == pytest.approx(0.9, abs=1e-12)
    assert sum(_as_published(increments, won=False)) == 9  # what the literal rule pays, nine times a win
    assert sum(_as_published([1.0, 0.0, 1.0], won=True)) == 1


@given(
    increments=st.lists(st.floats(-2, 3), min_size=1, max_size=12),
    max_score=st.floats(0.1, 20),
    bonus=st.floats(0, 1),
)
def test_a_win_is_1_and_no_loss_outranks_it(increments, max_score, bonus):
    won = turn_rewards(increments, max_score, won=True, win_bonus=bonus)
    lost = turn_rewards(increments, max_score, won=False, win_bonus=bonus)

    assert math.fsum(won) == pytest.approx(1, abs=1e-12)
    assert -1e-12 <= math.fsum(lost) <= 1 - bonus + 1e-12
    assert won[:-1] == lost[:-1]


def test_a_bonus_is_kept_for_winning():
    near(double(*turn_rewards([1, 0, 1], 2, won=True, win_bonus=0.5)), [0.25, 0, 0.75])
    near(double(*turn_rewards([1, 0, 1], 2, won=False, win_bonus=0.5)), [0.25, 0, 0.25])
    assert turn_rewards([1, 0, 1], 2, won=True, win_bonus=1) == terminal_rewards(3, True) == (0, 0, 1)
    assert terminal_rewards(2, False) == (0, 0)
    assert terminal_rewards(0, True) == turn_rewards([], 1, True) == ()


def test_a_game_without_points_is_refused():
    with pytest.raises(ValueError, match="max_score is 0; expected the most points"):
        turn_rewards([1], 0, won=True)


def played(*paid, stop=Stop.DONE, **metrics):
    turns = tuple(
        Turn(
            observation=({"role": "user", "content": "look"},),
            action=Action(tokens=(5, 6), logprobs=(-1.0, -1.0)),
            reward=reward,
        )
        for reward in paid
    )
    return Rollout(task_id="game", index=0, seed=0, turns=turns, metrics=metrics, stop=stop)


def scored(*rollouts, **options):
    return REGISTRY.build("reward", "progress", options).score(
        RolloutGroup(task=Task(id="game"), rollouts=tuple(rollouts))
    )


def test_progress_reads_the_episodes_increments_and_metrics():
    win, loss = scored(played(1, 0, 1, 1, correct=1, max_score=3), played(1, 1, 0, correct=0, max_score=4))

    assert (win.value, loss.value) == (1, 0.5)
    near(double(*win.turns), [1 / 3, 0, 1 / 3, 1 / 3])
    assert loss.turns == (0.25, 0.25, 0)
    assert (win.parts, loss.parts) == ({"won": 1.0}, {"won": 0.0})


def test_an_episode_that_is_over_is_not_won():
    over, cut = scored(played(3, max_score=3), played(1, 1, stop=Stop.TURNS, max_score=4, correct=0))

    assert over.parts["won"] == cut.parts["won"] == 0
    assert cut.turns == (0.25, 0.25)


def test_terminal_progress_pays_at_the_end_of_a_win():
    win, loss = scored(
        played(1, 0, 2, correct=1, max_score=3), played(1, 1, correct=0, max_score=4), placement="terminal"
    )

    assert (win.turns, win.value) == ((0, 0, 1), 1)
    assert (loss.turns, loss.value) == ((0, 0), 0)


def test_points_without_a_maximum_are_refused():
    assert scored(played(1.0, correct=1))[0].value == 1
    with pytest.raises(ValueError, match="paid 2 points and gave no metric `max_score`"):
        scored(played(1, 1, correct=1))


def test_more_points_than_there_are_would_make_losses_wins_and_are_refused():
    assert scored(played(0.1, 0.2, correct=0, max_score=0.3))[0].value == pytest.approx(1)  # 0.1 + 0.2 > 0.3 in floats
    assert scored(played(5, correct=1, max_score=1), placement="terminal")[0].value == 1
    with pytest.raises(ValueError, match="paid 5 points, and its metric `max_score` says that 1 is the most"):
        scored(played(5, correct=0, max_score=1))


def test_a_bonus_for_winning_beside_a_reward_for_winning_is_refused():
    with pytest.raises(ConfigError, match=r"win_bonus 0\.3 has no effect with placement: terminal"):
        REGISTRY.build("reward", "progress", {"placement": "terminal", "win_bonus": 0.3})


def test_progress_keeps_the_contract_of_a_reward():
    group = RolloutGroup(
        task=Task(id="game"), rollouts=(played(1, 2, correct=1, max_score=3), played(0, correct=0, max_score=3))
    )

    for options in ({}, {"placement": "terminal"}, {"win_bonus": 0.3}):
        check_component(REGISTRY.describe("reward", "progress"), options, group=group)


# --- placement on tokens ----------------------------------------------------------------------------------


class _Words:
    """A policy that packs what it is given: four observation tokens between the turns."""

    speaks = "messages"
    module = torch.nn.Linear(1, 1)

    def pack(self, rollouts):
        from orchestrator.api import Packed

        rows = []
        for rollout in rollouts:
            row = []
            for place, turn in enumerate(rollout.turns):
                row += [-1] * (4 if place else 0) + [place] * len(turn.action.tokens)
            rows.append(row)
        width = max(map(len, rows))
        turn = torch.tensor([row + [-1] * (width - len(row)) for row in rows])
        return Packed(inputs={}, mask=turn >= 0, behaviour_logprobs=torch.zeros(turn.shape), turn=turn)


def two_turns():
    """Of 3 and 2 tokens, a point in the first and three in the second, of four; scored by turn, and at the end."""
    turns = tuple(
        Turn(observation=(), action=Action(tokens=(7,) * length, logprobs=(0.0,) * length), reward=paid)
        for length, paid in ((3, 1.0), (2, 3.0))
    )
    rollout = Rollout(task_id="game", index=0, seed=0, turns=turns, metrics={"correct": 1.0, "max_score": 4.0})
    group = RolloutGroup(task=Task(id="game"), rollouts=(rollout,))
    return [
        replace(group, scores=tuple(scored(rollout, placement=placement))) for placement in ("per_turn", "terminal")
    ]


def test_each_turns_reward_lies_on_its_last_token():
    dense, sparse = (assemble(_Words(), [group]) for group in two_turns())

    assert dense.mask.long().tolist() == [[1, 1, 1, 0, 0, 0, 0, 1, 1]]
    assert find_turns(dense.mask, dense.turn).ends.nonzero()[:, 1].tolist() == [2, 8]
    near(dense.turn_rewards, [[0, 0, 0.25, 0, 0, 0, 0, 0, 0.75]])
    near(sparse.turn_rewards, [[0, 0, 0, 0, 0, 0, 0, 0, 1]])


def test_a_row_cut_within_its_last_turn_does_not_pay_for_it():
    class Cut(_Words):
        def pack(self, rollouts):
            packed = super().pack(rollouts)
            parts = {name: getattr(packed, name)[:, :8] for name in ("mask", "behaviour_logprobs", "turn")}
            return replace(packed, **parts)

    dense, sparse = (assemble(Cut(), [group]) for group in two_turns())

    assert dense.mask.long().tolist() == [[1, 1, 1, 0, 0, 0, 0, 1]]
    near(dense.turn_rewards, [[0, 0, 0.25, 0, 0, 0, 0, 0]])
    near(sparse.turn_rewards, [[0] * 8])


def test_finish_of_an_action_cut_at_the_limit_stays_in_the_row():
    cut = Turn(observation=(), action=Action(tokens=(7, 7), logprobs=(-1.0, -1.0), finish=Finish.LENGTH))
    rollout = Rollout(task_id="game", index=0, seed=0, turns=(cut,), metrics={"correct": 0.0, "max_score": 1.0})
    group = RolloutGroup(task=Task(id="game"), rollouts=(rollout,), scores=tuple(scored(rollout)))

    batch = assemble(_Words(), [group])

    assert batch.mask.tolist() == [[True, True]]
    assert batch.turn_rewards.tolist() == [[0, 0]]
