"""DARS: the allocation rule, two-stage sampling, advantages and loss of unequal groups, the weighting control."""

from dataclasses import replace
from math import ceil, comb, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins.dars.rebalance import extra_rollouts

from orchestrator.api import (
    Action,
    Batch,
    Column,
    ConfigError,
    Need,
    Reports,
    Rollout,
    RolloutGroup,
    Score,
    Task,
    Turn,
    Weights,
    load_registry,
    reduce_terms,
)

ET, HW = "equal_treatment", "hardness_weighted"


@pytest.fixture(scope="module")
def registry():
    return load_registry(["dars", "baselines"])


# --- the rule ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "standardise", "first", "most", "expected"),
    [  # extra rollouts for 0, 1, 2, ... right ones; the last entry holds from there on
        (ET, False, 8, 32, [24, 11, 3, 1, 0]),
        (ET, False, 8, 1000, [27, 11, 3, 1, 0]),
        (HW, False, 8, 64, [56, 24, 8, 3, 0]),
        (HW, False, 8, 32, [24, 24, 8, 3, 0]),
        (ET, True, 8, 32, [9, 5, 2, 1, 0]),
        (HW, True, 8, 64, [23, 14, 6, 3, 0]),
        (ET, False, 16, 32, [16, 16, 16, 11, 6, 3, 2, 1, 0]),
        (HW, False, 16, 64, [48, 48, 48, 27, 16, 10, 6, 3, 0]),
        (HW, False, 16, 32, [16, 16, 16, 16, 16, 10, 6, 3, 0]),
        (ET, False, 8, 8, [0]),
        (HW, True, 8, 8, [0]),
        (HW, False, 8, 4, [0]),
    ],
)
def test_extra_rollouts_follow_the_published_tables(schedule, standardise, first, most, expected):
    given_out = [extra_rollouts(k, first, most, schedule, standardise) for k in range(first + 1)]

    assert given_out == expected + [expected[-1]] * (first + 1 - len(expected))


def released_extra_rollouts(correct, first, most, schedule, standardise):
    """The rule in float32, as released."""
    rate = np.float32(max(correct, 0.5) / first)
    if rate >= 0.5:
        return 0
    one, two = np.float32(1), np.float32(2)
    weight = two * np.sqrt(rate * (one - rate)) if standardise else two * rate * (one - rate)
    peak = np.float32(first if standardise else first / 2)
    goal = two * (one - rate) * peak if schedule == HW else peak
    return max(0, min(ceil((goal - np.float32(first) * weight) / weight), most - first))


@pytest.mark.parametrize("first", [2, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("schedule", [ET, HW])
@pytest.mark.parametrize("standardise", [False, True])
def test_powers_of_two_get_what_the_released_floats_say(first, schedule, standardise):
    for correct in range(first + 1):
        released = released_extra_rollouts(correct, first, 10**6, schedule, standardise)
        assert extra_rollouts(correct, first, 10**6, schedule, standardise) == released


def test_the_ceiling_is_exact_where_floats_go_one_too_far():
    # 10 sqrt((1 - a) / a) at a = 1/10 is 30 exactly; in float32 it comes out above.
    assert extra_rollouts(1, 10, 100, HW, standardise=True) == 20
    assert released_extra_rollouts(1, 10, 100, HW, standardise=True) == 21


@pytest.mark.parametrize(
    ("schedule", "most", "expected"),
    [
        (ET, 32, [32, 30.97, 27.15, 21.21, 12.70, 8.98, 8.00]),
        (HW, 64, [64, 61.48, 52.28, 38.41, 19.11, 10.50, 8.00]),
    ],
)
def test_expected_rollouts_of_a_task(schedule, most, expected):
    found = [
        sum(comb(8, k) * rate**k * (1 - rate) ** (8 - k) * (8 + extra_rollouts(k, 8, most, schedule)) for k in range(9))
        for rate in (0, 0.01, 0.05, 0.125, 0.3, 0.5, 0.9)
    ]

    assert found == pytest.approx(expected, abs=6e-3)


@pytest.mark.parametrize(
    ("rate", "expected"), [(0.01, (0.077, 0.275, 0.474)), (0.05, (0.337, 0.806, 0.963)), (0.125, (0.656, 0.986, 1.0))]
)
def test_chance_that_some_rollout_is_right(rate, expected):
    # Any right one among the first ends the search; without one the task gets what no success gets.
    most = [8, 8 + extra_rollouts(0, 8, 32, ET), 8 + extra_rollouts(0, 8, 64, HW)]

    assert [1 - (1 - rate) ** count for count in most] == pytest.approx(expected, abs=6e-4)


COUNTS = st.integers(2, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n), st.integers(n, 4 * n)))
SCHEDULES = st.sampled_from([ET, HW])


