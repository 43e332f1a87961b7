"""APO: the extrapolation by hand, the theory behind it, weights and adapters, the objective."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins.apo.extrapolation import extrapolated, extrapolated_adapter
from orchestrator_plugins.apo.objective import Apo

from orchestrator.api import (
    Batch,
    BetweenRounds,
    Column,
    ConfigError,
    Need,
    ScalesGradient,
    Stateful,
    Weights,
    load_registry,
    reduce_terms,
)
from orchestrator.testing import check_component, make_batch, make_outputs, objective_gradients


@cache
def registry():
    return load_registry(["apo", "preferences", "sppo", "baselines", "causal_lm", "countdown"])


def beyond(trained, previous, momentum):
    """Extrapolate one tensor, float64."""
    return extrapolated(
        {"w": torch.as_tensor(trained, dtype=torch.float64)},
        {"w": torch.as_tensor(previous, dtype=torch.float64)},
        momentum,
    )["w"]


def play_rounds(reference, rewards_by_round, weight, momentum):
    """Exact rounds of a tabular policy: (hats, starts) as probabilities, from the extrapolation of logits."""
    start = previous = torch.as_tensor(reference, dtype=torch.float64).log()
    hats, starts = [], []
    for rewards in rewards_by_round:
        hat = (start + torch.as_tensor(rewards, dtype=torch.float64) / weight).log_softmax(-1)
        start = beyond(hat, previous, momentum).log_softmax(-1)
        previous = hat
        hats.append(hat.exp())
        starts.append(start.exp())
    return hats, starts


def gamma(momentum, rounds):
    """Sum of the closed form's weights after ``rounds`` + 1 rounds."""
    return (
        (rounds + 1) / (1 - momentum) - momentum / (1 - momentum) ** 2 + momentum ** (rounds + 2) / (1 - momentum) ** 2
    )


def weights_of(momentum, rounds):
    return [(1 - momentum ** (rounds + 1 - i)) / (1 - momentum) for i in range(rounds + 1)]


# --- numbers ----------------------------------------------------------------------------------------------


def test_a_policy_is_extrapolated_in_log_space():
    start = beyond(np.log([0.5, 0.3, 0.2]), np.log([0.4, 0.4, 0.2]), 0.5).softmax(0)

    assert start.tolist() == pytest.approx([0.5486881509, 0.2550072085, 0.1963046406], abs=1e-10)


def test_three_rounds_by_hand():
    hats, starts = play_rounds([0.25, 0.25, 0.5], [[1, 0.5, 0]] * 3, weight=1.0, momentum=0.5)

    assert [gamma(0.5, t) for t in range(3)] == [1, 2.5, 4.25]
    assert starts[0].tolist() == pytest.approx([0.5212060844, 0.2462003214, 0.2325935942], abs=1e-10)
    assert [hat.tolist() for hat in hats] == [
        pytest.approx([0.4269327007, 0.2589477726, 0.3141195267], abs=1e-10),
        pytest.approx([0.6893343733, 0.1974976046, 0.1131680222], abs=1e-10),
        pytest.approx([0.8711094019, 0.1040391816, 0.0248514165], abs=1e-10),
    ]
    gap = 1 - float(hats[2] @ torch.tensor([1, 0.5, 0], dtype=torch.float64))
    assert gap == pytest.approx(0.0768710073, abs=1e-10)
    assert gap <= math.log(4) / 4.25 == pytest.approx(0.3261869085, abs=1e-10)
    assert 1 - hats[2][0].item() == pytest.approx(0.1288905981, abs=1e-10)
    assert 0.1288905981 <= 3 * math.exp(-4.25 * 0.5) == pytest.approx(0.3582989048, abs=1e-10)


def test_the_closed_forms_weights_by_hand():
    assert weights_of(0.3, 3) == pytest.approx([1.417, 1.39, 1.3, 1.0])
    assert gamma(0.3, 3) == pytest.approx(5.107)


@pytest.mark.parametrize(
    ("base", "momentum", "expected"),
    [("dpo", 0.3, 0.6886573055), ("dpo", 0.0, 0.6782596763), ("ipo", 0.3, 0.982081)],
)
def test_the_reference_of_a_pair_may_be_extrapolated_itself(base, momentum, expected):
    reference = beyond([-1.0, -2.0], [-1.4, -1.7], momentum)
    options = {"use": base, "kl_weight": 0.1, **({"margin": 1.0} if base == "ipo" else {})}

    if momentum:
        assert reference.tolist() == pytest.approx([-0.88, -2.09])
    assert loss_of_pair(options, reference, (-0.9, -2.2)) == pytest.approx(expected, abs=1e-10)


