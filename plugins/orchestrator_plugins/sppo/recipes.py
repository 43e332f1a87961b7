"""The recipe: rounds of five answers a task, best against worst."""

from orchestrator.api import Recipe

SPPO = Recipe(
    name="sppo",
    summary="self-play preference optimisation: win rates against the last round's policy, learnt as a regression",
    paper="arXiv:2405.00675",
    overlay={
        "sampler": {"use": "group", "count": 5},
        "rewards": [{"use": "preference"}],
        "objective": {"use": "sppo", "step_size": 1000.0, "log_partition": 0.5, "selection": "best_worst"},
        "schedule": {
            "epochs": 1,
            "minibatches": 1,
            "steps_per_round": 10,
            "refresh_reference": "round",
            "refresh_optimizer": "round",
        },
    },
)

RECIPES = (SPPO,)
