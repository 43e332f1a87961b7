"""SPPO: hand cases, the exact game behind it, relations of its variants, invariances, edges."""

import math
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins.sppo.game import Table, lay_out, sampled_log_partition, win_rates

from orchestrator.api import Batch, Column, ConfigError, Couples, Need, Weights, load_registry, reduce_terms
from orchestrator.testing import check_component

REFERENCE_LOGPROB = Need(Weights.REFERENCE, Column.LOGPROB)
HAND = ((0.5, 0.9, 0.6), (0.1, 0.5, 0.8), (0.4, 0.2, 0.5))


@cache
def registry():
    return load_registry(["sppo", "preferences", "baselines"])


def make_batch(against, rewards=None, group=None, mask=None, reference=None):
    """Answers of one token each; by default their scores are their win rates."""
    against = None if against is None else torch.as_tensor(against, dtype=torch.float64)
    rewards = win_rates(against) if rewards is None else torch.as_tensor(rewards, dtype=torch.float64)
    rows = len(rewards)
    mask = torch.ones(rows, 1, dtype=torch.bool) if mask is None else mask
    reference = torch.zeros(rows, dtype=torch.float64) if reference is None else reference
    return Batch(
        inputs={},
        mask=mask,
        behaviour_logprobs=torch.zeros(rows, 1, dtype=torch.float64),
        rewards=rewards,
        turn_rewards=rewards[:, None],
        group=torch.zeros(rows, dtype=torch.int64) if group is None else torch.as_tensor(group),
        turn=torch.where(mask, 0, -1),
        demonstration=torch.zeros(rows, dtype=torch.bool),
        against=against,
        columns={REFERENCE_LOGPROB: reference[:, None]},
    )


def evaluate(batch, ratios, **options):
    """Loss, gradient in the answers' log-probabilities [B], and metrics."""
    leaf = torch.as_tensor(ratios, dtype=torch.float64).detach().clone().requires_grad_()
    terms = registry().build("objective", "sppo", options).terms(batch, {Column.LOGPROB: leaf[:, None]})
    loss = reduce_terms(terms, batch)
    loss.backward()
    metrics = {name: float(mean.total) / max(float(mean.count), 1) for name, mean in terms.metrics.items()}
    return loss.item(), leaf.grad, metrics


def random_game(seed, size):
    """A win matrix that need not be transitive."""
    above = np.triu(np.random.default_rng(seed).random((size, size)), 1)
    return above + np.tril(1 - above.T, -1) + 0.5 * np.eye(size)


# --- numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("comparison", "expected"), [("win_rate", 0.0275611111), ("single", 0.01445), ("hard", 0.5329 / 2)]
)
def test_best_against_worst(comparison, expected):
    loss, gradient, metrics = evaluate(make_batch(HAND), (0.02, 7.0, 0.05), step_size=1.0, comparison=comparison)

    assert loss == pytest.approx(expected, abs=1e-10)
    assert gradient[1] == 0
    assert metrics["sppo/best"] == pytest.approx(0.02)
    assert metrics["sppo/worst"] == pytest.approx(0.05)
    assert metrics["sppo/win_rate/gap"] == pytest.approx(0.3)


def test_win_rates_and_log_partition_of_the_hand_case():
    rates = win_rates(torch.tensor(HAND, dtype=torch.float64))
    table = lay_out(torch.zeros(3, dtype=torch.int64))

    assert rates.tolist() == pytest.approx([0.666667, 0.466667, 0.366667], abs=1e-6)
    assert sampled_log_partition(rates, table, 1.0).item() == pytest.approx(0.5078854388, abs=1e-10)
    assert sampled_log_partition(rates, table, 2.0).item() == pytest.approx(1.0318370299, abs=1e-10)


@pytest.mark.parametrize(("log_partition", "expected"), [(0.5, 0.0211111111), ("sample", 0.0200022389)])
def test_all_answers(log_partition, expected):
    options = {"step_size": 2.0, "selection": "all", "log_partition": log_partition}

    assert evaluate(make_batch(HAND), (0.1, 0.0, -0.2), **options)[0] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("step_size", "expected"), [(1.0, 0.5396587431), (1000.0, 898.3905620876)])
