"""Recipes: the guide's agent training with four estimators. Learning rates are the file's: they belong to a model."""

from __future__ import annotations

from typing import Any

from orchestrator.api import Recipe

PAPER = "arXiv:2510.01132"

_SHARED: dict[str, Any] = {
    "rewards": [{"use": "progress", "placement": "per_turn"}],
    "schedule": {"epochs": 1, "minibatches": 1},  # one step per batch: the ratio is 1 and clipping never acts
    "optimizer": {"betas": [0.9, 0.999], "weight_decay": 0.01, "max_grad_norm": 1.0},
    "sampling": {"temperature": 0.7},
}
_SURROGATE: dict[str, Any] = {
    "use": "clipped",
    "clip_low": 0.2,
    "clip_high": 0.2,
    "dual_clip": 3.0,
    "entropy_weight": 0.0,
    "reduction": "token_mean",  # Deviation: the paper writes a sum; its code takes this mean
}


def _charged(weight: float, inner: dict[str, Any]) -> dict[str, Any]:
    return {"use": "kl_penalised", "weight": weight, "inner": inner}


PPO_AGENT = Recipe(
    name="ppo_agent",
    summary="token-level advantages across turns, a critic, the KL in the reward",
    paper=PAPER,
    overlay={
        **_SHARED,
        "sampler": {"use": "group", "count": 1},
        "advantage": _charged(0.01, {"use": "gae", "gamma": 1.0, "lam": 1.0, "whiten": True}),
        "objective": {**_SURROGATE, "value_weight": 1.0, "value_clip": 0.5},  # the half is in the critic's loss
    },
)

RLOO_AGENT = Recipe(
    name="rloo_agent",
    summary="the siblings' mean as baseline, the KL in the reward, no critic",
    paper=PAPER,
    overlay={
        **_SHARED,
        "sampler": {"use": "group", "count": 4},  # Deviation: one in the public recipe, which leaves no baseline
        "advantage": _charged(0.001, {"use": "rloo"}),
        "objective": _SURROGATE,
    },
)

GRPO_AGENT = Recipe(
    name="grpo_agent",
    summary="group-standardised advantages over whole episodes, the KL in the loss",
    paper=PAPER,
    overlay={
        **_SHARED,
        "sampler": {"use": "group", "count": 4},
        "advantage": {"use": "group_mean", "standardise": True},
        "objective": {**_SURROGATE, "kl_weight": 0.001, "kl_estimator": "k3"},
    },
)

REINFORCE_PLUS_PLUS_AGENT = Recipe(
    name="reinforce_plus_plus_agent",
    summary="reward to go across turns, whitened over the batch, the KL in the reward",
    paper=PAPER,
    overlay={
        **_SHARED,
        "sampler": {"use": "group", "count": 1},
        "advantage": _charged(0.001, {"use": "reinforce_plus_plus", "gamma": 1.0, "whiten": True}),
        "objective": _SURROGATE,
    },
)

RECIPES = (PPO_AGENT, RLOO_AGENT, GRPO_AGENT, REINFORCE_PLUS_PLUS_AGENT)
