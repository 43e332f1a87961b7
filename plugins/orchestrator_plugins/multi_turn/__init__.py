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
        Component(
            name="mixture",
            config=MixtureConfig,
            build=_mixture,
            summary="several environments as levels of one, trained by weight and tested each by itself",
            paper=PAPER,
        ),
        *ENVIRONMENTS,
    ]


@hookimpl
def provide_samplers() -> list[Component]:
    return [
        Component(
            name="curriculum",
            config=CurriculumConfig,
            build=_curriculum,
            summary="stages of task mixtures, the next once the present one is mastered",
            paper=PAPER,
        )
    ]


@hookimpl
def provide_rewards() -> list[Component]:
    return [
        Component(
            name="progress",
            config=ProgressConfig,
            build=".rewards:Progress",
            summary="share of a game's points by turn, or 1 at the end of a win",
            paper=PAPER,
        )
    ]


@hookimpl
def provide_advantage_estimators() -> list[Component]:
    return [
        Component(
            name="turn_gae",
            config=TurnGaeConfig,
            build=".advantages:TurnGae",
            summary="generalised advantages with a turn as one step",
            paper="arXiv:2510.16907",
        ),
        Component(
            name="bilevel_gae",
            config=BilevelGaeConfig,
            build=".advantages:BilevelGae",
            summary="generalised advantages over turns, then over the tokens of each",
            paper="arXiv:2510.16907",
        ),
        Component(
            name="reinforce_plus_plus",
            config=ReinforcePlusPlusConfig,
            build=".advantages:ReinforcePlusPlus",
            summary="reward to go across turns, whitened over the batch",
            paper="arXiv:2501.03262",
        ),
        Component(
            name="rloo",
            build=".advantages:Rloo",
            summary="reward minus the mean of its siblings; 0 and a warning where there is none",
            paper="arXiv:2402.14740",
        ),
        Component(
            name="kl_penalised",
            config=KlPenalisedConfig,
            build=_kl_penalised,
            summary="another estimator, on rewards that every token's KL to the reference is taken from",
            paper=PAPER,
        ),
    ]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)


@hookimpl
def check_plan(plan):
    """Report curricula over levels that the environment does not have."""
    return plan_problems(plan)


def _mixture(config: MixtureConfig):
    from .mixture import Level, mixed

    return mixed([Level(name=w.level, world=w.build(), weight=w.weight, evaluated=w.evaluated) for w in config.worlds])


def _curriculum(config: CurriculumConfig):
    from .curriculum import Curriculum

    return Curriculum(config, config.base.build())


def _kl_penalised(config: KlPenalisedConfig):
    from .advantages import KlPenalised

    return KlPenalised(config, config.inner.build())
