"""Group baselines, returns and generalised advantages: hand-worked numbers and invariances."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from orchestrator.maths.advantages import (
    discounted_returns,
    generalised_advantages,
    group_centered,
    leave_one_out,
    whiten,
)

DOUBLE = torch.float64
reward_lists = st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=5), min_size=1, max_size=4)


def _flat(groups):
    rewards = torch.tensor([reward for group in groups for reward in group], dtype=DOUBLE)
    return rewards, torch.tensor([10 * (7 - place) for place, group in enumerate(groups) for _ in group])


def test_group_mean_by_hand():
    # Groups (1, 0, 0, 1) with mean 1/2 and (3, 0, 0) with mean 1.
    rewards = torch.tensor([1.0, 0, 0, 1, 3, 0, 0])
    group = torch.tensor([5, 5, 5, 5, 2, 2, 2])

    assert_close(group_centered(rewards, group), torch.tensor([0.5, -0.5, -0.5, 0.5, 2, -1, -1]))


def test_standardised_group_mean_by_hand():
    # Squared deviations 4 x 1/4 = 1, divided by 3: s = 0.577350; 4 + 1 + 1 = 6, divided by 2: s = 1.732051.
    rewards = torch.tensor([1.0, 0, 0, 1, 3, 0, 0], dtype=DOUBLE)
    group = torch.tensor([0, 0, 0, 0, 1, 1, 1])

    high, low = 0.5 / (3**-0.5 + 1e-6), 2 / (3**0.5 + 1e-6)
    expected = torch.tensor([high, -high, -high, high, low, -low / 2, -low / 2], dtype=DOUBLE)
    assert_close(group_centered(rewards, group, standardise=True), expected)


def test_leave_one_out_by_hand():
    # (1, 0, 0, 1): the others of the first are (0, 0, 1), mean 1/3.
    advantages = leave_one_out(torch.tensor([1.0, 0, 0, 1]), torch.zeros(4, dtype=torch.long))

    assert_close(advantages, torch.tensor([2 / 3, -2 / 3, -2 / 3, 2 / 3]))


@pytest.mark.parametrize("standardise", [False, True])
def test_advantages_of_a_constant_group_are_exactly_zero(standardise):
    rewards = torch.full((3,), 0.1)
    group = torch.zeros(3, dtype=torch.long)

    assert group_centered(rewards, group, standardise=standardise).tolist() == [0, 0, 0]
    assert leave_one_out(rewards, group).tolist() == [0, 0, 0]


@pytest.mark.parametrize("standardise", [False, True])
def test_a_group_of_one_keeps_its_reward(standardise):
    rewards, group = torch.tensor([0.7, 1.0, 0.0]), torch.tensor([3, 1, 1])

    assert group_centered(rewards, group, standardise=standardise)[0] == rewards[0]
    assert leave_one_out(rewards, group)[0] == rewards[0]


@given(reward_lists, st.floats(-10, 10))
def test_group_baselines_ignore_a_constant_shift(groups, shift):
    rewards, group = _flat(groups)
    several = torch.tensor([len(members) > 1 for members in groups for _ in members])

    for estimate in (group_centered, leave_one_out):
        moved, still = estimate(rewards + shift, group), estimate(rewards, group)
        assert_close(moved[several], still[several], atol=1e-9, rtol=0)


@given(reward_lists, st.randoms(use_true_random=False))
def test_group_baselines_follow_a_permutation_of_rows(groups, random):
    rewards, group = _flat(groups)
    order = list(range(len(rewards)))
    random.shuffle(order)

    for options in ({}, {"standardise": True}):
        whole = group_centered(rewards, group, **options)
        # Standardised, rounding of nearly equal rewards is magnified by at most 1 / 1e-6.
        assert_close(group_centered(rewards[order], group[order], **options), whole[order], atol=1e-8, rtol=1e-9)


@given(reward_lists)
def test_leave_one_out_is_the_centred_reward_times_g_over_g_minus_one(groups):
    rewards, group = _flat(groups)
    sizes = torch.tensor([len(members) for members in groups for _ in members], dtype=DOUBLE)

    expected = group_centered(rewards, group) * torch.where(sizes > 1, sizes / (sizes - 1).clamp(min=1), 1.0)
    assert torch.equal(leave_one_out(rewards, group), expected)


@given(reward_lists)
def test_leave_one_out_equals_its_definition(groups):
    rewards, group = _flat(groups)
    expected = []
    for members in groups:
        for place, reward in enumerate(members):
            others = members[:place] + members[place + 1 :]
            expected.append(reward - sum(others) / len(others) if others else reward)

    assert_close(leave_one_out(rewards, group), torch.tensor(expected, dtype=DOUBLE), atol=1e-12, rtol=1e-12)


def test_generalised_advantages_by_hand():
    # gamma = 1/2, lam = 1/2, r = (0, 1, 2), V = (1, 2, 3):
    # delta = (0 + 1 - 1, 1 + 1.5 - 2, 2 + 0 - 3) = (0, 0.5, -1); A = (0 + 0.25 * 0.25, 0.5 - 0.25, -1).
    advantages = generalised_advantages(
        torch.tensor([[0.0, 1, 2]]),
        torch.tensor([[1.0, 2, 3]]),
        torch.ones(1, 3, dtype=torch.bool),
        gamma=0.5,
        lam=0.5,
    )

    assert advantages.tolist() == [[0.0625, 0.25, -1.0]]


def test_generalised_advantages_jump_over_observation_tokens():
    # The case above with junk between and behind the policy's tokens.
    nan = float("nan")
    advantages = generalised_advantages(
        torch.tensor([[nan, 0.0, nan, nan, 1, 2, nan]]),
        torch.tensor([[nan, 1.0, nan, nan, 2, 3, nan]]),
        torch.tensor([[0, 1, 0, 0, 1, 1, 0]]).bool(),
        gamma=0.5,
        lam=0.5,
    )

    assert advantages.tolist() == [[0, 0.0625, 0, 0, 0.25, -1.0, 0]]


def test_a_row_that_was_cut_off_goes_on_with_the_value_of_its_last_state():
    # As above, but 4 is the value of the state where the play was cut: delta_3 = 2 + 2 - 3 = 1, A = (3/16, 3/4, 1).
    advantages = generalised_advantages(
        torch.tensor([[0.0, 1, 2, 9, 9]]),
        torch.tensor([[1.0, 2, 3, 9, 4]]),
        torch.tensor([[1, 1, 1, 0, 0]]).bool(),
        gamma=0.5,
        lam=0.5,
        bootstrap=torch.tensor([[0, 0, 0, 0, 1]]).bool(),
    )

    assert advantages.tolist() == [[0.1875, 0.75, 1.0, 0, 0]]


def _reference_advantages(rewards, values, mask, gamma, lam):
    """The textbook sum over k of (gamma lam)^k delta, row by row in plain Python."""
    out = [[0.0] * len(row) for row in rewards]
    for b, row in enumerate(mask):
        places = [t for t, chosen in enumerate(row) if chosen]
        deltas = []
        for k, t in enumerate(places):
            following = values[b][places[k + 1]] if k + 1 < len(places) else 0.0
            deltas.append(rewards[b][t] + gamma * following - values[b][t])
        for k, t in enumerate(places):
            out[b][t] = sum((gamma * lam) ** j * delta for j, delta in enumerate(deltas[k:]))
    return torch.tensor(out, dtype=DOUBLE)


@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_generalised_advantages_equal_the_textbook_sum(seed, gamma, lam):
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, 3, 6, generator=generator, dtype=DOUBLE)
    mask = torch.rand(3, 6, generator=generator) < 0.6

    expected = _reference_advantages(rewards.tolist(), values.tolist(), mask.tolist(), gamma, lam)
    assert_close(generalised_advantages(rewards, values, mask, gamma=gamma, lam=lam), expected, atol=1e-12, rtol=0)


@given(st.integers(0, 10_000))
def test_trace_decay_of_one_telescopes_to_the_return_minus_the_value(seed):
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, 3, 6, generator=generator, dtype=DOUBLE)
    mask = torch.rand(3, 6, generator=generator) < 0.6

    advantages = generalised_advantages(rewards, values, mask, gamma=0.9, lam=1.0)
    returns = discounted_returns(rewards, mask, gamma=0.9)
    assert_close(advantages, torch.where(mask, returns - values, 0.0), atol=1e-12, rtol=0)


def test_discounted_returns_by_hand():
    # 4 + 0 = 4; 2 + 4 / 2 = 4; 1 + 4 / 2 = 3: the masked place neither pays nor discounts.
    returns = discounted_returns(torch.tensor([[1.0, 2, 9, 4]]), torch.tensor([[1, 1, 0, 1]]).bool(), gamma=0.5)

    assert returns.tolist() == [[3, 4, 0, 4]]


def test_whitened_values_have_mean_zero_and_deviation_one():
    # (1, 2, 3): mean 2, unbiased deviation 1.
    whitened = whiten(torch.tensor([[1.0, 2, 3, 99]], dtype=DOUBLE), torch.tensor([[1, 1, 1, 0]]).bool())

    assert_close(whitened, torch.tensor([[-1, 0, 1, 0]], dtype=DOUBLE) / (1 + 1e-8) ** 0.5)


@pytest.mark.parametrize("value", [0.1, 0.3, -7.7, 1e-3])
def test_whitening_does_not_blow_up_what_a_mean_was_rounded_by(value):
    values = torch.full((1, 999), value)

    assert float(whiten(values, torch.ones(1, 999, dtype=torch.bool)).abs().max()) < 0.02


def test_whitening_one_value_or_none_gives_zeros():
    values = torch.tensor([[3.0, 4.0]])

    assert whiten(values, torch.tensor([[True, False]])).tolist() == [[0, 0]]
    assert whiten(values, torch.zeros(1, 2, dtype=torch.bool)).tolist() == [[0, 0]]


def test_wrong_shapes_are_refused_by_name():
    ones = torch.ones(2, 3)

    with pytest.raises(ValueError, match=r"values has shape \[2, 2\]; expected \[B=2, T=3\]"):
        generalised_advantages(ones, ones[:, :2], ones.bool(), gamma=1.0, lam=1.0)
    with pytest.raises(ValueError, match=r"group has shape \[2\]; expected \[B=3\]"):
        group_centered(torch.ones(3), torch.zeros(2, dtype=torch.long))
