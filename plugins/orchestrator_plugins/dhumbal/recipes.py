"""Recipes: deep Q-learning, and PPO as the Dhumbal study runs it."""

from orchestrator.api import Recipe

RECIPES = (
    Recipe(
        name="dqn",
        summary="deep Q-learning: replay, a target network refreshed every round",
        paper="doi:10.1038/nature14236",
        overlay={
            "sampler": {"use": "replay"},
            "advantage": {"use": "reward_to_go"},  # read by nobody: the objective makes its own targets
            "objective": {"use": "q_learning"},
            "schedule": {"epochs": 1, "minibatches": 8, "steps_per_round": 10, "refresh_reference": "round"},
            "optimizer": {"lr": 1e-4},
        },
    ),
    Recipe(
        name="dhumbal_ppo",
        summary="PPO with the numbers of the Dhumbal study",
        paper="arXiv:2510.11736",
        overlay={
            "sampler": {"use": "group", "count": 1},
            "advantage": {"use": "gae", "gamma": 0.99, "lam": 0.95, "whiten": True},
            "objective": {
                "use": "clipped",
                "clip_low": 0.2,
                "clip_high": 0.2,
                "value_weight": 0.5,
                "entropy_weight": 0.01,
                "reduction": "token_mean",
            },
            "schedule": {"epochs": 5, "minibatches": 1, "tasks_per_step": 1},
            "optimizer": {"lr": 1e-4},
        },
    ),
)
