"""The four methods as settings of one objective, and the pair of mechanisms on group advantages."""

from __future__ import annotations

from typing import Any

from orchestrator.api import Recipe

PAPER = "arXiv:2511.20718"
_CRITIC = {"value_weight": 1.0, "value_clip": 0.5}


def _recipe(name: str, summary: str, *, ratio: str, correction: str) -> Recipe:
    return Recipe(
        name=name,
        summary=summary,
        paper=PAPER,
        overlay={
            "sampler": {"use": "group", "count": 1},
            "advantage": {"use": "gae", "gamma": 1.0, "lam": 1.0, "whiten": True},
            "objective": _objective(ratio, correction) | _CRITIC,
            "schedule": {"epochs": 1, "minibatches": 2},
            "optimizer": {"max_grad_norm": 1.0},
        },
    )


def _objective(ratio: str, correction: str) -> dict[str, Any]:
    return {
        "use": "st_ppo",
        "ratio": ratio,
        "correction": correction,
        "clip_low": 0.2,
        "clip_high": 0.2,
        "kl_weight": 0.001,
        "entropy_weight": 0.0,
        "reduction": "sequence_mean",
    }


TOKEN_PPO = _recipe("token_ppo", "PPO with a critic, one ratio per token", ratio="token", correction="none")
TURN_PPO = _recipe("turn_ppo", "PPO with a critic, one ratio per turn", ratio="turn", correction="none")
S_PPO = _recipe(
    "s_ppo", "Token-PPO, its gradient divided by the norm of what clipping removed", ratio="token", correction="raw"
)
ST_PPO = _recipe(
    "st_ppo", "Turn-PPO, its gradient divided by the norm of what clipping removed", ratio="turn", correction="raw"
)
SO_GRPO = Recipe(
    name="so_grpo",
    summary="GRPO with one ratio per turn, its gradient divided by the norm of what clipping removed",
    paper=PAPER,
    overlay={
        "sampler": {"use": "group", "count": 8},
        "advantage": {"use": "group_mean", "standardise": True},
        "objective": _objective("turn", "raw"),
        "schedule": {"epochs": 1, "minibatches": 2},
        "optimizer": {"max_grad_norm": 1.0},
    },
)

RECIPES = (TOKEN_PPO, TURN_PPO, S_PPO, ST_PPO, SO_GRPO)
