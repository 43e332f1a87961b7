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
        Component(
            name="group",
            config=GroupConfig,
            build=_group,
            summary="every task gets the same number of rollouts",
            paper="arXiv:2402.03300",
        ),
        Component(
            name="demonstrations",
            config=DemonstrationsConfig,
            build=_demonstrations,
            summary="plays each task's demonstration instead of asking the policy",
        ),
    ]


@hookimpl
def provide_rewards() -> list[Component]:
    return [
        Component(name="exact", build=_exact, summary="1 for the right answer, else 0"),
        Component(name="environment", build=_environment, summary="the sum of what the environment paid, by turn"),
        Component(name="combined", config=CombinedConfig, build=_combined, summary="weighted sum of other rewards"),
    ]


@hookimpl
def provide_advantage_estimators() -> list[Component]:
    return [
        Component(
            name="group_mean",
            config=GroupMeanConfig,
            build=_group_mean,
            summary="reward minus the mean of its group",
            paper="arXiv:2402.03300",
        ),
        Component(
            name="leave_one_out",
            build=_leave_one_out,
            summary="reward minus the mean of its siblings",
            paper="arXiv:2402.14740",
        ),
        Component(
            name="reward_to_go",
            config=RewardToGoConfig,
            build=_reward_to_go,
            summary="discounted reward from here on, no baseline",
        ),
        Component(
            name="gae",
            config=GaeConfig,
            build=_gae,
            summary="generalised advantages from a critic",
            paper="arXiv:1506.02438",
        ),
    ]


@hookimpl
def provide_objectives() -> list[Component]:
    return [
        Component(
            name="clipped",
            config=ClippedConfig,
            build=_clipped,
            summary="clipped surrogate with optional dual clip, KL, entropy bonus and critic",
            paper="arXiv:1707.06347",
        ),
        Component(
            name="reinforce",
            config=ReinforceConfig,
            build=_reinforce,
            summary="log-probability times advantage",
            paper="doi:10.1007/BF00992696",
        ),
        Component(
            name="cross_entropy",
            config=CrossEntropyConfig,
            build=_cross_entropy,
            summary="likelihood of the rows' tokens: supervised training, or rejection sampling",
        ),
    ]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)


def _group(config: GroupConfig):
    from .samplers import Group

    return Group(config)


def _demonstrations(config: DemonstrationsConfig):
    from .samplers import Demonstrations

    return Demonstrations(config)


def _exact(_):
    from .rewards import Exact

    return Exact()


def _environment(_):
    from .rewards import EnvironmentReward

    return EnvironmentReward()


def _combined(config: CombinedConfig):
    from .rewards import Combined

    return Combined([(use.use, use.weight, use.build()) for use in config.rewards])


def _group_mean(config: GroupMeanConfig):
    from .advantages import GroupMean

    return GroupMean(config)


def _leave_one_out(_):
    from .advantages import LeaveOneOut

    return LeaveOneOut()


def _reward_to_go(config: RewardToGoConfig):
    from .advantages import RewardToGo

    return RewardToGo(config)


def _gae(config: GaeConfig):
    from .advantages import Gae

    return Gae(config)


def _clipped(config: ClippedConfig):
    from .objectives import Clipped

    return Clipped(config)


def _reinforce(config: ReinforceConfig):
    from .objectives import Reinforce

    return Reinforce(config)


def _cross_entropy(config: CrossEntropyConfig):
    from .objectives import CrossEntropy

    return CrossEntropy(config)
