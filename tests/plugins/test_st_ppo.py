"""ST-PPO in numbers: hand cases of ratios, clip decisions, gradients, the correction, reductions, credit and critic.

Numbers marked e stand at observation tokens; they are junk on purpose.
"""

import math
from functools import cache

import pytest
import torch
from orchestrator_plugins.st_ppo.correction import divisor
from orchestrator_plugins.st_ppo.surrogate import surrogate, turn_log_ratio

from orchestrator.api import (
    Batch,
    Column,
    ConfigError,
    Need,
    ScalesGradient,
    Terms,
    Weights,
    load_registry,
    reduce_terms,
)
from orchestrator.testing import check_component

OLD_LOGPROB, OLD_VALUE = Need(Weights.OLD, Column.LOGPROB), Need(Weights.OLD, Column.VALUE)
REFERENCE_LOGPROB = Need(Weights.REFERENCE, Column.LOGPROB)
E = 777.0
LN = math.log(1.25)
BY_LEVEL = pytest.mark.parametrize("ratio", ["token", "turn"])


@cache
def registry():
    return load_registry(["st_ppo", "baselines"])


def objective(**options):
    return registry().build("objective", "st_ppo", options)


def tensor(values):
    return torch.as_tensor(values, dtype=torch.float64)


def make(mask, turn, advantages, old=None, **fields):
    """A batch of float64 rows, all of one group."""
    mask, advantages = torch.as_tensor(mask).bool(), tensor(advantages)
    old = torch.full(mask.shape, -2.0, dtype=torch.float64) if old is None else tensor(old)
    columns = {OLD_LOGPROB: old} | fields.pop("columns", {})
    rows = len(mask)
    rewards = torch.zeros(rows, dtype=torch.float64)
    return Batch(
        inputs={},
        mask=mask,
        behaviour_logprobs=torch.where(mask, old, 0.0),
        rewards=rewards,
        turn_rewards=torch.zeros(mask.shape, dtype=torch.float64),
        group=torch.arange(rows),
        turn=torch.as_tensor(turn),
        demonstration=torch.zeros(rows, dtype=torch.bool),
        columns=columns,
        advantages=advantages,
        **fields,
    )


def measure(batch, log_ratios, leaf, **options):
    """J, its gradient in ``leaf``, C, the corrected gradient and the metrics, as the trainer would measure them."""
    built = objective(**{"correction": "raw", **options})
    terms = built.terms(batch, {Column.LOGPROB: batch.columns[OLD_LOGPROB] + log_ratios})
    loss = reduce_terms(terms, batch)
    [kept] = torch.autograd.grad(loss, leaf, retain_graph=True)
    removed = reduce_terms(Terms(loss=terms.probes), batch)
    clipped = torch.zeros_like(kept)
    if removed.requires_grad:
        [clipped] = torch.autograd.grad(removed, leaf)
    factor = built.factor({"clipped": float(clipped.norm()), "loss": float(kept.norm())})
    metrics = {name: float(mean.total) / max(float(mean.count), 1) for name, mean in terms.metrics.items()}
    return -float(loss.detach()), -kept, -clipped, -kept * factor, metrics


def by_token(batch, ratios, **options):
    """As ``measure``, differentiated by each token's log-probability."""
    leaf = tensor(ratios).log().requires_grad_()
    return measure(batch, leaf, leaf, **options)


def by_scalar(batch, x, theta=LN, **options):
    """As ``measure``, of a policy with one parameter theta: log-ratios theta x."""
    leaf = tensor(theta).requires_grad_()
    return measure(batch, leaf * tensor(x), leaf, **options)


def parts_of(batch, ratios, ratio, **options):
    """The surrogate's parts, token by token, where the old policy gave every token a log-probability of 0."""
    old = torch.zeros(batch.mask.shape, dtype=torch.float64)
    place = (batch.advantages, batch.mask, batch.turn)
    return surrogate(tensor(ratios).log(), old, *place, ratio=ratio, clip_low=0.2, clip_high=0.2, **options)


# --- ratios and clip decisions ----------------------------------------------------------------------------

FOUR = {"mask": [[1, 1, 0, 1, 1]], "turn": [[0, 0, -1, 1, 1]]}
RATIOS = [[1.5, 0.6, E, 2.0, 1.28]]


def test_a_turns_ratio_is_the_geometric_mean_of_its_tokens():
    mask, turn = torch.tensor(FOUR["mask"]).bool(), torch.tensor(FOUR["turn"])

    found = turn_log_ratio(tensor(RATIOS).log(), torch.zeros(1, 5, dtype=torch.float64), mask, turn).exp()

    assert found.tolist() == [pytest.approx([0.9486833, 0.9486833, 1.0, 1.6, 1.6], abs=1e-6)]


