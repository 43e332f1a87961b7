"""Credit by turn and across turns, siblings, the KL in the reward."""

from __future__ import annotations

import itertools
import logging
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from multi_turn_credit import REGISTRY, double, estimator, near
from orchestrator_plugins.multi_turn.advantages import KlPenalised
from orchestrator_plugins.multi_turn.config import KlPenalisedConfig
from orchestrator_plugins.multi_turn.turns import bilevel_advantages, find_turns, turn_advantages, turn_values

from orchestrator.api import (
    Batch,
    Column,
    Credit,
    Need,
    Weights,
    discounted_returns,
    generalised_advantages,
    group_centered,
    leave_one_out,
    reduce_terms,
)
from orchestrator.testing import make_batch

OLD_VALUE = Need(Weights.OLD, Column.VALUE)
OLD_LOGPROB = Need(Weights.OLD, Column.LOGPROB)
REFERENCE_LOGPROB = Need(Weights.REFERENCE, Column.LOGPROB)

MASK = torch.tensor([[1, 1, 0, 0, 1, 1]]).bool()
TURN = torch.tensor([[0, 0, -1, -1, 1, 1]])
REWARDS = torch.tensor([[0, 0.5, 0, 0, 0, 1]], dtype=torch.float64)
VALUES = torch.tensor([[0.2, 0.4, 9, 9, 0.6, 0.7]], dtype=torch.float64)  # 9 where nobody may look

TOKEN = {(1, 0.5): [0.6125, 0.825, 0, 0, 0.25, 0.3], (0.9, 0.5): [0.4814125, 0.71425, 0, 0, 0.165, 0.3]}
TOKEN[1, 1] = [1.3, 1.1, 0, 0, 0.4, 0.3]
BY_TURN = {(1, 0.5): (1.1, 0.4), (0.9, 0.5): (1.02, 0.4), (1, 1): (1.3, 0.4)}
BILEVEL = {(1, 0.5): [0.675, 0.95, 0, 0, 0.25, 0.3], (0.9, 0.5): [0.6325, 0.865, 0, 0, 0.25, 0.3]}
BILEVEL[1, 1] = [1.3, 1.1, 0, 0, 0.4, 0.3]
SETTINGS = sorted(TOKEN)


def a_batch(*, rewards=REWARDS, values=VALUES, mask=MASK, turn=TURN, group=None, **fields):
    """Rows of tokens as a batch: what estimators read, the rest empty."""
    rows = len(mask)
    return Batch(
        inputs={},
        mask=mask,
        behaviour_logprobs=torch.zeros_like(rewards),
        rewards=rewards.sum(1),
        turn_rewards=rewards,
        group=torch.arange(rows) if group is None else torch.tensor(group),
        turn=turn,
        demonstration=torch.zeros(rows, dtype=torch.bool),
        columns={OLD_VALUE: values},
        **fields,
    )


# --- advantages across turns ------------------------------------------------------------------------------


@pytest.mark.parametrize(("gamma", "lam"), SETTINGS)
def test_token_advantages_jump_over_observations(gamma, lam):
    near(generalised_advantages(REWARDS, VALUES, MASK, gamma=gamma, lam=lam), [TOKEN[gamma, lam]])
    credit = estimator("gae", gamma=gamma, lam=lam).estimate(a_batch())
    near(credit.advantages, [TOKEN[gamma, lam]])
    near(credit.returns, torch.where(MASK, double(TOKEN[gamma, lam]) + VALUES, 0.0))


def test_a_walk_through_observation_tokens_would_be_another_estimator():
    walked = generalised_advantages(REWARDS, VALUES, torch.ones_like(MASK), gamma=1.0, lam=0.5)

    near(walked[0, :2], double(3.715625, 7.03125))
    assert not torch.allclose(walked[MASK], generalised_advantages(REWARDS, VALUES, MASK, gamma=1.0, lam=0.5)[MASK])


