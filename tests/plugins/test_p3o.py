"""P3O: hand cases, theorem 1, its relations to leave-one-out and PPO, invariances, edges."""

import math
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins.p3o.pairs import sibling_pairs

from orchestrator.api import (
    Batch,
    Column,
    ConfigError,
    Couples,
    Need,
    Rollout,
    RolloutGroup,
    Score,
    Task,
    Weights,
    load_registry,
    reduce_terms,
)
from orchestrator.testing import check_component

OLD_LOGPROB = Need(Weights.OLD, Column.LOGPROB)
REFERENCE_LOGPROB = Need(Weights.REFERENCE, Column.LOGPROB)
CLIPPINGS = ("separate", "joint")
both = pytest.mark.parametrize("clipping", CLIPPINGS)


@cache
def registry():
    return load_registry(["p3o", "baselines"])


def make_batch(old, reference, rewards, group=None, mask=None, demonstration=None):
    """Responses of one token each, from their log-probabilities [B]."""
    old, reference, rewards = (torch.as_tensor(v, dtype=torch.float64) for v in (old, reference, rewards))
    rows = len(rewards)
    mask = torch.ones(rows, 1, dtype=torch.bool) if mask is None else mask
    return Batch(
        inputs={},
        mask=mask,
        behaviour_logprobs=old[:, None],
        rewards=rewards,
        turn_rewards=rewards[:, None],
        group=torch.zeros(rows, dtype=torch.int64) if group is None else group,
        turn=torch.where(mask, 0, -1),
        demonstration=torch.zeros(rows, dtype=torch.bool) if demonstration is None else demonstration,
        columns={OLD_LOGPROB: old[:, None], REFERENCE_LOGPROB: reference[:, None]},
    )


def evaluate(batch, logprobs, **options):
    """Loss, gradient in the responses' log-probabilities [B], and metrics."""
    leaf = torch.as_tensor(logprobs, dtype=torch.float64).detach().clone().requires_grad_()
    terms = registry().build("objective", "p3o", options).terms(batch, {Column.LOGPROB: leaf[:, None]})
    loss = reduce_terms(terms, batch)
    loss.backward()
    metrics = {name: float(mean.total) / max(float(mean.count), 1) for name, mean in terms.metrics.items()}
    return loss.item(), leaf.grad, metrics


def random_case(seed, groups=3, size=4, spread=0.5):
    generator = torch.Generator().manual_seed(seed)
    old, reference, logprobs, rewards = torch.randn(4, groups * size, generator=generator, dtype=torch.float64)
    group = torch.arange(groups).repeat_interleave(size)
    return make_batch(old, old + spread * reference, rewards, group), old + spread * logprobs


# --- numbers ----------------------------------------------------------------------------------------------

FIRST = {"old": (-1.2, -1.9), "reference": (-1.1, -2.1), "rewards": (1.0, 0.2)}


@pytest.mark.parametrize("shift", [0.0, 50.0])
@pytest.mark.parametrize(
    ("options", "loss", "gradient", "clip_fraction"),
    [
        ({"clipping": "separate"}, 0.0077464066, (0, 0.4420683672), 0.5),
        ({"clipping": "joint"}, -0.0884136734, (0, 0), 1.0),
        ({"clipping": "separate", "kl_at": "old"}, 0.0080368968, (0, 0.4586459310), 0.5),
        ({"clipping": "joint", "kl_at": "old"}, -0.0917291862, (0, 0), 1.0),
    ],
)
def test_a_pair_that_moved(options, loss, gradient, clip_fraction, shift):
    batch = make_batch(FIRST["old"], FIRST["reference"], [r + shift for r in FIRST["rewards"]])

    found = evaluate(batch, (-1.0, -2.0), kl_weight=0.1, **options)

    assert found[0] == pytest.approx(loss, abs=1e-10)
    assert found[1].tolist() == pytest.approx(gradient, abs=1e-10)
    assert found[2]["train/clip_fraction"] == clip_fraction
    assert found[2]["p3o/difference/abs"] == pytest.approx(0.83 if "kl_at" in options else 0.8)


