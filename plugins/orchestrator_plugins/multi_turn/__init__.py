"""Multi-turn agents: credit by turn, reward placement, curricula, worlds to try them in (arXiv:2510.01132)."""

from __future__ import annotations

from orchestrator.api import Component, Recipe, hookimpl

from .checks import plan_problems
from .config import (
    BilevelGaeConfig,
    CurriculumConfig,
    KlPenalisedConfig,
    MixtureConfig,
    ProgressConfig,
    ReinforcePlusPlusConfig,
    TurnGaeConfig,
)
from .environments import ENVIRONMENTS

PAPER = "arXiv:2510.01132"


@hookimpl
def provide_environments() -> list[Component]:
    return [
        Component(name="mixture", config=MixtureConfig, build=".mixture:mixture", paper=PAPER),
        *ENVIRONMENTS,
    ]


@hookimpl
def provide_samplers() -> list[Component]:
    return [Component(name="curriculum", config=CurriculumConfig, build=".curriculum:curriculum", paper=PAPER)]


@hookimpl
def provide_rewards() -> list[Component]:
    return [Component(name="progress", config=ProgressConfig, build=".rewards:Progress", paper=PAPER)]


@hookimpl
def provide_advantage_estimators() -> list[Component]:
    return [
        Component(name="turn_gae", config=TurnGaeConfig, build=".advantages:TurnGae", paper="arXiv:2510.16907"),
        Component(
            name="bilevel_gae", config=BilevelGaeConfig, build=".advantages:BilevelGae", paper="arXiv:2510.16907"
        ),
        Component(
            name="reinforce_plus_plus",
            config=ReinforcePlusPlusConfig,
            build=".advantages:ReinforcePlusPlus",
            paper="arXiv:2501.03262",
        ),
        Component(
            name="rloo",
            build=".advantages:Rloo",
            summary="reward minus the mean of its siblings; 0 and a warning where there is none",
            paper="arXiv:2402.14740",
        ),
        Component(name="kl_penalised", config=KlPenalisedConfig, build=".advantages:kl_penalised", paper=PAPER),
    ]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)


@hookimpl
def check_plan(plan):
    """Report curricula over levels that the environment does not have."""
    return plan_problems(plan)