@pytest.mark.parametrize(("gamma", "lam"), SETTINGS)
def test_turn_advantages_take_one_value_a_turn(gamma, lam):
    first, second = BY_TURN[gamma, lam]
    wanted = [[first, first, 0, 0, second, second]]

    near(turn_advantages(REWARDS, VALUES, MASK, TURN, gamma=gamma, lam=lam), wanted)
    credit = estimator("turn_gae", gamma=gamma, lam=lam, whiten=False).estimate(a_batch())
    near(credit.advantages, wanted)
    near(credit.returns, [[first + 0.2, first + 0.2, 0, 0, second + 0.6, second + 0.6]])


# gamma 0.9: delta 0.5 + 0.9 * 0.7 - 0.4 = 0.73, and 0.45 of what follows
@pytest.mark.parametrize(("gamma", "lam", "first"), [(1.0, 0.5, 0.95), (0.9, 0.5, 0.865), (1.0, 1.0, 1.1)])
def test_turn_advantages_may_read_the_value_at_a_turns_last_token(gamma, lam, first):
    credit = estimator("turn_gae", value_at="last", gamma=gamma, lam=lam, whiten=False).estimate(a_batch())

    near(credit.advantages, [[first, first, 0, 0, 0.3, 0.3]])
    near(credit.returns, [[first + 0.4, first + 0.4, 0, 0, 1, 1]])


@pytest.mark.parametrize(("gamma", "lam"), SETTINGS)
def test_bilevel_advantages_aim_at_the_turns_return(gamma, lam):
    wanted = [BILEVEL[gamma, lam]]

    found = bilevel_advantages(
        REWARDS, VALUES, MASK, TURN, gamma_turn=gamma, gamma_token=1.0, lam_turn=lam, lam_token=lam
    )
    near(found, wanted)
    credit = estimator("bilevel_gae", gamma_turn=gamma, lam_turn=lam, lam_token=lam, whiten=False).estimate(a_batch())
    near(credit.advantages, wanted)
    near(credit.returns, torch.where(MASK, double(wanted[0]) + VALUES, 0.0))


def test_the_discount_within_turns_is_its_own():
    found = bilevel_advantages(
        REWARDS, VALUES, MASK, TURN, gamma_turn=1.0, gamma_token=0.5, lam_turn=1.0, lam_token=1.0
    )

    # turn returns 1.5 and 1: the last token aims at it, the one before at half the next value, plus half its advantage
    near(found, [[0.5 * 0.4 - 0.2 + 0.5 * 1.1, 1.1, 0, 0, 0.5 * 0.7 - 0.6 + 0.5 * 0.3, 0.3]])