def test_log_partition_of_a_strict_order(step_size, expected):
    against = torch.tensor([[0.5 if i == j else float(i > j) for j in range(5)] for i in range(5)], dtype=torch.float64)
    table = lay_out(torch.zeros(5, dtype=torch.int64))

    assert win_rates(against).tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    found = sampled_log_partition(win_rates(against), table, step_size).item()
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-9)


def test_log_partition_of_a_long_strict_order():
    rates = (torch.arange(10**5, dtype=torch.float64) + 0.5) / 10**5
    row = torch.zeros(10**5, dtype=torch.int64)
    table = Table(row, torch.arange(10**5), torch.ones(1, 10**5, dtype=torch.bool))

    found = sampled_log_partition(rates, table, 1.0).item()

    assert found == pytest.approx(0.5413248546, abs=1e-10)
    assert math.log(math.e - 1) == pytest.approx(found, abs=1e-10)


def test_a_hard_label_at_the_papers_step_size():
    assert evaluate(make_batch([[0.5, 0.9], [0.1, 0.5]]), (0, 0), comparison="hard")[0] == 250_000


def targets(against, **options):
    """What the objective wants each answer's log-ratio to be, read off its gradient at 0."""
    batch = make_batch(against)
    return -evaluate(batch, [0.0] * len(batch.rewards), selection="all", **options)[1] * len(batch.rewards) / 2


def test_the_exact_step_of_a_pair():
    game = [[0.5, 0.8], [0.2, 0.5]]
    wanted = targets(game, step_size=1.0, log_partition="sample")

    assert win_rates(torch.tensor(game, dtype=torch.float64)).tolist() == pytest.approx([0.65, 0.35])
    assert (0.5 * wanted.exp()).tolist() == pytest.approx([0.5744425168, 0.4255574832], abs=1e-10)


def test_scores_alone_are_compared_by_bradley_terry():
    rewards = torch.tensor([1.0, 0.0, 0.25, 3.0], dtype=torch.float64)
    group = [0, 0, 0, 7]
    against = torch.full((4, 3), torch.nan, dtype=torch.float64)
    against[:3] = torch.sigmoid(rewards[:3, None] - rewards[None, :3])
    against[3, 0] = 0.5

    for selection in ("all", "best_worst"):
        one = evaluate(make_batch(None, rewards, group), (0.1, 0.2, 0.3, 0.4), step_size=2.0, selection=selection)
        other = evaluate(make_batch(against, rewards, group), (0.1, 0.2, 0.3, 0.4), step_size=2.0, selection=selection)
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])


# --- relations of the variants ----------------------------------------------------------------------------


@given(st.floats(0, 1), st.floats(-3, 3), st.floats(-3, 3), st.floats(0.1, 10))
def test_two_siblings_halve_the_step_of_a_single_comparison(chance, h_best, h_worst, step_size):
    batch = make_batch([[0.5, chance], [1 - chance, 0.5]], rewards=[1, 0])

    shared = evaluate(batch, (h_best, h_worst), step_size=step_size)
    single = evaluate(batch, (h_best, h_worst), step_size=step_size / 2, comparison="single")

    assert shared[0] == pytest.approx(single[0], rel=1e-9, abs=1e-12)
    torch.testing.assert_close(shared[1], single[1], atol=1e-9, rtol=1e-9)


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.1, 10))
def test_hard_is_a_single_comparison_won_for_sure_and_half_the_trl_loss(h_best, h_worst, step_size):
    batch = make_batch([[0.5, 1.0], [0.0, 0.5]])

    hard = evaluate(batch, (h_best, h_worst), step_size=step_size, comparison="hard")
    single = evaluate(batch, (h_best, h_worst), step_size=step_size, comparison="single")

    assert hard[0] == single[0]
    trl = (h_best - 0.5 * step_size) ** 2 + (h_worst + 0.5 * step_size) ** 2
    assert 2 * hard[0] == pytest.approx(trl, rel=1e-12, abs=1e-12)


