"""Recipes: each published method as an overlay over an experiment file. Sources are in the README."""

from __future__ import annotations

from orchestrator.api import Recipe

SFT = Recipe(
    name="sft",
    summary="supervised training on the tasks' demonstrations",
    overlay={
        "sampler": {"use": "demonstrations", "count": 1},
        "objective": {"use": "cross_entropy", "rows": "all", "reduction": "token_mean"},
    },
)

REINFORCE = Recipe(
    name="reinforce",
    summary="policy gradient with the reward to go and no baseline",
    paper="doi:10.1007/BF00992696",
    overlay={
        "sampler": {"use": "group", "count": 8},
        "advantage": {"use": "reward_to_go", "gamma": 1.0},
        "objective": {"use": "reinforce", "reduction": "sequence_sum"},
        "schedule": {"epochs": 1, "minibatches": 1},
    },
)

RLOO = Recipe(
    name="rloo",
    summary="REINFORCE with the siblings' mean as baseline",
    paper="arXiv:2402.14740",
    overlay={
        "sampler": {"use": "group", "count": 8},
        "advantage": {"use": "leave_one_out"},
        "objective": {"use": "reinforce", "reduction": "sequence_sum"},
        "schedule": {"epochs": 1, "minibatches": 1},
    },
)

GRPO = Recipe(
    name="grpo",
    summary="group-standardised advantages, clipped ratio",
    paper="arXiv:2402.03300",
    overlay={
        "sampler": {"use": "group", "count": 8},
        "advantage": {"use": "group_mean", "standardise": True},
        "objective": {
            "use": "clipped",
            "clip_low": 0.2,
            "clip_high": 0.2,
            "kl_weight": 0.0,  # Deviation: 0.04 in the paper; see the README
            "reduction": "sequence_mean",
        },
    },
)

DR_GRPO = Recipe(
    name="dr_grpo",
    summary="GRPO without the division by deviation and length",
    paper="arXiv:2503.20783",
    overlay={
        "sampler": {"use": "group", "count": 8},
        "advantage": {"use": "group_mean", "standardise": False},
        "objective": {"use": "clipped", "clip_low": 0.2, "clip_high": 0.2, "reduction": "constant"},
    },
)

DAPO = Recipe(
    name="dapo",
    summary="GRPO with a higher upper bound, token mean and only groups that differ",
    paper="arXiv:2503.14476",
    overlay={
        "sampler": {"use": "group", "count": 16},
        "advantage": {"use": "group_mean", "standardise": True},
        "objective": {"use": "clipped", "clip_low": 0.2, "clip_high": 0.28, "reduction": "token_mean"},
        "update": {"drop_constant_groups": True},
    },
)

PPO = Recipe(
    name="ppo",
    summary="clipped surrogate with a critic and generalised advantages",
    paper="arXiv:1707.06347",
    overlay={
        "sampler": {"use": "group", "count": 1},
        "advantage": {"use": "gae", "gamma": 0.99, "lam": 0.95, "whiten": True},
        "objective": {
            "use": "clipped",
            "clip_low": 0.2,
            "clip_high": 0.2,
            "value_weight": 0.5,
            "value_clip": 0.2,
            "entropy_weight": 0.0,
            "reduction": "token_mean",
        },
        "schedule": {"epochs": 4, "minibatches": 4},
        "optimizer": {"max_grad_norm": 0.5},
    },
)

RECIPES = (SFT, REINFORCE, RLOO, GRPO, DR_GRPO, DAPO, PPO)