def test_a_turn_without_tokens_has_no_ratio_and_no_term():
    batch = make(**FOUR, advantages=[[1, -1, 5, 1, 0.5]])
    skipped = make(FOUR["mask"], [[1, 1, -1, 4, 4]], advantages=[[1, -1, 5, 1, 0.5]])

    found, expected = (by_token(one, RATIOS, ratio="turn") for one in (skipped, batch))

    assert found[0] == expected[0]
    assert torch.equal(found[2], expected[2])
    assert found[4] == expected[4]  # turns are counted by their tokens: two of them, one clipped


@pytest.mark.parametrize(
    ("ratio", "surrogate_value", "clipped", "removed", "norm", "tokens", "turns"),
    [
        ("token", 0.55, [1, 1, 0, 1, 1], [0.375, -0.15, 0, 0.5, 0.16], 0.6623632, 1.0, 1.0),
        ("turn", 0.45, [0, 0, 0, 1, 1], [0, 0, 0, 0.3, 0.3], 0.4242641, 0.5, 0.5),
    ],
)
def test_who_is_clipped_and_what_that_removes(ratio, surrogate_value, clipped, removed, norm, tokens, turns):
    batch = make(**FOUR, advantages=[[1, -1, 5, 1, 0.5]])

    found, kept, gone, _, metrics = by_token(batch, RATIOS, ratio=ratio)

    assert found == pytest.approx(surrogate_value, abs=1e-6)
    assert kept.flatten().tolist() == pytest.approx([0] * 5, abs=1e-6)
    assert gone.flatten().tolist() == pytest.approx(removed, abs=1e-6)
    assert float(gone.norm()) == pytest.approx(norm, abs=1e-6)
    assert metrics["train/clip_fraction"] == tokens
    assert metrics["st_ppo/clip_fraction/turns"] == turns
    assert metrics["st_ppo/ratio/max"] == pytest.approx(2.0 if ratio == "token" else 1.6)
    assert parts_of(batch, RATIOS, ratio).clipped.long().tolist() == [clipped]


def test_an_advantage_of_zero_and_a_ratio_on_the_bound_are_not_clipped():
    batch = make([[1, 1, 1]], [[0, 0, 0]], [[0, 1, -1]])

    metrics = by_token(batch, [[9.0, 1.25, 0.75]], ratio="token", clip_low=0.25, clip_high=0.25)[4]

    assert metrics["train/clip_fraction"] == 0


@pytest.mark.parametrize(
    ("turn_advantage", "value", "gradient", "clipped"),
    [("per_token", 0.5, [-0.35, -0.35], [1, 0]), ("aggregate", 0.6, [0, 0], [1, 1])],
)
def test_mixed_signs_within_a_turn(turn_advantage, value, gradient, clipped):
    batch = make([[1, 1]], [[0, 0]], [[2, -1]])

    found, kept, _, _, metrics = by_token(batch, [[1.4, 1.4]], ratio="turn", turn_advantage=turn_advantage)

    assert found == pytest.approx(value, abs=1e-6)
    assert kept.flatten().tolist() == pytest.approx(gradient, abs=1e-6)
    assert parts_of(batch, [[1.4, 1.4]], "turn", turn_advantage=turn_advantage).clipped.long().tolist() == [clipped]
    assert metrics["train/clip_fraction"] == sum(clipped) / 2
    assert metrics["st_ppo/clip_fraction/turns"] == 1.0  # the turn lost some of its gradient, or all of it


# --- the correction ---------------------------------------------------------------------------------------

X, SECOND = [[1, 2, E, -1, 1]], {**FOUR, "advantages": [[1, -0.5, 7, 2, 1]]}


@pytest.mark.parametrize(
    ("ratio", "value", "kept", "gone", "corrected"),
    [
        (
            "token",
            0.8046875,
            -0.790625,
            0.625,
            {"raw": -1.265, "max1": -0.790625, "one_plus": -0.4865385, "ratio": -0.790625},
        ),
        (
            "turn",
            0.8753072,
            -0.2620392,
            0.5240784,
            {"raw": -0.5, "max1": -0.2620392, "one_plus": -0.1719329, "ratio": -0.1310196},
        ),
    ],
)
def test_a_policy_with_one_parameter(ratio, value, kept, gone, corrected):
    for mode, expected in corrected.items():
        found = by_scalar(make(**SECOND), X, ratio=ratio, correction=mode)

        assert found[0] == pytest.approx(value, abs=1e-6)
        assert float(found[1]) == pytest.approx(kept, abs=1e-6)
        assert float(found[2]) == pytest.approx(gone, abs=1e-6)
        assert float(found[3]) == pytest.approx(expected, abs=1e-6)


