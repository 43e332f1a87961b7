"""Cutting a batch loses no row, splits no group it must keep, and drops padding no row needs."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.contract.batch import Batch, Column, Need, Weights
from orchestrator.contract.types import Couples
from orchestrator.training.slicing import group_rows, last_used, microbatches, minibatches, take_rows


def make(lengths: list[int], groups: list[int], width: int | None = None) -> Batch:
    rows, width = len(lengths), width or max([*lengths, 1])
    position = torch.arange(width)
    mask = position[None, :] < torch.tensor(lengths)[:, None]
    group = torch.repeat_interleave(torch.arange(len(groups)), torch.tensor(groups))
    assert len(group) == rows
    values = torch.arange(rows * width, dtype=torch.float32).view(rows, width)
    return Batch(
        inputs={"tokens": values.long(), "temperature": torch.ones(rows)},
        mask=mask,
        behaviour_logprobs=values,
        rewards=torch.arange(rows, dtype=torch.float32),
        turn_rewards=values,
        group=group,
        turn=torch.where(mask, 0, -1),
        demonstration=torch.zeros(rows, dtype=torch.bool),
        columns={Need(Weights.OLD, Column.LOGPROB): values},
        advantages=values,
    )


@st.composite
def batches(draw):
    groups = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    lengths = draw(st.lists(st.integers(0, 9), min_size=sum(groups), max_size=sum(groups)))
    return make(lengths, groups, width=12)


@given(batch=batches(), count=st.integers(1, 5), seed=st.integers(0, 99))
def test_minibatches_partition_whole_groups(batch, count, seed):
    parts = minibatches(batch, count, torch.Generator().manual_seed(seed))

    assert len(parts) <= count
    assert sorted(torch.cat(parts).tolist()) == list(range(len(batch.group)))
    for value in batch.group.unique():
        assert sum(bool((batch.group[rows] == value).any()) for rows in parts) == 1


@given(batch=batches(), rows=st.none() | st.integers(1, 5), tokens=st.none() | st.integers(1, 40))
def test_microbatches_keep_limits_where_units_allow(batch, rows, tokens):
    for couples in Couples:
        parts = microbatches(batch, couples, max_rows=rows, max_tokens=tokens)

        assert sorted(torch.cat(parts).tolist()) == list(range(len(batch.group)))
        for part in parts:
            units = 1 if couples == Couples.ROWS else len(batch.group[part].unique())
            longest = max(int(last_used(batch)[part].max()), 1)
            alone = len(part) == 1 if couples == Couples.ROWS else units == 1
            assert alone or rows is None or len(part) <= rows
            assert alone or tokens is None or len(part) * longest <= tokens


def test_minibatches_are_even_in_rows():
    batch = make([1] * 32, [4] * 8)

    parts = minibatches(batch, 4, torch.Generator().manual_seed(0))

    assert [len(part) for part in parts] == [8, 8, 8, 8]


def test_more_minibatches_than_groups_give_one_each():
    assert len(minibatches(make([1, 1, 1], [2, 1]), 5, torch.Generator())) == 2


def test_taking_rows_cuts_every_tensor_behind_the_last_trained_token():
    batch = make([2, 5, 3], [1, 1, 1], width=9)

    taken = take_rows(batch, torch.tensor([2, 0]))

    assert taken.mask.shape == (2, 3)
    assert taken.inputs["tokens"].tolist() == [[18, 19, 20], [0, 1, 2]]
    assert taken.inputs["temperature"].shape == (2,)
    assert taken.columns[Need(Weights.OLD, Column.LOGPROB)].shape == (2, 3)
    assert taken.rewards.tolist() == [2, 0]
    assert taken.max_tokens == 9


def test_group_rows_follow_the_order_of_the_batch():
    assert [rows.tolist() for rows in group_rows(torch.tensor([7, 7, 3, 5, 5]))] == [[0, 1], [2], [3, 4]]


def test_siblings_share_a_micro_batch_where_rows_are_cut_and_padding_allows_it():
    # Groups of 4 whose lengths interleave: sorted by length alone, each micro-batch of 8 rows held rows of four groups.
    lengths = [10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13]
    batch = make(lengths, [4, 4, 4, 4])

    parts = microbatches(batch, Couples.ROWS, max_rows=None, max_tokens=8 * 13)

    assert sorted(row for part in parts for row in part.tolist()) == list(range(16))
    assert [len(batch.group[part].unique()) for part in parts] == [2, 2]


def test_siblings_are_parted_where_keeping_them_would_cost_padding():
    lengths = [1, 40, 1, 40, 1, 40, 1, 40]
    batch = make(lengths, [2, 2, 2, 2])

    parts = microbatches(batch, Couples.ROWS, max_rows=4, max_tokens=None)

    assert [sorted(part.tolist()) for part in parts] == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_a_group_that_fits_no_micro_batch_is_cut():
    parts = microbatches(make([5] * 6, [5, 1]), Couples.ROWS, max_rows=2, max_tokens=None)

    assert sorted(row for part in parts for row in part.tolist()) == list(range(6))
    assert max(map(len, parts)) == 2


def test_a_mini_batch_that_fits_is_sorted_by_length_as_ever():
    batch = make([5, 2, 3, 1], [2, 2])

    assert [part.tolist() for part in microbatches(batch, Couples.ROWS, max_rows=None, max_tokens=None)] == [
        [3, 1, 2, 0]
    ]
