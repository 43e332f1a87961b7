"""APO: accelerated preference optimisation, momentum between rounds (arXiv:2410.06293)."""

from orchestrator.api import Component, Recipe, hookimpl

from .checks import plan_problems
from .config import ApoConfig

PAPER = "arXiv:2410.06293"


@hookimpl
def provide_objectives() -> list[Component]:
    return [
        Component(
            name="apo",
            config=ApoConfig,
            build=_objective,
            summary="another objective, each round of which starts beyond the last one's result",
            paper=PAPER,
        )
    ]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)


@hookimpl
def check_plan(plan):
    """Report trials whose reference or sampler would not follow the extrapolated weights."""
    return plan_problems(plan)


def _objective(config: ApoConfig):
    from .objective import accelerated

    return accelerated(config.base.build(), config.momentum)
