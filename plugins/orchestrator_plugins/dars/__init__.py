"""DARS: difficulty-adaptive rollout sampling, and full-batch breadth scaling (arXiv:2508.13755)."""

from orchestrator.api import Component, Recipe, hookimpl

from .config import DarsConfig, DarsWeightsConfig

PAPER = "arXiv:2508.13755"


@hookimpl
def provide_samplers() -> list[Component]:
    return [Component(name="dars", config=DarsConfig, build=".sampler:Dars", paper=PAPER)]


@hookimpl
def provide_advantage_estimators() -> list[Component]:
    return [Component(name="dars_weights", config=DarsWeightsConfig, build=".weights:DarsWeights", paper=PAPER)]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)
