"""The policy ``mlp``: sampling, packing, columns, and acting that does not depend on the company."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins.mlp.config import MlpConfig
from orchestrator_plugins.mlp.policy import MlpPolicy
from orchestrator_plugins.mlp.sampling import draw, log_softmax, truncate, uniforms
from safetensors.torch import load_file, save_file

from orchestrator.api import (
    Action,
    Batch,
    Column,
    ConfigError,
    Context,
    Features,
    Need,
    Policy,
    Prepares,
    Rollout,
    Sampling,
    Stop,
    Turn,
    Weights,
    load_registry,
)

EVERYTHING = frozenset(Column)
WORLD = SimpleNamespace(features=3, actions=4)


def make_policy(wanted=EVERYTHING, **options) -> MlpPolicy:
    policy = MlpPolicy(MlpConfig(**{"hidden": (8, 8), "seed": 3, "init": "torch", **options}))
    policy.prepare(WORLD, wanted)
    return policy


def context(values, seed=0, legal=(True,) * 4) -> Context:
    features = Features(values=np.array(values, np.float32), legal=np.array(legal))
    return Context(episode="e", agent=None, observations=(features,), actions=(), seed=seed)


def play(length: int, *, cut=False, generator=None, temperature=1.0) -> Rollout:
    generator = generator or np.random.default_rng(length)

    def state():
        legal = generator.random(4) < 0.7
        legal[0] = True
        return Features(values=generator.normal(size=3).astype(np.float32), legal=legal)

    turns = tuple(
        Turn(observation=state(), action=Action(tokens=(0,), logprobs=(-0.5,)), step=2 * i) for i in range(length)
    )
    return Rollout(
        task_id="t",
        index=0,
        seed=0,
        turns=turns,
        stop=Stop.TURNS if cut else Stop.DONE,
        cut_at=state() if cut else None,
        sampling=Sampling(temperature=temperature),
    )


def test_it_fills_the_role():
    policy = make_policy()

    assert isinstance(policy, Policy)
    assert isinstance(policy, Prepares)


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=20))
def test_uniforms_belong_to_their_seed_alone(seeds):
    together = uniforms(seeds)

    assert together.tolist() == [uniforms([seed])[0] for seed in seeds]
    assert ((together > 0) & (together < 1)).all()


def test_uniforms_of_consecutive_seeds_look_independent():
    drawn = uniforms(range(20_000))

    assert abs(drawn.mean() - 0.5) < 4 / math.sqrt(12 * 20_000)
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 4 / math.sqrt(20_000)


def test_frequencies_follow_the_distribution():
    probabilities = np.array([0.5, 0.2, 0.0, 0.3])
    with np.errstate(divide="ignore"):
        logprobs = np.repeat(np.log(probabilities)[None], 20_000, axis=0)

    counts = np.bincount(draw(logprobs, range(20_000)), minlength=4) / 20_000

    assert counts[2] == 0
    assert np.abs(counts - probabilities).max() < 4 * math.sqrt(0.25 / 20_000)


def test_truncation_keeps_the_smallest_nucleus():
    logprobs = np.log(np.array([[0.1, 0.4, 0.3, 0.2]] * 4))
    legal = np.ones_like(logprobs, dtype=bool)

    kept = truncate(logprobs, legal, np.array([0, 0, 2, 1]), np.array([1.0, 0.6, 1.0, 1.0]))

    assert kept.tolist() == [
        [True, True, True, True],
        [False, True, True, False],  # 0.4 is less than 0.6, 0.4 + 0.3 is enough
        [False, True, True, False],
        [False, True, False, False],
    ]


@given(st.lists(st.booleans(), min_size=4, max_size=4).filter(any), st.integers(0, 2**62))
def test_an_illegal_action_is_never_taken(legal, seed):
    policy = make_policy()

    (action,) = policy.act([context((9, -9, 3), seed, legal)], [Sampling()])

    assert legal[action.tokens[0]]
    assert action.logprobs[0] > -100


def test_acting_does_not_depend_on_the_company():
    policy = make_policy()
    generator = np.random.default_rng(0)
    contexts = [context(generator.normal(size=3), seed) for seed in range(32)]

    together = policy.act(contexts, [Sampling()] * 32)
    alone = [policy.act([one], [Sampling()])[0] for one in contexts]

    assert [a.tokens for a in together] == [a.tokens for a in alone]
    np.testing.assert_allclose([a.logprobs[0] for a in together], [a.logprobs[0] for a in alone], atol=1e-6)


def test_recorded_logprobs_are_those_of_the_columns():
    policy = make_policy()
    contexts = [context((i, 1, -i), seed=i, legal=(True, i % 2 == 0, True, True)) for i in range(8)]
    sampling = Sampling(temperature=0.7)
    actions = policy.act(contexts, [sampling] * 8)
    rollouts = [
        Rollout(
            task_id="t",
            index=i,
            seed=0,
            turns=(Turn(observation=c.observations[0], action=a),),
            sampling=sampling,
        )
        for i, (c, a) in enumerate(zip(contexts, actions, strict=True))
    ]

    packed = policy.pack(rollouts)
    columns = policy.columns(packed.inputs, frozenset({Column.LOGPROB}))

    torch.testing.assert_close(columns[Column.LOGPROB], packed.behaviour_logprobs, atol=1e-5, rtol=0)


def test_greedy_takes_the_likeliest_and_records_the_untempered_logprob():
    policy = make_policy()
    one = context((1, 2, 3))
    logits = policy.module.logits(torch.tensor([[1.0, 2.0, 3.0]]))[0]

    (action,) = policy.act([one], [Sampling(temperature=0)])

    assert action.tokens == (int(logits.argmax()),)
    assert action.logprobs[0] == pytest.approx(torch.log_softmax(logits, 0).max().item(), abs=1e-6)


def test_truncation_is_recorded_apart():
    policy = make_policy()

    (action,) = policy.act([context((1, 2, 3))], [Sampling(top_k=1)])

    assert action.sampled_logprobs == (0.0,)
    assert action.logprobs[0] < 0


def test_pack_lays_plays_out_and_keeps_the_state_of_the_cut():
    policy = make_policy()
    rollouts = [play(2), play(3, cut=True), play(1, temperature=0.5)]

    packed = policy.pack(rollouts)

    assert packed.mask.tolist() == [[True, True, False, False], [True, True, True, False], [True, False, False, False]]
    assert packed.turn.tolist() == [[0, 2, -1, -1], [0, 2, 4, -1], [0, -1, -1, -1]]
    assert packed.bootstrap.nonzero().tolist() == [[1, 3]]
    assert packed.inputs["temperature"].tolist() == [1.0, 1.0, 0.5]
    np.testing.assert_array_equal(packed.inputs["features"][1, 3].numpy(), rollouts[1].cut_at.values)
    np.testing.assert_array_equal(packed.inputs["legal"][1, 3].numpy(), rollouts[1].cut_at.legal)
    assert not packed.inputs["legal"][2, 1:].any()
    assert packed.behaviour_logprobs.sum().item() == pytest.approx(-0.5 * 6)


def test_pack_without_a_cut_has_nothing_to_bootstrap():
    assert make_policy().pack([play(2)]).bootstrap is None


def test_columns_do_not_depend_on_padding():
    policy = make_policy()
    short, long = play(2), play(7)

    alone = policy.columns(policy.pack([short]).inputs, EVERYTHING)
    together = policy.columns(policy.pack([short, long]).inputs, EVERYTHING)

    for column in EVERYTHING:
        torch.testing.assert_close(together[column][0, :2], alone[column][0], atol=1e-6, rtol=1e-6)
        assert (together[column][0, 2:] == 0).all()


def test_columns_by_hand():
    policy = make_policy()
    rollout = play(1)
    packed = policy.pack([rollout])
    legal = packed.inputs["legal"][0, 0]
    logits = policy.module.logits(packed.inputs["features"][0, 0])[legal]
    logprobs = torch.log_softmax(logits, 0)

    columns = policy.columns(packed.inputs, EVERYTHING)

    assert columns[Column.LOGPROB][0, 0].item() == pytest.approx(logprobs[0].item(), abs=1e-6)
    assert columns[Column.ENTROPY][0, 0].item() == pytest.approx(-(logprobs.exp() * logprobs).sum().item(), abs=1e-6)
    assert columns[Column.VOCAB_MEAN_LOGPROB][0, 0].item() == pytest.approx(logprobs.mean().item(), abs=1e-6)
    torch.testing.assert_close(columns[Column.LOGITS][0, 0][legal], logits)
    assert (columns[Column.LOGITS][0, 0][~legal] == -1e9).all()


def test_gradients_are_finite_where_actions_are_illegal():
    policy = make_policy(hidden=())
    columns = policy.columns(policy.pack([play(3), play(5)]).inputs, EVERYTHING - {Column.LOGITS})

    sum(column.sum() for column in columns.values()).backward()

    for name, parameter in policy.module.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize(("critic", "shared"), [("head", True), ("separate", False)])
def test_a_value_loss_reaches_the_actor_only_through_a_shared_body(critic, shared):
    policy = make_policy(critic=critic)

    policy.columns(policy.pack([play(3)]).inputs, frozenset({Column.VALUE}))[Column.VALUE].sum().backward()

    assert (policy.module.body[0].weight.grad is not None) == shared
    assert policy.module.actor.weight.grad is None
    assert all(p.grad is not None for n, p in policy.module.named_parameters() if n.startswith("critic"))


def test_no_critic_is_made_when_nobody_wants_values():
    policy = make_policy(wanted=frozenset({Column.LOGPROB}))

    assert not [name for name, _ in policy.module.named_parameters() if "critic" in name]
    with pytest.raises(RuntimeError, match="without a critic"):
        policy.columns(policy.pack([play(1)]).inputs, frozenset({Column.VALUE}))


def test_refusing_a_critic_is_an_error_when_values_are_wanted():
    with pytest.raises(ConfigError, match=r"policy\.critic: .*head or separate"):
        make_policy(critic="none")


def test_an_environment_without_sizes_is_refused():
    with pytest.raises(ConfigError, match="has no 'features'"):
        MlpPolicy(MlpConfig()).prepare(SimpleNamespace(actions=2), frozenset())


def test_acting_before_prepare_says_what_to_do():
    with pytest.raises(RuntimeError, match="call prepare"):
        MlpPolicy(MlpConfig()).act([context((1, 2, 3))], [Sampling()])


def test_no_legal_action_is_an_error():
    with pytest.raises(ValueError, match="offers no legal action"):
        make_policy().act([context((1, 2, 3), legal=(False,) * 4)], [Sampling()])


def test_the_acting_weights_follow_on_refresh_only():
    policy = make_policy()
    before = policy.act([context((1, 2, 3))], [Sampling()])

    with torch.no_grad():
        policy.module.actor.bias += torch.tensor([50.0, 0, 0, 0])
    stale = policy.act([context((1, 2, 3))], [Sampling()])
    policy.refresh()
    fresh = policy.act([context((1, 2, 3))], [Sampling()])

    assert stale == before
    assert fresh[0].tokens == (0,)


def test_orthogonal_weights_have_their_gains():
    policy = make_policy(init="orthogonal", critic="separate")
    hidden, last = policy.module.body[2].weight, policy.module.actor.weight

    torch.testing.assert_close(hidden @ hidden.T, 2 * torch.eye(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(last @ last.T, 1e-4 * torch.eye(4), atol=1e-8, rtol=0)
    assert policy.module.critic[-1].weight.norm().item() == pytest.approx(1)


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)

    first, second = make_policy(seed=5), make_policy(seed=5)

    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first.module.actor.weight, second.module.actor.weight)
    assert not torch.equal(first.module.actor.weight, make_policy(seed=6).module.actor.weight)


def test_weights_survive_safetensors(tmp_path):
    policy, other = make_policy(seed=1), make_policy(seed=2)
    save_file(policy.module.state_dict(), tmp_path / "model.safetensors")

    other.module.load_state_dict(load_file(tmp_path / "model.safetensors"))
    other.refresh()

    contexts = [context((i, 0, 1), seed=i) for i in range(10)]
    assert other.act(contexts, [Sampling()] * 10) == policy.act(contexts, [Sampling()] * 10)


def test_encode_reads_indices_and_refuses_the_rest():
    policy = make_policy()

    assert policy.encode(["3", "0"]) == [(3,), (0,)]
    with pytest.raises(ValueError, match="index from 0 to 3"):
        policy.encode(["4"])
    with pytest.raises(ValueError, match="'left'"):
        policy.encode(["left"])


def test_log_softmax_over_legal_actions_sums_to_one():
    logits, legal = np.array([[3.0, 900.0, -2.0]], np.float32), np.array([[True, False, True]])

    assert np.exp(log_softmax(logits, legal)).sum() == pytest.approx(1)
    assert np.exp(log_softmax(logits, legal))[0, 1] == 0


def test_gae_values_the_state_a_play_was_cut_off_at():
    registry = load_registry(["baselines"])
    gae = registry.build("advantage", "gae", {"gamma": 0.9, "lam": 0.5, "whiten": False})
    mask = torch.tensor([[True, True, False], [True, True, False]])
    values = torch.tensor([[1.0, 2.0, 10.0], [1.0, 2.0, 10.0]])
    batch = Batch(
        inputs={},
        mask=mask,
        behaviour_logprobs=torch.zeros(2, 3),
        rewards=torch.full((2,), 2.0),
        turn_rewards=torch.tensor([[1.0, 1.0, 0.0]] * 2),
        group=torch.arange(2),
        turn=torch.tensor([[0, 1, -1]] * 2),
        demonstration=torch.zeros(2, dtype=torch.bool),
        columns={Need(Weights.OLD, Column.VALUE): values},
        bootstrap=torch.tensor([[False, False, True], [False, False, False]]),
    )

    credit = gae.estimate(batch)

    # Cut: delta_1 = 1 + 0.9 * 10 - 2 = 8, delta_0 = 1 + 0.9 * 2 - 1 = 1.8. Finished: delta_1 = 1 - 2 = -1.
    expected = torch.tensor([[1.8 + 0.45 * 8, 8.0, 0.0], [1.8 - 0.45, -1.0, 0.0]])
    torch.testing.assert_close(credit.advantages, expected)
    torch.testing.assert_close(credit.returns, torch.where(mask, expected + values, 0.0))
