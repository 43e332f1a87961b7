"""What in a plan would make momentum between rounds another method, or none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.api import Problem

if TYPE_CHECKING:
    from orchestrator.api import Plan, Settings


def plan_problems(plan: Plan) -> list[Problem]:
    """Look at every trial with the objective ``apo``, each finding once."""
    found = [problem for trial in plan.trials for problem in _trial_problems(trial.settings)]
    return list({(problem.path, problem.message): problem for problem in found}.values())


def _trial_problems(settings: Settings) -> Iterator[Problem]:
    if settings.objective is None or settings.objective.use != "apo":
        return
    if settings.schedule.refresh_reference != "round":
        yield Problem(
            "schedule.refresh_reference",
            f"is {settings.schedule.refresh_reference!r}, but objective apo refers each round to where it started; "
            f"set it to round",
        )
