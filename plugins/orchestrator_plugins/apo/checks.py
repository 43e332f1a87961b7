"""What in a plan would make momentum between rounds another method, or none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.api import Problem


def plan_problems(plan: Any) -> list[Problem]:
    """Look at every trial with the objective ``apo``, each finding once."""
    found = [problem for trial in plan.trials for problem in _trial_problems(trial.config)]
    return list({(problem.path, problem.message): problem for problem in found}.values())


def _trial_problems(config: Any) -> Iterator[Problem]:
    if (config.get("objective") or {}).get("use") != "apo":
        return
    if config["schedule"]["refresh_reference"] != "round":
        yield Problem(
            "schedule.refresh_reference",
            f"is {config['schedule']['refresh_reference']!r}, but objective apo refers each round to where it started; "
            f"set it to round",
        )
