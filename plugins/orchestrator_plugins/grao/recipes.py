"""The recipe: eight rollouts and the demonstration, one optimiser step."""

from orchestrator.api import Recipe

GRAO = Recipe(
    name="grao",
    summary="imitates the demonstration while it is better than the rollouts, then moves past it",
    paper="arXiv:2508.07750",
    overlay={
        "sampler": {"use": "with_demonstration", "base": {"use": "group", "count": 8}},
        "advantage": {"use": "grao", "statistics": "joint"},
        "objective": {"use": "grao", "imitation_weight": 0.5, "alignment_weight": 0.6},
        "schedule": {"epochs": 1, "minibatches": 1},
        "optimizer": {"weight_decay": 0.01, "max_grad_norm": 1.0},
    },
)

RECIPES = (GRAO,)
