"""Baselines: the samplers, rewards, estimators, objectives and recipes every comparison starts from."""

from __future__ import annotations

from orchestrator.api import Component, Recipe, hookimpl

from .config import (
    ClippedConfig,
    CombinedConfig,
    CrossEntropyConfig,
    DemonstrationsConfig,
    GaeConfig,
    GroupConfig,
    GroupMeanConfig,
    ReinforceConfig,
    RewardToGoConfig,
)


@hookimpl
def provide_samplers() -> list[Component]:
    return [
        Component(name="group", config=GroupConfig, build=".samplers:Group", paper="arXiv:2402.03300"),
        Component(name="demonstrations", config=DemonstrationsConfig, build=".samplers:Demonstrations"),
    ]


@hookimpl
def provide_rewards() -> list[Component]:
    return [
        Component(name="exact", build=".rewards:Exact", summary="1 for the right answer, else 0"),
        Component(
            name="environment",
            build=".rewards:EnvironmentReward",
            summary="the sum of what the environment paid, by turn",
        ),
        Component(name="combined", config=CombinedConfig, build=".rewards:combined"),
    ]


@hookimpl
def provide_advantage_estimators() -> list[Component]:
    return [
        Component(name="group_mean", config=GroupMeanConfig, build=".advantages:GroupMean", paper="arXiv:2402.03300"),
        Component(
            name="leave_one_out",
            build=".advantages:LeaveOneOut",
            summary="reward minus the mean of its siblings",
            paper="arXiv:2402.14740",
        ),
        Component(name="reward_to_go", config=RewardToGoConfig, build=".advantages:RewardToGo"),
        Component(name="gae", config=GaeConfig, build=".advantages:Gae", paper="arXiv:1506.02438"),
    ]


@hookimpl
def provide_objectives() -> list[Component]:
    return [
        Component(name="clipped", config=ClippedConfig, build=".objectives:Clipped", paper="arXiv:1707.06347"),
        Component(
            name="reinforce", config=ReinforceConfig, build=".objectives:Reinforce", paper="doi:10.1007/BF00992696"
        ),
        Component(name="cross_entropy", config=CrossEntropyConfig, build=".objectives:CrossEntropy"),
    ]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)
