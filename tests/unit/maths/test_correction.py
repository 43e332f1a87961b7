"""Importance weights between acting and training: hand-worked numbers, bounds, a reference in float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from orchestrator.maths.correction import behaviour_ratio, effective_share, masked_weights, truncated_weights

DOUBLE = torch.float64
RATIOS = torch.tensor([[0.4, 0.5, 1.0], [2.0, 5.0, 8.0]], dtype=DOUBLE)
logprobs = st.lists(st.floats(-30, 0), min_size=6, max_size=6)


def test_truncated_weights_are_ratios_up_to_the_cap():
    # min(rho, 2)
    assert_close(truncated_weights(RATIOS, cap=2.0), torch.tensor([[0.4, 0.5, 1.0], [2.0, 2.0, 2.0]], dtype=DOUBLE))


def test_masked_weights_keep_the_ratio_within_the_cap_and_nothing_beyond():
    # MIS, C = 2: rho 1{rho <= 2}
    assert_close(
        masked_weights(RATIOS, floor=0.0, cap=2.0), torch.tensor([[0.4, 0.5, 1.0], [2.0, 0.0, 0.0]], dtype=DOUBLE)
    )


def test_masked_weights_with_both_bounds_are_icepops():
    # alpha = 0.5, beta = 5, both within: M(k) = k for k in [alpha, beta], else 0
    assert_close(
        masked_weights(RATIOS, floor=0.5, cap=5.0), torch.tensor([[0.0, 0.5, 1.0], [2.0, 5.0, 0.0]], dtype=DOUBLE)
    )


def test_the_ratio_of_a_sequence_is_the_product_over_its_trained_tokens():
    # Row 0: 2 x 3, the third token is a prompt's; row 1: 1/2 x 4 x 1
    old = torch.tensor([[2.0, 3.0, 7.0], [0.5, 4.0, 1.0]], dtype=DOUBLE).log()
    mask = torch.tensor([[True, True, False], [True, True, True]])

    assert_close(
        behaviour_ratio(old, torch.zeros_like(old), mask, level="sequence"), torch.tensor([6.0, 2.0], dtype=DOUBLE)
    )
    assert_close(
        behaviour_ratio(old, torch.zeros_like(old), mask, level="token"),
        torch.tensor([[2.0, 3.0, 1.0], [0.5, 4.0, 1.0]], dtype=DOUBLE),
    )


@given(logprobs, logprobs, st.lists(st.booleans(), min_size=6, max_size=6))
def test_ratios_equal_a_plain_reference_in_float64(old, acted, mask):
    old, acted, mask = (torch.tensor(given).reshape(2, 3) for given in (old, acted, mask))

    tokens = behaviour_ratio(old, acted, mask, level="token")
    rows = behaviour_ratio(old, acted, mask, level="sequence")

    for row in range(2):
        difference = [float(old[row, t].double() - acted[row, t].double()) for t in range(3) if mask[row, t]]
        wanted = math.exp(min(max(math.fsum(difference), -20), 20))
        assert rows[row].item() == pytest.approx(wanted, rel=1e-4)
        kept = iter(difference)
        for t in range(3):
            bound = min(max(next(kept), -20), 20) if mask[row, t] else 0.0
            assert tokens[row, t].item() == pytest.approx(math.exp(bound), rel=1e-4)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=8), st.floats(1, 10), st.floats(0, 1))
def test_weights_stay_within_the_bounds_and_leave_ratios_between_alone(ratios, cap, floor):
    ratio = torch.tensor(ratios, dtype=DOUBLE)
    truncated, masked = truncated_weights(ratio, cap=cap), masked_weights(ratio, floor=floor, cap=cap)

    between = (ratio >= floor) & (ratio <= cap)
    assert bool((truncated <= cap).all())
    assert torch.equal(masked[between], ratio[between])
    assert torch.equal(truncated[between], ratio[between])
    assert not masked[~between].any()


def test_extreme_ratios_and_what_is_masked_out_stay_finite_and_without_gradient():
    old = torch.tensor([[-400.0, 400.0, math.nan]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])

    ratio = behaviour_ratio(old, torch.tensor([[0.0, 0.0, math.nan]]), mask, level="token")

    assert_close(ratio, torch.tensor([[math.exp(-20), math.exp(20), 1.0]]))
    assert not ratio.requires_grad
    assert behaviour_ratio(old, torch.zeros(1, 3), mask, level="sequence").item() == 1.0


def test_the_effective_share_is_one_over_the_weights_spread():
    # Weights 1, 1, 2: 16 / (3 x 6); equal weights: 1; none: 0
    assert effective_share(4.0, 6.0, 3) == pytest.approx(16 / 18)
    assert effective_share(8.0, 16.0, 4) == 1.0
    assert effective_share(0.0, 0.0, 4) == 0.0


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\[1, 2\].*\[1, 3\]"):
        behaviour_ratio(torch.zeros(1, 2), torch.zeros(1, 3), torch.ones(1, 2).bool(), level="sequence")
