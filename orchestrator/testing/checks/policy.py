"""The contract of a policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch

from orchestrator.contract.batch import Column
from orchestrator.contract.roles import Prepares
from orchestrator.contract.types import (
    Context,
    RolloutGroup,
    RolloutRequest,
    Sampling,
    Speaks,
    Split,
)
from orchestrator.rollout.assembly import assemble
from orchestrator.rollout.collector import Collector
from orchestrator.testing.scripted import ScriptedPolicy
from orchestrator.testing.worlds import CorridorEnvironment, EchoEnvironment
from orchestrator.training.handed import expect_columns


def check_policy(build: Callable[[], Any], *, environment: Any, **_: Any) -> list[str]:
    """Broken rules of a policy."""
    policy = build()
    world = environment or (EchoEnvironment() if policy.speaks == Speaks.MESSAGES else CorridorEnvironment())
    if isinstance(policy, Prepares):
        policy.prepare(world, frozenset({Column.LOGPROB, Column.ENTROPY}))
    if not isinstance(policy.module, torch.nn.Module) or not any(p.requires_grad for p in policy.module.parameters()):
        return ["module is no torch module with a parameter to train; a fixed rule gives an empty one, of no numbers"]
    coarse = [
        n for n, p in policy.module.named_parameters() if p.requires_grad and p.dtype in (torch.bfloat16, torch.float16)
    ]
    if coarse:
        return [
            f"module trains {coarse[0]} in 16 bits, where most steps are lost; keep it in float32 and use torch.autocast"
        ]
    policy.refresh()
    collect = Collector(world, policy, (), sampling=Sampling(max_tokens=12), max_turns=4)
    collect.begin(1)
    tasks = list(islice(world.tasks(Split.TRAIN), 2))
    groups = [group for group in collect([RolloutRequest(task=t, count=2) for t in tasks]) if group.rollouts]
    if collect.failures or not groups:
        return [f"playing failed: {rollout.error}" for rollout in collect.failures] or ["no rollout"]
    problems = _action_problems(groups)
    if problems:
        return problems
    if not any(rollout.agent for group in groups for rollout in group.rollouts):
        problems += _batching_problems(policy, groups)
    if policy.speaks == Speaks.MESSAGES and not all(policy.encode(["ab", "c"])):
        problems.append("encode() gives no tokens for a text")
    if not sum(p.numel() for p in policy.module.parameters() if p.requires_grad):
        return problems  # a fixed rule: it acts and is never trained
    return problems + _packing_problems(policy, groups)


def _action_problems(groups: Sequence[RolloutGroup]) -> list[str]:
    problems = []
    actions = [turn.action for group in groups for rollout in group.rollouts for turn in rollout.turns]
    several = any(rollout.agent for group in groups for rollout in group.rollouts)
    for action in actions:
        if len(action.tokens) != len(action.logprobs):
            problems.append(f"an action has {len(action.tokens)} tokens and {len(action.logprobs)} log-probabilities")
        elif not action.tokens and not several:  # of several agents, some may have nothing to decide
            problems.append("an action has no tokens")
        elif not all(math.isfinite(p) and p <= 1e-5 for p in action.logprobs):
            problems.append(f"an action has log-probabilities {action.logprobs}; expected finite ones, at most 0")
    return list(dict.fromkeys(problems))


def _batching_problems(policy: Any, groups: Sequence[RolloutGroup]) -> list[str]:
    contexts = [
        Context(episode=str(place), agent=None, observations=(r.turns[0].observation,), actions=(), seed=100 + place)
        for place, r in enumerate(rollout for group in groups for rollout in group.rollouts)
    ]
    if isinstance(policy, ScriptedPolicy):
        return []  # plays in the order of calls, as its author wants
    sampling = Sampling(max_tokens=12)
    together = policy.act(contexts, [sampling] * len(contexts))
    alone = [policy.act([context], [sampling])[0] for context in contexts]
    if [action.tokens for action in together] != [action.tokens for action in alone]:
        return ["equal contexts with equal seeds act differently when batched with others"]
    return []


def _packing_problems(policy: Any, groups: Sequence[RolloutGroup]) -> list[str]:
    batch = assemble(policy, groups)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    problems = []
    for row, rollout in enumerate(rollouts):
        recorded = [p for turn in rollout.turns for p in turn.action.logprobs]
        kept = batch.behaviour_logprobs[row][batch.mask[row]].tolist()
        if len(kept) != len(recorded):
            problems.append(f"pack() trains {len(kept)} tokens of a rollout with {len(recorded)}")
        elif any(not math.isclose(a, b, abs_tol=1e-5) for a, b in zip(kept, recorded, strict=True)):
            problems.append("pack() changes the recorded log-probabilities, or their order")
    if bool(batch.behaviour_logprobs[~batch.mask].any()):
        problems.append("behaviour_logprobs are not 0 where masked out")
    if bool((batch.turn[~batch.mask] != -1).any()) or bool((batch.turn[batch.mask] < 0).any()):
        problems.append("turn is not -1 exactly outside the policy's tokens")
    if problems:
        return list(dict.fromkeys(problems))
    wanted = frozenset({Column.LOGPROB, Column.ENTROPY})
    try:
        columns = expect_columns(policy.columns(batch.inputs, wanted), wanted, batch.mask, trained=True)
    except ValueError as error:
        return [str(error)]
    gap = float((columns[Column.LOGPROB].detach() - batch.behaviour_logprobs)[batch.mask].abs().max())
    if not gap < 1e-4:
        problems.append(f"recorded and recomputed log-probabilities differ by {gap:.1e}; expected less than 1e-4")
    columns[Column.LOGPROB][batch.mask].sum().backward()
    gradients = [p.grad for p in policy.module.parameters() if p.grad is not None]
    if not any(bool(gradient.any()) for gradient in gradients):
        problems.append("the log-probabilities have no gradient in the module's parameters")
    if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
        problems.append("the gradient of the log-probabilities is not finite")
    policy.module.zero_grad(set_to_none=True)
    return problems
