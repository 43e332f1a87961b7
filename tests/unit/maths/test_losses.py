"""Ratios and per-token losses: hand-worked numbers, limits, gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from orchestrator.maths.losses import clipped_surrogate, clipped_value_loss, cross_entropy, kl_estimate
from orchestrator.maths.ratios import importance_ratio, log_ratio

DOUBLE = torch.float64
ALL = torch.ones(1, 4, dtype=torch.bool)


def _logs(*ratios):
    return torch.tensor([ratios], dtype=DOUBLE).log()


def test_clipped_surrogate_by_hand():
    # A = +1: ratio 1.5 is cut to 1.2, 0.5 is not; A = -2: ratio 1.5 is not cut, 0.5 is cut to 0.8.
    losses = clipped_surrogate(
        _logs(1.5, 0.5, 1.5, 0.5),
        torch.zeros(1, 4, dtype=DOUBLE),
        torch.tensor([[1.0, 1, -2, -2]], dtype=DOUBLE),
        ALL,
        clip_low=0.2,
        clip_high=0.2,
    )

    assert_close(losses, torch.tensor([[-1.2, -0.5, 3.0, 1.6]], dtype=DOUBLE))


def test_upper_and_lower_clip_are_separate():
    # DAPO's bounds 0.2 and 0.28.
    losses = clipped_surrogate(
        _logs(1.5, 0.5),
        torch.zeros(1, 2, dtype=DOUBLE),
        torch.tensor([[1.0, -1]], dtype=DOUBLE),
        ALL[:, :2],
        clip_low=0.2,
        clip_high=0.28,
    )

    assert_close(losses, torch.tensor([[-1.28, 0.8]], dtype=DOUBLE))


def test_dual_clip_bounds_the_loss_of_negative_advantages():
    # Ratio 10 and A = -1: the loss is 10, at most 3 x |A| with dual clip; positive advantages are left alone.
    losses = clipped_surrogate(
        _logs(10, 10, 2, 1),
        torch.zeros(1, 4, dtype=DOUBLE),
        torch.tensor([[-1.0, 1, -1, -1]], dtype=DOUBLE),
        ALL,
        clip_low=0.2,
        clip_high=0.2,
        dual_clip=3.0,
    )

    assert_close(losses, torch.tensor([[3, -1.2, 2, 1]], dtype=DOUBLE))


@given(st.integers(0, 10_000))
def test_without_bounds_the_surrogate_is_ratio_times_advantage(seed):
    generator = torch.Generator().manual_seed(seed)
    logprobs, old, advantages = torch.randn(3, 2, 5, generator=generator, dtype=DOUBLE)
    mask = torch.rand(2, 5, generator=generator) < 0.7

    losses = clipped_surrogate(logprobs, old, advantages, mask, clip_low=math.inf, clip_high=math.inf)
    assert_close(losses, torch.where(mask, -(logprobs - old).exp() * advantages, 0.0))


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.2]))
def test_on_policy_the_surrogate_has_the_gradient_of_reinforce(seed, clip):
    generator = torch.Generator().manual_seed(seed)
    logprobs, advantages = torch.randn(2, 2, 5, generator=generator, dtype=DOUBLE)
    mask = torch.rand(2, 5, generator=generator) < 0.7
    logprobs.requires_grad_()
    bound = math.inf if clip == 0 else clip

    clipped_surrogate(logprobs, logprobs.detach(), advantages, mask, clip_low=bound, clip_high=bound).sum().backward()
    assert torch.equal(logprobs.grad, torch.where(mask, -advantages, 0.0))


@pytest.mark.parametrize("distance", [-1e4, -50.0, 50.0, 1e4])
def test_extreme_log_ratios_give_finite_losses_and_gradients(distance):
    logprobs = torch.full((1, 4), distance, requires_grad=True)
    old, advantages = torch.zeros(1, 4), torch.tensor([[1.0, -1, 2, -2]])

    total = clipped_surrogate(logprobs, old, advantages, ALL, clip_low=0.2, clip_high=0.2).sum()
    for estimator in ("k1", "k2", "k3"):
        total = total + kl_estimate(logprobs, old, ALL, estimator=estimator).sum()
    total.backward()

    assert torch.isfinite(total)
    assert torch.isfinite(logprobs.grad).all()


def test_masked_tokens_have_no_loss_and_no_gradient_whatever_they_hold():
    mask = torch.tensor([[True, False]])
    junk = torch.tensor([[0.0, math.nan]], dtype=DOUBLE)
    logprobs = torch.tensor([[-1.0, math.inf]], dtype=DOUBLE, requires_grad=True)

    losses = clipped_surrogate(logprobs, junk, torch.where(mask, 1.0, junk), mask, clip_low=0.2, clip_high=0.2)
    losses = losses + kl_estimate(logprobs, junk, mask) + clipped_value_loss(logprobs, junk, junk, mask, clip=0.2)
    (losses + cross_entropy(logprobs, mask)).sum().backward()

    assert losses[0, 1] == 0
    assert logprobs.grad[0, 1] == 0
    assert torch.isfinite(logprobs.grad).all()


def test_log_ratio_is_clamped_to_twenty_nats():
    ratios = log_ratio(torch.tensor([0.0, 30, -30]), torch.zeros(3))

    assert ratios.tolist() == [0, 20, -20]
    assert_close(importance_ratio(torch.tensor([100.0]), torch.zeros(1)), torch.tensor([20.0]).exp())


def test_kl_estimates_by_hand():
    # pi = 1/2, reference = 1/4: log r = -log 2; k1 = log 2, k2 = log(2)^2 / 2, k3 = 1/2 - 1 + log 2.
    logprobs, reference, mask = _logs(0.5), _logs(0.25), ALL[:, :1]

    values = [kl_estimate(logprobs, reference, mask, estimator=name).item() for name in ("k1", "k2", "k3")]
    assert values == pytest.approx([math.log(2), math.log(2) ** 2 / 2, math.log(2) - 0.5], abs=1e-12)


@given(st.lists(st.floats(0.05, 1), min_size=2, max_size=5), st.lists(st.floats(0.05, 1), min_size=5, max_size=5))
def test_k1_and_k3_are_unbiased(weights, other):
    policy = torch.tensor([weights], dtype=DOUBLE) / sum(weights)
    reference = torch.tensor([other[: len(weights)]], dtype=DOUBLE) / sum(other[: len(weights)])
    mask = torch.ones_like(policy, dtype=torch.bool)
    exact = (policy * (policy / reference).log()).sum()

    for name in ("k1", "k3"):
        estimate = kl_estimate(policy.log(), reference.log(), mask, estimator=name)
        assert_close((policy * estimate).sum(), exact, atol=1e-12, rtol=0)
    assert (kl_estimate(policy.log(), reference.log(), mask, estimator="k3") >= 0).all()


def test_an_unknown_kl_estimator_is_refused():
    with pytest.raises(ValueError, match="no estimator 'k4'; expected k1, k2 or k3"):
        kl_estimate(_logs(1), _logs(1), ALL[:, :1], estimator="k4")


def test_clipped_value_loss_by_hand():
    # old 0, target 1, clip 0.2. V = 0.5: unclipped error 0.25, clipped (0.2 - 1)^2 = 0.64, the larger counts.
    # V = -1: 4 against (-0.2 - 1)^2 = 1.44.
    values = torch.tensor([[0.5, -1.0]], dtype=DOUBLE)
    zeros, ones, mask = torch.zeros_like(values), torch.ones_like(values), ALL[:, :2]

    assert_close(clipped_value_loss(values, zeros, ones, mask, clip=0.2), torch.tensor([[0.32, 2.0]], dtype=DOUBLE))
    assert_close(clipped_value_loss(values, zeros, ones, mask), torch.tensor([[0.125, 2.0]], dtype=DOUBLE))


def test_wrong_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match=r"clipped_surrogate: advantages has shape \[1\]; expected \[1, 4\]"):
        clipped_surrogate(torch.zeros(1, 4), torch.zeros(1, 4), torch.zeros(1), ALL, clip_low=0.2, clip_high=0.2)
    with pytest.raises(ValueError, match="log_ratio"):
        log_ratio(torch.zeros(2), torch.zeros(3))
