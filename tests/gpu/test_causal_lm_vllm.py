"""The vLLM engine: same distributions as the model being trained, before and after its weights change.

Runs wherever vLLM is installed, on a GPU or on its CPU build.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch
from orchestrator_plugins.causal_lm.config import CausalLMConfig
from orchestrator_plugins.causal_lm.policy import CausalLMPolicy

from orchestrator.api import Column, Context, Rollout, Sampling, Turn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed"),
]

# vLLM wants heads of at least 32 numbers
MODEL = {"preset": "tiny", "hidden": 128, "layers": 2, "heads": 4, "kv_heads": 2, "mlp": 192, "context": 256}


@pytest.fixture(scope="module")
def policy() -> CausalLMPolicy:
    """One engine for the whole file: starting one takes longer than all its tests."""
    policy = CausalLMPolicy(CausalLMConfig(model=MODEL, engine="vllm"))
    disturb(policy, 0)
    return policy


def disturb(policy: CausalLMPolicy, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator).to(parameter.device))
    policy.refresh()


def contexts(count: int = 6) -> list[Context]:
    shared = "a prompt long enough to fill more than one block of the cache " * 2
    return [
        Context(
            episode=str(i),
            agent=None,
            observations=(({"role": "user", "content": shared + "12"[i % 2]},),),
            actions=(),
            seed=2**62 + i,
        )
        for i in range(count)
    ]


def gap(policy: CausalLMPolicy, sampling: Sampling) -> float:
    asked = contexts()
    actions = policy.act(asked, [sampling] * len(asked))
    rollouts = [
        Rollout(
            task_id="t",
            index=i,
            seed=0,
            sampling=sampling,
            turns=(Turn(observation=context.observations[0], action=action),),
        )
        for i, (context, action) in enumerate(zip(asked, actions, strict=True))
    ]
    packed = policy.pack(rollouts)
    with torch.no_grad():
        logprobs = policy.columns(packed.inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB]
    return (logprobs.cpu() - packed.behaviour_logprobs).abs().max().item()


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_recorded_logprobs_are_those_of_the_trained_model(policy, temperature):
    assert gap(policy, Sampling(temperature=temperature, max_tokens=16)) < 1e-4


def test_new_weights_and_an_empty_prefix_cache_arrive_at_each_refresh(policy):
    for seed in (1, 2, 3):
        disturb(policy, seed)

        assert gap(policy, Sampling(max_tokens=16)) < 1e-4


def test_weights_that_were_not_refreshed_do_not_act(policy):
    policy.refresh()
    held = {name: p.detach().clone() for name, p in policy.module.named_parameters()}
    with torch.no_grad():
        for parameter in policy.module.parameters():
            parameter.mul_(1.2)
    moved = gap(policy, Sampling(max_tokens=16))
    with pytest.raises(RuntimeError, match="older weights"):
        policy.act(contexts(1), [Sampling(max_tokens=4, top_k=3)])
    with torch.no_grad():
        for name, parameter in policy.module.named_parameters():
            parameter.copy_(held[name])
    policy.refresh()

    assert moved > 1e-3


def test_seeds_make_actions_repeatable_whatever_else_is_asked(policy):
    asked, sampling = contexts(), Sampling(max_tokens=12)

    together = policy.act(asked, [sampling] * len(asked))
    alone = policy.act(asked[3:4], [sampling])
    again = policy.act(asked, [sampling] * len(asked))

    assert [action.tokens for action in together] == [action.tokens for action in again]
    assert together[3].tokens == alone[0].tokens
    assert len({action.tokens for action in together}) == len(together)


def test_truncation_is_recorded_apart(policy):
    asked = contexts(2)

    cut, greedy = policy.act(asked, [Sampling(max_tokens=8, top_k=2), Sampling(max_tokens=8, temperature=0)])

    assert all(drawn >= whole for drawn, whole in zip(cut.sampled_logprobs, cut.logprobs, strict=True))
    assert any(drawn > whole + 1e-3 for drawn, whole in zip(cut.sampled_logprobs, cut.logprobs, strict=True))
    assert greedy.sampled_logprobs == (0.0,) * len(greedy.tokens)
    assert gap(policy, Sampling(max_tokens=8, top_p=0.8)) < 1e-4