@pytest.mark.parametrize("value_at", ["first", "last"])
def test_a_cut_off_play_goes_on_with_the_value_where_it_was_cut(value_at):
    mask = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0]]).bool()
    turn = torch.tensor([[0, 0, -1, 1, -1], [0, -1, -1, -1, -1]])
    rewards = double([0, 0.5, 0, 0, 0], [1, 0, 0, 0, 0])
    values = double([0.1, 0.2, 9, 0.3, 0.8], [0.4, 9, 9, 9, 9])
    bootstrap = torch.tensor([[0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]).bool()

    found = turn_advantages(rewards, values, mask, turn, gamma=0.5, lam=1.0, value_at=value_at, bootstrap=bootstrap)

    last = 0.5 * 0.8 - 0.3
    start = 0.1 if value_at == "first" else 0.2
    first = 0.5 + 0.5 * 0.3 - start + 0.5 * last
    near(found, [[first, first, 0, last, 0], [0.6, 0, 0, 0, 0]])
    two = bilevel_advantages(
        rewards, values, mask, turn, gamma_turn=0.5, gamma_token=1.0, lam_turn=1.0, lam_token=1.0, bootstrap=bootstrap
    )
    upper = 0.5 + 0.5 * 0.3 - 0.2 + 0.5 * last
    near(two, [[upper + 0.2 - 0.1, upper, 0, last, 0], [0.6, 0, 0, 0, 0]])


def test_turns_are_told_apart_by_their_number_alone():
    mask = torch.tensor([[0, 1, 1, 1, 1, 0], [1, 0, 1, 0, 0, 0]]).bool()
    turn = torch.tensor([[-1, 4, 4, 7, 9, -1], [3, -1, 3, -1, -1, -1]])

    found = find_turns(mask, turn)

    assert found.count == 3
    assert found.place.tolist() == [[0, 0, 0, 1, 2, 0], [0, 0, 0, 0, 0, 0]]
    assert found.starts.nonzero().tolist() == [[0, 1], [0, 3], [0, 4], [1, 0]]
    assert found.ends.nonzero().tolist() == [[0, 2], [0, 3], [0, 4], [1, 2]]
    values = torch.arange(12.0).reshape(2, 6)
    assert turn_values(values, mask, turn, "last").tolist() == [[0, 2, 2, 3, 4, 0], [8, 0, 8, 0, 0, 0]]


def test_rows_without_a_turn_get_nothing():
    mask, turn = torch.zeros(2, 3, dtype=torch.bool), torch.full((2, 3), -1)
    junk = torch.full((2, 3), math.nan, dtype=torch.float64)

    assert turn_advantages(junk, junk, mask, turn, gamma=1.0, lam=1.0).tolist() == [[0] * 3] * 2
    both = bilevel_advantages(junk, junk, mask, turn, gamma_turn=1, gamma_token=1, lam_turn=1, lam_token=1)
    assert both.tolist() == [[0] * 3] * 2


@st.composite
def batches(draw):
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    lengths = draw(st.lists(st.integers(1, 9), min_size=sum(sizes), max_size=sum(sizes)))
    batch = make_batch(
        sizes=sizes,
        lengths=lengths,
        turns=draw(st.integers(1, 4)),
        needs={OLD_VALUE, OLD_LOGPROB, REFERENCE_LOGPROB},
        dtype=torch.float64,
        seed=draw(st.integers(0, 10_000)),
    )
    return batch


UNDISCOUNTED = {
    "gae": {"gamma": 1.0, "lam": 1.0},
    "bilevel_gae": {"whiten": False},
    "turn_gae": {"whiten": False},
}


@given(batches())
def test_without_discount_every_estimator_is_the_reward_to_go_minus_the_value(batch):
    to_go = discounted_returns(batch.turn_rewards, batch.mask, gamma=1.0)
    values = batch.columns[OLD_VALUE]

    for name, options in UNDISCOUNTED.items():
        credit = estimator(name, **options).estimate(batch)
        base = turn_values(values, batch.mask, batch.turn, "first") if name == "turn_gae" else values
        to_come = turn_values(to_go, batch.mask, batch.turn, "first") if name == "turn_gae" else to_go
        near(credit.advantages, torch.where(batch.mask, to_come - base, 0.0))
        near(credit.returns, to_come)
    plain = estimator("reinforce_plus_plus", whiten=False).estimate(batch)
    near(plain.advantages, to_go)


EVERY = {
    "gae": {"gamma": 0.9, "lam": 0.7, "whiten": True},
    "turn_gae": {"gamma": 0.9, "lam": 0.7},
    "bilevel_gae": {"gamma_turn": 0.9, "gamma_token": 0.8, "lam_turn": 0.7, "lam_token": 0.6},
    "reinforce_plus_plus": {"gamma": 0.9},
    "rloo": {},
    "kl_penalised": {"inner": {"use": "turn_gae", "gamma": 0.9, "lam": 0.7}, "weight": 0.3},
}


@pytest.mark.parametrize("name", EVERY)
@given(batch=batches(), junk=st.sampled_from([9.0, -1e6, math.nan, math.inf]))
def test_what_stands_on_observation_tokens_changes_nothing(name, batch, junk):
    spoilt = replace(
        batch,
        columns={need: torch.where(batch.mask, column, junk) for need, column in batch.columns.items()},
        turn_rewards=torch.where(batch.mask, batch.turn_rewards, junk),
    )

    clean, found = (estimator(name, **EVERY[name]).estimate(one) for one in (batch, spoilt))

    assert torch.equal(found.advantages, clean.advantages)
    assert (clean.returns is None) == (found.returns is None)
    if clean.returns is not None:
        assert torch.equal(found.returns, clean.returns)
    assert not found.advantages[~batch.mask].any()


@pytest.mark.parametrize("name", EVERY)
@given(batch=batches(), left=st.integers(0, 3), right=st.integers(0, 3))
def test_padding_changes_nothing(name, batch, left, right):
    def padded(tensor, filler):
        return torch.nn.functional.pad(tensor, (left, right), value=filler)

    wide = replace(
        batch,
        mask=padded(batch.mask, False),
        turn=padded(batch.turn, -1),
        turn_rewards=padded(batch.turn_rewards, 5.0),
        columns={need: padded(column, 7.0) for need, column in batch.columns.items()},
    )

    narrow = estimator(name, **EVERY[name]).estimate(batch)
    found = estimator(name, **EVERY[name]).estimate(wide)

    near(found.advantages[:, left : left + batch.mask.shape[1]], narrow.advantages)


@given(batches())
def test_whitening_gives_mean_0_and_deviation_1_over_the_tokens_and_leaves_targets(batch):
    for name in ("turn_gae", "bilevel_gae", "reinforce_plus_plus"):
        raw, credit = (estimator(name, whiten=chosen).estimate(batch) for chosen in (False, True))
        chosen, before = credit.advantages[batch.mask], raw.advantages[batch.mask]
        assert abs(float(chosen.mean())) < 1e-9
        if len(chosen) > 1 and float(before.std()) > 1e-2:
            assert abs(float(chosen.std()) - 1) < 1e-4
            near(chosen, (before - before.mean()) / (before.var() + 1e-8).sqrt())
        assert (credit.returns is None) == (raw.returns is None)
        if raw.returns is not None:
            assert torch.equal(credit.returns, raw.returns)  # a critic's targets are not whitened


# --- REINFORCE++ ------------------------------------------------------------------------------------------


def test_the_return_is_carried_across_observations():
    rewards = double([0, 0, 0, 0, 0, 1])

    found = estimator("reinforce_plus_plus", gamma=1.0, whiten=False).estimate(a_batch(rewards=rewards)).advantages

    near(found, [[1, 1, 0, 0, 1, 1]])
    assert found.tolist() != _reset_at_masked_tokens(rewards, gamma=1.0)


def test_the_discount_counts_the_policys_tokens_alone():
    rewards = double([0, 0, 0, 0, 0, 1])

    found = estimator("reinforce_plus_plus", gamma=0.5, whiten=False).estimate(a_batch(rewards=rewards)).advantages

    near(found, [[0.125, 0.25, 0, 0, 0.5, 1]])


def _reset_at_masked_tokens(rewards, gamma):
    """The recursion written for one turn, which forgets the return wherever the mask is 0."""
    running, found = 0.0, []
    for reward, chosen in zip(reversed(rewards[0].tolist()), reversed(MASK[0].tolist()), strict=True):
        running = (reward + gamma * running) * chosen
        found.append(running)
    return [found[::-1]]


def test_the_recursion_for_one_turn_pays_the_last_turn_alone():
    assert _reset_at_masked_tokens(double([0, 0, 0, 0, 0, 1]), gamma=1.0) == [[0, 0, 0, 0, 1, 1]]


# --- siblings ---------------------------------------------------------------------------------------------

SCORES, GROUPS = double(1, 0, 0, 1, 1, 0, 0.3), [0, 0, 0, 0, 1, 1, 2]


def one_token_each(scores, groups):
    mask = torch.ones(len(scores), 1, dtype=torch.bool)
    return a_batch(
        rewards=scores[:, None], values=torch.zeros_like(scores)[:, None], mask=mask, turn=mask.long() - 1, group=groups
    )


def test_leave_one_out_gives_a_rollout_without_siblings_nothing_and_says_so_once(caplog):
    found = estimator("rloo")
    with caplog.at_level(logging.WARNING):
        credits = [found.estimate(one_token_each(SCORES, GROUPS)) for _ in range(2)]

    near(credits[0].advantages[:, 0], [2 / 3, -2 / 3, -2 / 3, 2 / 3, 1, -1, 0])
    assert credits[0].metrics["multi_turn/without_siblings"] == pytest.approx(1 / 7)
    assert [record.message for record in caplog.records] == [
        "advantage rloo: 1 of 7 rollouts have no sibling to compare with and get advantage 0; this is said once"
    ]
    near(leave_one_out(SCORES, torch.tensor(GROUPS))[-1], 0.3)  # the unguarded variant


def test_group_means_divided_by_the_deviation():
    credit = estimator("group_mean", standardise=True).estimate(one_token_each(SCORES[:6], GROUPS[:6]))

    near(credit.advantages[:, 0], [0.8660239, -0.8660239, -0.8660239, 0.8660239, 0.7071058, -0.7071058])


LOGITS = double(0, math.log(2), math.log(3))
PAYS = double(1, 0, 0.5)
EXPECTED = {
    "exact": [0.0972222, -0.1388889, 0.0416667],
    "rloo": [0.0972222, -0.1388889, 0.0416667],
    "mean only": [0.0486111, -0.0694444, 0.0208333],
    "with deviation": [0.0982091, -0.1571345, 0.0589254],
}
BASELINES = {
    "rloo": lambda rewards, group: estimator("rloo").estimate(one_token_each(rewards, group.tolist())).advantages[:, 0],
    "mean only": group_centered,
    "with deviation": lambda rewards, group: group_centered(rewards, group, standardise=True),
}


def test_the_exact_gradient_of_three_actions():
    logits = LOGITS.clone().requires_grad_()
    (logits.softmax(0) * PAYS).sum().backward()

    near(logits.grad, EXPECTED["exact"])


@pytest.mark.parametrize("name", BASELINES)
def test_the_expected_gradient_of_two_siblings_by_enumeration(name):
    probabilities = LOGITS.softmax(0)
    scores = torch.eye(3, dtype=torch.float64) - probabilities  # gradient of the log-probability, by action
    total = torch.zeros(3, dtype=torch.float64)
    for first in range(3):
        for second in range(3):
            pair = torch.tensor([first, second])
            advantages = BASELINES[name](PAYS[pair], torch.zeros(2, dtype=torch.int64))
            chance = probabilities[first] * probabilities[second]
            total += chance * (advantages[:, None] * scores[pair]).mean(0)

    near(total, EXPECTED[name])


# Two tokens: 0 ends the play, 1 is followed by one of two more; so plays are of one token or of two.
FIRST, SECOND_TOKEN = double(0.3, -0.2), double(0.5, -0.4)
PLAYS, EARNED = ((0, None), (1, 0), (1, 1)), double(0.2, 1.0, -0.5)


def _logprobs_of_plays(first, second):
    """[3, 2] of each play's tokens, 0 where it has none."""
    first, second = first.log_softmax(0), second.log_softmax(0)
    rows = [[first[a], torch.zeros_like(first[a]) if b is None else second[b]] for a, b in PLAYS]
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize(("reduction", "unbiased"), [("sequence_sum", True), ("sequence_mean", False)])
def test_leave_one_out_is_unbiased_where_a_play_is_the_sum_of_its_tokens(reduction, unbiased):
    leaves = FIRST.clone().requires_grad_(), SECOND_TOKEN.clone().requires_grad_()
    logprobs = _logprobs_of_plays(*leaves)
    chances = logprobs.detach().sum(1).exp()
    exact = torch.cat(torch.autograd.grad((logprobs.sum(1).exp() * EARNED).sum(), leaves, retain_graph=True))
    objective = REGISTRY.build("objective", "clipped", {"reduction": reduction})
    length = torch.tensor([[1, 0], [1, 1], [1, 1]]).bool()

    expected = torch.zeros(4, dtype=torch.float64)
    for pair in itertools.product(range(3), repeat=2):
        rows = torch.tensor(pair)
        mask, now = length[rows], logprobs[rows]
        batch = a_batch(
            rewards=torch.stack([EARNED[rows], torch.zeros(2)], 1),
            values=torch.zeros(2, 2),
            mask=mask,
            turn=mask.long() - 1,
            group=[0, 0],
        )
        batch = replace(batch, columns={OLD_LOGPROB: now.detach()})
        batch = replace(batch, advantages=estimator("rloo").estimate(batch).advantages)
        loss = reduce_terms(objective.terms(batch, {Column.LOGPROB: now}), batch)
        found = torch.autograd.grad(-loss, leaves, retain_graph=True, allow_unused=True)
        found = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]
        expected += chances[rows].prod() * torch.cat(found)

    assert abs(float(chances.sum()) - 1) < 1e-12
    assert torch.allclose(expected, exact, atol=1e-12) == unbiased
    assert torch.allclose(expected, exact, atol=1e-2) == unbiased


