"""DARS: difficulty-adaptive rollout sampling, and full-batch breadth scaling (arXiv:2508.13755)."""

from orchestrator.api import Component, Recipe, hookimpl

from .config import DarsConfig, DarsWeightsConfig

PAPER = "arXiv:2508.13755"


@hookimpl
def provide_samplers() -> list[Component]:
    return [
        Component(
            name="dars",
            config=DarsConfig,
            build=".sampler:Dars",
            summary="a few rollouts for every task, then more for the hard ones",
            paper=PAPER,
        )
    ]


@hookimpl
def provide_advantage_estimators() -> list[Component]:
    return [
        Component(
            name="dars_weights",
            config=DarsWeightsConfig,
            build=".weights:DarsWeights",
            summary="control: weighs hard tasks as DARS would, without sampling more of them",
            paper=PAPER,
        )
    ]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)
