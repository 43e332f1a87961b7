"""The one place that divides: hand-worked denominators, masks, micro-batches, workers."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from orchestrator.contract.batch import Batch, LossTerm, Reduction, Terms
from orchestrator.training.reduction import (
    Denominators,
    counting_needed,
    keyed,
    override_reduction,
    reduce_terms,
    weigh,
)
from orchestrator.training.slicing import take_rows

MASK = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]]).bool()
VALUES = torch.tensor([[1.0, 3, 99, 99], [1, 2, 6, 99], [99, 99, 99, 99], [99, 5, 99, 99]], dtype=torch.float64)


def _batch(mask=MASK, group=(7, 7, 7, 4), max_tokens=None):
    rows, tokens = mask.shape
    return Batch(
        inputs={},
        mask=mask,
        behaviour_logprobs=torch.zeros(rows, tokens),
        rewards=torch.zeros(rows),
        turn_rewards=torch.zeros(rows, tokens),
        group=torch.tensor(group),
        turn=torch.where(mask, 0, -1),
        demonstration=torch.zeros(rows, dtype=torch.bool),
        max_tokens=max_tokens,
    )


def _reduced(values, reduction, batch=None, **options):
    term = LossTerm(name="policy", values=values, reduction=reduction, **options)
    return reduce_terms(Terms(loss=(term,)), _batch() if batch is None else batch).item()


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        (Reduction.TOKEN_MEAN, 18 / 6),
        (Reduction.SEQUENCE_MEAN, (4 / 2 + 9 / 3 + 5) / 3),  # the row without tokens does not count
        (Reduction.SEQUENCE_SUM, (4 + 9 + 5) / 3),
        (Reduction.GROUP_MEAN, (13 / 5 + 5) / 2),
        (Reduction.CONSTANT, 18 / (4 * 4)),
    ],
)
def test_values_by_token(reduction, expected):
    assert _reduced(VALUES, reduction) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        (Reduction.TOKEN_MEAN, 10 / 4),
        (Reduction.SEQUENCE_MEAN, 10 / 4),
        (Reduction.SEQUENCE_SUM, 10 / 4),
        (Reduction.GROUP_MEAN, (6 / 3 + 4) / 2),
        (Reduction.CONSTANT, 10 / 16),
    ],
)
def test_values_by_row(reduction, expected):
    assert _reduced(torch.tensor([1.0, 2, 3, 4]), reduction) == pytest.approx(expected)


def test_values_by_group_are_averaged_over_groups():
    assert _reduced(torch.tensor([1.0, 4.0]), Reduction.GROUP_MEAN) == 2.5
    assert _reduced(torch.tensor([1.0, 4.0]), Reduction.GROUP_MEAN, mask=torch.tensor([False, True])) == 4


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        (Reduction.TOKEN_MEAN, 11 / 3),  # the mask leaves 3, 5 and, outside the batch's mask, 3
        (Reduction.SEQUENCE_MEAN, (3 / 1 + 3 + 5) / 3),
        (Reduction.SEQUENCE_SUM, 11 / 3),
        (Reduction.GROUP_MEAN, (6 / 2 + 5) / 2),
        (Reduction.CONSTANT, 11 / 16),
    ],
)
def test_a_mask_of_its_own_sets_a_terms_denominator(reduction, expected):
    mask = torch.zeros_like(MASK)
    mask[0, 1] = mask[2, 2] = mask[3, 1] = True
    values = VALUES.clone()
    values[2, 2] = 3

    assert _reduced(values, reduction, mask=mask) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("reduction", list(Reduction))
def test_an_empty_mask_gives_zero_whatever_the_values(reduction):
    empty = torch.zeros_like(MASK)
    values = torch.full((4, 4), float("nan"), requires_grad=True)

    by_batch = reduce_terms(Terms(loss=(LossTerm(name="x", values=values, reduction=reduction),)), _batch(mask=empty))
    by_term = reduce_terms(Terms(loss=(LossTerm(name="x", values=values, reduction=reduction, mask=empty),)), _batch())
    (by_batch + by_term).backward()

    assert (by_batch.item(), by_term.item()) == (0, 0)
    assert values.grad.abs().sum() == 0


def test_a_group_without_tokens_does_not_count():
    batch = _batch(group=(7, 7, 3, 4))  # the third row has no tokens

    assert _reduced(VALUES, Reduction.GROUP_MEAN, batch) == pytest.approx((13 / 5 + 5) / 2, rel=1e-12)
    assert _reduced(torch.tensor([1.0, 2, 3, 5]), Reduction.GROUP_MEAN, batch) == pytest.approx((1.5 + 3 + 5) / 3)


def test_constant_uses_the_maximum_length_where_given():
    assert _reduced(VALUES, Reduction.CONSTANT, _batch(max_tokens=10)) == pytest.approx(18 / 40)


def test_coefficients_are_applied_and_terms_add_up():
    terms = Terms(
        loss=(
            LossTerm(name="a", values=VALUES, reduction=Reduction.TOKEN_MEAN, coefficient=2.0),
            LossTerm(name="a", values=VALUES, reduction=Reduction.TOKEN_MEAN, coefficient=-0.5),
        )
    )

    assert reduce_terms(terms, _batch()).item() == pytest.approx(4.5)
    assert reduce_terms(Terms(loss=()), _batch()).item() == 0


def test_the_override_touches_per_token_policy_terms_and_probes_only():
    policy = LossTerm(name="policy", values=VALUES, reduction=Reduction.TOKEN_MEAN)
    others = (replace(policy, name="kl"), replace(policy, values=torch.ones(4)))
    terms = Terms(loss=(policy, *others), probes=(replace(policy, name="removed"), others[1]))

    changed = override_reduction(terms, Reduction.CONSTANT)

    assert [term.reduction for term in changed.loss] == [Reduction.CONSTANT] + [Reduction.TOKEN_MEAN] * 2
    assert [term.reduction for term in changed.probes] == [Reduction.CONSTANT, Reduction.TOKEN_MEAN]
    assert override_reduction(terms, None) is terms


def _random_terms(seed, rows, tokens, masks):
    generator = torch.Generator().manual_seed(seed)
    by_token = torch.randn(rows, tokens, generator=generator, dtype=torch.float64)
    by_row = torch.randn(rows, generator=generator, dtype=torch.float64)
    token_mask = torch.rand(rows, tokens, generator=generator) < 0.5 if masks else None
    row_mask = torch.rand(rows, generator=generator) < 0.5 if masks else None
    return Terms(
        loss=tuple(
            LossTerm(name="x", values=values, reduction=reduction, mask=mask, coefficient=1.5)
            for reduction in Reduction
            for values, mask in ((by_token, token_mask), (by_row, row_mask))
        )
    )


def _cut(terms, rows, length):
    def take(tensor):
        return None if tensor is None else tensor[rows][:, :length] if tensor.dim() > 1 else tensor[rows]

    return replace(terms, loss=tuple(replace(t, values=take(t.values), mask=take(t.mask)) for t in terms.loss))


def _by_parts(terms, batch, parts):
    pieces = [(take_rows(batch, rows), rows) for rows in parts]
    pieces = [(micro, _cut(terms, rows, micro.mask.shape[1])) for micro, rows in pieces]
    denominators = Denominators.from_batch(batch)
    if counting_needed(terms):
        for micro, cut in pieces:
            denominators = denominators.count(cut, micro)
    return [
        sum(
            weigh(term, micro, denominators, key)
            for micro, cut in pieces
            for key, term in keyed(cut, "loss")
            if key == k
        )
        for k, _ in keyed(terms, "loss")
    ]


@given(st.integers(0, 10_000), st.booleans(), st.data())
def test_any_split_into_micro_batches_adds_up_to_the_whole(seed, masks, data):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(6, 5, generator=generator) < 0.5
    batch = _batch(mask=mask, group=(3, 3, 3, 8, 8, 1))
    terms = _random_terms(seed, 6, 5, masks)
    if masks:  # positions behind the last trained token of a micro-batch are cut away; keep masks inside
        inside = [replace(t, mask=t.mask & mask) if t.values.dim() == 2 else t for t in terms.loss]
        terms = replace(terms, loss=tuple(inside))
    order = torch.randperm(6, generator=generator)
    cuts = sorted(data.draw(st.sets(st.integers(1, 5))))
    parts = [part for part in order.tensor_split(cuts) if len(part)]

    whole = [reduce_terms(Terms(loss=(term,)), batch) for term in terms.loss]
    assert_close(torch.stack(_by_parts(terms, batch, parts)), torch.stack(whole), atol=1e-12, rtol=1e-12)


def test_several_workers_divide_by_the_counts_of_all():
    batch = _batch()
    terms = _random_terms(3, 4, 4, masks=True)
    whole = [reduce_terms(Terms(loss=(term,)), batch) for term in terms.loss]
    shares = [torch.tensor([0, 1, 2]), torch.tensor([3])]  # whole groups
    minis = [replace(_taken(batch, rows), max_tokens=4) for rows in shares]
    cut = [_cut(terms, rows, 4) for rows in shares]
    local = [Denominators.from_batch(mini).count(part, mini) for mini, part in zip(minis, cut, strict=True)]
    sent = []
    for denominators in local:  # what each worker would hand to all_reduce
        denominators.summed(lambda counts: sent.append(counts) or counts)
    summed = [denominators.summed(lambda counts: sent[0] + sent[1]) for denominators in local]

    parts = [
        sum(weigh(c.loss[k[1]], mini, d, k) for c, mini, d in zip(cut, minis, summed, strict=True))
        for k, _ in keyed(terms, "loss")
    ]
    assert_close(torch.stack(parts), torch.stack(whole), atol=1e-12, rtol=1e-12)


def _taken(batch, rows):
    """Rows at full width: workers need not share a width."""
    fields = ("mask", "behaviour_logprobs", "rewards", "turn_rewards", "group", "turn", "demonstration")
    return replace(batch, **{name: getattr(batch, name)[rows] for name in fields})


def test_terms_with_one_name_keep_apart_counts():
    first = torch.zeros_like(MASK)
    first[0, 0] = True
    terms = Terms(
        loss=(
            LossTerm(name="x", values=VALUES, reduction=Reduction.TOKEN_MEAN, mask=first),
            LossTerm(name="x", values=VALUES, reduction=Reduction.TOKEN_MEAN, mask=MASK),
        ),
        probes=(LossTerm(name="x", values=VALUES, reduction=Reduction.TOKEN_MEAN, mask=first),),
    )

    assert reduce_terms(terms, _batch()).item() == pytest.approx(1 + 3)
    assert set(Denominators.from_batch(_batch()).count(terms, _batch()).masked) == {
        ("loss", 0),
        ("loss", 1),
        ("probe", 0),
    }


def test_an_uncounted_mask_is_refused():
    term = LossTerm(name="x", values=VALUES, reduction=Reduction.TOKEN_MEAN, mask=MASK)

    with pytest.raises(ValueError, match="'x' has a mask of its own that was not counted"):
        weigh(term, _batch(), Denominators.from_batch(_batch()))


def test_a_cut_group_is_refused_for_values_by_group():
    batch = _batch()
    micro = take_rows(batch, torch.tensor([0, 1, 3]))
    term = LossTerm(name="pairs", values=torch.ones(2), reduction=Reduction.GROUP_MEAN)

    with pytest.raises(ValueError, match="micro-batch cuts a group"):
        weigh(term, micro, Denominators.from_batch(batch))


def test_shapes_that_fit_nothing_are_refused_with_what_would_fit():
    with pytest.raises(ValueError, match=r"'policy' .* shape \[3\]; expected \[B=4, T=4\], \[B=4\] or"):
        _reduced(torch.ones(3), Reduction.GROUP_MEAN)
    with pytest.raises(ValueError, match="token_mean has values of shape"):
        _reduced(torch.ones(2), Reduction.TOKEN_MEAN)
    with pytest.raises(ValueError, match=r"mask of shape \[4\]"):
        _reduced(VALUES, Reduction.TOKEN_MEAN, mask=torch.ones(4, dtype=torch.bool))
