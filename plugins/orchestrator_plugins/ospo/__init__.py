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
            build=".environment:Dispatch",
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
            build=".policy:PairScorer",
            speaks=Speaks.FEATURES,
            summary="scores every vehicle with every request, then matches the fleet",
            paper=PAPER,
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
        Component(
            name="one_step_group",
            config=OneStepGroupConfig,
            build=".advantages:OneStepGroup",
            summary="this step's reward against those matched in the same step",
            paper=PAPER,
        ),
        Component(
            name="fleet_return",
            config=FleetReturnConfig,
            build=".advantages:FleetReturn",
            summary="discounted reward to go against those matched in the same step",
            paper=PAPER,
        ),
        Component(
            name="fleet_gae",
            config=FleetGaeConfig,
            build=".advantages:FleetGae",
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
            build=".objective:PairClipped",
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


def _section(study: Study) -> str | None:
    from .report import render

    return render(study)
