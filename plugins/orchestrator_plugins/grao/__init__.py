"""GRAO: group relative alignment optimisation, imitation and exploration in one group (arXiv:2508.07750)."""

from orchestrator.api import Component, Recipe, hookimpl

from .config import GraoAdvantageConfig, GraoConfig, VersusDemonstrationConfig, WithDemonstrationConfig

PAPER = "arXiv:2508.07750"


@hookimpl
def provide_samplers() -> list[Component]:
    return [
        Component(
            name="with_demonstration",
            config=WithDemonstrationConfig,
            build=_sampler,
            summary="another sampler's groups, each with its task's demonstration as one more row",
            paper=PAPER,
        )
    ]


@hookimpl
def provide_rewards() -> list[Component]:
    return [
        Component(
            name="versus_demonstration",
            config=VersusDemonstrationConfig,
            build=_reward,
            summary="1 better, 0 equal, -1 worse than the group's demonstration by another reward",
            paper=PAPER,
        )
    ]


@hookimpl
def provide_advantage_estimators() -> list[Component]:
    return [
        Component(
            name="grao",
            config=GraoAdvantageConfig,
            build=".advantage:GraoAdvantage",
            summary="standardises rollouts and demonstration in one group",
            paper=PAPER,
        )
    ]


@hookimpl
def provide_objectives() -> list[Component]:
    return [
        Component(
            name="grao",
            config=GraoConfig,
            build=".objective:Grao",
            summary="explores by the rollouts, imitates the demonstration while it is better",
            paper=PAPER,
        )
    ]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)


def _sampler(config: WithDemonstrationConfig):
    from .sampler import WithDemonstration

    return WithDemonstration(config.base.build())


def _reward(config: VersusDemonstrationConfig):
    from .reward import VersusDemonstration

    return VersusDemonstration(config.base.build(), margin=config.margin)