@given(COUNTS, SCHEDULES, st.booleans())
def test_harder_tasks_never_get_less(counts, schedule, standardise):
    correct, first, most = counts
    if correct < first:
        assert extra_rollouts(correct, first, most, schedule, standardise) >= extra_rollouts(
            correct + 1, first, most, schedule, standardise
        )


@given(COUNTS, st.booleans())
def test_hardness_weighting_never_gives_less_than_equal_treatment(counts, standardise):
    assert extra_rollouts(*counts, HW, standardise) >= extra_rollouts(*counts, ET, standardise)


@given(COUNTS, SCHEDULES, st.booleans())
def test_the_cap_is_kept_and_half_solved_tasks_get_nothing(counts, schedule, standardise):
    correct, first, most = counts
    extra = extra_rollouts(correct, first, most, schedule, standardise)

    assert 0 <= extra <= most - first
    assert extra == 0 or 2 * correct < first


@given(COUNTS, SCHEDULES, st.booleans())
def test_the_goal_is_reached_by_the_fewest_rollouts(counts, schedule, standardise):
    correct, first, _ = counts
    rate = max(correct, 0.5) / first
    if rate >= 0.5:
        return
    weight = 2 * sqrt(rate * (1 - rate)) if standardise else 2 * rate * (1 - rate)
    goal = first * (1.0 if standardise else 0.5) * (2 * (1 - rate) if schedule == HW else 1)

    total = first + extra_rollouts(correct, first, 10**9, schedule, standardise)

    assert total * weight >= goal * (1 - 1e-12)
    assert total == first or (total - 1) * weight < goal * (1 + 1e-12)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [(ET, [4.1015625, 4.15625, 4.125, 4.21875, 4.0]), (HW, [7.5, 7.0, 6.0, 5.15625, 4.0])],
)
def test_total_weights_reach_their_goals(schedule, expected):
    rates = [1 / 16, 1 / 8, 2 / 8, 3 / 8, 4 / 8]

    weights = [(8 + extra_rollouts(k, 8, 1000, schedule)) * 2 * rate * (1 - rate) for k, rate in enumerate(rates)]

    assert weights == expected
    for weight, rate in zip(weights, rates, strict=True):
        assert weight >= (4 if schedule == ET else 8 * (1 - rate))


@given(st.integers(2, 200), SCHEDULES)
def test_closed_forms_without_deviation(first, schedule):
    for correct in range(1, (first + 1) // 2):
        expected = ceil(first * first / (2 * correct)) if schedule == HW else None
        if schedule == ET:
            expected = -(-(first**3) // (4 * correct * (first - correct)))
        assert first + extra_rollouts(correct, first, 10**9, schedule) == expected


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((0, 1, 8, ET), "pre_rollouts is 1"),
        ((9, 8, 32, ET), "correct is 9"),
        ((-1, 8, 32, ET), "correct is -1"),
        ((1, 8, 32, "equal"), "schedule is 'equal'; expected equal_treatment or hardness_weighted"),
    ],
)
def test_impossible_counts_are_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        extra_rollouts(*arguments)


# --- two stages -------------------------------------------------------------------------------------------


class Deck:
    """A collect that deals given scores, task by task, and keeps what was asked for."""

    def __init__(self, scores, **rollout):
        self.scores = {name: list(values) for name, values in scores.items()}
        self.asked = []
        self.rollout = rollout

    def __call__(self, requests):
        self.asked.append({request.task.id: request.count for request in requests})
        groups = []
        for request in requests:
            dealt = [self.scores[request.task.id].pop(0) for _ in range(request.count)]
            turn = Turn(observation=(), action=Action(tokens=(1,), logprobs=(0.0,)))
            rollouts = tuple(
                Rollout(task_id=request.task.id, index=i, seed=i, turns=(turn,), **self.rollout)
                for i in range(request.count)
            )
            scores = tuple(Score(value=value) for value in dealt)
            groups.append(RolloutGroup(task=request.task, rollouts=rollouts, scores=scores))
        return groups


