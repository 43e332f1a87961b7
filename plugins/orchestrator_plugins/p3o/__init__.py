"""P3O: pairwise proximal policy optimisation (arXiv:2310.00212)."""

from orchestrator.api import Component, Recipe, hookimpl

from .config import P3OConfig, ShiftedConfig

PAPER = "arXiv:2310.00212"


@hookimpl
def provide_objectives() -> list[Component]:
    return [Component(name="p3o", config=P3OConfig, build=".objective:P3O", paper=PAPER)]


@hookimpl
def provide_rewards() -> list[Component]:
    return [Component(name="shifted", config=ShiftedConfig, build=".shifted:shifted", paper=PAPER)]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)
