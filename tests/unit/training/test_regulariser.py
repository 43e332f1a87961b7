"""The terms objectives share: worked by hand, each alone and together."""

import math

import pytest
import torch

from orchestrator.api import Batch, Column, Mean, Need, Reduction, Regulariser, Terms, Weights, is_clipped, reduce_terms
from orchestrator.training.regulariser import OLD_VALUE, REFERENCE_LOGPROB

DOUBLE = torch.float64
NAN = math.nan


def row(*numbers):
    return torch.tensor([numbers], dtype=DOUBLE)


def batch(*, returns=True):
    """One row of two trained tokens and one observed."""
    mask = torch.tensor([[True, False, True]])
    zeros = torch.zeros(1, 3, dtype=DOUBLE)
    return Batch(
        inputs={},
        mask=mask,
        behaviour_logprobs=zeros,
        rewards=torch.zeros(1, dtype=DOUBLE),
        turn_rewards=zeros,
        group=torch.zeros(1, dtype=torch.int64),
        turn=torch.tensor([[0, -1, 1]]),
        demonstration=torch.zeros(1, dtype=torch.bool),
        returns=row(1, NAN, 2) if returns else None,
        columns={REFERENCE_LOGPROB: row(-1, NAN, -2), OLD_VALUE: row(0, NAN, 2)},
    )


def current():
    return {
        Column.LOGPROB: row(-1 + math.log(2), NAN, -2),
        Column.ENTROPY: row(0.3, NAN, 0.5),
        Column.VALUE: row(1.2, NAN, 2),
    }


def regulariser(**options):
    return Regulariser(objective="mine", reduction=Reduction.TOKEN_MEAN, **options)


def loss(found, rows):
    terms, _ = found.terms(rows, current())
    return float(reduce_terms(Terms(loss=terms), rows))


def test_nothing_is_asked_for_or_added_by_default():
    found = regulariser()

    assert found.needs == frozenset()
    assert found.terms(batch(), {}) == ((), {})


def test_kl_by_hand():
    # log r = -log 2 at the first token, 0 at the other; k1 = log 2, k2 = log(2)^2 / 2, k3 = 1/2 - 1 + log 2; mean of two tokens.
    by_hand = {"k1": math.log(2) / 2, "k2": math.log(2) ** 2 / 4, "k3": (math.log(2) - 0.5) / 2}
    for estimator, expected in by_hand.items():
        found = regulariser(kl_weight=0.1, kl_estimator=estimator)
        assert found.needs == {Need(Weights.CURRENT, Column.LOGPROB), REFERENCE_LOGPROB}
        assert loss(found, batch()) == pytest.approx(0.1 * expected)
        _, metrics = found.terms(batch(), current())
        total, count = metrics["train/kl_reference"]
        assert (float(total), int(count)) == (pytest.approx(2 * expected), 2)


def test_entropy_is_a_bonus():
    found = regulariser(entropy_weight=0.1)

    assert found.needs == {Need(Weights.CURRENT, Column.ENTROPY)}
    assert loss(found, batch()) == pytest.approx(-0.1 * 0.4)
    total, count = found.terms(batch(), current())[1]["train/entropy"]
    assert (float(total), int(count)) == (pytest.approx(0.8), 2)


@pytest.mark.parametrize(
    ("clip", "expected", "needs"),
    [
        # Errors 1.2 - 1 and 2 - 2: half squares 0.02 and 0, mean 0.01.
        (None, 0.01, {Need(Weights.CURRENT, Column.VALUE)}),
        # Held within 0.5 of 0 the first value is 0.5, whose error -0.5 is the greater one: half square 0.125.
        (0.5, 0.0625, {Need(Weights.CURRENT, Column.VALUE), OLD_VALUE}),
    ],
)
def test_critic_by_hand(clip, expected, needs):
    found = regulariser(value_weight=0.5, value_clip=clip)

    assert found.needs == needs
    assert loss(found, batch()) == pytest.approx(0.5 * expected)


def test_terms_add_up_and_keep_their_reductions():
    options = {"kl_weight": 0.1, "entropy_weight": 0.2, "value_weight": 0.3}
    found = Regulariser(objective="mine", reduction=Reduction.SEQUENCE_SUM, scaled=False, **options)
    terms, _ = found.terms(batch(), current())

    assert [(term.name, term.coefficient, term.reduction, term.scaled) for term in terms] == [
        ("kl", 0.1, Reduction.SEQUENCE_SUM, False),
        ("entropy", -0.2, Reduction.SEQUENCE_SUM, False),
        ("value", 0.3, Reduction.TOKEN_MEAN, False),
    ]
    assert loss(found, batch()) == pytest.approx(0.1 * (math.log(2) - 0.5) - 0.2 * 0.8 + 0.3 * 0.01)


def test_a_critic_without_targets_is_refused_by_the_objectives_name():
    with pytest.raises(ValueError, match=r"objective mine has value_weight > 0 but .* sets no returns for a critic"):
        regulariser(value_weight=0.5).terms(batch(returns=False), current())


def test_a_mean_is_taken_over_the_mask_alone_and_without_gradient():
    values = torch.tensor([1.0, NAN, 4.0], requires_grad=True)

    total, count = Mean.over(values, torch.tensor([True, False, True]))

    assert (float(total), int(count), total.requires_grad) == (5.0, 2, False)


def test_tokens_are_clipped_only_in_the_direction_they_are_pushed():
    ratio = row(1.3, 1.3, 0.7, 0.7, 1.2, 1.3, 1.3)
    advantages = row(1, -1, 1, -1, 1, 0, 1)
    mask = torch.tensor([[True] * 6 + [False]])

    found = is_clipped(ratio, advantages, mask, clip_low=0.2, clip_high=0.2)

    assert found.tolist() == [[True, False, False, True, False, False, False]]
    with pytest.raises(ValueError, match=r"is_clipped: advantages has shape \[1, 2\]; expected \[1, 7\]"):
        is_clipped(ratio, advantages[:, :2], mask, clip_low=0.2, clip_high=0.2)
