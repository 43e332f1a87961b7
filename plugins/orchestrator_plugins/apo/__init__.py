"""APO: accelerated preference optimisation, momentum between rounds (arXiv:2410.06293)."""

from orchestrator.api import Component, Recipe, hookimpl

from .checks import plan_problems
from .config import ApoConfig

PAPER = "arXiv:2410.06293"


@hookimpl
def provide_objectives() -> list[Component]:
    return [Component(name="apo", config=ApoConfig, build=".objective:apo", paper=PAPER)]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)


@hookimpl
def check_plan(plan):
    """Report trials whose reference or sampler would not follow the extrapolated weights."""
    return plan_problems(plan)