def test_at_the_reference_a_hard_pair_is_pushed_like_dpos_to_the_bit():
    batch = make_batch([[0.5, 1.0], [0.0, 0.5]])
    dpo = registry().build("objective", "dpo", {"kl_weight": 1.0})
    leaf = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
    reduce_terms(dpo.terms(batch, {Column.LOGPROB: leaf}), batch).backward()

    assert torch.equal(evaluate(batch, (0, 0), step_size=1.0, comparison="hard")[1], leaf.grad.squeeze(1))


# --- invariances ------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(0.01, 100))
def test_targets_of_a_group_sum_to_0_and_log_z_keeps_its_bounds(seed, size, step_size):
    game = torch.from_numpy(random_game(seed, size))
    rates, table = win_rates(game), lay_out(torch.zeros(size, dtype=torch.int64))

    assert rates.mean().item() == pytest.approx(0.5, abs=1e-12)
    assert targets(game, step_size=step_size).sum().item() == pytest.approx(0, abs=1e-9 * step_size)
    log_z = sampled_log_partition(rates, table, step_size).item()
    assert step_size / 2 - 1e-9 <= log_z <= step_size + 1e-9


@given(st.integers(0, 10**6), st.floats(-50, 50))
def test_moving_policy_and_reference_alike_changes_nothing(seed, shift):
    game = torch.from_numpy(random_game(seed, 4))
    ratios = torch.linspace(-1, 1, 4, dtype=torch.float64)
    moved = torch.full((4,), shift, dtype=torch.float64)

    one = evaluate(make_batch(game), ratios, step_size=3.0)
    other = evaluate(make_batch(game, reference=moved), ratios + moved, step_size=3.0)

    assert one[0] == pytest.approx(other[0], rel=1e-9, abs=1e-12)
    torch.testing.assert_close(one[1], other[1], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("selection", ["all", "best_worst"])
@pytest.mark.parametrize("log_partition", [0.5, "sample"])
@given(seed=st.integers(0, 10**6), order=st.permutations(range(4)))
def test_the_order_of_siblings_changes_nothing(selection, log_partition, seed, order):
    game = torch.from_numpy(random_game(seed, 4))
    ratios = torch.linspace(-1, 1, 4, dtype=torch.float64)
    options = {"step_size": 3.0, "selection": selection, "log_partition": log_partition}

    one = evaluate(make_batch(game), ratios, **options)
    other = evaluate(make_batch(game[order][:, order]), ratios[order], **options)

    assert one[0] == pytest.approx(other[0], rel=1e-9)
    torch.testing.assert_close(one[1][order], other[1], atol=1e-12, rtol=1e-9)


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 0.9]))
def test_the_first_step_follows_the_gradient_of_winning(seed, log_partition):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, generator=generator, dtype=torch.float64).requires_grad_()
    game = torch.from_numpy(random_game(seed, 4))
    frozen = logits.detach().softmax(0)
    (logits.softmax(0) @ game @ frozen).backward()
    expected, logits.grad = logits.grad.clone(), None

    batch = make_batch((game @ frozen)[:, None], rewards=game @ frozen, reference=frozen.log())
    batch = replace(batch, group=torch.arange(4))  # the win rate against the policy itself, as the only comparison
    objective = registry().build(
        "objective", "sppo", {"step_size": 3.0, "selection": "all", "log_partition": log_partition}
    )
    [term] = objective.terms(batch, {Column.LOGPROB: logits.log_softmax(0)[:, None]}).loss
    (frozen * term.values).sum().backward()

    torch.testing.assert_close(logits.grad, -2 * 3.0 * expected, atol=1e-10, rtol=1e-9)


# --- the game behind it -----------------------------------------------------------------------------------

ROCK_PAPER_SCISSORS = np.array([[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]])


def exact_step(policy, game, step_size):
    tilted = policy * np.exp(step_size * (game @ policy))
    return tilted / tilted.sum()


def duality_gap(policy, game):
    return (game @ policy).max() - (policy @ game).min()


@given(st.floats(0.01, 50))
def test_a_policy_nobody_beats_stays(step_size):
    uniform = np.full(3, 1 / 3)

    np.testing.assert_allclose(exact_step(uniform, ROCK_PAPER_SCISSORS, step_size), uniform, atol=1e-12)
    assert evaluate(make_batch(ROCK_PAPER_SCISSORS), (0, 0, 0), step_size=step_size, selection="all")[0] == 0


