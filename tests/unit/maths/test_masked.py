"""Masked sums and the shape check."""

import pytest
import torch

from orchestrator.maths.masked import masked_mean, masked_std, masked_sum, sequence_sum
from orchestrator.maths.shapes import expect_shape, group_index

NAN = float("nan")


def test_only_true_positions_count():
    values = torch.tensor([[1.0, NAN, 3], [5, 7, NAN]], dtype=torch.float64)
    mask = torch.tensor([[1, 0, 1], [1, 1, 0]]).bool()

    assert masked_sum(values, mask) == 16
    assert masked_mean(values, mask) == 4
    assert masked_mean(values, mask, dim=1).tolist() == [2, 6]
    assert sequence_sum(values, mask).tolist() == [4, 12]
    assert masked_std(values, mask).item() == pytest.approx((20 / 3) ** 0.5)  # deviations -3, -1, 1, 3


def test_empty_masks_give_zero_with_zero_gradient():
    values = torch.tensor([[NAN, 1.0]], requires_grad=True)
    empty = torch.zeros(1, 2, dtype=torch.bool)

    total = masked_sum(values, empty) + masked_mean(values, empty) + sequence_sum(values, empty).sum()
    total.backward()

    assert total == 0
    assert masked_std(values.detach(), empty) == 0
    assert values.grad.tolist() == [[0, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_of_numbers_is_kept(dtype):
    values, mask = torch.ones(2, 3, dtype=dtype), torch.ones(2, 3, dtype=torch.bool)

    for result in (masked_sum(values, mask), masked_mean(values, mask), masked_std(values, mask)):
        assert result.dtype == dtype


def test_groups_are_numbered_by_first_appearance():
    index, count = group_index(torch.tensor([9, 9, 2, 5, 2]))

    assert (index.tolist(), count) == ([0, 0, 1, 2, 1], 3)


def test_expect_shape_names_the_tensor_what_it_is_and_what_it_should_be():
    good = torch.zeros(2, 3, 7)

    assert expect_shape(good, "B T V", like={"B": 2, "T": 3}) is good
    with pytest.raises(ValueError, match=r"logits has shape \[2, 3, 7\]; expected \[B=2, T=4, V\]"):
        expect_shape(good, "B T V", like={"B": 2, "T": 4}, name="logits")
    with pytest.raises(ValueError, match=r"tensor has shape \[2, 3, 7\]; expected \[B, T\]"):
        expect_shape(good, "B T", like=good)