def test_the_tokens_own_gradient_is_another():
    found = by_scalar(make(**SECOND), X, ratio="turn", turn_gradient="token")

    assert found[0] == pytest.approx(0.8753072, abs=1e-6)
    assert float(found[1]) == pytest.approx(-0.5993856, abs=1e-6)


@pytest.mark.parametrize(
    ("ratio", "norm", "corrected"),
    [
        ("token", 6.25, {"raw": -1.265, "max1": -1.265, "ratio": -7.90625}),
        ("turn", 5.2407843, {"raw": -0.5, "max1": -0.5, "ratio": -1.3101961}),
    ],
)
def test_advantages_ten_times_as_large(ratio, norm, corrected):
    batch = make(**FOUR, advantages=[[10, -5, 7, 20, 10]])
    for mode, expected in corrected.items():
        found = by_scalar(batch, X, ratio=ratio, correction=mode)

        assert float(found[2].norm()) == pytest.approx(norm, abs=1e-6)
        assert float(found[3]) == pytest.approx(expected, abs=1e-6)


def test_the_raw_divisor_amplifies_and_the_others_do_not():
    batch = make([[1, 1]], [[0, 0]], [[0.001, 1]])

    for mode, expected in {"raw": -640, "max1": -0.4, "ratio": -0.4}.items():
        found = by_scalar(batch, [[1, -1]], ratio="token", correction=mode)
        assert float(found[1]) == pytest.approx(-0.4, abs=1e-6)
        assert float(found[2]) == pytest.approx(0.000625, abs=1e-6)
        assert float(found[3]) == pytest.approx(expected, abs=1e-6)
    value, kept, gone, corrected, _ = by_scalar(batch, [[1, -1]], ratio="turn", correction="raw")
    assert value == pytest.approx(0.5005, abs=1e-6)
    assert float(gone) == 0
    assert float(corrected) == float(kept)


def test_the_scale_multiplies_the_norm():
    assert divisor("raw", 0.5, 2.0, scale=3.0) == 1.5
    assert divisor("ratio", 0.5, 0.25, scale=3.0) == 6.0
    assert divisor("max1", 0.5, 2.0, scale=3.0) == 1.5
    assert divisor("one_plus", 0.5, 2.0, scale=3.0) == 2.5
    assert objective(correction="one_plus", correction_scale=3.0).factor({"clipped": 0.5, "loss": 2.0}) == 1 / 2.5


@pytest.mark.parametrize("mode", ["raw", "ratio", "max1", "one_plus"])
def test_divisors_at_the_edges(mode):
    assert divisor(mode, 0.0, 3.0) == 1.0
    assert divisor(mode, 1e-8, 3.0) == 1.0  # the floor: nothing clipped to speak of
    assert divisor(mode, 2.0, 0.0) == {"raw": 2.0, "ratio": 1.0, "max1": 2.0, "one_plus": 3.0}[mode]
    assert math.isnan(divisor(mode, math.inf, 3.0))
    assert math.isnan(divisor(mode, math.nan, 3.0))
    assert math.isnan(divisor(mode, 2.0, math.nan)) == (mode == "ratio")
    assert divisor("none", 5.0, 1.0) == 1.0


def test_an_unknown_divisor_is_refused():
    with pytest.raises(ValueError, match="no mode 'rwa'; expected none, raw, ratio, max1 or one_plus"):
        divisor("rwa", 1.0, 1.0)


# --- reductions, short and empty rows ---------------------------------------------------------------------