@pytest.mark.parametrize(
    ("rounds", "average", "last", "bound"),
    [
        (100, 0.0710, 0.550, 0.179),
        (400, 0.0222, 0.324, 0.090),
        (1600, 0.0187, 0.569, 0.045),
        (6400, 0.0077, 0.447, 0.022),
    ],
)
def test_the_average_iterate_approaches_equilibrium_and_the_last_does_not(rounds, average, last, bound):
    policy, total = np.array([0.6, 0.2, 0.2]), np.zeros(3)
    step_size = math.sqrt(8 * math.log(5) / rounds)
    for _ in range(rounds):
        total += policy
        last_policy, policy = policy, exact_step(policy, ROCK_PAPER_SCISSORS, step_size)

    gap = duality_gap(total / rounds, ROCK_PAPER_SCISSORS)
    assert gap == pytest.approx(average, abs=5.1e-5)
    assert gap <= 2 * math.sqrt(math.log(5) / (2 * rounds)) == pytest.approx(bound, abs=5e-4)
    assert duality_gap(last_policy, ROCK_PAPER_SCISSORS) == pytest.approx(last, abs=5e-4)


def test_the_condorcet_winner_wins_in_the_end_though_another_has_the_higher_win_rate():
    game = np.array([[0.5, 0.51, 0.51], [0.49, 0.5, 0.99], [0.49, 0.01, 0.5]])
    policy = np.full(3, 1 / 3)

    np.testing.assert_allclose((game @ policy)[:2], [0.5067, 0.66], atol=1e-3)
    seen = {}
    for rounds in range(1, 1001):
        policy = exact_step(policy, game, 1.0)
        seen[rounds] = policy
    assert seen[10][1] == pytest.approx(0.64, abs=5e-3)
    assert seen[100][0] == pytest.approx(0.556, abs=5e-4)
    assert seen[300][0] == pytest.approx(0.902, abs=5e-4)
    assert seen[1000][0] == pytest.approx(0.9999, abs=5e-5)


def regressed(start, wanted):
    """Minimiser over policies of the expected squared distance of log-ratios from what they should be."""
    logits = start.log().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=200, tolerance_grad=1e-14, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss():
        optimizer.zero_grad()
        value = (start * (logits.log_softmax(0) - start.log() - wanted).square()).sum()
        value.backward()
        return value

    optimizer.step(loss)
    return logits.detach().softmax(0)


def test_the_constant_for_log_z_costs_little_while_steps_are_small():
    """The minimiser of the expected constant-half loss leaves the exact step by about the cube of the step size."""
    above = torch.rand(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).triu(1)
    game = above + (1 - above.T).tril(-1) + 0.5 * torch.eye(3, dtype=torch.float64)
    start, apart = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), []
    for step_size in (0.25, 0.5, 1.0, 2.0, 5.0):
        found = regressed(start, step_size * (game @ start - 0.5)).numpy()
        apart.append(0.5 * np.abs(found - exact_step(start.numpy(), game.numpy(), step_size)).sum())

    assert apart == pytest.approx([1.2e-5, 9.9e-5, 7.9e-4, 6.0e-3, 0.070], rel=0.05)
    assert [later / earlier for earlier, later in pairwise(apart[:4])] == pytest.approx([8, 8, 8], abs=0.5)


# --- edges ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("comparison", ["win_rate", "single", "hard"])
def test_ties_and_cycles_are_left_out(comparison):
    nobody = [[0.5, 0.5, 0.5]] * 3
    cycle = [[0.5, 0.1, 0.9], [0.9, 0.5, 0.1], [0.1, 0.9, 0.5]]
    pair = [[0.5, 0.8, math.nan], [0.2, 0.5, math.nan]]
    batch = make_batch([*nobody, *cycle, *pair], group=[0] * 3 + [1] * 3 + [2] * 2)

    loss, gradient, _ = evaluate(batch, [0.3] * 8, step_size=1.0, comparison=comparison)
    alone = evaluate(make_batch([row[:2] for row in pair]), [0.3] * 2, step_size=1.0, comparison=comparison)

    assert loss == pytest.approx(alone[0])  # the mean is over the answers chosen
    assert gradient[:6].tolist() == [0] * 6


