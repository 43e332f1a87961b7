"""What a plan must not ask of a curriculum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.api import Problem

if TYPE_CHECKING:
    from orchestrator.api import Plan, Settings


def plan_problems(plan: Plan) -> list[Problem]:
    """Look at every trial with the sampler ``curriculum``, each finding once."""
    found = [problem for trial in plan.trials for problem in _trial_problems(trial.settings)]
    return list({(problem.path, problem.message): problem for problem in found}.values())


def _trial_problems(settings: Settings) -> Iterator[Problem]:
    sampler, environment = settings.sampler, settings.environment
    if sampler is None or sampler.use != "curriculum":
        return
    if environment.use != "mixture":
        yield Problem(
            "sampler.use",
            f"curriculum chooses among the levels of environment mixture, and {environment.use} is none; wrap it: "
            f"environment: {{use: mixture, worlds: [{{use: {environment.use}, level: ...}}, ...]}}",
        )
        return
    known = [world["level"] for world in environment.options["worlds"]]
    for index, stage in enumerate(sampler.options["stages"]):
        for name in stage["levels"]:
            if name not in known:
                yield Problem(
                    f"sampler.stages.{index}.levels",
                    f"no level {name!r} in environment.worlds; its levels: {', '.join(known)}",
                )
