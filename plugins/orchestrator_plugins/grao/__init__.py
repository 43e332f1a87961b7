"""GRAO: group relative alignment optimisation, imitation and exploration in one group (arXiv:2508.07750)."""

from orchestrator.api import Component, Recipe, hookimpl

from .config import GraoAdvantageConfig, GraoConfig, VersusDemonstrationConfig, WithDemonstrationConfig

PAPER = "arXiv:2508.07750"


@hookimpl
def provide_samplers() -> list[Component]:
    return [
        Component(
            name="with_demonstration", config=WithDemonstrationConfig, build=".sampler:with_demonstration", paper=PAPER
        )
    ]


@hookimpl
def provide_rewards() -> list[Component]:
    return [
        Component(
            name="versus_demonstration",
            config=VersusDemonstrationConfig,
            build=".reward:versus_demonstration",
            paper=PAPER,
        )
    ]


@hookimpl
def provide_advantage_estimators() -> list[Component]:
    return [Component(name="grao", config=GraoAdvantageConfig, build=".advantage:GraoAdvantage", paper=PAPER)]


@hookimpl
def provide_objectives() -> list[Component]:
    return [Component(name="grao", config=GraoConfig, build=".objective:Grao", paper=PAPER)]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)
