"""ROVER: random policy valuation for diverse reasoning (arXiv:2509.24981)."""

from orchestrator.api import Component, Recipe, hookimpl

from .config import RoverConfig

PAPER = "arXiv:2509.24981"


@hookimpl
def provide_objectives() -> list[Component]:
    return [Component(name="rover", config=RoverConfig, build=".objective:Rover", paper=PAPER)]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)