def loss_of_pair(base, reference, logprobs):
    mask = torch.ones(2, 1, dtype=torch.bool)
    rewards = torch.tensor([1.0, 0.0], dtype=torch.float64)
    batch = Batch(
        inputs={},
        mask=mask,
        behaviour_logprobs=torch.zeros(2, 1, dtype=torch.float64),
        rewards=rewards,
        turn_rewards=rewards[:, None],
        group=torch.zeros(2, dtype=torch.int64),
        turn=torch.zeros(2, 1, dtype=torch.int64),
        demonstration=torch.zeros(2, dtype=torch.bool),
        columns={Need(Weights.REFERENCE, Column.LOGPROB): reference[:, None]},
    )
    objective = registry().build("objective", "apo", {"base": base})
    current = {Column.LOGPROB: torch.as_tensor(logprobs, dtype=torch.float64)[:, None]}
    return reduce_terms(objective.terms(batch, current), batch).item()


@pytest.mark.parametrize(
    ("momentum", "after_10", "after_30"), [(0, 0.156, 2.6e-3), (0.3, 0.075, 2.2e-4), (0.6, 0.0156, 6.5e-7)]
)
def test_a_dominant_response_wins_sooner_with_momentum(momentum, after_10, after_30):
    game = torch.tensor([[0.5, 0.7, 0.8], [0.3, 0.5, 0.6], [0.2, 0.4, 0.5]], dtype=torch.float64)
    start = previous = torch.full((3,), 1 / 3, dtype=torch.float64).log()
    missing = {}
    for rounds in range(1, 31):
        hat = (start + game @ start.exp()).log_softmax(0)
        start, previous = beyond(hat, previous, momentum).log_softmax(0), hat
        missing[rounds] = 1 - hat[0].exp().item()

    assert missing[10] == pytest.approx(after_10, rel=0.02)
    assert missing[30] == pytest.approx(after_30, rel=0.03)


def test_momentum_does_not_help_the_last_policy_of_a_cyclic_game():
    game = torch.tensor([[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]], dtype=torch.float64)
    reference = torch.tensor([0.4, 0.3, 0.3], dtype=torch.float64)

    def gap(logprobs):
        policy = logprobs.exp()
        return ((game @ policy).max() - (policy @ game).min()).item()

    gaps = {}
    for momentum in (0.0, 0.3, 0.6):
        start = previous = reference.log()
        gaps[momentum] = [gap(start)]
        for rounds in range(1, 61):
            hat = (start + 0.3 * game @ start.exp()).log_softmax(0)
            start, previous = beyond(hat, previous, momentum).log_softmax(0), hat
            gaps[momentum] += [gap(hat)] if rounds in (20, 60) else []

    assert gaps[0.0] == pytest.approx([0.10, 0.079, 0.122], abs=5e-4)
    assert gaps[0.3] == pytest.approx([0.10, 0.131, 0.166], abs=5e-4)
    assert gaps[0.6] == pytest.approx([0.10, 0.115, 0.730], abs=5e-4)


def fifty_arms():
    return torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    ("momentum", "gaps", "below_02", "below_005"),
    [
        (0.0, [0.4196, 0.2173, 0.0400, 0.0017], 31, 64),
        (0.3, [0.4196, 0.1705, 0.0234, 0.0006], 22, 46),
        (0.6, [0.4196, 0.1193, 0.0095, 0.0], 14, 28),
        (0.9, [0.4196, 0.0737, 0.0010, 0.0], 9, 14),
    ],
)
def test_rounds_needed_shrink_with_momentum(momentum, gaps, below_02, below_005):
    rewards = fifty_arms()

    hats, _ = play_rounds(torch.full((50,), 1 / 50), [rewards] * 100, 1.0, momentum)

    found = [(rewards.max() - hat @ rewards).item() for hat in hats]
    assert [found[rounds - 1] for rounds in (1, 5, 20, 100)] == pytest.approx(gaps, abs=5e-5)
    assert 1 + next(place for place, gap in enumerate(found) if gap < 0.02) == below_02
    assert 1 + next(place for place, gap in enumerate(found) if gap < 0.005) == below_005


