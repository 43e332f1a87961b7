"""The recipes: iterative DPO and SPPO with momentum between rounds."""

from orchestrator.api import Recipe

PAPER = "arXiv:2410.06293"
SCHEDULE = {
    "epochs": 1,
    "minibatches": 1,
    "steps_per_round": 10,
    "refresh_reference": "round",
    "refresh_optimizer": "round",
}

APO_DPO = Recipe(
    name="apo_dpo",
    summary="iterative DPO, each round started beyond the last one's result",
    paper=PAPER,
    overlay={
        "sampler": {"use": "group", "count": 5},
        "objective": {
            "use": "apo",
            "momentum": 0.3,
            "base": {"use": "dpo", "kl_weight": 0.1, "pairs": "best_worst"},
        },
        "schedule": SCHEDULE,
        "update": {"drop_constant_groups": True},
    },
)

APO_SPPO = Recipe(
    name="apo_sppo",
    summary="SPPO, each round started beyond the last one's result",
    paper=PAPER,
    overlay={
        "sampler": {"use": "group", "count": 5},
        "rewards": [{"use": "preference"}],
        "objective": {
            "use": "apo",
            "momentum": 0.3,
            "base": {"use": "sppo", "step_size": 1000.0, "log_partition": 0.5, "selection": "best_worst"},
        },
        "schedule": SCHEDULE,
    },
)

RECIPES = (APO_DPO, APO_SPPO)