def tasks(count):
    return [Task(id=str(place)) for place in range(count)]


def four_prompts():
    """One, none, all and half of eight right; then two of eleven for the first, none for the second."""
    return {
        "0": [1] + [0] * 7 + [1, 1] + [0] * 22,
        "1": [0] * 64,
        "2": [1] * 8,
        "3": [1, 0] * 4,
    }


@pytest.mark.parametrize(("schedule", "most", "extra"), [(ET, 32, {"0": 11, "1": 24}), (HW, 64, {"0": 24, "1": 56})])
def test_one_iteration_asks_for_what_the_schedule_says(registry, schedule, most, extra):
    sampler = registry.build("sampler", "dars", {"schedule": schedule, "max_rollouts": most})
    deck = Deck(four_prompts())

    sampler.sample(tasks(4), deck)

    assert deck.asked == [{"0": 8, "1": 8, "2": 8, "3": 8}, extra]


@pytest.mark.parametrize(
    ("standardise", "first", "last"), [(False, (0.842105, -0.157895), 0.5), (True, (2.2478, -0.421462), 0.935413)]
)
def test_one_iteration_merges_filters_and_credits(registry, standardise, first, last):
    groups = registry.build("sampler", "dars", {}).sample(tasks(4), Deck(four_prompts()))
    batch = make_batch(groups)
    advantage = registry.build("advantage", "group_mean", {"standardise": standardise})

    credit = advantage.estimate(batch).advantages[:, 0]

    assert [group.task.id for group in groups] == ["0", "3"]
    assert [len(group.rollouts) for group in groups] == [19, 8]
    assert len(batch.rewards) == 27
    assert sum(batch.rewards[:19]) == 3
    right = batch.rewards.bool()
    torch.testing.assert_close(credit[:19][right[:19]], torch.full((3,), first[0]), atol=5e-5, rtol=0)
    torch.testing.assert_close(credit[:19][~right[:19]], torch.full((16,), first[1]), atol=1e-6, rtol=0)
    torch.testing.assert_close(credit[19:].abs(), torch.full((8,), last), atol=1e-6, rtol=0)
    torch.testing.assert_close(credit[:19].sum(), torch.tensor(0.0), atol=1e-5, rtol=0)
    if not standardise:
        assert credit[:19].abs().sum().item() == pytest.approx(5.052632, abs=1e-5)
        before = make_batch([replace(groups[0], scores=groups[0].scores[:8])])
        assert advantage.estimate(before).advantages.abs().sum().item() == pytest.approx(1.75)
        assert credit[19:].abs().sum().item() == pytest.approx(4.0)


def test_the_sampler_reports_its_last_call(registry):
    sampler = registry.build("sampler", "dars", {})
    assert isinstance(sampler, Reports)
    sampler.sample(tasks(4), Deck(four_prompts() | {"1": [0] * 30 + [1, 1]}))

    assert sampler.report() == {
        "dars/rollouts/mean": (19 + 32 + 8 + 8) / 4,
        "dars/extra_rollouts": 35.0,
        "dars/unsolved": 0.25,
        "dars/solved": 0.25,
        "dars/rescued": 1.0,
        "dars/dropped": 0.25,
    }


def test_without_hard_tasks_the_second_stage_is_left_out(registry):
    sampler = registry.build("sampler", "dars", {"drop_constant": False})
    deck = Deck({"0": [1] * 8, "1": [1, 0] * 4})

    groups = sampler.sample(tasks(2), deck)

    assert len(deck.asked) == 1
    assert [len(group.rollouts) for group in groups] == [8, 8]


def test_all_right_and_all_wrong_tasks_leave_nothing(registry):
    sampler = registry.build("sampler", "dars", {})

    assert sampler.sample(tasks(2), Deck({"0": [1] * 8, "1": [0] * 32})) == []
    assert sampler.report()["dars/dropped"] == 1.0


