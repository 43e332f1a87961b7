"""What a plan must not ask of the dispatcher."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.api import Problem, TrialSpec


def plan_problems(trials: Sequence[TrialSpec]) -> list[Problem]:
    """Refuse evaluations that would measure exploration, and episodes that the core would cut short."""
    found: dict[str, Problem] = {}
    for trial in trials:
        settings = trial.settings
        policy = settings.policy
        name = policy.use if policy is not None else None
        if policy is not None and name == "pair_scorer" and policy.options.get("epsilon", 1.0) > 0:
            temperature = settings.evaluation.temperature
            if temperature != 0:
                found["evaluation.temperature"] = Problem(
                    "evaluation.temperature",
                    f"it is {temperature}, so evaluation would explore as training does; set it to 0, "
                    f"which matches by the network's own scores, or set policy.epsilon to 0",
                )
        if name in ("nearest", "best_pair") and settings.schedule.steps > 0:
            found["schedule.steps"] = Problem(
                "schedule.steps", f"{name} is not trained; set it to 0: the evaluation is its result"
            )
        if settings.environment.use == "dispatch":
            turns, minutes = settings.sampling.max_turns, settings.environment.options.get("minutes", 30)
            if turns < minutes:
                found["sampling.max_turns"] = Problem(
                    "sampling.max_turns", f"it is {turns}, but an episode has {minutes} minutes; set it to {minutes}"
                )
    return list(found.values())
