"""ST-PPO through the real trainer: micro-batches of one row, skipped steps, replayed factors, plans that are refused."""

import json
import math
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
import torch

from orchestrator.api import Column, ConfigError, Feedback, Need, RolloutRequest, Task, Weights, load_registry
from orchestrator.contract.settings import Settings
from orchestrator.contract.types import Speaks
from orchestrator.experiment import planner as plans
from orchestrator.experiment.files import parse_experiment
from orchestrator.rollout.assembly import assemble
from orchestrator.rollout.collector import Collector
from orchestrator.runners.trial import run_spec
from orchestrator.runs.ledger import read_rows
from orchestrator.testing import CorridorEnvironment, ScriptedPolicy
from orchestrator.training.trainer import Trainer
from orchestrator.training.weights import WeightStore

OLD_LOGPROB = Need(Weights.OLD, Column.LOGPROB)


@cache
def registry():
    return load_registry(["st_ppo", "baselines"])


class Conversation:
    """Three turns; pays at the end the share of vowels said."""

    speaks = Speaks.MESSAGES

    def __init__(self):
        self._said = []

    def start(self, task, seed):
        return Conversation()

    def open(self):
        return ({"role": "user", "content": "go"},)

    def step(self, action):
        self._said.append(action.text)
        if len(self._said) < 3:
            return Feedback(observation=({"role": "user", "content": f"{len(self._said)}"},), reward=0.0, done=False)
        said = "".join(self._said)
        return Feedback(observation=None, reward=sum(c in "aeiou" for c in said) / len(said), done=True)

    def close(self):
        pass


TEXTS = ("aeio", "x", "abec", "zz", "ui", "bcdfg", "o", "iii", "xaxa", "e", "qqq", "ou")


def train(objective, *, schedule=None, rows=None, lr=2.0, batch=None, updates=1, limit=None):
    """Weights, metrics, trainer and objective after updates on eight conversations, in float64."""
    policy = ScriptedPolicy(TEXTS)
    policy.module.double()
    settings = Settings(
        name="x",
        environment={"use": "conversation"},
        schedule={"epochs": 2, "minibatches": 2} if schedule is None else schedule,
        optimizer={"use": "sgd", "lr": lr, "max_grad_norm": limit},
        update={"micro_batch_rows": rows},
    )
    built = registry().build("objective", "st_ppo", objective)
    advantage = registry().build("advantage", "group_mean", {"standardise": True}) if batch is None else None
    trainer = Trainer(policy, advantage, built, settings, WeightStore(policy.module), seed=0)
    metrics = {}
    for step in range(1, updates + 1):
        collected = Collector(Conversation(), ScriptedPolicy(TEXTS))(
            [RolloutRequest(task=Task(id=f"{place}"), count=4) for place in range(2)]
        )
        data = assemble(policy, collected)
        metrics = trainer.update(data if batch is None else batch(data), step)
    weights = torch.cat([parameter.detach().flatten() for parameter in policy.module.parameters()])
    return weights, metrics, trainer, built


@pytest.mark.parametrize("correction", ["raw", "ratio", "max1", "one_plus"])
@pytest.mark.parametrize("ratio", ["token", "turn"])
def test_micro_batches_of_one_row_take_the_same_steps(ratio, correction):
    options = {"ratio": ratio, "correction": correction}
    lr = 0.5 if correction == "raw" else 2.0

    whole, metrics, *_ = train(options, lr=lr)
    cut, by_row, *_ = train(options, rows=1, lr=lr)

    torch.testing.assert_close(cut, whole, atol=1e-9, rtol=1e-9)
    assert metrics["train/gradient_norm/clipped"] > 1e-3
    for name in ("train/gradient_norm/clipped", "train/gradient_norm/loss", "train/gradient_factor", "loss/policy"):
        assert by_row[name] == pytest.approx(metrics[name], rel=1e-6)


def test_the_first_step_is_the_plain_policy_gradient():
    once = {"epochs": 1, "minibatches": 1}

    plain, *_ = train({"ratio": "turn", "correction": "none"}, schedule=once)
    corrected, metrics, _, built = train({"ratio": "turn", "correction": "raw"}, schedule=once)

    torch.testing.assert_close(corrected, plain, atol=1e-12, rtol=0)
    assert metrics["train/gradient_norm/clipped"] == 0
    assert metrics["train/gradient_factor"] == 1
    assert built.report()["st_ppo/divisor/above_one"] == 0


def test_the_step_is_divided_and_the_report_says_by_what():
    twice = {"epochs": 2, "minibatches": 1}

    _, metrics, _, built = train({"correction": "one_plus"}, schedule=twice)
    report = built.report()

    norm = report["st_ppo/clipped_norm/max"]  # nothing is clipped in the first step
    assert norm > 0
    assert metrics["train/gradient_norm/clipped"] == pytest.approx(norm / 2)
    assert report["st_ppo/divisor/mean"] == pytest.approx(1 + norm / 2)
    assert report["st_ppo/divisor/above_one"] == 0.5
    assert report["st_ppo/factor/p50"] == pytest.approx((1 + 1 / (1 + norm)) / 2)
    assert report["st_ppo/gradient_norm/max"] >= report["st_ppo/gradient_norm/median"] > 0
    assert built.report() == {}


