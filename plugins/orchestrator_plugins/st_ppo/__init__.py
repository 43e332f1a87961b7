"""ST-PPO: ratios of whole turns, and steps divided by what clipping threw away (arXiv:2511.20718)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.api import Component, Problem, Recipe, ReportSection, hookimpl

from .config import StPpoConfig

if TYPE_CHECKING:
    from orchestrator.api import Study

PAPER = "arXiv:2511.20718"


@hookimpl
def provide_objectives() -> list[Component]:
    return [
        Component(
            name="st_ppo",
            config=StPpoConfig,
            build=".objective:make_objective",
            summary="clipped surrogate with ratios of tokens or turns, its gradient divided by what clipping removed",
            paper=PAPER,
        )
    ]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)


@hookimpl
def provide_report_sections() -> list[ReportSection]:
    return [ReportSection(name="st_ppo", title="Clipping and collapse", render=_section)]


@hookimpl
def check_plan(plan) -> Sequence[Problem]:
    from .checks import plan_problems

    return plan_problems(plan)


def _section(study: Study) -> str | None:
    from .report import render

    return render(study)
