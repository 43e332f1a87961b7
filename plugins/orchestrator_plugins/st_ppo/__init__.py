"""ST-PPO: ratios of whole turns, and steps divided by what clipping threw away (arXiv:2511.20718)."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.api import Component, Problem, Recipe, ReportSection, hookimpl

from .config import StPpoConfig

PAPER = "arXiv:2511.20718"


@hookimpl
def provide_objectives() -> list[Component]:
    return [Component(name="st_ppo", config=StPpoConfig, build=".objective:make_objective", paper=PAPER)]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)


@hookimpl
def provide_report_sections() -> list[ReportSection]:
    return [ReportSection(name="st_ppo", title="Clipping and collapse", render=".report:render")]


@hookimpl
def check_plan(plan) -> Sequence[Problem]:
    from .checks import plan_problems

    return plan_problems(plan)
