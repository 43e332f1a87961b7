"""An update phase keeps nothing of the one before it but the optimiser's moments, and those survive a restart."""

import torch

from orchestrator.contract.batch import Column, LossTerm, Need, Reduction, Terms, Weights
from orchestrator.contract.settings import Settings
from orchestrator.contract.types import Couples, RolloutRequest, Split
from orchestrator.rollout.assembly import assemble
from orchestrator.rollout.collector import Collector
from orchestrator.testing import ScriptedPolicy
from orchestrator.testing.worlds import EchoEnvironment
from orchestrator.training.trainer import Trainer
from orchestrator.training.weights import WeightStore


class Drift:
    """Moves away from the old logits; remembers how far it already was from them."""

    needs = frozenset({Need(Weights.OLD, Column.LOGITS), Need(Weights.CURRENT, Column.LOGITS)})
    couples = Couples.ROWS

    def __init__(self):
        self.distances = []

    def terms(self, batch, current):
        old = batch.columns[Need(Weights.OLD, Column.LOGITS)]
        self.distances.append(float((current[Column.LOGITS] - old).detach().abs().max()))
        return Terms(loss=(LossTerm(name="policy", values=-current[Column.LOGPROB], reduction=Reduction.TOKEN_MEAN),))


def _wire(policy, objective, **schedule):
    settings = Settings(
        name="x", environment={"use": "echo"}, schedule=schedule, optimizer={"lr": 0.1, "max_grad_norm": None}
    )
    return Trainer(policy, None, objective, settings, WeightStore(policy.module), seed=0)


def _batch(policy, groups):
    environment = EchoEnvironment()
    tasks = [task for _, task in zip(range(groups), environment.tasks(Split.TRAIN), strict=False)]
    return assemble(policy, Collector(environment, policy)([RolloutRequest(task=task, count=2) for task in tasks]))


def test_an_update_of_one_step_does_not_compare_with_the_old_weights_of_an_earlier_one():
    policy, objective = ScriptedPolicy(("a", "b")), Drift()
    trainer = _wire(policy, objective, minibatches=2)

    trainer.update(_batch(policy, 2), 1)  # two optimiser steps: the second sees weights that moved
    trainer.update(_batch(policy, 1), 2)  # one

    assert objective.distances[0] == 0.0
    assert objective.distances[1] > 0.0
    assert objective.distances[2] == 0.0


def test_a_restored_optimiser_goes_on_where_the_saved_one_was():
    policies = [ScriptedPolicy(("a", "b"), seed=0) for _ in range(2)]
    whole, cut = (_wire(policy, Drift()) for policy in policies)
    for step in (1, 2):
        whole.update(_batch(policies[0], 2), step)
    cut.update(_batch(policies[1], 2), 1)

    restored = _wire(policies[1], Drift())
    restored.load_state_dict(cut.state_dict())
    restored.update(_batch(policies[1], 2), 2)

    assert restored.updates == 2
    for one, other in zip(policies[0].module.parameters(), policies[1].module.parameters(), strict=True):
        assert torch.equal(one, other)
