"""ROVER: values, bootstrap and gradient of hand cases, its relation to REINFORCE, invariances, the theory's toy tree."""

from dataclasses import replace
from functools import cache
from math import exp, log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins.rover.valuation import valuation

from orchestrator.api import (
    Batch,
    Column,
    ConfigError,
    Couples,
    Need,
    Reduction,
    Terms,
    Weights,
    load_registry,
    reduce_terms,
)

OLD_LOGPROB = Need(Weights.OLD, Column.LOGPROB)
OLD_VOCAB_MEAN = Need(Weights.OLD, Column.VOCAB_MEAN_LOGPROB)


@cache
def registry():
    return load_registry(["rover", "baselines"])


def columns(logits, tokens):
    """Log-probability of the chosen tokens and mean over the vocabulary, from logits [B, T, V]."""
    logprobs = logits.log_softmax(-1)
    chosen = logprobs.gather(-1, tokens[..., None]).squeeze(-1)
    return {Column.LOGPROB: chosen, Column.VOCAB_MEAN_LOGPROB: logprobs.mean(-1)}


def make_batch(old_logits, tokens, mask, rewards, group=None, standardise=False):
    """A batch whose advantages are those of the group-mean estimator."""
    old = columns(old_logits, tokens)
    rewards = torch.as_tensor(rewards, dtype=torch.float64)
    batch = Batch(
        inputs={},
        mask=mask,
        behaviour_logprobs=torch.zeros_like(old[Column.LOGPROB]),
        rewards=rewards,
        turn_rewards=torch.zeros_like(old[Column.LOGPROB]),
        group=torch.zeros(len(rewards), dtype=torch.int64) if group is None else group,
        turn=torch.where(mask, 0, -1),
        demonstration=torch.zeros(len(rewards), dtype=torch.bool),
        columns={OLD_LOGPROB: old[Column.LOGPROB], OLD_VOCAB_MEAN: old[Column.VOCAB_MEAN_LOGPROB]},
    )
    estimator = registry().build("advantage", "group_mean", {"standardise": standardise})
    return replace(batch, advantages=estimator.estimate(batch).advantages)


def loss_of(batch, logits, tokens, **options):
    objective = registry().build("objective", "rover", options)
    return reduce_terms(objective.terms(batch, columns(logits, tokens)), batch)


def gradient_of(batch, logits, tokens, **options):
    logits = logits.detach().clone().requires_grad_()
    loss_of(batch, logits, tokens, **options).backward()
    return logits.grad


def two_responses(rewards=(1.0, 0.0), standardise=False):
    """One prompt, two responses, two words, a uniform old policy; the second row ends after its first token."""
    tokens = torch.tensor([[0, 1], [1, 0]])
    mask = torch.tensor([[True, True], [True, False]])
    new = torch.tensor([[[0.75, 0.25], [0.25, 0.75]], [[0.5, 0.5], [0.5, 0.5]]], dtype=torch.float64).log()
    batch = make_batch(torch.zeros_like(new), tokens, mask, rewards, standardise=standardise)
    return batch, new, tokens


# --- numbers ----------------------------------------------------------------------------------------------


