"""Versions of weights: swapped in and out, shared where frozen."""

import pytest
import torch

from orchestrator.contract.batch import Weights
from orchestrator.training.weights import WeightStore


def _module():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    module[0].requires_grad_(False)
    return module


def test_only_trainable_parameters_are_kept():
    store = WeightStore(_module())

    assert set(store.current()) == {"1.weight", "1.bias"}


def test_a_version_is_in_force_inside_the_block_only():
    module = _module()
    store = WeightStore(module)
    store.keep(Weights.REFERENCE)
    before = module[1].weight.detach().clone()
    with torch.no_grad():
        module[1].weight.add_(1.0)
    trained = module[1].weight.detach().clone()

    with store.loaded(Weights.REFERENCE):
        assert torch.equal(module[1].weight, before)

    assert torch.equal(module[1].weight, trained)


def test_the_block_restores_the_weights_after_an_error():
    module = _module()
    store = WeightStore(module)
    store.keep(Weights.REFERENCE, {name: tensor + 1 for name, tensor in store.current().items()})
    trained = module[1].weight.detach().clone()

    with pytest.raises(RuntimeError), store.loaded(Weights.REFERENCE):
        raise RuntimeError

    assert torch.equal(module[1].weight, trained)


def test_a_version_that_was_never_kept_is_an_error():
    with pytest.raises(KeyError, match="reference"), WeightStore(_module()).loaded(Weights.REFERENCE):
        pass


def test_weights_of_another_module_are_refused():
    with pytest.raises(ValueError, match="differ in 1 parameters"):
        WeightStore(_module()).load({"1.weight": torch.zeros(1, 2)})


def test_a_module_without_trainable_parameters_is_refused():
    with pytest.raises(ValueError, match="no trainable parameter"):
        WeightStore(torch.nn.ReLU())
