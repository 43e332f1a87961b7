"""GRAO: advantages and losses of hand cases, identities, invariances, the demonstration's way through sampler and reward."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins.grao.alignment import normalised_alignment_gain, relative_alignment_score

from orchestrator.api import (
    Action,
    Batch,
    Column,
    ConfigError,
    Couples,
    Rollout,
    RolloutGroup,
    Score,
    Task,
    Turn,
    load_registry,
    reduce_terms,
)


@cache
def registry():
    return load_registry(["grao", "baselines"])


def make_batch(logprobs, rewards, group=None):
    """Rows of log-probabilities (None: no token there); the last row of each group is its demonstration."""
    rows = len(logprobs)
    group = torch.tensor(group or [0] * rows)
    values = torch.tensor([[0.0 if v is None else v for v in row] for row in logprobs], dtype=torch.float64)
    mask = torch.tensor([[v is not None for v in row] for row in logprobs])
    last = torch.cat([group[1:] != group[:-1], torch.tensor([True])])
    batch = Batch(
        inputs={},
        mask=mask,
        behaviour_logprobs=torch.zeros_like(values),
        rewards=torch.tensor(rewards, dtype=torch.float64),
        turn_rewards=torch.zeros_like(values),
        group=group,
        turn=torch.where(mask, 0, -1),
        demonstration=last,
    )
    return batch, values


def credited(batch, **options):
    credit = registry().build("advantage", "grao", options).estimate(batch)
    return replace(batch, advantages=credit.advantages), credit


def loss_and_gradient(batch, values, **options):
    values = values.clone().requires_grad_()
    terms = registry().build("objective", "grao", options).terms(batch, {Column.LOGPROB: values})
    loss = reduce_terms(terms, batch)
    loss.backward()
    return loss.item(), values.grad, terms


def weighted_terms(terms):
    """J_explore, J_imitate, J_align of the only group."""
    return [-term.coefficient * term.values.item() for term in terms.loss]


# --- numbers ----------------------------------------------------------------------------------------------

EVEN = ([[-1, -2], [-0.5, None], [-3, -1]], [1, -1, 0])
ALL_LOSE = ([[-1, None]] * 4 + [[-3, -1]], [-1, -1, -1, -1, 0])
ONE_WINS = ([[-1, None]] * 4 + [[-3, -1]], [1, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("case", "statistics", "advantages", "terms", "loss", "gradient"),
    [
        (
            EVEN,
            "joint",
            [1.224745, -1.224745, 0],
            [-0.612372, 0, -0.367423],
            0.979796,
            [[-0.489898, -0.489898], [0.979796, 0], [0, 0]],
        ),
        (EVEN, "rollouts", [1, -1, 0], [-0.5, 0, -0.3], 0.8, None),
        (
            ALL_LOSE,
            "joint",
            [-0.5] * 4 + [2],
            [0.5, -2, -0.3],
            1.8,
            [[0.2, 0]] * 4 + [[-0.65, -0.65]],
        ),
        (ALL_LOSE, "rollouts", [0] * 5, [0, 0, 0], 0.0, [[0, 0]] * 5),
        (
            ONE_WINS,
            "joint",
            [2, -0.5, -0.5, -0.5, -0.5],
            [-0.125, 0.5, 0.075],
            -0.45,
            [[-0.8, 0]] + [[0.2, 0]] * 3 + [[0.1625, 0.1625]],
        ),
        (
            ONE_WINS,
            "rollouts",
            [1.732051] + [-0.577350] * 4,
            [0, 0.577350, 0],
            -0.577350,
            [[-0.692820, 0]] + [[0.230940, 0]] * 3 + [[0.144338, 0.144338]],
        ),
    ],
)
def test_hand_cases(case, statistics, advantages, terms, loss, gradient):
    batch, values = make_batch(*case)

    batch, _ = credited(batch, statistics=statistics)
    found, found_gradient, found_terms = loss_and_gradient(batch, values)

    assert batch.advantages[:, 0].tolist() == pytest.approx(advantages, abs=1e-6)
    objective_terms = dict(zip(("explore", "imitate", "align"), weighted_terms(found_terms), strict=True))
    expected_terms = dict(zip(("explore", "imitate", "align"), terms, strict=True))
    assert objective_terms == pytest.approx(expected_terms, abs=1e-6)
    assert found == pytest.approx(loss, abs=1e-6)
    if gradient is not None:
        torch.testing.assert_close(found_gradient, torch.tensor(gradient, dtype=torch.float64), atol=1e-6, rtol=0)


def test_all_losing_alike_lifts_the_demonstration_by_the_root_of_the_count():
    for count in (2, 4, 9):
        batch, _ = make_batch([[-1.0]] * (count + 1), [-1] * count + [0])
        advantages = credited(batch)[0].advantages[:, 0]
        assert advantages[-1].item() == pytest.approx(count**0.5)
        assert advantages[0].item() == pytest.approx(-(count**-0.5))


@pytest.mark.parametrize(("statistics", "expected"), [("joint", [1, -1]), ("rollouts", [0, 0])])
def test_one_rollout_against_the_demonstration(statistics, expected):
    batch, _ = make_batch([[-1.0], [-1.0]], [1, 0])

    assert credited(batch, statistics=statistics)[0].advantages[:, 0].tolist() == expected


def test_the_ablations_drop_one_term():
    batch, values = make_batch(*ONE_WINS)
    batch, _ = credited(batch)

    assert loss_and_gradient(batch, values, exploration_weight=0)[0] == pytest.approx(-0.45 - 0.125)
    assert loss_and_gradient(batch, values, imitation_weight=0)[0] == pytest.approx(-0.45 + 0.5)
    assert loss_and_gradient(batch, values, alignment_weight=0)[0] == pytest.approx(-0.45 + 0.075)


# --- identities and invariances ---------------------------------------------------------------------------


@st.composite
def batches(draw):
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    seed = draw(st.integers(0, 10**6))
    generator = torch.Generator().manual_seed(seed)
    group = [place for place, size in enumerate(sizes) for _ in range(size + 1)]
    lengths = torch.randint(1, 5, (len(group),), generator=generator).tolist()
    draws = (-3 * torch.rand(len(group), 4, generator=generator, dtype=torch.float64)).tolist()
    rows = [[v if t < n else None for t, v in enumerate(row)] for row, n in zip(draws, lengths, strict=True)]
    rewards = torch.randint(-1, 2, (len(group),), generator=generator).tolist()
    return make_batch(rows, rewards, group)


@given(batches(), st.sampled_from(["joint", "rollouts"]), st.sampled_from([0.0, 0.6, 2.0]))
def test_the_regulariser_adds_no_direction_of_its_own(made, statistics, weight):
    batch, values = made
    batch, _ = credited(batch, statistics=statistics)
    _, gradient, _ = loss_and_gradient(batch, values, alignment_weight=weight)

    lengths = batch.mask.sum(1)
    advantages = batch.advantages[:, 0]
    groups = int(batch.group.max()) + 1
    for row in range(len(lengths)):
        siblings = (batch.group == batch.group[row]) & ~batch.demonstration
        if batch.demonstration[row]:
            scale = 0.5 * advantages[row] - weight * advantages[siblings].mean()
        else:
            scale = (1 + weight) * advantages[row] / siblings.sum()
        expected = torch.where(batch.mask[row], -scale / (groups * lengths[row]), 0.0)
        torch.testing.assert_close(gradient[row], expected, atol=1e-12, rtol=0)


@given(batches())
def test_joint_without_regulariser_and_less_imitation_points_the_same_way(made):
    batch, values = made
    batch, _ = credited(batch)
    counts = [int(((batch.group == g) & ~batch.demonstration).sum()) for g in range(int(batch.group.max()) + 1)]
    if len(set(counts)) > 1:
        return
    imitation = (0.5 + 0.6 / counts[0]) / 1.6

    full = loss_and_gradient(batch, values)[1]
    plain = loss_and_gradient(batch, values, alignment_weight=0.0, imitation_weight=imitation)[1]

    torch.testing.assert_close(full, 1.6 * plain, atol=1e-12, rtol=0)


@given(batches(), st.floats(0.5, 3), st.floats(-5, 5))
def test_scale_and_shift_of_the_rewards_change_nothing(made, scale, shift):
    batch, _ = made

    one = credited(batch)[0].advantages
    other = credited(replace(batch, rewards=batch.rewards * scale + shift))[0].advantages

    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@given(batches())
def test_joint_advantages_of_a_group_sum_to_zero(made):
    batch, _ = made
    advantages = credited(batch)[0].advantages[:, 0]

    for group in range(int(batch.group.max()) + 1):
        assert abs(advantages[batch.group == group].sum().item()) < 1e-9


def test_exploration_alone_is_length_normalised_reinforce_to_the_bit():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([4, 1, 2, 4, 2, 4, 1, 2])
    mask = torch.arange(4)[None] < lengths[:, None]
    values = -3 * torch.rand(8, 4, generator=generator, dtype=torch.float64)
    rows = [[v if m else None for v, m in zip(*row, strict=True)] for row in zip(values, mask, strict=True)]
    batch, values = make_batch(rows, [1, 0, 0, 1, -1, 1, 0, 0], [0] * 4 + [1] * 4)
    batch = replace(batch, demonstration=torch.zeros(8, dtype=torch.bool))
    batch, _ = credited(batch, statistics="rollouts")

    _, ours, _ = loss_and_gradient(batch, values, imitation_weight=0.0, alignment_weight=0.0)

    leaf = values.clone().requires_grad_()
    parent = registry().build("objective", "reinforce", {"reduction": "sequence_mean"})
    reduce_terms(parent.terms(batch, {Column.LOGPROB: leaf}), batch).backward()
    assert torch.equal(ours, leaf.grad)


def test_a_rollout_that_says_what_the_demonstration_says_adds_to_its_gradient():
    batch, values = make_batch([[-1.0, -2.0], [-3.0, -1.0], [-3.0, -1.0]], [1, 0, 0])
    batch, _ = credited(batch)

    gradient = loss_and_gradient(batch, values)[1]

    # A = (sqrt 2, -1/sqrt 2, -1/sqrt 2): the copy weighs (1 + 0.6) A / 2, the demonstration 0.5 A - 0.6 mean A.
    tie, mean = -(2**-0.5), 2**-1.5
    assert gradient[1].tolist() == pytest.approx([-1.6 * tie / 4] * 2)
    assert gradient[2].tolist() == pytest.approx([-(0.5 * tie - 0.6 * mean) / 2] * 2)
    assert gradient[1, 0] > 0
    assert gradient[2, 0] > 0  # both push the same words down


def test_whole_groups_are_the_mean_of_their_losses():
    one, one_values = make_batch(*EVEN)
    other, other_values = make_batch([[-1, -0.3], [-0.7, None], [-2, -1]], [0, 1, 1])
    both, values = make_batch([*EVEN[0], [-1, -0.3], [-0.7, None], [-2, -1]], [*EVEN[1], 0, 1, 1], [0, 0, 0, 1, 1, 1])

    parts = [loss_and_gradient(credited(b)[0], v)[0] for b, v in ((one, one_values), (other, other_values))]

    assert loss_and_gradient(credited(both)[0], values)[0] == pytest.approx(sum(parts) / 2)


# --- edges ------------------------------------------------------------------------------------------------


def test_ties_throughout_give_no_update_at_all():
    batch, values = make_batch([[-1, -2], [-0.5, None], [-3, -1]], [0, 0, 0])

    loss, gradient, _ = loss_and_gradient(credited(batch)[0], values)

    assert loss == 0.0
    assert gradient.abs().max() == 0


def test_an_empty_rollout_counts_in_its_group_without_gradient():
    batch, values = make_batch([[-1.0, None], [None, None], [-3.0, -1.0]], [1, 0, 0])
    batch, _ = credited(batch)

    _, gradient, terms = loss_and_gradient(batch, values)

    assert gradient[1].abs().max() == 0
    # A = (sqrt 2, -, -1/sqrt 2): the mean over two rollouts, one of likelihood 0.
    assert weighted_terms(terms)[0] == pytest.approx(-(2**0.5) / 2)
    assert batch.advantages[2, 0].item() == pytest.approx(-(2**-0.5))


def test_what_stands_behind_the_mask_does_not_leak():
    batch, values = make_batch(*EVEN)
    batch, _ = credited(batch)
    loss, gradient, _ = loss_and_gradient(batch, values)

    dirty = torch.where(batch.mask, values, -torch.inf)
    found, dirty_gradient, _ = loss_and_gradient(batch, dirty)

    assert found == loss
    assert torch.equal(gradient, dirty_gradient)


def test_log_probabilities_of_minus_a_thousand_stay_finite():
    batch, values = make_batch([[-1000.0, -1000.0], [-1e3, None], [-1e3, -1e3]], [1, -1, 0])

    loss, gradient, _ = loss_and_gradient(credited(batch)[0], values)

    assert loss == pytest.approx(0.0, abs=1e-9)
    assert torch.isfinite(gradient).all()


def test_a_group_without_a_demonstration_only_explores():
    batch, values = make_batch([[-1.0], [-2.0]], [1, 0])
    batch = replace(batch, demonstration=torch.zeros(2, dtype=torch.bool))

    batch, credit = credited(batch)
    _, gradient, terms = loss_and_gradient(batch, values)

    assert batch.advantages[:, 0].tolist() == [1, -1]
    assert weighted_terms(terms) == pytest.approx([0.5, 0, 0])
    assert gradient[:, 0].tolist() == pytest.approx([-0.5, 0.5])
    assert "grao/demonstration_advantage/mean" not in credit.metrics


def test_the_extension_never_pushes_the_demonstration_away():
    batch, values = make_batch(*ONE_WINS)

    batch, _ = credited(batch, clip_demonstration=True)

    assert batch.advantages[-1].tolist() == [0, 0]
    assert loss_and_gradient(batch, values, alignment_weight=0)[1][-1].abs().max() == 0


def test_metrics_tell_who_is_ahead():
    batch, values = make_batch(
        [*ONE_WINS[0], [-1, None], [-1, None], [-2, None]], [*ONE_WINS[1], 0, 0, 0], [0] * 5 + [1] * 3
    )
    batch, credit = credited(batch)
    terms = loss_and_gradient(batch, values)[2]
    means = {name: float(mean.total) / float(mean.count) for name, mean in terms.metrics.items()}

    assert credit.metrics == {
        "grao/without_signal": 0.5,
        "grao/demonstration_advantage/mean": pytest.approx(-0.25),
        "grao/better_than_demonstration": pytest.approx(1 / 6),
        "grao/as_good_as_demonstration": 1.0,
    }
    assert means["grao/share/policy"] == pytest.approx(0.125 / 0.7)
    assert means["grao/share/imitation"] == pytest.approx(0.5 / 0.7)
    assert means["grao/share/alignment"] == pytest.approx(0.075 / 0.7)
    assert means["grao/demonstration_logprob"] == pytest.approx(-2.0)


def test_the_papers_two_measures():
    assert relative_alignment_score([1, 0, -1, 1]) == 0.5
    assert relative_alignment_score([1, 0, -1, 1], count_ties=True) == 0.75
    assert relative_alignment_score([]) == 0.0
    assert normalised_alignment_gain([1, 0, -1, 0], [0, 0, 0, -1]) == 0.5
    assert normalised_alignment_gain([1, 0, -1, 0], [0, 0, 0, -1], net=True) == 0.25
    with pytest.raises(ValueError, match="2 judgements after training but 1 before"):
        normalised_alignment_gain([1, 0], [1])


# --- sampler and reward -----------------------------------------------------------------------------------


class Table:
    """A collect whose rollouts of the policy score 0, its demonstrations 1."""

    def __call__(self, requests):
        return [self.group(request) for request in requests]

    def group(self, request):
        turn = Turn(observation=(), action=Action(tokens=(1,), logprobs=(0.0,)))
        rollouts = tuple(
            Rollout(
                task_id=request.task.id,
                index=i,
                seed=i,
                turns=(turn,),
                demonstration=request.demonstrate,
                metrics={"correct": float(request.demonstrate)},
            )
            for i in range(request.count)
        )
        return RolloutGroup(
            task=request.task, rollouts=rollouts, scores=tuple(Score(value=r.metrics["correct"]) for r in rollouts)
        )


def test_the_demonstration_is_the_last_row_of_its_group():
    sampler = registry().build("sampler", "with_demonstration", {"base": {"use": "group", "count": 3}})

    groups = sampler.sample([Task(id="a", demonstration=("x",)), Task(id="b", demonstration=("y",))], Table())

    assert [[rollout.demonstration for rollout in group.rollouts] for group in groups] == [[False] * 3 + [True]] * 2
    assert all(group.scores == () for group in groups)  # the core scores the whole group


def test_a_task_without_a_demonstration_is_refused():
    sampler = registry().build("sampler", "with_demonstration", {})

    with pytest.raises(ValueError, match="task 'a' has no demonstration"):
        sampler.sample([Task(id="a")], Table())


def test_rollouts_are_compared_with_the_demonstration():
    reward = registry().build("reward", "versus_demonstration", {})
    sampler = registry().build("sampler", "with_demonstration", {"base": {"use": "group", "count": 2}})
    group = sampler.sample([Task(id="a", demonstration=("x",))], Table())[0]

    scores = reward.score(group)

    assert [score.value for score in scores] == [-1.0, -1.0, 0.0]
    assert [score.parts["base"] for score in scores] == [0.0, 0.0, 1.0]
    alone = replace(group, rollouts=group.rollouts[:2])
    assert [score.value for score in reward.score(alone)] == [0.0, 0.0]
    mild = registry().build("reward", "versus_demonstration", {"margin": 1.0})
    assert [score.value for score in mild.score(group)] == [0.0, 0.0, 0.0]


def test_the_contract_and_the_recipe():
    recipe = registry().describe("recipe", "grao").overlay

    assert registry().build("objective", "grao").couples is Couples.GROUPS
    for role in ("sampler", "advantage", "objective"):
        options = {key: value for key, value in recipe[role].items() if key != "use"}
        registry().build(role, recipe[role]["use"], options)
    batch, values = make_batch(*EVEN)
    with pytest.raises(ValueError, match="needs advantages"):
        loss_and_gradient(batch, values)


@pytest.mark.parametrize(
    ("role", "options"),
    [
        ("advantage", {"statistics": "all"}),
        ("objective", {"imitation_weight": -1}),
        ("objective", {"beta": 0.5}),
    ],
)
def test_bad_options_are_refused(role, options):
    with pytest.raises(ConfigError):
        registry().build(role, "grao", options)