def test_momentum_trades_bias_for_noise():
    """Fewer labels a round, noisier rewards: from hurting over an optimum in between to helping all the way."""
    rewards, generators = fifty_arms(), [torch.Generator().manual_seed(seed) for seed in range(200)]
    draw = [[torch.randn(50, generator=g, dtype=torch.float64) for g in generators] for _ in range(11)]
    noise = [torch.stack(row) for row in draw]

    found = {}
    for labels in (10, 100, 1000, 10**5):
        seen = [rewards + math.sqrt(50 / labels) * row for row in noise]
        for momentum in (0.0, 0.3, 0.6, 0.9):
            hats, _ = play_rounds(torch.full((200, 50), 1 / 50), seen, 1.0, momentum)
            found.setdefault(labels, []).append((rewards.max() - hats[-1] @ rewards).mean().item())

    assert found[10] == pytest.approx([0.289, 0.296, 0.305, 0.319], abs=5.1e-4)
    assert found[100] == pytest.approx([0.132, 0.119, 0.111, 0.113], abs=5.1e-4)
    assert found[1000] == pytest.approx([0.097, 0.068, 0.046, 0.036], abs=5.1e-4)
    assert found[10**5] == pytest.approx([0.093, 0.061, 0.031, 0.009], abs=5.1e-4)


# --- theory -----------------------------------------------------------------------------------------------

momenta = st.floats(0, 0.9)


@given(st.integers(0, 10**6), momenta, st.integers(1, 6), st.floats(0.2, 3))
def test_exact_rounds_follow_the_closed_form(seed, momentum, rounds, weight):
    random = np.random.default_rng(seed)
    reference, rewards = random.dirichlet(np.ones(4)), random.normal(size=(rounds, 4))

    hats, _ = play_rounds(reference, rewards, weight, momentum)

    expected = np.log(reference) + np.array(weights_of(momentum, rounds - 1)) @ rewards / weight
    expected = np.exp(expected - expected.max())
    np.testing.assert_allclose(hats[-1], expected / expected.sum(), atol=1e-9)


@given(momenta, st.integers(0, 30))
def test_the_weights_have_their_sum_and_grow(momentum, rounds):
    assert gamma(momentum, rounds) == pytest.approx(sum(weights_of(momentum, rounds)), rel=1e-9)
    assert gamma(momentum, 0) == pytest.approx(1, abs=1e-9)
    assert gamma(momentum, rounds + 1) > gamma(momentum, rounds)
    assert gamma(min(momentum + 0.05, 0.95), rounds + 1) > gamma(momentum, rounds + 1)


@given(st.integers(0, 10**6), momenta, st.integers(1, 8))
def test_gap_and_distance_keep_their_bounds(seed, momentum, rounds):
    random = np.random.default_rng(seed)
    reference, rewards = random.dirichlet(np.ones(5)), random.random(5)

    hats, _ = play_rounds(reference, [rewards] * rounds, 1.0, momentum)

    best, total = rewards.argmax(), gamma(momentum, rounds - 1)
    margin = rewards.max() - np.delete(rewards, best).max()
    assert rewards.max() - hats[-1].numpy() @ rewards <= math.log(1 / reference[best]) / total + 1e-12
    assert 1 - hats[-1][best] <= (1 / reference[best] - 1) * math.exp(-total * margin) + 1e-12


@given(st.integers(0, 10**6), momenta, st.integers(1, 8))
def test_a_dominant_response_gains_at_least_its_margin_every_round(seed, momentum, rounds):
    random = np.random.default_rng(seed)
    above = np.triu(random.random((4, 4)), 1)
    game = above + np.tril(1 - above.T, -1) + 0.5 * np.eye(4)
    game[0, 1:], game[1:, 0] = 0.95, 0.05
    game[1:, 1:] = 0.5 + 0.3 * (game[1:, 1:] - 0.5)
    margin = (game[0] - game[1:]).min()
    start = previous = torch.from_numpy(np.log(reference := random.dirichlet(np.ones(4))))
    for _ in range(rounds):
        hat = (start + torch.from_numpy(game) @ start.exp()).log_softmax(0)
        start, previous = beyond(hat, previous, momentum).log_softmax(0), hat

    gained = (hat[0] - hat[1:]).numpy() - (np.log(reference[0]) - np.log(reference[1:]))
    assert margin > 0
    assert (gained >= gamma(momentum, rounds - 1) * margin - 1e-9).all()


