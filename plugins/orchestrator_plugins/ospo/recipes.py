"""Recipes: the paper's method and the two it is compared with, identical but for the credit.

The released settings are a batch of one episode, ten updates on it, Adam at 1e-5, gradient norm 1. Deviation: its ten
minibatches are 256 decisions drawn with replacement; here each of the ten is the whole episode, the same gradient with
less noise. Its learning rate falls by 1 % an episode; here it is constant, see `optimizer.decay`.
"""

from __future__ import annotations

from typing import Any

from orchestrator.api import Recipe

PAPER = "arXiv:2507.15351"


def _overlay(advantage: dict[str, Any], objective: dict[str, Any]) -> dict[str, Any]:
    return {
        "sampler": {"use": "group", "count": 1},
        "advantage": advantage,
        "objective": objective,
        "schedule": {"tasks_per_step": 1, "epochs": 10, "minibatches": 1},
        "optimizer": {"use": "adamw", "lr": 1.0e-5, "max_grad_norm": 1.0},
    }


_CLIPPED = {"use": "pair_clipped", "clip_low": 0.2, "clip_high": 0.28, "entropy_weight": 0.05}

OSPO = Recipe(
    name="ospo",
    summary="one-step rewards compared over the fleet, no critic, no future",
    paper=PAPER,
    overlay=_overlay({"use": "one_step_group", "fairness_weight": 1.0}, _CLIPPED),
)

GRPO_DISPATCH = Recipe(
    name="grpo_dispatch",
    summary="rewards to go compared over the fleet, no critic",
    paper=PAPER,
    overlay=_overlay({"use": "fleet_return", "form": "group", "gamma": 0.99, "fairness_weight": 1.0}, _CLIPPED),
)

PPO_DISPATCH = Recipe(
    name="ppo_dispatch",
    summary="generalised advantages from a critic of vehicles",
    paper="arXiv:1707.06347",
    overlay=_overlay(
        {"use": "fleet_gae", "gamma": 0.99, "lam": 0.95},
        {
            "use": "clipped",
            "clip_low": 0.2,
            "clip_high": 0.28,
            "entropy_weight": 0.05,
            "value_weight": 0.5,
            "reduction": "token_mean",
        },
    ),
)

RECIPES = (OSPO, GRPO_DISPATCH, PPO_DISPATCH)