THREE = {
    "mask": [[1, 1, 0, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
    "turn": [[0, 0, -1, 1, 1], [0, -1, -1, -1, -1], [-1] * 5],
    "advantages": [[1, -0.5, 7, 2, 1], [-1, E, E, E, E], [E] * 5],
}
X3 = [[1, 2, E, -1, 1], [0.5, E, E, E, E], [E] * 5]


@pytest.mark.parametrize(
    ("reduction", "ratio", "expected"),
    [
        ("sequence_mean", "token", (-0.1566732, -0.6748210, 0.3125)),
        ("sequence_mean", "turn", (-0.1213634, -0.4105281, 0.2620392)),
        ("token_mean", "token", (0.4201432, -0.7443034, 0.5)),
        ("token_mean", "turn", (0.4766390, -0.3214348, 0.4192627)),
    ],
)
def test_a_short_row_counts_and_one_without_the_policys_tokens_does_not(reduction, ratio, expected):
    found = by_scalar(make(**THREE), X3, ratio=ratio, reduction=reduction)

    assert (found[0], float(found[1]), float(found[2])) == pytest.approx(expected, abs=1e-6)


@BY_LEVEL
def test_a_batch_without_the_policys_tokens_has_no_loss_and_no_gradient(ratio):
    batch = make([[0, 0]], [[-1, -1]], [[E, E]])

    value, kept, gone, corrected, metrics = by_scalar(batch, [[E, E]], ratio=ratio)

    assert (value, float(kept), float(gone), float(corrected)) == (0, 0, 0, 0)
    assert set(metrics.values()) == {0}


# --- the other terms --------------------------------------------------------------------------------------


def test_kl_entropy_and_critic_are_not_divided():
    batch = make(
        **SECOND,
        returns=tensor([[1, 1, E, 0, 0]]),
        columns={
            REFERENCE_LOGPROB: torch.full((1, 5), -2.5, dtype=torch.float64),
            OLD_VALUE: torch.zeros(1, 5, dtype=torch.float64),
        },
    )
    built = objective(kl_weight=0.1, entropy_weight=0.2, value_weight=0.3)
    current = {
        Column.LOGPROB: batch.columns[OLD_LOGPROB] + LN * tensor(X),
        Column.ENTROPY: torch.ones(1, 5, dtype=torch.float64),
        Column.VALUE: torch.zeros(1, 5, dtype=torch.float64),
    }

    terms = built.terms(batch, current)

    assert {(t.name, t.coefficient, t.scaled) for t in terms.loss} == {
        ("policy", 1.0, True),
        ("kl", 0.1, False),
        ("entropy", -0.2, False),
        ("value", 0.3, False),
    }
    assert [probe.name for probe in terms.probes] == ["clipped"]


def test_value_loss_by_hand():
    batch = make(
        [[1, 1, 1]],
        [[0, 0, 0]],
        [[1, 1, 1]],
        returns=tensor([[1, 1, 0]]),
        columns={OLD_VALUE: tensor([[0.4, 0.6, 0.1]])},
    )
    current = {Column.LOGPROB: batch.columns[OLD_LOGPROB], Column.VALUE: tensor([[0.5, 1.5, -0.2]])}
    terms = objective(value_weight=1.0, value_clip=0.5).terms(batch, current)
    [critic] = [term for term in terms.loss if term.name == "value"]

    assert float(reduce_terms(Terms(loss=(critic,)), batch)) == pytest.approx(0.09, abs=1e-6)


@pytest.mark.parametrize(("missing", "message"), [("advantages", "needs advantages"), ("returns", "sets no returns")])
def test_what_the_batch_lacks_is_named(missing, message):
    batch = make(**SECOND, columns={OLD_VALUE: torch.zeros(1, 5, dtype=torch.float64)})
    if missing == "advantages":
        object.__setattr__(batch, "advantages", None)
    current = dict.fromkeys((Column.LOGPROB, Column.VALUE), torch.zeros(1, 5, dtype=torch.float64))

    with pytest.raises(ValueError, match=message):
        objective(value_weight=1.0).terms(batch, current)


# --- credit as the recipes use it -------------------------------------------------------------------------

CREDIT = {"mask": [[1, 1, 0, 0, 1, 1]], "turn": [[0, 0, -1, -1, 1, 1]], "advantages": [[0] * 6]}


@pytest.mark.parametrize(
    ("gamma", "lam", "advantages"),
    [
        (1.0, 0.5, [0.6125, 0.825, 0, 0, 0.25, 0.3]),
        (0.9, 0.5, [0.4814125, 0.71425, 0, 0, 0.165, 0.3]),
        (1.0, 1.0, [1.3, 1.1, 0, 0, 0.4, 0.3]),
    ],
)
def test_credit_skips_observation_tokens(gamma, lam, advantages):
    values = [0.2, 0.4, 9, 9, 0.6, 0.7]

    credit = _credit(values, gamma=gamma, lam=lam)

    assert credit.advantages.flatten().tolist() == pytest.approx(advantages, abs=1e-6)
    returns = [a + v if t not in (2, 3) else 0 for t, (a, v) in enumerate(zip(advantages, values, strict=True))]
    assert credit.returns.flatten().tolist() == pytest.approx(returns, abs=1e-6)


def test_whitened_credit_has_the_same_returns():
    credit = _credit([0.2, 0.4, 9, 9, 0.6, 0.7], gamma=1.0, lam=0.5, whiten=True)

    expected = [0.4262552, 1.2096431, 0, 0, -0.9101124, -0.7257859]
    assert credit.advantages.flatten().tolist() == pytest.approx(expected, abs=1e-6)
    assert credit.returns.flatten().tolist() == pytest.approx([0.8125, 1.225, 0, 0, 0.85, 1.0], abs=1e-6)


def _credit(values, **options):
    batch = make(**CREDIT, columns={OLD_VALUE: tensor([values])})
    object.__setattr__(batch, "turn_rewards", tensor([[0, 0.5, 0, 0, 0, 1]]))
    return registry().build("advantage", "gae", options).estimate(batch)


# --- options, recipes, contract ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": "token", "turn_gradient": "token"}, "turn_gradient 'token' is about turns"),
        ({"ratio": "token", "turn_advantage": "aggregate"}, "turn_advantage 'aggregate' is about turns"),
        ({"correction": "none", "correction_scale": 2.0}, "correction_scale 2.0 has no effect"),
        ({"correction": "raw", "replay_factors": [1.0]}, "replay_factors take the place of the factor"),
        ({"correction": "none", "replay_factors": [0.0]}, "replay_factors"),
        ({"clip_lo": 0.1}, "clip_low"),
    ],
)
def test_options_without_effect_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        objective(**options)