def test_without_room_dars_is_the_group_sampler(registry):
    dars = registry.build("sampler", "dars", {"pre_rollouts": 4, "max_rollouts": 4, "drop_constant": False})
    group = registry.build("sampler", "group", {"count": 4})
    scores = {"0": [0, 0, 0, 1], "1": [0] * 4}

    assert dars.sample(tasks(2), Deck(scores)) == group.sample(tasks(2), Deck(scores))


def test_a_task_that_comes_twice_is_two_tasks(registry):
    sampler = registry.build("sampler", "dars", {"pre_rollouts": 2, "max_rollouts": 4})
    task = Task(id="0")

    groups = sampler.sample([task, task], Deck({"0": [0, 0, 1, 0, 1]}))

    assert [[s.value for s in group.scores] for group in groups] == [[0, 0, 1], [1, 0]]


def test_failed_first_rollouts_count_nothing(registry):
    class Failing(Deck):
        def __call__(self, requests):
            groups = super().__call__(requests)
            if len(self.asked) > 1:
                return groups
            kept = {"0": 4, "1": 1, "2": 0}
            return [
                RolloutGroup(task=g.task, rollouts=g.rollouts[: kept[g.task.id]], scores=g.scores[: kept[g.task.id]])
                for g in groups
            ]

    deck = Failing({"0": [0, 0, 0, 1] + [0] * 12, "1": [0] * 8, "2": [0] * 8})

    groups = registry.build("sampler", "dars", {}).sample(tasks(3), deck)

    assert deck.asked[1] == {"0": extra_rollouts(1, 4, 32, ET)}
    assert [group.task.id for group in groups] == ["0"]


def test_shaped_scores_need_to_know_success(registry):
    shaped = {"0": [0.1] * 7 + [0.9] + [0.1] * 24}
    with pytest.raises(ValueError, match=r"scored 0\.1 .* set sampler\.success_at"):
        registry.build("sampler", "dars", {}).sample(tasks(1), Deck(shaped))

    deck = Deck(shaped)
    registry.build("sampler", "dars", {"success_at": 0.5}).sample(tasks(1), deck)
    assert deck.asked[1] == {"0": 11}

    deck = Deck(shaped, metrics={"correct": 1.0})
    registry.build("sampler", "dars", {}).sample(tasks(1), deck)
    assert len(deck.asked) == 1


# --- the loss ---------------------------------------------------------------------------------------------


def make_batch(groups, *, dtype=torch.float32):
    """One token a row; rewards and groups of the given groups."""
    rewards = torch.tensor([score.value for group in groups for score in group.scores], dtype=dtype)
    rows = len(rewards)
    return Batch(
        inputs={},
        mask=torch.ones(rows, 1, dtype=torch.bool),
        behaviour_logprobs=torch.zeros(rows, 1),
        rewards=rewards,
        turn_rewards=rewards[:, None],
        group=torch.tensor([place for place, group in enumerate(groups) for _ in group.scores]),
        turn=torch.zeros(rows, 1, dtype=torch.int64),
        demonstration=torch.zeros(rows, dtype=torch.bool),
    )


@pytest.mark.parametrize(("reduction", "expected"), [("constant", -0.1625 / 2), ("sequence_mean", -0.22083333)])
def test_the_loss_is_a_sum_over_a_constant(registry, reduction, expected):
    # Two rows, at most four tokens: -0.65 / 4, over the two rows.
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)
    old = torch.tensor([[0.5, 0.5, 1, 1], [0.4, 0.5, 0.5, 1]], dtype=torch.float64).log()
    new = torch.tensor([[0.6, 0.3, 1, 1], [0.2, 0.5, 0.5, 1]], dtype=torch.float64).log()
    credit = torch.tensor([[0.75], [-0.25]], dtype=torch.float64)
    batch = Batch(
        inputs={},
        mask=mask,
        behaviour_logprobs=torch.zeros(2, 4),
        rewards=torch.tensor([1.0, 0.0]),
        turn_rewards=torch.zeros(2, 4),
        group=torch.tensor([0, 0]),
        turn=torch.zeros(2, 4, dtype=torch.int64),
        demonstration=torch.zeros(2, dtype=torch.bool),
        columns={Need(Weights.OLD, Column.LOGPROB): old},
        advantages=torch.where(mask, credit, 0.0),
        max_tokens=4,
    )
    recipe = registry.describe("recipe", "dars").overlay["objective"]
    options = {key: value for key, value in recipe.items() if key != "use"}
    objective = registry.build("objective", "clipped", options | {"reduction": reduction, "entropy_weight": 0.0})

    terms = objective.terms(batch, {Column.LOGPROB: new})

    torch.testing.assert_close(
        terms.loss[0].values,
        torch.tensor([[-0.9, -0.45, 0, 0], [0.2, 0.25, 0.25, 0]], dtype=torch.float64),
    )
    assert reduce_terms(terms, batch).item() == pytest.approx(expected, abs=1e-8)


