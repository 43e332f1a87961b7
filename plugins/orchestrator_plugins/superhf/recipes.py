"""The recipe: best of sixteen, one supervised step, held near the initial policy."""

from orchestrator.api import Recipe

SUPERHF = Recipe(
    name="superhf",
    summary="supervised steps on the best of sixteen samples, held near the initial policy",
    paper="arXiv:2310.16763",
    overlay={
        "sampler": {"use": "best_of", "count": 16, "keep": 1},
        "objective": {"use": "superhf", "kl_weight": 0.35},
        "schedule": {"epochs": 1, "minibatches": 1, "refresh_reference": "never"},
        "optimizer": {"warmup": 32, "decay": "cosine", "weight_decay": 0.01, "max_grad_norm": None},
    },
)

RECIPES = (SUPERHF,)
