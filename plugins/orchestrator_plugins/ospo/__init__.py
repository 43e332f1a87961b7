"""OSPO: dispatch of shared rides by one-step group comparison over the fleet (arXiv:2507.15351)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.api import Component, Problem, Recipe, ReportSection, Speaks, hookimpl

from .config import (
    DispatchConfig,
    FleetGaeConfig,
    FleetReturnConfig,
    OneStepGroupConfig,
    PairClippedConfig,
    PairScorerConfig,
    YardstickConfig,
)

if TYPE_CHECKING:
    from orchestrator.api import Study

PAPER = "arXiv:2507.15351"


@hookimpl
def provide_environments() -> list[Component]:
    return [
        Component(
            name="dispatch",
            config=DispatchConfig,
            build=_dispatch,
            speaks=Speaks.FEATURES,
            summary="shared rides in a city, minute by minute; every free vehicle is an agent",
            paper=PAPER,
        )
    ]


@hookimpl
def provide_policies() -> list[Component]:
    return [
        Component(
            name="pair_scorer",
            config=PairScorerConfig,
            build=_pair_scorer,
            speaks=Speaks.FEATURES,
            summary="scores every vehicle with every request, then matches the fleet",
            paper=PAPER,
        ),
        Component(
            name="nearest",
            config=YardstickConfig,
            build=_nearest,
            speaks=Speaks.FEATURES,
            summary="untrained yardstick: matching by minutes to the pick-up",
        ),
        Component(
            name="best_pair",
            config=YardstickConfig,
            build=_best_pair,
            speaks=Speaks.FEATURES,
            summary="untrained yardstick: matching by the exact reward of this minute",
        ),
    ]


@hookimpl
def provide_advantage_estimators() -> list[Component]:
    return [
        Component(
            name="one_step_group",
            config=OneStepGroupConfig,
            build=_one_step_group,
            summary="this step's reward against those matched in the same step",
            paper=PAPER,
        ),
        Component(
            name="fleet_return",
            config=FleetReturnConfig,
            build=_fleet_return,
            summary="discounted reward to go against those matched in the same step",
            paper=PAPER,
        ),
        Component(
            name="fleet_gae",
            config=FleetGaeConfig,
            build=_fleet_gae,
            summary="generalised advantages over decisions that are several steps apart",
            paper="arXiv:1506.02438",
        ),
    ]


@hookimpl
def provide_objectives() -> list[Component]:
    return [
        Component(
            name="pair_clipped",
            config=PairClippedConfig,
            build=_pair_clipped,
            summary="clipped surrogate with entropy and a KL over all requests",
            paper=PAPER,
        )
    ]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)


@hookimpl
def provide_report_sections() -> list[ReportSection]:
    return [ReportSection(name="dispatch", title="Ride dispatch", render=_section)]


@hookimpl
def check_plan(plan: Any) -> list[Problem]:
    from .checks import plan_problems

    return plan_problems(plan.trials)


def _dispatch(config: DispatchConfig) -> Any:
    from .environment import Dispatch

    return Dispatch(config)


def _pair_scorer(config: PairScorerConfig) -> Any:
    from .policy import PairScorer

    return PairScorer(config)


def _nearest(_: YardstickConfig) -> Any:
    from .yardsticks import Nearest

    return Nearest()


def _best_pair(_: YardstickConfig) -> Any:
    from .yardsticks import BestPair

    return BestPair()


def _one_step_group(config: OneStepGroupConfig) -> Any:
    from .advantages import OneStepGroup

    return OneStepGroup(config)


def _fleet_return(config: FleetReturnConfig) -> Any:
    from .advantages import FleetReturn

    return FleetReturn(config)


def _fleet_gae(config: FleetGaeConfig) -> Any:
    from .advantages import FleetGae

    return FleetGae(config)


def _pair_clipped(config: PairClippedConfig) -> Any:
    from .objective import PairClipped

    return PairClipped(config)


def _section(study: Study) -> str | None:
    from .report import render

    return render(study)