def test_recipes_reduce_by_a_constant_and_differ_in_their_steps(registry):
    mini, full = (registry.describe("recipe", name).overlay for name in ("dars", "dars_breadth"))

    assert {key: value for key, value in mini.items() if key != "schedule"} == {
        key: value for key, value in full.items() if key != "schedule"
    }
    assert mini["objective"]["reduction"] == "constant"
    assert mini["schedule"] == {"epochs": 1, "minibatches": 2}
    assert full["schedule"] == {"epochs": 2, "minibatches": 1}  # one optimiser step per epoch, whatever the rows
    for recipe in (mini, full):
        for role in ("sampler", "advantage", "objective"):
            options = {key: value for key, value in recipe[role].items() if key != "use"}
            registry.build(role, recipe[role]["use"], options)


# --- the weighting control --------------------------------------------------------------------------------


def test_the_control_weighs_groups_as_dars_would_sample_them(registry):
    groups = Deck({"0": [1] + [0] * 7, "1": [1, 0] * 4, "2": [0] * 8})(
        [type("Request", (), {"task": task, "count": 8})() for task in tasks(3)]
    )
    batch = make_batch(groups, dtype=torch.float64)

    weighted = registry.build("advantage", "dars_weights", {}).estimate(batch).advantages[:, 0]
    plain = registry.build("advantage", "group_mean", {}).estimate(batch).advantages[:, 0]

    torch.testing.assert_close(weighted[:8], plain[:8] * (8 + 11) / 8)
    torch.testing.assert_close(weighted[8:16], plain[8:16])
    assert weighted[16:].abs().max() == 0


def test_the_control_without_room_is_its_parent_to_the_bit(registry):
    groups = Deck({"0": [1] + [0] * 7, "1": [1]})(
        [type("Request", (), {"task": task, "count": count})() for task, count in zip(tasks(2), (8, 1), strict=True)]
    )
    batch = make_batch(groups)
    options = {"max_rollouts": 8}

    weighted = registry.build("advantage", "dars_weights", options).estimate(batch).advantages

    assert torch.equal(weighted, registry.build("advantage", "group_mean", {}).estimate(batch).advantages)


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=12), min_size=1, max_size=5))
def test_credit_of_unequal_groups_sums_to_zero(rewards):
    registry_ = load_cached()
    groups = [
        RolloutGroup(task=Task(id=str(i)), rollouts=(), scores=tuple(Score(value=v) for v in values))
        for i, values in enumerate(rewards)
        if len(values) > 1
    ]
    if not groups:
        return
    batch = make_batch(groups, dtype=torch.float64)
    for name in ("group_mean", "dars_weights"):
        credit = registry_.build("advantage", name, {}).estimate(batch).advantages[:, 0]
        for place in range(len(groups)):
            assert abs(credit[batch.group == place].sum().item()) < 1e-12


_CACHE = {}


def load_cached():
    if not _CACHE:
        _CACHE["registry"] = load_registry(["dars", "baselines"])
    return _CACHE["registry"]


@pytest.mark.parametrize("options", [{"pre_rollouts": 1}, {"schedule": "equal"}, {"max_rollouts": 1}, {"preroll": 3}])
def test_bad_options_are_refused(registry, options):
    with pytest.raises(ConfigError):
        registry.build("sampler", "dars", options)
