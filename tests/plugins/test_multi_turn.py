"""Credit by turn and across turns, the KL in the reward, progress in games, one budget for two kinds of data."""

from __future__ import annotations

import itertools
import logging
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins.multi_turn.advantages import KlPenalised
from orchestrator_plugins.multi_turn.budget import cost, splits
from orchestrator_plugins.multi_turn.config import KlPenalisedConfig
from orchestrator_plugins.multi_turn.placement import terminal_rewards, turn_rewards
from orchestrator_plugins.multi_turn.turns import bilevel_advantages, find_turns, turn_advantages, turn_values

from orchestrator.api import (
    Action,
    Batch,
    Column,
    ConfigError,
    Credit,
    Finish,
    Need,
    Rollout,
    RolloutGroup,
    Stop,
    Task,
    Turn,
    Weights,
    discounted_returns,
    generalised_advantages,
    group_centered,
    leave_one_out,
    load_registry,
    reduce_terms,
)
from orchestrator.rollout.assembly import assemble
from orchestrator.testing import check_component, make_batch

REGISTRY = load_registry()
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


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def near(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), atol=1e-6, rtol=0)


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


def estimator(name, **options):
    return REGISTRY.build("advantage", name, options)


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


def test_a_plan_without_siblings_refuses_leave_one_out():
    with pytest.raises(Exception, match="groups of at most 1, and advantage kl_penalised learns nothing from fewer"):
        _plan("recipe: rloo_agent\nsampler: {count: 1}")


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
    before, after = (KlPenalised(config, RunningMean()) for _ in range(2))
    before.estimate(charged_batch())

    after.load_state_dict(before.state_dict())

    assert after.inner.mean == before.inner.mean == pytest.approx((1.5 - 0.25) / 2)
    assert estimator("kl_penalised", inner={"use": "rloo"}).state_dict() == {}


def test_demonstrations_pay_nothing():
    batch = replace(charged_batch(), demonstration=torch.tensor([True, False]))

    near(
        estimator("kl_penalised", weight=0.1, inner={"use": "reward_to_go"}).estimate(batch).advantages,
        discounted_returns(batch.turn_rewards, batch.mask, gamma=1.0),
    )


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


# --- budget -----------------------------------------------------------------------------------------------

SPLITS = [(0, 1000), (20, 800), (40, 600), (60, 400), (80, 200), (100, 0)]


def test_the_published_splits_spend_one_budget():
    assert list(splits(1000, [0, 20, 40, 60, 80, 100])) == SPLITS
    assert {cost(*split) for split in SPLITS} == {1000}
    assert cost(60, 400) == 60 * 10 + 400 == 1000
    assert cost(0, 5000) > 1000  # the reference outside the budget


def test_a_split_that_cannot_be_paid_is_refused():
    with pytest.raises(ValueError, match="101 demonstrations leave -10 of 1000 units"):
        list(splits(1000, [101]))
    with pytest.raises(ValueError, match="expected counts of at least 0"):
        cost(-1, 5)


# --- recipes ----------------------------------------------------------------------------------------------


def _plan(text):
    from orchestrator.experiment import planner as plans
    from orchestrator.experiment.files import parse_experiment

    base = (
        "name: agents\nenvironment: {use: chain_search}\npolicy: {use: causal_lm, model: {preset: tiny, hidden: 16, "
        "layers: 1, heads: 2}}\ntracking: {enabled: false}\n"
    )
    return plans.make(parse_experiment(base + text, ()), REGISTRY)


def test_the_recipes_are_the_papers_table():
    names = {"ppo": "ppo", "rloo": "rloo", "grpo": "grpo", "rpp": "reinforce_plus_plus"}
    plan = _plan("arms: {" + ", ".join(f"{arm}: {{recipe: {name}_agent}}" for arm, name in names.items()) + "}")
    config = {trial.arm: trial.config for trial in plan.trials}

    assert config["ppo"]["advantage"] == {
        "use": "kl_penalised",
        "weight": 0.01,
        "inner": {"use": "gae", "gamma": 1.0, "lam": 1.0, "whiten": True},
    }
    assert config["rloo"]["advantage"] == {"use": "kl_penalised", "weight": 0.001, "inner": {"use": "rloo"}}
    assert config["rpp"]["advantage"] == {
        "use": "kl_penalised",
        "weight": 0.001,
        "inner": {"use": "reinforce_plus_plus", "gamma": 1.0, "whiten": True},
    }
    assert config["grpo"]["advantage"] == {"use": "group_mean", "standardise": True}
    assert (config["grpo"]["objective"]["kl_weight"], config["grpo"]["objective"]["kl_estimator"]) == (0.001, "k3")
    assert [config[arm]["sampler"]["count"] for arm in ("ppo", "rloo", "grpo", "rpp")] == [1, 4, 4, 1]
    assert (config["ppo"]["objective"]["value_weight"], config["ppo"]["objective"]["value_clip"]) == (1.0, 0.5)
    for arm, settings in config.items():
        objective, optimizer = settings["objective"], settings["optimizer"]
        assert (objective["clip_low"], objective["clip_high"], objective["dual_clip"]) == (0.2, 0.2, 3.0)
        assert (objective["entropy_weight"], objective["reduction"]) == (0.0, "token_mean")
        assert "kl_weight" not in objective or arm == "grpo"  # the others charge it to the reward
        assert "value_weight" not in objective or arm == "ppo"
        assert (settings["schedule"]["epochs"], settings["schedule"]["minibatches"]) == (1, 1)
        assert settings["sampling"]["temperature"] == 0.7
        assert (optimizer["use"], optimizer["weight_decay"], tuple(optimizer["betas"])) == ("adamw", 0.01, (0.9, 0.999))
        assert (optimizer["max_grad_norm"], optimizer["decay"]) == (1.0, "constant")
        assert settings["rewards"] == [{"use": "progress", "placement": "per_turn", "weight": 1.0}]


