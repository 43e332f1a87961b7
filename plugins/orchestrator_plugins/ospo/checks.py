"""What a plan must not ask of the dispatcher."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.api import Problem


def plan_problems(trials: Sequence) -> list[Problem]:
    """Refuse evaluations that would measure exploration, and episodes that the core would cut short."""
    found: dict[str, Problem] = {}
    for trial in trials:
        policy, environment = trial.config.get("policy") or {}, trial.config["environment"]
        if policy.get("use") == "pair_scorer" and policy.get("epsilon", 1.0) > 0:
            temperature = trial.config["evaluation"]["temperature"]
            if temperature != 0:
                found["evaluation.temperature"] = Problem(
                    "evaluation.temperature",
                    f"it is {temperature}, so evaluation would explore as training does; set it to 0, "
                    f"which matches by the network's own scores, or set policy.epsilon to 0",
                )
        if policy.get("use") in ("nearest", "best_pair") and trial.config["schedule"]["steps"] > 0:
            found["schedule.steps"] = Problem(
                "schedule.steps", f"{policy['use']} is not trained; set it to 0: the evaluation is its result"
            )
        if environment["use"] == "dispatch":
            turns, minutes = trial.config["sampling"]["max_turns"], environment.get("minutes", 30)
            if turns < minutes:
                found["sampling.max_turns"] = Problem(
                    "sampling.max_turns", f"it is {turns}, but an episode has {minutes} minutes; set it to {minutes}"
                )
    return list(found.values())
