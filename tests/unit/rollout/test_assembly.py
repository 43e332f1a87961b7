"""Batches line up rewards, turns and groups with the tokens they belong to."""

import pytest
import torch

from orchestrator.contract.batch import Packed
from orchestrator.contract.types import Action, Rollout, RolloutGroup, Sampling, Score, Speaks, Task, Turn
from orchestrator.rollout.assembly import assemble, last_tokens


class Plain:
    """Packs a rollout as ``[0] a a [0] b b ...``: one observation token before each action."""

    speaks = Speaks.MESSAGES
    module = torch.nn.Linear(1, 1)

    def pack(self, rollouts):
        rows = []
        for rollout in rollouts:
            row = []
            for k, turn in enumerate(rollout.turns):
                row += [(0, False, 0.0, -1)]
                row += [(t, True, p, k) for t, p in zip(turn.action.tokens, turn.action.logprobs, strict=True)]
            rows.append(row)
        width = max(map(len, rows))
        rows = [row + [(0, False, 0.0, -1)] * (width - len(row)) for row in rows]
        part = [[list(column) for column in zip(*row, strict=True)] for row in rows]
        return Packed(
            inputs={"tokens": torch.tensor([p[0] for p in part])},
            mask=torch.tensor([p[1] for p in part]),
            behaviour_logprobs=torch.tensor([p[2] for p in part]),
            turn=torch.tensor([p[3] for p in part]),
        )


def _rollout(*sizes: int) -> Rollout:
    turns = tuple(
        Turn(observation=(), action=Action(tokens=tuple(range(1, n + 1)), logprobs=(-1.0,) * n)) for n in sizes
    )
    return Rollout(task_id="t", index=0, seed=0, turns=turns, sampling=Sampling(max_tokens=7))


def test_turn_rewards_stand_on_the_last_token_of_each_turn_and_sum_to_the_score():
    groups = [
        RolloutGroup(
            task=Task(id="t"),
            rollouts=(_rollout(2, 1), _rollout(1)),
            scores=(Score(value=3.0, turns=(1.0, 2.0)), Score(value=5.0)),
        ),
        RolloutGroup(task=Task(id="u"), rollouts=(_rollout(1, 1),), scores=(Score(value=-1.0),)),
    ]

    batch = assemble(Plain(), groups)

    assert batch.turn_rewards.tolist() == [[0, 0, 1, 0, 2], [0, 5, 0, 0, 0], [0, 0, 0, -1, 0]]
    assert torch.equal(batch.turn_rewards.sum(1), batch.rewards)
    assert batch.group.tolist() == [0, 0, 1]
    assert batch.demonstration.tolist() == [False] * 3
    assert batch.max_tokens == 14  # 7 tokens an action, two turns at most


class Cut(Plain):
    """Packs so many tokens of a row and no more."""

    def __init__(self, width):
        self.width = width

    def pack(self, rollouts):
        packed = super().pack(rollouts)
        return Packed(
            inputs={"tokens": packed.inputs["tokens"][:, : self.width]},
            mask=packed.mask[:, : self.width],
            behaviour_logprobs=packed.behaviour_logprobs[:, : self.width],
            turn=packed.turn[:, : self.width],
        )


@pytest.mark.parametrize(
    ("width", "dense", "sparse"),
    [
        (7, [0, 0, 0, 1, 0, 0, 2], [0, 0, 0, 0, 0, 0, 3]),
        (6, [0, 0, 0, 1, 0, 0], [0] * 6),  # within the second turn: its end, which earned the 2, is gone
        (4, [0, 0, 0, 1], [0] * 4),
        (3, [0, 0, 0], [0] * 3),
        (1, [0], [0]),
    ],
)
def test_a_row_cut_short_pays_no_turn_whose_end_it_lost(width, dense, sparse):
    played = _rollout(3, 2)
    group = RolloutGroup(
        task=Task(id="t"),
        rollouts=(played, played),
        scores=(Score(value=3.0, turns=(1.0, 2.0)), Score(value=3.0)),
    )

    batch = assemble(Cut(width), [group])

    assert batch.turn_rewards.tolist() == [dense, sparse]
    assert batch.rewards.tolist() == [3, 3]


def test_a_policy_that_packs_the_latest_turns_is_paid_for_those():
    class Latest(Plain):
        def pack(self, rollouts):
            packed = super().pack(rollouts)
            kept = packed.turn == packed.turn.amax(1, keepdim=True)
            return Packed(
                inputs=packed.inputs,
                mask=packed.mask & kept,
                behaviour_logprobs=packed.behaviour_logprobs,
                turn=torch.where(kept, packed.turn, -1),
            )

    group = RolloutGroup(
        task=Task(id="t"), rollouts=(_rollout(2, 2, 1),), scores=(Score(value=7.0, turns=(1.0, 2.0, 4.0)),)
    )

    assert assemble(Latest(), [group]).turn_rewards.tolist() == [[0, 0, 0, 0, 0, 0, 0, 4]]


def test_comparisons_are_padded_with_nan():
    groups = [
        RolloutGroup(
            task=Task(id="t"),
            rollouts=(_rollout(1), _rollout(1)),
            scores=(Score(value=0.5, against=(0.5, 0.8)), Score(value=0.5, against=(0.2, 0.5))),
        ),
        RolloutGroup(task=Task(id="u"), rollouts=(_rollout(1),), scores=(Score(value=0.5, against=(0.5,)),)),
    ]

    against = assemble(Plain(), groups).against

    torch.testing.assert_close(against[:2], torch.tensor([[0.5, 0.8], [0.2, 0.5]]))
    assert against[2, 0] == 0.5
    assert against[2, 1].isnan()


def test_last_tokens_of_touching_turns_are_told_apart():
    mask = torch.tensor([[True, True, True, False, True, False]])
    turn = torch.tensor([[0, 0, 1, -1, 1, -1]])

    assert last_tokens(mask, turn).tolist() == [[False, True, False, False, True, False]]


def test_a_pack_of_the_wrong_size_is_refused():
    class Short(Plain):
        def pack(self, rollouts):
            return super().pack(rollouts[:1])

    group = RolloutGroup(
        task=Task(id="t"), rollouts=(_rollout(1), _rollout(1)), scores=(Score(value=0.0), Score(value=1.0))
    )
    with pytest.raises(ValueError, match="1 rows for 2 rollouts"):
        assemble(Short(), [group])