def test_every_option_has_a_description_and_unknown_ones_are_refused():
    for name in ("turn_gae", "bilevel_gae", "reinforce_plus_plus", "rloo"):
        check_component(REGISTRY.describe("advantage", name))
    for inner in ("gae", "turn_gae", "rloo", "reinforce_plus_plus", "group_mean"):
        check_component(estimator("kl_penalised", inner={"use": inner}))


def test_finish_of_an_action_cut_at_the_limit_stays_in_the_row():
    cut = Turn(observation=(), action=Action(tokens=(7, 7), logprobs=(-1.0, -1.0), finish=Finish.LENGTH))
    rollout = Rollout(task_id="game", index=0, seed=0, turns=(cut,), metrics={"correct": 0.0, "max_score": 1.0})
    group = RolloutGroup(task=Task(id="game"), rollouts=(rollout,), scores=tuple(scored(rollout)))

    batch = assemble(_Words(), [group])

    assert batch.mask.tolist() == [[True, True]]
    assert batch.turn_rewards.tolist() == [[0, 0]]


# --- sweeps -----------------------------------------------------------------------------------------------

SWEEPS = Path(__file__).parents[2] / "sweeps"


def _planned(name):
    from orchestrator.experiment import planner as plans
    from orchestrator.experiment.files import load_experiment

    return {trial.arm: trial.config for trial in plans.make(load_experiment(SWEEPS / name, ()), REGISTRY).trials}


def test_every_split_of_the_budget_sweep_spends_the_same():
    bought = {}
    for arm, config in _planned("multi_turn_budget.yaml").items():
        start, [world, transfer] = config["start"], config["environment"]["worlds"]
        shown = start["schedule"]["steps"] * start["schedule"]["tasks_per_step"]
        assert shown in (0, start["environment"]["worlds"]["0"].get("train_tasks"))  # each demonstration once
        assert start["environment"]["worlds"]["0"]["train_on"] == "demonstrations"
        bought[arm] = (shown, world["train_tasks"] if config["schedule"]["steps"] else 0)
        assert transfer["weight"] == 0

    assert list(bought.values()) == SPLITS
    assert list(bought) == [f"d{demonstrations}-g{games}" for demonstrations, games in SPLITS]
    assert {cost(*split) for split in bought.values()} == {1000}


def test_the_splits_begin_with_one_prior_and_demonstrate_other_games_than_they_train_on():
    from orchestrator.contract.settings import Settings
    from orchestrator.experiment import planner as plans

    keys, worlds = set(), []
    for config in _planned("multi_turn_budget.yaml").values():
        phase = plans.start_settings(Settings.model_validate(config))
        keys.add(plans.start_key(phase))
        worlds.append(phase.environment.options["worlds"][0]["train_on"])
        assert config["environment"]["worlds"][0].get("train_on", "training") == "training"

    assert len(keys) == 1
    assert set(worlds) == {"demonstrations"}


@pytest.mark.parametrize("name", ["algorithms", "algorithms_long", "density"])
def test_the_arms_of_a_comparison_play_as_many_episodes_and_share_their_start(name):
    from orchestrator.contract.settings import Settings
    from orchestrator.experiment import planner as plans

    configs = _planned(f"multi_turn_{name}.yaml").values()

    assert {c["schedule"]["tasks_per_step"] * c["sampler"]["count"] for c in configs} == {64}
    assert len({plans.start_key(Settings.model_validate(config)) for config in configs}) == 1


@pytest.mark.parametrize("name", ["transfer", "turns", "prior"])
def test_the_other_sweeps_are_sound(name):
    assert len(_planned(f"multi_turn_{name}.yaml")) >= 3