def test_values_bootstrap_and_targets_of_the_hand_case():
    batch, new, tokens = two_responses()
    now = columns(new, tokens)

    found = valuation(
        now[Column.LOGPROB],
        batch.columns[OLD_LOGPROB],
        now[Column.VOCAB_MEAN_LOGPROB],
        batch.columns[OLD_VOCAB_MEAN],
        batch.advantages,
        batch.mask,
        q_temperature=1.0,
        bootstrap_weight=1.0,
    )

    assert batch.advantages.tolist() == [[0.5, 0.5], [-0.5, 0.0]]
    torch.testing.assert_close(found.values, torch.tensor([[0.405465, 0.405465], [0, 0]]).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.bootstrap, torch.tensor([[-0.143841, 0], [0, 0]]).double(), atol=1e-6, rtol=0)
    target = torch.tensor([[0.356159, 0.5], [-0.5, 0]], dtype=torch.float64)
    torch.testing.assert_close(found.error, (found.values - target).square(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("options", "batch_options", "expected"),
    [
        ({}, {}, 0.08712265),
        ({"bootstrap_weight": 0}, {}, 0.08929123),
        ({"q_temperature": 0.5}, {}, 0.12971639),
        ({}, {"standardise": True}, 0.20529547),
        ({}, {"rewards": (1.0, 1.0)}, 0.15537973),  # a group without contrast still acts
    ],
)
def test_losses_of_the_hand_case(options, batch_options, expected):
    batch, new, tokens = two_responses(**batch_options)

    assert loss_of(batch, new, tokens, **options).item() == pytest.approx(expected, abs=5e-8)


def test_the_gradient_of_the_hand_case():
    batch, new, tokens = two_responses()

    gradient = gradient_of(batch, new, tokens)

    expected = [[[0.008218, -0.008218], [0.015756, -0.015756]], [[-0.166667, 0.166667], [0, 0]]]
    torch.testing.assert_close(gradient, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


def test_a_mean_of_sequence_means_is_another_loss():
    batch, new, tokens = two_responses()
    terms = registry().build("objective", "rover").terms(batch, columns(new, tokens))

    wrong = Terms(loss=tuple(replace(term, reduction=Reduction.SEQUENCE_MEAN) for term in terms.loss))

    assert terms.loss[0].reduction is Reduction.TOKEN_MEAN
    assert reduce_terms(wrong, batch).item() == pytest.approx(0.12784199, abs=5e-8)


def first_step():
    """The old policy itself: uniform over two words, rewards (1, 0, 0, 0), lengths (2, 1, 1, 4)."""
    mask = torch.arange(4)[None] < torch.tensor([2, 1, 1, 4])[:, None]
    tokens = torch.zeros(4, 4, dtype=torch.int64)
    logits = torch.zeros(4, 4, 2, dtype=torch.float64)
    return make_batch(logits, tokens, mask, [1, 0, 0, 0]), logits, tokens


@pytest.mark.parametrize("bootstrap_weight", [0.0, 1.0, 5.0])
def test_the_first_step_of_the_hand_case(bootstrap_weight):
    batch, logits, tokens = first_step()

    gradient = gradient_of(batch, logits, tokens, bootstrap_weight=bootstrap_weight)

    assert loss_of(batch, logits, tokens, bootstrap_weight=bootstrap_weight).item() == pytest.approx(0.1875, abs=1e-12)
    expected = torch.where(batch.mask, 0.03125, 0.0).double()
    expected[0] = torch.where(batch.mask[0], -0.09375, 0.0)
    torch.testing.assert_close(gradient, torch.stack([expected, -expected], dim=-1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("visible", [True, False])
def test_the_bootstrap_is_the_mean_over_the_vocabulary(visible):
    new = torch.tensor([[[0.25] * 4, [0.7, 0.1, 0.1, 0.1]]], dtype=torch.float64).log()
    old = torch.zeros_like(new)
    tokens = torch.zeros(1, 2, dtype=torch.int64)
    mask = torch.tensor([[True, visible]])
    now, before = columns(new, tokens), columns(old, tokens)

    found = valuation(
        now[Column.LOGPROB],
        before[Column.LOGPROB],
        now[Column.VOCAB_MEAN_LOGPROB],
        before[Column.VOCAB_MEAN_LOGPROB],
        torch.zeros(1, 2).double(),
        mask,
        q_temperature=1.0,
        bootstrap_weight=1.0,
    )

    expected = (log(0.7) + 3 * log(0.1)) / 4 + log(4) if visible else 0.0
    assert found.bootstrap.tolist() == [[pytest.approx(expected, abs=1e-12), 0.0]]
    assert not visible or expected == pytest.approx(-0.429813, abs=1e-6)


# --- relations --------------------------------------------------------------------------------------------


def random_case(seed, rows=6, width=5, words=7):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, width, words, generator=generator, dtype=torch.float64)
    tokens = torch.randint(words, (rows, width), generator=generator)
    lengths = torch.randint(0, width + 1, (rows,), generator=generator)
    lengths[0] = width
    mask = torch.arange(width)[None] < lengths[:, None]
    rewards = torch.randint(2, (rows,), generator=generator).double()
    group = torch.arange(rows) // 3
    return logits, tokens, mask, rewards, group, generator


@given(st.integers(0, 10**6), st.sampled_from([0.25, 1.0, 3.0]), st.sampled_from([0.0, 1.0, 5.0]))
def test_the_first_step_is_reinforce_with_a_group_mean(seed, q_temperature, bootstrap_weight):
    logits, tokens, mask, rewards, group, _ = random_case(seed)
    batch = make_batch(logits, tokens, mask, rewards, group)

    ours = gradient_of(batch, logits, tokens, q_temperature=q_temperature, bootstrap_weight=bootstrap_weight)

    logits = logits.clone().requires_grad_()
    reinforce = registry().build("objective", "reinforce", {"reduction": "token_mean"})
    reduce_terms(reinforce.terms(batch, columns(logits, tokens)), batch).backward()
    torch.testing.assert_close(ours, 2 * q_temperature * logits.grad, atol=1e-12, rtol=0)


def test_the_first_step_equals_twice_reinforce_to_the_bit():
    logits, tokens, mask, rewards, group, _ = random_case(0)
    batch = make_batch(logits, tokens, mask, rewards, group)
    gradients = {}
    for name, options in (("rover", {}), ("reinforce", {"reduction": "token_mean"})):
        logprobs = columns(logits, tokens)
        chosen = logprobs[Column.LOGPROB].detach().requires_grad_()
        terms = registry().build("objective", name, options).terms(batch, logprobs | {Column.LOGPROB: chosen})
        reduce_terms(terms, batch).backward()
        gradients[name] = chosen.grad

    assert torch.equal(gradients["rover"], 2 * gradients["reinforce"])


@given(st.integers(0, 10**6))
def test_the_bootstrap_is_a_difference_of_divergences_from_uniform(seed):
    old, tokens, _, rewards, group, generator = random_case(seed)
    new = old + torch.randn(old.shape, generator=generator, dtype=torch.float64)
    mask = torch.ones(tokens.shape, dtype=torch.bool)
    now, before = columns(new, tokens), columns(old, tokens)

    found = valuation(
        now[Column.LOGPROB],
        before[Column.LOGPROB],
        now[Column.VOCAB_MEAN_LOGPROB],
        before[Column.VOCAB_MEAN_LOGPROB],
        make_batch(old, tokens, mask, rewards, group).advantages,
        mask,
        q_temperature=2.0,
        bootstrap_weight=1.0,
    )

    uniform = torch.full_like(old, 1 / old.shape[-1])
    kl = [(uniform * (uniform.log() - logits.log_softmax(-1))).sum(-1) for logits in (old, new)]
    torch.testing.assert_close(found.bootstrap[:, :-1], 2.0 * (kl[0] - kl[1])[:, 1:], atol=1e-12, rtol=0)
    assert found.bootstrap[:, -1].abs().max() == 0


@given(st.integers(0, 10**6), st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([0.0, 1.0, 5.0]))
def test_the_gradient_of_the_logits_has_its_closed_form(seed, q_temperature, bootstrap_weight):
    old, new, tokens, mask, rewards, group = moved_case(seed)
    batch, now = make_batch(old, tokens, mask, rewards, group), columns(new, tokens)

    found = gradient_of(batch, new, tokens, q_temperature=q_temperature, bootstrap_weight=bootstrap_weight)

    opened = torch.where(mask, now[Column.VOCAB_MEAN_LOGPROB] - batch.columns[OLD_VOCAB_MEAN], 0.0)
    following = torch.cat([opened[:, 1:], torch.zeros_like(opened[:, :1])], dim=1)
    target = batch.advantages + bootstrap_weight * q_temperature * following
    residual = q_temperature * (now[Column.LOGPROB] - batch.columns[OLD_LOGPROB]) - target
    chosen = torch.nn.functional.one_hot(tokens, new.shape[-1]) - new.softmax(-1)
    expected = 2 * q_temperature / mask.sum().double() * torch.where(mask, residual, 0.0)[..., None] * chosen
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-10)


# --- invariances ------------------------------------------------------------------------------------------


def moved_case(seed):
    old, tokens, mask, rewards, group, generator = random_case(seed)
    new = old + 0.5 * torch.randn(old.shape, generator=generator, dtype=torch.float64)
    return old, new, tokens, mask, rewards, group


@given(st.integers(0, 10**6), st.floats(-10, 10))
def test_a_constant_shift_of_the_rewards_changes_nothing(seed, shift):
    old, new, tokens, mask, rewards, group = moved_case(seed)

    one = loss_of(make_batch(old, tokens, mask, rewards, group), new, tokens)
    other = loss_of(make_batch(old, tokens, mask, rewards + shift, group), new, tokens)

    torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@given(st.integers(0, 10**6), st.permutations(range(6)))
def test_the_order_of_rows_changes_nothing(seed, order):
    old, new, tokens, mask, rewards, group = moved_case(seed)
    order = torch.tensor(order)

    one = loss_of(make_batch(old, tokens, mask, rewards, group), new, tokens)
    shuffled = make_batch(old[order], tokens[order], mask[order], rewards[order], group[order])

    torch.testing.assert_close(one, loss_of(shuffled, new[order], tokens[order]), atol=1e-12, rtol=1e-12)


@given(st.integers(0, 10**6), st.integers(0, 3))
def test_padding_changes_nothing(seed, extra):
    old, new, tokens, mask, rewards, group = moved_case(seed)

    def padded(tensor):
        return torch.cat([tensor, torch.ones_like(tensor[:, :1]).expand(-1, extra, *tensor.shape[2:])], dim=1)

    one = loss_of(make_batch(old, tokens, mask, rewards, group), new, tokens)
    wide_mask = torch.cat([mask, torch.zeros(len(mask), extra, dtype=torch.bool)], dim=1)
    wide = make_batch(padded(old), padded(tokens), wide_mask, rewards, group)

    torch.testing.assert_close(one, loss_of(wide, padded(new), padded(tokens)), atol=1e-12, rtol=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_micro_batches_weighted_by_tokens_give_the_whole_loss(seed, cut):
    old, new, tokens, mask, rewards, group = moved_case(seed)
    batch = make_batch(old, tokens, mask, rewards, group)
    whole = loss_of(batch, new, tokens)

    total = 0.0
    for part in (slice(None, cut), slice(cut, None)):
        micro = replace(
            batch,
            mask=mask[part],
            rewards=rewards[part],
            turn_rewards=batch.turn_rewards[part],
            behaviour_logprobs=batch.behaviour_logprobs[part],
            group=group[part],
            turn=batch.turn[part],
            demonstration=batch.demonstration[part],
            columns={need: column[part] for need, column in batch.columns.items()},
            advantages=batch.advantages[part],
        )
        total += loss_of(micro, new[part], tokens[part]) * mask[part].sum()

    torch.testing.assert_close(whole, total / mask.sum(), atol=1e-12, rtol=1e-12)


@given(st.integers(0, 10**6))
def test_only_the_chosen_tokens_log_probability_has_a_gradient(seed):
    old, new, tokens, mask, rewards, group = moved_case(seed)
    old_leaf, reward_leaf = old.clone().requires_grad_(), rewards.clone().requires_grad_()
    batch = make_batch(old_leaf, tokens, mask, reward_leaf, group)
    now = {name: column.detach().requires_grad_() for name, column in columns(new, tokens).items()}

    reduce_terms(registry().build("objective", "rover").terms(batch, now), batch).backward()

    assert old_leaf.grad is None or old_leaf.grad.abs().max() == 0
    assert reward_leaf.grad is None or reward_leaf.grad.abs().max() == 0
    assert now[Column.VOCAB_MEAN_LOGPROB].grad is None
    assert now[Column.LOGPROB].grad[~mask].abs().sum() == 0
    assert now[Column.LOGPROB].grad[mask].abs().sum() > 0


# --- edges ------------------------------------------------------------------------------------------------


def test_a_group_of_one_keeps_its_reward():
    mask = torch.tensor([[True]])
    batch = make_batch(torch.zeros(1, 1, 2).double(), torch.tensor([[0]]), mask, [1.0])

    assert batch.advantages.tolist() == [[1.0]]
    assert loss_of(batch, torch.zeros(1, 1, 2).double(), torch.tensor([[0]])).item() == 1.0


def test_groups_without_contrast_have_no_gradient_at_first_and_one_later():
    old, new, tokens, mask, _, group = moved_case(1)
    batch = make_batch(old, tokens, mask, torch.ones(6), group)

    assert gradient_of(batch, old, tokens).abs().max() == 0
    assert gradient_of(batch, new, tokens).abs().max() > 0


def test_empty_completions_add_nothing():
    old, new, tokens, mask, rewards, group = moved_case(2)
    mask = mask.clone()
    mask[1] = False
    batch = make_batch(old, tokens, mask, rewards, group)

    assert gradient_of(batch, new, tokens)[1].abs().max() == 0
    nothing = make_batch(old, tokens, torch.zeros_like(mask), rewards, group)
    assert loss_of(nothing, new, tokens).item() == 0.0


@pytest.mark.parametrize("size", [1e3, -1e3])
def test_extreme_log_ratios_stay_finite(size):
    mask = torch.ones(2, 3, dtype=torch.bool)
    zeros = torch.zeros(2, 3)
    logprobs = torch.full((2, 3), size, requires_grad=True)
    batch = replace(
        make_batch(torch.zeros(2, 3, 2).double(), torch.zeros(2, 3, dtype=torch.int64), mask, [1.0, 0.0]),
        columns={OLD_LOGPROB: zeros, OLD_VOCAB_MEAN: -zeros},
    )
    now = {Column.LOGPROB: logprobs, Column.VOCAB_MEAN_LOGPROB: torch.full((2, 3), size)}

    loss = reduce_terms(registry().build("objective", "rover").terms(batch, now), batch)
    loss.backward()

    assert torch.isfinite(loss)
    assert torch.isfinite(logprobs.grad).all()
    assert (logprobs.grad[:, -1].sign() == torch.sign(torch.tensor(size))).all()  # pulled back


def test_what_stands_behind_the_mask_does_not_leak():
    old, new, tokens, mask, rewards, group = moved_case(3)
    batch = make_batch(old, tokens, mask, rewards, group)
    now = columns(new, tokens)
    expected = reduce_terms(registry().build("objective", "rover").terms(batch, now), batch)

    dirty = {name: torch.where(mask, column, torch.nan) for name, column in now.items()}
    frozen = {need: torch.where(mask, column, -torch.inf) for need, column in batch.columns.items()}
    batch = replace(batch, columns=frozen)

    assert torch.equal(expected, reduce_terms(registry().build("objective", "rover").terms(batch, dirty), batch))


@pytest.mark.parametrize(("across_turns", "before_hole"), [(False, 0.0), (True, -0.5)])
def test_a_hole_between_turns_ends_the_play_or_is_stepped_over(across_turns, before_hole):
    mask = torch.tensor([[True, True, False, False, True]])
    zeros = torch.zeros(1, 5, dtype=torch.float64)
    vocab_means = torch.tensor([[-0.1, -0.2, -9.0, -9.0, -0.5]], dtype=torch.float64)

    found = valuation(
        zeros,
        zeros,
        vocab_means,
        zeros,
        zeros,
        mask,
        q_temperature=1.0,
        bootstrap_weight=1.0,
        across_turns=across_turns,
    )

    assert found.bootstrap.tolist() == [[-0.2, before_hole, 0.0, 0.0, 0.0]]


def test_an_estimator_must_come_before():
    batch, new, tokens = two_responses()
    batch = replace(batch, advantages=None)

    with pytest.raises(ValueError, match="needs advantages"):
        loss_of(batch, new, tokens)


@pytest.mark.parametrize("options", [{"q_temperature": 0}, {"bootstrap_weight": -1}, {"beta": 1}])
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError):
        registry().build("objective", "rover", options)


def test_the_contract_and_the_recipe():
    objective = registry().build("objective", "rover")
    recipe = registry().describe("recipe", "rover").overlay

    assert objective.couples is Couples.ROWS
    assert objective.needs == {
        Need(weights, column)
        for weights in (Weights.CURRENT, Weights.OLD)
        for column in (Column.LOGPROB, Column.VOCAB_MEAN_LOGPROB)
    }
    assert recipe["advantage"] == {"use": "group_mean", "standardise": False}
    assert recipe["schedule"] == {"epochs": 1, "minibatches": 4}
    for role in ("sampler", "advantage", "objective"):
        options = {key: value for key, value in recipe[role].items() if key != "use"}
        registry().build(role, recipe[role]["use"], options)


def test_metrics_are_means_over_tokens():
    batch, new, tokens = two_responses()
    metrics = registry().build("objective", "rover").terms(batch, columns(new, tokens)).metrics

    means = {name: float(mean.total) / float(mean.count) for name, mean in metrics.items()}

    assert means["rover/q/mean"] == pytest.approx(2 * log(1.5) / 3)
    assert means["rover/bootstrap/mean"] == pytest.approx(-0.143841 / 3, abs=1e-6)
    assert means["rover/bootstrap/abs"] == pytest.approx(0.143841 / 3, abs=1e-6)


# --- the theory behind it ---------------------------------------------------------------------------------


RIGHT = ("ACD", "BDC", "CAB", "DBA")


def uniform_value(word):
    """Chance of the uniformly random policy to end right, words of three letters A to D."""
    return float(word in RIGHT) if len(word) == 3 else sum(uniform_value(word + letter) for letter in "ABCD") / 4


def softmax_success(temperature, word=""):
    if len(word) == 3:
        return float(word in RIGHT)
    weights = [exp(uniform_value(word + letter) / temperature) for letter in "ABCD"]
    return sum(
        weight / sum(weights) * softmax_success(temperature, word + letter)
        for weight, letter in zip(weights, "ABCD", strict=True)
    )


def test_the_random_policys_values_point_to_every_right_answer():
    assert [uniform_value(letter) for letter in "ABCD"] == [1 / 16] * 4
    assert uniform_value("AC") == 1 / 4
    assert uniform_value("ACD") == 1.0
    words = list("ABCD")  # all first letters are equally good
    while len(words[0]) < 3:
        words = [max((word + letter for letter in "ABCD"), key=uniform_value) for word in words]
    assert tuple(words) == RIGHT


def key_states(temperature, word="", chance=1.0):
    """States that hold both right and lost branches: (chance to be there, lost branches, best value)."""
    values = [uniform_value(word + letter) for letter in "ABCD"]
    if 0 in values and max(values) > 0:
        yield chance, values.count(0), max(values)
    if len(word) < 2:
        weights = [exp(value / temperature) for value in values]
        for letter, value, weight in zip("ABCD", values, weights, strict=True):
            if value > 0:
                yield from key_states(temperature, word + letter, chance * weight / sum(weights))


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.05])
def test_the_bound_on_success_is_reached_on_the_toy_tree(temperature):
    lost = sum(p * n / (n + exp(best / temperature)) for p, n, best in key_states(temperature))

    assert softmax_success(temperature) == pytest.approx(1 - lost, abs=1e-12)


@pytest.mark.parametrize(("temperature", "success"), [(1.0, 0.142479), (0.1, 0.802295), (0.05, 0.980187)])
def test_success_of_the_softmax_over_random_values(temperature, success):
    assert softmax_success(temperature) == pytest.approx(success, abs=1e-6)
