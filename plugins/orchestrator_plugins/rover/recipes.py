"""The recipe: group mean without deviation, four mini-batches."""

from orchestrator.api import Recipe

ROVER = Recipe(
    name="rover",
    summary="random policy valuation: keeps several right answers alive",
    paper="arXiv:2509.24981",
    overlay={
        "sampler": {"use": "group", "count": 8},
        "advantage": {"use": "group_mean", "standardise": False},
        "objective": {"use": "rover", "q_temperature": 1.0, "bootstrap_weight": 1.0},
        "schedule": {"epochs": 1, "minibatches": 4},  # with one it is REINFORCE with a group mean
        "optimizer": {"max_grad_norm": 1.0},
    },
)

RECIPES = (ROVER,)