# --- the KL in the reward ---------------------------------------------------------------------------------


def charged_batch():
    rewards = double([0, 0.5, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0])
    batch = a_batch(
        rewards=rewards, values=VALUES.repeat(2, 1), mask=MASK.repeat(2, 1), turn=TURN.repeat(2, 1), group=[0, 0]
    )
    logprobs = double([-1, -2, 5, 5, -1, -1], [-1, -1, 5, 5, -1, -1])
    reference = double([-2, -1.5, -9, -9, -1, -3], [-1, -1, -9, -9, -1, -1])
    return replace(batch, columns={**batch.columns, OLD_LOGPROB: logprobs, REFERENCE_LOGPROB: reference})


def test_every_token_pays_for_leaving_the_reference():
    batch = charged_batch()  # log-ratios 1, -0.5, 0, 2 in the first row, 0 in the second
    found = estimator("kl_penalised", weight=0.1, inner={"use": "reward_to_go"})

    credit = found.estimate(batch)

    near(credit.advantages, [[1.5 - 0.25, 1.5 - 0.15, 0, 0, 0.8, 0.8], [0] * 6])
    assert credit.metrics["multi_turn/kl_reference"] == pytest.approx(2.5 / 8)
    assert credit.metrics["multi_turn/kl_penalty"] == pytest.approx(0.25 / 2)
    assert found.needs == {OLD_LOGPROB, REFERENCE_LOGPROB}