LR, ONCE = 2.0, {"epochs": 1, "minibatches": 1}


def moved(batch):
    """The batch, had the policy learnt much of it already; advantages are the rows' rewards."""
    generator = torch.Generator().manual_seed(3)
    noise, rewards = (torch.randn(*shape, generator=generator).double() for shape in (batch.mask.shape, (8,)))
    away = 0.3 * noise + 0.4 * rewards.sign()[:, None]
    return replace(batch, columns={OLD_LOGPROB: batch.behaviour_logprobs.double() - away}, rewards=20.0 * rewards)


def gradient(objective, **options):
    """Of J, as the step the trainer took shows it; and its metrics."""
    before, *_ = train(objective, updates=0)
    after, metrics, *_ = train(objective, schedule=ONCE, lr=LR, batch=moved, **options)
    return (after - before) / LR, metrics


@pytest.mark.parametrize("rows", [None, 3])
@pytest.mark.parametrize("correction", ["raw", "ratio", "max1", "one_plus"])
@pytest.mark.parametrize("ratio", ["token", "turn"])
def test_the_step_taken_is_the_plain_one_over_the_divisor(ratio, correction, rows):
    """C measured apart, as what a step without clipping has more than one with it."""
    plain, _ = gradient({"ratio": ratio, "correction": "none"})
    infinite = dict.fromkeys(("clip_low", "clip_high"), 1e30)
    unclipped, _ = gradient({"ratio": ratio, "correction": "none", **infinite})
    clipped, kept = float((unclipped - plain).norm()), float(plain.norm())
    divisor = {
        "raw": clipped,
        "ratio": max(1, clipped / kept),
        "max1": max(1, clipped),
        "one_plus": 1 + clipped,
    }[correction]

    found, metrics = gradient({"ratio": ratio, "correction": correction}, rows=rows)

    assert clipped > max(1, kept)  # so that no divisor is 1
    torch.testing.assert_close(found * divisor, plain, atol=1e-9, rtol=1e-9)
    assert metrics["train/gradient_norm/clipped"] == pytest.approx(clipped, rel=1e-6)
    assert metrics["train/gradient_norm/loss"] == pytest.approx(kept, rel=1e-6)
    assert metrics["train/gradient_factor"] == pytest.approx(1 / divisor, rel=1e-6)


@pytest.mark.parametrize("limit", [None, 0.05])
def test_other_terms_join_after_the_division_and_all_is_clipped_last(limit):
    plain, _ = gradient({"correction": "none"})
    with_entropy, _ = gradient({"correction": "none", "entropy_weight": 0.3})
    corrected, metrics = gradient({"correction": "raw"})

    found, _ = gradient({"correction": "raw", "entropy_weight": 0.3}, limit=limit)

    assert 1 / metrics["train/gradient_factor"] != pytest.approx(1, abs=0.1)
    together = corrected + (with_entropy - plain)
    norm = float(together.norm())
    assert norm > 0.05
    torch.testing.assert_close(found, together * (1 if limit is None else limit / norm), atol=1e-6, rtol=1e-5)


def test_measuring_alone_changes_no_step():
    plain, metrics, *_ = train({"ratio": "token", "correction": "none"})
    measured, found, *_ = train({"ratio": "token", "correction": "none", "measure_clipped": True})

    torch.testing.assert_close(measured, plain, atol=1e-12, rtol=0)
    assert "train/gradient_norm/clipped" not in metrics
    assert found["train/gradient_norm/clipped"] > 0
    assert found["train/gradient_factor"] == 1


@pytest.mark.parametrize("correction", ["raw", "ratio", "max1", "one_plus"])
def test_a_norm_that_is_not_finite_skips_the_step(correction):
    """Every token gained and is clipped: the loss is finite and has no gradient, what was removed overflows."""

    def far(batch):
        old = batch.behaviour_logprobs.double() - 15.0
        return replace(batch, columns={OLD_LOGPROB: old}, rewards=1e304 * (1 + batch.rewards.double()))

    once = {"epochs": 1, "minibatches": 1}
    options = {"ratio": "token", "correction": correction}
    before, *_ = train(options, schedule=once, updates=0)

    after, metrics, trainer, built = train(options, schedule=once, batch=far)

    assert math.isfinite(metrics["loss/policy"])
    assert metrics["train/gradient_norm/loss"] == 0
    assert not math.isfinite(metrics["train/gradient_norm/clipped"])
    assert math.isnan(metrics["train/gradient_factor"])
    assert trainer.skipped == 1
    assert torch.equal(after, before)
    assert built.report() == {}  # it is of steps that were taken


