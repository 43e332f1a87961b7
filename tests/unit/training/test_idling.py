"""Optimiser steps with nothing to learn are taken without a pass, and leave bitwise what a pass would have left."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from orchestrator.contract.batch import Credit
from orchestrator.contract.parts import Facts, facts_of
from orchestrator.contract.roles import ScalesGradient
from orchestrator.contract.settings import Settings
from orchestrator.contract.types import RolloutRequest, Split
from orchestrator.plugging.registry import load_registry
from orchestrator.rollout.assembly import assemble
from orchestrator.rollout.collector import Collector
from orchestrator.testing import ScriptedPolicy
from orchestrator.testing.worlds import EchoEnvironment
from orchestrator.training.trainer import Trainer
from orchestrator.training.weights import WeightStore

REGISTRY = load_registry()
REGULARISED = {
    "clipped": "kl_weight",
    "reinforce": "entropy_weight",
    "st_ppo": "value_weight",
    "pair_clipped": "kl_weight",
}

OPTIONS = {
    "st_ppo": {"value_weight": 0.0, "correction": "none"},
    "pair_clipped": {"kl_weight": 0.0, "entropy_weight": 0.0},
}


def _build(name):
    return REGISTRY.build("objective", name, OPTIONS.get(name, {}))


def _declaring():
    for name in REGISTRY.names("objective"):
        try:
            objective = _build(name)
        except ValueError:  # it needs options
            continue
        if facts_of(objective).vanishes_with_advantages and not isinstance(objective, ScalesGradient):
            yield name


DECLARING = tuple(_declaring())


class Given:
    """Advantages of 0 but for the groups that are named."""

    needs = frozenset()

    def __init__(self, *groups):
        self.groups = groups

    def estimate(self, batch):
        learnt = torch.isin(batch.group, torch.tensor(self.groups, dtype=torch.long))
        values = torch.where(learnt, torch.arange(len(batch.group)) - 1.5, -0.0)
        return Credit(advantages=torch.where(batch.mask, values[:, None], 0.0))


def _wire(policy, objective, optimizer="adamw", **schedule):
    decay = {"weight_decay": 0.1} if optimizer == "adamw" else {}
    settings = Settings(
        name="x",
        environment={"use": "echo"},
        schedule=schedule,
        optimizer={"lr": 0.1, "use": optimizer, **decay},
    )
    return Trainer(policy, Given(), objective, settings, WeightStore(policy.module), seed=0)


def _batch(policy, groups=4):
    tasks = list(EchoEnvironment().tasks(Split.TRAIN))[:groups]
    return assemble(policy, Collector(EchoEnvironment(), policy)([RolloutRequest(task=t, count=2) for t in tasks]))


def _train(name, learnt, optimizer="adamw", *, declared=True, policy=None, **schedule):
    """Updates whose groups to learn from are given; the policy, the trainer and the metrics of each."""
    policy, objective = policy or ScriptedPolicy(("a", "bc")), _build(name)
    if not declared:
        objective.facts = Facts()
    trainer = _wire(policy, objective, optimizer, **schedule)
    batch, metrics = _batch(ScriptedPolicy(("a", "bc"))), []
    for step, groups in enumerate(learnt, start=1):
        trainer._advantage = Given(*groups)
        metrics.append(trainer.update(batch, step))
    return policy, trainer, metrics


def _bits(policy, trainer):
    state = trainer.state_dict()
    moments = {f"{n}.{k}": torch.as_tensor(v) for n, held in state["moments"].items() for k, v in held.items()}
    weights = {n: p.detach() for n, p in policy.module.named_parameters()}
    # Adding 0 turns -0 into 0 and leaves every other number as it is.
    return {n: (t + 0.0).float().view(torch.int32) for n, t in (weights | moments).items()}, state["updates"]


def test_the_objectives_that_learn_from_advantages_alone_say_so():
    assert set(DECLARING) == {"clipped", "reinforce", "st_ppo", "pair_clipped"}


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop", "sgd"])
@pytest.mark.parametrize("name", DECLARING)
def test_leaving_the_passes_out_changes_no_weight_no_moment_and_no_count(name, optimizer):
    learnt = [(), (0, 1, 2, 3), (), (2,), (), ()]
    schedule = {"minibatches": 2, "epochs": 2}

    left_out = _train(name, learnt, optimizer, **schedule)
    made = _train(name, learnt, optimizer, declared=False, **schedule)

    (bits, updates), (expected, counted) = _bits(*left_out[:2]), _bits(*made[:2])
    assert updates == counted == 24
    assert bits.keys() == expected.keys()
    assert all(torch.equal(bits[key], expected[key]) for key in bits)
    # the very first pass is made, to see what it reaches
    assert [metrics["train/idle_updates"] for metrics in left_out[2]] == [3, 0, 4, 2, 4, 4]
    assert "train/idle_updates" not in made[2][0]
    for one, other in zip(left_out[2], made[2], strict=True):
        assert one["loss/total"] == other["loss/total"]
        assert one["train/lr"] == other["train/lr"]
        assert one["train/grad_norm"] == other["train/grad_norm"]


@pytest.mark.parametrize("name", DECLARING)
def test_with_a_term_beside_the_surrogate_every_pass_is_made(name):
    objective = REGISTRY.build("objective", name, OPTIONS.get(name, {}) | {REGULARISED[name]: 0.1})

    assert not facts_of(objective).vanishes_with_advantages


def test_a_restored_trainer_leaves_out_what_an_unbroken_one_does():
    policy, trainer, _ = _train("reinforce", [(0,)])
    again = _wire(copy.deepcopy(policy), REGISTRY.build("objective", "reinforce"))
    again.load_state_dict(trainer.state_dict())

    metrics = again.update(_batch(ScriptedPolicy(("a", "bc"))), 2)

    assert metrics["train/idle_updates"] == 1.0


class Noisy(ScriptedPolicy):
    """Draws random numbers in every pass, as dropout does."""

    def columns(self, inputs, wanted):
        noise = 1 + 0.1 * torch.rand(())
        return {column: values * noise for column, values in super().columns(inputs, wanted).items()}


class Counting(ScriptedPolicy):
    """Writes a buffer in every pass, as batch normalisation does."""

    def __init__(self, script):
        super().__init__(script)
        self.module.register_buffer("passes", torch.zeros(()))

    def columns(self, inputs, wanted):
        self.module.get_buffer("passes").add_(1)
        return super().columns(inputs, wanted)


class Wandering(ScriptedPolicy):
    """Reaches other parameters from pass to pass, as a mixture of experts does."""

    def __init__(self, script):
        super().__init__(script)
        self.module.experts = nn.ParameterList([nn.Parameter(torch.zeros(())) for _ in range(2)])
        self.passes = 0

    def columns(self, inputs, wanted):
        self.passes += torch.is_grad_enabled()
        expert = self.module.experts[self.passes % 2]
        return {column: values + expert for column, values in super().columns(inputs, wanted).items()}


@pytest.mark.parametrize("policy", [Noisy, Counting, Wandering])
def test_passes_with_effects_of_their_own_are_made(policy):
    learnt = [(0,), (1,), ()]

    _one, _trainer, metrics = _train("reinforce", learnt, policy=policy(("a", "bc")))

    assert metrics[-1]["train/idle_updates"] == 0.0


def test_the_frozen_columns_of_an_idle_update_are_not_computed(monkeypatch):
    policy, trainer, _ = _train("clipped", [(0,)], epochs=2)
    calls = []
    monkeypatch.setattr(policy, "columns", lambda *_: calls.append(1))

    trainer._advantage = Given()
    metrics = trainer.update(_batch(ScriptedPolicy(("a", "bc"))), 2)

    assert (metrics["train/idle_updates"], calls) == (2.0, [])


def test_advantages_that_are_not_trained_do_not_count():
    _policy, trainer, _ = _train("reinforce", [(0,)])
    trainer._advantage = Given()
    estimate = trainer._advantage.estimate
    trainer._advantage.estimate = lambda batch: replace(
        estimate(batch), advantages=torch.where(batch.mask, 0.0, torch.nan)
    )

    assert trainer.update(_batch(ScriptedPolicy(("a", "bc"))), 2)["train/idle_updates"] == 1.0
