"""SPPO: self-play preference optimisation (arXiv:2405.00675)."""

from orchestrator.api import Component, Recipe, hookimpl

from .config import SppoConfig

PAPER = "arXiv:2405.00675"


@hookimpl
def provide_objectives() -> list[Component]:
    return [Component(name="sppo", config=SppoConfig, build=".objective:Sppo", paper=PAPER)]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)
