"""Recipes: DARS with mini-batches, and DARS-Breadth with full-batch epochs."""

from orchestrator.api import Recipe

_METHOD = {
    "sampler": {"use": "dars", "schedule": "equal_treatment", "pre_rollouts": 8, "max_rollouts": 32},
    "advantage": {"use": "group_mean", "standardise": False},
    "objective": {
        "use": "clipped",
        "clip_low": 0.2,
        "clip_high": 0.2,
        "entropy_weight": 0.001,
        "reduction": "constant",  # a sum: a mean per group or sequence would take the re-weighting back
    },
    "optimizer": {"max_grad_norm": 1.0},
}

DARS = Recipe(
    name="dars",
    summary="extra rollouts for hard tasks, two mini-batch steps",
    paper="arXiv:2508.13755",
    overlay=_METHOD | {"schedule": {"epochs": 1, "minibatches": 2}},
)

DARS_BREADTH = Recipe(
    name="dars_breadth",
    summary="extra rollouts for hard tasks, two full-batch steps; give it many schedule.tasks_per_step",
    paper="arXiv:2508.13755",
    overlay=_METHOD | {"schedule": {"epochs": 2, "minibatches": 1}},
)

RECIPES = (DARS, DARS_BREADTH)
