"""Baselines: relations between objectives, golden scores, needs that follow options, recipes that learn."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from orchestrator.api import (
    Action,
    Column,
    Component,
    ConfigError,
    Need,
    Reduction,
    Rollout,
    RolloutGroup,
    RolloutRequest,
    Score,
    Stop,
    Task,
    Turn,
    Weights,
    hookimpl,
    load_registry,
    reduce_terms,
)
from orchestrator.contract.plan import TrialSpec
from orchestrator.contract.settings import Settings
from orchestrator.runners.trial import run_spec
from orchestrator.testing import (
    EchoEnvironment,
    ScriptedPolicy,
    load_only,
    make_batch,
    make_outputs,
    objective_gradients,
)

REGISTRY = load_registry(["baselines"])
OLD_LOGPROB = Need(Weights.OLD, Column.LOGPROB)
OLD_VALUE = Need(Weights.OLD, Column.VALUE)
REFERENCE = Need(Weights.REFERENCE, Column.LOGPROB)
DOUBLE = torch.float64


def _objective(name, **options):
    return REGISTRY.build("objective", name, options)


def _on_policy(batch):
    """Outputs of a policy that has not moved, and the batch with its numbers as the old ones."""
    outputs = make_outputs(batch)
    old = {Need(Weights.OLD, c): v.detach() for c, v in outputs.columns(batch, {Column.LOGPROB, Column.VALUE}).items()}
    return replace(batch, columns={**batch.columns, **old}), outputs


# --- objectives -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", list(Reduction))
def test_the_first_clipped_step_is_reinforce_to_the_bit(reduction):
    batch, outputs = _on_policy(make_batch(dtype=DOUBLE))

    clipped = objective_gradients(_objective("clipped", reduction=reduction), batch, outputs)
    reinforce = objective_gradients(_objective("reinforce", reduction=reduction), batch, outputs)
    assert torch.equal(clipped["loss/logits"], reinforce["loss/logits"])


def test_without_bounds_clipped_is_importance_weighted_reinforce():
    batch = make_batch(needs={OLD_LOGPROB}, dtype=DOUBLE)
    outputs = make_outputs(batch)
    ratio = (outputs.columns(batch, {Column.LOGPROB})[Column.LOGPROB].detach() - batch.columns[OLD_LOGPROB]).exp()

    unclipped = _objective("clipped", clip_low=1e9, clip_high=1e9)
    weighted = replace(batch, advantages=batch.advantages * ratio)
    expected = objective_gradients(_objective("reinforce", reduction="token_mean"), weighted, outputs)
    assert_close(objective_gradients(unclipped, batch, outputs)["loss/logits"], expected["loss/logits"])


def test_unit_advantages_make_reinforce_supervised_training():
    batch = make_batch(dtype=DOUBLE)
    ones = replace(batch, advantages=batch.mask.to(DOUBLE))
    outputs = make_outputs(batch)

    reinforce = objective_gradients(_objective("reinforce", reduction="token_mean"), ones, outputs)
    supervised = objective_gradients(_objective("cross_entropy"), batch, outputs)
    assert torch.equal(reinforce["loss/logits"], supervised["loss/logits"])
    assert torch.equal(reinforce["loss"], supervised["loss"])


def test_clipped_terms_by_hand():
    # One row, two tokens. Ratios 2 and 1/2, advantages 1 and -1, clip 0.2: -1.2 and 0.8. KL to a reference half as
    # likely as the policy: k3 = 1/2 - 1 + log 2. Entropies 0.3 and 0.5. Critic 0.5 (x 0.5) of (1 - 3)^2 and (2 - 3)^2.
    half, log2 = 0.5, math.log(2)
    current = {
        Column.LOGPROB: torch.tensor([[-1.0, -1.0]], dtype=DOUBLE),
        Column.ENTROPY: torch.tensor([[0.3, 0.5]], dtype=DOUBLE),
        Column.VALUE: torch.tensor([[1.0, 2.0]], dtype=DOUBLE),
    }
    batch = replace(
        make_batch(sizes=(1,), lengths=(2,), prompt=0, turns=1, dtype=DOUBLE),
        columns={
            OLD_LOGPROB: torch.tensor([[-1 - log2, -1 + log2]], dtype=DOUBLE),
            REFERENCE: torch.tensor([[-1 - log2, -1 - log2]], dtype=DOUBLE),
        },
        advantages=torch.tensor([[1.0, -1.0]], dtype=DOUBLE),
        returns=torch.tensor([[3.0, 3.0]], dtype=DOUBLE),
    )
    objective = _objective("clipped", kl_weight=0.1, entropy_weight=0.01, value_weight=0.5)

    terms = objective.terms(batch, current)

    by_name = {term.name: (term.coefficient, term.values.flatten().tolist()) for term in terms.loss}
    assert by_name["policy"] == (1.0, pytest.approx([-1.2, 0.8]))
    assert by_name["kl"] == (0.1, pytest.approx([log2 - half] * 2))
    assert by_name["entropy"] == (-0.01, pytest.approx([0.3, 0.5]))
    assert by_name["value"] == (0.5, pytest.approx([2.0, 0.5]))
    expected = (-1.2 + 0.8) / 2 + 0.1 * (log2 - half) - 0.01 * 0.4 + 0.5 * 1.25
    assert reduce_terms(terms, batch).item() == pytest.approx(expected)
    means = {name: float(mean.total / mean.count) for name, mean in terms.metrics.items()}
    assert means == pytest.approx(
        {
            "train/clip_fraction": 1.0,
            "train/approx_kl": ((2 - 1 - log2) + (half - 1 + log2)) / 2,
            "train/kl_reference": log2 - half,
            "train/entropy": 0.4,
        }
    )


def test_needs_follow_the_options():
    plain = {Need(Weights.CURRENT, Column.LOGPROB), OLD_LOGPROB}
    value = Need(Weights.CURRENT, Column.VALUE)

    assert _objective("clipped").needs == plain
    assert _objective("clipped", kl_weight=0.1).needs == plain | {REFERENCE}
    assert _objective("clipped", entropy_weight=0.1).needs == plain | {Need(Weights.CURRENT, Column.ENTROPY)}
    assert _objective("clipped", value_weight=0.5).needs == plain | {value}
    assert _objective("clipped", value_weight=0.5, value_clip=0.2).needs == plain | {value, OLD_VALUE}
    assert _objective("reinforce").needs == {Need(Weights.CURRENT, Column.LOGPROB)}


def test_a_critic_without_targets_is_refused_with_the_remedy():
    batch = replace(make_batch(needs={OLD_LOGPROB}), returns=None)
    outputs = make_outputs(batch)
    objective = _objective("clipped", value_weight=0.5)

    with pytest.raises(ValueError, match="sets no returns for a critic; use one that does, such as gae"):
        objective.terms(batch, outputs.columns(batch, {Column.LOGPROB, Column.VALUE}))


def test_cross_entropy_on_demonstrations_ignores_the_other_rows():
    batch = make_batch(sizes=(3, 2), demonstrations=True, dtype=DOUBLE)
    outputs = make_outputs(batch)

    found = objective_gradients(_objective("cross_entropy", rows="demonstrations"), batch, outputs)

    logprobs = outputs.columns(batch, {Column.LOGPROB})[Column.LOGPROB].detach()
    expected = -logprobs[batch.demonstration][batch.mask[batch.demonstration]].mean()
    assert_close(found["loss"], expected)
    assert not found["loss/logits"][~batch.demonstration].any()
    assert found["loss/logits"][batch.demonstration].any()


@pytest.mark.parametrize("name", ["clipped", "reinforce"])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_no_kl_gradient_while_the_policy_is_its_reference_but_for_k1(name, estimator):
    batch, outputs = _on_policy(make_batch(dtype=DOUBLE))
    batch = replace(batch, advantages=torch.zeros_like(batch.returns))
    batch = replace(batch, columns={**batch.columns, REFERENCE: batch.columns[OLD_LOGPROB]})

    gradient = objective_gradients(_objective(name, kl_weight=1.0, kl_estimator=estimator), batch, outputs)
    assert bool(gradient["loss/logits"].any()) == (estimator == "k1")


# --- advantages -------------------------------------------------------------------------------------------


def _estimate(name, batch, **options):
    return REGISTRY.build("advantage", name, options).estimate(batch)


def test_group_estimators_give_each_row_one_number():
    batch = make_batch(sizes=(2, 1), rewards=(1.0, 0.0, 0.7), lengths=(2, 3, 1))

    mean, others = _estimate("group_mean", batch), _estimate("leave_one_out", batch)
    for row, (by_mean, by_others) in enumerate([(0.5, 1.0), (-0.5, -1.0), (0.7, 0.7)]):
        assert_close(mean.advantages[row][batch.mask[row]], torch.full((int(batch.mask[row].sum()),), by_mean))
        assert_close(others.advantages[row][batch.mask[row]], torch.full((int(batch.mask[row].sum()),), by_others))
    assert not mean.advantages[~batch.mask].any()


@given(st.integers(2, 6), st.integers(0, 1000))
def test_leave_one_out_is_group_mean_times_g_over_g_minus_one(size, seed):
    batch = make_batch(sizes=(size, size), dtype=DOUBLE, seed=seed)

    expected = _estimate("group_mean", batch).advantages * (size / (size - 1))
    assert torch.equal(_estimate("leave_one_out", batch).advantages, expected)


def test_gae_sets_targets_and_explains_variance():
    batch = make_batch(needs={OLD_VALUE}, dtype=DOUBLE)
    values = torch.where(batch.mask, batch.columns[OLD_VALUE], 0.0)

    credit = _estimate("gae", batch, gamma=1.0, lam=1.0)

    to_go = _estimate("reward_to_go", batch).advantages
    assert_close(credit.returns, to_go, atol=1e-12, rtol=0)
    assert_close(credit.advantages, torch.where(batch.mask, to_go - values, 0.0), atol=1e-12, rtol=0)
    targets, errors = to_go[batch.mask], (to_go - values)[batch.mask]
    expected = 1 - errors.var(correction=0) / targets.var(correction=0)
    assert credit.metrics["train/explained_variance"] == pytest.approx(float(expected))


def test_targets_that_vary_by_rounding_alone_have_no_variance_to_explain():
    batch = make_batch(needs={OLD_VALUE}, dtype=torch.float32)
    last = batch.mask & (batch.mask.flip(1).cumsum(1).flip(1) == 1)
    batch = replace(
        batch,
        turn_rewards=last.float(),
        columns={OLD_VALUE: 3 * torch.randn(batch.mask.shape, generator=torch.manual_seed(0))},
    )

    credit = _estimate("gae", batch, gamma=1.0, lam=1.0)

    assert len(credit.returns[batch.mask].unique()) > 1  # rounding
    assert credit.metrics["train/explained_variance"] == 0


def test_gae_goes_on_with_the_value_of_the_state_where_a_play_was_cut():
    # One token, paid 1, valued 2; the state it led to is worth 3: delta = 1 + 0.5 * 3 - 2, target 2.5.
    batch = make_batch(sizes=(1,), rewards=(1.0,), lengths=(1,), prompt=1, dtype=DOUBLE)
    cut = replace(
        batch,
        mask=torch.tensor([[False, True, False]]),
        turn_rewards=torch.tensor([[0.0, 1.0, 0.0]], dtype=DOUBLE),
        columns={OLD_VALUE: torch.tensor([[9.0, 2.0, 3.0]], dtype=DOUBLE)},
        bootstrap=torch.tensor([[False, False, True]]),
    )

    credit = _estimate("gae", cut, gamma=0.5, lam=0.9)
    assert (credit.advantages.tolist(), credit.returns.tolist()) == ([[0, 0.5, 0]], [[0, 2.5, 0]])


def test_whitening_changes_advantages_and_leaves_targets():
    batch = make_batch(needs={OLD_VALUE}, dtype=DOUBLE)

    plain, white = _estimate("gae", batch), _estimate("gae", batch, whiten=True)

    assert torch.equal(plain.returns, white.returns)
    assert white.advantages[batch.mask].mean().item() == pytest.approx(0, abs=1e-12)
    assert white.advantages[batch.mask].std().item() == pytest.approx(1, abs=1e-5)


# --- rewards ----------------------------------------------------------------------------------------------


def _rollout(text="a", rewards=(0.0,), metrics=None, stop=Stop.DONE):
    action = Action(tokens=(1,), logprobs=(0.0,), text=text)
    turns = tuple(Turn(observation=(), action=action, reward=reward) for reward in rewards)
    return Rollout(task_id="t", index=0, seed=0, turns=turns, metrics=metrics or {}, stop=stop)


def _scores(name, *rollouts, reference="42", **options):
    reward = REGISTRY.build("reward", name, options)
    return list(reward.score(RolloutGroup(task=Task(id="t", reference=reference), rollouts=rollouts)))


def test_exact_believes_the_episode_before_the_text():
    scores = _scores(
        "exact",
        _rollout(" 42\n"),
        _rollout("41"),
        _rollout(None),
        _rollout("41", metrics={"correct": 1.0}),
        _rollout("42", metrics={"correct": 0.0}),
        _rollout(rewards=()),
    )

    assert [score.value for score in scores] == [1, 0, 0, 1, 0, 0]


def test_exact_without_any_judge_is_refused_but_a_cut_play_is_wrong():
    assert _scores("exact", _rollout(stop=Stop.TURNS), reference=None)[0].value == 0
    with pytest.raises(ValueError, match="no reference and its episode gave no metric `correct`"):
        _scores("exact", _rollout(), reference=None)


def test_environment_keeps_rewards_by_turn():
    assert _scores("environment", _rollout(rewards=(0.25, -1.0, 2.0))) == [Score(value=1.25, turns=(0.25, -1.0, 2.0))]


def test_combined_weighs_places_and_names_its_parts():
    rewards = [
        {"use": "exact", "weight": 2.0},
        {"use": "environment", "weight": 0.5},
        {"use": "exact", "weight": -1.0},
    ]

    score = _scores("combined", _rollout("42", rewards=(1.0, 3.0)), rewards=rewards)[0]

    assert score.value == 2 + 0.5 * 4 - 1
    assert score.turns == (0.5, 1.5 + 2 - 1)
    assert score.parts == {"exact": 1.0, "environment": 4.0, "exact_2": 1.0}


def test_combined_averages_comparisons_by_weight():
    from orchestrator_plugins.baselines.rewards import Combined

    class Compares:
        def __init__(self, *chances):
            self._chances = chances

        def score(self, group):
            return [Score(value=sum(row) / 2, against=row) for row in self._chances]

    combined = Combined([("a", 1.0, Compares((0.5, 1.0), (0.0, 0.5))), ("b", 3.0, Compares((0.5, 0.2), (0.8, 0.5)))])
    scores = combined.score(RolloutGroup(task=Task(id="t"), rollouts=(_rollout(), _rollout())))

    assert scores[0].against == pytest.approx((0.5, 0.4))
    assert scores[1].against == pytest.approx((0.6, 0.5))


def test_combined_refuses_a_part_that_scores_too_few():
    from orchestrator_plugins.baselines.rewards import Combined

    class Lazy:
        def score(self, group):
            return [Score(value=1.0)]

    with pytest.raises(ValueError, match="reward 'lazy' gave 1 scores for the 2 rollouts"):
        Combined([("lazy", 1.0, Lazy())]).score(RolloutGroup(task=Task(id="t"), rollouts=(_rollout(), _rollout())))


def test_a_misspelt_part_is_refused_where_the_user_wrote_it():
    with pytest.raises(ConfigError, match=r"reward\.rewards\.0\.use: no reward 'exakt'; did you mean 'exact'\?"):
        REGISTRY.build("reward", "combined", {"rewards": [{"use": "exakt"}]})


# --- samplers ---------------------------------------------------------------------------------------------


def _requests(name, tasks, **options):
    seen = []
    REGISTRY.build("sampler", name, options).sample(tasks, lambda requests: seen.extend(requests) or [])
    return seen


def test_group_asks_once_for_the_same_number_of_each():
    tasks = [Task(id="a"), Task(id="b")]

    assert _requests("group", tasks) == [RolloutRequest(task=task, count=8) for task in tasks]
    assert [request.count for request in _requests("group", tasks, count=3)] == [3, 3]


def test_demonstrations_are_played_and_must_exist():
    task = Task(id="a", demonstration=("42",))

    assert _requests("demonstrations", [task]) == [RolloutRequest(task=task, count=1, demonstrate=True)]
    with pytest.raises(ValueError, match="task 'b' has no demonstration"):
        _requests("demonstrations", [task, Task(id="b")])


# --- recipes ----------------------------------------------------------------------------------------------

RIGHT, WRONG = "ab", "xy"


class _World:
    """One word to say and a policy that says it every other time."""

    policies: list[ScriptedPolicy]

    def __init__(self):
        self.policies = []

    @hookimpl
    def provide_environments(self):
        return [Component(name="echo", build=lambda _: EchoEnvironment((RIGHT,)))]

    @hookimpl
    def provide_policies(self):
        return [Component(name="scripted", build=self._policy)]

    def _policy(self, _):
        self.policies.append(ScriptedPolicy((RIGHT, WRONG, WRONG)))
        return self.policies[-1]


def _preference(policy):
    """Log-probability of the right word less that of the wrong one, and of the right word alone, after the prompt."""
    said = []
    for text in (RIGHT, WRONG):
        tokens = torch.tensor([[ord("\n"), *policy.encode([text])[0]]])
        inputs = {"tokens": tokens, "temperature": torch.ones(1)}
        columns = policy.columns(inputs, frozenset({Column.LOGPROB}))
        said.append(columns[Column.LOGPROB][0, 1:].sum().item())
    return said[0] - said[1], said[0]


@pytest.mark.parametrize("name", ["dapo", "dr_grpo", "grpo", "ppo", "reinforce", "rloo", "sft"])
def test_recipe_learns_to_say_the_right_word(name, tmp_path):
    import orchestrator_plugins.baselines

    from orchestrator.experiment.overlay import merge

    world = _World()
    registry = load_only(orchestrator_plugins.baselines, world)
    base = {
        "name": "recipe",
        "environment": {"use": "echo"},
        "policy": {"use": "scripted"},
        "schedule": {"steps": 4, "tasks_per_step": 3},
        "optimizer": {"lr": 0.02},
        "evaluation": {"every": 0, "tasks": 1, "samples": 1, "first": False},
        "checkpoints": {"every": 0},
    }
    config = merge(registry.describe("recipe", name).overlay, base)
    before = _preference(ScriptedPolicy())

    result = run_spec(
        TrialSpec(id="t", arm="a", seed=0, settings=Settings.model_validate(config)), tmp_path, registry=registry
    )

    after = _preference(world.policies[-1])
    assert (result.status, result.step, result.error) == ("done", 4, None)
    assert after[0] > before[0] + 0.1
    if name == "sft":
        assert after[1] > before[1] + 0.1
    assert math.isfinite(result.metrics["loss/policy"])


def test_recipes_say_what_their_papers_say():
    overlays = {name: REGISTRY.describe("recipe", name).overlay for name in REGISTRY.names("recipe")}

    assert {name: o["objective"]["reduction"] for name, o in overlays.items()} == {
        "dapo": "token_mean",
        "dr_grpo": "constant",
        "grpo": "sequence_mean",
        "ppo": "token_mean",
        "reinforce": "sequence_sum",
        "rloo": "sequence_sum",
        "sft": "token_mean",
    }
    assert [overlays[n]["advantage"]["standardise"] for n in ("grpo", "dapo", "dr_grpo")] == [True, True, False]
    assert (overlays["dapo"]["objective"]["clip_low"], overlays["dapo"]["objective"]["clip_high"]) == (0.2, 0.28)
    assert overlays["dapo"]["update"] == {"drop_constant_groups": True}
    for overlay in overlays.values():
        for role in ("sampler", "advantage", "objective"):
            if role in overlay:
                options = {key: value for key, value in overlay[role].items() if key != "use"}
                assert REGISTRY.problems(role, overlay[role]["use"], options, role) == []