@both
def test_three_responses_on_policy(clipping):
    batch = make_batch((-1.0, -2.0, -3.0), (-1.0, -2.0, -3.0), (1, 0, 2))

    loss, gradient, _ = evaluate(batch, (-1.0, -2.0, -3.0), clipping=clipping)

    assert loss == 0.0
    assert gradient.tolist() == pytest.approx([0, 0.5, -0.5], abs=1e-12)


@pytest.mark.parametrize(
    ("clipping", "loss", "gradient"),
    [("separate", 5.0427684616, (10.0427684616, -5)), ("joint", 15.0, (5, -5))],
)
def test_weights_are_capped_and_a_responses_own_ratio_is_not(clipping, loss, gradient):
    batch = make_batch((-3.0, -1.0), (0.0, -1.0), (0, 1))

    found = evaluate(batch, (0.0, -1.0), kl_weight=0.0, clipping=clipping)

    assert found[0] == pytest.approx(loss, abs=1e-10)
    assert found[1].tolist() == pytest.approx(gradient, abs=1e-10)


@pytest.mark.parametrize(
    ("clipping", "loss", "gradient"),
    [("separate", 0.0967346701, (-0.3032653299, 0)), ("joint", -0.0606530660, (0, 0))],
)
def test_a_loser_that_fell(clipping, loss, gradient):
    batch = make_batch((-1.0, -1.0), (-1.0, -1.0), (1, 0))

    found = evaluate(batch, (-1.0, -1.5), kl_weight=0.0, clipping=clipping)

    assert found[0] == pytest.approx(loss, abs=1e-10)
    assert found[1].tolist() == pytest.approx(gradient, abs=1e-10)


def test_response_log_probabilities_are_sums_over_their_tokens():
    mask = torch.tensor([[True, True, False], [False, True, True]])
    old = torch.tensor([[-0.7, -0.5, 9.0], [9.0, -1.0, -0.9]], dtype=torch.float64)
    reference = torch.tensor([[-0.6, -0.5, torch.nan], [torch.nan, -1.1, -1.0]], dtype=torch.float64)
    now = torch.tensor([[-0.4, -0.6, torch.inf], [5.0, -1.5, -0.5]], dtype=torch.float64).requires_grad_()
    batch = make_batch((0, 0), (0, 0), FIRST["rewards"], mask=mask)
    batch.columns.update({OLD_LOGPROB: old, REFERENCE_LOGPROB: reference})

    loss = reduce_terms(
        registry().build("objective", "p3o", {"kl_weight": 0.1}).terms(batch, {Column.LOGPROB: now}), batch
    )
    loss.backward()

    assert loss.item() == pytest.approx(0.0077464066, abs=1e-10)  # the first hand case, in tokens
    assert now.grad.tolist() == [[0, 0, 0], [0, *[pytest.approx(0.4420683672, abs=1e-10)] * 2]]


# --- the theorem, and relations ---------------------------------------------------------------------------