def test_siblings_are_compared_after_they_have_paid():
    credit = estimator("kl_penalised", weight=0.1, inner={"use": "rloo"}).estimate(charged_batch())

    near(credit.advantages[:, 0], [1.25, -1.25])


def test_a_critic_learns_what_is_left():
    inner = {"use": "gae", "gamma": 1.0, "lam": 1.0}
    credit = estimator("kl_penalised", weight=0.1, inner=inner).estimate(charged_batch())

    near(credit.returns[0], [1.25, 1.35, 0, 0, 0.8, 0.8])
    assert estimator("kl_penalised", inner=inner).needs == {OLD_VALUE, OLD_LOGPROB, REFERENCE_LOGPROB}


def test_what_the_charged_estimator_remembers_is_in_the_checkpoint():
    class RunningMean:
        needs = frozenset()
        mean = 0.0

        def estimate(self, batch):
            self.mean = float(batch.rewards.mean())
            return Credit(advantages=batch.turn_rewards - self.mean)

        def state_dict(self):
            return {"mean": self.mean}

        def load_state_dict(self, state):
            self.mean = state["mean"]

    config = KlPenalisedConfig(weight=0.1)
    charged, again = (KlPenalised(config, RunningMean()) for _ in range(2))
    charged.estimate(charged_batch())

    assert charged.inner["inner"].mean == pytest.approx((1.5 - 0.25) / 2)
    assert charged.state_dict() == {}  # the core keeps what stands in ``inner``
    again.load_state_dict({"inner": {"mean": 0.5}})  # as version 0.1 saved it
    assert again.inner["inner"].mean == 0.5


def test_demonstrations_pay_nothing():
    batch = replace(charged_batch(), demonstration=torch.tensor([True, False]))

    near(
        estimator("kl_penalised", weight=0.1, inner={"use": "reward_to_go"}).estimate(batch).advantages,
        discounted_returns(batch.turn_rewards, batch.mask, gamma=1.0),
    )
