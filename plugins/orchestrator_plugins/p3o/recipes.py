"""The recipe: two answers a task, four passes, a little KL."""

from orchestrator.api import Recipe

P3O = Recipe(
    name="p3o",
    summary="pairwise policy gradient: no critic, blind to what a reward adds to all answers of a task",
    paper="arXiv:2310.00212",
    overlay={
        "sampler": {"use": "group", "count": 2},
        "objective": {"use": "p3o", "clipping": "separate", "clip": 0.2, "max_weight": 10.0, "kl_weight": 0.05},
        "schedule": {"epochs": 4, "minibatches": 4},
        "optimizer": {"betas": (0.9, 0.95), "weight_decay": 1e-6},
    },
)

RECIPES = (P3O,)
