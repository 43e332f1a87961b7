"""OSPO: dispatch of shared rides by one-step group comparison over the fleet (arXiv:2507.15351)."""

from __future__ import annotations

from typing import Any

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

PAPER = "arXiv:2507.15351"


@hookimpl
def provide_environments() -> list[Component]:
    return [
        Component(
            name="dispatch", config=DispatchConfig, build=".environment:Dispatch", speaks=Speaks.FEATURES, paper=PAPER
        )
    ]


@hookimpl
def provide_policies() -> list[Component]:
    return [
        Component(
            name="pair_scorer", config=PairScorerConfig, build=".policy:PairScorer", speaks=Speaks.FEATURES, paper=PAPER
        ),
        Component(
            name="nearest",
            config=YardstickConfig,
            build=".yardsticks:Nearest",
            speaks=Speaks.FEATURES,
            summary="untrained yardstick: matching by minutes to the pick-up",
        ),
        Component(
            name="best_pair",
            config=YardstickConfig,
            build=".yardsticks:BestPair",
            speaks=Speaks.FEATURES,
            summary="untrained yardstick: matching by the exact reward of this minute",
        ),
    ]


@hookimpl
def provide_advantage_estimators() -> list[Component]:
    return [
        Component(name="one_step_group", config=OneStepGroupConfig, build=".advantages:OneStepGroup", paper=PAPER),
        Component(name="fleet_return", config=FleetReturnConfig, build=".advantages:FleetReturn", paper=PAPER),
        Component(name="fleet_gae", config=FleetGaeConfig, build=".advantages:FleetGae", paper="arXiv:1506.02438"),
    ]


@hookimpl
def provide_objectives() -> list[Component]:
    return [Component(name="pair_clipped", config=PairClippedConfig, build=".objective:PairClipped", paper=PAPER)]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)


@hookimpl
def provide_report_sections() -> list[ReportSection]:
    return [ReportSection(name="dispatch", title="Ride dispatch", render=".report:render")]


@hookimpl
def check_plan(plan: Any) -> list[Problem]:
    from .checks import plan_problems

    return plan_problems(plan.trials)