@both
@given(seed=st.integers(0, 10**6), kl_weight=st.sampled_from([0.0, 0.3]))
def test_expected_gradient_is_that_of_reward_minus_kl(clipping, seed, kl_weight):
    generator = torch.Generator().manual_seed(seed)
    rewards, old, reference, logits = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    old, reference = old.log_softmax(0), reference.log_softmax(0)
    leaf = logits.clone().requires_grad_()
    now = leaf.log_softmax(0)
    (now.exp() * (rewards - kl_weight * (now - reference))).sum().backward()
    expected = leaf.grad.clone()
    leaf.grad = None

    first, second = (places.flatten() for places in torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"))
    rows = torch.stack([first, second], dim=1).flatten()  # every ordered pair as a group of its own
    batch = make_batch(old[rows], reference[rows], rewards[rows], torch.arange(16).repeat_interleave(2))
    objective = registry().build(
        "objective", "p3o", {"clipping": clipping, "clip": 1e30, "max_weight": 1e30, "kl_weight": kl_weight}
    )
    [term] = objective.terms(batch, {Column.LOGPROB: leaf.log_softmax(0)[rows][:, None]}).loss
    ((old[first] + old[second]).exp() * term.values).sum().backward()

    torch.testing.assert_close(-leaf.grad, expected, atol=1e-9, rtol=1e-9)


@given(st.integers(0, 10**6))
def test_unclipped_both_ways_have_one_gradient(seed):
    batch, now = random_case(seed)
    free = {"clip": 1e30, "max_weight": 1e30, "kl_weight": 0.2}

    separate, joint = (evaluate(batch, now, clipping=clipping, **free)[1] for clipping in CLIPPINGS)

    torch.testing.assert_close(separate, joint, atol=1e-9, rtol=1e-9)


@both
@given(seed=st.integers(0, 10**6))
def test_on_policy_it_is_leave_one_out_of_reward_minus_kl(clipping, seed):
    batch, _ = random_case(seed)
    now = batch.columns[OLD_LOGPROB].squeeze(1)

    _, gradient, _ = evaluate(batch, now, clipping=clipping, kl_weight=0.1)

    worth = (batch.rewards - 0.1 * (now - batch.columns[REFERENCE_LOGPROB].squeeze(1))).reshape(3, 4)
    others = (worth.sum(1, keepdim=True) - worth) / 3
    torch.testing.assert_close(-gradient, ((worth - others) / 12).flatten(), atol=1e-12, rtol=1e-12)


@both
def test_on_policy_pairs_equal_the_rloo_recipe_to_the_bit(clipping):
    old = torch.linspace(-9, -1, 8, dtype=torch.float64)
    batch = make_batch(old, old, [1, 0, 0, 1, 3, -2, 5, 5], torch.arange(4).repeat_interleave(2))
    recipe = registry().describe("recipe", "rloo").overlay
    estimator = registry().build("advantage", recipe["advantage"]["use"])
    reinforce = registry().build("objective", "reinforce", {"reduction": recipe["objective"]["reduction"]})
    leaf = old.clone().requires_grad_()
    parent = Batch(**{name: getattr(batch, name) for name in Batch.__slots__ if name != "advantages"})
    object.__setattr__(parent, "advantages", estimator.estimate(batch).advantages)
    reduce_terms(reinforce.terms(parent, {Column.LOGPROB: leaf[:, None]}), parent).backward()

    _, gradient, _ = evaluate(batch, old, clipping=clipping, kl_weight=0.0)

    assert torch.equal(gradient, leaf.grad)


def test_clipped_ppo_without_a_critic_minds_a_constant_and_p3o_does_not():
    old = [math.log(0.5)] * 2
    now = torch.tensor([0.65, 0.35], dtype=torch.float64).log()  # ratios 1.3 and 0.7
    gradients = {}
    for rewards in ((1, 0), (2, 1)):
        batch = make_batch(old, old, rewards)
        leaf = now.clone().requires_grad_()
        ppo = registry().build("objective", "clipped", {"clip_low": 0.2, "clip_high": 0.2, "reduction": "sequence_sum"})
        object.__setattr__(batch, "advantages", batch.rewards[:, None])
        reduce_terms(ppo.terms(batch, {Column.LOGPROB: leaf[:, None]}), batch).backward()
        gradients[rewards] = leaf.grad.tolist(), evaluate(batch, now, kl_weight=0.0)[1].tolist()

    assert gradients[1, 0][0] == [0, 0]
    assert gradients[2, 1][0] == [0, pytest.approx(-0.35)]  # the second arm is pushed up
    assert gradients[1, 0][1] == gradients[2, 1][1]


# --- invariances ------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("pairing", ["all", "disjoint"])
@given(seed=st.integers(0, 10**6), spread=st.sampled_from([0.0, 0.5, 3.0]), data=st.data())
def test_a_constant_of_each_group_changes_nothing(clipping, pairing, seed, spread, data):
    batch, now = random_case(seed, spread=spread)
    shifts = torch.tensor(data.draw(st.lists(st.floats(-100, 100), min_size=3, max_size=3)), dtype=torch.float64)
    reference = batch.columns[REFERENCE_LOGPROB].squeeze(1)
    old = batch.columns[OLD_LOGPROB].squeeze(1)
    moved = make_batch(old, reference, batch.rewards + shifts.repeat_interleave(4), batch.group)

    options = {"clipping": clipping, "pairing": pairing, "kl_weight": 0.1}
    one, other = (evaluate(b, now, **options) for b in (batch, moved))

    assert one[0] == pytest.approx(other[0], abs=1e-9)
    torch.testing.assert_close(one[1], other[1], atol=1e-9, rtol=1e-9)


@both
@given(seed=st.integers(0, 10**6), order=st.permutations(range(4)))
def test_the_order_of_siblings_changes_nothing(clipping, seed, order):
    batch, now = random_case(seed, groups=1)
    old, reference = (batch.columns[need].squeeze(1)[order] for need in (OLD_LOGPROB, REFERENCE_LOGPROB))

    one = evaluate(batch, now, clipping=clipping)
    other = evaluate(make_batch(old, reference, batch.rewards[order]), now[order], clipping=clipping)

    assert one[0] == pytest.approx(other[0], abs=1e-12)
    torch.testing.assert_close(one[1][order], other[1], atol=1e-12, rtol=1e-12)


@both
@given(seed=st.integers(0, 10**6), factor=st.floats(0.01, 100))
def test_without_kl_the_loss_is_linear_in_the_rewards(clipping, seed, factor):
    batch, now = random_case(seed)
    old = batch.columns[OLD_LOGPROB].squeeze(1)

    one = evaluate(batch, now, clipping=clipping, kl_weight=0.0)
    other = evaluate(make_batch(old, old, factor * batch.rewards, batch.group), now, clipping=clipping, kl_weight=0.0)

    assert factor * one[0] == pytest.approx(other[0], rel=1e-9, abs=1e-12)
    torch.testing.assert_close(factor * one[1], other[1], atol=1e-12, rtol=1e-9)


@both
@given(seed=st.integers(0, 10**6))
def test_the_value_on_policy_is_0(clipping, seed):
    batch, _ = random_case(seed)

    loss, _, metrics = evaluate(batch, batch.columns[OLD_LOGPROB].squeeze(1), clipping=clipping)

    assert loss == pytest.approx(0, abs=1e-12)
    assert metrics["train/clip_fraction"] == metrics["p3o/log_ratio/abs"] == 0


@given(st.floats(0.01, 5), st.booleans(), st.floats(0.21, 3))
def test_a_pair_that_went_far_enough_is_dead_and_one_that_went_wrong_is_not(difference, first_wins, gap):
    sign = 1 if first_wins else -1
    batch = make_batch((-1.0, -1.0), (-1.0, -1.0), (sign * difference, 0.0))

    right = evaluate(batch, (-1.0 + sign * gap, -1.0), clipping="joint", kl_weight=0.0)
    wrong = evaluate(batch, (-1.0 - sign * gap, -1.0), clipping="joint", kl_weight=0.0)

    assert right[1].tolist() == [0, 0]
    weight = min(max(math.exp(-sign * gap), 0.1), 10)
    assert wrong[1].tolist() == pytest.approx([-sign * weight * difference / 2, sign * weight * difference / 2])


@given(st.floats(-5, 5), st.floats(-50, 50), st.floats(-50, 50))
def test_the_joint_gradient_of_a_response_keeps_its_bound(difference, first, second):
    batch = make_batch((-60.0, -60.0), (-60.0, -60.0), (difference, 0.0))

    gradient = evaluate(batch, (-60.0 + first, -60.0 + second), clipping="joint", kl_weight=0.0)[1]

    assert gradient.abs().max() <= 0.5 * abs(difference) * 10 + 1e-12


def train_bandit(objective, deviation, rounds=200):
    """Share of the best reward a tabular policy reaches, 16 tasks of 10 arms, two draws and four steps a round."""
    generator = torch.Generator().manual_seed(0)
    worth = torch.rand(16, 10, generator=generator, dtype=torch.float64)
    shift = deviation * torch.randn(16, 1, generator=generator, dtype=torch.float64)
    logits = torch.zeros_like(worth).requires_grad_()
    reference = torch.full((32,), -math.log(10), dtype=torch.float64)
    for _ in range(rounds):
        old = logits.detach().log_softmax(1)
        arms = torch.multinomial(old.exp(), 2, replacement=True, generator=generator)
        batch = make_batch(
            old.gather(1, arms).flatten(),
            reference,
            (worth + shift).gather(1, arms).flatten(),
            torch.arange(16).repeat_interleave(2),
        )
        object.__setattr__(batch, "advantages", batch.rewards[:, None])  # read by clipped PPO only
        for _ in range(4):
            terms = objective.terms(batch, {Column.LOGPROB: logits.log_softmax(1).gather(1, arms).reshape(-1, 1)})
            [gradient] = torch.autograd.grad(16 * reduce_terms(terms, batch), logits)
            logits = (logits - 0.5 * gradient).detach().requires_grad_()
    return ((logits.softmax(1) * worth).sum(1) / worth.max(1).values).mean().item()


@both
def test_a_bandit_is_learnt_as_well_under_any_constant(clipping):
    objective = registry().build("objective", "p3o", {"clipping": clipping, "kl_weight": 0.02})

    plain, shifted = (train_bandit(objective, deviation) for deviation in (0.0, 100.0))

    assert plain > 0.97
    assert shifted == pytest.approx(plain, abs=1e-9)


def test_clipped_ppo_without_a_critic_learns_the_bandit_worse_under_constants():
    objective = registry().build("objective", "clipped", {"reduction": "sequence_sum"})

    plain, shifted = (train_bandit(objective, deviation) for deviation in (0.0, 100.0))

    assert shifted < plain - 0.05
    assert plain < 0.9  # and worse than pairs even without


# --- pairs ------------------------------------------------------------------------------------------------


def test_pairs_stay_inside_groups_and_leave_the_ineligible_out():
    group = torch.tensor([5, 5, 5, 5, 5, 2, 2, 7])
    eligible = torch.tensor([True, False, True, True, True, True, True, True])

    everyone = torch.stack(sibling_pairs(group, eligible, disjoint=False), 1).tolist()
    disjoint = torch.stack(sibling_pairs(group, eligible, disjoint=True), 1).tolist()

    assert everyone == [[0, 2], [0, 3], [0, 4], [2, 3], [2, 4], [3, 4], [5, 6]]
    assert disjoint == [[0, 2], [3, 4], [5, 6]]


@both
def test_disjoint_pairs_of_three_drop_the_last(clipping):
    batch = make_batch((-1.0,) * 3, (-1.0,) * 3, (1, 0, 9))

    _, gradient, _ = evaluate(batch, (-1.0,) * 3, clipping=clipping, pairing="disjoint")

    assert gradient.tolist() == [-0.5, 0.5, 0]


def test_demonstrations_stay_out_of_all_pairs():
    batch = make_batch((-1.0,) * 3, (-1.0,) * 3, (1, 0, 9), demonstration=torch.tensor([False, False, True]))

    assert evaluate(batch, (-1.0,) * 3)[1].tolist() == [-0.5, 0.5, 0]


# --- edges ------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_equal_rewards_leave_only_the_kl(clipping, reward):
    batch = make_batch((-1.0, -1.0), (-1.5, -1.0), (reward, reward))

    assert evaluate(batch, (-0.9, -1.2), clipping=clipping, kl_weight=0.0)[:2] == (0, pytest.approx([0, 0]))
    assert evaluate(batch, (-1.0, -1.0), clipping=clipping, kl_weight=0.1)[1].tolist() == pytest.approx([0.025, -0.025])


@both
def test_identical_responses_add_nothing(clipping):
    batch = make_batch((-1.0, -1.0), (-2.0, -2.0), (1.0, 1.0))

    loss, gradient, _ = evaluate(batch, (-0.7, -0.7), clipping=clipping)

    assert loss == 0
    assert gradient.tolist() == [0, 0]


@both
def test_one_sibling_adds_nothing_and_counts_as_a_group(clipping):
    pair = make_batch((-1.0, -1.0), (-1.0, -1.0), (1, 0))
    more = make_batch((-1.0,) * 3, (-1.0,) * 3, (1, 0, 5), torch.tensor([0, 0, 1]))

    alone = evaluate(pair, (-1.1, -1.0), clipping=clipping)
    beside = evaluate(more, (-1.1, -1.0, -0.5), clipping=clipping)

    assert beside[0] == pytest.approx(alone[0] / 2)
    assert beside[1].tolist() == pytest.approx([*(alone[1] / 2).tolist(), 0])


@both
def test_empty_completions_are_partners_without_a_gradient(clipping):
    mask = torch.tensor([[True], [False]])
    batch = make_batch((-1.0, torch.nan), (-1.0, torch.nan), (0, 1), mask=mask)

    loss, gradient, _ = evaluate(batch, (-1.0, torch.nan), clipping=clipping)

    assert loss == 0
    assert gradient.tolist() == [0.5, 0]


@both
@pytest.mark.parametrize("size", [1e3, -1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_log_ratios_stay_finite(clipping, size, dtype):
    batch = make_batch((0, 0, 0), (size, 0, -size), (1, 0, 0.5))
    batch.columns.update({need: column.to(dtype) for need, column in batch.columns.items()})
    now = torch.tensor([[size], [-size], [0.0]], dtype=dtype).requires_grad_()

    terms = registry().build("objective", "p3o", {"clipping": clipping}).terms(batch, {Column.LOGPROB: now})
    loss = reduce_terms(terms, batch)
    loss.backward()

    assert torch.isfinite(loss)
    assert torch.isfinite(now.grad).all()


# --- the contract, the recipe, the shifted reward ---------------------------------------------------------


@pytest.mark.parametrize("pairing", ["all", "disjoint"])
@both
def test_the_objective_keeps_its_contract(clipping, pairing):
    check_component(registry().describe("objective", "p3o"), {"clipping": clipping, "pairing": pairing})


def test_needs_follow_the_options():
    without = registry().build("objective", "p3o", {"kl_weight": 0})
    with_kl = registry().build("objective", "p3o")

    assert without.couples is Couples.GROUPS
    assert without.needs == {Need(Weights.CURRENT, Column.LOGPROB), OLD_LOGPROB}
    assert with_kl.needs == without.needs | {REFERENCE_LOGPROB}


@pytest.mark.parametrize(
    "options", [{"clip": 0}, {"max_weight": 1}, {"kl_weight": -1}, {"pairing": "some"}, {"beta": 1}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError):
        registry().build("objective", "p3o", options)


def test_the_recipe_builds():
    recipe = registry().describe("recipe", "p3o").overlay

    assert recipe["sampler"] == {"use": "group", "count": 2}
    assert recipe["schedule"] == {"epochs": 4, "minibatches": 4}
    for role in ("sampler", "objective"):
        registry().build(role, recipe[role]["use"], {k: v for k, v in recipe[role].items() if k != "use"})


def test_the_shifted_reward_adds_one_constant_to_each_task():
    reward = registry().build("reward", "shifted", {"deviation": 10.0})
    plays = tuple(Rollout(task_id="a", index=i, seed=i, turns=(), metrics={"correct": float(i)}) for i in range(2))

    first, second = reward.score(RolloutGroup(task=Task(id="a"), rollouts=plays))
    again = reward.score(RolloutGroup(task=Task(id="a"), rollouts=plays[:1]))
    [other] = reward.score(RolloutGroup(task=Task(id="b"), rollouts=plays[:1]))

    assert second.value - first.value == pytest.approx(1.0)
    assert again == [first]
    assert other.value != first.value
    assert first.parts == {"unshifted": 0.0}
    still = registry().build("reward", "shifted", {"deviation": 0.0})
    assert [s.value for s in still.score(RolloutGroup(task=Task(id="a"), rollouts=plays))] == [0.0, 1.0]
    assert isinstance(first, Score)
