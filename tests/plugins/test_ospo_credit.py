"""Credit and objective of dispatch: the specification's numbers, then what must hold for all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins.ospo.advantages import (
    FleetGae,
    FleetReturn,
    OneStepGroup,
    spaced_advantages,
    spaced_returns,
    spread_penalty,
)
from orchestrator_plugins.ospo.config import (
    FleetGaeConfig,
    FleetReturnConfig,
    OneStepGroupConfig,
    PairClippedConfig,
)
from orchestrator_plugins.ospo.objective import PairClipped, request_kl

from orchestrator.api import Batch, Column, Need, Weights, clipped_surrogate, reduce_terms


def fleet_batch(decisions, rows=None, groups=None, **extra) -> Batch:
    """A batch from (vehicle, step, reward) triples."""
    rows = rows or max(v for v, _, _ in decisions) + 1
    own = [[(s, r) for v, s, r in decisions if v == row] for row in range(rows)]
    width = max(map(len, own))
    mask = torch.zeros(rows, width, dtype=torch.bool)
    turn = torch.full((rows, width), -1)
    rewards = torch.zeros(rows, width)
    for row, made in enumerate(own):
        for column, (step, reward) in enumerate(made):
            mask[row, column], turn[row, column], rewards[row, column] = True, step, reward
    return Batch(
        inputs={},
        mask=mask,
        behaviour_logprobs=torch.zeros(rows, width),
        rewards=rewards.sum(1),
        turn_rewards=rewards,
        group=torch.tensor(groups or [0] * rows),
        turn=turn,
        demonstration=torch.zeros(rows, dtype=torch.bool),
        **extra,
    )


def one_step(weight=0.0, fleet=None):
    return OneStepGroup(OneStepGroupConfig(fairness_weight=weight, fleet=fleet))


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_one_step_scores_of_a_minute():
    credit = one_step().estimate(fleet_batch([(0, 0, 4), (1, 0, 5), (2, 0, 7), (3, 0, 8)]))

    close(credit.advantages, [[-1.264911], [-0.632456], [0.632456], [1.264911]])


def test_a_vehicle_matched_alone_gets_nothing():
    close(one_step().estimate(fleet_batch([(0, 0, 4.2)])).advantages, [[0.0]])


@pytest.mark.parametrize(("gains", "expected"), [([0, 0, 0, 4], -1.574548), ([3, 0, 0, 0], 0.288878)])
def test_the_spread_term(gains, expected):
    before = [(vehicle, 0, vehicle + 1) for vehicle in range(4)]
    after = [(vehicle, 1, gain) for vehicle, gain in enumerate(gains)]
    batch = fleet_batch(before + after)

    penalty = spread_penalty(batch.turn_rewards, batch.turn, batch.group, batch.mask)

    close(penalty[:, 1], [expected] * 4)


def test_the_spread_term_knows_vehicles_that_never_drove():
    batch = fleet_batch([(0, 0, 3.0)])

    penalty = spread_penalty(batch.turn_rewards, batch.turn, batch.group, batch.mask, fleet=3)

    close(penalty, [[-float(np.std([3.0, 0.0, 0.0]))]])
    with pytest.raises(ValueError, match=r"advantage\.fleet is 1 but a world has 2"):
        spread_penalty(
            torch.zeros(2, 1), torch.zeros(2, 1).long(), torch.zeros(2).long(), torch.ones(2, 1) > 0, fleet=1
        )


def test_reward_to_go_over_gaps():
    batch = fleet_batch([(0, 0, 4), (0, 3, 5), (0, 7, 6)])

    close(spaced_returns(batch.turn_rewards, batch.turn, batch.mask, gamma=0.99), [[14.443887, 10.763576, 6.0]])


RELEASED = [(0, 0, 4), (1, 0, 6), (0, 3, 5), (1, 5, 9)]


def test_fleet_return_in_the_released_form():
    credit = FleetReturn(FleetReturnConfig(form="released", fairness_weight=0)).estimate(fleet_batch(RELEASED))

    close(credit.advantages, [[-1.587692, -0.534522], [1.524977, 1.603567]])


def test_fleet_return_in_the_group_form():
    credit = FleetReturn(FleetReturnConfig(fairness_weight=0)).estimate(fleet_batch([*RELEASED, (2, 0, 2)]))

    close(credit.advantages, [[0.074278, 0.0], [1.185916, 0.0], [-1.260193, 0.0]])


def test_the_released_sign_rewards_a_growing_spread():
    decisions = [(0, 0, 1.0), (1, 0, 1.0), (0, 1, 5.0), (1, 1, 0.0)]
    plain, charged, released = (
        FleetReturn(FleetReturnConfig(fairness_weight=weight, released_sign=sign)).estimate(fleet_batch(decisions))
        for weight, sign in ((0, False), (1, False), (1, True))
    )

    assert (charged.advantages[:, 1] < plain.advantages[:, 1]).all()
    assert (released.advantages[:, 1] > plain.advantages[:, 1]).all()


def test_spaced_advantages_by_hand():
    batch = fleet_batch([(0, 1, 2.0), (0, 4, 3.0)])
    values = torch.tensor([[1.0, 2.0]])

    found = spaced_advantages(batch.turn_rewards, values, batch.turn, batch.mask, gamma=0.9, lam=0.5)

    last = 3 - 2
    first = 2 + 0.9**3 * 2 - 1 + 0.9**3 * 0.5 * last
    close(found, [[first, last]])


def test_fleet_gae_sets_targets_for_the_critic():
    values = torch.tensor([[1.0, 2.0]])
    batch = fleet_batch([(0, 1, 2.0), (0, 4, 3.0)], columns={Need(Weights.OLD, Column.VALUE): values})

    credit = FleetGae(FleetGaeConfig(gamma=0.9, lam=0.5, whiten=False)).estimate(batch)

    close(credit.returns, (credit.advantages + values).tolist())


def decisions(min_size=1):
    triple = st.tuples(st.integers(0, 4), st.integers(0, 6), st.floats(-20, 20, width=32))
    unique = st.lists(triple, min_size=min_size, max_size=25, unique_by=lambda d: d[:2])
    return unique.map(lambda found: sorted(found, key=lambda d: d[1]))


@given(decisions(), st.floats(-50, 50))
def test_a_shift_of_one_steps_rewards_changes_nothing(made, shift):
    shifted = [(v, s, r + shift if s == made[0][1] else r) for v, s, r in made]

    plain, moved = (one_step().estimate(fleet_batch(d, rows=5)).advantages for d in (made, shifted))

    # Deviations near 0 amplify rounding; where they are, everybody is practically equal.
    spread = {s: np.std([r for _, t, r in made if t == s]) for _, s, _ in made}
    if all(value == 0 or value > 1e-2 for value in spread.values()):
        torch.testing.assert_close(plain, moved, atol=2e-2, rtol=1e-2)


@given(decisions())
def test_scores_of_a_step_sum_to_zero(made):
    batch = fleet_batch(made, rows=5)
    advantages = one_step().estimate(batch).advantages

    for step in {s for _, s, _ in made}:
        assert advantages[batch.turn == step].sum().item() == pytest.approx(0, abs=1e-3)
    assert (advantages[~batch.mask] == 0).all()


@given(decisions(), decisions())
def test_worlds_do_not_see_each_other(first, second):
    both = fleet_batch(first + [(v + 5, s, r) for v, s, r in second], rows=10, groups=[0] * 5 + [1] * 5)
    estimator = one_step(weight=1.0)

    together = estimator.estimate(both).advantages
    alone = estimator.estimate(fleet_batch(first, rows=5)).advantages

    torch.testing.assert_close(together[:5, : alone.shape[1]], alone, atol=1e-4, rtol=1e-4)


@given(decisions())
def test_without_a_future_the_group_form_is_the_one_step_form(made):
    first_only = list({v: (v, s, r) for v, s, r in reversed(made)}.values())  # one decision per vehicle
    batch = fleet_batch(sorted(first_only, key=lambda d: d[1]), rows=5)

    to_go = FleetReturn(FleetReturnConfig(fairness_weight=0)).estimate(batch).advantages

    torch.testing.assert_close(to_go, one_step().estimate(batch).advantages)


# --- objective --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("advantage", "expected"), [(2.0, [1.4, 1.8, 2.4, 2.56]), (-2.0, [-1.6, -1.8, -2.4, -2.8])])
def test_the_surrogate_at_its_bounds(advantage, expected):
    ratios = torch.tensor([[0.7, 0.9, 1.2, 1.4]])

    loss = clipped_surrogate(
        ratios.log(),
        torch.zeros(1, 4),
        torch.full((1, 4), advantage),
        torch.ones(1, 4, dtype=torch.bool),
        clip_low=0.2,
        clip_high=0.28,
    )

    close(-loss, [expected])


def one_decision(kl_weight=0.5):
    probabilities, reference = torch.tensor([[[0.6, 0.3, 0.1]]]), torch.tensor([[[0.5, 0.3, 0.2]]])
    batch = fleet_batch(
        [(0, 0, 0.0)],
        columns={
            Need(Weights.OLD, Column.LOGPROB): torch.tensor([[0.5]]).log(),
            Need(Weights.REFERENCE, Column.LOGITS): reference.log(),
        },
        advantages=torch.tensor([[2.0]]),
    )
    entropy = -(probabilities * probabilities.log()).sum(-1)
    current = {
        Column.LOGPROB: probabilities[..., 0].log(),
        Column.ENTROPY: entropy,
        Column.LOGITS: probabilities.log(),
    }
    return PairClipped(PairClippedConfig(kl_weight=kl_weight)), batch, current


def test_the_whole_loss_of_one_decision():
    objective, batch, current = one_decision()

    terms = objective.terms(batch, current)

    added = {term.name: (term.coefficient, term.values.item()) for term in terms.loss}
    assert added["policy"] == (1.0, pytest.approx(-2.4, abs=1e-6))
    assert added["kl"] == (0.5, pytest.approx(0.013359, abs=1e-6))
    assert added["entropy"] == (-0.05, pytest.approx(0.897946, abs=1e-6))
    assert reduce_terms(terms, batch).item() == pytest.approx(-2.438218, abs=1e-6)


def test_directions_of_the_kl():
    p, q = torch.tensor([[[0.6, 0.3, 0.1]]]), torch.tensor([[[0.5, 0.3, 0.2]]])
    forward, backward, both = (
        request_kl(p.log(), q.log(), direction=d).item() for d in ("current_reference", "reference_current", "both")
    )

    assert backward == pytest.approx((q * (q / p).log()).mean().item(), abs=1e-7)
    assert both == pytest.approx((forward + backward) / 2, abs=1e-7)


def test_absent_requests_do_not_enter_the_kl():
    p, q = torch.tensor([0.6, 0.3, 0.1]).log(), torch.tensor([0.5, 0.3, 0.2]).log()
    absent = torch.full((2,), -1e9)

    padded = request_kl(torch.cat([p, absent])[None, None], torch.cat([q, absent])[None, None])

    assert padded.item() == pytest.approx(0.013359, abs=1e-6)


def test_only_what_has_weight_is_needed():
    plain = PairClipped(PairClippedConfig(entropy_weight=0.0))

    assert plain.needs == {Need(Weights.CURRENT, Column.LOGPROB), Need(Weights.OLD, Column.LOGPROB)}
    assert Need(Weights.REFERENCE, Column.LOGITS) in PairClipped(PairClippedConfig(kl_weight=0.1)).needs


def test_missing_advantages_are_named():
    objective, batch, current = one_decision()
    from dataclasses import replace

    with pytest.raises(ValueError, match="needs advantages and has none"):
        objective.terms(replace(batch, advantages=None), current)