def test_equal_scores_are_told_apart_by_win_rate():
    batch = make_batch(HAND, rewards=[1.0, 1.0, 1.0])

    assert evaluate(batch, (0.02, 7.0, 0.05), step_size=1.0)[0] == pytest.approx(0.0275611111, abs=1e-10)


def test_win_rates_are_kept_where_the_score_orders_otherwise():
    batch = make_batch(HAND, rewards=[0.0, 1.0, 0.5])

    _, gradient, _ = evaluate(batch, (0.0, 0.0, 0.0), step_size=1.0)

    assert gradient.tolist() == pytest.approx([0.5 - 2 / 3, 0.5 - 7 / 15, 0])


@pytest.mark.parametrize("selection", ["all", "best_worst"])
def test_one_sibling_has_nothing_to_learn(selection):
    loss, gradient, _ = evaluate(make_batch([[0.5]]), (0.0,), selection=selection)

    assert loss == 0
    assert gradient.tolist() == [0]


def test_missing_comparisons_are_left_out():
    nan = math.nan
    batch = make_batch([[0.5, 0.9, nan], [0.1, 0.5, 0.8], [nan, 0.2, 0.5]])

    assert targets(batch.against, step_size=1.0).tolist() == pytest.approx([0.2, 1.4 / 3 - 0.5, -0.15])
    _, gradient, _ = evaluate(batch, (0, 0, 0), step_size=1.0, comparison="single")
    assert gradient.tolist() == [0, 0, 0]  # the best and the worst were never compared


def test_empty_completions_have_a_log_ratio_of_0():
    mask = torch.tensor([[True], [False], [True]])
    reference = torch.tensor([0.0, math.nan, 0.0], dtype=torch.float64)

    loss, gradient, _ = evaluate(
        make_batch(HAND, mask=mask, reference=reference), (0.1, math.nan, -0.2), step_size=2.0, selection="all"
    )

    assert loss == pytest.approx(0.0211111111, abs=1e-10)
    assert gradient[1] == 0


@pytest.mark.parametrize("size", [1e3, -1e3])
@pytest.mark.parametrize("log_partition", [0.5, "sample"])
def test_extreme_log_ratios_are_pulled_back(size, log_partition):
    loss, gradient, _ = evaluate(make_batch(HAND), (size, size, size), selection="all", log_partition=log_partition)

    assert math.isfinite(loss)
    assert (gradient.sign() == math.copysign(1, size)).all()


def test_comparisons_that_do_not_fit_the_groups_are_refused():
    batch = replace(make_batch(HAND), against=torch.full((3, 2), 0.5, dtype=torch.float64))

    with pytest.raises(ValueError, match="2 columns for groups of up to 3 siblings"):
        evaluate(batch, (0, 0, 0))


@pytest.mark.parametrize(
    "options",
    [
        {"step_size": 0},
        {"log_partition": 2},
        {"log_partition": "half"},
        {"selection": "all", "comparison": "hard"},
        {"comparison": "soft"},
        {"beta": 1},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError):
        registry().build("objective", "sppo", options)


@pytest.mark.parametrize(
    "options", [{}, {"selection": "all", "log_partition": "sample"}, {"comparison": "single"}, {"comparison": "hard"}]
)
def test_the_objective_keeps_its_contract(options):
    check_component(registry().describe("objective", "sppo"), {"step_size": 2.0, **options})

    assert registry().build("objective", "sppo").couples is Couples.GROUPS


def test_the_recipe_plays_rounds_on_win_rates():
    recipe = registry().describe("recipe", "sppo").overlay

    assert recipe["rewards"] == [{"use": "preference"}]
    assert recipe["schedule"]["refresh_reference"] == "round"
    assert recipe["schedule"]["steps_per_round"] > 1
    registry().build("objective", "sppo", {k: v for k, v in recipe["objective"].items() if k != "use"})
