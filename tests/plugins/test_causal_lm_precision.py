"""bfloat16: trained weights are float32 and move, the policy is what their rounding computes, and acts as it is trained."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.testing import assert_close

from orchestrator.contract.batch import Column
from orchestrator.contract.settings import Optimizer, Settings
from orchestrator.contract.types import RolloutRequest, Split
from orchestrator.errors import ConfigError
from orchestrator.plugging.registry import load_registry
from orchestrator.rollout.assembly import assemble
from orchestrator.rollout.collector import Collector
from orchestrator.testing import ScriptedPolicy
from orchestrator.testing.checks.policy import check_policy
from orchestrator.testing.worlds import EchoEnvironment
from orchestrator.training.optimisation import make_optimizer
from orchestrator.training.trainer import Trainer
from orchestrator.training.weights import WeightStore

REGISTRY = load_registry()
SMALL = {"preset": "tiny", "hidden": 32, "layers": 2, "heads": 2, "context": 64}
GROUPS = 4


def build(**model):
    policy = REGISTRY.build("policy", "causal_lm", {"model": {**SMALL, **model}, "device": "cpu"})
    policy.refresh()
    return policy


def _batch(policy, groups=GROUPS):
    tasks = list(EchoEnvironment().tasks(Split.TRAIN))[:groups]
    return assemble(policy, Collector(EchoEnvironment(), policy)([RolloutRequest(task=t, count=2) for t in tasks]))


def _trainer(policy, **settings):
    chosen = Settings(name="x", environment={"use": "echo"}, **settings)
    objective = REGISTRY.build("objective", "cross_entropy", {})
    return Trainer(policy, None, objective, chosen, WeightStore(policy.module), seed=0)


def test_twenty_equal_steps_go_all_the_way():
    """AdamW moves by lr a step under a constant gradient; bfloat16 weights went 0.3 % of the way."""
    policy = build(dtype="bfloat16")
    named = [(n, p) for n, p in policy.module.named_parameters() if p.requires_grad]
    before = {n: p.detach().double() for n, p in named}
    optimizer = make_optimizer(named, Optimizer(lr=1e-6))

    for _ in range(20):
        for _, parameter in named:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()

    for name, parameter in named:
        share = (before[name] - parameter.detach().double()).mean().item() / (20 * 1e-6)
        assert 0.95 < share < 1.05, name


def test_a_policy_that_trains_in_16_bits_is_refused():
    policy = ScriptedPolicy()
    policy.module.to(torch.bfloat16)

    with pytest.raises(ValueError, match=r"trained parameters are of 16 bits, among them .*torch.bfloat16.*float32"):
        _trainer(policy)
    assert "16 bits" in check_policy(lambda: policy, environment=None)[0]


def test_updates_of_bfloat16_go_the_way_of_float32():
    moved = {}
    for dtype in ("float32", "bfloat16"):
        policy = build(dtype=dtype, seed=3)
        before = torch.nn.utils.parameters_to_vector(policy.module.parameters()).detach().clone()
        batch = _batch(build(dtype="float32", seed=3))
        _trainer(policy, optimizer={"lr": 1e-6, "use": "sgd", "max_grad_norm": None}).update(batch, 1)
        after = torch.nn.utils.parameters_to_vector(policy.module.parameters()).detach()
        assert after.dtype == torch.float32
        moved[dtype] = (after - before).double()

    one, other = moved.values()
    cosine = torch.nn.functional.cosine_similarity(one, other, dim=0).item()
    assert cosine > 0.99
    assert other.norm().item() == pytest.approx(one.norm().item(), rel=0.05)


def test_a_bfloat16_policy_acts_as_it_is_trained():
    gaps = {}
    for snapshot in (True, False):
        policy = REGISTRY.build(
            "policy", "causal_lm", {"model": {**SMALL, "dtype": "bfloat16"}, "device": "cpu", "snapshot": snapshot}
        )
        policy.refresh()
        metrics = _trainer(policy).update(_batch(policy), 1)
        gaps[snapshot] = metrics["train/act_train_logprob_gap"]

    assert all(0 < gap < 0.05 for gap in gaps.values()), gaps


def test_the_copy_that_acts_is_rounded_and_the_trained_weights_stay_as_they_are():
    policy = build(dtype="bfloat16")
    weights = {n: p.detach().clone() for n, p in policy.module.named_parameters()}

    _batch(policy)

    assert {t.dtype for t in policy._engine._weights.values()} == {torch.bfloat16}
    for name, parameter in policy.module.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, weights[name])


def test_statistics_are_those_of_the_model_in_plain_bfloat16():
    policy, plain = build(dtype="bfloat16"), build(dtype="bfloat16")
    rounded = plain.module.transformer.to(torch.bfloat16)
    plain.module.compute = None
    batch = _batch(policy)

    with torch.no_grad():
        found = policy.columns(batch.inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB]
        expected = plain.columns(batch.inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB]

    assert rounded.dtype == torch.bfloat16
    assert_close(found[batch.mask], expected[batch.mask], atol=2e-2, rtol=0)


def test_a_critic_and_checkpointed_activations_train_in_float32():
    policy = build(dtype="bfloat16", gradient_checkpointing=True)
    policy.prepare(EchoEnvironment(), frozenset({Column.VALUE}))
    batch = _batch(policy)

    found = policy.columns(batch.inputs, frozenset({Column.LOGPROB, Column.VALUE}))
    (found[Column.LOGPROB][batch.mask].sum() + found[Column.VALUE][batch.mask].sum()).backward()

    assert {values.dtype for values in found.values()} == {torch.float32}
    gradients = [p.grad for p in policy.module.parameters()]
    assert all(g is not None and g.dtype == torch.float32 and bool(g.isfinite().all()) for g in gradients)


def test_a_checkpoint_resumes_to_the_bit_and_loads_in_transformers(tmp_path):
    from transformers import AutoModelForCausalLM

    policies = [build(dtype="bfloat16") for _ in range(2)]
    batch = _batch(policies[0])
    whole = _trainer(policies[0], optimizer={"lr": 1e-6})
    whole.update(batch, 1)
    cut = _trainer(policies[1], optimizer={"lr": 1e-6})
    cut.update(batch, 1)

    resumed = build(dtype="bfloat16", seed=9)
    resumed.module.load_state_dict(policies[1].module.state_dict())
    trainer = _trainer(resumed, optimizer={"lr": 1e-6})
    trainer.load_state_dict(cut.state_dict())
    whole.update(batch, 2)
    trainer.update(batch, 2)
    resumed.export(tmp_path)

    for (name, one), other in zip(policies[0].module.named_parameters(), resumed.module.parameters(), strict=True):
        assert torch.equal(one, other), name
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float32
    for one, other in zip(loaded.parameters(), resumed.module.transformer.parameters(), strict=True):
        assert torch.equal(one, other)


def test_adapters_are_float32_over_a_bfloat16_base():
    pytest.importorskip("peft")
    policy = build(dtype="bfloat16", lora={"rank": 2})

    dtypes = {p.requires_grad: p.dtype for p in policy.module.parameters()}
    metrics = _trainer(policy).update(_batch(policy), 1)

    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    assert metrics["train/grad_norm"] > 0
    assert metrics["train/act_train_logprob_gap"] < 0.05


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_float16_is_refused(lora):
    with pytest.raises((ValidationError, ConfigError), match="float16 cannot be trained here"):
        build(dtype="float16", lora=lora)


def test_stored_float16_is_refused_when_it_is_loaded():
    from orchestrator_plugins.causal_lm.precision import keep_masters

    with pytest.raises(ValueError, match=r"policy.model.dtype: float16 cannot be trained"):
        keep_masters(nn.Linear(2, 2).half(), adapters=False, asked="auto")