@given(st.integers(0, 10**6), st.integers(2, 6))
def test_without_noise_more_momentum_is_nearer_after_the_first_round(seed, rounds):
    rewards = np.random.default_rng(seed).random(6)

    gaps = []
    for momentum in (0.0, 0.3, 0.6, 0.9):
        hats, _ = play_rounds(np.full(6, 1 / 6), [rewards] * rounds, 1.0, momentum)
        gaps.append(rewards.max() - hats[-1].numpy() @ rewards)
        np.testing.assert_allclose(hats[0], play_rounds(np.full(6, 1 / 6), [rewards], 1.0, 0.0)[0][0], atol=1e-12)

    assert gaps == sorted(gaps, reverse=True)
    assert len(set(gaps)) == 4


@given(st.integers(0, 10**6), momenta)
def test_a_constant_in_a_rounds_reward_changes_nothing(seed, momentum):
    random = np.random.default_rng(seed)
    rewards, shifts = random.normal(size=(3, 4)), 10 * random.normal(size=(3, 1))

    one, _ = play_rounds(np.full(4, 0.25), rewards, 1.0, momentum)
    other, _ = play_rounds(np.full(4, 0.25), rewards + shifts, 1.0, momentum)

    torch.testing.assert_close(one[-1], other[-1], atol=1e-10, rtol=0)


@given(st.integers(0, 10**6), momenta)
def test_weights_extrapolate_policies_exactly_where_logits_are_linear_in_them(seed, momentum):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    now, before = torch.randn(2, 3, generator=generator, dtype=torch.float64)

    by_weights = (features @ beyond(now, before, momentum)).log_softmax(0)
    hats = [(features @ theta).log_softmax(0) for theta in (now, before)]

    torch.testing.assert_close(by_weights, beyond(*hats, momentum).log_softmax(0), atol=1e-10, rtol=0)


@pytest.mark.parametrize("base", ["dpo", "ipo"])
@given(seed=st.integers(0, 10**6), momentum=momenta)
def test_pairs_do_not_mind_that_an_extrapolated_reference_is_not_normalised(base, seed, momentum):
    hats = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).log_softmax(1)
    composite = beyond(*hats, momentum)

    one, other = (loss_of_pair({"use": base}, ref[:2], (-1.0, -1.5)) for ref in (composite, composite.log_softmax(0)))

    assert one == pytest.approx(other, rel=1e-9)


# --- weights ----------------------------------------------------------------------------------------------


def test_no_momentum_gives_the_result_itself_and_integers_are_copied():
    trained = {"w": torch.tensor([0.1, -0.0, torch.inf]), "steps": torch.tensor([3])}
    previous = {"w": torch.tensor([7.0, 5.0, 1.0]), "steps": torch.tensor([1])}

    still = extrapolated(trained, previous, 0.0)
    moved = extrapolated(trained, {**previous, "w": torch.tensor([0.3, 0.0, torch.inf])}, 0.5)

    assert all(torch.equal(still[name], trained[name]) and still[name] is not trained[name] for name in trained)
    assert moved["steps"].tolist() == [3]
    assert moved["w"][0].item() == pytest.approx(0.0, abs=1e-7)
    torch.testing.assert_close(extrapolated(trained, trained, 0.9)["w"][:2], trained["w"][:2])


def test_weights_of_another_module_are_refused():
    with pytest.raises(ValueError, match=r"differ in 1 names, among them \['b'\]"):
        extrapolated({"a": torch.ones(1)}, {"a": torch.ones(1), "b": torch.ones(1)}, 0.3)


def adapter(seed, rank=2, wide=6, high=5):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(rank, wide, generator=generator, dtype=torch.float64),
        torch.randn(high, rank, generator=generator, dtype=torch.float64),
    )


