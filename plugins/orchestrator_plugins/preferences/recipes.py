"""The recipe: DPO in rounds, sampler and reference refreshed together."""

from orchestrator.api import Recipe

ITERATIVE_DPO = Recipe(
    name="iterative_dpo",
    summary="DPO in rounds: sample from the last round's policy, prefer the best sibling to the worst",
    paper="arXiv:2305.18290",
    overlay={
        "sampler": {"use": "group", "count": 5},
        "objective": {"use": "dpo", "kl_weight": 0.1, "pairs": "best_worst"},
        "schedule": {
            "epochs": 1,
            "minibatches": 1,
            "steps_per_round": 10,
            "refresh_reference": "round",
            "refresh_optimizer": "round",
        },
        "update": {"drop_constant_groups": True},  # without a preference there is nothing to compute
    },
)

RECIPES = (ITERATIVE_DPO,)