def test_replayed_factors_come_once_each_and_go_on_after_a_restart():
    factors = [0.1, 0.5, 1.0, 3.0]
    options = {"ratio": "token", "correction": "none", "replay_factors": factors}
    whole, cut = (registry().build("objective", "st_ppo", options) for _ in range(2))

    drawn = [whole.factor({}) for _ in range(12)]

    first = [cut.factor({}) for _ in range(6)]
    restored = registry().build("objective", "st_ppo", options)
    restored.load_state_dict(json.loads(json.dumps(cut.state_dict())))
    assert first + [restored.factor({}) for _ in range(6)] == drawn
    assert [Counter(drawn[lap : lap + 4]) for lap in (0, 4, 8)] == [Counter(factors)] * 3
    assert drawn[:4] != drawn[4:8]


def test_replayed_factors_scale_the_surrogate_alone():
    options = {"ratio": "token", "correction": "none"}
    once = {"epochs": 1, "minibatches": 1}
    before, *_ = train(options, updates=0)
    plain, *_ = train(options, schedule=once)

    scaled, metrics, *_ = train(options | {"replay_factors": [0.25]}, schedule=once)

    torch.testing.assert_close(scaled - before, 0.25 * (plain - before), atol=1e-12, rtol=1e-9)
    assert metrics["train/gradient_factor"] == 0.25
    assert "train/gradient_norm/clipped" not in metrics


# --- plans and whole trials -------------------------------------------------------------------------------

EXPERIMENT = """
name: corridor
environment: {use: corridor}
policy: {use: mlp, hidden: [8]}
schedule: {steps: 2, tasks_per_step: 4}
sampling: {max_turns: 6}
optimizer: {lr: 0.05}
evaluation: {every: 0, first: false, tasks: 1, samples: 1}
checkpoints: {every: 0}
tracking: {enabled: false}
"""


@cache
def world():
    from orchestrator.api import Component, hookimpl
    from orchestrator.plugging.manager import PluginManager
    from orchestrator.plugging.registry import Registry

    class Corridor:
        @hookimpl
        def provide_environments(self):
            return [Component(name="corridor", build=lambda _: CorridorEnvironment(), speaks=Speaks.FEATURES)]

    manager = PluginManager()
    manager.discover(only=["st_ppo", "baselines", "mlp"])
    manager.register(Corridor(), "corridor")
    return Registry(manager)


def make(*overrides):
    return plans.make(parse_experiment(EXPERIMENT, overrides), world())


@pytest.mark.parametrize(
    ("overrides", "refused"),
    [
        (["recipe=st_ppo"], "objective.correction raw"),
        (["recipe=s_ppo"], "objective.correction raw"),
        (["recipe=so_grpo"], "objective.correction raw"),
        (["recipe=token_ppo", "objective.replay_factors=[0.5, 1.5]"], "objective.replay_factors above 1"),
        (["recipe=token_ppo", "objective.replay_factors=[0.5, 1.0]"], None),
        (["recipe=token_ppo"], None),
        (["recipe=st_ppo", "objective.correction=ratio"], None),
        (["recipe=ppo"], None),
    ],
)
def test_a_plan_that_amplifies_without_clipping_is_refused(overrides, refused):
    unclipped = [*overrides, "optimizer.max_grad_norm=null"]

    assert make(*overrides).trials
    if refused is None:
        assert make(*unclipped).trials
    else:
        with pytest.raises(ConfigError, match=f"optimizer.max_grad_norm: is null, but {refused}"):
            make(*unclipped)


def test_a_start_phase_that_amplifies_without_clipping_is_refused():
    with pytest.raises(ConfigError, match=r"start\.optimizer\.max_grad_norm: is null, but objective.correction raw"):
        make("recipe=token_ppo", "start={recipe: st_ppo, optimizer: {max_grad_norm: null}}")

    assert make("recipe=token_ppo", "start={recipe: st_ppo}", "optimizer.max_grad_norm=null").trials


@pytest.mark.parametrize("recipe", ["token_ppo", "turn_ppo", "s_ppo", "st_ppo", "so_grpo"])
def test_every_recipe_trains(recipe, tmp_path):
    [spec] = make(f"recipe={recipe}", "schedule.epochs=3").trials

    result = run_spec(spec, tmp_path, registry=world())

    assert result.status == "done", result.error
    steps = [
        row["metrics"] for row in read_rows(tmp_path / "trials" / spec.id / "metrics.jsonl") if row["kind"] == "step"
    ]
    assert len(steps) == 2
    corrected = recipe in ("s_ppo", "st_ppo", "so_grpo")
    for metrics in steps:
        assert metrics["train/skipped_updates"] == 0
        assert 0 <= metrics["train/clip_fraction"] <= metrics["st_ppo/clip_fraction/turns"] + 1e-12
        assert metrics["st_ppo/ratio/max"] >= 1 - 1e-6
        assert ("train/gradient_norm/clipped" in metrics) == ("st_ppo/divisor/mean" in metrics) == corrected
        assert ("loss/value" in metrics) == (recipe != "so_grpo")