@given(st.integers(0, 10**6), momenta)
def test_adapters_are_extrapolated_by_what_they_add(seed, momentum):
    (down, up), (down_before, up_before) = adapter(seed), adapter(seed + 1)
    wanted = (1 + momentum) * up @ down - momentum * up_before @ down_before

    new_down, new_up = extrapolated_adapter((down, up), (down_before, up_before), momentum)

    left, sizes, right = torch.linalg.svd(wanted)
    nearest = (left[:, :2] * sizes[:2]) @ right[:2]
    torch.testing.assert_close(new_up @ new_down, nearest, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(new_down @ new_down.T, torch.eye(2, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize("rank", [2, 8])  # 8: more than the matrix has rows
def test_after_the_first_round_nothing_of_an_adapter_is_lost(rank):
    (down, up), (down_before, _) = adapter(0, rank), adapter(1, rank)
    weights = {"q.lora_A.default.weight": down, "q.lora_B.default.weight": up, "bias": torch.ones(2)}
    before = {**weights, "q.lora_A.default.weight": down_before, "q.lora_B.default.weight": 0 * up}

    start = extrapolated(weights, before, 0.5)

    product = start["q.lora_B.default.weight"] @ start["q.lora_A.default.weight"]
    torch.testing.assert_close(product, 1.5 * up @ down, atol=1e-9, rtol=1e-9)
    assert start["q.lora_A.default.weight"].shape == down.shape
    assert start["bias"].tolist() == [1, 1]


def test_the_adapters_of_a_language_model_are_found():
    pytest.importorskip("peft")
    model = {"preset": "tiny", "hidden": 16, "layers": 1, "heads": 2, "mlp": 32, "lora": {"rank": 2}}
    module = registry().build("policy", "causal_lm", {"model": model}).module
    previous = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
    torch.manual_seed(0)
    trained = {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in previous.items()}

    start = extrapolated(trained, previous, 0.5)

    downs = [name for name in trained if "lora_A" in name]
    assert len(downs) * 2 == len(trained) > 0
    for down in downs:
        up = down.replace("lora_A", "lora_B")
        torch.testing.assert_close(start[up] @ start[down], 1.5 * trained[up] @ trained[down], atol=1e-5, rtol=1e-4)


# --- the objective ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["dpo", "ipo", "sppo", "clipped"])
def test_within_a_round_it_is_its_base_to_the_bit(base):
    apo = registry().build("objective", "apo", {"base": {"use": base}, "momentum": 0.9})
    alone = registry().build("objective", base)
    batch = make_batch(needs=alone.needs)
    outputs = make_outputs(batch)

    one, other = objective_gradients(apo, batch, outputs), objective_gradients(alone, batch, outputs)

    assert apo.needs == alone.needs
    assert apo.couples == alone.couples
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_momentum_by_round_goes_on_with_its_last_value_and_survives_a_restart():
    options = {"momentum": [0.5, 0.25]}
    objective = registry().build("objective", "apo", options)
    trained, previous = {"w": torch.tensor([2.0])}, {"w": torch.tensor([1.0])}

    starts = [objective.between_rounds(trained, previous)["w"].item() for _ in range(3)]
    again = registry().build("objective", "apo", options)
    again.load_state_dict({"rounds": 1})

    assert starts == [2.5, 2.25, 2.25]
    assert again.between_rounds(trained, previous)["w"].item() == 2.25
    assert again.state_dict() == {"rounds": 2}
    assert isinstance(objective, BetweenRounds)
    assert isinstance(objective, Stateful)
    assert not isinstance(objective, ScalesGradient)


def test_a_base_keeps_its_state_and_its_gradient_factor():
    from orchestrator_plugins.apo.objective import accelerated

    class Base:
        needs, couples, state = frozenset(), "rows", 0.0

        def terms(self, batch, current):
            return None

        def factor(self, norms):
            return norms["loss"] + 1

        def state_dict(self):
            return {"state": self.state}

        def load_state_dict(self, state):
            self.state = state["state"]

    objective = accelerated(Base(), 0.3)
    objective.load_state_dict({"rounds": 4, "base": {"state": 7.0}})  # as version 0.1 saved it

    assert isinstance(objective, ScalesGradient)
    assert objective.factor({"loss": 2.0}) == 3.0
    assert objective.state_dict() == {"rounds": 4}
    assert objective.inner == {"base": objective.base}
    assert objective.base.state == 7.0
    with pytest.raises(ValueError, match="cannot wrap"):
        accelerated(Apo(Base(), 0.1), 0.3)


@pytest.mark.parametrize(
    "options",
    [{"momentum": 1.0}, {"momentum": -0.1}, {"momentum": []}, {"momentum": [0.3, 1]}, {"base": {"use": "dp"}}],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError):
        registry().build("objective", "apo", options)


def test_the_objective_keeps_its_contract():
    check_component(registry().build("objective", "apo"))