def test_only_what_needs_norms_scales_the_gradient():
    assert not isinstance(objective(correction="none"), ScalesGradient)
    for options in ({"measure_clipped": True}, {"replay_factors": [0.5]}):
        assert isinstance(objective(correction="none", **options), ScalesGradient)
    assert objective(correction="none", measure_clipped=True).factor({"clipped": 9.0, "loss": 1.0}) == 1.0


def test_the_four_methods_are_settings_of_one_objective():
    found = {name: registry().describe("recipe", name).overlay for name in ("token_ppo", "turn_ppo", "s_ppo", "st_ppo")}

    methods = {name: (o["objective"]["ratio"], o["objective"]["correction"]) for name, o in found.items()}
    assert methods == {
        "token_ppo": ("token", "none"),
        "turn_ppo": ("turn", "none"),
        "s_ppo": ("token", "raw"),
        "st_ppo": ("turn", "raw"),
    }
    for overlay in found.values():
        assert overlay["advantage"] == {"use": "gae", "gamma": 1.0, "lam": 1.0, "whiten": True}
        assert overlay["objective"].items() >= (BASE_SYSTEM | {"value_weight": 1.0, "value_clip": 0.5}).items()
        assert overlay["optimizer"] == {"max_grad_norm": 1.0}
        assert overlay["schedule"] == {"epochs": 1, "minibatches": 2}  # 512 rollouts, mini-batches of 256
        objective(**{key: value for key, value in overlay["objective"].items() if key != "use"})
    grouped = registry().describe("recipe", "so_grpo").overlay
    assert grouped["advantage"] == {"use": "group_mean", "standardise": True}
    assert (grouped["objective"]["ratio"], grouped["objective"]["correction"]) == ("turn", "raw")
    assert grouped["objective"].items() >= BASE_SYSTEM.items()
    assert "value_weight" not in grouped["objective"]
    assert grouped["optimizer"] == {"max_grad_norm": 1.0}


BASE_SYSTEM = {
    "clip_low": 0.2,
    "clip_high": 0.2,
    "kl_weight": 0.001,
    "entropy_weight": 0.0,
    "reduction": "sequence_mean",
}


def test_defaults_are_the_published_method():
    config = objective().config

    assert (config.ratio, config.correction, config.correction_scale) == ("turn", "raw", 1.0)
    assert (config.clip_low, config.clip_high) == (0.2, 0.2)
    assert (config.turn_gradient, config.turn_advantage) == ("full", "per_token")
    assert (config.reduction, config.kl_weight, config.entropy_weight) == ("sequence_mean", 0, 0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ratio": "token", "correction": "none"},
        {"turn_gradient": "token", "turn_advantage": "aggregate", "correction": "ratio"},
        {"correction": "none", "replay_factors": [0.5, 2.0], "reduction": "token_mean"},
        {"kl_weight": 0.1, "entropy_weight": 0.1, "value_weight": 1.0},
    ],
)
def test_contract(options):
    check_component(registry().describe("objective", "st_ppo"), options)
